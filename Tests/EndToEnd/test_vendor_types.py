"""Every JSON body and stream event against the vendors' own types, strictly: unknown, missing and mistyped fields fail."""

import copy
import json

import pytest
from anthropic.pagination import SyncPage
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from anthropic.types.thread_unsupported_request_error_details import ThreadUnsupportedRequestErrorDetails
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from openai.types.shared import ErrorObject

from dialects import events_of
from test_sdks import anthropic_client, openai_client  # noqa: F401
from vendor_types import check, faults

ANTHROPIC_VERSION = {"anthropic-version": "2023-06-01"}
CHAT, LEGACY, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"


# ---- the validator itself ----------------------------------------------------------------------------------------------------

GOOD = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": None,
    "choices": [{
        "index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": {
            "role": "assistant", "content": None, "refusal": None, "annotations": [], "reasoning_content": "hm",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}},
}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn", "stop_sequence": None,
    "content": [{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "y", "signature": "z"}],
    "usage": {"input_tokens": 1, "output_tokens": 2},
}
MODEL_INFO = {
    "type": "model", "id": "claude-x", "display_name": "X", "created_at": "2026-02-01T00:00:00Z", "lifecycle": "active"}


def test_the_validator_takes_what_is_right():
    check(GOOD, ChatCompletion)
    check(MESSAGE, Message)
    check(MODEL_INFO, ModelInfo)
    check({"data": [MODEL_INFO], "has_more": False, "first_id": "a", "last_id": None}, SyncPage[ModelInfo])
    check({"type": "message_stop"}, RawMessageStreamEvent)
    check({"type": "message", "role": "user", "id": "m", "content": [{"type": "input_text", "text": "x"}]}, ResponseItem)
    check(3, float)


CALL = ("choices", 0, "message", "tool_calls", 0)


@pytest.mark.parametrize("model, place, value, wanted", [
    (ChatCompletion, ("surprise",), 1, "$.surprise: ChatCompletion has no such field"),
    (ChatCompletion, ("choices", 0, "message", "surprise"), 1, "$.choices[0].message.surprise"),
    (ChatCompletion, ("usage", "prompt_tokens_details", "surprise"), 1, "PromptTokensDetails has no such field"),
    (ChatCompletion, ("id",), ..., "$.id: missing in ChatCompletion"),
    (ChatCompletion, (*CALL, "function", "name"), ..., "$.choices[0].message.tool_calls[0].function.name: missing"),
    (ChatCompletion, ("created",), 1.5, "$.created: 1.5 is no int"),
    (ChatCompletion, ("created",), True, "$.created: True is no int"),
    (ChatCompletion, ("created",), "1", "is no int"),
    (ChatCompletion, ("model",), None, "$.model: None is no str"),
    (ChatCompletion, ("choices",), {}, "is no array"),
    (ChatCompletion, ("choices", 0), [], "is no Choice"),
    (ChatCompletion, ("usage", "total_tokens"), None, "is no int"),
    (ChatCompletion, ("object",), "chat.completion.chunk", "is none of 'chat.completion'"),
    (ChatCompletion, ("choices", 0, "finish_reason"), "end_turn", "is none of"),
    (ChatCompletion, (*CALL, "type"), "tool_use", "$.choices[0].message.tool_calls[0].type: 'tool_use' is none of custom, function"),
    (ChatCompletion, (*CALL, "type"), "custom", "custom: missing in ChatCompletionMessageCustomToolCall"),
    (ChatCompletion, (*CALL, "type"), ..., "$.choices[0].message.tool_calls[0].type: 'nothing'"),
    (ChatCompletion, ("choices", 0, "message", "reasoning_content"), 1, "is no str"),
    (ChatCompletion, ("choices", 0, "reasoning_content"), "x", "Choice has no such field"),
    (Message, ("content", 0, "type"), "texts", "is none of"),
    (Message, ("content", 1, "signature"), ..., "missing in ThinkingBlock"),
    (Message, ("content", 0, "thinking"), "x", "TextBlock has no such field"),
    (Message, ("stop_reason",), "stop", "is none of"),
    (Message, ("model",), 1, "$.model"),
    (ModelInfo, ("created_at",), 1, "is no datetime"),
    (ModelInfo, ("created_at",), "yesterday", "is no datetime"),
    (ModelInfo, ("created_at",), "2026-02-01T00:00:00", "is no datetime"),
    (ModelInfo, ("lifecycle",), ..., "missing"),
])
def test_the_validator_finds_each_kind_of_fault(model, place, value, wanted):
    body = copy.deepcopy({ChatCompletion: GOOD, Message: MESSAGE, ModelInfo: MODEL_INFO}[model])
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    found = faults(body, model)
    assert len(found) <= 2 and any(wanted in fault for fault in found), found
    with pytest.raises(AssertionError):
        check(body, model)


@pytest.mark.parametrize("value, annotation, wanted", [
    ({"type": "message_end"}, RawMessageStreamEvent, "$.type: 'message_end' is none of"),
    ({"type": "content_block_stop"}, RawMessageStreamEvent, "missing in RawContentBlockStopEvent"),
    ({"type": "response.done"}, ResponseStreamEvent, "$.type"),
    ({"type": "response.output_text.delta", "delta": "x", "item_id": "i", "output_index": 0, "content_index": 0,
      "sequence_number": 0}, ResponseStreamEvent, "$.logprobs: missing in ResponseTextDeltaEvent"),
    ([], ResponseStreamEvent, ""),
    ({"object": "list", "data": [{"type": "message", "role": "user", "id": "m"}], "first_id": "a", "last_id": "b",
      "has_more": False}, ResponseItemList, "$.data[0].content: missing in ResponseInputMessageItem"),
])
def test_the_validator_knows_which_member_of_a_union_is_meant(value, annotation, wanted):
    found = faults(value, annotation)
    assert found and wanted in found[0], found


# ---- what the service says ---------------------------------------------------------------------------------------------------

WEATHER = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
PERSON = {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"],
    "additionalProperties": False}
FUNCTION = {"name": "weather", "description": "The weather.", "parameters": WEATHER}
CALLS = '[[say=Let me look.]] [[tool=weather {"city": "Paris"}]] [[tool=weather {"city": "Rome"}]]'

CHATS = {
    "text": ("[[say=Bonjour]] [[usage=11,5,3]]", {}),
    "nothing": ("[[say=STOP]]", {"stop": "STOP"}),
    "long": ("[[tokens=9]]", {"max_tokens": 3}),
    "refused": ("[[say=no]] [[stop_reason=refusal]]", {}),
    "tools": (CALLS, {"tools": [{"type": "function", "function": FUNCTION}]}),
    "tool only": ("[[tool=weather {}]]", {"tools": [{"type": "function", "function": FUNCTION}]}),
    "function": ('[[tool=weather {"city": "Paris"}]]', {"functions": [FUNCTION]}),
    "thought": ("[[think=hm]] [[say=x]]", {"reasoning_effort": "low", "include_reasoning": True}),
    "hidden thought": ("[[think=hm]] [[say=x]]", {"reasoning_effort": "high"}),
    "structured": ('[[json={"name": "Ann", "age": 3}]]', {
        "response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}}),
    "two": ("[[say=x]]", {"n": 2}),
}


def chat(name, **extra):
    prompt, more = CHATS[name]
    return {"model": "sonnet", "messages": [{"role": "user", "content": prompt}], **more, **extra}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_completion_has_the_vendors_type(service, name):
    answer = service.post(CHAT, chat(name))
    assert answer.status_code == 200, answer.text
    body = check(answer.json(), ChatCompletion)
    # The types leave much out; these the vendor always sends.
    assert {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"} <= body.keys()
    for choice in body["choices"]:
        assert {"index", "message", "logprobs", "finish_reason"} == choice.keys()
        assert {"role", "content", "refusal"} <= choice["message"].keys()
        assert ("reasoning_content" in choice["message"]) == (name == "thought")
        assert name != "structured" or json.loads(choice["message"]["content"]) == {"name": "Ann", "age": 3}
    assert {"prompt_tokens_details", "completion_tokens_details"} <= body["usage"].keys()


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_stream_has_the_vendors_type(service, name):
    answer = service.post(CHAT, chat(name, stream=True, stream_options={"include_usage": True}))
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text)
    assert events[-1] == (None, "[DONE]") and all(event is None for event, _ in events)
    chunks = [check(data, ChatCompletionChunk) for _, data in events[:-1]]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    *chunks, last = chunks
    assert last["choices"] == [] and last["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)
    for index in range(2 if name == "two" else 1):
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
        assert [choice["finish_reason"] is None for choice in choices] == [True] * (len(choices) - 1) + [False]
        assert ("hm" in "".join(choice["delta"].get("reasoning_content") or "" for choice in choices)) == (name == "thought")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("extra", [
    {"prompt": "[[say=Bonjour]]"}, {"prompt": ["[[say=one]]", "[[say=two]]"]}, {"prompt": "[[say=x]]", "n": 2},
    {"prompt": "[[say=one STOP two]]", "stop": ["STOP"]}, {"prompt": "[[tokens=9]]", "max_tokens": 2},
    {"prompt": "[[say=x]]", "echo": True},
], ids=["text", "array", "n", "stop", "long", "echo"])
def test_a_legacy_completion_has_the_vendors_type(service, extra, stream):
    body = {"model": "sonnet", **extra}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    answer = service.post(LEGACY, body)
    assert answer.status_code == 200, answer.text
    wanted = extra.get("n", 1) * (len(extra["prompt"]) if isinstance(extra["prompt"], list) else 1)
    if not stream:
        whole = check(answer.json(), Completion)
        assert [choice["index"] for choice in whole["choices"]] == list(range(wanted)) and "usage" in whole
        texts = {choice["index"]: choice["text"] for choice in whole["choices"]}
        reasons = {choice["index"]: choice["finish_reason"] for choice in whole["choices"]}
    else:
        events = events_of(answer.text)
        assert events[-1] == (None, "[DONE]")
        chunks = [data for _, data in events[:-1]]
        texts, reasons = dict.fromkeys(range(wanted), ""), {}
        for chunk in chunks:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["text"]
                if choice["finish_reason"] is not None:
                    assert choice["index"] not in reasons
                    reasons[choice["index"]] = choice["finish_reason"]
                else:
                    # The vendor streams null until the end, though its own type has only the whole answer's.
                    choice["finish_reason"] = "stop"
            check(chunk, Completion)
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0
        assert len({chunk["id"] for chunk in chunks}) == 1
    assert reasons == dict.fromkeys(range(wanted), "length" if "max_tokens" in extra else "stop")
    assert list(texts.values()) == {
        "[[say=Bonjour]]": ["Bonjour"], "[[say=one STOP two]]": ["one "], "[[tokens=9]]": ["tok0 tok1 "],
        "[[say=x]]": ["[[say=x]]x"] if "echo" in extra else ["x", "x"],
    }.get(extra["prompt"] if isinstance(extra["prompt"], str) else "", ["one", "two"])


RESPONSE_CASES = {
    "text": ("[[say=Bonjour, le monde, et bonne nuit]] [[usage=11,5,3]]", {}),
    "parameters": ("[[say=x]]", {
        "temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}, "max_output_tokens": 99, "user": "me", "truncation": "disabled",
        "instructions": "Be brief.", "parallel_tool_calls": False, "service_tier": "auto", "text": {"format": {"type": "text"}}}),
    "long": ("[[tokens=9]]", {"max_output_tokens": 3}),
    "tools": (CALLS, {"tools": [{"type": "function", **FUNCTION, "strict": True}], "tool_choice": "auto"}),
    "named tool": ("x", {"tools": [{"type": "function", **FUNCTION}], "tool_choice": {"type": "function", "name": "weather"}}),
    "reasoning": ("[[think=hm, let me see]] [[say=x]]", {"reasoning": {"effort": "low", "summary": "auto"}}),
    "structured": ('[[json={"name": "Ann", "age": 3}]]', {
        "text": {"format": {"type": "json_schema", "name": "person", "strict": True, "schema": PERSON}}}),
}


def response_body(name, **extra):
    prompt, more = RESPONSE_CASES[name]
    return {"model": "sonnet", "input": prompt, **more, **extra}


def check_response(body, name):
    """A finished response, beyond its type: what the vendor always sends, and what was asked for."""
    check(body, Response)
    assert {
        "id", "object", "created_at", "status", "error", "incomplete_details", "instructions", "max_output_tokens", "model", "output",
        "parallel_tool_calls", "previous_response_id", "reasoning", "temperature", "text", "tool_choice", "tools", "top_p",
        "truncation", "usage", "metadata",
    } <= body.keys()
    assert body["id"].startswith("resp_") and body["error"] is None
    assert body["status"] == ("incomplete" if name == "long" else "completed")
    assert body["incomplete_details"] == ({"reason": "max_output_tokens"} if name == "long" else None)
    assert [item["type"] for item in body["output"]] == {
        "tools": ["message", "function_call", "function_call"], "named tool": ["function_call"], "reasoning": ["reasoning", "message"],
    }.get(name, ["message"])
    assert len({item["id"] for item in body["output"]}) == len(body["output"])
    asked = RESPONSE_CASES[name][1]
    for parameter in ("temperature", "top_p", "metadata", "max_output_tokens", "instructions", "parallel_tool_calls", "tool_choice"):
        if parameter in asked:
            assert body[parameter] == asked[parameter], parameter
    if name == "structured":
        assert json.loads(body["output"][0]["content"][0]["text"]) == {"name": "Ann", "age": 3}
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]


@pytest.mark.parametrize("name", RESPONSE_CASES)
def test_a_response_has_the_vendors_type_and_is_kept(service, name):
    answer = service.post(RESPONSES, response_body(name))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    check_response(body, name)
    path = f"{RESPONSES}/{body['id']}"
    assert service.get(path).json() == body
    items = check(service.get(path + "/input_items").json(), ResponseItemList)
    assert [item["content"][0]["text"] for item in items["data"] if item["type"] == "message"] == [RESPONSE_CASES[name][0]]
    assert (items["first_id"], items["last_id"]) == (items["data"][0]["id"], items["data"][-1]["id"]) and not items["has_more"]
    with service.client() as client:
        deleted = client.delete(path)
        assert deleted.status_code == 200 and deleted.json()["id"] == body["id"] and deleted.json()["deleted"] is True
    gone = service.get(path)
    assert gone.status_code == 404
    check(gone.json()["error"], ErrorObject)


@pytest.mark.parametrize("name", RESPONSE_CASES)
def test_a_responses_stream_has_the_vendors_events_in_its_order(service, name):
    answer = service.post(RESPONSES, response_body(name, stream=True, store=False))
    assert answer.status_code == 200, answer.text
    final = follow(events_of(answer.text))
    check_response(final, name)
    if name == "tools":
        assert [item["arguments"] for item in final["output"][1:]] == ['{"city": "Paris"}', '{"city": "Rome"}']
        assert len({item["call_id"] for item in final["output"][1:]}) == 2
    if name == "text":
        assert final["output"][0]["content"] == [
            {"type": "output_text", "text": "Bonjour, le monde, et bonne nuit", "annotations": [], "logprobs": []}]
        assert final["usage"]["input_tokens"] == 19 and final["usage"]["input_tokens_details"]["cached_tokens"] == 5


def follow(events):
    """Walks through a Responses stream as a strict client does: types, numbers, order, sums. Returns the response at its end."""
    if events[-1][1] == "[DONE]":  # which Open Responses wants, and OpenAI leaves out
        events = events[:-1]
    for number, (name, data) in enumerate(events):
        check(data, ResponseStreamEvent)
        assert name == data["type"] and data["sequence_number"] == number, (name, data)
    stream = iter([data for _, data in events])

    def take(*types):
        data = next(stream)
        assert data["type"] in ["response." + name for name in types], (data["type"], types)
        return data

    for name in ("created", "in_progress"):
        response = take(name)["response"]
        assert response["status"] == "in_progress" and response["output"] == [] and response.get("usage") is None
    items = []
    data = take("output_item.added", "completed", "incomplete", "failed")
    while data["type"] == "response.output_item.added":
        place = {"output_index": len(items)}
        assert data["output_index"] == len(items)
        kind, item = data["item"]["type"], data["item"]
        assert item.get("status") in ("in_progress", None)
        place["item_id"] = item["id"]

        def text(name, field, delta=None, **place):
            """Deltas up to the `done` that repeats them."""
            pieces, data = [], take(delta or name + ".delta", name + ".done")
            while data["type"].endswith(".delta"):
                assert place.items() <= data.items(), (place, data)
                pieces.append(data["delta"])
                data = take(delta or name + ".delta", name + ".done")
            assert place.items() <= data.items() and data[field] == "".join(pieces), (pieces, data)
            return data[field]

        parts = []
        if kind == "message":
            assert item["content"] == []
            data = take("content_part.added", "output_item.done")
            while data["type"] == "response.content_part.added":
                where = {**place, "content_index": len(parts)}
                assert where.items() <= data.items() and data["part"]["type"] == "output_text" and data["part"]["text"] == ""
                written = text("output_text", "text", **where)
                data = take("content_part.done")
                assert where.items() <= data.items() and data["part"]["text"] == written
                parts.append(data["part"])
                data = take("content_part.added", "output_item.done")
            assert data["item"]["content"] == parts
        elif kind == "function_call":
            assert item["arguments"] == ""
            written = text("function_call_arguments", "arguments", **place)
            data = take("output_item.done")
            assert data["item"]["arguments"] == written
            assert (data["item"]["name"], data["item"]["call_id"]) == (item["name"], item["call_id"])
        elif kind == "reasoning":
            data = take("reasoning_summary_part.added", "output_item.done")
            while data["type"] == "response.reasoning_summary_part.added":
                where = {**place, "summary_index": len(parts)}
                assert where.items() <= data.items()
                written = text("reasoning_summary_text", "text", **where)
                data = take("reasoning_summary_part.done")
                assert where.items() <= data.items() and data["part"] == {"type": "summary_text", "text": written}
                parts.append(data["part"])
                data = take("reasoning_summary_part.added", "output_item.done")
            assert data["item"]["summary"] == parts
        else:
            raise AssertionError(f"an item of type {kind}")
        assert data["item"]["id"] == item["id"] and data["output_index"] == len(items)
        items.append(data["item"])
        data = take("output_item.added", "completed", "incomplete", "failed")
    assert data["response"]["output"] == items and data["response"]["id"] == response["id"]
    assert data["response"]["status"] == data["type"].removeprefix("response.")
    assert next(stream, None) is None
    return data["response"]


MESSAGE_CASES = {
    "text": ("[[say=Bonjour]] [[usage=11,5,3]]", {}),
    "nothing": ("[[say=STOP]]", {"stop_sequences": ["STOP"]}),
    "long": ("[[tokens=9]]", {"max_tokens": 3}),
    "refused": ("[[say=no]] [[stop_reason=refusal]]", {}),
    "stopped": ("[[say=one STOP two]]", {"stop_sequences": ["STOP"]}),
    "tools": (CALLS, {"tools": [{"name": "weather", "input_schema": WEATHER}]}),
    "tool only": ("[[tool=weather {}]]", {"tools": [{"name": "weather", "input_schema": WEATHER}]}),
    "thinking": ("[[think=hm]] [[say=x]]", {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}),
    "hidden thinking": ("[[redacted]] [[say=x]]", {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}),
    "structured": ('[[json={"name": "Ann", "age": 3}]]', {"output_config": {"format": {"type": "json_schema", "schema": PERSON}}}),
}


def message_body(name, **extra):
    prompt, more = MESSAGE_CASES[name]
    return {"model": "sonnet", "max_tokens": 1024, "messages": [{"role": "user", "content": prompt}], **more, **extra}


def check_message(body, name):
    """A message, beyond its type."""
    check(body, Message)
    assert {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"} <= body.keys()
    assert {"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"} <= body["usage"].keys()
    assert [block["type"] for block in body["content"]] == {
        "nothing": [], "tools": ["text", "tool_use", "tool_use"], "tool only": ["tool_use"], "thinking": ["thinking", "text"],
        "hidden thinking": ["redacted_thinking", "text"],
    }.get(name, ["text"])
    assert body["stop_reason"] == {
        "nothing": "stop_sequence", "stopped": "stop_sequence", "long": "max_tokens", "refused": "refusal", "tools": "tool_use",
        "tool only": "tool_use"}.get(name, "end_turn")
    if name == "structured":
        assert json.loads(body["content"][0]["text"]) == {"name": "Ann", "age": 3}
    assert body["stop_sequence"] == ("STOP" if name in ("nothing", "stopped") else None)


@pytest.mark.parametrize("name", MESSAGE_CASES)
def test_a_message_has_the_vendors_type(service, name):
    answer = service.post(MESSAGES, message_body(name), headers={**service.authorization, **ANTHROPIC_VERSION})
    assert answer.status_code == 200, answer.text
    check_message(answer.json(), name)


@pytest.mark.parametrize("name", MESSAGE_CASES)
def test_a_message_stream_has_the_vendors_events_in_its_order(service, name):
    answer = service.post(MESSAGES, message_body(name, stream=True))
    assert answer.status_code == 200, answer.text
    check_message(followed_message(events_of(answer.text)), name)


DELTAS = {"text": {"text_delta", "citations_delta"}, "thinking": {"thinking_delta", "signature_delta"}, "tool_use": {"input_json_delta"}}


def followed_message(events):
    """Walks through a Messages stream as a strict client does; returns the message that it adds up to."""
    message, block, pieces = None, None, ""
    events = [(name, data) for name, data in events if name != "ping" or data != {"type": "ping"}]
    assert [name for name, _ in events].count("message_start") == 1 and events[0][0] == "message_start"
    assert [name for name, _ in events][-2:] == ["message_delta", "message_stop"]
    for name, data in events:
        check(data, RawMessageStreamEvent)
        assert name == data["type"]
        if name == "message_start":
            message = data["message"]
            assert message["content"] == [] and message["stop_reason"] is None
        elif name == "content_block_start":
            assert block is None and data["index"] == len(message["content"])
            block, pieces = data["content_block"], ""
        elif name == "content_block_delta":
            assert data["index"] == len(message["content"]) and data["delta"]["type"] in DELTAS[block["type"]]
            for field in ("text", "thinking", "signature"):
                if field in data["delta"]:
                    block[field] = (block.get(field) or "") + data["delta"][field]
            pieces += data["delta"].get("partial_json", "")
        elif name == "content_block_stop":
            assert data["index"] == len(message["content"])
            if block["type"] == "tool_use":
                assert block["input"] == {}
                block["input"] = json.loads(pieces or "{}")
            message["content"].append(block)
            block = None
        elif name == "message_delta":
            assert block is None
            message.update(data["delta"])
            message["usage"].update(data["usage"])
    # A block without text is what the vendor's stream may have, and its whole answer not.
    message["content"] = [block for block in message["content"] if block.get("text") != ""]
    return message


def test_counted_tokens_have_the_vendors_type(service, anthropic_client):  # noqa: F811
    body = {"model": "sonnet", "messages": [{"role": "user", "content": "Bonjour, le monde. " * 40}]}
    answer = service.post(MESSAGES + "/count_tokens", body, headers={**service.authorization, **ANTHROPIC_VERSION})
    assert answer.status_code == 200, answer.text
    few = check(answer.json(), MessageTokensCount)["input_tokens"]
    more = anthropic_client.messages.count_tokens(
        **body, system="Be brief. " * 200, tools=[{"name": "weather", "description": "x" * 2000, "input_schema": WEATHER}]).input_tokens
    assert 100 < few < few + 500 < more


def test_models_have_openais_type(service):
    body = service.get("/v1/models").json()
    assert set(body) == {"object", "data"} and body["object"] == "list"
    for model in body["data"]:
        check(model, Model)
        assert check(service.get(f"/v1/models/{model['id']}").json(), Model) == model


def test_models_have_anthropics_type_where_its_version_is_sent(service, anthropic_client):  # noqa: F811
    headers = {**service.authorization, **ANTHROPIC_VERSION}
    with service.client(headers=headers) as client:
        page = check(client.get("/v1/models").json(), SyncPage[ModelInfo])
        names = [model["id"] for model in page["data"]]
        assert {"has_more", "first_id", "last_id"} <= page.keys()
        assert (page["first_id"], page["last_id"], page["has_more"]) == (names[0], names[-1], False)
        assert {"opus", "sonnet", "haiku"} <= set(names) and len(set(names)) == len(names)
        first = check(client.get("/v1/models", params={"limit": 2}).json(), SyncPage[ModelInfo])
        assert [model["id"] for model in first["data"]] == names[:2] and first["has_more"]
        second = check(client.get("/v1/models", params={"limit": 2, "after_id": first["last_id"]}).json(), SyncPage[ModelInfo])
        assert [model["id"] for model in second["data"]] == names[2:4]
        back = check(client.get("/v1/models", params={"limit": 1, "before_id": names[2]}).json(), SyncPage[ModelInfo])
        assert [model["id"] for model in back["data"]] == names[1:2]
        for query in ({"limit": "0"}, {"limit": "x"}, {"limit": "1001"}):
            wrong = client.get("/v1/models", params=query)
            assert wrong.status_code == 400, query
            check(wrong.json(), ErrorResponse)
        assert check(client.get(f"/v1/models/{names[0]}").json(), ModelInfo) == page["data"][0]
        missing = client.get("/v1/models/gpt-4o")
        assert missing.status_code == 404
        assert check(missing.json(), ErrorResponse)["error"]["type"] == "not_found_error"
    assert [model.id for model in anthropic_client.models.list(limit=1)] == names
    assert anthropic_client.models.retrieve("sonnet").id == "sonnet"


# ---- failures ----------------------------------------------------------------------------------------------------------------

OPENAI_BODIES = {
    CHAT: lambda prompt, **extra: {"model": "sonnet", "messages": [{"role": "user", "content": prompt}], **extra},
    LEGACY: lambda prompt, **extra: {"model": "sonnet", "prompt": prompt, **extra},
    RESPONSES: lambda prompt, **extra: {"model": "sonnet", "input": prompt, **extra},
}


@pytest.mark.parametrize("path", OPENAI_BODIES)
def test_openais_errors_have_its_type(service, path):
    body = OPENAI_BODIES[path]
    cases = [
        (400, body(7), service.key), (400, [], service.key), (400, body("x", stream="yes"), service.key), (401, body("x"), "wrong"),
        (404, body("x", model="gpt-4o"), service.key), (400, body("[[error=400]]"), service.key),
    ]
    if path == CHAT:  # Tried again for seconds, hence once.
        cases += [(503, body("[[error=529]]"), service.key)]
    for status, sent, key in cases:
        answer = service.post(path, sent, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == {"error"}
        assert {"message", "type", "param", "code"} == check(answer.json()["error"], ErrorObject).keys()


@pytest.mark.parametrize("path", OPENAI_BODIES)
def test_a_stream_of_openais_that_fails_ends_with_its_error(service, path):
    answer = service.post(path, OPENAI_BODIES[path]("[[tokens=9]] [[error_after=3]]", stream=True))
    assert answer.status_code == 200
    events = events_of(answer.text)
    assert "[DONE]" not in answer.text
    if path == RESPONSES:
        for number, (name, data) in enumerate(events):
            check(data, ResponseStreamEvent)
            assert name == data["type"] and data["sequence_number"] == number
        assert events[-1][0] in ("response.failed", "error")
    else:
        for _, data in events[:-1]:
            assert data["choices"][0]["finish_reason"] is None
        assert set(events[-1][1]) == {"error"}
        check(events[-1][1]["error"], ErrorObject)


@pytest.mark.parametrize("path", [MESSAGES, MESSAGES + "/count_tokens"])
def test_anthropics_errors_have_its_type(service, path):
    def body(prompt, **extra):
        return {"model": "sonnet", "messages": [{"role": "user", "content": prompt}], "max_tokens": 9, **extra}

    cases = [
        (400, "invalid_request_error", body(7), service.key), (400, "invalid_request_error", [], service.key),
        (401, "authentication_error", body("x"), "wrong"), (404, "not_found_error", body("x", model="gpt-4o"), service.key),
    ]
    if path == MESSAGES:
        cases += [
            (529, "overloaded_error", body("[[error=529]]"), service.key),
            (400, "invalid_request_error", body("[[error=400]]"), service.key)]
    for status, kind, sent, key in cases:
        answer = service.post(path, sent, headers={"Authorization": f"Bearer {key}", **ANTHROPIC_VERSION})
        assert answer.status_code == status, answer.text
        wrong = check(answer.json(), ErrorResponse)
        assert wrong["error"]["type"] == kind and wrong["request_id"] == answer.headers["request-id"]


def test_a_thread_is_refused_in_the_words_that_the_sdk_knows(service):
    """Its tool runner goes on without one then."""
    answer = service.post(MESSAGES, message_body("text", thread={"type": "create"}))
    assert answer.status_code == 400
    details = answer.json()["error"].pop("details")
    check(details, ThreadUnsupportedRequestErrorDetails)
    assert details["error_code"] == "thread_unsupported_request"


def test_a_message_stream_that_fails_ends_with_its_error(service):
    answer = service.post(MESSAGES, {
        "model": "sonnet", "max_tokens": 99, "stream": True, "messages": [{"role": "user", "content": "[[tokens=9]] [[error_after=3]]"}]})
    *events, (name, data) = events_of(answer.text)
    assert name == "error" and check(data, ErrorResponse)
    for name, data in events:
        assert name == "ping" or check(data, RawMessageStreamEvent)
    assert "message_stop" not in [name for name, _ in events]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/audio/speech", "/v1/images/generations", "/v1/moderations"])
def test_what_is_not_served_is_said_in_the_dialect(service, path):
    answer = service.post(path, {"model": "sonnet", "input": "x"})
    assert answer.status_code == 404
    error = check(answer.json()["error"], ErrorObject)
    assert "/v1/chat/completions" in error["message"]


def test_replies_carry_the_vendors_headers(service):
    answer = service.post(CHAT, OPENAI_BODIES[CHAT]("[[say=ok]]"))
    assert answer.headers["x-request-id"] and int(answer.headers["openai-processing-ms"]) >= 0
    answer = service.post(MESSAGES, message_body("text"))
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    wrong = service.post(MESSAGES, message_body("text", model="gpt-4o"))
    assert wrong.headers["request-id"] == wrong.json()["request_id"]
