"""What a streamed delta costs: CPU of the CLI, the responder and nginx; deltas a second; what is added between the CLI's line and the client."""

import statistics
import threading
import time

import latency
from dialects import CHATS

from .by_hand import ByHand
from .figures import quantile
from .running import cpu_of, nginx_workers, service, settle

TOKENS = 20000


def run(figures, options):
    cpu(figures, options)
    added(figures, options)


def cpu(figures, options):
    """A long answer with no pause between its deltas."""
    subject = f"an answer of {TOKENS} deltas"
    with service() as running:
        hand = ByHand(running, options.cli)
        try:
            responder, by_hand, through = {str(d): [] for d in CHATS}, [], {str(d): [] for d in CHATS}
            for count in range(options.runs + 1):
                began = time.perf_counter()
                reading = hand.ask([("user", f"[[tokens={TOKENS}]] {count}")])
                took = time.perf_counter() - began
                samples = {}
                for dialect in CHATS:
                    settle(running)
                    samples[str(dialect)] = latency.cpu_of_one_stream(running, TOKENS, dialect)
                if not count:
                    continue
                by_hand.append(TOKENS / (reading.end - reading.first if reading.end > reading.first else took))
                for name, (own, cli, seconds) in samples.items():
                    responder[name].append((own, cli))
                    through[name].append(TOKENS / seconds)
        finally:
            hand.close()
    for dialect in CHATS:
        pairs = responder[str(dialect)]
        figures.share(
            subject, f"{dialect}, CPU of the responders", [own / cli for own, cli in pairs], "the CLI's CPU",
            {"unit": "CPU us a delta", "responder": 1e6 * statistics.median(own for own, _ in pairs) / TOKENS,
             "cli": 1e6 * statistics.median(cli for _, cli in pairs) / TOKENS}, 0.10)
        figures.ratio(
            subject, f"{dialect}, deltas a second, start of the CLI included", through[str(dialect)], by_hand,
            "claude -p by hand, without its start", "deltas/s")
    with service(cli="fake", REQUEST_TIMEOUT_MS=60000) as running:
        # With the stand-in nothing but the answer passes nginx; with the real CLI its traffic with the upstream does too.
        running.mode(f"stamped {TOKENS},0")
        shares = {str(dialect): [] for dialect in CHATS}
        for _ in range(options.runs):
            for dialect in CHATS:
                workers, responders = nginx_workers(running), running.responders()
                before = cpu_of(workers), cpu_of(responders)
                for _ in latency.stream(running, dialect, "x"):
                    pass
                shares[str(dialect)].append((cpu_of(workers) - before[0], cpu_of(responders) - before[1]))
        for dialect in CHATS:
            pairs = shares[str(dialect)]
            cli = statistics.median(cli for _, cli in responder[str(dialect)])
            figures.share(
                subject, f"{dialect}, CPU of nginx", [own / cli for own, _ in pairs], "the CLI's CPU",
                {"unit": "CPU us a delta", "nginx": 1e6 * statistics.median(own for own, _ in pairs) / TOKENS})


def added(figures, options):
    """From the CLI's line to the client's socket; the unit is a whole GET /health on a kept connection."""
    subject = "added between the CLI's line and the client, a delta every 5 ms"
    health, middle, slowest = [], {}, {}
    with service(cli="fake", WORKER_CONCURRENCY=16, REQUEST_TIMEOUT_MS=60000) as running:
        latency.health_times(running, 50)
        running.mode("stamped 200,5")
        for _ in range(options.runs):
            health.append(statistics.median(latency.health_times(running, 20)))
            for streams in (1, 16):
                for dialect in CHATS:
                    found = at_once(streams, lambda dialect=dialect: latency.delays(running, dialect)[1:])
                    case = f"{dialect}, {streams} stream{'s' if streams > 1 else ''}"
                    middle.setdefault(case, []).append(statistics.median(found))
                    slowest.setdefault(case, []).append(quantile(found, 0.99))
    for case in middle:
        figures.ratio(subject, f"{case}, median", middle[case], health, "a whole GET /health", "s", limit=0.001)
        figures.ratio(
            subject, f"{case}, 99 % are below", slowest[case], health, "a whole GET /health", "s", limit=0.005 if "16" in case else None)


def at_once(count, job):
    """Runs a job in so many threads; all that they returned, in one list."""
    results, threads = [], [threading.Thread(target=lambda: results.extend(job())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
