"""Services to measure, and their processes."""

import contextlib
import re
import subprocess
import time

from service import Service, children, cpu_seconds, proc, thread_seconds


def ways():
    """The ways in which the service can come by a CLI process, as (name, settings)."""
    # The tests' service is without both; None leaves a setting to its default.
    return [
        ("cold", {"SPARES": 0, "LIVE_MAX": 0}), ("spare", {"SPARES": None, "LIVE_MAX": 0}), ("live", {"SPARES": None, "LIVE_MAX": None})]


def service(**settings):
    """A service without the record of what its upstream was asked."""
    settings = {"OFFLINE_UPSTREAM_RECORD": None, "WORKER_CONCURRENCY": 4, **settings}
    return Service(**settings)


def settle(service, seconds=15.0):
    """Waits until the service has nothing to do: its CLIs rest, and those that it keeps ready are ready."""
    deadline, last, since = time.monotonic() + seconds, None, time.monotonic()
    while time.monotonic() < deadline:
        now = {pid: cpu_seconds(pid) for pid in children(service.responders())}
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > (0.25 if now else 0.02):
            return
        time.sleep(0.01)


def pss_kilobytes(pid):
    """What a process takes of memory, shared pages by their share; None when it is gone."""
    found = re.search(rb"^Pss:\s+(\d+)", proc(pid, "smaps_rollup"), re.M)
    return int(found[1]) if found else None


def nginx_workers(service):
    """nginx's processes."""
    masters = service.named("nginx")
    return masters + children(masters)


def cpu_of(pids):
    """CPU seconds of these processes so far: responders, or nginx's."""
    return sum(thread_seconds(pid) for pid in pids)


@contextlib.contextmanager
def process(arguments, **options):
    """A process of our own, ended when left."""
    started = subprocess.Popen(arguments, **options)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
