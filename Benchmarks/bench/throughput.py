"""Requests, turns of held conversations and refusals a second, with a CLI that answers at once; /health while that goes on."""

import functools
import http.client
import json
import os
import statistics
import subprocess
import threading
import time

import latency
from dialects import CHATS, OPENAI
from service import until

from .figures import quantile
from .running import service, ways

CLIENTS = 8
BATCH = 40
# Then a conversation is begun anew.
TURNS = 10


def run(figures, options):
    for way, settings in ways():
        with service(cli="fake", WORKER_CONCURRENCY=CLIENTS, REQUEST_TIMEOUT_MS=60000, **settings) as running:
            answered(figures, options, running, way)
    with service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=1, REQUEST_TIMEOUT_MS=600000, QUEUE_TIMEOUT_MS=600000) as running:
        refused(figures, options, running)


def answered(figures, options, running, way):
    """Whole requests by several clients at once, against the stand-in run directly by as many threads.

    Where conversations are kept each client goes on with one for some turns.
    """
    subject = f"whole requests, {CLIENTS} at once, instant CLI, {way}"
    rates, slowest = {str(dialect): [] for dialect in CHATS}, {str(dialect): [] for dialect in CHATS}
    direct_rates, direct_medians, idle, busy, busy_slowest = [], [], [], [], []
    for count in range(options.runs + 1):
        results = [hammer(lambda: direct(running))]
        health, meanwhile = latency.health_times(running, 20), []
        for dialect in CHATS:
            if way == "live":
                job = functools.partial(turn, running, dialect)
            else:
                job = functools.partial(whole, running, dialect, json.dumps(dialect.body("x")).encode())
            with Watch(running) as watch:
                results.append(hammer(job))
            meanwhile += watch.times
        if not count:  # the first round warms caches
            continue
        direct_rates.append(results[0][0])
        direct_medians.append(statistics.median(results[0][1]))
        for dialect, (rate, times) in zip(CHATS, results[1:]):
            rates[str(dialect)].append(rate)
            slowest[str(dialect)].append(quantile(times, 0.99))
        idle.append(statistics.median(health))
        busy.append(statistics.median(meanwhile))
        busy_slowest.append(quantile(meanwhile, 0.99))
    for dialect in CHATS:
        name = str(dialect)
        figures.ratio(subject, f"{name}, requests a second", rates[name], direct_rates, "the stand-in run directly", "1/s")
        figures.ratio(
            subject, f"{name}, 99 % end within ({CLIENTS * BATCH} a round)", slowest[name], direct_medians, "the stand-in's median", "s")
    figures.ratio(subject, "GET /health meanwhile, median", busy, idle, "GET /health when idle", "s")
    figures.ratio(subject, "GET /health meanwhile, 99 % end within", busy_slowest, idle, "GET /health when idle", "s")


def refused(figures, options, running):
    """429s when the one place and the queue are taken, against /health on the same connections."""
    running.mode("held")
    taken = [running.connect(OPENAI, OPENAI.body("x"), 600) for _ in range(2)]
    until(lambda: running.get("/health").json()["queue"] | {"concurrency": 0} == {"pending": 1, "processing": 1, "concurrency": 0},
          10, "a full service")
    body = json.dumps(OPENAI.body("x")).encode()
    refusals, health = [], []
    for count in range(options.runs + 1):
        rate, _ = hammer(lambda: whole(running, OPENAI, body, 429), 100)
        other, _ = hammer(lambda: whole(running, None, None), 100)
        if count:
            refusals.append(rate)
            health.append(other)
    figures.ratio("when full", "refusals a second", refusals, health, "GET /health a second", "1/s")
    (running.base / "go").touch()
    for connection in taken:
        connection.close()


_connections = threading.local()


def whole(running, dialect, body, status=200):
    """One request on the thread's own connection; its answer is read to the end."""
    connection = getattr(_connections, "one", None)
    if connection is None or connection.port != running.port:
        connection = _connections.one = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    if dialect is None:
        connection.request("GET", "/health")
    else:
        connection.request("POST", dialect.path, body, {"Authorization": f"Bearer {running.key}"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == status, (answer.status, text[:300])
    return text


def turn(running, dialect):
    """The next turn of the thread's own conversation."""
    past = getattr(_connections, "past", [])
    if len(past) >= 2 * TURNS:
        past = []
    answer = json.loads(whole(running, dialect, json.dumps(dialect.body("x", history=past)).encode()))
    _connections.past = [*past, ("user", "x"), ("assistant", dialect.text(answer))]


def direct(running):
    """The stand-in, started, asked and read without the service."""
    lines = (b'{"type":"control_request","request_id":"1","request":{"subtype":"initialize"}}\n'
             b'{"type":"user","message":{"role":"user","content":[{"type":"text","text":"x"}]}}\n')
    done = subprocess.run(
        [running.base / "claude"], input=lines, stdout=subprocess.PIPE, check=True, env={"PATH": os.environ["PATH"]},
        start_new_session=True)
    assert b'"type":"result"' in done.stdout


def hammer(job, batch=BATCH):
    """Runs the job in CLIENTS threads, `batch` times each; returns runs a second and the seconds of each."""
    times, failures = [], []

    def work():
        try:
            for _ in range(batch):
                began = time.perf_counter()
                job()
                times.append(time.perf_counter() - began)
        except Exception as failure:  # noqa: BLE001 it is raised below, in the thread that counts
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(times) / (time.perf_counter() - began), times


class Watch:
    """Asks for /health every 10 ms while something else goes on."""

    def __init__(self, running):
        self.running, self.times, self._done = running, [], threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._done.wait(0.01):
            began = time.perf_counter()
            whole(self.running, None, None)
            self.times.append(time.perf_counter() - began)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
