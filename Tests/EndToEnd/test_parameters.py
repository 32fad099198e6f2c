"""Stop sequences, limits, choices, thinking and usage with the vendors' SDKs."""

import json
import time

import pytest

from dialects import events_of
from test_sdks import anthropic_client, openai_client  # noqa: F401
from tools import ask, function, tool, turns, user

# ---- stop sequences ----------------------------------------------------------------------------------------------------------

STOPS = [
    ("[[say=one two STOP three]]", ["STOP"], "one two ", "STOP"),
    ("[[say=hello wonderful world again and again]]", ["ful wor"], "hello wonder", "ful wor"),  # over the end of a delta
    ("[[say=hello wonderful world again and again]]", ["nowhere", "n and", "again", "x"], "hello wonderful world ", "again"),
    ("[[say=STOP at once]]", ["STOP"], "", "STOP"),
    ("[[say=nothing to stop at, though STO comes near]]", ["STOP"], "nothing to stop at, though STO comes near", None),
    ("[[say=\u00e9t\u00e9 \u65e5\u672c fin \U0001f389 suite]]", ["\U0001f389"], "\u00e9t\u00e9 \u65e5\u672c fin ", "\U0001f389"),
]


@pytest.mark.parametrize("scanner", ["", " [[ignore_stop]]"], ids=["upstream's", "ours"])
@pytest.mark.parametrize("prompt, stop, text, word", STOPS, ids=["simple", "split", "four", "at once", "nearly", "unicode"])
def test_an_answer_ends_before_the_stop_sequence(service, mark, prompt, stop, text, word, scanner):
    prompt = f"{mark} {prompt}{scanner}"
    whole = service.post("/v1/chat/completions", {"model": "sonnet", "messages": [user(prompt)], "stop": stop}).json()["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == (text, "stop")
    body = {"model": "sonnet", "max_tokens": 99, "messages": [user(prompt)], "stop_sequences": stop}
    if not scanner:
        answer = service.post("/v1/messages", body).json()
        assert "".join(block["text"] for block in answer["content"]) == text
        assert (answer["stop_reason"], answer["stop_sequence"]) == (("stop_sequence", word) if word else ("end_turn", None))
    events = events_of(service.post("/v1/messages", {**body, "stream": True}).text)
    assert "".join(data["delta"].get("text", "") for name, data in events if name == "content_block_delta") == text
    [end] = [data["delta"] for name, data in events if name == "message_delta"]
    assert (end["stop_reason"], end["stop_sequence"]) == (("stop_sequence", word) if word else ("end_turn", None))
    # Each request asked the model once: the CLI did not go on by itself. Where nothing was said it does so within milliseconds, and on
    # a busy machine before it can be ended.
    asked = [entry["body"]["stop_sequences"] for entry in service.recorded(mark)]
    once = 2 if scanner else 3
    assert asked == [stop] * len(asked) and once <= len(asked) <= (once if text else 2 * once)


@pytest.mark.parametrize("stop, text", [("\n", "first line"), (["\n\n", " "], "first"), (["\n\n", "end"], "first line\nsecond")])
def test_a_stop_sequence_may_be_blank(service, openai_client, mark, stop, text):  # noqa: F811
    """The Messages API refuses those, so they are not sent there."""
    prompt = f"{mark} [[say=first line\nsecond\n\nend]]"
    answer = ask(openai_client, prompt, stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, "stop")
    chunks = list(ask(openai_client, prompt, stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert service.upstream_body(mark).get("stop_sequences", []) == (["end"] if "end" in stop else [])


def test_nothing_is_paid_for_after_a_stop(service, openai_client):  # noqa: F811
    """The model would go on for forty seconds."""
    began = time.monotonic()
    answer = ask(openai_client, "[[tokens=2000]] [[delay_ms=20]] [[ignore_stop]]", stop="tok5")
    assert answer.choices[0].message.content == "tok0 tok1 tok2 tok3 tok4 "
    service.no_cli(15)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("stop", [["a", "b", "c", "d", "e"], [1], 7, {"a": 1}], ids=str)
def test_stop_sequences_that_are_none_are_refused(service, stop):
    answer = service.post("/v1/chat/completions", {"model": "sonnet", "messages": [user("x")], "stop": stop})
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("stop")


def test_a_stop_sequence_does_not_cut_a_call(openai_client):  # noqa: F811
    answer = ask(openai_client, '[[say=Well.]] [[tool=weather {"city": "Paris STOP"}]]', tools=[function("weather")], stop="STOP")
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris STOP"} and answer.choices[0].finish_reason == "tool_calls"


# ---- limits, choices, thinking, usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
def test_an_answer_at_its_limit_says_so(service, openai_client, mark, parameter):  # noqa: F811
    answer = ask(openai_client, f"{mark} [[tokens=9]]", **{parameter: 4})
    assert answer.choices[0].finish_reason == "length" and answer.choices[0].message.content == "tok0 tok1 tok2 tok3 "
    assert answer.usage.completion_tokens == 4 and service.upstream_body(mark)["max_tokens"] == 4
    assert len(service.recorded(mark)) == 1


def test_three_choices_are_three_answers(service, openai_client, mark):  # noqa: F811
    answer = ask(openai_client, f"{mark} [[tokens=3]] [[usage=10,4,0]]", n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"tok0 tok1 tok2 "}
    assert answer.usage.completion_tokens == 9 and answer.usage.total_tokens == answer.usage.prompt_tokens + 9
    assert len(service.recorded(mark)) == 3


def test_three_choices_are_streamed(openai_client):  # noqa: F811
    texts, reasons = {0: "", 1: "", 2: ""}, {}
    for chunk in ask(openai_client, '[[say=Well.]] [[tool=weather {"city": "Paris"}]]', n=3, stream=True, tools=[function("weather")]):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            texts[choice.index] += "".join(call.function.arguments or "" for call in choice.delta.tool_calls or [])
            if choice.finish_reason:
                assert choice.index not in reasons
                reasons[choice.index] = choice.finish_reason
    assert texts == dict.fromkeys(range(3), 'Well.{"city": "Paris"}') and reasons == dict.fromkeys(range(3), "tool_calls")


@pytest.mark.parametrize("n", [0, 9, 129, "2", 1.5])
def test_too_many_choices_are_refused(service, n):
    answer = service.post("/v1/chat/completions", {"model": "sonnet", "messages": [user("x")], "n": n})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "n"


THOUGHTS = {"type": "enabled", "budget_tokens": 2048}


def test_nothing_is_thought_unasked(service, mark):
    for path, more in (("/v1/chat/completions", {}), ("/v1/messages", {"max_tokens": 99})):
        assert service.post(path, {"model": "sonnet", "messages": [user(f"{mark} [[say=ok]]")], **more}).status_code == 200
        assert service.upstream_body(mark).get("thinking", {"type": "disabled"}) == {"type": "disabled"}


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "none"])
def test_reasoning_effort_reaches_the_model(service, openai_client, mark, effort):  # noqa: F811
    prompt = f"{mark} [[say=x]]" if effort == "none" else f"{mark} [[think=hm]] [[say=x]]"
    answer = ask(openai_client, prompt, reasoning_effort=effort)
    assert answer.choices[0].message.content == "x" and not hasattr(answer.choices[0].message, "reasoning_content")
    body = service.upstream_body(mark)
    if effort == "none":
        assert body.get("thinking", {"type": "disabled"}) == {"type": "disabled"}
    else:
        assert body["thinking"]["type"] in ("adaptive", "enabled")
        assert body["output_config"]["effort"] == {"minimal": "low"}.get(effort, effort)


@pytest.mark.parametrize("asked", [
    {"include_reasoning": True}, {"reasoning": {"effort": "low"}}, {"thinking": {"type": "enabled"}}], ids=str)
def test_thoughts_are_shown_where_the_client_asks(openai_client, asked):  # noqa: F811
    answer = ask(openai_client, "[[think=hm, let me see]] [[say=x]]", extra_body=asked)
    assert answer.choices[0].message.reasoning_content == "hm, let me see" and answer.choices[0].message.content == "x"
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    stream = ask(openai_client, "[[think=hm, let me see]] [[say=x]]", extra_body=asked, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "hm, let me see"
    kinds = ["thought" if getattr(delta, "reasoning_content", None) else "text" for delta in deltas
             if delta.content or getattr(delta, "reasoning_content", None)]
    assert kinds == sorted(kinds, reverse=True), "thoughts come before the text"


def test_thoughts_are_hidden_where_the_client_says_so(openai_client):  # noqa: F811
    answer = ask(openai_client, "[[think=hm]] [[say=x]]", extra_body={"reasoning": {"effort": "high", "exclude": True}})
    assert not hasattr(answer.choices[0].message, "reasoning_content") and answer.choices[0].message.content == "x"


def test_anthropics_thoughts_come_with_their_signature_and_go_back(service, anthropic_client, mark):  # noqa: F811
    create = {"model": "sonnet", "max_tokens": 4096, "thinking": THOUGHTS, "tools": [tool("weather")]}
    question = user(f'{mark} [[think=hm]] [[redacted]] [[say=Well.]] [[tool=weather {{"city": "Paris"}}]] [[then=sunny]]')
    with anthropic_client.messages.stream(messages=[question], **create) as stream:
        pieces = [event.thinking for event in stream if event.type == "thinking"]
        first = stream.get_final_message()
    assert service.upstream_body(mark)["thinking"] == THOUGHTS
    blocks = {block.type: block for block in first.content}
    assert set(blocks) == {"thinking", "redacted_thinking", "text", "tool_use"} and first.content[-1].type == "tool_use"
    assert "".join(pieces) == blocks["thinking"].thinking == "hm"
    assert blocks["thinking"].signature and blocks["redacted_thinking"].data
    end = anthropic_client.messages.create(messages=[
        question, {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": blocks["tool_use"].id, "content": "25 degrees"}]}], **create)
    assert end.content[-1].text == "sunny"
    _, (_, said), (_, _) = turns(service.upstream_body(mark))
    assert [block["type"] for block in said] == [block.type for block in first.content]
    sent = {block["type"]: block for block in said}
    assert (sent["thinking"]["thinking"], sent["thinking"]["signature"]) == ("hm", blocks["thinking"].signature)
    assert sent["redacted_thinking"]["data"] == blocks["redacted_thinking"].data


@pytest.mark.parametrize("thinking", [{"type": "adaptive"}, {"type": "disabled"}, {"type": "adaptive", "display": "summarized"}], ids=str)
def test_anthropics_thinking_reaches_the_model_as_it_is(service, anthropic_client, mark, thinking):  # noqa: F811
    prompt = f"{mark} [[say=x]]" if thinking["type"] == "disabled" else f"{mark} [[think=hm]] [[say=x]]"
    answer = anthropic_client.messages.create(model="sonnet", max_tokens=4096, thinking=thinking, messages=[user(prompt)])
    assert [block.type for block in answer.content] == (["text"] if thinking["type"] == "disabled" else ["thinking", "text"])
    assert service.upstream_body(mark).get("thinking", {"type": "disabled"}) == thinking


@pytest.mark.parametrize("thinking", [{"type": "enabled"}, {"type": "enabled", "budget_tokens": "x"}, {"type": "sometimes"}, "on"], ids=str)
def test_thinking_that_is_none_is_refused(service, thinking):
    answer = service.post("/v1/messages", {"model": "sonnet", "max_tokens": 9, "messages": [user("x")], "thinking": thinking})
    assert answer.status_code == 400 and "thinking" in answer.json()["error"]["message"]


@pytest.mark.parametrize("effort", ["low", "high"])
def test_anthropics_effort_reaches_the_model(service, anthropic_client, mark, effort):  # noqa: F811
    anthropic_client.messages.create(
        model="sonnet", max_tokens=99, output_config={"effort": effort}, messages=[user(f"{mark} [[say=x]]")])
    assert service.upstream_body(mark)["output_config"]["effort"] == effort


def test_anthropics_sampling_reaches_the_model(service, mark):
    """The vendor's SDK has these no more, its older models and other clients do."""
    sampling = {"temperature": 0.3, "top_p": 0.9, "top_k": 5}
    answer = service.post("/v1/messages", {"model": "sonnet", "max_tokens": 99, "messages": [user(f"{mark} [[say=x]]")], **sampling})
    assert answer.status_code == 200 and "x-claude-ignored" not in answer.headers
    body = service.upstream_body(mark)
    assert {name: body.get(name) for name in sampling} == sampling


def test_a_prefilled_answer_is_refused_clearly(service):
    answer = service.post("/v1/messages", {
        "model": "sonnet", "max_tokens": 9, "messages": [user("x"), {"role": "assistant", "content": "("}]})
    assert answer.status_code == 400 and "messages" in answer.json()["error"]["message"]


def test_usage_has_its_details(openai_client):  # noqa: F811
    answer = ask(openai_client, "[[think=hm]] [[tokens=5]] [[usage=11,5,3]]", reasoning_effort="low")
    usage = answer.usage
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (19, 5)
    assert usage.completion_tokens >= 5 + usage.completion_tokens_details.reasoning_tokens > 5
    response = openai_client.responses.create(
        model="sonnet", input="[[think=hm]] [[tokens=5]] [[usage=11,5,3]]", reasoning={"effort": "low"}).usage
    details = response.input_tokens_details
    assert (response.input_tokens, details.cached_tokens, details.cache_write_tokens) == (19, 5, 3)
    assert response.output_tokens_details.reasoning_tokens == usage.completion_tokens_details.reasoning_tokens
