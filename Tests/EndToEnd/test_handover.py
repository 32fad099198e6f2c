"""A request that one responder hands over to another, through the nginx.conf that operators install.

The responders here are the test's own: what they are asked is compared, and they end, stall and misbehave as a test needs it. The last tests
look at the own sockets of the real program.
"""

import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import types
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import fastcgi
from service import CHECKOUT, Service, alive, free_port, until

PATHS = ["/v1/chat/completions", "/v1/messages", "/api/run"]
HAND_OVER = "Status: 200 OK\r\nX-Accel-Redirect: @claude_fcgi\r\nX-Responder: {}\r\n\r\n"
OWN = "r-4711.sock"
KEY = {"Authorization": "Bearer some-key"}


@pytest.fixture(scope="module")
def front():
    """nginx with deploy/nginx.conf, and a directory for its sockets."""
    base = Path(tempfile.mkdtemp(prefix="cf-"))
    (base / "claude-fcgi.d").mkdir()
    shutil.copy(CHECKOUT / "deploy/nginx.conf", base / "claude-fcgi.conf")
    (base / "claude-fcgi.d/sockets.conf").write_text(
        f"set $claude_fcgi_socket unix:{base}/claude-fcgi.sock;\nset $claude_fcgi_own_sockets unix:{base}/;\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", base / "key.pem", "-out", base / "cert.pem"], check=True, capture_output=True, timeout=30)
    port, tls_port, limited_port = free_port(), free_port(), free_port()
    temporary = "".join(f"    {name}_temp_path {base}/{name};\n" for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi"))
    (base / "nginx.conf").write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off; pid {base}/nginx.pid; error_log {base}/error.log notice; worker_processes 2;
events {{}}
http {{
{temporary}
    log_format times '$request_id $status connect=$upstream_connect_time';
    access_log {base}/access.log times;
    limit_req_zone $binary_remote_addr zone=few:1m rate=1r/m;
    server {{
        listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl http2;
        ssl_certificate {base}/cert.pem; ssl_certificate_key {base}/key.pem;
        auth_basic "a site with a password"; auth_basic_user_file /dev/null; client_max_body_size 1m;
        include claude-fcgi.conf;
    }}
    server {{ listen 127.0.0.1:{limited_port}; limit_req zone=few; include claude-fcgi.conf; }}
}}
""")
    process = subprocess.Popen(
        ["nginx", "-e", base / "error.log", "-p", base, "-c", base / "nginx.conf"], stdin=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    try:
        until(lambda: process.poll() is not None or not _refuses(port), 30, "nginx")
        assert process.poll() is None, (base / "error.log").read_text()
        yield types.SimpleNamespace(
            base=base, url=f"http://127.0.0.1:{port}", tls_url=f"https://127.0.0.1:{tls_port}", limited_url=f"http://127.0.0.1:{limited_port}",
            tls_port=tls_port, shared=base / "claude-fcgi.sock", own=base / OWN, errors=lambda: (base / "error.log").read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(base, ignore_errors=True)


def _refuses(port):
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def pair(front):
    """Two responders: what comes to the shared socket is handed over unless it was already, and answered by `pair.answer` at the other."""
    state = types.SimpleNamespace(name=OWN, answer=_tell, shared_answer=_tell)

    def first(request):
        if "CLAUDE_FCGI_HANDED_OVER" in request.parameters:
            return state.shared_answer(request)
        request.send(HAND_OVER.format(state.name))

    with ExitStack() as stack:
        state.shared = stack.enter_context(fastcgi.Responder(front.shared, first))
        state.own = stack.enter_context(fastcgi.Responder(front.own, lambda request: state.answer(request)))
        yield state


def _tell(request):
    """The answer: what was asked."""
    told = {"length": len(request.body), "uri": request.parameters["REQUEST_URI"], "handed_over": request.parameters.get("CLAUDE_FCGI_HANDED_OVER")}
    request.send("Status: 200 OK\r\nContent-Type: application/json\r\nX-Of-The-Answer: yes\r\n\r\n" + json.dumps(told))


def client(front, is_http2):
    if not is_http2:
        return httpx.Client(base_url=front.url, headers=KEY, trust_env=False, timeout=20)
    context = ssl.create_default_context(cafile=str(front.base / "cert.pem"))
    return httpx.Client(base_url=front.tls_url, headers=KEY, trust_env=False, timeout=20, http2=True, verify=context)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("size", [0, 10, 100_000, 600_000, 5_000_000])
def test_the_other_responder_gets_the_request_as_it_was(front, pair, size, is_http2, is_chunked):
    body = os.urandom(size)
    with client(front, is_http2) as http:
        for path in PATHS:
            content = (body[start : start + 65536] for start in range(0, len(body), 65536)) if is_chunked else body
            answer = http.post(f"{path}?beta=true", content=content, headers={"X-Own": "é".encode(), "Content-Type": "application/json"})
            assert answer.status_code == 200, answer.text
            assert answer.json() == {"length": size, "uri": f"{path}?beta=true", "handed_over": "1"}
            assert answer.http_version == ("HTTP/2" if is_http2 else "HTTP/1.1")
            before, after = pair.shared.requests.pop(), pair.own.requests.pop()
            assert before.body == after.body == body
            assert after.parameters == {**before.parameters, "CLAUDE_FCGI_HANDED_OVER": "1"}
            assert "CLAUDE_FCGI_HANDED_OVER" not in before.parameters
            assert after.parameters["REQUEST_METHOD"] == "POST" and after.parameters["CONTENT_LENGTH"] == str(size)
            assert answer.headers["X-Request-Id"] == after.parameters["REQUEST_ID"]
    assert not pair.shared.requests and not pair.own.requests


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "PATCH"])
def test_any_method_stays_what_it_was(front, pair, method):
    with client(front, False) as http:
        assert http.request(method, "/v1/responses/resp_1").status_code == 200
    assert [request.parameters["REQUEST_METHOD"] for request in pair.own.requests] == [method]


def test_the_caller_sees_the_answer_alone(front, pair):
    def answer_and_tell_who(request):
        request.send(f"X-Responder: {OWN}\r\n")
        _tell(request)

    pair.answer = answer_and_tell_who
    with client(front, False) as http:
        answer = http.post(PATHS[0], content=b"{}")
    assert set(answer.headers) <= {"server", "date", "content-type", "transfer-encoding", "connection", "x-of-the-answer", "x-request-id"}
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-of-the-answer"] == "yes"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 502, 503, 504, 529])
def test_an_error_that_the_other_responder_made_passes_through(front, pair, status):
    pair.answer = lambda request: request.send(f"Status: {status} X\r\nContent-Type: application/json\r\nRetry-After: 7\r\n\r\n{{}}")
    with client(front, False) as http:
        answer = http.post(PATHS[1], content=b"{}")
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (status, "{}", "7")
    assert len(pair.shared.requests) == 1


@pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "http2"])
def test_a_stream_comes_as_it_is_written(front, pair, is_http2):
    go = queue.Queue()

    def stream(request):
        request.send("Status: 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while (number := go.get(timeout=10)) is not None:
            request.send(f"data: {number}\n\n")

    pair.answer = stream
    # Over HTTP/2 nginx sends the header with the first byte of the body.
    go.put(0)
    with client(front, is_http2) as http, http.stream("POST", PATHS[0], content=b"x" * 700_000) as answer:
        pieces = answer.iter_bytes()
        for number in range(5):
            if number:
                go.put(number)
            assert next(pieces) == f"data: {number}\n\n".encode()
        go.put(None)
        assert list(pieces) == []


@pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("has_answer", [False, True], ids=["before the answer", "in the answer"])
def test_a_caller_that_leaves_is_noticed_where_the_request_is(front, pair, is_http2, has_answer):
    here, noticed = threading.Event(), queue.Queue()

    def wait(request):
        if has_answer:
            request.send("Status: 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        here.set()
        noticed.put((request.is_abandoned(10), time.monotonic()))

    pair.answer = wait
    with client(front, is_http2) as http:

        def ask():
            try:
                with http.stream("POST", PATHS[0], content=b"x") as answer:
                    next(answer.iter_bytes())
                    time.sleep(0.2)
            except httpx.HTTPError:
                pass

        if has_answer:
            ask()
        else:
            # It is there by then.
            http.timeout = httpx.Timeout(3)
            ask()
            assert here.is_set()
    left = time.monotonic()
    was_noticed, moment = noticed.get(timeout=10)
    assert was_noticed and moment - left < 5


@pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("is_stale", [False, True], ids=["no socket", "nobody listens"])
@pytest.mark.parametrize("size", [0, 10, 5_000_000])
def test_a_request_for_a_dead_responder_goes_to_any(front, pair, is_http2, is_stale, size):
    pair.own.__exit__()
    if is_stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(front.own))
    body = os.urandom(size)
    with client(front, is_http2) as http:
        for path in PATHS:
            answer = http.post(path, content=body)
            assert answer.status_code == 200, answer.text
            assert answer.json() == {"length": size, "uri": path, "handed_over": "1"}
            # Not a third time to the dead one: it came back marked.
            assert [request.body == body for request in pair.shared.requests] == [True, True]
            assert [request.parameters.get("CLAUDE_FCGI_HANDED_OVER") for request in pair.shared.requests] == [None, "1"]
            pair.shared.requests.clear()


def test_an_answer_streams_and_is_left_after_a_dead_responder_as_well(front, pair):
    pair.own.__exit__()
    noticed = queue.Queue()

    def stream(request):
        request.send("Status: 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        noticed.put(request.is_abandoned(10))

    pair.shared_answer = stream
    with client(front, True) as http, http.stream("POST", PATHS[0], content=b"x" * 700_000) as answer:
        assert answer.status_code == 200 and next(answer.iter_bytes()) == b"data: 1\n\n"
    assert noticed.get(timeout=20)


def error_shape(path, answer):
    body = answer.json()
    if path == "/v1/messages":
        return body["type"] == "error" and body["error"]["type"] == "api_error" and "request_id" in body
    return set(body["error"]) >= ({"code", "message"} if path == "/api/run" else {"message", "type", "param", "code"})


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_had_reached_the_responder_that_died_is_not_run_again(front, pair, path):
    pair.answer = lambda request: False
    with client(front, False) as http:
        answer = http.post(path, content=b"x" * 600_000)
        assert answer.status_code == 502 and error_shape(path, answer), answer.text
        assert answer.headers["Retry-After"] == "2"
        assert (len(pair.shared.requests), len(pair.own.requests)) == (1, 1)
        # The connection is good for the next one.
        pair.answer = _tell
        assert http.post(path, content=b"{}").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_when_the_shared_socket_is_gone_as_well_the_error_has_its_dialect(front, pair, path):
    pair.own.__exit__()

    def hand_over_and_end(request):
        pair.shared.__exit__()
        request.send(HAND_OVER.format(OWN))

    pair.shared.answer = hand_over_and_end
    with client(front, False) as http:
        answer = http.post(path, content=b"x" * 600_000)
    assert answer.status_code == 502 and error_shape(path, answer), answer.text


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_any_responder_says_after_a_dead_one_is_the_answer(front, pair, status):
    pair.own.__exit__()
    pair.shared_answer = lambda request: request.send(f"Status: {status} X\r\nContent-Type: application/json\r\n\r\n{{}}")
    with client(front, False) as http:
        answer = http.post(PATHS[0], content=b"{}")
    assert (answer.status_code, answer.text) == (status, "{}")


@pytest.mark.parametrize(
    "name", ["", "claude-fcgi.sock", "r-.sock", "r-a.sock", "../r-4711.sock", "r-4711.sockx", "x/r-4711.sock", "r-4711"])
def test_no_other_name_is_connected_to(front, pair, name):
    pair.name = name
    decoy = front.base / name
    decoy.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if name and not decoy.exists():
            stack.enter_context(fastcgi.Responder(decoy, lambda request: False))
        with client(front, False) as http:
            answer = http.post(PATHS[0], content=b"{}")
    assert answer.json() == {"length": 2, "uri": PATHS[0], "handed_over": "1"}
    assert (len(pair.shared.requests), len(pair.own.requests)) == (2, 0)


def test_a_caller_can_neither_choose_a_responder_nor_say_that_one_was_chosen(front, pair):
    pair.shared.answer = _tell
    headers = {
        "X-Responder": OWN, "X-Accel-Redirect": "@claude_fcgi", "Claude-Fcgi-Handed-Over": "1", "CLAUDE_FCGI_HANDED_OVER": "1",
        "Upstream-Http-X-Responder": OWN}
    with client(front, False) as http:
        answer = http.post(f"{PATHS[0]}?claude_fcgi_handed_over=1", content=b"{}", headers=headers)
    assert answer.json()["handed_over"] is None
    assert (len(pair.shared.requests), len(pair.own.requests)) == (1, 0)
    assert "CLAUDE_FCGI_HANDED_OVER" not in pair.shared.requests[0].parameters


@pytest.mark.parametrize("path", PATHS)
def test_a_request_is_handed_over_once_and_no_more(front, pair, path):
    pair.answer = pair.shared_answer = lambda request: request.send(HAND_OVER.format(OWN))
    with client(front, False) as http:
        answer = http.post(path, content=b"{}")
        assert answer.status_code == 500 and error_shape(path, answer), answer.text
        assert (len(pair.shared.requests), len(pair.own.requests)) == (1, 1)
        pair.own.__exit__()
        answer = http.post(path, content=b"{}")
        assert answer.status_code == 500 and error_shape(path, answer), answer.text
        assert (len(pair.shared.requests), len(pair.own.requests)) == (3, 1)


def test_a_request_that_is_handed_over_counts_once_against_a_limit(front, pair):
    # The first one is within one request a minute, with both of its upstreams and the one after the dead one; the second is not.
    pair.own.__exit__()
    with httpx.Client(base_url=front.limited_url, headers=KEY, trust_env=False, timeout=20) as http:
        assert http.post(PATHS[0], content=b"{}").status_code == 200
        assert len(pair.shared.requests) == 2
        assert http.post(PATHS[0], content=b"{}").status_code == 429


def test_many_at_once_are_not_mixed_up(front, pair):
    def ask(number, answers):
        body = f"{number}-".encode() * (1 if number % 3 else 100_000)
        with client(front, number % 2 == 0) as http:
            for round in range(5):
                answer = http.post(f"{PATHS[0]}?{number}-{round}", content=body)
                answers.append((answer.status_code, answer.json()) == (
                    200, {"length": len(body), "uri": f"{PATHS[0]}?{number}-{round}", "handed_over": "1"}))

    answers = []
    threads = [threading.Thread(target=ask, args=(number, answers)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 60 and all(answers)


def test_nginx_has_nothing_to_complain_of_but_dead_responders(front, pair):
    before = len(front.errors())
    with client(front, False) as http:
        for path in PATHS:
            assert http.post(path, content=b"x" * 600_000).status_code == 200
    lines = [line for line in front.errors()[before:].splitlines() if "[notice]" not in line and "buffered to a temporary file" not in line]
    assert lines == []


# ---- the real program


def own_sockets(service):
    return sorted(path.name for path in service.run_dir.glob("r-*.sock"))


def test_each_responder_has_a_socket_of_its_own_and_none_is_left_of_a_dead_one():
    with Service(cli="fake", RESPONDERS=2) as service:
        pids = until(lambda: len(found := service.responders()) == 2 and found, 30, "two responders")
        until(lambda: own_sockets(service) == sorted(f"r-{pid}.sock" for pid in pids), 30, "the responders' own sockets")
        for pid in pids:
            path = service.run_dir / f"r-{pid}.sock"
            shared = (service.run_dir / "claude-fcgi.sock").stat()
            # It is bound, then it listens, then it gets these.
            until(lambda: (path.stat().st_mode, path.stat().st_gid) == (shared.st_mode, shared.st_gid), 10, "the shared socket's rights")
            assert fastcgi.get(path, "/health")[0] == 200
        # Killed, it leaves its socket, and its successor removes that.
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: not alive(pids[0]), 10, "its death")
        until(
            lambda: len(now := service.responders()) == 2 and own_sockets(service) == sorted(f"r-{pid}.sock" for pid in now), 40,
            "the removal of the dead one's socket")
        # Ended, it removes it itself.
        service.restart_responders()
        until(lambda: own_sockets(service) == sorted(f"r-{pid}.sock" for pid in service.responders()), 30, "two new sockets")
