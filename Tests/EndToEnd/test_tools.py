"""Tool calls, stop sequences, thinking, limits and choices with the vendors' SDKs.

What reached the model is in the offline upstream's record.
"""

import json
import time

import openai
import pydantic
import pytest
from anthropic import beta_tool

from dialects import events_of
from test_sdks import anthropic_client, openai_client  # noqa: F401

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = '[[say=Let me look.]] [[tool=weather {"city": "Paris"}]] [[tool=weather {"city": "Rome"}]] [[then=Both are sunny.]]'
PARIS, ROME = {"city": "Paris"}, {"city": "Rome"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def function(name, parameters=CITY, **more):
    """A tool as Chat Completions has it."""
    return {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": parameters, **more}}


def tool(name, schema=CITY, **more):
    """A tool as the Messages API has it."""
    return {"name": name, "description": f"The {name}.", "input_schema": schema, **more}


def own(name):
    """A caller's tool under the name that the model sees."""
    return name.removeprefix("mcp__client__")


def turns(body):
    """What the model was sent, as [(role, blocks)]: contents as blocks, the CLI's own words and its cache marks left out."""
    found = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]
        blocks = [block for block in blocks if not block.get("text", "").startswith("<system-reminder>")]
        if message["role"] != "system":
            found.append((message["role"], blocks))
    return found


def result_of(block):
    """A tool result's content as blocks; a lone text as it is. The CLI's own words go: for some models they stand behind it."""
    content = block.get("content", "")
    if isinstance(content, str):
        text, reminder, _ = content.partition("<system-reminder>")
        return text.removesuffix("\n\n") if reminder else text
    blocks = [part for part in content if not part.get("text", "").startswith("<system-reminder>")]
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return blocks[0]["text"].removesuffix("\n") if len(content) > 1 else blocks[0]["text"]
    return blocks


def user(text):
    return {"role": "user", "content": text}


def call_message(identity="call_1", arguments="{}", **more):
    """A call of the model's, as it stands in a history."""
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": identity, "type": "function", "function": {"name": "weather", "arguments": arguments} | more}]}


def ask(client, prompt, **more):
    return client.chat.completions.create(model="sonnet", messages=[user(prompt)], **more)


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


# ---- calls and their results -------------------------------------------------------------------------------------------------


def test_text_and_several_calls_come_in_one_answer(openai_client, mark):  # noqa: F811
    answer = ask(openai_client, f"{mark} {ASK}", tools=[function("weather")])
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look."
    assert [(call.type, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == [
        ("function", "weather", PARIS), ("function", "weather", ROME)]
    assert len({call.id for call in choice.message.tool_calls}) == 2 and all(call.id for call in choice.message.tool_calls)


def test_calls_alone_have_no_content(openai_client):  # noqa: F811
    answer = ask(openai_client, '[[tool=weather {"city": "Paris"}]]', tools=[function("weather")])
    assert answer.choices[0].message.content is None and answer.choices[0].message.tool_calls


def test_calls_are_streamed_in_fragments(openai_client):  # noqa: F811
    calls, text, reasons, places = {}, "", [], []
    for chunk in ask(openai_client, ASK, tools=[function("weather")], stream=True):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
        for piece in choice.delta.tool_calls or []:
            places.append(piece.index)
            if piece.index not in calls:
                calls[piece.index] = {"id": piece.id, "name": piece.function.name, "type": piece.type, "pieces": []}
                assert piece.id and piece.function.name and piece.type == "function"
            else:
                # A client that adds up every field would otherwise get it twice.
                assert piece.id is None and piece.function.name is None
            if piece.function.arguments:
                calls[piece.index]["pieces"].append(piece.function.arguments)
    assert text == "Let me look." and reasons == ["tool_calls"] and places == sorted(places)
    assert [json.loads("".join(call["pieces"])) for call in calls.values()] == [PARIS, ROME] and list(calls) == [0, 1]
    assert all(len(call["pieces"]) > 1 for call in calls.values()) and calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "reversed"])
def test_a_round_trip_continues_the_conversation(service, openai_client, mark, order):  # noqa: F811
    tools, prompt = [function("weather")], f"{mark} {ASK}"
    first = ask(openai_client, prompt, tools=tools).choices[0].message
    calls = first.tool_calls
    results = [{"role": "tool", "tool_call_id": calls[n].id, "content": f"{calls[n].function.arguments} is sunny"} for n in order]
    end = openai_client.chat.completions.create(
        model="sonnet", tools=tools, messages=[
            {"role": "system", "content": "Be brief."}, user(prompt), first.model_dump(exclude_none=True), *results])
    assert end.choices[0].message.content == "Both are sunny." and end.choices[0].finish_reason == "stop"
    (asker, question), (caller, said), (answerer, given) = turns(service.upstream_body(mark))
    assert (asker, caller, answerer) == ("user", "assistant", "user") and question == [{"type": "text", "text": prompt}]
    assert said == [
        {"type": "text", "text": "Let me look."}, {"type": "tool_use", "id": calls[0].id, "name": "weather", "input": PARIS},
        {"type": "tool_use", "id": calls[1].id, "name": "weather", "input": ROME}]
    assert {block["tool_use_id"]: result_of(block) for block in given} == {
        call.id: f"{call.function.arguments} is sunny" for call in calls}
    assert [block["type"] for block in given] == ["tool_result"] * 2 and not any(block.get("is_error") for block in given)


def test_a_conversation_with_many_rounds_keeps_everything_in_place(service, openai_client, mark):  # noqa: F811
    """Ids of another service's, text beside results, and a new question after them."""
    messages = [user(f"{mark} first")]
    for number in range(5):
        messages += [
            {**call_message(f"call_{number}", json.dumps({"city": str(number)})), "content": f"step {number}" if number % 2 else None},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": [{"type": "text", "text": f"result {number}"}]}]
    messages += [{"role": "assistant", "content": "so far"}, user("and now? [[say=end]]")]
    answer = openai_client.chat.completions.create(model="sonnet", messages=messages, tools=[function("weather")])
    assert answer.choices[0].message.content == "end"
    sent = turns(service.upstream_body(mark))
    assert [role for role, _ in sent] == ["user"] + ["assistant", "user"] * 6
    for number in range(5):
        said, given = sent[1 + 2 * number][1], sent[2 + 2 * number][1]
        assert said[-1] == {"type": "tool_use", "id": f"call_{number}", "name": "weather", "input": {"city": str(number)}}
        assert [block.get("text") for block in said[:-1]] == ([f"step {number}"] if number % 2 else [])
        assert (given[0]["tool_use_id"], result_of(given[0])) == (f"call_{number}", f"result {number}")
    assert sent[-2][1] == [{"type": "text", "text": "so far"}] and sent[-1][1] == [{"type": "text", "text": "and now? [[say=end]]"}]


@pytest.mark.parametrize("messages", [
    [{"role": "tool", "tool_call_id": "nobody", "content": "y"}],
    [call_message(), {"role": "tool", "content": "y"}],
    [call_message(), user("and now?")],
    [call_message(name=7), {"role": "tool", "tool_call_id": "call_1", "content": "y"}],
    [call_message(arguments=7), {"role": "tool", "tool_call_id": "call_1", "content": "y"}],
], ids=["nobody's result", "no id", "no result", "no name", "no arguments"])
def test_calls_and_results_that_do_not_fit_are_refused(openai_client, messages):  # noqa: F811
    with pytest.raises(openai.BadRequestError) as failure:
        openai_client.chat.completions.create(model="sonnet", messages=[user("x"), *messages], tools=[function("weather")])
    assert failure.value.param.startswith("messages")


def test_arguments_that_are_no_json_stay_in_the_history(service, openai_client, mark):  # noqa: F811
    """A model's own slip: refusing it would end the conversation for good."""
    answer = openai_client.chat.completions.create(model="sonnet", tools=[function("weather")], messages=[
        user(f"{mark} [[then=ok]]"), call_message(arguments='{"city": '), {"role": "tool", "tool_call_id": "call_1", "content": "no JSON"}])
    assert answer.choices[0].message.content == "ok"
    assert '{\\"city\\": ' in json.dumps(turns(service.upstream_body(mark))[1][1][-1]["input"])


def test_a_result_of_300_kilobytes_arrives(service, openai_client, mark):  # noqa: F811
    large = "lorem ipsum \u00fc \U0001f389 " * 15_000
    answer = openai_client.chat.completions.create(model="sonnet", tools=[function("weather")], messages=[
        user(f"{mark} [[then=read]]"),
        call_message(), {"role": "tool", "tool_call_id": "call_1", "content": large}])
    assert answer.choices[0].message.content == "read"
    assert result_of(turns(service.upstream_body(mark))[2][1][0]) == large


def test_a_model_may_call_again_after_a_result(openai_client, mark):  # noqa: F811
    tools, messages = [function("weather"), function("time")], [user(f'{mark} [[tool=weather {{}}]] [[then_tool=time {{"city": "Rome"}}]]')]
    first = openai_client.chat.completions.create(model="sonnet", messages=messages, tools=tools).choices[0].message
    messages += [first.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}]
    second = openai_client.chat.completions.create(model="sonnet", messages=messages, tools=tools).choices[0]
    assert second.finish_reason == "tool_calls"
    [call] = second.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("time", ROME) and call.id != first.tool_calls[0].id


def test_anthropics_results_arrive_as_they_are(service, anthropic_client, mark):  # noqa: F811
    """An error, an image, a text, none at all; words after the results."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    contents = {"toolu_1": [{"type": "text", "text": "see"}, image], "toolu_2": "it broke", "toolu_3": "fine"}
    answer = anthropic_client.messages.create(model="sonnet", max_tokens=99, tools=[tool("weather")], messages=[
        user(f"{mark}"),
        {"role": "assistant", "content": [
            {"type": "text", "text": "looking"},
            *({"type": "tool_use", "id": key, "name": "weather", "input": {"city": key}} for key in contents)]},
        {"role": "user", "content": [
            *({"type": "tool_result", "tool_use_id": key, "content": value, **({"is_error": True} if key == "toolu_2" else {})}
              for key, value in contents.items()), {"type": "text", "text": "and? [[say=ok]]"}]}])
    assert answer.content[0].text == "ok"
    (_, _), (_, said), (role, given) = turns(service.upstream_body(mark))
    assert role == "user" and [block.get("id") for block in said] == [None, *contents]
    results = {block["tool_use_id"]: block for block in given if block["type"] == "tool_result"}
    assert [block["type"] for block in given] == ["tool_result"] * 3 + ["text"] and given[-1]["text"] == "and? [[say=ok]]"
    assert {key: result_of(block) for key, block in results.items()} == contents
    assert [key for key, block in results.items() if block.get("is_error")] == ["toolu_2"]


def test_anthropic_streams_calls_as_json_deltas(service, anthropic_client, mark):  # noqa: F811
    with anthropic_client.messages.stream(
        model="sonnet", max_tokens=99, messages=[user(f"{mark} {ASK}")], tools=[tool("weather")]) as stream:
        events = [event for event in stream if event.type == "content_block_delta"]
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"] and final.stop_reason == "tool_use"
    assert [block.input for block in final.content[1:]] == [PARIS, ROME]
    for index in (1, 2):
        pieces = [event.delta.partial_json for event in events if event.index == index]
        assert len([piece for piece in pieces if piece]) > 1 and json.loads("".join(pieces)) == final.content[index].input
    end = anthropic_client.messages.create(model="sonnet", max_tokens=99, tools=[tool("weather")], messages=[
        user(f"{mark} {ASK}"), {"role": "assistant", "content": final.content},
        user([{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"} for block in final.content[1:]])])
    assert end.content[0].text == "Both are sunny."
    assert [block["id"] for block in turns(service.upstream_body(mark))[1][1][1:]] == [block.id for block in final.content[1:]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_anthropics_tool_runner(service, anthropic_client, mark, stream):  # noqa: F811
    """It asks the vendor to keep the conversation, and goes on without where it is told that this is not done."""
    asked = []

    @beta_tool
    def weather(city: str) -> str:
        """The weather.

        Args:
            city: Where.
        """
        asked.append(city)
        return f"{city} is sunny"

    runner = anthropic_client.beta.messages.tool_runner(
        model="sonnet", max_tokens=99, messages=[user(f"{mark} {ASK}")], tools=[weather], stream=stream)
    if stream:
        for turn in runner:
            end = turn.get_final_message()
    else:
        end = runner.until_done()
    assert end.content[0].text == "Both are sunny." and sorted(asked) == ["Paris", "Rome"]
    (_, _), (_, said), (_, given) = turns(service.upstream_body(mark))
    assert {block["tool_use_id"]: result_of(block) for block in given} == {
        block["id"]: f"{block['input']['city']} is sunny" for block in said if block["type"] == "tool_use"}


class Weather(pydantic.BaseModel):
    """The weather at a place."""

    city: str
    days: int


def test_openais_stream_helper_parses_calls(openai_client):  # noqa: F811
    with openai_client.chat.completions.stream(
        model="sonnet", messages=[user('[[say=Well.]] [[tool=Weather {"city": "Paris", "days": 3}]]')],
        tools=[openai.pydantic_function_tool(Weather)]) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls
    assert call.function.parsed_arguments == Weather(city="Paris", days=3) and final.choices[0].message.content == "Well."
    kinds = [event.type for event in events]
    assert kinds.count("tool_calls.function.arguments.done") == 1 and kinds.count("tool_calls.function.arguments.delta") > 1


def test_openais_parse_helper_parses_calls(service, openai_client, mark):  # noqa: F811
    answer = openai_client.chat.completions.parse(
        model="sonnet", messages=[user(f'{mark} [[tool=Weather {{"city": "Paris", "days": 3}}]]')],
        tools=[openai.pydantic_function_tool(Weather)])
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Weather(city="Paris", days=3)
    [sent] = service.upstream_body(mark)["tools"]
    assert sent["description"] == "The weather at a place." and sent["input_schema"]["required"] == ["city", "days"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_old_functions_still_work(service, openai_client, mark, stream):  # noqa: F811
    functions = [function("weather")["function"]]
    prompt = f'{mark} [[tool=weather {{"city": "Paris"}}]] [[then=sunny]]'
    answer = ask(openai_client, prompt, functions=functions, function_call={"name": "weather"}, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        calls = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
        assert calls[0].name == "weather" and json.loads("".join(call.arguments or "" for call in calls)) == PARIS
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["function_call"]
        assert not any(chunk.delta.tool_calls for chunk in chunks)
    else:
        [choice] = answer.choices
        assert choice.finish_reason == "function_call" and choice.message.tool_calls is None
        assert (choice.message.function_call.name, json.loads(choice.message.function_call.arguments)) == ("weather", PARIS)
    assert service.upstream_body(mark)["tool_choice"] == {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    end = openai_client.chat.completions.create(model="sonnet", functions=functions, messages=[
        user(prompt), {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"role": "function", "name": "weather", "content": "25 degrees"}])
    assert end.choices[0].message.content == "sunny"
    (_, _), (_, [said]), (_, [given]) = turns(service.upstream_body(mark))
    assert (said["name"], said["input"]) == ("weather", PARIS)
    assert given["tool_use_id"] == said["id"] and result_of(given) == "25 degrees"


RESPONSES_TOOL = {"type": "function", "name": "weather", "description": "The weather.", "parameters": CITY, "strict": False}


def test_responses_continue_after_a_call(service, openai_client, mark):  # noqa: F811
    first = openai_client.responses.create(
        model="sonnet", input=f"{mark} {ASK}", instructions="Be brief.", tools=[RESPONSES_TOOL], tool_choice="auto")
    message, *calls = first.output
    assert message.content[0].text == "Let me look." and [json.loads(call.arguments) for call in calls] == [PARIS, ROME]
    second = openai_client.responses.create(
        model="sonnet", previous_response_id=first.id, tools=[RESPONSES_TOOL],
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": f"{call.arguments} is sunny"} for call in reversed(calls)])
    assert second.output_text == "Both are sunny." and second.previous_response_id == first.id
    body = service.upstream_body(mark)
    (_, question), (_, said), (_, given) = turns(body)
    assert question == [{"type": "text", "text": f"{mark} {ASK}"}]
    assert [(block["id"], block["input"]) for block in said[1:]] == [(calls[0].call_id, PARIS), (calls[1].call_id, ROME)]
    assert {block["tool_use_id"]: result_of(block) for block in given} == {
        call.call_id: f"{call.arguments} is sunny" for call in calls}
    assert "Be brief." not in json.dumps(body["system"])  # which counts for one response only
    third = openai_client.responses.create(
        model="sonnet", previous_response_id=second.id, input="and? [[say=ok]]", tools=[RESPONSES_TOOL])
    assert third.output_text == "ok" and len(turns(service.upstream_body(mark))) == 5


def test_responses_take_calls_as_items_too(service, openai_client, mark):  # noqa: F811
    answer = openai_client.responses.create(model="sonnet", tools=[RESPONSES_TOOL], store=False, input=[
        {"role": "developer", "content": f"rule {mark}"}, user("first [[then=sunny]]"),
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "25 degrees"}])
    assert answer.output_text == "sunny"
    body = service.upstream_body(mark)
    (_, _), (_, [said]), (_, [given]) = turns(body)
    assert (said["id"], said["input"], result_of(given)) == ("call_1", PARIS, "25 degrees")
    assert f"rule {mark}" in json.dumps(body["system"])
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(answer.id)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_responses_give_thoughts_to_be_sent_back(service, openai_client, mark, stream):  # noqa: F811
    """For callers who keep the conversation themselves: what the model thought, with its signature, reaches it again."""
    create = {
        "model": "sonnet", "store": False, "tools": [RESPONSES_TOOL], "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"]}
    question = user(f'{mark} [[think=hm]] [[tool=weather {{"city": "Paris"}}]] [[then=sunny]]')
    if stream:
        with openai_client.responses.stream(input=[question], **create) as events:
            first = [event for event in events][-1].response
    else:
        first = openai_client.responses.create(input=[question], **create)
    thought, call = first.output
    assert (thought.type, call.type) == ("reasoning", "function_call") and thought.encrypted_content
    assert [part.text for part in thought.summary] == ["hm"]
    end = openai_client.responses.create(input=[
        question, *(item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "25 degrees"}], **create)
    assert end.output_text == "sunny"
    _, (_, said), (_, _) = turns(service.upstream_body(mark))
    assert [block["type"] for block in said] == ["thinking", "tool_use"]
    assert said[0]["thinking"] == "hm" and said[0]["signature"]


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
    assert answer.choices[0].message.content == "tok0 tok1 tok2 tok3 tok4 " and time.monotonic() - began < 10
    service.no_cli(5)


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
