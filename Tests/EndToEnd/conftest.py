"""The service that most tests share: started once, as `make run` starts it, and ended with everything checked."""

import shutil
import signal
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from service import Service  # noqa: E402

CANARY_VARIABLE = "E2E_SECRET_OF_THE_HOST"


@pytest.fixture(scope="session")
def workspace():
    """A directory that callers of the direct API may name."""
    path = Path(tempfile.mkdtemp(prefix="cf-work-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def some_path(workspace):
    """The seed README's /some/path; where this is not root's machine, a directory that stands for it."""
    path = Path("/some/path")
    made = []
    try:
        for directory in (path.parent, path):
            if not directory.exists():
                directory.mkdir()
                made.append(directory)
    except PermissionError:
        path = workspace / "some-path"
        path.mkdir()
    yield path
    for directory in reversed(made):
        directory.rmdir()


@pytest.fixture(scope="session")
def service(workspace, some_path):
    """The real CLI, on the offline upstream, behind nginx."""
    settings = {
        "ALLOWED_DIRECTORIES": f"{workspace}:{some_path}", "LOG_LEVEL": "debug", "WORKER_CONCURRENCY": 4, "MAX_SESSIONS_PER_KEY": 100000,
        CANARY_VARIABLE: "canary-of-the-environment",
    }
    with Service(**settings) as service:
        yield service


@pytest.fixture(scope="session")
def fake(workspace):
    """The same with the fake CLI, whose behaviour a test chooses with `fake.mode(…)`; short time-outs."""
    settings = {"REQUEST_TIMEOUT_MS": 2000, "WORKER_CONCURRENCY": 10, "ALLOWED_DIRECTORIES": workspace, "MAX_SESSIONS_PER_KEY": 100000}
    with Service(cli="fake", **settings) as service:
        yield service


@pytest.fixture(autouse=True)
def _bounded():
    """No test runs for ever: whatever it waits for, it fails instead."""

    def fail(*_):
        raise AssertionError("the test took more than 120 s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _fake_is_well(request):
    """Each test finds the fake CLI working."""
    if "fake" in request.fixturenames:
        request.getfixturevalue("fake").mode("fast")
    yield


@pytest.fixture
def mark():
    """A word that is in no other request."""
    return "mark-" + uuid.uuid4().hex


@pytest.fixture
def directory(workspace, mark):
    """A fresh directory under the allowed roots."""
    path = workspace / mark
    path.mkdir()
    return path
