"""Structured answers with the vendors' SDKs: what comes back fits the schema, or it is an error; never half of it, never words instead."""

import datetime
import enum
import json
import typing

import openai
import pydantic
import pytest

from dialects import ANTHROPIC, OPENAI, check_error, events_of
from test_sdks import anthropic_client, openai_client  # noqa: F401
from tools import CITY, function, own, tool, turns, user

OBJECT = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}


class Colour(enum.Enum):
    red = "red"
    green = "green"


class Card(pydantic.BaseModel):
    kind: typing.Literal["card"]
    number: str


class Cash(pydantic.BaseModel):
    kind: typing.Literal["cash"]
    coins: list[int]


class Order(pydantic.BaseModel):
    """Enumeration, union, optional, date, nesting, and all kinds of numbers."""

    colour: Colour
    payment: Card | Cash
    note: str | None
    day: datetime.date
    price: float
    count: int = pydantic.Field(ge=1, le=99)
    sure: bool


class Node(pydantic.BaseModel):
    value: int
    children: list["Node"]


class Tree(pydantic.BaseModel):
    root: Node


ORDER = {
    "colour": "green", "payment": {"kind": "cash", "coins": [1, 2]}, "note": None, "day": "2026-05-01", "price": 1.5, "count": 3,
    "sure": True}
NODE = {"value": 1, "children": [{"value": 2, "children": []}, {"value": 3, "children": [{"value": 4, "children": [ ]} ]} ]}
CASES = {"order": (Order, ORDER), "recursive": (Tree, {"root": NODE}), "recursive root": (Node, NODE)}


def prompt(value, mark="", more=""):
    """What makes the upstream give that structure; two brackets in a row would end the directive."""
    return f"{mark} [[json={json.dumps(value).replace(']]', '] ]')}]] {more}"


def offered(body):
    """The schema that the model was asked to answer in."""
    [schema] = [tool["input_schema"] for tool in body["tools"] if tool["name"] == "StructuredOutput"]
    return schema


def response_format(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, **more}}


# ---- OpenAI ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_chat_parses(service, openai_client, mark, name):  # noqa: F811
    model, value = CASES[name]
    answer = openai_client.chat.completions.parse(model="sonnet", messages=[user(prompt(value, mark))], response_format=model)
    [choice] = answer.choices
    assert choice.message.parsed == model.model_validate(value) and choice.finish_reason == "stop"
    assert json.loads(choice.message.content) == value and choice.message.tool_calls is None
    assert answer.usage.completion_tokens > 0 and len(service.recorded(mark)) == 1
    schema = offered(service.upstream_body(mark))
    wanted = openai.lib._pydantic.to_strict_json_schema(model)
    assert schema == {"type": "object", **wanted}


@pytest.mark.parametrize("name", CASES)
def test_chat_streams_and_parses(openai_client, name):  # noqa: F811
    model, value = CASES[name]
    with openai_client.chat.completions.stream(model="sonnet", messages=[user(prompt(value))], response_format=model) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == model.model_validate(value) and final.choices[0].finish_reason == "stop"
    [done] = [event for event in events if event.type == "content.done"]
    assert done.parsed == final.choices[0].message.parsed
    assert json.loads("".join(event.delta for event in events if event.type == "content.delta")) == value


@pytest.mark.parametrize("name", CASES)
def test_responses_parse(service, openai_client, mark, name):  # noqa: F811
    model, value = CASES[name]
    answer = openai_client.responses.parse(model="sonnet", input=prompt(value, mark), text_format=model)
    assert answer.output_parsed == model.model_validate(value) and answer.status == "completed"
    assert answer.text.format.schema_ == openai.lib._pydantic.to_strict_json_schema(model)
    assert offered(service.upstream_body(mark))["type"] == "object"


def test_responses_stream_and_parse(openai_client):  # noqa: F811
    with openai_client.responses.stream(model="sonnet", input=prompt(ORDER), text_format=Order) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_parsed == Order.model_validate(ORDER) and json.loads("".join(pieces)) == ORDER


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_json_object_is_one(service, openai_client, mark, stream):  # noqa: F811
    """Any object, not one of a schema."""
    value = {"anything": [1, {"goes": None}], "\u00fc": "\U0001f389"}
    answer = openai_client.chat.completions.create(
        model="sonnet", messages=[user(prompt(value, mark))], response_format={"type": "json_object"}, stream=stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else answer.choices[0].message.content
    assert json.loads(text) == value and offered(service.upstream_body(mark))["type"] == "object"


def test_a_responses_json_object_is_one(openai_client):  # noqa: F811
    answer = openai_client.responses.create(model="sonnet", input=prompt({"a": 1}), text={"format": {"type": "json_object"}})
    assert json.loads(answer.output_text) == {"a": 1}


def test_text_is_text(service, openai_client, mark):  # noqa: F811
    answer = openai_client.chat.completions.create(
        model="sonnet", messages=[user(f"{mark} [[say=words]]")], response_format={"type": "text"})
    assert answer.choices[0].message.content == "words" and service.upstream_body(mark).get("tools", []) == []


def test_instructions_and_history_stay_what_they_are(service, openai_client, mark):  # noqa: F811
    openai_client.chat.completions.parse(model="sonnet", response_format=Order, messages=[
        {"role": "system", "content": "Be brief."}, user("first"), {"role": "assistant", "content": "{}"}, user(prompt(ORDER, mark))])
    body = service.upstream_body(mark)
    assert [role for role, _ in turns(body)] == ["user", "assistant", "user"]
    assert turns(body)[1][1] == [{"type": "text", "text": "{}"}] and "Be brief." in json.dumps(body["system"])


def test_tools_and_a_structured_answer_go_together(service, openai_client, mark):  # noqa: F811
    """First the call, then, with its result, the structure. A caller's tool of the same name as the CLI's own is the caller's."""
    tools = [function("StructuredOutput"), function("weather")]
    question = user(f'{mark} [[tool=weather {{"city": "Paris"}}]]')
    create = {"model": "sonnet", "tools": tools, "response_format": response_format(OBJECT)}
    first = openai_client.chat.completions.create(messages=[question], **create).choices[0]
    assert first.finish_reason == "tool_calls" and first.message.tool_calls[0].function.name == "weather"
    assert [own(tool["name"]) for tool in service.upstream_body(mark)["tools"]].count("StructuredOutput") == 2
    end = openai_client.chat.completions.create(messages=[
        question, first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": "25 degrees"},
        user(prompt({"name": "Paris", "age": 25}, mark))], **create).choices[0]
    assert json.loads(end.message.content) == {"name": "Paris", "age": 25} and end.finish_reason == "stop"


# ---- what the model gets wrong -----------------------------------------------------------------------------------------------

GOOD = {"name": "Ann", "age": 3}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=str)
def test_an_answer_that_does_not_fit_is_repaired(service, mark, dialect, stream):
    """The model is told what is wrong and tries again; the caller sees nothing of it but the tokens."""
    asked = ({"response_format": response_format(OBJECT, strict=True)} if dialect is OPENAI
             else {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}})
    answer = service.post(dialect.path, dialect.body(prompt(GOOD, mark, "[[json_bad=1]]"), stream=stream, **asked))
    assert answer.status_code == 200, answer.text
    if stream:
        events = events_of(answer.text)
        assert dialect.is_whole(events) and json.loads(dialect.streamed_text(events)) == GOOD
    else:
        assert json.loads(dialect.text(answer.json())) == GOOD
        assert dialect.stop(answer.json()) in ("stop", "end_turn")
    first, second = service.recorded(mark)
    assert len(second["body"]["messages"]) > len(first["body"]["messages"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=str)
def test_an_answer_that_never_fits_is_an_error(service, mark, dialect, stream):
    asked = ({"response_format": response_format(OBJECT)} if dialect is OPENAI
             else {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}})
    answer = service.post(dialect.path, dialect.body(prompt(GOOD, mark, "[[json_bad=99]]"), stream=stream, **asked))
    if answer.status_code == 200:  # a stream that had to say something in between
        [error] = dialect.error_events(events_of(answer.text))
        assert stream and not dialect.is_whole(events_of(answer.text))
    else:
        assert answer.status_code == 502
        error = answer.json()
    check_error(dialect, error, "upstream_error")


def test_an_answer_in_words_is_none(service, mark):
    """The CLI reminds the model once. What the caller gets is the structure or an error, not the words."""
    answer = service.post(OPENAI.path, OPENAI.body(f"{mark} [[say=plain words]]", response_format=response_format(OBJECT)))
    assert len(service.recorded(mark)) > 1
    if answer.status_code == 200:
        assert {"name", "age"} <= json.loads(OPENAI.text(answer.json())).keys()
    else:
        assert answer.status_code == 502
        check_error(OPENAI, answer.json(), "upstream_error")
    assert "plain words" not in answer.text


def test_a_structured_answer_at_its_limit_says_so(service):
    answer = service.post(OPENAI.path, OPENAI.body(prompt(GOOD), max_tokens=1, response_format=response_format(OBJECT)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] == "length"


# ---- schemas that are none ---------------------------------------------------------------------------------------------------

WRONG = {
    "a word": "person", "an array": [], "a wrong type": {"type": "banana"},
    "a dead reference": {"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}},
    "a broken pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
    "a wrong property": {"type": "object", "properties": {"a": 7}}, "no object": {"type": "array", "items": {"type": "string"}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_schema_that_is_none_is_refused(service, name):
    answer = service.post(OPENAI.path, OPENAI.body(prompt(GOOD), response_format=response_format(WRONG[name])))
    assert answer.status_code == 400, answer.text
    check_error(OPENAI, answer.json(), "invalid_request")
    assert answer.json()["error"]["param"].startswith("response_format.json_schema.schema")
    answer = service.post("/v1/responses", {
        "model": "sonnet", "input": prompt(GOOD), "text": {"format": {"type": "json_schema", "name": "x", "schema": WRONG[name]}}})
    assert answer.status_code == 400, answer.text
    check_error(OPENAI, answer.json(), "invalid_request")
    assert answer.json()["error"]["param"].startswith("text.format.schema")
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body(
        prompt(GOOD), stream=True, output_config={"format": {"type": "json_schema", "schema": WRONG[name]}}))
    assert answer.status_code == 400, answer.text
    check_error(ANTHROPIC, answer.json(), "invalid_request", "output_config.format.schema")


def test_a_schema_may_have_alternatives_at_its_top(service, mark):
    """The model reads the rule in words, since the Messages API takes none there; the answer is checked against it all the same."""
    schema = {"anyOf": [OBJECT, {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}]}
    answer = service.post(OPENAI.path, OPENAI.body(prompt(GOOD, mark, "[[json_bad=1]]"), response_format=response_format(schema)))
    assert answer.status_code == 200, answer.text
    assert json.loads(OPENAI.text(answer.json())) == GOOD
    sent = offered(service.upstream_body(mark))
    assert "anyOf" not in sent and sent["properties"].keys() == {"name", "age", "error"} and "anyOf" in sent["description"]


@pytest.mark.parametrize("given, parameter", [
    ({"type": "xml"}, "response_format.type"), ({"type": "json_schema"}, "response_format.json_schema"), ("json", "response_format"),
    ({}, "response_format.type"), ({"type": "json_schema", "json_schema": "x"}, "response_format.json_schema"),
], ids=str)
def test_a_format_that_is_none_is_refused(openai_client, given, parameter):  # noqa: F811
    with pytest.raises(openai.BadRequestError) as failure:
        openai_client.chat.completions.create(model="sonnet", messages=[user("x")], response_format=given)
    assert failure.value.param == parameter


@pytest.mark.parametrize("schema", [
    {**OBJECT, "$schema": "https://json-schema.org/draft/2020-12/schema", "x-order": ["name"], "unevaluatedProperties": False},
    {"properties": OBJECT["properties"]}, {"type": "object"},
    {"type": "object", "properties": {
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}}},
], ids=["words of others", "no type", "empty", "tuple"])
def test_a_schema_may_have_words_that_the_cli_does_not_know(service, mark, schema):
    """Its validator would drop the whole schema silently; the model sees it whole."""
    answer = service.post(OPENAI.path, OPENAI.body(prompt(GOOD, mark), response_format=response_format(schema)))
    assert answer.status_code == 200, answer.text
    assert json.loads(OPENAI.text(answer.json())) == GOOD
    assert offered(service.upstream_body(mark)) == {"type": "object", **schema}


# ---- Anthropic ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["order", "recursive"])
def test_anthropics_messages_parse(service, anthropic_client, mark, name):  # noqa: F811
    model, value = CASES[name]
    answer = anthropic_client.messages.parse(
        model="sonnet", max_tokens=1024, messages=[user(prompt(value, mark))], output_format=model)
    assert answer.parsed_output == model.model_validate(value) and answer.stop_reason == "end_turn"
    assert [block.type for block in answer.content] == ["text"] and json.loads(answer.content[0].text) == value
    assert offered(service.upstream_body(mark))["properties"].keys() == model.model_fields.keys()


def test_anthropics_stream_parses(anthropic_client):  # noqa: F811
    with anthropic_client.messages.stream(
        model="sonnet", max_tokens=1024, messages=[user(prompt(ORDER))], output_format=Order) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.parsed_output == Order.model_validate(ORDER) and json.loads(text) == ORDER


def test_anthropics_own_format_parameter(service, anthropic_client, mark):  # noqa: F811
    answer = anthropic_client.messages.create(
        model="sonnet", max_tokens=1024, messages=[user(prompt(GOOD, mark))], tools=[tool("weather", CITY)],
        output_config={"format": {"type": "json_schema", "schema": OBJECT}, "effort": "low"})
    assert json.loads(answer.content[0].text) == GOOD
    body = service.upstream_body(mark)
    assert offered(body) == OBJECT and body["output_config"]["effort"] == "low"
    assert [own(tool["name"]) for tool in body["tools"]] == ["weather", "StructuredOutput"]


@pytest.mark.parametrize("given, parameter", [
    ({"format": {"type": "xml", "schema": OBJECT}}, "output_config.format.type"),
    ({"format": {"type": "json_schema"}}, "output_config.format.schema"),
    ({"format": "json"}, "output_config.format"), ("json", "output_config"), ({"effort": "enormous"}, "output_config.effort"),
], ids=str)
def test_an_output_config_that_is_none_is_refused(service, given, parameter):
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("x", output_config=given))
    assert answer.status_code == 400, answer.text
    check_error(ANTHROPIC, answer.json(), "invalid_request", parameter)
