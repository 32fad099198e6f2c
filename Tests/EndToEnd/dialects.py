"""The three APIs as a client sees them: bodies to send, answers and errors to read."""

import json
from dataclasses import dataclass


def sse(lines):
    """Server-sent events of an iterator of lines, as (name, data); data is parsed JSON, or the text `[DONE]`."""
    name, data = None, []
    for line in lines:
        line = line.rstrip("\r")
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif line == "" and (name or data):
            text = "\n".join(data)
            yield name, (text if text == "[DONE]" or not text else json.loads(text))
            name, data = None, []


def events_of(text):
    return list(sse(text.split("\n")))


@dataclass(frozen=True)
class Chat:
    """The OpenAI or the Anthropic dialect."""

    name: str
    path: str

    def __str__(self):
        return self.name

    def body(self, prompt, system=None, history=(), blocks=False, **extra):
        """A request. `history` is (role, text) pairs; `blocks` sends each content as an array of blocks."""

        def content(text):
            return [{"type": "text", "text": text}] if blocks else text

        messages = [{"role": role, "content": content(text)} for role, text in [*history, ("user", prompt)]]
        body = {"model": "sonnet", "messages": messages}
        if self.name == "anthropic":
            body["max_tokens"] = 1024
            if system is not None:
                body["system"] = content(system)
        elif system is not None:
            messages.insert(0, {"role": "system", "content": content(system)})
        body.update(extra)
        return {name: value for name, value in body.items() if value is not None}

    def text(self, answer):
        if self.name == "openai":
            return answer["choices"][0]["message"]["content"]
        return "".join(block["text"] for block in answer["content"])

    def stop(self, answer):
        return answer["choices"][0]["finish_reason"] if self.name == "openai" else answer["stop_reason"]

    def streamed_text(self, events):
        if self.name == "openai":
            return "".join(
                choice["delta"].get("content") or ""
                for _, data in events if isinstance(data, dict) for choice in data.get("choices", []))
        return "".join(
            data["delta"].get("text", "") for name, data in events if name == "content_block_delta")

    def is_whole(self, events):
        """Whether the stream has its terminal event."""
        if self.name == "openai":
            return any(data == "[DONE]" for _, data in events)
        return any(name == "message_stop" for name, _ in events)

    def error_events(self, events):
        if self.name == "openai":
            return [data for _, data in events if isinstance(data, dict) and "error" in data]
        return [data for name, data in events if name == "error"]


@dataclass(frozen=True)
class Direct:
    """`POST /api/run`."""

    name: str = "direct"
    path: str = "/api/run"

    def __str__(self):
        return self.name

    def body(self, prompt, system=None, history=(), blocks=False, **extra):
        assert system is None and not history and not blocks
        return {name: value for name, value in {"prompt": prompt, **extra}.items() if value is not None}

    def text(self, answer):
        return answer["result"]


OPENAI = Chat("openai", "/v1/chat/completions")
ANTHROPIC = Chat("anthropic", "/v1/messages")
DIRECT = Direct()
CHATS = [OPENAI, ANTHROPIC]
ALL = [OPENAI, ANTHROPIC, DIRECT]


def check_error(dialect, body, code=None, parameter=None):
    """Checks an error body's exact shape; `code` is the direct dialect's name of it, or a dialect's own. Returns its message."""
    name = str(dialect)
    if name == "openai":
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
        if code:
            assert body["error"]["code"] == {"auth_error": "invalid_api_key", "rate_limit": "rate_limit_exceeded"}.get(code, code)
        if parameter:
            assert body["error"]["param"] == parameter, body
    elif name == "anthropic":
        assert body["type"] == "error" and set(body) == {"type", "error", "request_id"}, body
        assert set(body["error"]) == {"type", "message"}, body
        if code in ANTHROPIC_TYPES:
            assert body["error"]["type"] == ANTHROPIC_TYPES[code], body
    else:
        assert set(body) == {"error"} and {"code", "message"} <= set(body["error"]) <= {"code", "message", "details"}, body
        if code:
            assert body["error"]["code"] == code, body
        if parameter:
            assert body["error"]["details"]["parameter"] == parameter, body
    message = body["error"]["message"]
    assert isinstance(message, str) and len(message) > 10
    if parameter:
        assert parameter in message, message
    return message


ANTHROPIC_TYPES = {
    "invalid_request": "invalid_request_error",
    "method_not_allowed": "invalid_request_error",
    "auth_error": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "model_not_found": "not_found_error",
    "request_too_large": "request_too_large",
    "queue_full": "rate_limit_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "queue_timeout": "timeout_error",
    "upstream_error": "api_error",
    "upstream_auth_error": "api_error",
    "cli_error": "api_error",
    "cli_not_found": "api_error",
    "bad_gateway": "api_error",
}
