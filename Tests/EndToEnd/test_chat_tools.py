"""Claude Code's own tools in the chat APIs, where the operator gives them: CHAT_TOOLS, CHAT_DIRECTORY, CHAT_PRESET."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from dialects import ANTHROPIC, OPENAI, events_of
from service import Service, until

DIALECTS = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
CALL = '[[say=I look.]] [[tool=Bash {"command":"cat note; echo made > made","description":"Look"}]] [[then=Done.]]'


@pytest.fixture(scope="module")
def place():
    path = Path(tempfile.mkdtemp(prefix="cf-chat-"))
    (path / "note").write_text("kept here\n")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def equipped(place):
    with Service(CHAT_TOOLS="Bash,Read", CHAT_DIRECTORY=place) as service:
        yield service


def ask(service, dialect, prompt, **fields):
    with service.client() as client:
        return client.post(dialect.path, json={**dialect.body(prompt), **fields})


@DIALECTS
def test_the_tools_work_in_the_directory_and_the_client_sees_one_message(equipped, place, mark, dialect):
    (place / "made").unlink(missing_ok=True)
    answer = ask(equipped, dialect, f"{mark} {CALL}")
    assert answer.status_code == 200, answer.text
    assert dialect.text(answer.json()) == "I look.\n\nDone."
    assert "tool" not in json.dumps(answer.json()).replace("tool_calls\": null", "")
    assert (place / "made").read_text() == "made\n"
    results = [
        block for message in equipped.upstream_body(mark)["messages"] if isinstance(message["content"], list)
        for block in message["content"] if block.get("type") == "tool_result"]
    assert "kept here" in json.dumps(results)


@DIALECTS
def test_a_stream_is_one_message_as_well(equipped, mark, dialect):
    answer = ask(equipped, dialect, f"{mark} {CALL}", stream=True)
    events = events_of(answer.text)
    text = answer.text
    if dialect is ANTHROPIC:
        assert [name for name, _ in events].count("message_start") == 1 and events[-1][0] == "message_stop"
        assert "tool_use" not in text
    else:
        assert text.rstrip().endswith("data: [DONE]") and "tool_calls" not in text
    assert "I look." in text and "Done." in text


def test_a_tool_that_was_not_given_is_not_there(equipped, mark):
    ask(equipped, OPENAI, f"{mark} hello")
    names = {tool["name"] for tool in equipped.upstream_body(mark)["tools"]}
    assert names == {"Bash", "Read"}


def test_callers_tools_come_beside_them(equipped, mark):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
    answer = ask(equipped, OPENAI, f'{mark} [[tool=weather {{"city":"Rome"}}]]', tools=[tool])
    assert answer.status_code == 200, answer.text
    [call] = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather" and json.loads(call["function"]["arguments"]) == {"city": "Rome"}


def test_the_preset_is_claude_codes_prompt_and_the_callers_behind_it(mark):
    with Service(CHAT_PRESET="claude_code") as service:
        with service.client() as client:
            body = {"model": "sonnet", "messages": [{"role": "system", "content": "Speak as a pirate."}, {"role": "user", "content": mark}]}
            assert client.post(OPENAI.path, json=body).status_code == 200
        system = json.dumps(service.upstream_body(mark)["system"])
        assert "Speak as a pirate." in system and len(system) > 2000 and not service.upstream_body(mark).get("tools")


def test_without_them_a_chat_has_no_tools(service, mark):
    ask(service, OPENAI, f"{mark} hello")
    assert not service.upstream_body(mark).get("tools")


def test_runs_with_tools_leave_nothing(equipped, mark):
    ask(equipped, OPENAI, f'{mark} [[tool=Bash {{"command":"sleep 300 >/dev/null 2>&1 & echo $!","description":"x"}}]] [[then=ok]]')
    until(lambda: equipped.get("/health").json()["queue"]["processing"] == 0, 30, "the end of the run")
    until(lambda: not list((equipped.run_dir / "tmp").iterdir()), 30, "the removal of its files")


@pytest.mark.parametrize("name, value", [("CHAT_TOOLS", "Bosh"), ("CHAT_DIRECTORY", "relative"), ("CHAT_PRESET", "other")])
def test_a_bad_setting_stops_the_start(name, value):
    service = Service(**{name: value})
    try:
        with pytest.raises(AssertionError, match=name):
            service.start(seconds=60)
    finally:
        shutil.rmtree(service.base, ignore_errors=True)
