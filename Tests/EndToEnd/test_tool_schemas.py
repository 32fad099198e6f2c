"""Tools that are offered, and the choice among them, with the vendors' SDKs: the model sees what the caller said."""

import json

import openai
import pytest

from test_sdks import anthropic_client, openai_client  # noqa: F401
from tools import CITY, ask, function, own, tool, turns, user

# ---- schemas -----------------------------------------------------------------------------------------------------------------

EITHER = {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
SCHEMAS = {
    "long": (CITY, "x" * 10_000),
    "nested $defs": ({
        "type": "object", "$defs": {"node": {
            "type": "object", "additionalProperties": False, "properties": {
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "v": {"enum": [1, "x", None]}}}},
        "properties": {"root": {"$ref": "#/$defs/node"}}, "required": ["root"]}, "A list."),
    "unknown words": ({
        "type": "object", "x-mine": {"a": [1]}, "properties": {"when": {"type": "string", "format": "date-time", "examples": ["now"]}},
        "unevaluatedProperties": False}, "Ümläut “quotes” 🎉"),
}


def check_tools(service, mark, wanted):
    """That the model was offered exactly these tools: name to (schema, description)."""
    sent = service.upstream_body(mark)["tools"]
    assert [own(tool["name"]) for tool in sent] == list(wanted)
    for tool, (schema, description) in zip(sent, wanted.values()):
        assert tool["input_schema"] == schema and tool["description"] == description


def test_the_model_sees_openais_schemas_as_they_are(service, openai_client, mark):  # noqa: F811
    wanted = {f"tool_{number}": SCHEMAS[name] for number, name in enumerate(SCHEMAS)}
    answer = ask(openai_client, f"{mark} [[say=ok]]", tools=[
        function(name, schema, description=description) for name, (schema, description) in wanted.items()])
    assert answer.choices[0].message.content == "ok"
    check_tools(service, mark, wanted)


def test_the_model_sees_anthropics_schemas_as_they_are(service, anthropic_client, mark):  # noqa: F811
    wanted = {f"tool_{number}": SCHEMAS[name] for number, name in enumerate(SCHEMAS)}
    answer = anthropic_client.messages.create(
        model="sonnet", max_tokens=99, messages=[user(f"{mark} [[say=ok]]")],
        tools=[{**tool(name, schema, description=description), "cache_control": {"type": "ephemeral"}}
               for name, (schema, description) in wanted.items()])
    assert answer.content[0].text == "ok"
    check_tools(service, mark, wanted)


def test_a_responses_tool_is_seen_as_it_is(service, openai_client, mark):  # noqa: F811
    schema, description = SCHEMAS["nested $defs"]
    answer = openai_client.responses.create(model="sonnet", input=f"{mark} [[say=ok]]", tools=[
        {"type": "function", "name": "list", "description": description, "parameters": schema, "strict": False}])
    assert answer.output_text == "ok"
    check_tools(service, mark, {"list": (schema, description)})


def test_a_schema_with_alternatives_at_its_top_is_fitted_for_openais_callers(service, openai_client, mark):  # noqa: F811
    """The Messages API takes none; the model reads the rule in words."""
    answer = ask(openai_client, f'{mark} [[tool=b {{"b": 1}}]]', tools=[function("a"), function("b", EITHER)])
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"b": 1}
    plain, fitted = [tool["input_schema"] for tool in service.upstream_body(mark)["tools"]]
    assert plain == CITY and (fitted["type"], fitted["properties"]) == ("object", {"a": {}, "b": {}})
    assert "anyOf" not in fitted and "required" not in fitted and json.dumps(EITHER["anyOf"], separators=(",", ":")) in fitted["description"]


def test_what_the_vendor_refuses_is_refused_in_its_words(service):
    """Not rewritten for its own callers; nor are the other tools lost with it, as they would be in the CLI."""
    answer = service.post("/v1/messages", {
        "model": "sonnet", "max_tokens": 9, "messages": [user("x")], "tools": [tool("a"), tool("b", EITHER)]})
    assert answer.status_code == 400 and "tools.1" in answer.json()["error"]["message"] and "anyOf" in answer.json()["error"]["message"]


@pytest.mark.parametrize("parameters", [..., {}, {"type": "object"}, {"type": "object", "properties": {}}], ids=str)
def test_a_tool_may_have_no_parameters(service, openai_client, mark, parameters):  # noqa: F811
    definition = {"name": "now"} if parameters is ... else {"name": "now", "parameters": parameters}
    answer = ask(openai_client, f"{mark} [[tool=now]]", tools=[{"type": "function", "function": definition}])
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "now" and json.loads(call.function.arguments) == {}
    [sent] = service.upstream_body(mark)["tools"]
    assert sent["input_schema"]["type"] == "object" and not sent["input_schema"].get("properties")


NAMES = ["Bash", "Read", "StructuredOutput", "mcp__github__search", "n" * 64, "with-dash_1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_may_have_any_name(service, openai_client, mark, name):  # noqa: F811
    """Also one that the CLI has itself, which must then be the caller's tool in every respect."""
    choice = {"type": "function", "function": {"name": name}}
    answer = ask(openai_client, f"{mark} [[then=done]]", tools=[function(name), function("other")], tool_choice=choice)
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == name and answer.choices[0].finish_reason == "tool_calls"
    body = service.upstream_body(mark)
    assert [own(tool["name"]) for tool in body["tools"]] == [name, "other"]
    assert body["tool_choice"]["type"] == "tool" and own(body["tool_choice"]["name"]) == name
    end = openai_client.chat.completions.create(model="sonnet", tools=[function(name)], messages=[
        user(f"{mark} [[then=done]]"), answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "ok"}])
    assert end.choices[0].message.content == "done"
    block = turns(service.upstream_body(mark))[1][1][-1]
    assert own(block["name"]) == name and block["id"] == call.id


@pytest.mark.parametrize("name, parameter", [
    ({"name": "a b"}, "tools[0].function.name"), ({"name": ""}, "tools[0].function.name"), ({}, "tools[0].function.name"),
    ({"name": "n" * 129}, "tools[0].function.name"), ({"name": "x", "parameters": []}, "tools[0].function.parameters"),
    ({"name": "x", "description": 1}, "tools[0].function.description"),
], ids=str)
def test_a_tool_that_is_none_is_refused(openai_client, name, parameter):  # noqa: F811
    with pytest.raises(openai.BadRequestError) as failure:
        ask(openai_client, "x", tools=[{"type": "function", "function": name}])
    assert failure.value.param == parameter


@pytest.mark.parametrize("tools, choice, parameter", [
    ([function("a"), function("a")], "auto", "tools[1].function.name"), ([function("a")], "some", "tool_choice"),
    ([function("a")], {"type": "function", "function": {"name": "b"}}, "tool_choice.function.name"), ([], "required", "tool_choice"),
    ([{"type": "web_search"}], "auto", "tools[0].type"),
], ids=["twice", "choice", "choice of another", "choice of none", "hosted"])
def test_tools_that_do_not_fit_are_refused(openai_client, tools, choice, parameter):  # noqa: F811
    with pytest.raises(openai.BadRequestError) as failure:
        ask(openai_client, "x", tools=tools, tool_choice=choice)
    assert failure.value.param.startswith(parameter)


# ---- the choice of tools -----------------------------------------------------------------------------------------------------


TIME = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize("choice, sent, called", [
    ("auto", {"type": "auto"}, None), ("none", {"type": "none"}, None), ("required", {"type": "any"}, "weather"),
    (TIME, {"type": "tool", "name": "time"}, "time"),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TIME]}}, ..., "time"),
], ids=["auto", "none", "required", "named", "allowed"])
def test_openais_tool_choice(service, openai_client, mark, choice, sent, called):  # noqa: F811
    prompt = mark if called else f"{mark} [[say=words]]"
    answer = ask(openai_client, prompt, tools=[function("weather"), function("time")], tool_choice=choice)
    [choice] = answer.choices
    if called:
        assert [call.function.name for call in choice.message.tool_calls] == [called] and choice.finish_reason == "tool_calls"
    else:
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("words", None, "stop")
    if sent is not ...:
        assert service.upstream_body(mark).get("tool_choice", {"type": "auto"}) == sent


@pytest.mark.parametrize("choice, sent", [
    (None, {"type": "auto"}), ("required", {"type": "any"}),
    ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
], ids=["auto", "required", "named"])
def test_calls_one_at_a_time(service, openai_client, mark, choice, sent):  # noqa: F811
    more = {"tool_choice": choice} if choice else {}
    answer = ask(
        openai_client, f'{mark} [[tool=weather {{"city": "Oslo"}}]]', tools=[function("weather")], parallel_tool_calls=False, **more)
    assert len(answer.choices[0].message.tool_calls) == 1
    assert service.upstream_body(mark)["tool_choice"] == {**sent, "disable_parallel_tool_use": True}


@pytest.mark.parametrize("choice", [
    {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "none"},
    {"type": "auto", "disable_parallel_tool_use": True}, {"type": "any", "disable_parallel_tool_use": True},
], ids=str)
def test_anthropics_tool_choice(service, anthropic_client, mark, choice):  # noqa: F811
    answer = anthropic_client.messages.create(
        model="sonnet", max_tokens=99, tools=[tool("weather")], tool_choice=choice,
        messages=[user(mark if choice["type"] in ("any", "tool") else f"{mark} [[say=words]]")])
    assert service.upstream_body(mark)["tool_choice"] == choice
    calls = [block.name for block in answer.content if block.type == "tool_use"]
    assert calls == (["weather"] if choice["type"] in ("any", "tool") else [])
    assert answer.stop_reason == ("tool_use" if calls else "end_turn")


def test_tools_that_run_on_anthropics_servers_are_refused(service):
    for kind in ("web_search_20250305", "web_fetch_20250910", "code_execution_20250825"):
        answer = service.post("/v1/messages", {
            "model": "sonnet", "max_tokens": 9, "messages": [user("x")], "tools": [{"type": kind, "name": kind.rsplit("_", 1)[0]}]})
        assert answer.status_code == 400 and "tools[0].type" in answer.json()["error"]["message"]


@pytest.mark.parametrize("definition", [
    {"type": "bash_20250124", "name": "bash"}, {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 99},
    {"type": "custom", **tool("weather")}, {**tool("weather"), "strict": True},
], ids=["bash", "editor", "custom", "strict"])
def test_tools_of_anthropics_kinds_that_the_caller_runs(service, anthropic_client, mark, definition):  # noqa: F811
    """The vendor's own definitions reach the model as they are, and its calls come back."""
    question = user(f'{mark} [[tool={definition["name"]} {{"command": "ls"}}]] [[then=done]]')
    create = {"model": "sonnet", "max_tokens": 99, "tools": [definition]}
    first = anthropic_client.messages.create(messages=[question], **create)
    [call] = first.content
    assert (call.name, call.input, first.stop_reason) == (definition["name"], {"command": "ls"}, "tool_use")
    [sent] = service.upstream_body(mark)["tools"]
    wanted = {key: value for key, value in definition.items() if value != "custom"}
    assert {key: value for key, value in sent.items() if key not in ("cache_control",) and value != "custom"} == wanted
    end = anthropic_client.messages.create(messages=[
        question, {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "ok"}]}], **create)
    assert end.content[0].text == "done"
