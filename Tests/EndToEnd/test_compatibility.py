"""docs/compatibility.md is complete and true: its rows are the SDKs' own parameters, and the service treats each as the row says."""

import inspect
import re

import pydantic
import pytest
from anthropic.resources.beta.messages import Messages as BetaMessages
from anthropic.resources.messages import Messages
from openai.resources.chat.completions import Completions as ChatCompletions
from openai.resources.completions import Completions
from openai.resources.responses import Responses

from service import CHECKOUT, until
from test_media import PNG
from test_sdks import anthropic_client  # noqa: F401
from tools import CITY, function, tool, user

CHAT, LEGACY, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
BETA, COUNT, OTHERS = "/v1/messages, beta", "/v1/messages/count_tokens", "What other clients send"

METHODS = {
    CHAT: ChatCompletions.create, LEGACY: Completions.create, RESPONSES: Responses.create, MESSAGES: Messages.create,
    BETA: BetaMessages.create, COUNT: Messages.count_tokens,
}
# Not parameters of the API but of the SDK's call.
CALL = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
# Sent as headers, or as another parameter.
UNSENT = {"user_profile_id", "workspace_id", "betas"}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def tables():
    """Heading to {parameter: what happens}; the last table by (place, parameter)."""
    found, rows = {}, {}
    for line in (CHECKOUT / "docs/compatibility.md").read_text().splitlines():
        if line.startswith("## "):
            rows = found.setdefault(line[3:].removeprefix("POST ").strip(), {})
        elif row := re.match(r"\| `(\w+)` \| (?:`(/[\w/]+)` \| )?(\w+) \|", line):
            name, place, what = row.groups()
            assert (place, name) not in rows and what in ("honoured", "ignored", "refused"), line
            rows[(place, name) if place else name] = what
    return found


TABLES = tables()


def rows(path, what):
    return [name for name, treatment in TABLES[path].items() if treatment == what and name not in UNSENT]


def parameters(path):
    return set(inspect.signature(METHODS[path]).parameters) - CALL


@pytest.mark.parametrize("path", METHODS)
def test_the_table_has_the_sdks_parameters(path):
    """A parameter that a new SDK brings is a gap here."""
    wanted = parameters(path) - (parameters(MESSAGES) if path == BETA else set())
    assert sorted(TABLES[path]) == sorted(wanted)


# ---- what is ignored ---------------------------------------------------------------------------------------------------------

BODIES = {
    CHAT: {"model": "sonnet", "messages": [user("[[say=ok]]")]},
    LEGACY: {"model": "sonnet", "prompt": "[[say=ok]]"},
    RESPONSES: {"model": "sonnet", "input": "[[say=ok]]", "store": False},
    MESSAGES: {"model": "sonnet", "max_tokens": 99, "messages": [user("[[say=ok]]")]},
    COUNT: {"model": "sonnet", "messages": [user("hello")]},
}
BODIES[BETA] = BODIES[MESSAGES]

VALUES = {
    "frequency_penalty": 0.5, "logit_bias": {"50256": -100}, "metadata": {"a": "b"}, "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "x"}, "presence_penalty": 0.5, "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"}, "prompt_cache_retention": "24h", "safety_identifier": "s", "seed": 7,
    "service_tier": "auto", "temperature": 0.5, "top_logprobs": 3, "top_p": 0.5, "user": "me", "verbosity": "low",
    "context_management": [{"type": "compaction", "compact_threshold": 9000}], "max_tool_calls": 3, "truncation": "auto",
    "cache_control": {"type": "ephemeral"}, "diagnostics": {"previous_message_id": "msg_1"}, "inference_geo": "eu", "speed": "standard",
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "billing_policy": {"type": "billing_policy"},
    "fallback_credit_token": "t", "fallbacks": "default", "access_programs": {"cyber": "standard"},
    "session_id": "s", "max_tokens": 9, "stream": True, "stop_sequences": ["x"],
    "background_options": {"completion_window": "2h"}, "image": {"context_compression": "auto"},
}
# Where another API spells a value in its own way.
OWN_VALUES = {
    MESSAGES: {"metadata": {"user_id": "u"}}, BETA: {"context_management": {"edits": []}},
}


def path_of(name):
    return name.split(",")[0]


def ignored(answer):
    return set(filter(None, answer.headers.get("x-claude-ignored", "").split(", ")))


def value(path, name):
    return OWN_VALUES.get(path, {}).get(name, VALUES[name])


@pytest.mark.parametrize("path", METHODS)
def test_what_is_ignored_is_accepted_and_named(service, path):
    others = [name for (place, name), what in TABLES[OTHERS].items() if (place, what) == (path, "ignored")]
    names = [name for name in rows(path, "ignored") if name != "output_format"] + others
    body = {**BODIES[path], **{name: value(path, name) for name in names}}
    answer = service.post(path_of(path), body)
    assert answer.status_code == 200, answer.text
    assert ignored(answer) == set(names)
    if path != COUNT:
        line = service.request_line(answer.headers["x-request-id"], 20)  # written when the CLI has ended
        assert set(line["ignored"].split(",")) == set(names)


@pytest.mark.parametrize("path", [CHAT, LEGACY, RESPONSES, MESSAGES])
def test_a_stream_names_them_too(service, path):
    answer = service.post(path, {**BODIES[path], "stream": True, "of_tomorrow": 1, "service_tier": "auto"})
    assert answer.status_code == 200 and ignored(answer) == {"service_tier", "of_tomorrow"}


def test_null_is_as_good_as_missing(service):
    for path in BODIES:
        absent = {name: None for name in {*rows(path, "ignored"), *rows(path, "refused")}}
        answer = service.post(path_of(path), {**BODIES[path], **absent})
        assert answer.status_code == 200, (path, answer.text)


def test_headers_of_anthropics_are_not_looked_at(anthropic_client):  # noqa: F811
    sent = {"user_profile_id": "profile_1", "workspace_id": "wrkspc_1"}
    answer = anthropic_client.messages.with_raw_response.create(**BODIES[MESSAGES], **sent)
    assert answer.status_code == 200 and "x-claude-ignored" not in answer.headers
    answer = anthropic_client.beta.messages.with_raw_response.create(**BODIES[MESSAGES], betas=["some-beta-2026-01-01"])
    assert answer.status_code == 200 and "x-claude-ignored" not in answer.headers
    answer = anthropic_client.messages.with_raw_response.count_tokens(**BODIES[COUNT], **sent)
    assert answer.status_code == 200 and "x-claude-ignored" not in answer.headers


def test_a_counts_output_format_is_sent_as_output_config(anthropic_client):  # noqa: F811
    class Name(pydantic.BaseModel):
        name: str

    answer = anthropic_client.messages.with_raw_response.count_tokens(**BODIES[COUNT], output_format=Name)
    assert answer.status_code == 200 and answer.headers["x-claude-ignored"] == "output_config"


# ---- what is refused ---------------------------------------------------------------------------------------------------------

REFUSED = {
    CHAT: {
        "audio": {"voice": "alloy", "format": "wav"}, "logprobs": True, "modalities": ["text", "audio"],
        "web_search_options": {"search_context_size": "low"}},
    LEGACY: {"best_of": 3, "logprobs": 2, "suffix": "end"},
    RESPONSES: {"conversation": "conv_1", "prompt": {"id": "pmpt_1"}},
    MESSAGES: {"container": "container_1"},
    BETA: {
        "compaction": {"type": "summarize"}, "mcp_servers": [{"type": "url", "name": "x", "url": "https://example.com/mcp"}],
        "thread": {"type": "create"}},
    COUNT: {},
}
# What the third column says of rows that are honoured otherwise: path, parameter, value, and what is named.
REFUSED_VALUES = [
    (CHAT, "tools", [{"type": "custom", "custom": {"name": "x"}}], "tools[0]"),
    (CHAT, "messages", [user([{"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}])], "messages[0].content[0]"),
    (CHAT, "response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, "response_format"),
    (CHAT, "n", 9, "n"),
    (LEGACY, "prompt", [1, 2], "prompt"), (LEGACY, "prompt", [[1], [2]], "prompt"), (LEGACY, "n", 9, "n"),
    (RESPONSES, "include", ["message.output_text.logprobs"], "include"),
    (RESPONSES, "tools", [{"type": "web_search"}], "tools[0]"), (RESPONSES, "tools", [{"type": "mcp", "server_label": "x"}], "tools[0]"),
    (RESPONSES, "tool_choice", {"type": "web_search"}, "tool_choice"),
    (RESPONSES, "input", [{"type": "item_reference", "id": "msg_1"}], "input[0]"),
    (RESPONSES, "background", True, "background"),  # with `store: false`
    (MESSAGES, "tools", [{"type": "web_search_20250305", "name": "web_search"}], "tools[0]"),
    (MESSAGES, "messages", [user([{"type": "document", "source": {"type": "file", "file_id": "file_1"}}])], "messages[0].content[0]"),
    (COUNT, "tools", [{"type": "web_search_20250305", "name": "web_search"}], "tools[0]"),
]


@pytest.mark.parametrize("path", METHODS)
def test_what_is_refused_is_named(service, path):
    assert sorted(rows(path, "refused")) == sorted(REFUSED[path])
    for name, sent in REFUSED[path].items():
        check_refusal(service, path, name, sent, name)


@pytest.mark.parametrize("path, name, sent, named", REFUSED_VALUES, ids=lambda part: part if isinstance(part, str) else "")
def test_values_that_are_refused_are_named(service, path, name, sent, named):
    check_refusal(service, path, name, sent, named)


def check_refusal(service, path, name, sent, named):
    answer = service.post(path_of(path), {**BODIES[path], name: sent})
    assert answer.status_code == 400, (name, answer.text)
    error = answer.json()["error"]
    assert named in error["message"], error
    if path in (CHAT, LEGACY, RESPONSES):
        assert error["param"].startswith(named), error


# ---- what is honoured --------------------------------------------------------------------------------------------------------

WEATHER = {"type": "function", "name": "weather", "description": "The weather.", "parameters": CITY}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
# One request may hold many; what does not go together stands in another. That each does its work is tested elsewhere.
HONOURED = {
    CHAT: [
        {"max_tokens": 99, "max_completion_tokens": 98, "n": 2, "stop": ["x"], "stream": True,
         "stream_options": {"include_usage": True, "include_obfuscation": False}, "tools": [function("weather")], "tool_choice": "auto",
         "parallel_tool_calls": False, "response_format": {"type": "text"}, "reasoning_effort": "low"},
        {"functions": [function("weather")["function"]], "function_call": "none", "logprobs": False, "modalities": ["text"]},
        {"store": True}, {"session_id": CHAT}, {"include_reasoning": True}, {"reasoning": {"effort": "low"}}, {"thinking": {"type": "enabled"}},
    ],
    LEGACY: [
        {"echo": True, "max_tokens": 99, "n": 2, "stop": "x", "stream": True, "stream_options": {"include_usage": True}, "best_of": 2},
    ],
    RESPONSES: [
        {"include": ["reasoning.encrypted_content"], "instructions": "Be brief.", "max_output_tokens": 99, "metadata": {"a": "b"},
         "parallel_tool_calls": False, "reasoning": {"effort": "low", "summary": "auto"}, "store": False, "stream": True,
         "stream_options": {"include_obfuscation": False}, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [WEATHER],
         "truncation": "disabled"},
    ],
    MESSAGES: [
        {"output_config": {"effort": "low"}, "stop_sequences": ["x"], "stream": True, "system": "Be brief.", "tool_choice": {"type": "auto"},
         "thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096, "tools": [tool("weather")]},
        {"temperature": 0.5, "top_p": 0.5, "top_k": 5},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}, "messages": [user('[[json={"name": "Ann"}]]')]}, {"session_id": MESSAGES},
    ],
    BETA: [],
    COUNT: [
        {"system": "Be brief.", "thinking": {"type": "enabled", "budget_tokens": 1024}, "tool_choice": {"type": "auto"},
         "tools": [tool("weather")]},
    ],
}
SEPARATELY = {"background", "previous_response_id"}


@pytest.mark.parametrize("path", METHODS)
def test_what_is_honoured_is_neither_refused_nor_named(service, path):
    sent = {*BODIES[path], *(name for more in HONOURED[path] for name in more)}
    assert set(rows(path, "honoured")) - SEPARATELY <= sent
    for more in HONOURED[path]:
        if "session_id" in more:
            first = service.post(path, BODIES[path], headers={**service.authorization, "X-Session-Id": "new"})
            more = {"session_id": first.headers["x-session-id"]}
        answer = service.post(path_of(path), {**BODIES[path], **more})
        assert answer.status_code == 200, (more, answer.text)
        assert not ignored(answer), more
        if {"store", "session_id"} & more.keys() and path != RESPONSES:
            assert answer.headers["x-session-id"] == more.get("session_id", answer.headers["x-session-id"])


def test_the_table_of_what_other_clients_send_is_tried_too():
    for (path, name), what in TABLES[OTHERS].items():
        assert what == "ignored" or any(name in more for more in HONOURED[path]), name
        assert name not in parameters(path), "the SDK has it: it belongs to the table of its API"


def test_a_background_response_and_one_that_follows(service):
    answer = service.post(RESPONSES, {"model": "sonnet", "input": "[[say=first]]", "background": True})
    assert answer.status_code == 200 and not ignored(answer) and answer.json()["status"] in ("queued", "in_progress")
    path = f"{RESPONSES}/{answer.json()['id']}"
    first = until(lambda: (body := service.get(path).json())["status"] == "completed" and body, 20, "the background response")
    assert first["output"][0]["content"][0]["text"] == "first" and first["background"] is True
    second = service.post(RESPONSES, {"model": "sonnet", "input": "[[say=second]]", "previous_response_id": first["id"]})
    assert second.status_code == 200 and not ignored(second)
    assert second.json()["previous_response_id"] == first["id"]


def test_a_background_response_is_cancelled(service, mark):
    answer = service.post(RESPONSES, {"model": "sonnet", "input": f"{mark} [[tokens=2000]] [[delay_ms=20]]", "background": True})
    path = f"{RESPONSES}/{answer.json()['id']}"
    until(lambda: service.recorded(mark), 20, "the request to the model")
    cancelled = service.post(path + "/cancel", {})
    assert cancelled.status_code == 200 and cancelled.json()["status"] == "cancelled"
    assert service.get(path).json()["status"] == "cancelled"
    service.no_cli(20)
