"""Chats that are kept as sessions."""

from dialects import OPENAI
from direct import UUID, ask

MISSING = "00000000-0000-4000-8000-000000000000"


def chat(service, dialect, prompt, id=None, by="header", headers=None, timeout=60, **body):
    """A request of a chat's session: a new one, or the one with this id, named in the header or in the body."""
    sent = dialect.body(prompt, **body)
    headers = dict(headers or {})
    if by == "store":
        sent["store"] = True
    elif by == "body":
        sent["session_id"] = id
    else:
        headers["X-Session-Id"] = id or "new"
    return ask(service, "POST", dialect.path, headers, json=sent, timeout=timeout)


def begun(service, dialect, prompt, by="header", **body):
    """A new session of a chat, with all that is stored of its turn; its id."""
    answer = chat(service, dialect, prompt, by=by, **body)
    assert answer.status_code == 200, answer.text
    id = answer.headers["x-session-id"]
    assert UUID.fullmatch(id)
    if dialect is OPENAI and not body.get("stream"):
        assert answer.json()["session_id"] == id
    # What the turn has cost is stored behind the answer, and only then its place is given back.
    service.request_line(answer.headers["x-request-id"], 20)
    return id


def continued(service, dialect, prompt, id, by="header", **body):
    answer = chat(service, dialect, prompt, id, by, **body)
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    assert answer.headers["x-session-id"] == id
    if dialect is OPENAI and not body.get("stream"):
        assert answer.json()["session_id"] == id
    return answer
