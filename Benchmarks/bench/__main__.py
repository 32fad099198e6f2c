"""Runs the benchmarks and prints their table: `make bench`, or by hand, after `make test` has made the venv and a release build:

    .venv/bin/python -m bench [--only first_delta --only peer] [--runs 15] [--json FILE]       (in Benchmarks/, with CLAUDE_FCGI_BIN)

Every figure is a ratio within this run, of medians. The brackets hold the middle 80 % of the rounds. Nothing is asserted: a bar is shown beside its
figure.
"""

import argparse
import importlib
import sys
import time

from . import by_hand
from .figures import Figures, machine

SUBJECTS = ["first_delta", "peer", "streams", "throughput", "memory", "growth"]


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="a subject; may be given several times")
    parser.add_argument("--runs", type=int, default=15, help="rounds of each measurement (%(default)s); fewer than 15 are a trial only")
    parser.add_argument("--json", metavar="FILE", help="write everything there as well")
    options = parser.parse_args()
    options.cli = by_hand.cli_path()
    figures, before, failed = Figures(), machine()["load"][0], []
    if options.runs < 15:
        figures.note(f"{options.runs} rounds only: a trial, not a measurement")
    for name in options.only or SUBJECTS:
        print(f"\n{name}", flush=True)
        began = time.monotonic()
        try:
            importlib.import_module(f"bench.{name}").run(figures, options)
        except Exception as error:  # noqa: BLE001 the other subjects are worth having
            failed.append(name)
            figures.note(f"{name} ended early: {type(error).__name__}: {str(error)[:300]}")
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        if options.json:  # what is there is kept when a later subject is broken off
            figures.write(options.json, {"only": options.only, "runs": options.runs})
    figures.note(f"{machine()['cores']} cores; load {before:.1f} before, {machine()['load'][0]:.1f} after")
    print("\n" + figures.table())
    if options.json:
        figures.write(options.json, {"only": options.only, "runs": options.runs})
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
