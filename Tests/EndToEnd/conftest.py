"""The service that most tests share: started once, as `make run` starts it, and ended with everything checked.

`pytest --waiting` runs what callers see, and deaths of all kinds, with processes that wait (`SPARES`, `LIVE_MAX`), which the other tests do without.
`pytest --oldest-cli` runs what rests on the CLI's protocol with the oldest CLI that is served; `newer_cli` marks what that one can't do.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from direct import stateful  # noqa: E402
from service import CHECKOUT, Service  # noqa: E402

# The directory in the README's commands, and what of it was not there.
SOME_PATH = Path("/some/path")
MADE = []

CANARY_VARIABLE = "E2E_SECRET_OF_THE_HOST"

# The wheel that carries the program's ClaudeVersion.minimum, and the files that rest on what the CLI does.
OLDEST_WHEEL = "0.2.148"
CLI_FILES = {f"test_{name}.py" for name in (
    "clients sdks tools tool_schemas parameters structured_output media conversations responses errors upstream_errors security spares live").split()}
# What callers see of processes that waited for them.
WAITING_FILES = {f"test_{name}.py" for name in "clients sdks tools tool_schemas parameters structured_output media conversations responses".split()}
# What is killed, breaks or is left, while others wait: whole files, and of some the tests that say so.
DEATH_FILES = {f"test_{name}.py" for name in "admission faults response_faults".split()}
DEATHS = re.compile("kill|outlives|restarts|asked_to_end|client_that_leaves|cancelled_turn|dies|dead_one")
SOME_DEATH_FILES = {f"test_{name}.py" for name in "background_runs sessions session_store run handover".split()}


def pytest_addoption(parser):
    parser.addoption("--waiting", action="store_true", help="what callers see, and deaths, with spares and live conversations")
    parser.addoption("--oldest-cli", action="store_true", help="only what rests on the CLI, with the oldest one that is served")


def pytest_sessionstart(session):
    # In the process that starts the others, where there are several: it is the last to end.
    if hasattr(session.config, "workerinput"):
        return
    for directory in (SOME_PATH.parent, SOME_PATH):
        with contextlib.suppress(FileExistsError, PermissionError):
            directory.mkdir()
            MADE.append(directory)


def pytest_sessionfinish(session):
    for directory in reversed(MADE):
        directory.rmdir()


def pytest_configure(config):
    config.addinivalue_line("markers", "newer_cli(reason): the oldest CLI that is served can't do this")
    if config.getoption("--waiting"):
        Service.waiting = {}
    if not config.getoption("--oldest-cli"):
        return
    path = subprocess.run(
        [CHECKOUT / "Scripts/claude-cli", OLDEST_WHEEL], check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout.strip()
    version = subprocess.run([path, "--version"], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.split()[0]
    source = (CHECKOUT / "Sources/Dialects/CLI/ClaudeVersion.swift").read_text()
    minimum = ".".join(re.search(r"minimum = ClaudeVersion\(major: (\d+), minor: (\d+), patch: (\d+)\)", source).groups())
    if version != minimum:
        raise pytest.UsageError(f"the wheel {OLDEST_WHEEL} has CLI {version}, the program's minimum is {minimum}: they belong together")
    os.environ["CLAUDE_PATH"] = path


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--oldest-cli") and not config.getoption("--waiting"):
        return
    files = CLI_FILES if config.getoption("--oldest-cli") else WAITING_FILES

    def is_chosen(item):
        if config.getoption("--waiting"):
            name = item.path.name
            if name in DEATH_FILES or name in SOME_DEATH_FILES and DEATHS.search(item.originalname):
                return True
        # What uses the fake CLI alone is the same with any real one.
        return item.path.name in files and not {"fake", "faulty", "player"} & set(item.fixturenames)

    chosen = [item for item in items if is_chosen(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen
    if not config.getoption("--oldest-cli"):
        return
    for item in items:
        for mark in item.iter_markers("newer_cli"):
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(scope="session")
def workspace():
    """A directory that callers of the direct API may name."""
    path = Path(tempfile.mkdtemp(prefix="cf-work-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def some_path(workspace):
    """The seed README's /some/path; where this is not root's machine, a directory that stands for it."""
    if SOME_PATH.exists():
        return SOME_PATH
    path = workspace / "some-path"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def service(workspace, some_path):
    """The real CLI, on the offline upstream, behind nginx."""
    settings = {
        "ALLOWED_DIRECTORIES": f"{workspace}:{some_path}", "LOG_LEVEL": "debug", "WORKER_CONCURRENCY": 4, "MAX_SESSIONS_PER_KEY": 100000,
        CANARY_VARIABLE: "canary-of-the-environment",
    }
    with Service(**settings) as service:
        yield service


@pytest.fixture(scope="module")
def open_handed(workspace):
    """An operator who allows MCP servers and every mode."""
    with Service(
            ALLOW_MCP_SERVERS="true", PERMISSION_MODES="default,acceptEdits,plan,dontAsk,bypassPermissions", ALLOWED_DIRECTORIES=workspace,
            WORKER_CONCURRENCY=4, IS_SANDBOX=1) as service:
        yield service


@pytest.fixture(scope="module")
def kept(workspace):
    """The real CLI, with two keys, where sessions are kept."""
    with stateful(WORKER_CONCURRENCY=4, ALLOWED_DIRECTORIES=workspace, RETRY_MAX_ATTEMPTS=1) as service:
        yield service


@pytest.fixture(scope="module")
def kept_fast(workspace):
    """The same with the fake CLI, which keeps transcripts as well."""
    with stateful("fake", WORKER_CONCURRENCY=4, ALLOWED_DIRECTORIES=workspace) as service:
        yield service


@pytest.fixture
def fast(kept_fast):
    """The service of `kept_fast`; its CLI does what it should."""
    kept_fast.mode("recall")
    return kept_fast


@pytest.fixture(scope="session")
def fake(workspace):
    """The same with the fake CLI, whose behaviour a test chooses with `fake.mode(…)`; short time-outs."""
    settings = {
        "REQUEST_TIMEOUT_MS": 5000, "RETRY_MAX_ATTEMPTS": 2, "WORKER_CONCURRENCY": 10, "ALLOWED_DIRECTORIES": workspace,
        "MAX_SESSIONS_PER_KEY": 100000,
    }
    with Service(cli="fake", **settings) as service:
        yield service


@pytest.fixture(autouse=True)
def _bounded():
    """No test runs for ever: whatever it waits for, it fails instead."""

    def fail(*_):
        raise AssertionError("the test took more than 240 s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(240)
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
