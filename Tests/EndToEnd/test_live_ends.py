"""Conversations that go on in their process over several responders; their bounds, and how each of them ends."""

import os
import signal
import threading
import time
from datetime import datetime

import httpx
import pytest

from dialects import ANTHROPIC, CHATS, OPENAI
from service import Service, alive, children, environment, until
from talk import Talk, at, handed_to, holder_of, in_parallel, until_waiting, waiting
from tools import tool

TOOL = tool("weather")


@pytest.fixture(scope="module")
def live():
    with Service(LIVE_MAX=32, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=4) as service:
        yield service


# ---- several responders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three():
    with Service(RESPONDERS=3, LIVE_MAX=32, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=12, LOG_LEVEL="debug") as service:
        yield service


def test_conversations_find_their_processes_wherever_they_arrive(three):
    holders = three.responders() * 2
    talks = [Talk(three, CHATS[index % 2], system="Be terse.", stream=index % 3 == 0) for index in range(len(holders))]
    replies = [[at(holder, three, lambda talk=talk: talk.say("[[say=one]]")) for holder, talk in zip(holders, talks, strict=True)]]
    for holder, reply in zip(holders, replies[0], strict=True):
        assert reply.pid in children([holder])
    for turn in range(3):
        replies.append(in_parallel([
            lambda talk=talk, turn=turn: talk.say(f"{turn} [[tokens=6]] [[delay_ms=40]]") for talk in talks]))
    for each in zip(*replies, strict=True):
        assert len({reply.pid for reply in each}) == 1, "a conversation changed its process"
        assert [reply.text for reply in each[1:]] == ["tok0 tok1 tok2 tok3 tok4 tok5 "] * 3
    # The same, where it is certain that another one gets the request.
    for holder, talk, first in zip(holders, talks, replies[0], strict=True):
        last = handed_to(holder, three, lambda talk=talk: talk.say("[[say=last]]"))
        assert last.text == "last" and last.pid == first.pid
    ids = [line["request.id"] for line in three.request_lines()]
    assert len(ids) == len(set(ids)) and {reply.line["request.id"] for turn in replies for reply in turn} <= set(ids)


@pytest.mark.parametrize("session", [None, "new"], ids=["sent", "stored"])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_the_death_of_the_holder_costs_nobody_an_answer(three, dialect, session):
    talk = Talk(three, dialect, system="Be terse.", session=session)
    first = talk.say("[[say=one]]")
    holder = holder_of(three, first.pid)
    own = children([holder])
    os.kill(holder, signal.SIGKILL)
    began = time.monotonic()
    second = talk.say("[[say=two]]")
    assert second.text == "two" and second.pid != first.pid and time.monotonic() - began < 10
    assert [message["role"] for message in second.core["messages"]] == ["user", "assistant", "user"]
    until(lambda: not any(alive(pid) for pid in own), 10, "the end of its processes")
    until(lambda: len(three.responders()) == 3, 20, "another responder")
    assert talk.say("[[say=three]]").pid == second.pid


# ---- bounds and ends -----------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first():
    with Service(RESPONDERS=2, LIVE_MAX=2, LIVE_TTL=600, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=1) as service:
        talks = [Talk(service, dialect) for dialect in (OPENAI, ANTHROPIC)]
        first = [talk.say("[[say=one]]").pid for talk in talks]
        assert talks[0].say("[[say=two]]").pid == first[0]
        third = Talk(service, OPENAI)
        third_pid = third.say("[[say=one]]").pid
        until(lambda: not alive(first[1]), 10, "the end of the one unused for longest")
        until_waiting(service, 0, 2)
        assert alive(first[0]) and alive(third_pid)
        # Two idle processes are not in the way of the one place there is, nor of the queue.
        queue = service.get("/health").json()["queue"]
        assert (queue["processing"], queue["pending"]) == (0, 0)
        answers = in_parallel([lambda: service.post(OPENAI.path, OPENAI.body("[[say=hi]]"))] * 2)
        assert [answer.status_code for answer in answers] == [200, 200]
        until_waiting(service, 0, 2)
        assert talks[1].say("[[say=again]]").text == "again"


def test_an_unused_conversation_ends_in_time():
    with Service(RESPONDERS=1, LIVE_MAX=4, LIVE_TTL=2, MEMORY_HEADROOM=1) as service:
        talk = Talk(service, OPENAI)
        reply = talk.say("[[say=one]]")
        first = reply.pid
        until(lambda: not alive(first), 20, "the end of an unused process")
        # It has waited since its line was written, whenever this test came to read that.
        assert time.time() - datetime.fromisoformat(reply.line["time"].replace("Z", "+00:00")).timestamp() > 1
        assert waiting(service) == (0, 0)
        second = talk.say("[[say=two]]")
        assert second.text == "two" and second.pid != first


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_client_that_leaves_ends_the_process(live, dialect):
    talk = Talk(live, dialect, stream=True)
    first = talk.say("[[say=one]]")
    left = talk.fork()
    left.turns.append(("user", [{"type": "text", "text": "[[tokens=500]] [[delay_ms=50]]"}]))
    with httpx.Client(base_url=live.url, trust_env=False, timeout=20, headers=left.headers) as client:
        with client.stream("POST", dialect.path, json=left.request()) as answer:
            lines = answer.iter_lines()
            until(lambda: "tok1" in next(lines), 20, "the beginning of the answer", 0)
    until(lambda: not alive(first.pid), 10, "the end of the process")
    second = talk.say("[[say=two]]")
    assert second.text == "two" and second.pid != first.pid


def test_a_failed_turn_ends_the_process(live):
    talk = Talk(live, OPENAI)
    first = talk.say("[[say=one]]")
    failed = talk.fork()
    failed.turns.append(("user", [{"type": "text", "text": "[[error=400]]"}]))
    assert live.post(OPENAI.path, failed.request()).status_code >= 400
    until(lambda: not alive(first.pid), 10, "the end of the process")
    assert talk.say("[[say=two]]").pid != first.pid


@pytest.mark.parametrize("end", ["[[tokens=30]]", "[[say=one END two]]"], ids=["limit", "stop"])
def test_a_cut_answer_is_not_kept(live, end):
    talk = Talk(live, OPENAI, stop=["END"], max_completion_tokens=7)
    reply = talk.say(end)
    assert reply.line["cli.end"] != "kept"
    until(lambda: not alive(reply.pid), 10, "the end of the process")
    assert talk.say("[[say=two]]").text == "two"


def test_the_end_of_a_responder_is_the_end_of_its_conversations(live):
    talk = Talk(live, OPENAI)
    pid = talk.say("[[say=one]]").pid
    holder = holder_of(live, pid)
    os.kill(holder, signal.SIGTERM)
    until(lambda: not alive(pid) and not alive(holder), 20, "the end of both")
    assert talk.say("[[say=two]]").text == "two"


def test_the_death_of_a_responder_ends_its_processes_and_no_others():
    with Service(RESPONDERS=2, SPARES=2, LIVE_MAX=8, LIVE_TTL=600, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=2, MAX_QUEUE_SIZE=0) as service:
        dying, other = service.responders()
        talks = [Talk(service, dialect) for dialect in CHATS]
        first = []
        # Who starts first has both until the other is there; one without a spare would hand its request to one that stands still.
        until(lambda: [len(children([pid])) for pid in (dying, other)] == [1, 1], 40, "a spare of each")
        for count, (holder, talk) in enumerate(zip((dying, other), talks, strict=True)):
            until_waiting(service, 2, count)
            first.append(at(holder, service, lambda talk=talk: talk.say("[[say=one]]")).pid)
        until_waiting(service, 2, 2)
        own, others = children([dying]), children([other])
        assert len(own) == len(others) == 2 and first[0] in own and first[1] in others
        os.kill(dying, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in own), 10, "the end of its processes")
        until(lambda: (waiting(service) or (0, 0))[1] == 1, 10, "the end of its conversation")
        # It may have started a spare in the place of the dead one's.
        assert set(others) <= set(children([other]))
        # None of them is in the way: there are two places, and no queue.
        answers = in_parallel([lambda: service.post(OPENAI.path, OPENAI.body("[[tokens=5]] [[delay_ms=100]]"))] * 2)
        assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
        # A place is given back after the answer.
        until(lambda: service.get("/health").json()["queue"]["processing"] == 0, 10, "free places")
        replies = [talk.say("[[say=two]]") for talk in talks]
        assert [reply.text for reply in replies] == ["two", "two"]
        assert replies[0].pid not in own and replies[1].pid == first[1]
        until_waiting(service, 2, 4)
        # What the dead one left is removed by the one that is started in its place.
        until(lambda: {path.partition("/")[0] for path in service.temporary()} == {_marker(pid) for pid in service.clis()}, 20,
              "no directory but those of processes")


def _marker(pid):
    """The name of a CLI's own temporary directory."""
    return environment(pid).get(b"CLAUDE_FCGI_RUN", b"").decode()


def test_the_end_of_the_service_leaves_nothing():
    """The check is Service.stop's: no process, no socket, no directory."""
    with Service(RESPONDERS=2, SPARES=2, LIVE_MAX=4, MEMORY_HEADROOM=1) as service:
        until_waiting(service, 2, 0)
        talk = Talk(service, OPENAI, tools=[TOOL])
        pid = talk.say('[[tool=weather {"city": "Paris"}]]').pid
        other = Talk(service, ANTHROPIC, stream=True)
        other.say("[[say=one]]")
        until_waiting(service, 2, 2)
        running = threading.Thread(target=other.say, args=("[[tokens=60]] [[delay_ms=50]]",))
        running.start()
        until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 10, "a running request")
        service.stop()
        running.join(20)
        assert not alive(pid) and not running.is_alive()
        assert len(other.turns) == 4, "the running answer was not finished"
