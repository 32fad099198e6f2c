"""Storage that fails under the sessions: new runs go on without one, old ones say so clearly, nothing else notices, and it passes by itself."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialects import ANTHROPIC, CHATS, DIRECT, OPENAI, check_error
from direct import (
    ask, begin, check_reply, check_stream, ended, fill, mounted, run, session, small_file_system, snapshot, stateful, stream, timed)
from fastcgi import get
from service import until, within


@pytest.fixture
def faulty(workspace):
    """A service that is not started yet, with the fake CLI."""
    service = stateful("fake", ALLOWED_DIRECTORIES=workspace, WORKER_CONCURRENCY=4)
    service.mode("recall")
    yield service
    # A mount in it outlives the service.
    shutil.rmtree(service.base, ignore_errors=True)


def chat(service, dialect, prompt, id="new"):
    return ask(service, "POST", dialect.path, {"X-Session-Id": id}, json=dialect.body(prompt))


class Kept:
    """Sessions that were there before the fault: an agent's and a chat's."""

    def __init__(self, service):
        self.service = service
        self.agent = run(service, "one")["sessionId"]
        answer = chat(service, OPENAI, "one")
        assert answer.status_code == 200, answer.text
        self.chat = answer.headers["x-session-id"]
        # What the turn has cost is stored behind the answer.
        service.request_line(answer.headers["x-request-id"], 20)
        self.before = self.snapshots()

    def snapshots(self):
        return [snapshot(self.service, id) for id in (self.agent, self.chat)]

    def are_refused(self, kinds=("agent", "chat"), statuses=(500, 503)):
        """A request on one says that it can't be done, tells no path, and is over soon."""
        asked = {
            "agent": lambda: (DIRECT, ask(self.service, "POST", "/api/run", json={"prompt": "two", "sessionId": self.agent})),
            "chat": lambda: (OPENAI, chat(self.service, OPENAI, "two", self.chat))}
        for kind in kinds:
            (dialect, answer), seconds = timed(asked[kind])
            assert answer.status_code in statuses, f"{kind}: {answer.status_code}: {answer.text}"
            check_error(dialect, answer.json(), "internal_error" if answer.status_code == 500 else "unavailable")
            assert str(self.service.base) not in answer.text and "SQL" not in answer.text
            assert seconds < 10
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1

    def are_well(self):
        """As they were before the fault, and they go on."""
        assert self.snapshots() == self.before
        assert run(self.service, "two", sessionId=self.agent)["result"] == "one|two"
        answer = chat(self.service, OPENAI, "two", self.chat)
        assert answer.status_code == 200 and answer.headers["x-session-id"] == self.chat
        assert [session(self.service, id)["turns"] for id in (self.agent, self.chat)] == [2, 2]
        fresh = run(self.service, "fresh")["sessionId"]
        assert fresh and run(self.service, "again", sessionId=fresh)["result"] == "fresh|again"


def new_ones_are_done_without(service, directory):
    """Runs and chats that would begin a session are done, say that there is none, and the log says why."""
    lines = len(service.log())
    reply = run(service, "new", workingDirectory=str(directory))
    check_reply(reply)
    assert reply["result"] == "new" and reply["sessionId"] is None
    events = stream(service, "new", workingDirectory=str(directory))
    check_stream(events)
    assert events[-1][0] == "result" and events[-1][1]["sessionId"] is None
    for dialect in CHATS:
        answer = chat(service, dialect, "new")
        assert answer.status_code == 200 and dialect.text(answer.json()) == "new", answer.text
        if dialect is OPENAI:
            assert answer.json().get("session_id") is None
    until(lambda: any(f'"level":"{level}"' in service.log()[lines:] for level in ("warning", "error")), 5, "a word in the log")


def others_notice_nothing(service):
    """Chats that want no session, runs that are ephemeral, and what says how the service is."""
    for dialect in CHATS:
        answer, seconds = timed(lambda: ask(service, "POST", dialect.path, json=dialect.body("plain")))
        assert answer.status_code == 200 and dialect.text(answer.json()) == "plain" and seconds < 5
    # A place is given back when the CLI has ended, which is after the answer.
    until(lambda: service.get("/health").json()["queue"]["processing"] == 0, 20, "every place to be free")
    for _ in range(4):
        answer, seconds = timed(lambda: service.get("/health"))
        assert answer.status_code == 200 and seconds < 2.5
        health = answer.json()
        assert health["status"] == "ok" and set(health["sessions"]) == {"total", "locked"} and health["sessions"]["locked"] == 0
    assert service.get("/v1/models").status_code == 200


@pytest.fixture
def work(workspace, mark):
    path = workspace / mark
    path.mkdir()
    return path


# ---- a full disk -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_sessions_and_nothing_else(faulty, work):
    with small_file_system(faulty.base / "state"), faulty as service:
        kept = Kept(service)
        filler = fill(service.base / "state")
        new_ones_are_done_without(service, work)
        others_notice_nothing(service)
        kept.are_refused()
        # What is there can still be read, and deleted.
        assert session(service, kept.chat)["turns"] == 1
        assert kept.snapshots() == kept.before
        filler.unlink()
        kept.are_well()


def test_a_disk_that_fills_up_during_a_run_loses_no_answer(faulty, work):
    with small_file_system(faulty.base / "state"), faulty as service, ThreadPoolExecutor(2) as pool:
        kept = Kept(service)
        service.mode("held")
        first = pool.submit(ask, service, "POST", "/api/run", json={"prompt": "first", "workingDirectory": str(work)})
        later = pool.submit(ask, service, "POST", "/api/run", json={"prompt": "two", "sessionId": kept.agent})
        until(lambda: service.get("/health").json()["queue"]["processing"] == 2, 20)
        filler = fill(service.base / "state")
        (service.base / "go").touch()
        answer = first.result()
        assert answer.status_code == 200 and answer.json()["result"] == "first" and answer.json()["sessionId"] is None, answer.text
        answer = later.result()
        assert answer.status_code in (500, 503), "a turn that could not be stored looks as if it was"
        filler.unlink()
        service.mode("recall")
        kept.are_well()


def test_deleting_works_on_a_full_disk_or_says_so(faulty, work):
    """It is what makes room."""
    with small_file_system(faulty.base / "state"), faulty as service:
        kept = Kept(service)
        filler = fill(service.base / "state")
        answer = ask(service, "DELETE", f"/api/sessions/{kept.agent}")
        assert answer.status_code in (200, 500, 503)
        gone = answer.status_code == 200
        assert ask(service, "GET", f"/api/sessions/{kept.agent}").status_code == (404 if gone else 200)
        filler.unlink()
        assert ask(service, "DELETE", f"/api/sessions/{kept.agent}").status_code == (404 if gone else 200)


def test_a_background_run_needs_its_store(faulty, work):
    """It can't be followed without, so it is refused; or it is done."""
    with small_file_system(faulty.base / "state"), faulty as service:
        filler = fill(service.base / "state")
        answer = ask(service, "POST", "/api/run", json={"prompt": "x", "background": True, "workingDirectory": str(work)})
        if answer.status_code == 202:
            assert ended(service, answer.json()["id"])["state"] in ("completed", "failed")
        else:
            assert answer.status_code in (500, 503)
            check_error(DIRECT, answer.json())
        filler.unlink()
        assert ended(service, begin(service, "y", workingDirectory=str(work)))["result"]["result"] == "y"


def test_the_clis_own_directory_may_be_full(faulty, work):
    """Where the transcript comes from."""
    with small_file_system(faulty.base / "config"), faulty as service:
        kept = Kept(service)
        filler = fill(service.base / "config")
        reply = run(service, "new", workingDirectory=str(work))
        if reply["sessionId"]:  # then it is whole
            assert run(service, "more", sessionId=reply["sessionId"])["result"] == "new|more"
        others_notice_nothing(service)
        filler.unlink()
        kept.are_well()


# ---- a directory that can't be written ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(directory):
    """The directory as a read-only mount; skips the test where mounting is not allowed."""
    with mounted(directory, "--bind", str(directory)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(directory)], check=True)
        yield


def restarted(service):
    """Ends the service and leaves it to be started again, over the same state."""
    service.stop()
    service.output_file.write_text("")


@pytest.mark.parametrize("when", ["from the start", "meanwhile"])
def test_a_read_only_state_costs_sessions_and_nothing_else(faulty, work, when):
    with faulty as service:
        kept = Kept(service)
        if when == "from the start":
            restarted(service)
        with read_only(service.base / "state"):
            if when == "from the start":
                service.start()
                kept.are_refused()
            else:
                # The database is open already, and may be written on; the transcripts are not.
                kept.are_refused(kinds=("agent",))
            reply = run(service, "new", workingDirectory=str(work))
            assert reply["result"] == "new" and reply["sessionId"] is None
            others_notice_nothing(service)
            if when == "from the start":
                new_ones_are_done_without(service, work)
                answer = ask(service, "POST", "/api/run", json={"prompt": "x"})
                assert answer.status_code in (200, 500)
                if answer.status_code == 500:
                    assert "claude-fcgi check" in check_error(DIRECT, answer.json(), "internal_error")
            restarted(service)
        service.start()
        kept.are_well()


def test_a_state_directory_that_is_a_file_costs_sessions_and_nothing_else(faulty, work):
    with faulty as service:
        kept = Kept(service)
        restarted(service)
        state = service.base / "state"
        state.rename(service.base / "aside")
        state.write_text("a file")
        service.start()
        new_ones_are_done_without(service, work)
        others_notice_nothing(service)
        kept.are_refused()
        state.unlink()
        (service.base / "aside").rename(state)
        # It opens what it could not open before; no restart is needed.
        kept.are_well()


# ---- a database that is locked -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(service):
    """Another process writes in the database and does not come to an end."""
    database = sqlite3.connect(service.base / "state" / "sessions.db", timeout=10, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


def test_a_locked_database_costs_sessions_and_nothing_else(faulty, work):
    with faulty as service:
        kept = Kept(service)
        with locked(service):
            new_ones_are_done_without(service, work)
            others_notice_nothing(service)
            kept.are_refused()
        kept.are_well()


def test_a_lock_that_passes_is_waited_for(faulty, work):
    with faulty as service:
        kept = Kept(service)

        def hold(held):
            with locked(service):
                held.set()
                threading.Event().wait(0.7)

        for _ in range(3):  # on a busy machine the lock may be held for longer than is waited
            held = threading.Event()
            holder = threading.Thread(target=hold, args=(held,))
            holder.start()
            held.wait(10)
            reply = run(service, "new", workingDirectory=str(work))
            holder.join()
            if reply["sessionId"]:
                break
        assert reply["sessionId"]
        kept.are_well()


@pytest.mark.parametrize("when", ["soon", "at the responder's end"])
@pytest.mark.parametrize("thing", ["run", "response"])
def test_the_end_of_a_background_run_is_written_once_it_can_be(faulty, work, thing, when):
    """It is over meanwhile for whoever follows its events."""
    with faulty as service:
        service.mode("held")
        if thing == "run":
            path = f'/api/runs/{begin(service, "first", workingDirectory=str(work))}'
        else:
            answer = ask(service, "POST", "/v1/responses", json={"model": "sonnet", "input": "first", "background": True})
            path = f'/v1/responses/{answer.json()["id"]}'

        def whole():
            found = service.get(path).json()
            return found if found.get("state", found.get("status")) == "completed" else None

        until(lambda: service.get("/health").json()["queue"]["processing"], 20, "the run")
        assert not whole()
        with locked(service):
            (service.base / "go").touch()
            until(lambda: "not stored yet" in service.log(), 20, "a word in the log")
            if thing == "run":
                events = ask(service, "GET", path + "/events").text
                assert events.count("event: result") == 1
                # Also for whoever has them all.
                last = re.findall(r"^id: (\d+)$", events, re.M)[-1]
                assert "event:" not in ask(service, "GET", f"{path}/events?after={last}").text
            assert not whole()
        if when != "soon":
            service.restart_responders()
        found = until(whole, 20, "its end")
        assert "first" in json.dumps(found["result"] if thing == "run" else found["output"])


def test_a_lock_does_not_hold_up_those_who_wait_for_other_things(faulty, work):
    """While requests wait for the database, `/health` and chats are quick, with every responder."""
    with faulty as service:
        kept = Kept(service)
        with locked(service), ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(ask, service, "POST", "/api/run", json={"prompt": "x", "sessionId": kept.agent}) for _ in range(3)]
            waiting += [pool.submit(ask, service, "POST", "/api/run", json={"prompt": "x", "workingDirectory": str(work)}) for _ in range(3)]
            for _ in range(10):
                answer, seconds = timed(lambda: service.get("/health"))
                assert answer.status_code == 200 and seconds < 2.5
            answers = [future.result() for future in waiting]
        assert all(answer.status_code in (200, 500, 503) for answer in answers)
        assert all(answer.json()["sessionId"] is None for answer in answers if answer.status_code == 200)
        kept.are_well()


def test_health_is_quick_where_the_lock_was_there_first(faulty, work):
    """With responders that have not opened the database yet."""
    with faulty as service:
        kept = Kept(service)
        for checkpoint in (False, True):  # an empty log is written to when it is opened
            if checkpoint:
                with contextlib.closing(sqlite3.connect(service.base / "state" / "sessions.db")) as database:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            restarted(service)
            with locked(service):
                service.start()
                for pid in service.responders():
                    status, body = within(1, lambda: get(service.run_dir / f"r-{pid}.sock", "/health"))
                    assert status == 200 and set(json.loads(body)["sessions"]) == {"total", "locked"}
        kept.are_well()


# ---- a database that is damaged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["noise", "head", "middle", "cut", "empty", "directory"])
def test_a_damaged_database_costs_sessions_and_nothing_else(faulty, work, damage):
    with faulty as service:
        kept = Kept(service)
        restarted(service)
        state = service.base / "state"
        backup = service.base / "backup"
        path = state / "sessions.db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for name in ("sessions.db-wal", "sessions.db-shm"):
            (state / name).unlink(missing_ok=True)
        shutil.copytree(state, backup)
        size = path.stat().st_size
        if damage == "noise":
            path.write_bytes(os.urandom(size))
        elif damage == "directory":
            path.unlink()
            path.mkdir()
        elif damage in ("cut", "empty"):
            os.truncate(path, 0 if damage == "empty" else size // 2 // 4096 * 4096 + 100)
        else:
            with open(path, "r+b") as file:
                # Behind the head, where the schema and the rows are; or the head itself.
                file.seek(0 if damage == "head" else 100)
                file.write(os.urandom(100 if damage == "head" else size - 100))
        service.start()
        others_notice_nothing(service)
        answer = ask(service, "POST", "/api/run", json={"prompt": "new", "workingDirectory": str(work)})
        assert answer.status_code == 200 and answer.json()["result"] == "new", answer.text
        if damage == "empty":
            # An empty database is a new one: nothing can be known of what was in it.
            assert answer.json()["sessionId"]
            assert ask(service, "POST", "/api/run", json={"prompt": "x", "sessionId": kept.agent}).status_code == 404
        else:
            assert answer.json()["sessionId"] is None
            new_ones_are_done_without(service, work)
            kept.are_refused()
            answer = ask(service, "GET", "/api/sessions")
            assert answer.status_code in (500, 503), "no sessions, as if there had never been any"
            check_error(DIRECT, answer.json())
        # The operator puts the copy back.
        restarted(service)
        shutil.rmtree(state)
        backup.rename(state)
        service.start()
        kept.are_well()


def test_a_database_that_is_damaged_meanwhile_takes_no_answer_along(faulty, work):
    with faulty as service:
        kept = Kept(service)
        path = service.base / "state" / "sessions.db"
        with open(path, "r+b") as file:
            file.write(os.urandom(path.stat().st_size))
        for dialect in (OPENAI, ANTHROPIC):
            assert ask(service, "POST", dialect.path, json=dialect.body("plain")).status_code == 200
        answer = ask(service, "POST", "/api/run", json={"prompt": "new", "workingDirectory": str(work)})
        assert answer.status_code == 200 and answer.json()["result"] == "new", answer.text
        answer = ask(service, "POST", "/api/run", json={"prompt": "x", "sessionId": kept.agent})
        assert answer.status_code in (200, 500, 503), answer.text
        assert service.get("/health").status_code == 200
