"""Responses that outlive their responder, their disk or their database."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from dialects import CHATS, OPENAI, check_error
from service import Service, stat, until
from test_faults import reported

PATH = "/v1/responses"


@pytest.fixture(scope="module")
def faulty():
    """A service of its own, because its responders are killed."""
    with Service(cli="fake", RESPONDERS=3, WORKER_CONCURRENCY=4) as service:
        yield service


def in_background(service, text="hi"):
    answer = service.post(PATH, {"model": "sonnet", "input": text, "background": True})
    assert answer.status_code == 200 and answer.json()["status"] == "queued", answer.text
    return answer.json()["id"]


def status(service, response):
    answer = service.get(f"{PATH}/{response}")
    assert answer.status_code == 200, answer.text
    return answer.json()["status"]


def stalled(service):
    """A background response that runs, its CLI, and the responder that runs it."""
    service.no_cli()
    service.mode("stalls-on-turn")
    response = in_background(service)
    until(lambda: status(service, response) == "in_progress", 20, "a running response")
    cli = service.one_cli()
    until(lambda: cli in reported(service), 20, "its turn")  # what it is to do it has read by then
    service.mode("fast")
    return response, cli, int(stat(cli)[1])


def test_a_response_whose_responder_is_killed_has_failed_within_a_second(faulty):
    def failed():
        answer = faulty.get(f"{PATH}/{response}")
        # 502: the responder that was asked is the one that dies.
        return answer.status_code == 200 and answer.json()["status"] == "failed" and answer.json()

    for _ in range(3):  # the quickest counts: a busy machine may stand still for longer
        response, cli, responder = stalled(faulty)
        began = time.monotonic()
        os.kill(responder, signal.SIGKILL)
        body = until(failed, 20, "the failed response")
        took = time.monotonic() - began
        if took < 1:
            break
    assert took < 1
    assert body["error"]["code"] == "server_error" and "again" in body["error"]["message"] and body["output"] == []
    until(lambda: stat(cli) is None or stat(cli)[0] in "ZX", 20, "the end of its CLI")
    assert status(faulty, response) == "failed", "and stays so"
    # A client that has not asked is told no other story.
    assert faulty.post(f"{PATH}/{response}/cancel", {}).json()["status"] == "failed"
    # The place is free, and the conversation can go on.
    until(lambda: faulty.get("/health").json()["queue"]["processing"] == 0, 20, "a free place")
    again = faulty.post(PATH, {"model": "sonnet", "input": "still there?", "previous_response_id": response})
    assert again.status_code == 200 and again.json()["status"] == "completed", again.text


def test_a_conversation_goes_on_also_where_nobody_asked_for_the_response_of_a_killed_responder(faulty):
    response, _, responder = stalled(faulty)
    os.kill(responder, signal.SIGKILL)

    def continued():
        answer = faulty.post(PATH, {"model": "sonnet", "input": "go on", "previous_response_id": response})
        return answer.status_code == 200 and answer

    assert until(continued, 20, "an answer").json()["status"] == "completed"
    assert status(faulty, response) == "failed"


# ---- the database ------------------------------------------------------------------------------------------------------------------


def others_work(service):
    """What needs no stored response is as ever."""
    for dialect in CHATS:
        answer = service.post(dialect.path, dialect.body("there?"))
        assert answer.status_code == 200 and dialect.text(answer.json()) == "there?"
    assert service.post(PATH, {"model": "sonnet", "input": "there?", "store": False}).json()["status"] == "completed"
    assert service.get("/v1/models").status_code == 200
    # The last answer was out before its CLI had ended.
    until(lambda: service.get("/health").json()["queue"]["processing"] == 0, 20, "a free place")


def refused(service, answer, statuses, kind):
    """A clear error, with the cause in the log alone."""
    assert answer.status_code in statuses, answer.text
    message = check_error(OPENAI, answer.json(), kind)
    assert "store: false" in message and str(service.run_dir) not in answer.text and "sqlite" not in answer.text.lower()
    line = service.request_line(answer.headers["x-request-id"])
    assert line["error.kind"] == kind and "sessions.db" in line["error.cause"]
    return line["error.cause"]


def answered_but_not_kept(service):
    """The caller has the answer, so it is given; the operator is told."""
    answer = service.post(PATH, {"model": "sonnet", "input": "once"})
    assert answer.status_code == 200 and answer.json()["output"][0]["content"][0]["text"] == "once"
    until(lambda: '"message":"response not stored"' in service.log(), 20, "a warning")


@contextlib.contextmanager
def small_disk(directory, kilobytes):
    """A file system of its own, which can be filled; where mounting is not allowed there is nothing to test."""
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(directory)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_is_a_clear_error_and_passes_by_itself(tmp_path):
    state = tmp_path / "state"
    with small_disk(state, 1024), Service(cli="fake", STATE_DIR=state) as service:
        before = service.post(PATH, {"model": "sonnet", "input": "before"}).json()["id"]
        with open(state / "filling", "wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        big = "x" * 20_000
        cause = refused(
            service, service.post(PATH, {"model": "sonnet", "input": big, "background": True}), [500], "internal_error")
        assert "Free space" in cause
        answered = service.post(PATH, {"model": "sonnet", "input": big})
        assert answered.status_code == 200 and answered.json()["output"][0]["content"][0]["text"] == big
        until(lambda: '"message":"response not stored"' in service.log(), 20, "a warning")
        assert service.get(f"{PATH}/{answered.json()['id']}").status_code == 404
        others_work(service)
        (state / "filling").unlink()
        assert status(service, before) == "completed"
        after = service.post(PATH, {"model": "sonnet", "input": big, "previous_response_id": before}).json()["id"]
        assert status(service, after) == "completed"


def test_a_locked_database_is_a_clear_error_and_passes_by_itself():
    with Service(cli="fake") as service:
        before = service.post(PATH, {"model": "sonnet", "input": "before"}).json()["id"]
        lock = sqlite3.connect(service.run_dir / "sessions.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        try:
            answer = service.post(PATH, {"model": "sonnet", "input": "x", "background": True})
            refused(service, answer, [503], "unavailable")
            assert answer.headers["retry-after"] == "2"
            answered_but_not_kept(service)
            others_work(service)
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        assert status(service, before) == "completed"
        assert until(lambda: status(service, in_background(service)) == "completed" or True, 5)


@pytest.mark.parametrize("damage", ["no database", "a directory"])
def test_a_database_that_is_none_is_a_clear_error(tmp_path, damage):
    file = tmp_path / "sessions.db"
    if damage == "a directory":
        file.mkdir()
    else:
        file.write_bytes(b"this is no database at all" * 400)
    with Service(cli="fake", STATE_DIR=tmp_path) as service:
        for answer in (
            service.post(PATH, {"model": "sonnet", "input": "x", "background": True}), service.get(f"{PATH}/resp_{'0' * 32}"),
            service.post(PATH, {"model": "sonnet", "input": "x", "previous_response_id": f"resp_{'0' * 32}"}),
            service.post(f"{PATH}/resp_{'0' * 32}/cancel", {}),
        ):
            refused(service, answer, [500], "internal_error")
        answered_but_not_kept(service)
        others_work(service)
        # What the log says to do helps, without a restart.
        shutil.rmtree(file) if damage == "a directory" else file.unlink()
        assert status(service, service.post(PATH, {"model": "sonnet", "input": "x"}).json()["id"]) == "completed"


def test_a_database_that_was_damaged_while_in_use_is_a_clear_error():
    with Service(cli="fake", RESPONDERS=1) as service:
        before = service.post(PATH, {"model": "sonnet", "input": "before"}).json()["id"]
        file = service.run_dir / "sessions.db"
        file.with_name("sessions.db-wal").write_bytes(b"")
        with open(file, "r+b") as damaged:
            damaged.write(b"garbage " * (file.stat().st_size // 8))
        answer = service.get(f"{PATH}/{before}")
        assert answer.status_code in (404, 500), answer.text
        others_work(service)
