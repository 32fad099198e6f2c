"""Stored chats whose process is in another responder than the one that gets their next turn."""

import sqlite3

import pytest

from dialects import ANTHROPIC, CHATS, OPENAI, check_error
from direct import session, snapshot
from service import Service, children, until
from talk import Talk, at, hand_overs, handed_to, holder_of, in_parallel

MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def three():
    with Service(
            RESPONDERS=3, LIVE_MAX=32, MEMORY_HEADROOM=1, WORKER_CONCURRENCY=12, LOG_LEVEL="debug", RETRY_MAX_ATTEMPTS=1, keys={"other": ""}) as service:
        yield service


@pytest.fixture(scope="module")
def two_alone():
    """No process waits: what is answered here is answered without a hand-over."""
    with Service(LOG_LEVEL="debug", RETRY_MAX_ATTEMPTS=1, keys={"other": ""}) as service:
        yield service


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_stored_chats_find_their_processes_wherever_they_arrive(three, dialect):
    holders = three.responders()
    talks = [Talk(three, dialect, system="Be terse.", stream=index == 1, session="new") for index in range(3)]
    first = [at(holder, three, lambda talk=talk: talk.say("[[say=one]]")) for holder, talk in zip(holders, talks, strict=True)]
    assert [holder_of(three, reply.pid) for reply in first] == holders
    # Only the new turn is sent each time.
    for number in range(3):
        for holder, talk, reply in zip(holders, talks, first, strict=True):
            before = session(three, talk.session)
            answer = handed_to(holder, three, lambda talk=talk, number=number: talk.say(f"[[say=answer {number}]]"))
            assert (answer.text, answer.pid) == (f"answer {number}", reply.pid)
            assert session(three, talk.session)["turns"] == before["turns"] + 1
    for turn in range(2):
        for replies in zip(first, in_parallel([lambda talk=talk: talk.say("[[say=last]]") for talk in talks]), strict=True):
            assert len({reply.pid for reply in replies}) == 1
            assert [message["role"] for message in replies[1].core["messages"]] == ["user", "assistant"] * (4 + turn) + ["user"]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_turns_that_come_together_each_go_on_with_the_one_before(three, dialect):
    """What was known when they came is the past when their turn has come."""
    talk = Talk(three, dialect, session="new")
    talk.say("[[say=one]]")
    answers = in_parallel([lambda number=number: talk.ask(f"[[say=answer {number}]] [[delay_ms=300]]") for number in range(3)])
    assert all(answer.status_code == 200 for answer in answers)
    said = [message["content"][-1]["text"] for message in session(three, talk.session)["messages"] if message["role"] == "assistant"]
    assert said[0] == "one" and sorted(said[1:]) == ["answer 0", "answer 1", "answer 2"]
    lines = [three.request_line(answer.headers["x-request-id"]) for answer in answers]
    last = next(line for line, answer in zip(lines, answers, strict=True) if said[-1] in answer.text)
    reply = talk.say("[[say=end]]")
    assert reply.pid == last["cli.pid"]
    assert [message["content"][-1]["text"] for message in reply.core["messages"] if message["role"] == "assistant"] == said


def test_a_turn_that_fails_there_leaves_the_chat_as_it_was(three):
    talk = Talk(three, OPENAI, session="new")
    holder = holder_of(three, talk.say("[[say=one]]").pid)
    before = snapshot(three, talk.session)
    answer = handed_to(holder, three, lambda: talk.ask("[[error=400]]"))
    assert answer.status_code == 400
    assert snapshot(three, talk.session) == before
    assert talk.say("[[say=two]]").text == "two" and session(three, talk.session)["turns"] == 2


def refusal(talk, id=None, key=None):
    """What a further turn is answered, without what is each request's own."""
    other = talk.fork()
    other.session = id or talk.session
    other.headers = talk.service.authorization_of(key) if key else talk.headers
    answer = other.ask("[[say=x]]")
    body = answer.json()
    body.pop("request_id", None)
    return answer.status_code, body


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_what_is_refused_is_refused_as_ever(three, two_alone, dialect):
    """A session that there is not, another key's, and one that can't be read: where a process has the chat, and where none does."""
    found = []
    for service in (three, two_alone):
        talk = Talk(service, dialect, session="new")
        talk.say("[[say=one]]")
        before = hand_overs(service)
        rows = snapshot(service, talk.session)
        refused = [refusal(talk, MISSING), refusal(talk, key="other")]
        assert refused[0] == refused[1] and refused[0][0] == 404
        assert snapshot(service, talk.session) == rows
        with sqlite3.connect(service.state_dir / "sessions.db", timeout=10) as database:
            database.execute("UPDATE session SET conversation = '{' WHERE id = ?", [talk.session])
        for _ in range(3):  # whoever gets it
            refused.append(refusal(talk))
            assert refused[-1][0] == 500
        assert hand_overs(service) == before
        found.append(refused)
    assert found[0] == found[1]


def test_a_database_that_is_locked_is_told_of_as_ever(three, two_alone):
    found = []
    for service in (three, two_alone):
        talk = Talk(service, ANTHROPIC, session="new")
        pid = talk.say("[[say=one]]").pid
        before = snapshot(service, talk.session)
        database = sqlite3.connect(service.state_dir / "sessions.db", timeout=10, isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        try:
            if service is three:
                found.append(handed_to(holder_of(three, pid), three, lambda talk=talk: refusal(talk)))
            else:
                found.append(refusal(talk))
        finally:
            database.execute("ROLLBACK")
            database.close()
        assert found[-1][0] == 503
        assert snapshot(service, talk.session) == before
        assert talk.say("[[say=two]]").text == "two"
    assert found[0] == found[1]


def the_spare(service):
    """The only CLI, of the responder that is to have it: each has its share, and who starts first has all until the other is there."""
    found = service.clis()
    is_settled = service.get("/health").json()["processes"]["spares"] == 1 and found == children([min(service.responders())])
    return found[0] if is_settled and len(found) == 1 else None


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_new_chat_goes_to_a_spare_and_is_begun_once(dialect):
    """The key may have one: a row that stays where it was first begun would be in the way."""
    with Service(SPARES=1, MEMORY_HEADROOM=1, MAX_SESSIONS_PER_KEY=1, LOG_LEVEL="debug") as service:
        talk = Talk(service, dialect, session="new")
        spare = until(lambda: the_spare(service), 40, "the spare")
        answer = handed_to(holder_of(service, spare), service, lambda: talk.ask("[[say=one]]"))
        assert answer.status_code == 200, answer.text
        assert service.request_line(answer.headers["x-request-id"])["cli.pid"] == spare
        found = service.get("/api/sessions").json()["sessions"]
        assert [entry["id"] for entry in found] == [answer.headers["x-session-id"]]
        with sqlite3.connect(service.state_dir / "sessions.db", timeout=10) as database:
            assert database.execute("SELECT count(*) FROM session").fetchone() == (1,)
        check_error(dialect, talk.ask("[[say=two]]").json(), "session_limit_reached")
