"""Conversations that are kept: in every responder, over restarts and crashes, whole turns only."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dialects import ANTHROPIC, CHATS, DIRECT, OPENAI, check_error, events_of
from direct import (
    UUID, ask, bash, begin, blocks, check_stream, cli_session, delete, ended, messages, refused, run, said, session, snapshot, stateful,
    stream, timed, traces, transcripts)
from service import stat, until
from sessions import MISSING, begun, chat, continued
from test_conversations import conversation, texts

# ---- chats: how a session is begun and continued -----------------------------------------------------------------------------

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


def listed(service):
    """The sessions that there are."""
    return [entry["id"] for entry in ask(service, "GET", "/api/sessions", params={"limit": 1000}).json()["sessions"]]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_chat_that_asks_for_none_is_not_kept(kept, dialect):
    before = listed(kept)
    answer = ask(kept, "POST", dialect.path, json=dialect.body("[[say=ok]]", **({"store": False} if dialect is OPENAI else {})))
    assert answer.status_code == 200 and "x-session-id" not in answer.headers
    assert listed(kept) == before


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
    before, files = listed(kept), transcripts(kept)
    reply = run(kept, f"{mark} {bash('echo x > left')}", ephemeral=True, allowedTools=["Bash"])
    assert reply["sessionId"] is None
    events = stream(kept, f"{mark}-2 [[say=ok]]", ephemeral=True)
    check_stream(events)
    assert events[0][1]["sessionId"] is None and events[-1][1]["sessionId"] is None
    until(lambda: not Path(reply["workingDirectory"]).exists(), 20, "the removal of the run's directory")
    assert listed(kept) == before
    assert transcripts(kept) == files
    # A run that keeps nothing is answered before its CLI has ended.
    ids = [cli_session(kept, mark), cli_session(kept, f"{mark}-2")]
    until(lambda: not traces(kept, *ids), 20, "the removal of the CLIs' notes", 0.1)


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
    made, endless = Path(first["workingDirectory"]) / "made", json.dumps({"command": "tail -f /dev/null", "description": "x"})
    for milliseconds in (6000, 30000):  # on a busy machine the first tool may come late
        answer = ask(kept, "POST", "/api/run", json={
            "prompt": f"{mark}-2 {bash('echo made > made')} [[then_tool=Bash {endless}]]",
            "sessionId": id, "allowedTools": ["Bash"], "timeoutMs": milliseconds})
        refused(answer, 504, "timeout")
        if made.exists():
            break
    assert made.read_text() == "made\n"
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
    before, files, places = listed(kept), transcripts(kept), set((kept.state_dir / "sessions").glob("*"))
    refused(ask(kept, "POST", "/api/run", json={"prompt": f"{mark}-1 [[error=400]]"}), 400)
    for dialect in CHATS:
        answer = chat(kept, dialect, f"{mark}-{dialect} [[error=400]]")
        assert answer.status_code == 400
    events = stream(kept, f"{mark}-2 [[tokens=9]] [[error_after=3]]")
    check_stream(events)
    assert events[-1][0] == "error"
    until(lambda: set((kept.state_dir / "sessions").glob("*")) == places, 20, "the removal of the sessions' directories")
    assert listed(kept) == before and ask(kept, "GET", "/health").json()["sessions"]["locked"] == 0
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
    with stateful(WORKER_CONCURRENCY=3, MAX_QUEUE_SIZE=20, RESPONDERS=4, QUEUE_TIMEOUT_MS=110_000) as service:
        if kind == "agent":
            id = run(service, f"{mark} n0 [[say=n0]]")["sessionId"]
            send = lambda number: ask(
                service, "POST", "/api/run", json={"prompt": f"{mark} n{number} [[say=n{number}]]", "sessionId": id}, timeout=110)
        else:
            id = begun(service, OPENAI, f"{mark} n0 [[say=n0]]")
            send = lambda number: chat(service, OPENAI, f"{mark} n{number} [[say=n{number}]]", id, timeout=110)
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

    def count():
        return sum(fast.get("/health").json()["queue"][name] for name in ("pending", "processing"))

    until(lambda: count() == 0, 20, "every place to be free")
    with ThreadPoolExecutor(6) as pool:
        futures = []
        for number in range(1, 6):
            futures.append(pool.submit(ask, fast, "POST", "/api/run", json={"prompt": f"n{number}", "sessionId": id}))
            until(lambda: count() == number, 20, "the request's arrival")
        health = fast.get("/health").json()
        assert health["queue"]["processing"] == 1 and health["sessions"]["locked"] == 1
        # Another conversation is not held up by it.
        fast.mode("recall")
        assert run(fast, "elsewhere", ephemeral=True)["result"] == "elsewhere"
        go.touch()
        assert [future.result().status_code for future in futures] == [200] * 5
    go.unlink()
    assert [text for role, text in messages(fast, id) if role == "user"] == ["zero", *(f"n{number}" for number in range(1, 6))]
