"""A peer: the official Agent SDK's `query()` behind the smallest possible FastAPI route, the same CLI, the same upstream.

It is the floor of what a wrapper in Python does: no keys, no admission, no history, no TLS. Its packages come from PyPI into `.venv-bench`, which is made
the first time.
"""

import json
import socket
import subprocess
import sys
import time

from dialects import ANTHROPIC
from service import free_port

from . import CHECKOUT
from .by_hand import ByHand
from .client import Reading, ask
from .first_delta import SYSTEM
from .running import process, service, settle, ways

VENV = CHECKOUT / ".venv-bench"
PACKAGES = ["claude-agent-sdk", "fastapi", "uvicorn"]


def run(figures, options):
    python = prepare()
    if python is None:
        figures.note("no peer: PyPI could not be reached for " + ", ".join(PACKAGES))
        return
    for way, settings in ways():
        with service(**settings) as running:
            hand = ByHand(running, options.cli)
            try:
                compare(figures, options, running, hand, python, way)
            finally:
                hand.close()


def prepare():
    """The venv's Python; None where the packages can't be had."""
    python = VENV / "bin/python"
    if subprocess.run([python, "-c", "import claude_agent_sdk, fastapi, uvicorn"], capture_output=True).returncode if python.exists() else True:
        print("  making .venv-bench", flush=True)
        for arguments in (["-m", "venv", str(VENV)], None):
            command = [sys.executable, *arguments] if arguments else [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
            if subprocess.run(command).returncode:
                return None
    return str(python)


def compare(figures, options, running, hand, python, way):
    """One turn, streamed: by hand, by the peer and by the service, in turn."""
    port = free_port()
    server = [python, "-I", str(CHECKOUT / "Benchmarks/bench/peer_server.py"), str(port), options.cli]
    series = {"hand": [], "peer": [], "service": []}
    with process(server, env=hand.environment, cwd=hand.environment["TMPDIR"], stdout=subprocess.DEVNULL, start_new_session=True):
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, "the peer does not listen"
            time.sleep(0.1)
        for count in range(options.runs + 1):
            prompt = f"[[say=Paris, of course.]] {count}"
            readings = {"hand": hand.ask([("user", prompt)], SYSTEM), "peer": ask_peer(port, prompt)}
            settle(running)
            readings["service"] = ask(running, ANTHROPIC, ANTHROPIC.body(prompt, SYSTEM))
            if count:
                for name, reading in readings.items():
                    series[name].append((reading.first, reading.end))
    subject = f"a peer, one turn, {way}"
    for index, which in ((0, "first delta"), (1, "end")):
        columns = {name: [sample[index] for sample in samples] for name, samples in series.items()}
        figures.ratio(subject, f"the peer, {which}", columns["peer"], columns["hand"], "claude -p by hand", "s")
        figures.ratio(subject, f"this service, {which}", columns["service"], columns["hand"], "claude -p by hand", "s")
        figures.ratio(subject, f"this service, {which}", columns["service"], columns["peer"], "the peer", "s")


def ask_peer(port, prompt):
    """One streamed answer of the peer's."""
    body = json.dumps({"prompt": prompt, "system": SYSTEM}).encode()
    reading = Reading()
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(
            f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        while chunk := connection.recv(1 << 18):
            reading.text += chunk
            if not reading.first and b"data: " in reading.text:
                reading.first = time.perf_counter() - began
        reading.end = time.perf_counter() - began
    assert b"Paris" in reading.text, reading.text
    return reading
