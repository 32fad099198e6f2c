"""The oldest CLI that is served does all that the newest does: a look at each thing that rests on the CLI's protocol."""

import json
import subprocess

import pytest

from dialects import ANTHROPIC, OPENAI, events_of
from service import CHECKOUT, Service

# The wheel that carries ClaudeVersion.minimum.
WHEEL, VERSION = "0.2.148", "2.1.251"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
WEATHER = {"name": "Bash", "description": "d" * 5000, "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def oldest():
    path = subprocess.run(
        [CHECKOUT / "Scripts/claude-cli", WHEEL], check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout.strip()
    version = subprocess.run([path, "--version"], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    assert version.startswith(VERSION), "the program's minimum and this wheel belong together"
    with Service(cli=path, WORKER_CONCURRENCY=2) as service:
        yield service


def messages(service, prompt, **extra):
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body(prompt, **extra))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_histories_and_system_prompts_reach_the_model(oldest):
    mark = "[[say=fine]] the oldest one"
    body = OPENAI.body(mark, system="Be brief.", history=[("user", "One?"), ("assistant", "First.")])
    assert OPENAI.text(oldest.post(OPENAI.path, body).json()) == "fine"
    sent = oldest.upstream_body("the oldest one")
    assert "Be brief." in json.dumps(sent["system"]) and "thinking" not in sent
    said = [(message["role"], json.dumps(message["content"])) for message in sent["messages"] if message["role"] != "system"]
    assert [role for role, _ in said] == ["user", "assistant", "user"] and "First." in said[1][1]
    # The choice of the model leaves no trace, as it did with the version before.
    assert "/model" not in json.dumps(sent["messages"])


def test_streams(oldest):
    events = events_of(oldest.post(ANTHROPIC.path, ANTHROPIC.body("[[tokens=4]]", stream=True)).text)
    assert ANTHROPIC.streamed_text(events) == "tok0 tok1 tok2 tok3 " and ANTHROPIC.is_whole(events)


def test_tools_come_and_go(oldest):
    answer = messages(oldest, '[[tool=mcp__client__Bash {"city":"Rome"}]] [[say=I look.]] an old tool', tools=[WEATHER])
    assert answer["stop_reason"] == "tool_use" and [block["type"] for block in answer["content"]] == ["text", "tool_use"]
    call = answer["content"][1]
    assert (call["name"], call["input"]) == ("Bash", {"city": "Rome"})
    [tool] = oldest.upstream_body("an old tool")["tools"]
    assert tool["description"] == WEATHER["description"] and tool["input_schema"] == WEATHER["input_schema"]
    body = ANTHROPIC.body("x", tools=[WEATHER])
    body["messages"] = [
        {"role": "user", "content": "[[then=sunny]]"}, {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "sun"}]}]
    assert ANTHROPIC.text(oldest.post(ANTHROPIC.path, body).json()) == "sunny"


@pytest.mark.parametrize("bad", [0, 1])
def test_structured_answers_fit(oldest, bad):
    answer = messages(
        oldest, f'[[json={{"a":3}}]] [[json_bad={bad}]]', output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert json.loads(ANTHROPIC.text(answer)) == {"a": 3} and answer["stop_reason"] == "end_turn"


def test_a_schema_that_is_none_is_refused(oldest):
    schema = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
    body = ANTHROPIC.body("x", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert oldest.post(ANTHROPIC.path, body).status_code == 400


@pytest.mark.parametrize("prompt", ["[[tokens=9]]", "[[tokens=9]] [[ignore_stop]]"], ids=["upstream", "scanner"])
def test_stop_sequences_cut(oldest, prompt):
    answer = messages(oldest, prompt, stop_sequences=["tok3"])
    assert ANTHROPIC.text(answer) == "tok0 tok1 tok2 " and answer["stop_sequence"] == "tok3"


def test_thinking_is_shown_to_who_asks(oldest):
    answer = messages(
        oldest, "[[think=Hm.]] [[say=Yes.]]", max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [(block["type"], block.get("thinking")) for block in answer["content"]] == [("thinking", "Hm."), ("text", None)]
    body = OPENAI.body("[[think=Hm.]] [[say=Yes.]]", reasoning_effort="low", include_reasoning=True)
    assert oldest.post(OPENAI.path, body).json()["choices"][0]["message"]["reasoning_content"] == "Hm."


def test_tokens_are_counted(oldest):
    answer = oldest.post(
        "/v1/messages/count_tokens", {"model": "sonnet", "messages": [{"role": "user", "content": "How many are these?"}]})
    assert answer.status_code == 200 and answer.json()["input_tokens"] > 0, answer.text


def test_responses_go_on(oldest):
    first = oldest.post("/v1/responses", {"model": "sonnet", "input": "[[say=One.]]"}).json()
    second = oldest.post(
        "/v1/responses", {"model": "sonnet", "input": "[[say=Two.]] the old chain", "previous_response_id": first["id"]}).json()
    assert second["output"][0]["content"][0]["text"] == "Two."
    assert "One." in json.dumps(oldest.upstream_body("the old chain")["messages"])
