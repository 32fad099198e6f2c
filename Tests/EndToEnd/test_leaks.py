"""Many requests with spares and live conversations in play: when all is idle again, nothing has grown.

The fake CLI answers thousands in the time in which the real one answers hundreds, but calls no tools and is never made ready. `LEAK_REQUESTS=10000
pytest Tests/EndToEnd/test_leaks.py -s` is the long run with either, 15 minutes and more on two cores.
"""

import collections
import itertools
import os
import random
import signal
import threading
import time

import httpx
import pytest

from dialects import ANTHROPIC, CHATS
from service import Dechunker, Service, alive, children, pids, proc, stat, status_number, until
from talk import Talk, in_parallel
from tools import tool
from test_admission import board

TOOL = tool("weather")
CLIENTS, LIVE_MAX, SPARES = 3, 4, 2
# Within so many seconds a responder has given back what malloc keeps.
RELEASE_SECONDS = 6
# Of the growth for each request that the second half of the rounds shows: memory moves by some hundred kB whatever is asked, so
# 10,000 requests show what is less than a line of a stream, and a few hundred nothing: there only what is counted counts.
NOISE_BYTES, BOUND_BYTES, FEWEST = 400_000, 80, 1000


class Conversation(Talk):
    """A talk that only checks its answers: it neither reads the log nor what the model was sent."""

    def __init__(self, *arguments, client, **options):
        super().__init__(*arguments, **options)
        self.client, self.count = client, 0

    def send(self):
        answer = self.client.post(self.dialect.path, json=self.request(), headers=self.headers)
        assert answer.status_code == 200, answer.text
        self.turns.append(("assistant", self.read(answer)))
        self.count += 1
        return "".join(block.get("text", "") for block in self.turns[-1][1])


class Asker:
    """One of the clients: two conversations at a time, of all kinds, each some turns long; now and then one that comes to nothing."""

    def __init__(self, service, number, is_fake):
        self.service, self.is_fake = service, is_fake
        self.random = random.Random(number)
        self.client = httpx.Client(base_url=service.url, trust_env=False, timeout=60)
        self.talks = [self.begin(), self.begin()]
        self.kinds = collections.Counter()

    def begin(self):
        choose = self.random.choice
        tools = {"tools": [TOOL]} if self.random.random() < 0.4 and not self.is_fake else {}
        return Conversation(
            self.service, choose(CHATS), system=choose([None, "Be terse."]), key=choose([None, "alice", "bob"]),
            stream=choose([False, True]), client=self.client, **tools)

    def ask(self):
        """One request, and what kind it was."""
        chance = self.random.random()
        if chance < 0.01:
            return self.leave()
        if chance < 0.02:
            return self.fail()
        if self.random.random() < 0.12:
            self.talks.reverse()
        if self.talks[0].count >= 12 and not self.talks[0].open_calls:
            self.talks[0] = self.begin()
        talk, word = self.talks[0], f"w{self.random.randrange(10**9)}"
        if talk.open_calls:
            assert talk.give(word) == "Sunny."
            return "result"
        kind = "next" if talk.turns else "first"
        if "tools" in talk.parameters and self.random.random() < 0.4:
            talk.say(f'{word} [[tool=weather {{"city": "Paris"}}]] [[then=Sunny.]]')
            assert len(talk.open_calls) == 1
            return f"{kind}, a call"
        if self.is_fake:
            assert talk.say(word).endswith(word)
        else:
            assert talk.say(f"[[say={word}]]") == word
        return kind

    def leave(self):
        dialect = self.random.choice(CHATS)
        with self.service.connect(dialect, dialect.body("[[tokens=500]] [[delay_ms=20]]", stream=True)) as connection:
            dechunker, text = Dechunker(), b""
            while not self.is_fake and b"tok1" not in text:
                text += dechunker.feed(connection.recv(65536))
        return "left"

    def fail(self):
        dialect, stream = self.random.choice(CHATS), self.random.choice([False, True])
        prompt = "" if self.is_fake else "[[error=400]]"
        answer = self.client.post(dialect.path, json=dialect.body(prompt, stream=stream), headers=self.service.authorization)
        assert answer.status_code == 400, answer.text
        return "failed"


def settled(service):
    """Waits until no request runs and the pools have done what they had to; the processes that wait, by responder."""

    def look():
        health = service.get("/health").json()
        now = {pid: sorted(children([pid])) for pid in service.responders()}
        count, counted = sum(map(len, now.values())), health["processes"]
        is_idle = health["queue"]["processing"] == health["queue"]["pending"] == 0
        # Each process is one that waits, and each that is said to wait is there.
        return is_idle and counted["spares"] == SPARES and count == SPARES + counted["live"] and counted["live"] <= LIVE_MAX and now

    first = until(look, 60, "an idle service", 0.1)
    time.sleep(0.5)
    return first if first == look() else settled(service)


def dirty(pid):
    """Memory that is the process's alone and was written to, in bytes."""
    for line in proc(pid, "smaps_rollup").decode().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"responder {pid} is gone")


def footprint(service, waiting):
    """What must be as it was."""
    everyone = [fields for pid in pids() if (fields := stat(pid))]
    return {
        "responders": {
            pid: {
                # Three pipes and a pidfd are each process's that waits.
                "files": len(os.listdir(f"/proc/{pid}/fd")) - 4 * len(processes), "threads": status_number(pid, "Threads"),
                "zombies": sum(fields[1] == str(pid) and fields[0] == "Z" for fields in everyone)}
            for pid, processes in waiting.items()},
        "temporary directories without a process":
            sum(name[:1].isdigit() for name in os.listdir(service.run_dir / "tmp")) - sum(map(len, waiting.values())),
        "directory of chats": sorted(os.listdir(service.run_dir / "w")),
        "run_dir": sorted(path.name for path in service.run_dir.iterdir()),
        "files of the CLI's": sum(len(files) for _, _, files in os.walk(service.base / "home")),
        "requests": board(service)["requests"]}


def lasting(service, waiting, wanted=None):
    """The footprint that is seen twice in a row, or is the wanted one: who looks how much memory is free has a file for a moment."""
    last = footprint(service, waiting)
    for _ in range(20):
        before, last = last, footprint(service, waiting)
        if last == (wanted or before):
            break
        time.sleep(0.1)
    return last


def slope(points):
    """The growth of y for each x, by least squares."""
    xs, ys = zip(*points, strict=True)
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a in xs)


@pytest.mark.parametrize("cli", ["fake", "real"])
def test_nothing_grows_with_spares_and_live_conversations(cli):
    long = int(os.environ.get("LEAK_REQUESTS", "0"))
    if long:
        signal.alarm(0)  # _bounded's
    rounds = 20 if long else 5
    each = (long // rounds or (720 if cli == "fake" else 36)) // CLIENTS
    settings = {
        "SPARES": SPARES, "LIVE_MAX": LIVE_MAX, "LIVE_TTL": 600, "MEMORY_HEADROOM": 1, "WORKER_CONCURRENCY": 4, "OFFLINE_UPSTREAM_RECORD": None,
        # Few request threads: the first use of each one's stack looks like growth.
        "MAX_QUEUE_SIZE": 4, "LOG_LEVEL": "info"}
    with Service(cli="fake" if cli == "fake" else None, keys={"alice": "", "bob": ""}, **settings) as service:
        askers = [Asker(service, number, cli == "fake") for number in range(CLIENTS)]
        failures, done, points, taken = [], 0, [], set()

        def work(asker, count):
            try:
                for _ in range(count):
                    asker.kinds[asker.ask()] += 1
            except BaseException as failure:  # a thread's failure is the test's
                failures.append(failure)

        def round_of(count):
            threads = [threading.Thread(target=work, args=(asker, count)) for asker in askers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures, failures[0]
            return settled(service)

        # Caches fill, and each thread has its first request.
        waiting = round_of(max(each, 40))
        before = lasting(service, waiting)
        assert before["temporary directories without a process"] == 0 and not before["requests"], before
        began = time.monotonic()
        for _ in range(rounds):
            idle = set(itertools.chain(*waiting.values()))

            def unused():
                return idle - {line["cli.pid"] for line in service.request_lines() if "cli.pid" in line}

            fresh = until(lambda: len(found := unused()) == SPARES and found, 10, "the log lines of all that are no spares", 0.1)
            waiting = round_of(each)
            done += each * CLIENTS
            taken |= fresh - set(itertools.chain(*waiting.values()))
            time.sleep(RELEASE_SECONDS if long else 0)
            points.append((done, sum(dirty(pid) for pid in waiting)))
            print(f"{done} requests in {time.monotonic() - began:.0f} s, {points[-1][1] // 1024} kB")
            assert lasting(service, waiting, before) == before
        check_mix(service, askers, taken, rounds)
        growth = slope(points[rounds // 2 - 1:])
        bound = BOUND_BYTES + NOISE_BYTES / (done / 2)
        print(f"{growth:+.0f} bytes a request over the last {done // 2} requests (bound {bound:.0f})")
        assert growth < bound or done // 2 < FEWEST


def test_the_memory_of_long_prompts_is_given_back():
    with Service(WORKER_CONCURRENCY=2, OFFLINE_UPSTREAM_RECORD=None, CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE="100000000") as service:

        def ask(words):
            answer = service.post(ANTHROPIC.path, ANTHROPIC.body("[[say=hi]] " + "word " * words), timeout=110)
            assert answer.status_code == 200, answer.text[:300]

        def private():
            return sum(map(dirty, service.responders()))

        in_parallel([lambda: ask(10)] * 4)
        before = private()
        for _ in range(3):
            in_parallel([lambda: ask(900_000)] * 6)
        until(lambda: private() < before + 8_000_000, 8 * RELEASE_SECONDS, "the end of what 4.5 MB of prompt took", 0.5)


def check_mix(service, askers, taken, rounds):
    """Checks that all was in play that could leak."""
    kinds = sum((asker.kinds for asker in askers), collections.Counter())
    lines = [line for line in service.request_lines() if "cli.pid" in line]
    uses = collections.Counter(line["cli.pid"] for line in lines)
    kept = [line["cli.end"] == "kept" for line in lines]
    print(f"{dict(kinds)}; {len(lines)} turns in {len(uses)} processes, {sum(kept)} kept; of the spares seen {len(taken)} were taken")
    assert set(kinds) - {"first, a call", "next, a call", "result"} == {"first", "next", "left", "failed"}
    assert kinds["result"] or askers[0].is_fake
    assert len(taken) > rounds
    assert len(uses) < len(lines) / 2, "too few went on in their process"
    # To the end as at the beginning: a table that fills up would show here.
    quarter = len(kept) // 4
    assert sum(kept[-quarter:]) > 0.8 * sum(kept[:quarter])
    ended = [pid for pid in {line["cli.pid"] for line, is_kept in zip(lines, kept, strict=True) if is_kept} if not alive(pid)]
    assert len(ended) > rounds, "too few had to go for others"
