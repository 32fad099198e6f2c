"""A client that looks at its clock: when the first text of an answer came, and when the answer was whole."""

import json
import re
import socket
import time
from dataclasses import dataclass, field

from service import Dechunker

# A delta with text in it: comments, the role's chunk and empty deltas do not count.
CONTENT = {"openai": re.compile(rb'"content":"[^"]'), "anthropic": re.compile(rb'"type":"text_delta","text":"[^"]')}
CALL = {"openai": re.compile(rb'"tool_calls":\['), "anthropic": re.compile(rb'"type":"tool_use"')}
ENDING = {"openai": b"data: [DONE]", "anthropic": b"event: message_stop"}


@dataclass
class Reading:
    """One streamed answer."""

    first: float = 0.0
    end: float = 0.0
    text: bytes = b""
    events: list = field(default_factory=list)


def ask(service, dialect, body, tls=True, wanted=CONTENT):
    """Sends a streaming request on a connection of its own; the time begins before the connection is made.

    - wanted: what is looked for as the answer's beginning.
    """
    text = json.dumps({**body, "stream": True}).encode()
    head = (f"POST {dialect.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n").encode()
    context = service.tls_context() if tls else None
    reading, dechunker, pattern = Reading(), Dechunker(), wanted[str(dialect)]
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", service.tls_port if tls else service.port), 120) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            connection = context.wrap_socket(connection, server_hostname="localhost")
        connection.sendall(head + text)
        while not dechunker.is_ended and (chunk := connection.recv(1 << 18)):
            reading.text += dechunker.feed(chunk)
            if not reading.first and pattern.search(reading.text):
                reading.first = time.perf_counter() - began
        reading.end = time.perf_counter() - began
        connection.close()
    assert reading.first and ENDING[str(dialect)] in reading.text, reading.text[-600:]
    return reading


def call_of(dialect, reading):
    """The one tool call of a streamed answer, as (id, name, arguments as text)."""
    name = identifier = arguments = ""
    for event in re.findall(rb"data: (\{.*)", reading.text):
        data = json.loads(event)
        if str(dialect) == "openai":
            for choice in data.get("choices", []):
                for call in choice["delta"].get("tool_calls", []):
                    identifier = call.get("id") or identifier
                    name = call["function"].get("name") or name
                    arguments += call["function"].get("arguments", "")
        elif data.get("type") == "content_block_start" and data["content_block"]["type"] == "tool_use":
            identifier, name = data["content_block"]["id"], data["content_block"]["name"]
        elif data.get("type") == "content_block_delta":
            arguments += data["delta"].get("partial_json", "")
    return identifier, name, arguments


def text_of(dialect, reading):
    """The text of a streamed answer."""
    parts = []
    for event in re.findall(rb"data: (\{.*)", reading.text):
        data = json.loads(event)
        if str(dialect) == "openai":
            parts += [choice["delta"].get("content") or "" for choice in data.get("choices", [])]
        elif data.get("type") == "content_block_delta":
            parts.append(data["delta"].get("text", ""))
    return "".join(parts)
