"""Enough of a FastCGI client to ask a responder without nginx."""

import socket
import struct


def _record(kind, content):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def _pair(name, value):
    name, value = name.encode(), value.encode()
    return b"".join(
        bytes([len(part)]) if len(part) < 128 else struct.pack(">I", len(part) | 1 << 31) for part in (name, value)) + name + value


def get(path, uri, seconds=10, **parameters):
    """GET a URI from the responder on a Unix socket; the status and the body of its answer."""
    parameters = {"REQUEST_METHOD": "GET", "REQUEST_URI": uri, "CONTENT_LENGTH": "", "REQUEST_ID": "0" * 32, **parameters}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(path))
        pairs = b"".join(_pair(name, value) for name, value in parameters.items())
        connection.sendall(
            _record(1, struct.pack(">HB5x", 1, 0)) + _record(4, pairs) + _record(4, b"") + _record(5, b""))
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    answer = b""
    while len(data) >= 8:
        _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", data[:8])
        if kind == 6:
            answer += data[8 : 8 + length]
        data = data[8 + length + padding :]
    head, _, body = answer.partition(b"\r\n\r\n")
    status = [line for line in head.split(b"\r\n") if line.lower().startswith(b"status:")]
    return int(status[0].split()[1]) if status else 200, body
