"""Runs that go on without their client: their states, their events from any place, their end, and whoever dies meanwhile."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from dialects import DIRECT, check_error
from direct import (
    ENDED, REPLY, RUN_ID, UUID, ask, bash, begin, check_reply, check_stream, ended, numbered_events, refused, run, run_events, session, state, timed)
from service import Service, alive, stat, until, within

MISSING = "run_00000000000000000000000000000000"


@pytest.fixture(scope="module")
def busy(workspace):
    """The real CLI, with two keys and few responders."""
    with Service(keys={"other": ""}, WORKER_CONCURRENCY=4, ALLOWED_DIRECTORIES=workspace, RETRY_MAX_ATTEMPTS=1) as service:
        yield service


def running(service, prompt, mark, **body):
    """A run in the background whose prompt has reached the model: its id, its CLI and its responder."""
    service.no_cli(30)
    id = begin(service, prompt, **body)
    until(lambda: service.recorded(mark), 20, "the request's way upstream", 0.02)
    pid = service.one_cli()
    return id, pid, int(stat(pid)[1])


def is_well(service):
    """Every place is free, and the next run is as if nothing had happened."""
    until(lambda: service.get("/health").json()["queue"]["processing"] == 0, 20, "a free place")
    assert run(service, "[[say=well]]", ephemeral=True)["result"] == "well"


def queue(service):
    """How many requests wait, and how many have a place."""
    found = service.get("/health").json()["queue"]
    return found["pending"], found["processing"]


# ---- states ------------------------------------------------------------------------------------------------------------------


def test_a_run_goes_through_its_states_to_its_result(busy, mark):
    id = begin(busy, f"{mark} {bash('echo x')} [[tokens=10]] [[delay_ms=100]] [[then=end]]", allowedTools=["Bash"])
    seen = []

    def over():
        found = state(busy, id)
        if not seen or seen[-1] != found:
            seen.append(found)
        return found["state"] in ENDED

    until(over, 40, "the end of the run", 0.02)
    order = ["queued", "running", "completed"]
    states = [found["state"] for found in seen]
    assert states == sorted(states, key=order.index) and states[-1] == "completed" and "running" in states, states
    for name in ("turns", "toolCalls", "textLength"):
        numbers = [found["progress"][name] for found in seen]
        assert numbers == sorted(numbers), (name, numbers)
    last = seen[-1]
    assert last["progress"]["turns"] == 2 and last["progress"]["toolCalls"] == 1 and last["progress"]["lastTool"] == "Bash"
    assert last["progress"]["textLength"] >= len("end") and last["error"] is None
    assert last["result"]["result"] == "end" and last["result"]["sessionId"] == last["sessionId"] and UUID.fullmatch(last["sessionId"])
    assert set(last["result"]) == REPLY
    assert session(busy, last["sessionId"])["turns"] == 1


def test_the_answer_comes_at_once(busy, mark):
    run(busy, f"{mark}-warm [[say=x]]")
    id = within(1.5, lambda: begin(busy, f"{mark} [[first_ms=3000]] [[say=late]]"))
    assert ended(busy, id)["result"]["result"] == "late"


def test_a_client_that_leaves_ends_nothing(busy, mark):
    connection = busy.connect(DIRECT, DIRECT.body(f"{mark} [[tokens=10]] [[delay_ms=100]]", background=True))
    answer = connection.recv(65536).decode()
    connection.close()
    id = RUN_ID.search(answer)[0]
    assert "tok9" in ended(busy, id)["result"]["result"]
    is_well(busy)


def test_a_run_may_be_ephemeral_or_go_on(busy, mark):
    first = ended(busy, begin(busy, f"{mark}-1 [[say=one]]"))
    second = ended(busy, begin(busy, f"{mark}-2 [[say=two]]", sessionId=first["sessionId"]))
    assert second["sessionId"] == first["sessionId"] and session(busy, first["sessionId"])["turns"] == 2
    assert "one" in str(busy.upstream_body(f"{mark}-2")["messages"])
    alone = ended(busy, begin(busy, f"{mark}-3 [[say=three]]", ephemeral=True))
    assert alone["sessionId"] is None and alone["result"]["sessionId"] is None


def test_runs_on_one_session_keep_their_order(busy, mark):
    id = run(busy, f"{mark} [[say=zero]]")["sessionId"]
    until(lambda: queue(busy) == (0, 0), 20, "a free place")
    runs = []
    for number in range(4):
        runs.append(begin(busy, f"{mark}-{number} [[say=n{number}]] [[first_ms=300]]", sessionId=id))
        # A run's turn comes by when it came to the gate, and that is behind its answer.
        until(lambda: sum(state(busy, id)["state"] in ENDED for id in runs) + sum(queue(busy)) == len(runs), 20, "its way to the gate")
    assert [ended(busy, number)["state"] for number in runs] == ["completed"] * 4
    answers = [message["content"][-1]["text"] for message in session(busy, id)["messages"] if message["role"] == "assistant"]
    assert answers == ["zero", "n0", "n1", "n2", "n3"]


@pytest.mark.parametrize("prompt, code, body", [
    ("[[error=400]]", "invalid_request", {}), ("[[error=500]]", "upstream_error", {}), ("[[stall=2]]", "timeout", {"timeoutMs": 2000})])
def test_a_run_that_fails_says_why(busy, prompt, code, body):
    id = begin(busy, prompt, **body)
    found = ended(busy, id)
    assert found["state"] == "failed" and found["error"]["code"] == code and found["result"] is None
    events = run_events(busy, id)
    assert events[-1][1] == "error" and events[-1][2] == found["error"]
    is_well(busy)


@pytest.mark.parametrize("body, status", [
    ({"workingDirectory": "/etc"}, 403), ({"allowedTools": ["Nonsense"]}, 400), ({"model": "nonsense"}, 404), ({"stream": True}, 400),
    ({"sessionId": "00000000-0000-4000-8000-000000000000"}, 404)], ids=str)
def test_what_can_be_refused_at_once_is(busy, body, status):
    refused(ask(busy, "POST", "/api/run", json={"prompt": "x", "background": True, **body}), status)


# ---- events ------------------------------------------------------------------------------------------------------------------


def test_events_from_every_place_add_up_to_the_whole(busy, mark):
    prompt = f"{mark} [[tokens=6]] {bash('echo x')} [[then=the end]]"
    id = begin(busy, prompt, allowedTools=["Bash"])
    whole = run_events(busy, id)  # follows it to its end
    assert [number for number, _, _ in whole] == [str(number) for number in range(1, len(whole) + 1)]
    check_stream([(name, data) for _, name, data in whole])
    assert whole[-1][1] == "result" and whole[-1][2] == state(busy, id)["result"] and whole[0][2]["id"] == id
    assert {"start", "text", "tool_use", "tool_result", "usage", "result"} <= {name for _, name, _ in whole}
    assert run_events(busy, id) == whole and run_events(busy, id, after=0) == whole
    for position in range(1, len(whole)):
        rest = run_events(busy, id, after=position) if position % 2 else run_events(busy, id, header=position)
        assert whole[:position] + rest == whole, position


@pytest.mark.parametrize("how", ["after", "header"])
def test_behind_the_last_event_there_is_nothing(busy, mark, how):
    id = begin(busy, f"{mark} [[say=x]]")
    last = int(run_events(busy, id)[-1][0])
    assert within(3, lambda: run_events(busy, id, **{how: last})) == []


def test_a_stream_whose_end_could_not_be_written_ends_with_an_error(busy, mark):
    """As on a full disk; in the middle of an event, or behind one."""
    id = begin(busy, f"{mark} [[say=x]]")
    ended(busy, id)
    whole = run_events(busy, id)
    path = busy.state_dir / "background" / f"{id}.sse"
    written = path.read_bytes()
    for cut in (written.rindex(b"id: "), len(written) - 5):
        os.truncate(path, cut)
        for after in (0, len(whole) - 1):
            events = within(3, lambda: run_events(busy, id, after=after))
            assert events[:-1] == whole[after:-1] and events[-1][:2] == (None, "error"), events
            check_error(DIRECT, {"error": events[-1][2]}, "internal_error")
        path.write_bytes(written)
    assert run_events(busy, id) == whole


@pytest.fixture(scope="module")
def ended_run(busy):
    id = begin(busy, "[[say=x]]")
    ended(busy, id)
    return id


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "99999999999999999999999", ""])
@pytest.mark.parametrize("other", [None, "1"])
@pytest.mark.parametrize("how", ["after", "Last-Event-ID"])
def test_a_place_that_is_none_is_named(busy, ended_run, how, other, position):
    places = {how: position}
    if other:
        places[{"after": "Last-Event-ID"}.get(how, "after")] = other
    headers = {name: place for name, place in places.items() if name != "after"}
    params = {name: place for name, place in places.items() if name == "after"}
    answer = within(3, lambda: ask(busy, "GET", f"/api/runs/{ended_run}/events", headers, params=params))
    assert answer.status_code == 400, answer.text
    assert f"`{how}`" in check_error(DIRECT, answer.json(), "invalid_request")


def follow(service, id, arrivals, after=None, until_number=None):
    """Reads a run's stream as it comes; each event with the time of its arrival. Ends early behind `until_number`."""
    block = ""
    params = {"after": after} if after is not None else None
    with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError), service.client() as client:
        with client.stream("GET", f"/api/runs/{id}/events", params=params) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                block += line + "\n"
                if not line:
                    for event in numbered_events(block):
                        arrivals.append((time.monotonic(), event))
                        if until_number and int(event[0]) >= until_number:
                            return
                    block = ""


def test_a_run_that_goes_on_is_followed_as_it_goes(busy, mark):
    id = begin(busy, f"{mark} [[tokens=40]] [[delay_ms=150]]")
    arrivals = [[] for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(follow, busy, id, found) for found in arrivals]:
            future.result(60)
    whole = run_events(busy, id)
    for found in arrivals:
        assert [event for _, event in found] == whole
        times = [moment for moment, (_, name, _) in found if name == "text"]
        assert len(times) >= 20 and times[-1] - times[0] > 1.5, "it came in one piece"


def test_a_follower_that_breaks_off_goes_on_where_it_was(busy, mark):
    id = begin(busy, f"{mark} [[tokens=20]] [[delay_ms=150]]")
    arrivals = []
    while not arrivals or arrivals[-1][1][1] not in ("result", "error"):
        after = int(arrivals[-1][1][0]) if arrivals else 0
        follow(busy, id, arrivals, after, after + 4)
        assert len(arrivals) < 200
    assert [event for _, event in arrivals] == run_events(busy, id)
    assert state(busy, id)["state"] == "completed"


def test_followers_that_leave_end_nothing_and_hold_nothing(busy, mark):
    id = begin(busy, f"{mark} [[tokens=15]] [[delay_ms=150]]")
    for _ in range(10):
        follow(busy, id, [], 0, 1)
    assert ended(busy, id)["state"] == "completed"
    is_well(busy)


def test_following_a_run_takes_no_place_from_others():
    """Followers of a run wait for its events; requests still find a thread."""
    with Service(cli="fake", WORKER_CONCURRENCY=2, MAX_QUEUE_SIZE=0, RESPONDERS=1) as service:
        service.mode("held")
        id = begin(service, "x")
        until(lambda: (service.base / "pids").exists(), 20, "the run's CLI")
        service.mode("fast")
        with ThreadPoolExecutor(12) as pool:
            followers = [pool.submit(run_events, service, id) for _ in range(12)]
            time.sleep(1)
            for _ in range(3):
                assert run(service, "meanwhile", ephemeral=True)["result"] == "meanwhile"
                # The answer does not wait for the CLI's end, and here nothing waits for a place.
                until(lambda: queue(service) == (0, 1), 20, "a free place")
            within(2, lambda: service.get("/health"))
            (service.base / "go").touch()
            found = [follower.result(30) for follower in followers]
        assert all(events == found[0] and events[-1][1] == "result" for events in found)


# ---- cancelling --------------------------------------------------------------------------------------------------------------


def cancel(service, id):
    answer = ask(service, "POST", f"/api/runs/{id}/cancel")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"id", "sessionId", "state", "createdAt", "progress", "result", "error"}
    return found


def test_a_cancelled_run_ends_with_its_cli(busy, mark):
    id, pid, _ = running(busy, f"{mark} [[stall=3]]", mark)
    cancel(busy, id)
    until(lambda: not alive(pid), 10, "the end of the CLI", 0.005)
    found = ended(busy, id)
    assert found["state"] == "cancelled" and found["result"] is None
    events = run_events(busy, id)
    assert events[-1][1] == "error", "its stream has an end as every stream"
    assert [number for number, _, _ in events] == [str(number) for number in range(1, len(events) + 1)]
    assert cancel(busy, id)["state"] == "cancelled"
    is_well(busy)
    # The session goes when the run is known to have ended.
    until(lambda: ask(busy, "GET", f"/api/sessions/{found['sessionId']}").status_code != 200, 10, "the end of the session")
    refused(ask(busy, "GET", f"/api/sessions/{found['sessionId']}"), 404, "session_not_found")


def test_whichever_responder_is_asked_to_cancel_it_is_done(busy, mark):
    for number in range(4):
        id, pid, _ = running(busy, f"{mark}-{number} [[stall=3]]", f"{mark}-{number}")
        cancel(busy, id)
        until(lambda: not alive(pid), 10, "the end of the CLI", 0.005)
        assert ended(busy, id)["state"] == "cancelled"


def test_a_run_that_waits_can_be_cancelled():
    with Service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=5) as service:
        service.mode("held")
        first = begin(service, "n0")
        until(lambda: queue(service) == (0, 1), 20, "the first run's place")
        second, third = (begin(service, f"n{number}") for number in (1, 2))
        until(lambda: queue(service) == (2, 1), 20, "two that wait")
        assert state(service, second)["state"] == "queued"
        cancel(service, second)
        found = ended(service, second)
        assert found["state"] == "cancelled" and found["error"]["code"] == "cancelled"
        until(lambda: queue(service) == (1, 1), 20, "one that waits")
        (service.base / "go").touch()
        assert ended(service, first)["state"] == ended(service, third)["state"] == "completed"
        assert len((service.base / "pids").read_text().split()) == 2, "what was cancelled was run"


def test_a_run_that_has_ended_is_not_cancelled(busy, mark):
    id = begin(busy, f"{mark} [[say=done]]")
    before = ended(busy, id)
    assert cancel(busy, id) == before and state(busy, id) == before
    assert run_events(busy, id)[-1][1] == "result"


def test_a_cancelled_tool_ends_with_all_it_started(busy, directory, mark):
    command = "setsid nohup sleep 300 >/dev/null 2>&1 </dev/null & echo $! > pid; tail -f /dev/null"
    id = begin(busy, f"{mark} {bash(command)}", allowedTools=["Bash"], workingDirectory=str(directory))
    until(lambda: (directory / "pid").exists() and (directory / "pid").read_text().strip(), 30, "the tool's process")
    pid = int((directory / "pid").read_text())
    cancel(busy, id)
    until(lambda: not alive(pid), 10, "the end of what the tool started")
    assert ended(busy, id)["state"] == "cancelled"


# ---- a responder that dies ---------------------------------------------------------------------------------------------------


def test_a_run_whose_responder_was_killed_is_failed_within_a_second(busy, mark):
    # Three times at most: of one whose machine stood still nothing is learnt.
    for number in range(3):
        took, last = killed_and_failed(busy, f"{mark}-{number}")
        print(f"failed {took * 1000:.0f} ms after its responder was killed")
        if took < 1 and last < 1.5:
            break
    assert took < 1 and last < 1.5


def killed_and_failed(service, mark):
    """How long after its responder's death a run was failed, and how long after it the last follower had that event."""
    until(lambda: len(service.responders()) == 2, 30, "both responders")
    id, pid, responder = running(service, f"{mark} [[tokens=5]] [[stall=3]]", mark)
    arrivals = [[] for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        followers = [pool.submit(follow, service, id, found) for found in arrivals]
        until(lambda: all(len(found) > 3 for found in arrivals), 20, "six followers that have its first events")
        os.kill(responder, signal.SIGKILL)
        killed = time.monotonic()
        found = until(lambda: (now := state(service, id))["state"] in ENDED and now, 20, "the end of the run", 0.01)
        took = time.monotonic() - killed
        for future in followers:
            future.result(30)
    assert found["state"] == "failed"
    until(lambda: not alive(pid), 3, "the end of its CLI")
    # Followers on the responder that died were cut short; those on another have the end, as has who asks now.
    whole = within(1, lambda: run_events(service, id))
    assert whole[-1][1] == "error" and whole[-1][2] == found["error"]
    last = 0
    for events in arrivals:
        names = [event for _, event in events]
        assert names == whole[: len(names)], "an event was lost or came twice"
        if len(names) == len(whole):
            last = max(last, events[-1][0] - killed)
    is_well(service)
    return took, last


def test_the_session_of_a_killed_run_goes_on_at_once(busy, mark):
    session_id = run(busy, f"{mark}-1 [[say=one]]")["sessionId"]
    id, _, responder = running(busy, f"{mark}-2 [[stall=3]]", f"{mark}-2", sessionId=session_id)
    os.kill(responder, signal.SIGKILL)
    reply, seconds = timed(lambda: run(busy, f"{mark}-3 [[say=three]]", sessionId=session_id))
    assert reply["result"] == "three" and seconds < 30
    assert ended(busy, id)["state"] == "failed" and session(busy, session_id)["turns"] == 2
    assert f"{mark}-2" not in str(busy.upstream_body(f"{mark}-3")["messages"])


def test_after_everything_was_killed_nothing_runs_for_ever(mark):
    with Service(WORKER_CONCURRENCY=2) as service:
        done = begin(service, f"{mark}-done [[say=done]]")
        before = ended(service, done), run_events(service, done)
        going = begin(service, f"{mark} [[tokens=5]] [[stall=3]]")
        until(lambda: service.recorded(f"{mark} "), 20, "the request's way upstream", 0.02)
        service.crash()
        found = ended(service, going)
        assert found["state"] == "failed"
        events = run_events(service, going)
        assert events[-1][1] == "error" and [event[0] for event in events] == [str(number + 1) for number in range(len(events))]
        assert (state(service, done), run_events(service, done)) == before
        assert service.get("/health").json()["queue"]["processing"] == 0


def test_a_responder_that_is_asked_to_end_finishes_its_runs(busy, mark):
    id, _, responder = running(busy, f"{mark} [[tokens=20]] [[delay_ms=200]]", mark)
    os.kill(responder, signal.SIGTERM)
    found = ended(busy, id)
    assert found["state"] == "completed" and "tok19" in found["result"]["result"]
    until(lambda: not alive(responder), 20, "the end of the responder")
    until(lambda: len(busy.responders()) == 2, 30, "a new responder")


# ---- whose they are, and how long --------------------------------------------------------------------------------------------


def test_another_keys_run_is_as_one_that_never_was(busy, mark):
    id = begin(busy, f"{mark} [[tokens=10]] [[delay_ms=100]]")
    headers = busy.authorization_of("other")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        theirs = refused(ask(busy, method, f"/api/runs/{id}{path}", headers), 404)
        unknown = refused(ask(busy, method, f"/api/runs/{MISSING}{path}", headers), 404)
        assert theirs.replace(id, "ID") == unknown.replace(MISSING, "ID")
    assert ended(busy, id)["state"] == "completed"
    refused(ask(busy, "GET", f"/api/runs/{id}", headers), 404)


@pytest.mark.parametrize("id", [MISSING, "nonsense", "run_", "..", "run_%2e%2e%2f%2e%2e%2fsessions.db", "run_" + "x" * 3000, "run_%00", "run_%ff"])
@pytest.mark.parametrize("method, path", [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
def test_an_id_that_is_none_is_none(busy, method, path, id):
    answer = ask(busy, method, f"/api/runs/{id}{path}")
    assert answer.status_code in (400, 404), answer.text
    assert answer.headers["content-type"].startswith("application/json")


def test_results_are_kept_over_restarts(busy, mark):
    id = begin(busy, f"{mark} [[tokens=5]]")
    before = ended(busy, id), run_events(busy, id)
    busy.restart_responders()
    assert (state(busy, id), run_events(busy, id)) == before
    check_reply(before[0]["result"])


def test_runs_and_their_files_are_removed_some_time():
    with Service(cli="fake", SESSION_TTL_MS=10000, SESSION_CLEANUP_INTERVAL_MS=1000) as service:
        begins = time.monotonic()
        id = begin(service, "x")
        used = begin(service, "y")
        ended(service, id), ended(service, used)
        files = service.state_dir / "background"
        assert (files / f"{id}.sse").exists()
        time.sleep(6)
        run_events(service, used)
        time.sleep(max(0, 12 - (time.monotonic() - begins)))
        # The other one stays because it is used, however long this takes.
        until(lambda: run_events(service, used) and not (files / f"{id}.sse").exists(), 30, "the removal of its events", 0.1)
        refused(ask(service, "GET", f"/api/runs/{id}"), 404)
        refused(ask(service, "GET", f"/api/runs/{id}/events"), 404)
        assert state(service, used)["state"] == "completed" and [path.name for path in files.iterdir()] == [f"{used}.sse"]


def test_files_of_runs_are_the_services_alone(busy, mark):
    id = begin(busy, f"{mark} [[say=x]]")
    ended(busy, id)
    path = busy.state_dir / "background" / f"{id}.sse"
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def test_many_runs_at_once_all_end():
    with Service(cli="fake", WORKER_CONCURRENCY=4, MAX_QUEUE_SIZE=100) as service:
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda number: begin(service, f"n{number}", ephemeral=True), range(60)))
            found = list(pool.map(lambda id: ended(service, id), ids))
        assert [entry["result"]["result"] for entry in found] == [f"n{number}" for number in range(60)]
        assert len(set(ids)) == 60
        until(lambda: service.get("/health").json()["queue"] == {"pending": 0, "processing": 0, "concurrency": 4}, 20)
        until(lambda: not list((service.state_dir / "runs").glob("*")), 20, "the removal of the runs' directories")
