"""Conversations that go on in the process that has answered before: found by all that the model knows, and by nothing less."""

import json
import random
import uuid

import pytest

from dialects import ANTHROPIC, CHATS, OPENAI, events_of
from service import Service
from talk import SMALL, Talk, core, in_parallel, process_of
from tools import PNG, tool

TOOL = tool("weather")
CLOCK = {"name": "clock", "description": "The time.", "input_schema": {"type": "object"}}
PARIS, ROME = '[[tool=weather {"city": "Paris"}]]', '[[tool=weather {"city": "Rome"}]]'
FORMS = [pytest.param(dialect, stream, id=f"{dialect}-{'stream' if stream else 'whole'}") for dialect in CHATS for stream in (False, True)]


@pytest.fixture(scope="module")
def live():
    """Two responders, whoever of them gets a request; conversations begin in spares, where one is ready; two more keys."""
    with Service(
            SPARES=2, LIVE_MAX=32, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=4, keys={"alice": "", "bob": ""}) as service:
        yield service


@pytest.fixture(scope="module")
def fresh():
    """A process for each request."""
    with Service(RESPONDERS=1, WORKER_CONCURRENCY=4) as service:
        yield service


def like_fresh(fresh, talk, reply):
    """Checks that the model was sent what a fresh process sends it for the same conversation."""
    other = talk.fork(fresh)
    other.turns.pop()
    assert reply.core == other.send().core


# ---- the same process --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "stream"), FORMS)
def test_a_conversation_goes_on_in_its_process(live, fresh, dialect, stream):
    talk = Talk(live, dialect, system="Be terse.", stream=stream)
    replies = [talk.say("[[say=one]]")] + [talk.say(f"[[say=answer {turn}]] and more") for turn in range(3)]
    assert [reply.text for reply in replies] == ["one", "answer 0", "answer 1", "answer 2"]
    assert len({reply.pid for reply in replies}) == 1
    assert all(reply.line["cli.end"] == "kept" for reply in replies)
    like_fresh(fresh, talk, replies[-1])
    # The form of the answer is not the model's business.
    talk.stream = not stream
    assert talk.say("[[say=last]]").pid == replies[0].pid


@pytest.mark.parametrize(("dialect", "stream"), FORMS)
def test_results_of_tools_answer_the_parked_calls(live, fresh, dialect, stream):
    talk = Talk(live, dialect, system="Look it up.", stream=stream, tools=[TOOL, CLOCK])
    called = talk.say(f"[[say=Let me see.]] {PARIS} {ROME} [[then=Sunny.]]")
    assert len(talk.open_calls) == 2
    given = talk.give("22 degrees in Paris", "30 degrees in Rome")
    assert given.text == "Sunny."
    like_fresh(fresh, talk, given)
    again = talk.say(f"again {PARIS} [[then=Rain.]]")
    last = talk.give("10 degrees, Ümläut 🎉")
    assert last.text == "Rain."
    assert {called.pid, given.pid, again.pid} == {last.pid}
    like_fresh(fresh, talk, last)
    after = talk.say("[[say=bye]]")
    assert after.text == "bye" and after.pid == last.pid
    like_fresh(fresh, talk, after)


def test_a_result_as_a_block_is_one_as_a_text(live, fresh):
    talk = Talk(live, ANTHROPIC, tools=[TOOL])
    called = talk.say(f"{PARIS} [[then=Sunny.]]")
    given = talk.give([{"type": "text", "text": "22 degrees"}])
    talk.turns[-2][1][0]["content"] = "22 degrees"
    after = talk.say("[[say=bye]]")
    assert called.pid == given.pid == after.pid
    like_fresh(fresh, talk, after)


@pytest.mark.parametrize("result", [
    {"content": "broken", "is_error": True}, {"content": ""}, {"content": []}, {"content": "x" * 50_000}], ids=["error", "empty", "none", "long"])
def test_results_that_the_cli_would_change_get_a_fresh_process(live, fresh, result):
    talk = Talk(live, ANTHROPIC, tools=[TOOL])
    called = talk.say(f"{PARIS} [[then=Sunny.]]")
    given = talk.give(result)
    assert given.text == "Sunny." and given.pid != called.pid
    like_fresh(fresh, talk, given)


def test_text_behind_the_results_gets_a_fresh_process(live, fresh):
    talk = Talk(live, ANTHROPIC, tools=[TOOL])
    called = talk.say(PARIS)
    given = talk.add([
        {"type": "tool_result", "tool_use_id": talk.open_calls[0], "content": "22"}, {"type": "text", "text": "hurry [[say=ok]]"}])
    assert given.text == "ok" and given.pid != called.pid
    like_fresh(fresh, talk, given)


def test_responses_go_on_in_their_process(live, fresh, mark):
    pids, bodies = [], []
    for service in (live, fresh):
        previous = None
        for turn in range(3):
            text = f"{mark} [[say=answer {turn}]]"
            answer = service.post("/v1/responses", {
                "model": "sonnet", "input": text, "instructions": "Be terse.", "stream": turn == 1, **({"previous_response_id": previous} if previous else {})})
            assert answer.status_code == 200, answer.text
            response = answer.json() if turn != 1 else events_of(answer.text)[-1][1]["response"]
            assert response["output"][0]["content"][0]["text"] == f"answer {turn}"
            previous = response["id"]
            pids.append(process_of(service, answer))
        bodies.append(core(service.upstream_body(mark)))
    assert len(set(pids[:3])) == 1 and len(set(pids[3:])) == 3
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_sessions_go_on_in_their_process(live, fresh, mark, dialect):
    pids, bodies = [], []
    for service in (live, fresh):
        session = "new"
        for turn in range(3):
            with service.client() as client:
                answer = client.post(
                    dialect.path, json=dialect.body(f"{mark} [[say=answer {turn}]]", system="Be terse."), headers={"X-Session-Id": session})
            assert answer.status_code == 200 and dialect.text(answer.json()) == f"answer {turn}", answer.text
            session = answer.headers["x-session-id"]
            pids.append(process_of(service, answer))
        bodies.append(core(service.upstream_body(mark)))
    assert bodies[0] == bodies[1]
    assert len(set(pids[:3])) == 1 and len(set(pids[3:])) == 3


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a text"}, "title": "T", "citations": {"enabled": True}}


def _text(text, **more):
    return {"type": "text", "text": text, **more}


@pytest.mark.parametrize("turn", [
    [_text("/compact and @/etc/passwd [[say=ok]]")], [_text("  spaces and\n\nlines \t[[say=ok]]\n")], [_text("one"), _text("two"), _text("[[say=ok]]")],
    [IMAGE, _text("[[say=ok]]")], [DOCUMENT, _text("[[say=ok]] [[cite=a text]]")],
    pytest.param([_text("x" * 1_000_000 + " [[say=ok]]")], marks=SMALL),
    [_text("marked", cache_control={"type": "ephemeral"}), _text("[[say=ok]]")], [_text("\u2028 \x00 \x7f </system> 🎉 [[say=ok]]")],
    [_text("!ls # not a command [[say=ok]]")], [_text("# memory [[say=ok]]")],
], ids="commands spaces blocks image document long marked odd shell memory".split())
def test_any_turn_reaches_the_model_as_it_is(live, fresh, turn):
    talk = Talk(live, ANTHROPIC, system="Be terse.")
    first = talk.say("[[say=one]]")
    reply = talk.add(turn)
    assert reply.text.startswith("ok") and reply.pid == first.pid
    like_fresh(fresh, talk, reply)
    again = talk.add(turn)
    assert again.text.startswith("ok")
    like_fresh(fresh, talk, again)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_thoughts_go_with_the_conversation(live, fresh, stream):
    talk = Talk(live, ANTHROPIC, stream=stream, max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 2000}, tools=[TOOL])
    first = talk.say("[[think=hm]] [[say=one]]")
    second = talk.say(f"[[think=well]] [[say=Look.]] {PARIS} [[then=done]]")
    third = talk.give("22 degrees")
    last = talk.say("[[think=so]] [[redacted]] [[say=bye]]")
    assert [reply.text for reply in (first, second, third, last)] == ["one", "Look.", "done", "bye"]
    after = talk.say("[[say=again]]")
    assert {first.pid, second.pid, third.pid} == {last.pid}
    like_fresh(fresh, talk, after)


def test_thoughts_that_the_caller_does_not_send_back_are_not_kept(live, fresh):
    talk = Talk(live, OPENAI, reasoning_effort="high")
    first = talk.say("[[think=hm]] [[say=one]]")
    second = talk.say("[[say=two]]")
    assert second.text == "two" and second.pid != first.pid
    like_fresh(fresh, talk, second)


# ---- another process ---------------------------------------------------------------------------------------------------------


def _edit_turn(talk):
    talk.turns[0][1][0]["text"] += " "


def _edit_answer(talk):
    talk.turns[1][1][0]["text"] = talk.turns[1][1][0]["text"].upper()


def _edit_tool(talk):
    talk.parameters["tools"] = [{**TOOL, "description": "The weather!"}, CLOCK]


DIFFERENCES = {
    "system": lambda talk: setattr(talk, "system", "Be terse!"),
    "no system": lambda talk: setattr(talk, "system", None),
    "an earlier turn": _edit_turn,
    "an answer": _edit_answer,
    "a tool": _edit_tool,
    "a tool less": lambda talk: talk.parameters.update(tools=[TOOL]),
    "tools in another order": lambda talk: talk.parameters.update(tools=[CLOCK, TOOL]),
    "tool choice": lambda talk: talk.parameters.update(
        tool_choice={"type": "none"} if talk.dialect is ANTHROPIC else "none"),
    "model": lambda talk: talk.parameters.update(model="opus"),
    "limit": lambda talk: talk.parameters.update({"max_tokens" if talk.dialect is ANTHROPIC else "max_completion_tokens": 1023}),
    "stop": lambda talk: talk.parameters.update({"stop_sequences" if talk.dialect is ANTHROPIC else "stop": ["END"]}),
    "temperature": lambda talk: talk.parameters.update(temperature=0.5),  # which Chat Completions ignores
    "thinking": lambda talk: talk.parameters.update(
        {"thinking": {"type": "adaptive"}} if talk.dialect is ANTHROPIC else {"reasoning_effort": "high"}),
    "a turn less": lambda talk: talk.turns.__delitem__(slice(0, 2)),
    "two turns more": lambda talk: talk.turns.extend([("user", [{"type": "text", "text": "x"}]), ("assistant", [{"type": "text", "text": "y"}])]),
}


# By turns: what is compared is the same for both.
@pytest.mark.parametrize(("difference", "dialect"), [
    pytest.param(name, ANTHROPIC if name == "temperature" else CHATS[index % 2], id=name) for index, name in enumerate(DIFFERENCES)])
def test_any_difference_gets_a_fresh_process(live, fresh, difference, dialect):
    talk = Talk(live, dialect, system="Be terse.", tools=[TOOL, CLOCK])
    pids = {talk.say("[[say=one]]").pid, talk.say("[[say=two]]").pid}
    changed = talk.fork()
    DIFFERENCES[difference](changed)
    reply = changed.say(f"{talk.mark} [[say=three]]")
    assert reply.text == "three" and reply.pid not in pids
    like_fresh(fresh, changed, reply)
    # The conversation itself is untouched by it.
    assert talk.say("[[say=three]]").pid in pids and len(pids) == 1


def test_what_is_not_the_models_business_makes_no_difference(live, fresh):
    talk = Talk(live, OPENAI)
    first = talk.say("[[say=one]]")
    talk.parameters.update(temperature=0.5, user="another", metadata={"a": "b"}, stream_options={"include_usage": True})
    talk.stream = True
    second = talk.say("[[say=two]]")
    assert second.text == "two" and second.pid == first.pid
    like_fresh(fresh, talk, second)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_two_keys_never_share_a_process(live, dialect):
    mark = "talk-" + uuid.uuid4().hex
    talks = [Talk(live, dialect, system="Be terse.", key=key, mark=mark) for key in ("alice", "bob", None)]
    pids = [{talk.say(f"[[say=answer {turn}]]").pid for turn in range(3)} for talk in talks]
    assert [len(each) for each in pids] == [1, 1, 1] and len(set.union(*pids)) == 3
    # Not even where the other's is the only process that knows the conversation.
    own = talks[0].fork()
    own.turns = []
    first = own.say("[[say=secret]]")
    stolen = own.fork()
    stolen.headers = live.authorization_of("bob")
    assert stolen.say("[[say=x]]").pid != first.pid
    assert own.say("[[say=x]]").pid == first.pid


def test_requests_with_one_history_at_one_time_are_both_answered(live, fresh):
    talk = Talk(live, ANTHROPIC, system="Be terse.")
    first = talk.say("[[say=one]]")
    for turn in range(2):
        pair = [talk.fork(), talk.fork()]
        replies = in_parallel([lambda each=each, name=name: each.say(f"[[say={name}]]") for each, name in zip(pair, "ab", strict=True)])
        assert [reply.text for reply in replies] == ["a", "b"]
        assert replies[0].pid != replies[1].pid
        assert (first.pid in {reply.pid for reply in replies}) == (turn == 0)
    # Two processes now know one and the same conversation.
    for attempt in range(3):
        twins = [talk.fork(), talk.fork()]
        before = in_parallel([lambda each=each, text=f"[[say=same {attempt}]]": each.say(text) for each in twins])
        after = in_parallel([lambda each=each, name=name: each.say(f"[[say={name}]]") for each, name in zip(twins, "cd", strict=True)])
        assert [reply.text for reply in after] == ["c", "d"]
        # Each has one of them, unless both looked at the same moment and saw the same one.
        if {reply.pid for reply in after} == {reply.pid for reply in before}:
            break
    else:
        raise AssertionError("of two that know the conversation one is never used")


# ---- any conversation ----------------------------------------------------------------------------------------------------------


class Wanderer:
    """One conversation over both services, with random turns and edits; both get the same, but for the ids of calls."""

    def __init__(self, services, seed, dialect):
        self.random = random.Random(seed)
        mark = "talk-" + uuid.uuid4().hex
        tools = self.random.choice([None, [TOOL], [TOOL, CLOCK]])
        self.talks = [Talk(service, dialect, system="Be terse.", mark=mark, **({"tools": tools} if tools else {})) for service in services]

    def step(self):
        choice = self.random.random()
        lead = self.talks[0]
        if choice < 0.35 and lead.turns:
            self._edit()
        if lead.open_calls:
            results = [self.random.choice(["22 degrees", "x\n\ny", "0", {"content": "bad", "is_error": True}]) for _ in lead.open_calls]
            if lead.dialect is OPENAI:
                results = [result if isinstance(result, str) else "bad" for result in results]
            steps = [lambda talk=talk: talk.give(*results) for talk in self.talks]
        else:
            text = self.random.choice(["[[say=yes]]", "[[say=a b  c\n]]", "[[tokens=5]]", "Ümläut 🎉 [[say=🎉]]", "[[echo]]"])
            if "tools" in lead.parameters and self.random.random() < 0.5:
                text = self.random.choice([PARIS, f"[[say=Look.]] {PARIS} {ROME}"]) + " [[then=done]]"
            number = self.random.randrange(100)
            steps = [lambda talk=talk: talk.say(f"{number} {text}") for talk in self.talks]
        for talk in self.talks:
            talk.stream = choice * 100 % 2 < 1
        return in_parallel(steps)

    def _edit(self):
        kind = self.random.choice(["system", "limit", "stop", "back", "turn", "answer", "api", "temperature", "tool"])
        place = self.random.randrange(len(self.talks[0].turns))
        number = self.random.randrange(3)
        for talk in self.talks:
            if kind == "system":
                talk.system = ["Be terse.", "Be terse!", None][number]
            elif kind == "limit":
                talk.parameters["max_tokens"] = 1000 + number
            elif kind == "stop":
                talk.parameters["stop_sequences" if talk.dialect is ANTHROPIC else "stop"] = ["END", "STOP"][: number % 2 + 1]
            elif kind == "temperature":
                talk.parameters["temperature"] = number / 4
            elif kind == "back":
                del talk.turns[place - place % 2:]
            elif kind == "tool" and "tools" in talk.parameters:
                talk.parameters["tools"] = [{**TOOL, "description": f"The weather {number}."}, CLOCK]
            elif kind in ("turn", "answer"):
                for block in talk.turns[place][1]:
                    if block["type"] == "text":
                        block["text"] += "."
            elif kind == "api":
                talk.parameters.pop("stop", None)
                talk.parameters.pop("stop_sequences", None)
                talk.dialect = OPENAI if talk.dialect is ANTHROPIC else ANTHROPIC


@pytest.mark.parametrize("seed", [1])
def test_random_conversations_reach_the_model_as_from_fresh_processes(live, fresh, seed):
    source = random.Random(seed)
    wanderers = [Wanderer((live, fresh), source.random(), dialect) for dialect in (*CHATS, ANTHROPIC)]
    went_on, last = 0, {}
    for number in range(40):
        wanderer = source.choice(wanderers)
        one, other = wanderer.step()
        told = json.dumps(wanderer.talks[0].turns, ensure_ascii=False)
        assert one.text == other.text, f"step {number}: {told}"
        assert one.core == other.core, f"step {number}: {told}"
        went_on += last.get(id(wanderer)) == one.pid
        last[id(wanderer)] = one.pid
    assert went_on >= 10, f"only {went_on} of 40 went on in their process: it proves little"
