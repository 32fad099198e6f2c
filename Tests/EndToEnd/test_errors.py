"""Every refusal: its status, and its body in the caller's dialect."""

import json
import socket
import time

import pytest

from dialects import ALL, ANTHROPIC, DIRECT, OPENAI, check_error
from service import parse_raw

TOO_LARGE = 33 * 1024 * 1024


def without(body, name):
    return {key: value for key, value in body.items() if key != name}


def message(**fields):
    return [{"role": "user", "content": "hi", **fields}]


O, A, D = OPENAI, ANTHROPIC, DIRECT

# (dialect, what is changed in a good body, the parameter that is named)
WRONG = [
    *[(dialect, {"model": value}, "model") for dialect in ALL for value in (5, True, [], {})],
    *[(dialect, {"messages": value}, "messages") for dialect in (O, A) for value in (5, "hi", {}, [])],
    *[(dialect, {"messages": [value]}, "messages[0]") for dialect in (O, A) for value in (5, "hi", [])],
    *[(dialect, {"messages": [{"content": "hi"}]}, "messages[0].role") for dialect in (O, A)],
    *[(dialect, {"messages": message(role=value)}, "messages[0].role") for dialect in (O, A) for value in (5, "robot", None)],
    *[(dialect, {"messages": [{"role": "user"}]}, "messages[0].content") for dialect in (O, A)],
    *[(dialect, {"messages": message(content=value)}, "messages[0].content")
      for dialect in (O, A) for value in (5, None, {}, "", "  \n ", [])],
    *[(dialect, {"messages": message(content=[value])}, "messages[0].content[0]") for dialect in (O, A) for value in (5, "hi")],
    *[(dialect, {"messages": message(content=[{"type": value, "text": "hi"}])}, "messages[0].content[0].type")
      for dialect in (O, A) for value in (5, "video", None)],
    *[(dialect, {"messages": message(content=[{"type": "text", "text": value}])}, "messages[0].content[0].text")
      for dialect in (O, A) for value in (5, None)],
    *[(dialect, {"messages": [*message(), {"role": "assistant", "content": "and"}]}, "messages") for dialect in (O, A)],
    *[(dialect, {"messages": [*message(), {"role": "assistant", "content": 5}, *message()]}, "messages[1].content") for dialect in (O, A)],
    *[(dialect, {"stream": value}, "stream") for dialect in ALL for value in (1, "true")],
    *[(dialect, {"max_tokens": value}, "max_tokens") for dialect in (O, A) for value in (0, -1, 1.5, "9")],
    *[(dialect, {"temperature": value}, "temperature") for dialect in (O, A) for value in (-1, 3, "hot")],
    *[(dialect, {"top_p": value}, "top_p") for dialect in (O, A) for value in (2, "x")],
    *[(dialect, {"metadata": 5}, "metadata") for dialect in (O, A)],
    *[(dialect, {"service_tier": 5}, "service_tier") for dialect in (O, A)],
    *[(dialect, {"tools": value}, "tools") for dialect in (O, A) for value in (5, {"a": 1})],
    (O, {"max_completion_tokens": 0}, "max_completion_tokens"), (O, {"max_completion_tokens": "x"}, "max_completion_tokens"),
    (O, {"presence_penalty": 3}, "presence_penalty"), (O, {"frequency_penalty": "x"}, "frequency_penalty"),
    (O, {"n": 0}, "n"), (O, {"n": 200}, "n"), (O, {"n": "x"}, "n"), (O, {"stop": 5}, "stop"), (O, {"stop": [5]}, "stop"),
    (O, {"user": 5}, "user"), (O, {"seed": "x"}, "seed"), (O, {"seed": 1.5}, "seed"), (O, {"logit_bias": 5}, "logit_bias"),
    (O, {"logprobs": 5}, "logprobs"), (O, {"top_logprobs": "x"}, "top_logprobs"), (O, {"store": 5}, "store"),
    (O, {"reasoning_effort": 5}, "reasoning_effort"), (O, {"parallel_tool_calls": 5}, "parallel_tool_calls"),
    (O, {"stream_options": 5}, "stream_options"), (O, {"stream_options": {"include_usage": 5}}, "stream_options.include_usage"),
    (O, {"response_format": 5}, "response_format"), (O, {"response_format": {}}, "response_format.type"),
    (O, {"response_format": {"type": "xml"}}, "response_format.type"), (O, {"functions": [{"name": ""}]}, "functions[0].name"),
    (O, {"messages": message(name=5)}, "messages[0].name"),
    (O, {"messages": [{"role": "system", "content": 5}, *message()]}, "messages[0].content"),
    (O, {"messages": [{"role": "system", "content": "only this"}]}, "messages"),
    (O, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
    (A, {"max_tokens": None}, "max_tokens"), (A, {"top_k": "x"}, "top_k"), (A, {"stop_sequences": "x"}, "stop_sequences"),
    (A, {"stop_sequences": [5]}, "stop_sequences"), (A, {"tool_choice": 5}, "tool_choice"), (A, {"thinking": 5}, "thinking"),
    (A, {"thinking": {}}, "thinking.type"), (A, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
    (A, {"system": 5}, "system"), (A, {"system": [5]}, "system[0]"), (A, {"system": [{"type": "image"}]}, "system[0].type"),
    (A, {"system": [{"type": "text"}]}, "system[0].text"), (A, {"messages": message(role="system")}, "messages[0].role"),
    *[(D, {"prompt": value}, "prompt") for value in (5, None, [], {}, "", "   ", "\n\t")],
    *[(D, {"allowedTools": value}, None) for value in (5, "Bash", [5], {})],
    *[(D, {"allowedTools": [value]}, "allowedTools[0]")
      for value in ("Hack", "bash", "", "--help", "Bash,Write", "Bash(", "Bash()", "Bash(x", "Bash(a\nb)", "mcp__x__y", "Bash Write")],
    (D, {"allowedTools": ["Read", "Nope"]}, "allowedTools[1]"),
    *[(D, {"workingDirectory": value}, "workingDirectory") for value in (5, [], "relative", "../x", "/tmp/../etc", "~", "")],
    (D, {"sessionId": 5}, "sessionId"),
]


@pytest.mark.parametrize("dialect, change, parameter", WRONG, ids=[f"{d}-{json.dumps(c)[:60]}" for d, c, _ in WRONG])
def test_a_wrong_field_is_named(service, dialect, change, parameter):
    body = dialect.body("hi")
    body.update(change)
    answer = service.post(dialect.path, body)
    assert answer.status_code == 400, answer.text
    check_error(dialect, answer.json(), "invalid_request", parameter)


NO_JSON = [
    b"", b" ", b"{", b"}", b"nonsense", b'{"model": }', b"{'model': 'x'}", b'{"a": 1} x', b'{"a": 1,}', b"[1,2", b'"\xff\xfe"',
    b'{"a": "\x00"}', b'{"a": NaN}', b'{"a": 01}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 100,
]


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("content", NO_JSON, ids=lambda content: repr(content[:16]))
def test_a_body_that_is_no_json_is_refused(service, dialect, content):
    with service.client() as client:
        answer = client.post(dialect.path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    check_error(dialect, answer.json(), "invalid_request")


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("content", [b"5", b"null", b"[]", b'"text"', b"true", b"{}"])
def test_a_body_that_is_no_request_is_refused(service, dialect, content):
    with service.client() as client:
        answer = client.post(dialect.path, content=content)
    assert answer.status_code == 400, answer.text
    check_error(dialect, answer.json(), "invalid_request")


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_over_32_mb_is_refused(service, dialect, chunked):
    head = f"POST {dialect.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Type: application/json\r\n"
    if chunked:
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answer = service.raw((head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunk * 33 + b"0\r\n\r\n", 30)
    else:
        answer = service.raw(f"{head}Content-Length: {TOO_LARGE}\r\n\r\n".encode())
    status, headers, body = parse_raw(answer)
    assert status == 413 and headers["content-type"].startswith("application/json")
    check_error(dialect, json.loads(body), "request_too_large")


def test_a_body_just_under_the_limit_is_read(service):
    """The limit is 32 MB and not something less: this one fails for what it says, after it has been read."""
    content = b'{"messages": 5, "pad": "' + b"x" * (32 * 1024 * 1024 - 100) + b'"}'
    with service.client() as client:
        answer = client.post(OPENAI.path, content=content)
    assert answer.status_code == 400
    check_error(OPENAI, answer.json(), "invalid_request", "messages")


ROUTES = [
    ("GET", "/v1/nothing", OPENAI), ("POST", "/v1/embeddings", OPENAI), ("POST", "/v1/chat/completions/x", OPENAI),
    ("POST", "/v1/chat", OPENAI), ("POST", "/v1/", OPENAI), ("POST", "/v1/messages/x", ANTHROPIC), ("POST", "/v1/messages/", ANTHROPIC),
    ("POST", "/api/nothing", DIRECT), ("POST", "/api/run/x", DIRECT), ("GET", "/api/", DIRECT), ("GET", "/", DIRECT),
    ("GET", "/nothing", DIRECT), ("GET", "/v2/models", DIRECT), ("GET", "/claude-fcgi-error", DIRECT), ("GET", "/.env", DIRECT),
]


@pytest.mark.parametrize("method, path, dialect", ROUTES, ids=lambda value: str(value))
def test_an_unknown_path_is_404(service, method, path, dialect):
    with service.client() as client:
        answer = client.request(method, path, content=b"{}" if method == "POST" else None)
    assert answer.status_code == 404, answer.text
    check_error(dialect, answer.json(), "not_found")


METHODS = [
    ("GET", "/v1/chat/completions", OPENAI), ("PUT", "/v1/chat/completions", OPENAI), ("DELETE", "/v1/chat/completions", OPENAI),
    ("POST", "/v1/models", OPENAI), ("POST", "/v1/models/sonnet", OPENAI), ("GET", "/v1/messages", ANTHROPIC),
    ("PATCH", "/v1/messages", ANTHROPIC), ("GET", "/api/run", DIRECT), ("DELETE", "/api/run", DIRECT), ("POST", "/health", DIRECT),
]


@pytest.mark.parametrize("method, path, dialect", METHODS, ids=lambda value: str(value))
def test_a_wrong_method_is_405(service, method, path, dialect):
    with service.client() as client:
        answer = client.request(method, path, content=b"{}" if method != "GET" else None)
    assert answer.status_code == 405, answer.text
    check_error(dialect, answer.json(), "method_not_allowed")
    allowed = answer.headers["allow"].replace(" ", "").split(",")
    assert method not in allowed and (("POST" in allowed) != path.startswith(("/v1/models", "/health")) or len(allowed) > 1)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_a_strange_method_does_no_harm(service, method):
    head = f"{method} /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nConnection: close\r\n\r\n"
    assert parse_raw(service.raw(head.encode()))[0] in (400, 404, 405)


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("model", ["gpt-4o", "", "nope", "../../etc/passwd", "--help", "sonnet; id", "sonnet\n", "claude", "x" * 5000, "\u0000"])
def test_an_unknown_model_is_404(service, dialect, model):
    answer = service.post(dialect.path, dialect.body("hi", model=model))
    # An empty name is no name: the default, or a refusal that names the field.
    if model == "" and answer.status_code == 200:
        return
    assert answer.status_code in (400, 404) if model == "" else answer.status_code == 404, answer.text
    check_error(dialect, answer.json(), None if model == "" else "model_not_found", None if dialect is ANTHROPIC else "model")
    assert len(answer.text) < 3000


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_a_model_that_only_the_upstream_does_not_know_is_404(service, dialect):
    answer = service.post(dialect.path, dialect.body("hi", model="claude-nope-1"))
    assert answer.status_code == 404, answer.text
    check_error(dialect, answer.json(), "model_not_found")


# ---- keys ----------------------------------------------------------------------------------------------------------------------


def wrong_keys(key):
    return {
        "none": {}, "wrong": {"Authorization": "Bearer wrong"}, "wrong case": {"Authorization": f"Bearer {key.swapcase()}"},
        "lower case": {"Authorization": f"Bearer {key.lower()}"}, "prefix": {"Authorization": f"Bearer {key[:-1]}"},
        "longer": {"Authorization": f"Bearer {key}x"}, "bearer alone": {"Authorization": "Bearer"},
        "basic": {"Authorization": f"Basic {key}"}, "no scheme": {"Authorization": key}, "two words": {"Authorization": f"Bearer {key} {key}"},
        "quoted": {"Authorization": f'Bearer "{key}"'}, "api key wrong": {"x-api-key": "wrong"}, "api key case": {"x-api-key": key.upper()},
        "api key bearer": {"x-api-key": f"Bearer {key}"}, "api key empty": {"x-api-key": ""}, "8-bit": {"x-api-key": b"\xff\xfe"},
    }


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("kind", list(wrong_keys("kK")))
def test_a_request_without_the_right_key_is_401(service, dialect, kind):
    with service.client(headers=wrong_keys(service.key)[kind]) as client:
        answer = client.post(dialect.path, json=dialect.body("hi"))
        assert answer.status_code == 401, answer.text
        check_error(dialect, answer.json(), "auth_error")
        assert "www-authenticate" in answer.headers
        # Which paths and methods exist is for callers with a key.
        assert client.get("/api/nothing" if dialect is DIRECT else "/v1/nothing").status_code == 401


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("header", ["Authorization", "authorization", "x-api-key", "X-API-KEY"])
def test_both_headers_carry_the_key(service, dialect, header):
    value = service.key if "api" in header.lower() else f"Bearer {service.key}"
    with service.client(headers={header: value}) as client:
        answer = client.post(dialect.path, json=dialect.body("hi", model="gpt-4o"))
    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("values", [("right", "right"), ("right", "wrong"), ("wrong", "right")], ids=" then ".join)
def test_two_authorization_headers_are_refused(service, dialect, values):
    headers = "".join(f"Authorization: Bearer {service.key if value == 'right' else 'wrong'}\r\n" for value in values)
    body = json.dumps(dialect.body("hi"))
    status, _, text = parse_raw(service.raw(
        f"POST {dialect.path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()))
    assert status == 400, text
    check_error(dialect, json.loads(text), "invalid_request")


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_a_request_without_credentials_is_refused_before_its_body_is_read(service, dialect):
    with socket.create_connection(("127.0.0.1", service.port), 30) as connection:
        began = time.monotonic()
        connection.sendall(f"POST {dialect.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30000000\r\n\r\n".encode())
        answer = b""
        while b"}}" not in answer and b'"}' not in answer:
            chunk = connection.recv(65536)
            assert chunk, answer
            answer += chunk
        took = time.monotonic() - began
    status, _, body = parse_raw(answer)
    assert status == 401 and took < 20
    check_error(dialect, json.loads(body), "auth_error")


def test_health_is_open_and_says_nothing_of_the_machine(service):
    with service.client(headers={}) as client:
        answer = client.get("/health")
    assert answer.status_code == 200 and set(answer.json()) == {"status", "uptime", "queue", "processes", "sessions"}


def test_plain_http_on_the_tls_port_says_what_to_do(service):
    answer = service.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n", port=service.tls_port)
    status, _, body = parse_raw(answer)
    assert status == 400
    assert "https" in check_error(OPENAI, json.loads(body))


def test_every_answer_has_a_request_id(service):
    with service.client() as client:
        for path in ("/health", "/v1/models", "/v1/nothing", "/nothing"):
            assert len(client.get(path).headers["x-request-id"]) == 32
        # The caller's own does not get into our logs.
        answer = client.get("/v1/models", headers={"X-Request-Id": "forged"})
        assert answer.headers.get_list("x-request-id") != ["forged"]


# ---- working directories -------------------------------------------------------------------------------------------------------


def test_a_directory_outside_the_allowed_ones_is_403(service, workspace):
    link = workspace / "link-outside"
    link.symlink_to("/etc")
    sibling = workspace.parent / (workspace.name + "-sibling")
    sibling.mkdir()
    try:
        for path in ("/", "/etc", "/root", "/proc/self/cwd", str(workspace.parent), str(sibling), str(link), "/etc/passwd", "/does/not/exist"):
            answer = service.post(DIRECT.path, DIRECT.body("hi", workingDirectory=path))
            assert answer.status_code == 403, f"{path}: {answer.text}"
            check_error(DIRECT, answer.json(), "forbidden", "workingDirectory")
    finally:
        link.unlink()
        sibling.rmdir()


def test_a_directory_that_is_none_is_400(service, workspace):
    (workspace / "file").write_text("x")
    for path in (workspace / "missing", workspace / "file", f"{workspace}/a\0b"):
        answer = service.post(DIRECT.path, DIRECT.body("hi", workingDirectory=str(path)))
        assert answer.status_code == 400, f"{path}: {answer.text}"
        check_error(DIRECT, answer.json(), "invalid_request", "workingDirectory")


def test_an_unknown_session_is_404(service):
    for session in ("11111111-2222-3333-4444-555555555555", "nothing", "--resume"):
        answer = service.post(DIRECT.path, DIRECT.body("hi", sessionId=session))
        assert answer.status_code == 404, answer.text
        check_error(DIRECT, answer.json(), "session_not_found", None)
