#!/usr/bin/env python3
"""How much the service adds to a stream, and what it costs. By hand, after `make test` has made the venv:

    .venv/bin/python Benchmarks/latency.py [--requests 200] [--tokens 20000] [--runs 3]

1. From the moment the CLI writes a text delta to the moment a client of nginx reads it: a CLI of ours writes the time of its monotonic
   clock as its answer. The first delta of each stream, then deltas every 5 ms.
2. CPU seconds of the responders and of the real CLI for one answer of many deltas in a row, on the offline upstream.
"""

import argparse
import json
import re
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Tests/EndToEnd"))

from dialects import ANTHROPIC, OPENAI  # noqa: E402
from service import Dechunker, Service, cpu_seconds, thread_seconds  # noqa: E402

STAMP = re.compile(rb'"(?:text|content)":"(\d+\.\d+) "')


def stream(service, dialect, prompt):
    """Reads one stream from nginx; yields (time of arrival, the whole events that came)."""
    limit = {"max_tokens": 64000} if dialect is ANTHROPIC else {}
    body = json.dumps(dialect.body(prompt, stream=True, **limit)).encode()
    with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
        connection.sendall(
            f"POST {dialect.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        dechunker, rest = Dechunker(), b""
        while not dechunker.is_ended and (chunk := connection.recv(1 << 18)):
            arrival = time.clock_gettime(time.CLOCK_MONOTONIC)
            events, separator, rest = (rest + dechunker.feed(chunk)).rpartition(b"\n\n")
            yield arrival, events + separator


def delays(service, dialect):
    """Seconds from the CLI's writing to our reading, one for each delta of a stream."""
    found = []
    for arrival, chunk in stream(service, dialect, "x"):
        found += [arrival - float(stamp) for stamp in STAMP.findall(chunk)]
    return found


def first_and_paced(service, requests, dialect=ANTHROPIC):
    """The delays of streams' first deltas, and those of deltas 5 ms apart."""
    service.mode("stamped 1,0")
    first = []
    for _ in range(requests):
        first += delays(service, dialect)[:1]
    service.mode("stamped 200,5")
    paced = delays(service, dialect)[1:]
    return first, paced


def health_times(service, requests):
    """Seconds for a whole GET /health on a kept connection: nginx and a responder, with no CLI."""
    found = []
    with service.client() as client:
        for _ in range(requests):
            began = time.perf_counter()
            client.get("/health")
            found.append(time.perf_counter() - began)
    return found


def cpu_of_one_stream(service, tokens, dialect=OPENAI):
    """CPU seconds of the responders and of the CLI for one answer; a CLI's own is read until just before its end."""
    before = {pid: thread_seconds(pid) for pid in service.responders()}
    cli = [0.0]
    done = threading.Event()

    def watch():
        while not done.is_set():
            for pid in service.clis():
                while (seconds := cpu_seconds(pid)) is not None and not done.is_set():
                    cli[0] = max(cli[0], seconds)
                    time.sleep(0.02)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        text = b"".join(chunk for _, chunk in stream(service, dialect, f"[[tokens={tokens}]]"))
    finally:
        took = time.monotonic() - began
        done.set()
        watcher.join()
    deltas = len(re.findall(rb'"(?:text|content)":"tok\d+ "', text))
    assert deltas == tokens, f"{deltas} of {tokens} deltas arrived"
    service.no_cli()
    own = sum(thread_seconds(pid) - seconds for pid, seconds in before.items())
    return own, cli[0], took


def line(name, seconds):
    ordered = sorted(seconds)
    return (f"{name:34} median {1e3 * statistics.median(ordered):7.3f} ms   p95 {1e3 * ordered[int(len(ordered) * 0.95)]:7.3f} ms"
            f"   max {1e3 * ordered[-1]:7.3f} ms   of {len(ordered)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=20000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with Service(cli="fake") as service:
        health_times(service, 50)
        print(line("GET /health, whole", health_times(service, options.requests)))
        for dialect in (OPENAI, ANTHROPIC):
            first, paced = first_and_paced(service, options.requests, dialect)
            print(line(f"{dialect}: CLI to client, first delta", first))
            print(line(f"{dialect}: CLI to client, every 5 ms", paced))
    with Service() as service:
        for _ in range(options.runs):
            own, cli, took = cpu_of_one_stream(service, options.tokens)
            print(f"{options.tokens} deltas in {took:.2f} s: responders {own:.2f} s of CPU, CLI {cli:.2f} s ({own / cli:.0%})")


if __name__ == "__main__":
    main()
