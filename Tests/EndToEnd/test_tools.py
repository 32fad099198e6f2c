"""Calls of tools and their results with the vendors' SDKs.

What reached the model is in the offline upstream's record.
"""

import json

import openai
import pydantic
import pytest
from anthropic import beta_tool

from test_sdks import anthropic_client, openai_client  # noqa: F401
from tools import CITY, PARIS, PNG, ROME, ask, function, result_of, tool, turns, user

ASK = '[[say=Let me look.]] [[tool=weather {"city": "Paris"}]] [[tool=weather {"city": "Rome"}]] [[then=Both are sunny.]]'


def call_message(identity="call_1", arguments="{}", **more):
    """A call of the model's, as it stands in a history."""
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": identity, "type": "function", "function": {"name": "weather", "arguments": arguments} | more}]}


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
