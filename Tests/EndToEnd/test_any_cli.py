"""Whatever a CLI writes, each API's stream is one that the vendor's own types and helpers take, and ends as it must.

Turns are made at random (cli_lines.py), as the real CLI writes them and with faults, played by the fake CLI and sent through the service in
every streaming dialect. A failure names its seed; E2E_SEED and E2E_COUNT play other series and longer ones.
"""

import collections
import contextlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from openai.types.shared import ErrorObject

import cli_lines
from dialects import events_of
from service import Service, until
from test_vendor_types import DELTAS, follow, followed_message
from vendor_types import check

SEED = int(os.environ.get("E2E_SEED", "20261"))
COUNT = int(os.environ.get("E2E_COUNT", "100"))  # for each dialect
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def player():
    with Service(cli="fake", WORKER_CONCURRENCY=6, RETRY_MAX_ATTEMPTS=2, LOG_LEVEL="warn") as service:
        (service.base / "plays").mkdir()
        service.mode("plays")
        yield service


# ---- what is asked ---------------------------------------------------------------------------------------------------------------


def chat(random, prompt):
    body = {"messages": [{"role": "user", "content": prompt}]}
    body.update(random.choice([
        {}, {}, {"n": 2}, {"stop": ["STOP"]}, {"reasoning_effort": "low", "include_reasoning": True}, {"stream_options": {"include_usage": True}},
        {"tools": [{"type": "function", "function": TOOL}]}, {"functions": [TOOL]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}]))
    return body


def completion(random, prompt):
    return {"prompt": prompt, **random.choice([{}, {"n": 2}, {"stop": ["STOP"]}, {"echo": True}, {"stream_options": {"include_usage": True}}])}


def response(random, prompt):
    return {"input": prompt, **random.choice([
        {}, {}, {"store": False}, {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        {"include": ["reasoning.encrypted_content"]}, {"tools": [{"type": "function", **TOOL}]},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}])}


def message(random, prompt):
    return {"max_tokens": 4096, "messages": [{"role": "user", "content": prompt}], **random.choice([
        {}, {}, {"stop_sequences": ["STOP"]}, {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"tools": [{"name": "look", "input_schema": {"type": "object"}}]},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}])}


# ---- what must be answered ---------------------------------------------------------------------------------------------------------


def check_chat(events, body):
    """Returns the text of each choice; None for a stream that failed."""
    assert all(name is None for name, _ in events)
    *chunks, last = [data for _, data in events]
    if last != "[DONE]":
        assert set(last) == {"error"} and check(last["error"], ErrorObject)
    sums = ChatCompletionStreamState(input_tools=body.get("tools", []))
    texts, ended, calls = collections.defaultdict(str), [], collections.Counter()
    for chunk in chunks:
        check(chunk, ChatCompletionChunk)
        # What was cut short is told by an exception.
        with contextlib.suppress(openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            sums.handle_chunk(construct_type(type_=ChatCompletionChunk, value=chunk))
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert index not in ended and index == len(ended), "choices one after the other, nothing behind their ends"
            assert (delta.get("role") == "assistant") == (index not in texts), "the role first, and once"
            texts[index] += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                is_new = call["index"] == calls[index]
                assert is_new or call["index"] == calls[index] - 1
                assert ({"id", "type"} <= call.keys() and "name" in call["function"]) == is_new
                calls[index] += is_new
            if choice["finish_reason"] is not None:
                ended.append(index)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) <= 1
    if last != "[DONE]":
        return None
    assert ended == list(range(body.get("n", 1)))
    assert (chunks[-1]["choices"] == []) == ("stream_options" in body)
    with contextlib.suppress(openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
        assert len(sums.get_final_completion().choices) == len(ended)
    return [texts[index] for index in ended]


def check_completion(events, body):
    assert all(name is None for name, _ in events)
    *chunks, last = [data for _, data in events]
    texts, ended = collections.defaultdict(str), []
    for chunk in chunks:
        for choice in chunk["choices"]:
            assert choice["index"] == len(ended)
            texts[choice["index"]] += choice["text"]
            if choice["finish_reason"] is not None:
                ended.append(choice["index"])
            # The vendor streams null until the end, though its own type has only the whole answer's.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        check(chunk, Completion)
    if last != "[DONE]":
        assert set(last) == {"error"} and check(last["error"], ErrorObject)
        return None
    assert ended == list(range(body.get("n", 1)))
    prompt = body["prompt"] if body.get("echo") else ""
    assert all(texts[index].startswith(prompt) for index in ended)
    return [texts[index].removeprefix(prompt) for index in ended]


def check_response(events, body):
    sums = ResponseStreamState(input_tools=body.get("tools", []), text_format=openai.omit)
    for number, (name, data) in enumerate(events):
        check(data, ResponseStreamEvent)
        assert name == data["type"] and data["sequence_number"] == number
        sums.handle_event(construct_type(type_=ResponseStreamEvent, value=data))
    assert events[0][0] == "response.created"
    kinds = [name for name, _ in events if name in ("response.completed", "response.incomplete", "response.failed")]
    assert kinds == [events[-1][0]]
    if kinds == ["response.failed"]:
        assert events[-1][1]["response"]["status"] == "failed" and events[-1][1]["response"]["error"]["message"]
        return None
    output = follow(events)["output"]
    return ["".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])]


def check_message(events, body):
    events = [(name, data) for name, data in events if name != "ping"]
    sums, buffers, is_open, index = None, {}, None, 0
    for name, data in events:
        if name == "error":
            check(data, ErrorResponse)
            break
        if name == "message_delta" and data["delta"]["stop_reason"] == "words":
            # A reason that is not known is handed on: the vendor may have a new one.
            data["delta"]["stop_reason"] = "end_turn"
        check(data, RawMessageStreamEvent)
        assert name == data["type"]
        if name == "content_block_start":
            assert is_open is None and data["index"] == index
            is_open = data["content_block"]["type"]
        elif name == "content_block_delta":
            assert data["index"] == index and data["delta"]["type"] in DELTAS[is_open]
        elif name == "content_block_stop":
            assert is_open and data["index"] == index
            is_open, index = None, index + 1
        # A tool's input that is no JSON breaks the vendor's helper with the vendor's own stream as well.
        with contextlib.suppress(ValueError):
            sums = accumulate_event(
                event=construct_type(type_=RawMessageStreamEvent, value=data), current_snapshot=sums, json_bufs=buffers)
    if events[-1][0] == "error":
        assert "message_stop" not in [name for name, _ in events]
        return None
    for data in broken_inputs(events):
        data["delta"]["partial_json"] = ""
    whole = followed_message(events)
    return ["".join(block["text"] for block in whole["content"] if block["type"] == "text")]


def broken_inputs(events):
    """The pieces of those inputs of tools that are no JSON."""
    pieces = collections.defaultdict(list)
    for _, data in events:
        if data.get("delta", {}).get("type") == "input_json_delta":
            pieces[data["index"]].append(data)
    for found in pieces.values():
        try:
            json.loads("".join(data["delta"]["partial_json"] for data in found) or "{}")
        except ValueError:
            yield from found


DIALECTS = {
    "/v1/chat/completions": (chat, check_chat), "/v1/completions": (completion, check_completion),
    "/v1/responses": (response, check_response), "/v1/messages": (message, check_message),
}


def is_structured(body):
    return "response_format" in body or "output_config" in body or "text" in body


def play(player, client, path, number):
    """One turn, asked for and looked at; returns how it ended."""
    seed = f"{SEED} {path} {number}"
    chance = random.Random(seed)
    name = f"{number}_{path.replace('/', '_')}"
    make, look = DIALECTS[path]
    body = {"model": "sonnet", "stream": True, **make(chance, f"play-{name}")}
    turn = cli_lines.turn(chance, is_structured(body))
    (player.base / "plays" / name).write_text("\n".join(turn.lines) + "\n")
    answer = client.post(path, json=body)
    try:
        return judge(answer, body, turn, path, look)
    except Exception as error:
        told = answer.text if len(answer.text) < 9000 else answer.text[:4500] + " … " + answer.text[-4500:]
        lines = "\n".join(line[:400] for line in turn.lines)
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\n--- asked\n{body}\n--- the CLI\n{lines}\n--- answered\n{told}") from error


def judge(answer, body, turn, path, look):
    is_anthropic = path == "/v1/messages"
    if answer.status_code != 200:
        assert answer.status_code in (400, 404, 413, 429, 500, 502, 503, 529), answer.status_code
        told = answer.json()
        if is_anthropic and told["error"]["type"] == "request_too_large":  # which the vendor sends, and its type lacks
            told["error"]["type"] = "invalid_request_error"
        error = check(told, ErrorResponse)["error"] if is_anthropic else check(told["error"], ErrorObject)
        assert error.get("code") != "internal_error"
        assert turn.has_faults or '"is_error":true' in turn.lines[-2], "the CLI did nothing wrong"
        return answer.status_code
    assert answer.headers["content-type"].startswith("text/event-stream")
    texts = look(events_of(answer.text), body)
    stops = "stop" in body or "stop_sequences" in body
    if texts is None:
        assert turn.has_faults, "nothing is wrong with what the CLI wrote"
        return "failed"
    assert stops or turn.claims_an_end(), "an answer that was cut short looks whole"
    if not turn.has_faults:
        wanted = '{"a":1}' if is_structured(body) else turn.text.partition("STOP")[0] if stops else turn.text
        assert texts == [wanted] * body.get("n", 1), f"{texts} instead of {wanted!r}"
    return "whole"


@pytest.mark.parametrize("path", DIALECTS)
def test_any_sequence_of_lines_gives_a_stream_that_the_vendor_takes(player, path):
    print(f"seed {SEED}")
    with httpx.Client(base_url=player.url, headers=player.authorization, timeout=60, trust_env=False) as client:
        with ThreadPoolExecutor(6) as pool:
            ends = collections.Counter(pool.map(lambda number: play(player, client, path, number), range(COUNT)))
    print(dict(ends))
    # Both must have been tried.
    assert ends["whole"] > COUNT / 4 and ends["failed"] > 2, ends
    player.no_cli()
    until(lambda: player.get("/health").json()["queue"]["processing"] == 0, 20, "a free place")
