"""Enough of FastCGI to ask a responder without nginx, and to be a responder behind it."""

import contextlib
import select
import socket
import struct
import threading
from pathlib import Path


def _record(kind, content):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def _pair(name, value):
    name, value = name.encode(), value.encode()
    return b"".join(
        bytes([len(part)]) if len(part) < 128 else struct.pack(">I", len(part) | 1 << 31) for part in (name, value)) + name + value


def get(path, uri, seconds=30, **parameters):
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


class Request:
    """What a responder was asked, and its way to answer."""

    def __init__(self, connection, parameters, body):
        self.connection, self.parameters, self.body = connection, parameters, body

    def send(self, text):
        """Sends a piece of the reply."""
        data = text if isinstance(text, bytes) else text.encode()
        for start in range(0, len(data), 65528):
            self.connection.sendall(_record(6, data[start : start + 65528]))

    def is_abandoned(self, seconds):
        """Whether nginx closes the connection within this time."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        return bool(poll.poll(seconds * 1000))


class Responder:
    """A FastCGI responder on a Unix socket: calls `answer(request)` for each request, on a thread of its own. A context manager."""

    def __init__(self, path, answer):
        self.path, self.answer = Path(path), answer
        self.requests = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            pairs, body, is_whole = b"", b"", False
            stream = connection.makefile("rb")
            while not is_whole:
                head = stream.read(8)
                if len(head) < 8:
                    return
                _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", head)
                content = stream.read(length + padding)[:length]
                pairs += content if kind == 4 else b""
                body += content if kind == 5 else b""
                is_whole = kind == 5 and not length
            request = Request(connection, _parameters(pairs), body)
            self.requests.append(request)
            # False: end without a word, as one that is killed.
            if self.answer(request) is not False:
                connection.sendall(_record(6, b"") + _record(3, bytes(8)))


def _parameters(data):
    """The pairs of a PARAMS stream."""
    found, place = {}, 0

    def length():
        nonlocal place
        size = data[place]
        place += 1
        if size >> 7:
            size = struct.unpack(">I", data[place - 1 : place + 3])[0] & 0x7FFFFFFF
            place += 3
        return size

    while place < len(data):
        sizes = length(), length()
        name, value = data[place : place + sizes[0]], data[place + sizes[0] : place + sum(sizes)]
        found[name.decode()] = value.decode("utf-8", "surrogateescape")
        place += sum(sizes)
    return found
