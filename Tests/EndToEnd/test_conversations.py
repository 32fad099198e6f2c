"""What reaches the model for what a caller sends, and what comes back; seen in the offline upstream's record."""

import json

import pytest

from dialects import ALL, ANTHROPIC, CHATS, DIRECT, OPENAI, check_error, events_of
from service import until
from talk import SMALL


def texts(content):
    """The texts of a message's content, whatever its form."""
    return [content] if isinstance(content, str) else [block["text"] for block in content if block["type"] == "text"]


def conversation(body):
    """The turns that the model was sent, as (role, text), without the CLI's own: <system-reminder> blocks and system messages."""
    turns = []
    for message in body["messages"]:
        found = [text for text in texts(message["content"]) if not text.startswith("<system-reminder>")]
        if message["role"] == "system":
            # The CLI's description of the machine, and its per-turn options; never a caller's words.
            assert all(text.startswith("# Environment") for text in found), found
        else:
            turns.append((message["role"], "".join(found)))
    return turns


@pytest.mark.parametrize("blocks", [False, True], ids=["strings", "blocks"])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_history_arrives_with_native_roles(service, dialect, blocks, mark):
    history = [("user", f"first {mark}"), ("assistant", "one"), ("user", "second"), ("assistant", "two")]
    answer = service.post(dialect.path, dialect.body("third [[say=three]]", history=history, blocks=blocks))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "three"
    assert len(service.recorded(mark)) == 1
    assert conversation(service.upstream_body(mark)) == [*history, ("user", "third [[say=three]]")]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_long_history_keeps_its_order(service, dialect, mark):
    history = [("user" if n % 2 == 0 else "assistant", f"{n} {mark}") for n in range(40)]
    answer = service.post(dialect.path, dialect.body("[[say=end]]", history=history))
    assert answer.status_code == 200
    assert conversation(service.upstream_body(mark)) == [*history, ("user", "[[say=end]]")]


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_several_blocks_stay_several(service, dialect, mark):
    body = dialect.body("x")
    body["messages"][-1]["content"] = [
        {"type": "text", "text": "[[say=ok]] "}, {"type": "text", "text": f"{mark} line\none"}, {"type": "text", "text": "end\n\n"}]
    assert service.post(dialect.path, body).status_code == 200
    users = [message for message in service.upstream_body(mark)["messages"] if message["role"] == "user"]
    # Older CLIs put a block of their own, with the date, before the caller's.
    sent = [[text for text in texts(message["content"]) if not text.startswith("<system-reminder>")] for message in users]
    assert sent == [["[[say=ok]] ", f"{mark} line\none", "end\n\n"]]


@pytest.mark.parametrize("blocks", [False, True], ids=["string", "blocks"])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_system_prompt_arrives_as_one(service, dialect, blocks, mark):
    answer = service.post(dialect.path, dialect.body("[[say=ok]]", system=f"You are {mark}.", blocks=blocks))
    assert answer.status_code == 200
    body = service.upstream_body(mark)
    assert f"You are {mark}." in texts(body["system"])
    assert mark not in json.dumps(body["messages"])


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_plain_chat_carries_no_tools_and_no_prompt_of_claude_code(service, dialect, mark):
    assert service.post(dialect.path, dialect.body(f"{mark} [[say=ok]]")).status_code == 200
    body = service.upstream_body(mark)
    assert body.get("tools", []) == [] and "thinking" not in body
    assert len(json.dumps(body)) < 4000


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("text", [
    "plain", "ümläut — ‘quotes’ 日本語 🎉 \u2028\u2029 \u0001 \\ \" </script>", "line\nline\r\nline\ttab", "[1] 'x' $HOME `id` %s {}",
    "--resume", "-p", "/", "@", "#", "!", "x" * 20000,
], ids=["ascii", "unicode", "lines", "shell", "option", "short option", "slash", "at", "hash", "bang", "20 kB"])
def test_a_prompt_arrives_word_for_word(service, dialect, text, mark):
    # The direct API's prompts may stand alone as well, and odd ones must not mean anything by being the whole message.
    body = dialect.body(text, history=[("user", mark), ("assistant", "ok")]) if dialect is not DIRECT else dialect.body(f"{text} {mark}")
    answer = service.post(dialect.path, body)
    assert answer.status_code == 200, answer.text
    wanted = text if dialect is not DIRECT else f"{text} {mark}"
    assert conversation(service.upstream_body(mark))[-1] == ("user", wanted)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_an_answer_comes_back_word_for_word(service, dialect):
    text = "ümläut — 日本語 🎉 \\n \" \u2028 </x> & <b>"
    prompt = f"[[say={text}]]"
    assert dialect.text(service.post(dialect.path, dialect.body(prompt)).json()) == text
    events = events_of(service.post(dialect.path, dialect.body(prompt, stream=True)).text)
    assert dialect.streamed_text(events) == text and dialect.is_whole(events)


@pytest.mark.parametrize("dialect", [DIRECT, *(pytest.param(dialect, marks=SMALL) for dialect in CHATS)], ids=str)
def test_a_prompt_of_two_megabytes_arrives(service, dialect, mark):
    """Sixteen times what fits an argument of a command line."""
    prompt = f"[[say=ok]] {mark} " + "lorem ipsum dolor " * 116_000
    answer = service.post(dialect.path, dialect.body(prompt))
    assert answer.status_code == 200, answer.text
    assert dialect.text(answer.json()) == "ok"
    assert conversation(service.upstream_body(mark))[-1] == ("user", prompt)


def test_a_prompt_longer_than_the_models_context_is_refused(service):
    """The CLI says so itself, without asking the model."""
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("lorem ipsum dolor " * 290_000))
    assert answer.status_code == 400
    assert "longer" in check_error(ANTHROPIC, answer.json(), "invalid_request")


@pytest.mark.parametrize("dialect", CHATS, ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_cut_answer_says_so(service, dialect, stream, mark):
    # The CLI would ask the model to go on; the caller pays for what it asked for and no more. It would within milliseconds: where the
    # service had no processor meanwhile it is killed too late.
    for number in range(3):
        text = f"{mark}-{number}"
        answer = service.post(
            dialect.path, dialect.body(f"{text} [[tokens=3]] [[stop_reason=max_tokens]]", max_tokens=66, stream=stream))
        wanted = "length" if dialect is OPENAI else "max_tokens"
        if stream:
            events = events_of(answer.text)
            assert dialect.is_whole(events) and dialect.streamed_text(events) == "tok0 tok1 tok2 "
            assert wanted in answer.text
        else:
            assert dialect.stop(answer.json()) == wanted and dialect.text(answer.json()) == "tok0 tok1 tok2 "
        service.no_cli()
        if len(service.recorded(text)) == 1:
            break
    assert len(service.recorded(text)) == 1
    assert service.upstream_body(text)["max_tokens"] == 66


def test_max_completion_tokens_counts_before_max_tokens(service, mark):
    body = OPENAI.body(f"{mark} [[say=ok]]", max_tokens=66, max_completion_tokens=77)
    assert service.post(OPENAI.path, body).status_code == 200
    assert service.upstream_body(mark)["max_tokens"] == 77


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("model, seen", [
    ("sonnet", "claude-.*sonnet.*"), ("opus", "claude-.*opus.*"), ("haiku", "claude-.*haiku.*"), ("Sonnet", "claude-.*sonnet.*"),
    ("claude-sonnet-4-20250514", "claude-sonnet-4-20250514"), ("claude-3-5-haiku-20241022", "claude-3-5-haiku-20241022"),
    (None, "claude-.*"),
])
def test_the_model_is_the_one_asked_for(service, dialect, model, seen, mark):
    import re

    answer = service.post(dialect.path, dialect.body(f"{mark} [[say=ok]]", model=model))
    assert answer.status_code == 200, answer.text
    body = service.upstream_body(mark)
    assert re.fullmatch(seen, body["model"]), body["model"]
    # Older CLIs tell the model of the choice as if the user had typed a command.
    assert "/model" not in json.dumps(body["messages"])
    if dialect is not DIRECT:
        assert answer.json()["model"] == body["model"]


def test_a_default_model_can_be_set(mark):
    from service import Service

    with Service(DEFAULT_MODEL="haiku", RESPONDERS=1) as service:
        for dialect in CHATS:
            assert service.post(dialect.path, dialect.body(f"{mark} [[say=ok]]", model=None)).status_code == 200
        assert all("haiku" in entry["body"]["model"] for entry in service.recorded(mark))


def test_openais_names_for_instructions_count_alike(service, mark):
    body = {"model": "sonnet", "messages": [
        {"role": "developer", "content": f"be {mark}"}, {"role": "user", "content": "[[say=ok]]"},
        {"role": "system", "content": "and kind"}, {"role": "user", "content": "now"}]}
    assert service.post(OPENAI.path, body).status_code == 200
    sent = service.upstream_body(mark)
    system = "\n".join(texts(sent["system"]))
    assert f"be {mark}" in system and "and kind" in system
    # Neighbours of one role are one turn.
    assert conversation(sent) == [("user", "[[say=ok]]now")]


def test_parameters_without_effect_are_accepted(service):
    body = OPENAI.body(
        "[[say=ok]]", temperature=0.3, top_p=0.9, n=1, stop=["x"], presence_penalty=0.5, frequency_penalty=-0.5,
        logit_bias={"1": 2}, user="me", seed=5, metadata={"a": "b"}, store=False, tools=[], response_format={"type": "text"},
        something_new={"x": 1}, max_tokens=None)
    assert service.post(OPENAI.path, body).status_code == 200
    body = ANTHROPIC.body(
        "[[say=ok]]", temperature=0.3, top_p=0.9, top_k=5, stop_sequences=["x"], metadata={"user_id": "u"}, service_tier="auto",
        tools=[], thinking={"type": "disabled"}, something_new=1)
    assert service.post(ANTHROPIC.path, body).status_code == 200


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_tokens_leave_when_they_come(service, dialect):
    """Half of the answer is there while the other half is not yet made; with buffering it would all come at the end."""
    import time

    for _ in range(3):  # who comes late to read the first ones sees them together with the next
        arrivals = []
        with service.client() as client:
            body = dialect.body("[[tokens=11]] [[delay_ms=60]]", stream=True)
            with client.stream("POST", dialect.path, json=body) as answer:
                for line in answer.iter_lines():
                    if '"tok' in line:
                        arrivals.append(time.monotonic())
        assert len(arrivals) == 11
        if arrivals[-1] - arrivals[0] > 0.3:
            break
    assert arrivals[-1] - arrivals[0] > 0.3


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_headers_fit_the_kind_of_answer(service, dialect):
    whole = service.post(dialect.path, dialect.body("[[say=ok]]"))
    assert whole.headers["content-type"].startswith("application/json")
    assert int(whole.headers["content-length"]) == len(whole.content)
    stream = service.post(dialect.path, dialect.body("[[say=ok]]", stream=True))
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in stream.headers
    assert whole.headers["x-request-id"] != stream.headers["x-request-id"]


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_each_request_leaves_one_line_in_the_log(service, dialect):
    answer = service.post(dialect.path, dialect.body("[[say=ok]] [[usage=11,5,3]]"))
    identity = answer.headers["x-request-id"]
    line = service.request_line(identity)
    assert line["http.status"] == 200 and line["http.route"] == dialect.path and line["http.method"] == "POST"
    assert line["client.name"] and line["model"].startswith("claude-") and line["level"] == "info"
    times = [line[f"time.{name}_ms"] for name in ("queue", "first_byte", "total")]
    assert times == sorted(times) and times[0] >= 0
    assert (line["tokens.input"], line["tokens.cache_read"]) == (19, 5) and line["tokens.output"] > 0
    assert line["cost_usd"] >= 0
    assert line["cli.end"].startswith(("exit", "signal", "kept"))
    assert len(service.request_lines(identity)) == 1
    # nginx writes its line when it is done with the request, which may be after the client is.
    until(lambda: identity in (service.run_dir / "access.log").read_text(), 20, "nginx's line")


def test_a_failure_leaves_one_line_in_the_log(service):
    answer = service.post(OPENAI.path, OPENAI.body("x", model="gpt-4o"))
    line = service.request_line(answer.headers["x-request-id"])
    assert line["http.status"] == 404 and len(service.request_lines(answer.headers["x-request-id"])) == 1
    assert service.log().count(answer.headers["x-request-id"]) == 1
