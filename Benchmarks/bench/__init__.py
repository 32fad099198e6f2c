"""Benchmarks of the running service: `make bench`. One file a subject; `__main__` runs them."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# The service is started as the end-to-end tests start it.
sys.path[:0] = [str(CHECKOUT / "Tests/EndToEnd"), str(CHECKOUT / "Benchmarks")]
