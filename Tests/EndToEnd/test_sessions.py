"""Conversations that are kept: in every responder, over restarts and crashes, whole turns only, each key's for itself."""

import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dialects import ANTHROPIC, CHATS, DIRECT, OPENAI, check_error, events_of
from direct import (
    SESSION, TIME, USAGE, UUID, ask, bash, begin, blocks, check_stream, cli_session, config_dir, delete, ended, messages, refused, run, said,
    session, snapshot, stateful, stream, timed, tool, traces, transcripts)
from service import children, stat, until
from test_conversations import conversation, texts
from test_run import program

MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def kept(workspace):
    """The real CLI, with two keys."""
    with stateful(WORKER_CONCURRENCY=4, ALLOWED_DIRECTORIES=workspace, RETRY_MAX_ATTEMPTS=1) as service:
        yield service


@pytest.fixture(scope="module")
def fast(workspace):
    """The fake CLI, which keeps transcripts as well."""
    with stateful("fake", WORKER_CONCURRENCY=4, ALLOWED_DIRECTORIES=workspace) as service:
        yield service


@pytest.fixture(autouse=True)
def _fast_is_well(request):
    if "fast" in request.fixturenames:
        request.getfixturevalue("fast").mode("recall")


# ---- chats: how a session is begun and continued -----------------------------------------------------------------------------


def chat(service, dialect, prompt, id=None, by="header", headers=None, **body):
    """A request of a chat's session: a new one, or the one with this id, named in the header or in the body."""
    sent = dialect.body(prompt, **body)
    headers = dict(headers or {})
    if by == "store":
        sent["store"] = True
    elif by == "body":
        sent["session_id"] = id
    else:
        headers["X-Session-Id"] = id or "new"
    return ask(service, "POST", dialect.path, headers, json=sent)


def begun(service, dialect, prompt, by="header", **body):
    """A new session of a chat; its id."""
    answer = chat(service, dialect, prompt, by=by, **body)
    assert answer.status_code == 200, answer.text
    id = answer.headers["x-session-id"]
    assert UUID.fullmatch(id)
    if dialect is OPENAI and not body.get("stream"):
        assert answer.json()["session_id"] == id
    return id


def continued(service, dialect, prompt, id, by="header", **body):
    answer = chat(service, dialect, prompt, id, by, **body)
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    assert answer.headers["x-session-id"] == id
    if dialect is OPENAI and not body.get("stream"):
        assert answer.json()["session_id"] == id
    return answer


BEGINNINGS = [(OPENAI, "store"), (OPENAI, "header"), (ANTHROPIC, "header")]


@pytest.mark.parametrize("by", ["body", "header"])
@pytest.mark.parametrize("dialect, beginning", BEGINNINGS, ids=["openai store", "openai header", "anthropic header"])
def test_a_chat_goes_on_with_its_new_turn_alone(kept, mark, dialect, beginning, by):
    id = begun(kept, dialect, f"first {mark}-1 [[say=one]]", by=beginning, system="You are kept.")
    answer = continued(kept, dialect, f"second {mark}-2 [[say=two]]", id, by)
    assert dialect.text(answer.json()) == "two"
    first, second = ("user", f"first {mark}-1 [[say=one]]"), ("user", f"second {mark}-2 [[say=two]]")
    assert conversation(kept.upstream_body(f"{mark}-2")) == [first, ("assistant", "one"), second]
    assert "You are kept." in texts(kept.upstream_body(f"{mark}-2")["system"])
    continued(kept, dialect, f"third {mark}-3", id, by)
    assert conversation(kept.upstream_body(f"{mark}-3")) == [
        first, ("assistant", "one"), second, ("assistant", "two"), ("user", f"third {mark}-3")]
    assert messages(kept, id)[:4] == [first, ("assistant", "one"), second, ("assistant", "two")]
    assert session(kept, id)["profile"] == "chat" and session(kept, id)["turns"] == 3


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_streamed_chat_is_kept_as_well(kept, mark, dialect):
    id = begun(kept, dialect, f"first {mark}-1 [[say=one]]", stream=True)
    answer = continued(kept, dialect, f"second {mark}-2 [[say=two]]", id, stream=True)
    events = events_of(answer.text)
    assert dialect.is_whole(events) and dialect.streamed_text(events) == "two"
    assert [role for role, _ in conversation(kept.upstream_body(f"{mark}-2"))] == ["user", "assistant", "user"]
    # It was stored before the client had the end of it.
    assert session(kept, id)["turns"] == 2


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_what_a_client_repeats_is_not_taken_twice(kept, mark, dialect):
    id = begun(kept, dialect, f"first {mark}-1 [[say=one]]")
    history = [("user", f"first {mark}-1 [[say=one]]"), ("assistant", "one")]
    continued(kept, dialect, f"second {mark}-2", id, history=history)
    assert conversation(kept.upstream_body(f"{mark}-2")) == [*history, ("user", f"second {mark}-2")]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_system_prompt_holds_until_another_is_sent(kept, mark, dialect):
    id = begun(kept, dialect, f"{mark}-1 [[say=one]]", system="You are the first.")
    for number, system, wanted in ((2, None, "first"), (3, "You are the second.", "second"), (4, None, "second")):
        continued(kept, dialect, f"{mark}-{number} [[say=ok]]", id, system=system)
        found = "\n".join(texts(kept.upstream_body(f"{mark}-{number}")["system"]))
        assert f"You are the {wanted}." in found and found.count("You are the") == 1


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_calls_of_the_callers_tools_are_kept_natively(kept, mark, dialect):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    if dialect is OPENAI:
        tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    else:
        tools = [{"name": "weather", "input_schema": schema}]
    prompt = f'{mark}-1 [[tool=weather {{"city": "Rome"}}]] [[then=sunny]]'
    answer = chat(kept, dialect, prompt, tools=tools)
    assert answer.status_code == 200, answer.text
    id = answer.headers["x-session-id"]
    body = dialect.body("x", tools=tools)
    if dialect is OPENAI:
        call = answer.json()["choices"][0]["message"]["tool_calls"][0]["id"]
        body["messages"] = [{"role": "tool", "tool_call_id": call, "content": f"{mark}-2 is warm"}]
    else:
        call = next(block["id"] for block in answer.json()["content"] if block["type"] == "tool_use")
        body["messages"] = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": f"{mark}-2 is warm"}]}]
    answer = ask(kept, "POST", dialect.path, {"X-Session-Id": id}, json=body)
    assert answer.status_code == 200, answer.text
    assert dialect.text(answer.json()) == "sunny"
    calls, results = blocks(kept, f"{mark}-2", "tool_use"), blocks(kept, f"{mark}-2", "tool_result")
    assert [call["input"] for call in calls] == [{"city": "Rome"}] and calls[0]["id"] == results[0]["tool_use_id"]
    continued(kept, dialect, f"{mark}-3 [[say=bye]]", id, tools=tools)
    assert len(blocks(kept, f"{mark}-3", "tool_use")) == 1 and said(kept, f"{mark}-3")[1:] == [
        ("assistant", "sunny"), ("user", f"{mark}-3 [[say=bye]]")]
    kinds = [block["type"] for message in session(kept, id)["messages"] for block in message["content"]]
    assert "tool_use" in kinds and "tool_result" in kinds


def test_thinking_is_left_out_of_the_messages(kept, mark):
    id = begun(kept, ANTHROPIC, f"{mark} [[think=secret musing]] [[say=one]]", max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 2048})
    answers = [message for message in session(kept, id)["messages"] if message["role"] == "assistant"]
    assert answers and "secret musing" not in json.dumps(answers)
    assert messages(kept, id)[-1] == ("assistant", "one")


@pytest.mark.parametrize("id", ["nonsense", "", MISSING, "../../etc/passwd", "x" * 5000])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_an_unknown_session_of_a_chat_is_none(kept, dialect, id):
    answer = chat(kept, dialect, "x", id, by="body")
    assert answer.status_code in ((404, 400) if id == "" else (404,)), answer.text
    if id:
        check_error(dialect, answer.json(), "session_not_found" if dialect is OPENAI else None)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_session_id_of_the_wrong_type_is_named(kept, dialect):
    answer = ask(kept, "POST", dialect.path, json=dialect.body("x", session_id=5))
    assert answer.status_code == 400
    check_error(dialect, answer.json(), "invalid_request", "session_id")


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_chat_that_asks_for_none_is_not_kept(kept, dialect):
    before = ask(kept, "GET", "/health").json()["sessions"]["total"]
    answer = ask(kept, "POST", dialect.path, json=dialect.body("[[say=ok]]", **({"store": False} if dialect is OPENAI else {})))
    assert answer.status_code == 200 and "x-session-id" not in answer.headers
    assert ask(kept, "GET", "/health").json()["sessions"]["total"] == before


# ---- agents ------------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was(kept, mark):
    first = run(kept, f"first {mark}-1 {bash('pwd; echo x > left')} [[then=one]]", allowedTools=["Bash"])
    id = first["sessionId"]
    second = run(kept, f"second {mark}-2 {bash('pwd; ls')} [[then=two]]", sessionId=id, allowedTools=["Bash"])
    assert second["sessionId"] == id and second["id"] != first["id"] and second["result"] == "two"
    assert first["workingDirectory"] == second["workingDirectory"] == str(kept.state_dir / "sessions" / id)
    assert [text for role, text in said(kept, f"{mark}-2") if role == "assistant"] == ["one"]
    assert [text.split()[0] for role, text in said(kept, f"{mark}-2") if role == "user"] == ["first", "second"]
    results = ["".join(texts(block["content"])) for block in blocks(kept, f"{mark}-2", "tool_result")]
    assert results[0].strip() == first["workingDirectory"] and results[1].split() == [first["workingDirectory"], "left"]
    assert len(blocks(kept, f"{mark}-2", "tool_use")) == 2


def test_a_sessions_directory_that_the_caller_named_stays_its_own(kept, directory, mark):
    first = run(kept, f"{mark}-1 [[say=one]]", workingDirectory=str(directory))
    second = run(kept, f"{mark}-2 {bash('pwd')}", sessionId=first["sessionId"], allowedTools=["Bash"])
    assert first["workingDirectory"] == second["workingDirectory"] == str(directory)
    assert delete(kept, first["sessionId"]).status_code == 200
    assert directory.is_dir()


def test_a_session_keeps_its_system_prompts_until_others_are_given(kept, mark):
    def after(**fields):
        """The session after one more turn, and which of the prompts that turn had."""
        id = run(kept, f"{mark} [[say=1]]", **fields)["sessionId"]
        system = "\n".join(texts(kept.upstream_body(mark)["system"]))
        return id, ["Added the first." in system, "Added the second." in system, "Instead of it." in system]

    id, had = after(appendSystemPrompt="Added the first.")
    assert had == [True, False, False]
    assert after(sessionId=id)[1] == [True, False, False]
    assert after(sessionId=id, appendSystemPrompt="Added the second.")[1] == [False, True, False]
    assert after(sessionId=id, systemPrompt="Instead of it.")[1] == [False, True, True]
    assert after(sessionId=id)[1] == [False, True, True]


def test_pictures_survive_in_the_history(kept, mark):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixel}}
    prompt = [image, {"type": "text", "text": f"{mark}-1 [[say=seen]]"}]
    id = run(kept, prompt)["sessionId"]
    run(kept, f"{mark}-2 [[say=ok]]", sessionId=id)
    assert len(blocks(kept, f"{mark}-2", "image")) == 1
    assert "image" in [block["type"] for message in session(kept, id)["messages"] for block in message["content"]]


@pytest.mark.parametrize("how", ["TERM", "KILL", "everything"])
def test_a_conversation_outlives_every_responder(kept, mark, how):
    id = run(kept, f"first {mark}-1 [[say=one]]")["sessionId"]
    chats = {dialect: begun(kept, dialect, f"first {mark}-{dialect}-1 [[say=one]]") for dialect in CHATS}
    if how == "everything":
        kept.crash()
    else:
        kept.restart_responders(getattr(signal, f"SIG{how}"))
    reply = run(kept, f"second {mark}-2 [[say=two]]", sessionId=id)
    assert reply["sessionId"] == id and reply["result"] == "two"
    assert said(kept, f"{mark}-2") == [
        ("user", f"first {mark}-1 [[say=one]]"), ("assistant", "one"), ("user", f"second {mark}-2 [[say=two]]")]
    for dialect, chat_id in chats.items():
        continued(kept, dialect, f"second {mark}-{dialect}-2 [[say=two]]", chat_id)
        assert conversation(kept.upstream_body(f"{mark}-{dialect}-2")) == [
            ("user", f"first {mark}-{dialect}-1 [[say=one]]"), ("assistant", "one"), ("user", f"second {mark}-{dialect}-2 [[say=two]]")]
        assert session(kept, chat_id)["turns"] == 2
    assert session(kept, id)["turns"] == 2


def test_a_fork_leaves_the_original_as_it_was(kept, mark):
    id = run(kept, f"first {mark}-1 [[say=one]]")["sessionId"]
    before = snapshot(kept, id)
    fork = run(kept, f"aside {mark}-2 [[say=two]]", sessionId=id, fork=True)["sessionId"]
    assert UUID.fullmatch(fork) and fork != id
    assert said(kept, f"{mark}-2")[:2] == [("user", f"first {mark}-1 [[say=one]]"), ("assistant", "one")]
    assert snapshot(kept, id) == before
    run(kept, f"on {mark}-3 [[say=three]]", sessionId=id)
    assert "aside" not in json.dumps(said(kept, f"{mark}-3"))
    run(kept, f"on {mark}-4 [[say=four]]", sessionId=fork)
    assert [text for role, text in said(kept, f"{mark}-4") if role == "assistant"] == ["one", "two"]
    assert delete(kept, fork).status_code == 200
    run(kept, f"on {mark}-5 [[say=five]]", sessionId=id)
    assert [text for role, text in said(kept, f"{mark}-5") if role == "assistant"] == ["one", "three"]


def test_an_ephemeral_run_keeps_nothing(kept, mark):
    total = ask(kept, "GET", "/health").json()["sessions"]["total"]
    files = transcripts(kept)
    reply = run(kept, f"{mark} {bash('echo x > left')}", ephemeral=True, allowedTools=["Bash"])
    assert reply["sessionId"] is None
    events = stream(kept, f"{mark}-2 [[say=ok]]", ephemeral=True)
    check_stream(events)
    assert events[0][1]["sessionId"] is None and events[-1][1]["sessionId"] is None
    until(lambda: not Path(reply["workingDirectory"]).exists(), 5, "the removal of the run's directory")
    assert ask(kept, "GET", "/health").json()["sessions"]["total"] == total
    assert transcripts(kept) == files
    assert not traces(kept, cli_session(kept, mark), cli_session(kept, f"{mark}-2"))


def test_a_directory_of_its_own_is_empty_and_shared_with_nobody(kept, mark):
    places = [run(kept, f"{mark}-{number} {bash('ls -A; touch x')}", allowedTools=["Bash"])["workingDirectory"] for number in range(2)]
    assert len(set(places)) == 2
    for number in range(2):
        assert not ["".join(texts(block["content"])) for block in blocks(kept, f"{mark}-{number}", "tool_result")][0].count("x\n")
    for place in places:
        assert os.stat(place).st_mode & 0o077 == 0, "others can look into it"


# ---- all or nothing ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["agent", "openai", "anthropic"])
def conversation_of(request, kept, mark):
    """A session with one turn: its id, and how to send it a prompt."""
    if request.param == "agent":
        id = run(kept, f"first {mark}-1 [[say=one]]", allowedTools=["Bash"])["sessionId"]
        return DIRECT, id, lambda prompt, **extra: ask(kept, "POST", "/api/run", json={"prompt": prompt, "sessionId": id, **extra})
    dialect = {"openai": OPENAI, "anthropic": ANTHROPIC}[request.param]
    id = begun(kept, dialect, f"first {mark}-1 [[say=one]]")
    return dialect, id, lambda prompt, **extra: chat(kept, dialect, prompt, id, **extra)


def goes_on(service, send, mark):
    """The next turn has the first in its history, and nothing else."""
    answer = send(f"next {mark}-next [[say=next]]")
    assert answer.status_code == 200, answer.text
    assert said(service, f"{mark}-next") == [
        ("user", f"first {mark}-1 [[say=one]]"), ("assistant", "one"), ("user", f"next {mark}-next [[say=next]]")]


@pytest.mark.parametrize("fault", ["[[error=400]]", "[[error=500]]", "[[tokens=9]] [[error_after=3]]", "[[tokens=9]] [[cut=3]]"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_turn_that_fails_leaves_the_conversation_as_it_was(kept, conversation_of, mark, fault, streamed):
    dialect, id, send = conversation_of
    before = snapshot(kept, id)
    answer = send(f"{mark}-failing {fault}", stream=streamed)
    if answer.status_code == 200:
        assert streamed
        events = events_of(answer.text)
        assert events[-1][0] == "error" if dialect is not OPENAI else dialect.error_events(events)
    else:
        check_error(dialect, answer.json())
    assert snapshot(kept, id) == before
    goes_on(kept, send, mark)
    assert session(kept, id)["turns"] == 2


def test_a_turn_that_fails_after_a_tool_leaves_only_the_tools_files(kept, mark):
    first = run(kept, f"first {mark}-1 [[say=one]]")
    id = first["sessionId"]
    before = snapshot(kept, id)
    answer = ask(kept, "POST", "/api/run", json={
        "prompt": f"{mark}-2 {bash('echo made > made')} [[then_tool=Bash {json.dumps({'command': 'tail -f /dev/null', 'description': 'x'})}]]",
        "sessionId": id, "allowedTools": ["Bash"], "timeoutMs": 6000})
    refused(answer, 504, "timeout")
    assert (Path(first["workingDirectory"]) / "made").read_text() == "made\n"
    assert snapshot(kept, id) == before
    goes_on(kept, lambda prompt: ask(kept, "POST", "/api/run", json={"prompt": prompt, "sessionId": id}), mark)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_leaves_the_conversation_as_it_was(kept, conversation_of, mark, streamed):
    dialect, id, send = conversation_of
    before = snapshot(kept, id)
    kept.no_cli()
    body = dialect.body(f"{mark}-left [[stall=3]]", **({"stream": True} if streamed else {}))
    body["sessionId" if dialect is DIRECT else "session_id"] = id
    with kept.connect(dialect, body) as connection:
        until(lambda: kept.recorded(f"{mark}-left"), 20, "the request's way upstream", 0.05)
        if streamed:
            seen = b""
            while b"tok2" not in seen:
                seen += (chunk := connection.recv(65536))
                assert chunk, seen
    kept.no_cli()
    assert snapshot(kept, id) == before
    goes_on(kept, send, mark)


def test_a_cancelled_turn_leaves_the_conversation_as_it_was(kept, mark):
    id = run(kept, f"first {mark}-1 [[say=one]]")["sessionId"]
    before = snapshot(kept, id)
    number = begin(kept, f"{mark}-cancelled [[stall=3]]", sessionId=id)
    until(lambda: kept.recorded(f"{mark}-cancelled"), 20, "the request's way upstream", 0.05)
    assert ask(kept, "POST", f"/api/runs/{number}/cancel").status_code == 200
    assert ended(kept, number)["state"] == "cancelled"
    kept.no_cli()
    assert snapshot(kept, id) == before
    goes_on(kept, lambda prompt: ask(kept, "POST", "/api/run", json={"prompt": prompt, "sessionId": id}), mark)


def test_a_turn_whose_responder_is_killed_leaves_the_conversation_as_it_was(kept, conversation_of, mark):
    dialect, id, send = conversation_of
    before = snapshot(kept, id)
    kept.no_cli()
    body = dialect.body(f"{mark}-killed [[stall=3]]")
    body["sessionId" if dialect is DIRECT else "session_id"] = id
    with kept.connect(dialect, body):
        until(lambda: kept.recorded(f"{mark}-killed"), 20, "the request's way upstream", 0.05)
        os.kill(int(stat(kept.one_cli())[1]), signal.SIGKILL)
        kept.no_cli()
        assert snapshot(kept, id) == before
        # At once: the place of the dead, and the session with it, is free.
        _, seconds = timed(lambda: goes_on(kept, send, mark))
    assert seconds < 15


def test_a_first_turn_that_fails_leaves_no_session(kept, mark):
    total = ask(kept, "GET", "/health").json()["sessions"]["total"]
    files, places = transcripts(kept), set((kept.state_dir / "sessions").glob("*"))
    refused(ask(kept, "POST", "/api/run", json={"prompt": f"{mark}-1 [[error=400]]"}), 400)
    for dialect in CHATS:
        answer = chat(kept, dialect, f"{mark}-{dialect} [[error=400]]")
        assert answer.status_code == 400
    events = stream(kept, f"{mark}-2 [[tokens=9]] [[error_after=3]]")
    check_stream(events)
    assert events[-1][0] == "error"
    until(lambda: set((kept.state_dir / "sessions").glob("*")) == places, 5, "the removal of the sessions' directories")
    assert ask(kept, "GET", "/health").json()["sessions"] == {"total": total, "locked": 0}
    assert transcripts(kept) == files
    started = events[0][1]["sessionId"]
    if started:
        refused(ask(kept, "GET", f"/api/sessions/{started}"), 404, "session_not_found")


def test_a_cli_that_dies_with_half_a_turn_in_the_transcript_leaves_nothing(fast, mark):
    id = run(fast, "one")["sessionId"]
    before = snapshot(fast, id)
    fast.mode("exits-midstream")
    assert ask(fast, "POST", "/api/run", json={"prompt": "half", "sessionId": id}).status_code == 500
    assert snapshot(fast, id) == before
    fast.mode("recall")
    assert run(fast, "two", sessionId=id)["result"] == "one|two"


# ---- one after the other -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["agent", "chat"])
def test_twenty_requests_at_once_on_one_session_run_one_after_the_other(mark, kind):
    """Of any responder: each has fewer threads than there are requests, so that they can't all be one's."""
    with stateful(WORKER_CONCURRENCY=3, MAX_QUEUE_SIZE=20, RESPONDERS=4) as service:
        if kind == "agent":
            id = run(service, f"{mark} n0 [[say=n0]]")["sessionId"]
            send = lambda number: ask(service, "POST", "/api/run", json={"prompt": f"{mark} n{number} [[say=n{number}]]", "sessionId": id})
        else:
            id = begun(service, OPENAI, f"{mark} n0 [[say=n0]]")
            send = lambda number: chat(service, OPENAI, f"{mark} n{number} [[say=n{number}]]", id)
        parents, over = set(), threading.Event()

        def watch():
            while not over.wait(0.02):
                parents.update(fields[1] for pid in service.clis() if (fields := stat(pid)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(20) as pool:
                answers = list(pool.map(send, range(1, 21)))
        finally:
            over.set()
            watcher.join()
        assert [answer.status_code for answer in answers] == [200] * 20, [answer.text for answer in answers if answer.status_code != 200]
        assert len(parents) >= 2, "this test wants several responders"
        turns = [conversation(entry["body"]) for entry in service.recorded(mark)]
        assert len(turns) == 21
        for number, turn in enumerate(turns):
            # Each was sent when the one before had been answered and stored: it has all of it in its history.
            assert len([role for role, text in turn if text]) == 2 * number + 1
            if number:
                assert turn[: len(turns[number - 1])] == turns[number - 1]
        assert session(service, id)["turns"] == 21
        kept_turns = messages(service, id)
        assert sorted(text for role, text in kept_turns if role == "assistant") == sorted(f"n{number}" for number in range(21))
        for (_, prompt), (_, answer) in zip(kept_turns[::2], kept_turns[1::2], strict=True):
            assert f"[[say={answer}]]" in prompt


def test_requests_on_one_session_keep_the_order_of_their_arrival(fast):
    id = run(fast, "zero")["sessionId"]
    fast.mode("held")
    go = fast.base / "go"
    go.unlink(missing_ok=True)
    with ThreadPoolExecutor(6) as pool:
        futures = []
        for number in range(1, 6):
            futures.append(pool.submit(ask, fast, "POST", "/api/run", json={"prompt": f"n{number}", "sessionId": id}))
            until(lambda: sum(fast.get("/health").json()["queue"][name] for name in ("pending", "processing")) == number, 10)
        health = fast.get("/health").json()
        assert health["queue"]["processing"] == 1 and health["sessions"]["locked"] == 1
        # Another conversation is not held up by it.
        fast.mode("recall")
        assert run(fast, "elsewhere", ephemeral=True)["result"] == "elsewhere"
        go.touch()
        assert [future.result().status_code for future in futures] == [200] * 5
    go.unlink()
    assert [text for role, text in messages(fast, id) if role == "user"] == ["zero", *(f"n{number}" for number in range(1, 6))]


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
        until(lambda: not traces(service, agent["sessionId"], cli), 10, "the removal of its files", 0.1)
        assert [entry["id"] for entry in ask(service, "GET", "/api/sessions").json()["sessions"]] == [used]
        assert ask(service, "GET", "/health").json()["sessions"]["total"] == 1
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
    assert not place.exists() and not traces(kept, id, cli)
    refused(delete(kept, id), 404, "session_not_found")
    refused(ask(kept, "GET", f"/api/sessions/{id}"), 404, "session_not_found")
    refused(ask(kept, "POST", "/api/run", json={"prompt": "x", "sessionId": id}), 404, "session_not_found", "sessionId")


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
    left = [path for path in holders() if "sessions.db" not in path.name]
    assert not left, left
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
    until(lambda: not traces(kept, id, cli), 10, "the removal of its files", 0.1)


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
    with stateful("fake") as service:
        assert service.get("/health").json()["sessions"] == {"total": 0, "locked": 0}
        id = run(service, "one")["sessionId"]
        run(service, "two", key="other")
        begun(service, OPENAI, "three")
        assert service.get("/health").json()["sessions"] == {"total": 3, "locked": 0}
        service.mode("held")
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(run, service, "more", sessionId=id)
            until(lambda: service.get("/health").json()["sessions"] == {"total": 3, "locked": 1}, 10, "a locked session")
            (service.base / "go").touch()
            going.result()
        until(lambda: service.get("/health").json()["sessions"] == {"total": 3, "locked": 0}, 5)


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
    for pid in (*kept.responders(), *children(kept.responders())):
        assert mark.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_files_of_sessions_are_the_services_alone(kept, mark):
    run(kept, f"{mark} [[say=ok]]")
    for path in (kept.state_dir / "sessions.db", *transcripts(kept)):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    for name in ("transcripts", "sessions"):
        assert (kept.state_dir / name).stat().st_mode & 0o077 == 0
