"""Processes that are started before there is a request for them: taken, refilled, replaced, and never noticed by who asks."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from dialects import ANTHROPIC, CHATS, OPENAI
from service import Service, alive, children, environment, stat, status_number, until
from talk import in_parallel, process_of, sent, until_waiting, waiting
from tools import CITY, PNG, function, tool


@pytest.fixture(scope="module")
def spare():
    with Service(SPARES=2, MEMORY_HEADROOM=1, RESPONDERS=2, WORKER_CONCURRENCY=4) as service:
        yield service


@pytest.fixture(scope="module")
def none():
    with Service(RESPONDERS=1, WORKER_CONCURRENCY=4) as service:
        yield service


def ready(service, count=2):
    """The spares' processes, when each responder has its share and nothing else runs: who starts first has all for a moment."""
    responders = int(service.environment["RESPONDERS"])

    def look():
        shares = [children([pid]) for pid in service.responders()]
        is_shared = [len(share) for share in shares] == [count // responders] * responders
        return is_shared and waiting(service) == (count, 0) and {pid for share in shares for pid in share}

    return until(look, 60, "spares alone", 0.05)


def end(pids):
    """Kills processes. Until they are gone they look like spares: one of 200 MB takes a moment."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), 10, "the end of killed processes", 0.002)


def test_a_request_takes_a_spare_and_another_one_is_started(spare):
    before = ready(spare)
    for dialect in CHATS:
        answer = spare.post(dialect.path, dialect.body("[[say=hi]]"))
        assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"
        taken = process_of(spare, answer)
        assert taken in before, f"{taken} is none of the spares {before}"
        after = ready(spare)
        assert taken not in after and len(after - before) == 1
        before = after


def test_without_spares_there_is_none(none):
    assert waiting(none) == (0, 0) and none.clis() == []
    answer = none.post(OPENAI.path, OPENAI.body("[[say=hi]]"))
    assert answer.status_code == 200
    none.no_cli()
    assert waiting(none) == (0, 0)


def test_a_killed_spare_costs_no_request(spare):
    for _ in range(2):
        killed = ready(spare)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        answers = in_parallel([lambda: spare.post(OPENAI.path, OPENAI.body("[[say=hi]]"))] * 2)
        for answer in answers:
            assert answer.status_code == 200 and OPENAI.text(answer.json()) == "hi"
            assert process_of(spare, answer) not in killed
        end(killed)
    assert not ready(spare) & killed


def test_a_stopped_then_killed_spare_costs_no_request(spare):
    """One that dies only after a request has taken it."""
    stopped = ready(spare)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)

    def ask():
        return spare.post(OPENAI.path, OPENAI.body("[[say=hi]]"))

    def kill():
        until(lambda: spare.get("/health").json()["queue"]["processing"] == 1, 10, "a running request")
        end(stopped)

    answer, _ = in_parallel([ask, kill])
    assert answer.status_code == 200 and OPENAI.text(answer.json()) == "hi"
    assert process_of(spare, answer) not in stopped


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_spare_that_hangs_costs_no_request(spare, dialect):
    """Ten seconds, but no failure; and it is ended, though it takes no gentle signal."""
    stopped = ready(spare)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    answer = spare.post(dialect.path, dialect.body("[[say=hi]]"))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"
    assert process_of(spare, answer) not in stopped
    until(lambda: sum(alive(pid) for pid in stopped) == 1, 10, "the end of the one that was taken")
    end(stopped)


def test_another_cli_file_replaces_the_spares(tmp_path):
    path = tmp_path / "claude"
    _copy(Path(os.environ["CLAUDE_PATH"]), path)
    with Service(cli=path, SPARES=1, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        old, = ready(service, 1)
        _copy(path, tmp_path / "new")
        os.rename(tmp_path / "new", path)
        answer = service.post(OPENAI.path, OPENAI.body("[[say=hi]]"))
        assert answer.status_code == 200 and OPENAI.text(answer.json()) == "hi"
        assert process_of(service, answer) != old
        inode = path.stat().st_ino
        until(
            lambda: waiting(service) == (1, 0) and len(now := service.clis()) == 1 and os.stat(f"/proc/{now[0]}/exe").st_ino == inode,
            60, "a spare of the new file")
        assert not alive(old)


def _copy(source, target):
    shutil.copyfile(source, target)
    target.chmod(0o755)


def test_a_cli_that_ends_at_once_is_not_started_over_and_over():
    with Service(cli="fake", SPARES=4, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        until_waiting(service, 4, 0)
        broken, starts = service.base / "broken", service.base / "starts"
        broken.write_text(f"#!/bin/sh\necho >> {starts}\nexit 3\n")
        broken.chmod(0o755)
        os.rename(broken, service.base / "claude")
        until(starts.exists, 40, "the first start")
        time.sleep(10)
        count = len(starts.read_text())
        assert count < 40, f"{count} starts in 10 s"


def test_the_memory_of_what_waits_is_shown():
    """All that is its own, the program not: an answer's process has that as a live one, too."""
    with Service(SPARES=1, LIVE_MAX=1, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        def memory():
            return service.get("/health").json()["processes"]["memoryBytes"]

        assert memory() == 0 or waiting(service)[0] == 1
        first = ready(service, 1)
        spare = status_number(next(iter(first)), "RssAnon") << 10
        assert spare > 30 << 20 and abs(memory() - spare) < 0.2 * spare
        service.post(OPENAI.path, OPENAI.body("[[say=hi]]"))
        until_waiting(service, 1, 1)
        until(lambda: 1.5 * spare < memory() < 3 * spare, 20, "the memory of both")
        metrics = service.get("/metrics").text
        for name in ("spare", "live"):
            assert int(re.search(rf"^claude_fcgi_{name}_memory_bytes (\d+)$", metrics, re.M)[1]) > 0.5 * spare


def kind(service):
    """How spares are started, as found out for the CLI's file."""
    return json.loads((service.run_dir / "spares.json").read_text())["spares"]


def test_spares_are_tuned(spare):
    pids = ready(spare)
    assert kind(spare) == "tuned"
    for pid in pids:
        assert environment(pid)[b"BUN_JSC_useDFGJIT"] == b"0"


def cli_after(directory, commands):
    """A script that runs the CLI after these commands."""
    cli = directory / "claude"
    cli.write_text(f'#!/bin/sh\n{commands}\nexec {os.environ["CLAUDE_PATH"]} "$@"\n')
    cli.chmod(0o755)
    return cli


@pytest.mark.parametrize("login", ["CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN", None], ids=str)
def test_spares_with_another_login(tmp_path, login):
    cli = cli_after(tmp_path, f"unset ANTHROPIC_API_KEY\n{f'export {login}=offline-token' if login else ''}")
    with Service(cli=cli, SPARES=1, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        before = ready(service, 1)
        answer = service.post(OPENAI.path, OPENAI.body("[[say=hi]]"))
        assert process_of(service, answer) in before
        if login:
            assert kind(service) == "tuned" and OPENAI.text(answer.json()) == "hi"
        else:
            assert answer.status_code == 502 and "not logged in" in answer.text
            assert "spares can't be warmed now" in service.all_logs()


def test_a_cli_that_knows_no_options_is_warmed_without_them(tmp_path):
    """As one does whose makers have dropped an option."""
    cli = cli_after(tmp_path, 'if [ -n "$BUN_JSC_useDFGJIT" ]; then echo "error: invalid environment variable" >&2; exit 1; fi')
    with Service(cli=cli, SPARES=1, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        before = ready(service, 1)
        assert kind(service) == "warm"
        answer = service.post(OPENAI.path, OPENAI.body("[[say=hi]]"))
        assert OPENAI.text(answer.json()) == "hi" and process_of(service, answer) in before
        assert service.all_logs().count("spares are not tuned") == 1


def state(pid):
    """As in proc(5); X for a process that is gone."""
    return (stat(pid) or ["X"])[0]


@contextlib.contextmanager
def start_that_stands_still():
    """A service, and the process of a spare that is being started while a request waits for its first piece."""
    with Service(SPARES=2, MEMORY_HEADROOM=1, RESPONDERS=1, WORKER_CONCURRENCY=4) as service:
        for is_last in (False, False, True):
            before = ready(service)
            assert service.post(OPENAI.path, OPENAI.body("[[say=hi]]")).status_code == 200
            started = until(lambda: set(service.clis()) - before, 10, "the start of another", 0.002)
            with service.connect(OPENAI, OPENAI.body("[[say=hi]][[first_ms=120000]]"), 60):
                try:
                    found = until(lambda: [pid for pid in started if state(pid) == "T"], 5, "a start that stands still", 0.002)
                except AssertionError:  # a start takes less than a second: on a busy machine it may be over before the request is there
                    if is_last:
                        raise
                    continue
                yield service, found[0]
                return


def test_a_start_stands_still_while_a_request_waits_but_not_for_ever():
    """The second request takes the spare's place at the processor; the spare is ready long before that request has its answer."""
    with start_that_stands_still() as (service, started):
        until(lambda: state(started) != "T", 10, "its going on")
        until_waiting(service, 2, 0)
        assert service.get("/health").json()["queue"]["processing"] == 1


def test_a_start_that_stands_still_ends_with_its_responder():
    with start_that_stands_still() as (service, started):
        os.kill(service.responders()[0], signal.SIGKILL)
        until(lambda: not alive(started), 10, "the end of the process")
        ready(service)


def test_the_end_while_spares_are_started_leaves_nothing(tmp_path):
    """The check is Service.stop's."""
    cli = cli_after(tmp_path, 'if [ -n "$BUN_JSC_useDFGJIT" ]; then sleep 20; fi')
    with Service(cli=cli, SPARES=2, MEMORY_HEADROOM=1, RESPONDERS=2) as service:
        until(lambda: sum(b"BUN_JSC_useDFGJIT" in environment(pid) for pid in children(service.responders())) == 2, 20, "starts")


def test_old_spares_are_replaced():
    with Service(SPARES=1, SPARE_TTL=10, MEMORY_HEADROOM=1, RESPONDERS=1) as service:
        first, = ready(service, 1)
        until(lambda: not alive(first), 40, "the end of an old spare")
        ready(service, 1)


def test_no_spare_where_memory_is_short():
    with Service(SPARES=2, LIVE_MAX=8, MEMORY_HEADROOM=1_048_576, RESPONDERS=1) as service:
        for dialect in CHATS:
            answer = service.post(dialect.path, dialect.body("[[say=hi]]"))
            assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"
            assert service.request_line(answer.headers["x-request-id"])["cli.end"] != "kept"
        assert waiting(service) == (0, 0)
        service.no_cli()


# ---- any request ------------------------------------------------------------------------------------------------------------

FUNCTION = function("weather")
TOOL = tool("weather")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": CITY, "strict": True}}
CALL = '[[tool=weather {"city": "Paris"}]]'
HISTORY = (("user", "one"), ("assistant", "two"))
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}

REQUESTS = {
    "plain": {d: d.body("MARK [[say=hi]]") for d in CHATS},
    "system": {d: d.body("MARK [[say=hi]]", system="Be terse. Ümläut 🎉\n\n# Environment") for d in CHATS},
    "two systems": {
        OPENAI: {"model": "sonnet", "messages": [
            {"role": "system", "content": "One."}, {"role": "developer", "content": "Two."}, {"role": "user", "content": "MARK [[say=hi]]"}]},
        ANTHROPIC: ANTHROPIC.body("MARK [[say=hi]]") | {"system": [
            {"type": "text", "text": "One."}, {"type": "text", "text": "Two.", "cache_control": {"type": "ephemeral"}}]}},
    "history": {d: d.body("MARK [[say=hi]]", system="Be terse.", history=HISTORY) for d in CHATS},
    "opus": {d: d.body("MARK [[say=hi]]", model="opus") for d in CHATS},
    "haiku": {d: d.body("MARK [[say=hi]]", model="haiku", system="Be terse.") for d in CHATS},
    "a full name": {d: d.body("MARK [[say=hi]]", model="claude-opus-4-6") for d in CHATS},
    "tools": {
        OPENAI: OPENAI.body(f"MARK {CALL}", tools=[FUNCTION]), ANTHROPIC: ANTHROPIC.body(f"MARK {CALL}", tools=[TOOL])},
    "tool choice": {
        OPENAI: OPENAI.body("MARK", tools=[FUNCTION], tool_choice="required"),
        ANTHROPIC: ANTHROPIC.body("MARK", tools=[TOOL], tool_choice={"type": "tool", "name": "weather"})},
    "schema": {
        OPENAI: OPENAI.body('MARK [[json={"city": "Rome"}]]', response_format=SCHEMA),
        ANTHROPIC: ANTHROPIC.body('MARK [[json={"city": "Rome"}]]', output_config={"format": {"type": "json_schema", "schema": CITY}})},
    "schema and system": {OPENAI: OPENAI.body('MARK [[json={"city": "Rome"}]]', system="Be terse.", response_format=SCHEMA)},
    "two choices": {OPENAI: OPENAI.body("MARK [[say=hi]]", n=2)},
    "limit": {d: d.body("MARK [[tokens=30]]", max_tokens=7) for d in CHATS},
    "stop": {
        OPENAI: OPENAI.body("MARK [[say=one two three]]", stop=["two"]),
        ANTHROPIC: ANTHROPIC.body("MARK [[say=one two three]]", stop_sequences=["two"])},
    "sampling": {d: d.body("MARK [[say=hi]]", temperature=0.3, top_p=0.9) for d in CHATS},
    "thinking": {
        OPENAI: OPENAI.body("MARK [[think=hm]] [[say=hi]]", reasoning_effort="high"),
        ANTHROPIC: ANTHROPIC.body("MARK [[think=hm]] [[say=hi]]", max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 2000})},
    "no thinking": {ANTHROPIC: ANTHROPIC.body("MARK [[think=hm]] [[say=hi]]", thinking={"type": "disabled"})},
    "image": {ANTHROPIC: {"model": "sonnet", "max_tokens": 99, "messages": [
        {"role": "user", "content": [IMAGE, {"type": "text", "text": "MARK [[say=hi]]"}]}]}},
    "no model": {OPENAI: {"messages": [{"role": "user", "content": "MARK [[say=hi]]"}]}},
}
CASES = [pytest.param(d, body, id=f"{name}-{d}") for name, bodies in REQUESTS.items() for d, body in bodies.items()]


@pytest.mark.parametrize(("dialect", "body"), CASES)
def test_what_reaches_the_model_is_the_same_with_a_spare(spare, none, mark, dialect, body):
    text = _with_mark(body, mark)
    before = ready(spare)
    warm, cold = in_parallel([lambda: spare.post(dialect.path, text), lambda: none.post(dialect.path, text)])
    assert warm.status_code == cold.status_code == 200, (warm.text, cold.text)
    assert _said(dialect, warm) == _said(dialect, cold)
    count = body.get("n", 1)
    bodies = [[sent(entry["body"]) for entry in service.recorded(mark)] for service in (spare, none)]
    if body.get("max_tokens") == 7:  # a CLI whose answer is cut goes on at once, and may have asked for more before it was killed
        bodies = [found[:1] for found in bodies]
    assert bodies[0] == bodies[1] and len(bodies[0]) >= count
    if "response_format" not in body and "output_config" not in body and count == 1:
        assert process_of(spare, warm) in before, "it came to no spare"


def _with_mark(body, mark):
    if isinstance(body, dict):
        return {name: _with_mark(value, mark) for name, value in body.items()}
    if isinstance(body, list):
        return [_with_mark(value, mark) for value in body]
    return body.replace("MARK", mark) if isinstance(body, str) else body


def _said(dialect, answer):
    """An answer without what is another's each time."""
    if dialect is OPENAI:
        choices = answer.json()["choices"]
        return [(choice["finish_reason"], choice["message"].get("content"), [
            call["function"] for call in choice["message"].get("tool_calls") or []]) for choice in choices], answer.json()["usage"]
    blocks = [{name: value for name, value in block.items() if name != "id"} for block in answer.json()["content"]]
    return answer.json()["stop_reason"], blocks, answer.json()["usage"]


def structured(text):
    """A request that only a process can take which has been told nothing."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    return ANTHROPIC.body(
        f'[[json={{"city": "Rome"}}]] {text}', system="Be terse.", output_config={"format": {"type": "json_schema", "schema": schema}})


@pytest.mark.parametrize("spares", [1, 2])
def test_a_schema_finds_a_spare_once_one_has_come(none, mark, spares):
    counted = {"model": "sonnet", "messages": [{"role": "user", "content": "How many tokens is this?"}]}
    with Service(SPARES=spares, MEMORY_HEADROOM=1, RESPONDERS=1, LIVE_MAX=0) as service:
        before = ready(service, spares)

        def taken(path, body):
            """What the request said, and whether it took a spare."""
            nonlocal before
            answer = service.post(path, body)
            assert answer.status_code == 200, answer.text
            took = process_of(service, answer) in before
            # A spare has made room for one of another kind, or one was taken.
            until(lambda: (now := ready(service, spares)) != before and now, 60, "other spares")
            before = ready(service, spares)
            return answer, took

        first, took = taken("/v1/messages", structured("first"))
        assert not took
        for text in (f"{mark}-2", f"{mark}-3"):
            answer, took = taken("/v1/messages", structured(text))
            assert took and answer.json()["content"] == first.json()["content"]
            fresh = none.post("/v1/messages", structured(text))
            assert fresh.json()["content"] == first.json()["content"]
            bodies = [[sent(entry["body"]) for entry in which.recorded(text)] for which in (service, none)]
            assert bodies[0] == bodies[1] and bodies[0]
        # With one spare it is a chat's as well; with two the other one is warm.
        for text in ("[[say=hi]]", "[[say=ho]]"):
            answer, took = taken(OPENAI.path, OPENAI.body(text))
            assert took and OPENAI.text(answer.json()) == text[6:8]
        assert taken("/v1/messages/count_tokens", counted)[1]


def test_tokens_are_counted(spare, none):
    body = {"model": "sonnet", "system": "Be terse.", "messages": [{"role": "user", "content": "How many tokens is this?"}], "tools": [TOOL]}
    answers = [service.post("/v1/messages/count_tokens", body) for service in (spare, none)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json() and answers[0].json()["input_tokens"] > 1


def test_the_end_of_a_responder_is_the_end_of_its_spares(spare):
    ready(spare)
    for responder in spare.responders():
        own = children([responder])
        os.kill(responder, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in own), 10, "the end of its spares")
    ready(spare)
