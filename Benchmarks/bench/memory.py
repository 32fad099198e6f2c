"""Memory: responders at rest, with waiting requests, and what they keep ready. The unit is one idle CLI process."""

import json
import statistics
import subprocess

from dialects import OPENAI
from service import until

from .by_hand import ARGUMENTS, ByHand
from .running import has_setting, process, pss_kilobytes, service, settle

WAITING = 100


def run(figures, options):
    cli = one_cli(options)
    rest(figures, options, cli)
    waiting(figures, options, cli)
    if has_setting("SPARES"):
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
    off = {"SPARES": 0} if has_setting("SPARES") else {}
    fresh, used = [], []
    for _ in range(options.runs):
        with service(cli="fake", RESPONDERS=4, **off) as running:
            fresh.append(responders_kilobytes(running))
            with running.client() as client:
                for _ in range(200):
                    client.post(OPENAI.path, json=OPENAI.body("x")).raise_for_status()
            running.no_cli()
            used.append(responders_kilobytes(running))
    figures.ratio("memory (PSS)", "4 responders, just started", fresh, cli, "one idle CLI", "kB")
    figures.ratio("memory (PSS)", "4 responders, after 200 requests", used, cli, "one idle CLI", "kB")


def waiting(figures, options, cli):
    """So many requests in the queue; the stand-in that runs is not counted."""
    off = {"SPARES": 0} if has_setting("SPARES") else {}
    extra = []
    for _ in range(options.runs):
        with service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=WAITING, REQUEST_TIMEOUT_MS=600000, QUEUE_TIMEOUT_MS=600000,
                     **off) as running:
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
    figures.ratio("memory (PSS)", f"{WAITING} waiting requests", extra, cli, "one idle CLI", "kB")
    stack = statistics.median(extra) / WAITING
    figures.share("memory (PSS)", "a waiting request's thread", [value / WAITING / statistics.median(cli) for value in extra], "one idle CLI",
                  {"unit": "kB", "median": stack})


def spares(figures, options, cli):
    """What a process that is kept ready takes."""
    found = []
    with service(SPARES=2) as running:
        for _ in range(options.runs):
            settle(running)
            sizes = [size for pid in running.clis() if (size := pss_kilobytes(pid))]
            assert sizes, "the service keeps no spare"
            found.append(statistics.mean(sizes))
            running.post(OPENAI.path, OPENAI.body("x"))
    figures.ratio("memory (PSS)", "a spare", found, cli, "one idle CLI", "kB")
