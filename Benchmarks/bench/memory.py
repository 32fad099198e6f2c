"""Memory: responders at rest, with waiting requests, and what they keep ready. The unit is one idle CLI process."""

import json
import statistics
import subprocess

from dialects import OPENAI
from service import until

from .by_hand import ARGUMENTS, ByHand
from .client import ask
from .running import process, pss_kilobytes, service, settle

WAITING = 100


def run(figures, options):
    cli = one_cli(options)
    rest(figures, options, cli)
    waiting(figures, options, cli)
    spares(figures, options, cli)


def one_cli(options):
    """PSS of a CLI that has been initialized and waits, in kB, several times."""
    found = []
    with service() as running:
        hand = ByHand(running, options.cli)
        try:
            for _ in range(options.runs):
                with process([options.cli, *ARGUMENTS], cwd=hand.environment["TMPDIR"], env=hand.environment, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
                    started.stdin.write(json.dumps({
                        "type": "control_request", "request_id": "1",
                        "request": {"subtype": "initialize", "hooks": None, "systemPrompt": [""]}}).encode() + b"\n")
                    started.stdin.flush()
                    started.stdout.readline()
                    found.append(pss_kilobytes(started.pid))
        finally:
            hand.close()
    return found


def responders_kilobytes(running):
    return sum(pss_kilobytes(pid) for pid in running.responders())


def rest(figures, options, cli):
    """Four responders, before the first request and after many."""
    fresh, used = [], []
    for _ in range(options.runs):
        with service(cli="fake", RESPONDERS=4) as running:
            fresh.append(responders_kilobytes(running))
            with running.client() as client:
                for _ in range(200):
                    client.post(OPENAI.path, json=OPENAI.body("x")).raise_for_status()
            running.no_cli()
            used.append(responders_kilobytes(running))
    figures.ratio("memory (PSS)", "4 responders, just started", fresh, cli, "one idle CLI", "kB", limit=24000)
    figures.ratio("memory (PSS)", "4 responders, after 200 requests", used, cli, "one idle CLI", "kB", limit=24000)


def waiting(figures, options, cli):
    """So many requests in the queue; the stand-in that runs is not counted."""
    extra = []
    for _ in range(options.runs):
        with service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=WAITING, REQUEST_TIMEOUT_MS=600000, QUEUE_TIMEOUT_MS=600000) as running:
            running.mode("held")
            connections = [running.connect(OPENAI, OPENAI.body("x"), 600)]
            until(lambda: running.get("/health").json()["queue"]["processing"] == 1, 10, "the first request's run")
            before = responders_kilobytes(running)
            connections += [running.connect(OPENAI, OPENAI.body("x"), 600) for _ in range(WAITING)]
            until(lambda: running.get("/health").json()["queue"]["pending"] == WAITING, 20, "waiting requests")
            extra.append(responders_kilobytes(running) - before)
            for connection in connections:
                connection.close()
            (running.base / "go").touch()
    figures.ratio("memory (PSS)", f"{WAITING} waiting requests", extra, cli, "one idle CLI", "kB", limit=5000)
    stack = statistics.median(extra) / WAITING
    figures.share("memory (PSS)", "a waiting request's thread", [value / WAITING / statistics.median(cli) for value in extra], "one idle CLI",
                  {"unit": "kB", "median": stack})


def spares(figures, options, cli):
    """What a process takes that is kept ready, and one that holds a conversation."""
    spare, live, four = [], [], []
    for _ in range(options.runs):
        with service(SPARES=2, LIVE_MAX=2, RESPONDERS=4) as running:
            settle(running)
            four.append(responders_kilobytes(running))
            before = set(running.clis())
            spare.append(statistics.mean(pss_kilobytes(pid) for pid in before))
            ask(running, OPENAI, OPENAI.body("[[say=Paris, of course.]]"))
            settle(running)
            live.append(statistics.mean(pss_kilobytes(pid) for pid in before & set(running.clis())))
    figures.ratio("memory (PSS)", "a spare", spare, cli, "one idle CLI", "kB")
    figures.ratio("memory (PSS)", "a live conversation of one turn", live, cli, "one idle CLI", "kB")
    figures.ratio("memory (PSS)", "4 responders with 2 spares", four, cli, "one idle CLI", "kB")
