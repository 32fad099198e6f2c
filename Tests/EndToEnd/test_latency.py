"""A short form of Benchmarks/latency.py: only ratios within one run, since machines differ."""

import statistics
import sys

from service import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "Benchmarks"))

import latency  # noqa: E402


def test_a_delta_passes_in_a_fraction_of_a_cli_start(fake):
    """Waiting for buffers, timers or delayed acknowledgements would show as 40 ms and more; the way itself is shorter than a /health."""
    for _ in range(3):  # the machine may be busier with one of them than with the other
        latency.health_times(fake, 20)
        health = statistics.median(latency.health_times(fake, 50))
        first, paced = latency.first_and_paced(fake, 20)
        assert len(first) == 20 and len(paced) == 199
        print(latency.line("first delta", first))
        print(latency.line("paced deltas", paced))
        if max(statistics.median(first), statistics.median(paced)) < 5 * health:
            break
    assert statistics.median(first) < 5 * health
    assert statistics.median(paced) < 5 * health


def test_many_deltas_cost_the_responder_less_than_the_cli(service):
    own, cli, took = latency.cpu_of_one_stream(service, 20000)
    print(f"20000 deltas in {took:.2f} s: responders {own:.2f} s of CPU, CLI {cli:.2f} s")
    assert 0 < own < cli
