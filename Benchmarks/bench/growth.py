"""Cost as work grows: more streams, more waiting requests, longer histories, longer prompts."""

import resource
import time

import latency
from dialects import ANTHROPIC, OPENAI
from service import until

from .by_hand import ByHand
from .client import ask, text_of
from .first_delta import SYSTEM, history
from .running import cpu_of, service, settle, ways
from .streams import at_once

STREAMS = (1, 4, 16, 64)
WAITING = (0, 10, 100, 1000)
TURNS = (1, 20, 200)
KILOBYTES = (1, 100, 1000, 5000)
# The CLI refuses by itself what it takes for longer than the model's context, which 5 MB are.
LONG = {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000"}


def run(figures, options):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], max(limit[0], 8192)), limit[1]))
    streams(figures, options)
    waiting(figures, options)
    for way, settings in ways():
        with service(**LONG, **settings) as running:
            hand = ByHand(running, options.cli)
            hand.environment.update(LONG)
            try:
                histories(figures, options, running, hand, way)
                prompts(figures, options, running, hand, way)
            finally:
                hand.close()


def streams(figures, options):
    """So many streams at once, a delta every 20 ms in each; against one stream alone."""
    subject = "running streams, a delta every 20 ms in each"
    delays, costs = {}, {}
    with service(cli="fake", WORKER_CONCURRENCY=max(STREAMS), REQUEST_TIMEOUT_MS=60000) as running:
        running.mode("stamped 50,20")
        for _ in range(options.runs):
            for count in STREAMS:
                before = cpu_of(running.responders())
                found = at_once(count, lambda: latency.delays(running, ANTHROPIC)[1:])
                running.no_cli()
                delays.setdefault(count, []).append(sorted(found)[len(found) // 2])
                costs.setdefault(count, []).append((cpu_of(running.responders()) - before) / count)
    for count in STREAMS[1:]:
        figures.ratio(subject, f"{count}: delay of a delta, median", delays[count], delays[1], "1 stream", "s")
    # One stream costs less than a tick of the clock that counts CPU.
    for count in STREAMS[3:]:
        figures.ratio(subject, f"{count}: the responders' CPU a stream", costs[count], costs[STREAMS[2]], f"{STREAMS[2]} streams", "s")


def waiting(figures, options):
    """So many requests in the queue: /health against the same service's with none, a refusal against /health."""
    subject = "waiting requests"
    for count in WAITING:
        with service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=count, REQUEST_TIMEOUT_MS=600000, QUEUE_TIMEOUT_MS=600000) as running:
            running.mode("held")
            connections = [running.connect(OPENAI, OPENAI.body("x"), 600)]
            until(lambda: running.get("/health").json()["queue"]["processing"] == 1, 10, "the first request's run")
            latency.health_times(running, 100)
            none = latency.health_times(running, 20 * options.runs)
            connections += [running.connect(OPENAI, OPENAI.body("x"), 600) for _ in range(count)]
            until(lambda: running.get("/health").json()["queue"]["pending"] == count, 60, "waiting requests", 0.1)
            health, refusals = latency.health_times(running, 20 * options.runs), []
            with running.client() as client:
                for _ in range(20 * options.runs):
                    began = time.perf_counter()
                    assert client.post(OPENAI.path, json=OPENAI.body("x")).status_code == 429
                    refusals.append(time.perf_counter() - began)
            if count:
                figures.ratio(subject, f"{count}: GET /health", health, none, "none waiting", "s")
            figures.ratio(subject, f"{count}: a refusal", refusals, health, "GET /health then", "s")
            for connection in connections:
                connection.close()
            (running.base / "go").touch()
            until(lambda: running.get("/health").json()["queue"]["pending"] == 0, 60, "the queue's end", 0.1)


def grown(figures, options, running, hand, subject, way, cases):
    """Each case through the service and by hand, against both and against the smallest case.

    Where conversations are kept it is the next turn that is looked at, on both sides.
    """
    ours, theirs, following = {}, {}, "[[say=And no.]]"
    for _ in range(options.runs):
        for name, past, prompt in cases:
            settle(running)
            reading = ask(running, ANTHROPIC, ANTHROPIC.body(prompt, SYSTEM, past))
            asked = [*past, ("user", prompt)]
            if way == "live":
                settle(running)
                held = [*asked, ("assistant", text_of(ANTHROPIC, reading))]
                reading = ask(running, ANTHROPIC, ANTHROPIC.body(following, SYSTEM, held))
                asked = [*held, ("user", following)]
            ours.setdefault(name, []).append(reading.first)
            settle(running)
            theirs.setdefault(name, []).append(hand.ask(asked, SYSTEM).first)
    what = "first delta of the next turn" if way == "live" else "first delta"
    smallest = cases[0][0]
    for name, _, _ in cases:
        figures.ratio(f"{subject}, {way}", f"{name}: {what}", ours[name], theirs[name], "claude -p by hand", "s")
    for name, _, _ in cases[1:]:
        figures.ratio(f"{subject}, {way}", f"{name}: {what}", ours[name], ours[smallest], smallest, "s")


def histories(figures, options, running, hand, way):
    cases = [(f"{turns} turn{'s' if turns > 1 else ''}", history(turns - 1), "[[say=Yes.]]") for turns in TURNS]
    grown(figures, options, running, hand, "turns of history", way, cases)


def prompts(figures, options, running, hand, way):
    cases = [(f"{size} kB", [], "[[say=Yes.]] " + "word " * (size * 200)) for size in KILOBYTES]
    grown(figures, options, running, hand, "length of the prompt", way, cases)
