"""What a login with limits is told of them, in each vendor's headers."""

import json
import time

import pytest

import cli_lines
from dialects import ANTHROPIC, DIRECT, OPENAI
from service import Service

NAMES = ("x-ratelimit-", "anthropic-ratelimit-")


@pytest.fixture(scope="module")
def limited():
    with Service(cli="fake", RESPONDERS=1) as service:
        (service.base / "plays").mkdir()
        yield service


def ask(service, dialect, info=None, stream=False):
    """One request; the CLI says this of the limits behind its answer. Returns the headers about them."""
    lines = [
        {"type": "system", "subtype": "init", "session_id": "s", "model": "claude-fake-1", "tools": []},
        *(cli_lines.event(event) for event in (
            {"type": "message_start", "message": {"id": "msg_1", "model": "claude-fake-1", "usage": {"input_tokens": 1, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}, {"type": "message_stop"}))]
    if info:
        lines.append({"type": "rate_limit_event", "rate_limit_info": info})
    lines.append({"type": "result", "subtype": "success", "is_error": False, "result": "fine", "num_turns": 1, "session_id": "s"})
    (service.base / "plays" / "limits").write_text("".join(json.dumps(line) + "\n" for line in lines))
    service.mode("plays")
    answer = service.post(dialect.path, dialect.body("play-limits", **({"stream": True} if stream else {})))
    assert answer.status_code == 200 and "fine" in answer.text, answer.text
    service.no_cli()
    return {name: value for name, value in answer.headers.items() if name.startswith(NAMES)}


def test_limits_are_told_from_the_next_answer_on(limited):
    resets = int(time.time()) + 600
    info = {"status": "allowed_warning", "rateLimitType": "five_hour", "utilization": 0.874, "resetsAt": resets}
    assert ask(limited, OPENAI) == {}, "an account without limits"
    assert ask(limited, OPENAI, info) == {}, "the CLI speaks behind its answer"
    for stream in (False, True):
        told = ask(limited, OPENAI, stream=stream)
        seconds = told.pop("x-ratelimit-reset-requests")
        assert told == {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "13"}
        assert seconds.endswith("s") and 500 < int(seconds[:-1]) <= 600
        assert ask(limited, ANTHROPIC, stream=stream) == {
            "anthropic-ratelimit-unified-status": "allowed_warning", "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-reset": str(resets), "anthropic-ratelimit-unified-utilization": "0.874"}
    assert ask(limited, DIRECT) == {}


def test_only_what_a_header_can_carry_becomes_one(limited):
    ask(limited, ANTHROPIC, {"status": "allowed\r\nSet-Cookie: a=b", "rateLimitType": "five hour", "utilization": 1e300, "resetsAt": "soon"})
    told = ask(limited, ANTHROPIC)
    assert list(told) == ["anthropic-ratelimit-unified-utilization"]
    assert ask(limited, OPENAI) == {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "0"}


def test_the_last_word_counts(limited):
    ask(limited, ANTHROPIC, {"status": "rejected", "utilization": 1})
    ask(limited, ANTHROPIC, {"status": "allowed", "utilization": 0.25})
    assert ask(limited, ANTHROPIC) == {"anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-utilization": "0.25"}
