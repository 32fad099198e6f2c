"""What the upstream refuses or breaks off, as the caller sees it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialects import ALL, ANTHROPIC, CHATS, DIRECT, check_error, events_of
from service import Service

# The upstream's status: ours (where Anthropic's dialect differs, its own second), the error's code.
STATUSES = {
    400: (400, 400, "invalid_request"), 401: (502, 502, "upstream_auth_error"), 403: (502, 502, "upstream_auth_error"),
    404: (404, 404, "model_not_found"), 413: (413, 413, "request_too_large"), 429: (429, 429, "rate_limit"),
    500: (502, 502, "upstream_error"), 503: (503, 529, "overloaded"), 529: (503, 529, "overloaded"),
}
# Faults after the beginning of an answer, and before its first word.
FAULTS = ["[[tokens=9]] [[cut=3]]", "[[tokens=9]] [[delay_ms=30]] [[drop=3]]", "[[tokens=9]] [[error_after=3]]"]
EARLY = ["[[tokens=9]] [[cut=0]]", "[[tokens=9]] [[error_after=0]]"]


def status_cases():
    """Every status in every dialect; of streams those that are decided in different places."""
    for dialect in ALL:
        yield from ((dialect, False, status) for status in STATUSES)
        if dialect is not DIRECT:
            yield from ((dialect, True, status) for status in (400, 401, 404, 429, 500, 529))


def cases():
    yield from ((dialect, stream, f"[[error={status}]]") for dialect, stream, status in status_cases())
    for dialect in CHATS:
        yield from ((dialect, True, text) for text in [*FAULTS, *EARLY])
    for dialect in ALL:
        yield from ((dialect, False, text) for text in [FAULTS[0], EARLY[0]])


@pytest.fixture(scope="module")
def answers():
    """All cases, asked side by side: each waits for the CLI's and the service's own retries."""
    with Service(WORKER_CONCURRENCY=8, REQUEST_TIMEOUT_MS=240000, HEARTBEAT_AFTER_MS=240000) as service:

        def ask(case):
            dialect, stream, text = case
            body = dialect.body(text) if dialect is DIRECT else dialect.body(text, stream=stream)
            return service.post(dialect.path, body, timeout=300)

        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(cases(), pool.map(ask, cases()), strict=True))
        service.no_cli()
        yield found


@pytest.mark.parametrize("dialect, stream, status", list(status_cases()), ids=str)
def test_an_error_of_the_upstream_has_its_honest_status(answers, dialect, stream, status):
    answer = answers[dialect, stream, f"[[error={status}]]"]
    wanted, anthropics, code = STATUSES[status]
    assert answer.status_code == (anthropics if dialect is ANTHROPIC else wanted), answer.text
    assert answer.headers["content-type"].startswith("application/json")
    check_error(dialect, answer.json(), code)
    if status in (429, 503, 529):
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_stream_that_breaks_off_ends_with_an_error_and_no_terminal_event(answers, dialect, text):
    answer = answers[dialect, True, text]
    assert answer.status_code == 200
    events = events_of(answer.text)
    # A broken connection may take its last words with it.
    wanted = "tok0 tok1 tok2 "
    assert dialect.streamed_text(events) == wanted or ("drop" in text and wanted.startswith(dialect.streamed_text(events)))
    assert not dialect.is_whole(events)
    errors = dialect.error_events(events)
    assert len(errors) == 1 and events[-1][1] == errors[0]
    check_error(dialect, errors[0])
    assert "finish_reason\":\"" not in answer.text.replace(" ", "") and "message_delta" not in answer.text


@pytest.mark.parametrize("text", EARLY)
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_stream_that_breaks_before_its_first_word_does_not_look_whole(answers, dialect, text):
    answer = answers[dialect, True, text]
    if answer.status_code != 200:
        assert answer.status_code in (502, 503, 529), answer.text
        check_error(dialect, answer.json())
    else:  # the message's beginning had left already
        events = events_of(answer.text)
        assert not dialect.is_whole(events) and dialect.streamed_text(events) == ""
        assert len(dialect.error_events(events)) == 1 and "error" in json.dumps(events[-1])


@pytest.mark.parametrize("text", [FAULTS[0], EARLY[0]])
@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_an_answer_that_breaks_off_is_an_error(answers, dialect, text):
    answer = answers[dialect, False, text]
    assert answer.status_code in (502, 503, 529), f"{answer.status_code}: {answer.text}"
    check_error(dialect, answer.json())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_passing_error_is_retried_unseen(service, dialect, stream, mark):
    answer = service.post(dialect.path, dialect.body(f"{mark} [[error=529*1]] [[say=got there]]", stream=stream))
    assert answer.status_code == 200, answer.text
    assert len(service.recorded(mark)) == 2
    if stream:
        events = events_of(answer.text)
        assert dialect.streamed_text(events) == "got there" and dialect.is_whole(events)
    else:
        assert dialect.text(answer.json()) == "got there"


def test_the_upstreams_words_reach_the_caller_only_for_faults_of_the_request(answers):
    for (dialect, _, text), answer in answers.items():
        if text in ("[[error=401]]", "[[error=403]]", "[[error=500]]"):
            assert "offline" not in answer.text and "API Error" not in answer.text, answer.text
