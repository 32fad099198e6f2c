"""The sessions that are kept: how many, whose they are, looked at and removed."""

import json
import os
import shutil
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dialects import ANTHROPIC, CHATS, DIRECT, OPENAI, check_error
from direct import (
    SESSION, TIME, USAGE, ask, bash, check_stream, cli_session, config_dir, delete, refused, run, session, snapshot, stateful, stream,
    tool, traces, transcripts)
from fastcgi import get
from service import proc, until
from sessions import MISSING, begun, chat, continued
from talk import holder_of
from test_conversations import texts
from test_run import program

# ---- limits ------------------------------------------------------------------------------------------------------------------


def test_a_key_has_so_many_sessions_and_no_more():
    with stateful("fake", MAX_SESSIONS_PER_KEY=3) as service:
        ids = [run(service, "one")["sessionId"] for _ in range(2)]
        service.mode("exits")
        for _ in range(3):  # one that fails takes no place
            assert ask(service, "POST", "/api/run", json={"prompt": "x"}).status_code == 500
        service.mode("fast")
        ids.append(begun(service, OPENAI, "three"))
        message = refused(ask(service, "POST", "/api/run", json={"prompt": "four"}), 429, "session_limit_reached")
        assert "ephemeral" in message and "elete" in message
        refused(ask(service, "POST", "/api/run", json={"prompt": "x", "sessionId": ids[0], "fork": True}), 429, "session_limit_reached")
        for dialect in CHATS:
            answer = chat(service, dialect, "four")
            assert answer.status_code == 429, answer.text
            check_error(dialect, answer.json(), "session_limit_reached" if dialect is OPENAI else None)
        assert run(service, "four", ephemeral=True)["sessionId"] is None
        assert ask(service, "POST", OPENAI.path, json=OPENAI.body("four")).status_code == 200
        assert run(service, "one more", sessionId=ids[0])["sessionId"] == ids[0]
        assert run(service, "mine", key="other")["sessionId"]
        assert delete(service, ids[1]).status_code == 200
        assert run(service, "four")["sessionId"]


def test_sessions_expire_after_their_last_use(mark):
    """Both kinds, with all their files; one that is used stays."""
    with stateful(SESSION_TTL_MS=15000, SESSION_CLEANUP_INTERVAL_MS=1000) as service:
        begins = time.monotonic()
        agent = run(service, f"{mark} {bash('touch x')}", allowedTools=["Bash"])
        chat_id, used, cli = begun(service, OPENAI, "two"), run(service, "three")["sessionId"], cli_session(service, mark)
        assert Path(agent["workingDirectory"]).exists() and traces(service, cli)
        left = {agent["sessionId"], chat_id}
        while left:
            assert time.monotonic() - begins < 90, "unused sessions do not end"
            run(service, "four", sessionId=used)
            time.sleep(2)
            for id in [*left]:
                if ask(service, "GET", f"/api/sessions/{id}").status_code == 404:
                    assert time.monotonic() - begins > 14
                    refused(ask(service, "POST", "/api/run", json={"prompt": "x", "sessionId": id}), 404, "session_not_found")
                    left.remove(id)
        until(lambda: not traces(service, agent["sessionId"], cli), 20, "the removal of its files", 0.1)
        assert [entry["id"] for entry in ask(service, "GET", "/api/sessions").json()["sessions"]] == [used]
        # A row is removed some time after its session has expired.
        until(lambda: ask(service, "GET", "/health").json()["sessions"]["total"] == 1, 20, "the removal of the rows", 0.1)
        assert run(service, "five", sessionId=used)["sessionId"] == used


# ---- looking at them, and removing them --------------------------------------------------------------------------------------


def test_a_session_has_the_fields_of_the_documentation(kept, directory, mark):
    id = run(kept, f"List {mark} [[say=one]] [[usage=100,20,3]]", workingDirectory=str(directory), model="sonnet")["sessionId"]
    run(kept, f"{mark}-2 [[say=two]] [[usage=10,2,1]]", sessionId=id)
    found = session(kept, id)
    assert set(found) == SESSION | {"messages"}
    listed = ask(kept, "GET", "/api/sessions?limit=1").json()["sessions"][0]
    assert listed == {name: found[name] for name in SESSION}
    assert found["id"] == id and found["profile"] == "agent" and found["turns"] == 2
    assert TIME.fullmatch(found["createdAt"]) and TIME.fullmatch(found["lastAccessedAt"]) and found["lastAccessedAt"] >= found["createdAt"]
    assert found["title"].startswith("List mark-") and found["workingDirectory"] == str(directory) and "sonnet" in found["model"]
    assert set(found["usage"]) == USAGE
    assert found["usage"]["inputTokens"] == 110 and found["usage"]["cacheReadTokens"] == 22 and found["usage"]["cacheCreationTokens"] == 4
    assert found["usage"]["outputTokens"] > 0 and found["costUsd"] > 0
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user", "assistant"]
    assert all(set(message) == {"role", "content"} for message in found["messages"])
    chat_id = begun(kept, OPENAI, f"{mark} [[say=x]]")
    assert session(kept, chat_id)["profile"] == "chat"


def test_what_a_turn_costs_is_its_own(kept, mark):
    """A resumed CLI reports what the whole conversation has cost."""
    replies = [run(kept, f"{mark}-0 [[usage=100000,0,0]] [[say=x]]")]
    id = replies[0]["sessionId"]
    replies += [run(kept, f"{mark}-{number} [[usage=100000,0,0]] [[say=x]]", sessionId=id) for number in (1, 2)]
    for reply in replies:
        assert reply["costUsd"] == pytest.approx(replies[0]["costUsd"], rel=0.01), [reply["costUsd"] for reply in replies]
        assert reply["usage"]["inputTokens"] == 100000
    found = session(kept, id)
    assert found["costUsd"] == pytest.approx(sum(reply["costUsd"] for reply in replies), rel=0.001)
    assert found["usage"]["inputTokens"] == 300000
    fork = run(kept, f"{mark}-3 [[usage=100000,0,0]] [[say=x]]", sessionId=id, fork=True)
    assert fork["costUsd"] == pytest.approx(replies[0]["costUsd"], rel=0.01)


def test_a_budget_is_the_runs_and_not_the_conversations(kept, mark):
    first = run(kept, f"{mark}-0 [[usage=100000,0,0]] [[say=x]]")
    budget = first["costUsd"] / 2
    reply = run(kept, f"{mark}-1 {bash('echo x')} [[then=end]]", sessionId=first["sessionId"], allowedTools=["Bash"], maxBudgetUsd=budget)
    assert reply["stopReason"] == "end_turn" and reply["result"] == "end" and reply["costUsd"] < budget


def test_a_conversation_that_outgrows_its_model_goes_on(kept, mark):
    """The CLI puts a summary in the place of what was said; a run's stream has nothing of that."""
    id = run(kept, f"{mark}-1 [[usage=1000000,0,0]] [[say=one]]")["sessionId"]
    events = stream(kept, f"{mark}-2 {bash('echo x')} [[then=two]]", sessionId=id, allowedTools=["Bash"])
    check_stream(events)
    assert events[-1][1]["result"] == "two" and len([name for name, _ in events if name == "tool_result"]) == 1
    assert run(kept, f"{mark}-3 [[say=three]]", sessionId=id)["result"] == "three"
    found = session(kept, id)
    assert found["turns"] == 3 and texts(found["messages"][-1]["content"]) == ["three"]


def test_messages_have_calls_of_tools_and_their_results(kept, mark):
    id = run(kept, f"{mark} {bash('echo the-output')} [[then=done]]", allowedTools=["Bash"])["sessionId"]
    found = session(kept, id)["messages"]
    assert [message["role"] for message in found] == ["user", "assistant", "user", "assistant"]
    assert [block["type"] for block in found[1]["content"]] == ["tool_use"] and found[1]["content"][0]["input"]["command"] == "echo the-output"
    assert found[2]["content"][0]["type"] == "tool_result" and "the-output" in json.dumps(found[2]["content"][0])
    assert texts(found[3]["content"]) == ["done"]


def test_a_title_can_be_switched_off():
    with stateful("fake", SESSION_TITLES="false") as service:
        for id in (run(service, "a secret")["sessionId"], begun(service, OPENAI, "a secret")):
            assert session(service, id)["title"] is None
        assert all(entry["title"] is None for entry in ask(service, "GET", "/api/sessions").json()["sessions"])


def test_titles_are_short_and_of_one_line(fast):
    title = session(fast, run(fast, "one  two\\n\\tthree " + "word " * 500)["sessionId"])["title"]
    assert title.startswith("one") and len(title) <= 200 and "\n" not in title


def test_pages_have_every_session_once_newest_first(fast):
    ask(fast, "DELETE", "/api/sessions")
    ids = [run(fast, f"n{number}")["sessionId"] if number % 2 else begun(fast, OPENAI, f"n{number}") for number in range(7)]
    for limit in (1, 2, 3, 7, 100):
        seen, after = [], None
        for _ in range(10):
            page = ask(fast, "GET", "/api/sessions", params={"limit": limit, **({"after": after} if after else {})}).json()
            assert set(page) == {"sessions", "hasMore"} and len(page["sessions"]) <= limit
            seen += [entry["id"] for entry in page["sessions"]]
            if not page["hasMore"]:
                break
            after = seen[-1]
        assert seen == ids[::-1], limit
    # An older one that is used does not jump the pages.
    run(fast, "again", sessionId=ids[1])
    assert [entry["id"] for entry in ask(fast, "GET", "/api/sessions").json()["sessions"]] == ids[::-1]
    page = ask(fast, "GET", "/api/sessions", params={"after": MISSING})
    assert page.status_code in (200, 400, 404) and (page.status_code != 200 or page.json() == {"sessions": [], "hasMore": False})


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.5", ""])
def test_a_bad_limit_is_named(fast, limit):
    answer = ask(fast, "GET", "/api/sessions", params={"limit": limit})
    if limit == "" and answer.status_code == 200:
        return  # none given
    refused(answer, 400, "invalid_request", "limit")


def test_deleting_takes_every_file_along(kept, mark):
    """Also what the CLI keeps beside the transcript: a long output of a tool."""
    command = "head -c 300000 /dev/zero | tr '\\0' x; echo y > made"
    prompt = f"{mark} {tool('Write', file_path='./written', content='x')} {bash(command)}"
    reply = run(kept, prompt, allowedTools=["Bash", "Write", "TodoWrite"])
    id, cli = reply["sessionId"], cli_session(kept, mark)
    place = Path(reply["workingDirectory"])
    assert (place / "made").exists()
    assert (kept.state_dir / "transcripts" / f"{cli}.jsonl").exists(), transcripts(kept)
    assert not list((config_dir(kept) / "projects").rglob(f"{cli}.jsonl")), "the transcript was copied, not moved"
    answer = delete(kept, id)
    assert answer.status_code == 200 and answer.json() == {"message": "Session deleted", "sessionId": id}
    # A run that still has its place removes them itself, a moment later.
    until(lambda: not place.exists() and not traces(kept, id, cli), 20, "the removal of its files")
    refused(delete(kept, id), 404, "session_not_found")
    refused(ask(kept, "GET", f"/api/sessions/{id}"), 404, "session_not_found")
    refused(ask(kept, "POST", "/api/run", json={"prompt": "x", "sessionId": id}), 404, "session_not_found", "sessionId")


@pytest.mark.parametrize("how", ["one", "all"])
def test_deleting_right_behind_the_reply_takes_every_file_along(how):
    """The run still has its place then: what it has left behind is looked for first."""
    with stateful("fake") as service, service.client() as client:
        ids = []
        for number in range(25):
            answer = client.post("/api/run", json={"prompt": f"n{number}", "allowedTools": ["Bash"]})
            assert answer.status_code == 200 and answer.json()["sessionId"], answer.text
            ids.append(answer.json()["sessionId"])
            gone = client.delete(f"/api/sessions/{ids[-1]}" if how == "one" else "/api/sessions")
            assert gone.status_code == 200, gone.text
        until(lambda: not transcripts(service) and not traces(service, *ids), 20, "the removal of all files")


def test_deleting_right_behind_a_death_takes_every_file_along():
    """The dead responder's run still has its place then, and nobody that would remove the files at its end."""
    with stateful("fake", LOG_LEVEL="debug") as service:
        for _ in range(3):
            service.mode("recall")
            id = run(service, "one", allowedTools=["Bash"])["sessionId"]
            service.mode("held")
            with service.connect(DIRECT, {"prompt": "two", "sessionId": id}):
                os.kill(holder_of(service, service.one_cli()), signal.SIGKILL)
                answer = delete(service, id)
                assert answer.status_code in (200, 502), answer.text
            if answer.status_code == 502:  # the dead one's
                assert delete(service, id).status_code == 200
            until(lambda: not transcripts(service) and not traces(service, id), 20, "the removal of all files")


def test_of_what_was_said_nothing_is_left_after_deleting(kept, mark):
    reply = run(kept, f"{mark} [[say=ok]]")
    chat_id = begun(kept, OPENAI, f"{mark} [[say=ok]]")

    def holders():
        found = []
        for root in (kept.state_dir, config_dir(kept)):
            found += [path for path in root.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()]
        return found

    assert holders()
    for id in (reply["sessionId"], chat_id):
        assert delete(kept, id).status_code == 200
    until(lambda: not [path for path in holders() if "sessions.db" not in path.name], 20, "the removal of its files")
    with sqlite3.connect(f"file:{kept.state_dir}/sessions.db?mode=ro", uri=True) as database:
        assert not [line for line in database.iterdump() if mark in line]


def test_deleting_all_takes_ones_own_alone():
    with stateful("fake") as service:
        mine = [run(service, "one")["sessionId"] for _ in range(2)] + [begun(service, OPENAI, "three")]
        others = run(service, "two", key="other")["sessionId"]
        answer = ask(service, "DELETE", "/api/sessions")
        assert answer.status_code == 200 and answer.json() == {"message": "Sessions deleted", "deleted": 3}
        assert ask(service, "DELETE", "/api/sessions").json()["deleted"] == 0
        assert ask(service, "GET", "/api/sessions").json() == {"sessions": [], "hasMore": False}
        assert all(ask(service, "GET", f"/api/sessions/{id}").status_code == 404 for id in mine)
        assert session(service, others, "other")["turns"] == 1
        assert len(transcripts(service)) == 1
        assert [path.name for path in (service.state_dir / "sessions").glob("*")] == [others]


def test_a_run_whose_session_is_deleted_ends_normally_and_nothing_of_it_is_kept(kept, mark):
    reply = run(kept, f"{mark}-1 [[say=one]]")
    id, cli = reply["sessionId"], cli_session(kept, f"{mark}-1")
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(run, kept, f"{mark}-2 [[tokens=20]] [[delay_ms=100]]", sessionId=id)
        until(lambda: kept.recorded(f"{mark}-2"), 20, "the request's way upstream", 0.05)
        assert delete(kept, id).status_code == 200
        assert "tok19" in going.result(60)["result"]
    refused(ask(kept, "GET", f"/api/sessions/{id}"), 404, "session_not_found")
    until(lambda: not traces(kept, id, cli), 20, "the removal of its files", 0.1)


# ---- whose they are ----------------------------------------------------------------------------------------------------------


def test_another_keys_session_is_as_one_that_never_was(fast):
    agent = run(fast, "mine")["sessionId"]
    chat_id = begun(fast, OPENAI, "mine")
    before = [snapshot(fast, id) for id in (agent, chat_id)]
    headers = fast.authorization_of("other")
    unknown = {
        method: ask(fast, method, f"/api/sessions/{MISSING}", headers).json()["error"]["message"].replace(MISSING, "ID")
        for method in ("GET", "DELETE")}
    for id in (agent, chat_id):
        for method in ("GET", "DELETE"):
            answer = ask(fast, method, f"/api/sessions/{id}", headers)
            assert refused(answer, 404, "session_not_found").replace(id, "ID") == unknown[method]
        for extra in ({}, {"fork": True}, {"background": True}):
            refused(ask(fast, "POST", "/api/run", headers, json={"prompt": "x", "sessionId": id, **extra}), 404, "session_not_found")
        for dialect in CHATS:
            for by in ("header", "body"):
                assert chat(fast, dialect, "x", id, by, headers=headers).status_code == 404
        assert id not in ask(fast, "GET", "/api/sessions", headers, params={"limit": 1000}).text
        page = ask(fast, "GET", "/api/sessions", headers, params={"after": id})
        assert page.status_code in (400, 404) or page.json()["sessions"] == []
    assert ask(fast, "DELETE", "/api/sessions", headers).json()["deleted"] == 0
    assert [snapshot(fast, id) for id in (agent, chat_id)] == before


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("id", ["nonsense", MISSING, "..", "%2e%2e%2fsessions.db", "x" * 3000, "%00", "%ff"])
def test_an_id_that_is_none_is_none(fast, method, id):
    answer = ask(fast, method, f"/api/sessions/{id}")
    assert answer.status_code in (400, 404), answer.text
    assert answer.headers["content-type"].startswith("application/json") and "code" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/sessions", f"/api/sessions/{MISSING}"])
def test_without_a_key_nothing_is_said(fast, path):
    for method in ("GET", "DELETE"):
        answer = ask(fast, method, path, {"Authorization": "Bearer wrong-key-of-nobody"})
        refused(answer, 401, "auth_error")
    assert ask(fast, "PUT", path).status_code == 405


def test_a_session_is_continued_by_the_kind_that_began_it(fast):
    agent, chat_id = run(fast, "mine")["sessionId"], begun(fast, OPENAI, "mine")
    before = [snapshot(fast, id) for id in (agent, chat_id)]
    for dialect in CHATS:
        answer = chat(fast, dialect, "x", agent)
        assert answer.status_code in (400, 404, 409), answer.text
        assert "/api/run" in check_error(dialect, answer.json())
    for extra in ({}, {"fork": True}):
        answer = ask(fast, "POST", "/api/run", json={"prompt": "x", "sessionId": chat_id, **extra})
        assert answer.status_code in (400, 404, 409)
        message = check_error(DIRECT, answer.json())
        assert "/v1/" in message or "chat" in message
    assert [snapshot(fast, id) for id in (agent, chat_id)] == before
    # Both chat APIs are one kind.
    continued(fast, ANTHROPIC, "x", chat_id)


def test_a_session_whose_transcript_has_vanished_is_gone(fast):
    reply = run(fast, "mine")
    id = reply["sessionId"]
    before = transcripts(fast)
    newest = max(before, key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    for extra in ({}, {"fork": True}, {"stream": True}):
        message = refused(ask(fast, "POST", "/api/run", json={"prompt": "x", "sessionId": id, **extra}), 410, "session_gone")
        assert "elete" in message
    assert id in ask(fast, "GET", "/api/sessions").text, "it is still listed, for its owner to delete"
    assert delete(fast, id).status_code == 200
    assert not Path(reply["workingDirectory"]).exists()


# ---- the operator ------------------------------------------------------------------------------------------------------------


def test_health_counts_sessions_of_all_keys_and_those_that_run():
    with stateful("fake", RESPONDERS=1) as service:
        assert service.get("/health").json()["sessions"] == {"total": 0, "locked": 0}
        id = run(service, "one")["sessionId"]
        run(service, "two", key="other")
        begun(service, OPENAI, "three")
        until(lambda: service.get("/health").json()["sessions"] == {"total": 3, "locked": 0}, 10, "three sessions, none of which runs")
        service.mode("held")
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(run, service, "more", sessionId=id)
            until(lambda: service.get("/health").json()["sessions"] == {"total": 3, "locked": 1}, 10, "a locked session")
            (service.base / "go").touch()
            going.result()
        until(lambda: service.get("/health").json()["sessions"] == {"total": 3, "locked": 0}, 20)


def healths(service):
    """What each responder says of the sessions, asked on its own socket."""
    return [json.loads(get(service.run_dir / f"r-{pid}.sock", "/health")[1])["sessions"] for pid in service.responders()]


def test_health_says_the_same_whichever_responder_is_asked():
    """Whether it has had a session itself, or not."""
    with stateful("fake", RESPONDERS=4) as service:
        assert healths(service) == [{"total": 0, "locked": 0}] * 4
        assert not (service.state_dir / "sessions.db").exists(), "looking has made a database"
        begun(service, OPENAI, "one")
        assert healths(service) == [{"total": 1, "locked": 0}] * 4
        begun(service, ANTHROPIC, "two")
        assert healths(service) == [{"total": 2, "locked": 0}] * 4


def test_the_operators_command_lists_shows_and_deletes():
    with stateful("fake") as service:
        reply = run(service, "the title of it")
        mine, others = reply["sessionId"], run(service, "another", key="other")["sessionId"]
        listed = program(service, "sessions", "list")
        assert listed.returncode == 0, listed
        lines = listed.stdout.splitlines()
        assert len([line for line in lines if mine in line]) == 1 and len([line for line in lines if others in line]) == 1
        assert "default" in next(line for line in lines if mine in line) and "other" in next(line for line in lines if others in line)
        shown = program(service, "sessions", "show", mine)
        assert shown.returncode == 0 and mine in shown.stdout and reply["workingDirectory"] in shown.stdout, shown
        missing = program(service, "sessions", "show", MISSING)
        assert missing.returncode != 0 and missing.stderr.strip() and "Fatal" not in missing.stderr and missing.stdout == ""
        assert program(service, "sessions", "delete", others).returncode == 0
        assert program(service, "sessions", "delete", others).returncode != 0
        refused(ask(service, "GET", f"/api/sessions/{others}", service.authorization_of("other")), 404)
        assert others not in program(service, "sessions", "list").stdout
        assert len(transcripts(service)) == 1 and [path.name for path in (service.state_dir / "sessions").glob("*")] == [mine]


def test_an_operator_without_sessions_gets_an_empty_list():
    service = stateful("fake")
    try:
        listed = program(service, "sessions", "list")
        assert listed.returncode == 0 and "Fatal" not in listed.stderr, listed
    finally:
        shutil.rmtree(service.base)


def test_what_was_said_is_in_no_log(kept, mark):
    id = run(kept, f"secret-{mark} [[say=answer-{mark}]]")["sessionId"]
    chat_id = begun(kept, OPENAI, f"secret-{mark} [[say=answer-{mark}]]")
    for number in (id, chat_id):
        session(kept, number)
    assert f"secret-{mark}" not in kept.all_logs() and f"answer-{mark}" not in kept.all_logs()
    with kept.connect(OPENAI, OPENAI.body(f"secret-{mark}-2 [[stall=3]]")):
        until(lambda: kept.recorded(f"{mark}-2"), 20, "the request's way upstream", 0.05)
        for pid in (*kept.responders(), kept.one_cli()):
            assert (line := proc(pid, "cmdline")) and mark.encode() not in line
    kept.no_cli()


def test_files_of_sessions_are_the_services_alone(kept, mark):
    run(kept, f"{mark} [[say=ok]]")
    for path in (kept.state_dir / "sessions.db", *transcripts(kept)):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    for name in ("transcripts", "sessions"):
        assert (kept.state_dir / name).stat().st_mode & 0o077 == 0
