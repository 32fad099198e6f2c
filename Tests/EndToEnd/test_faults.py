"""CLIs that misbehave, clients that leave, responders that die."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialects import ALL, ANTHROPIC, CHATS, DIRECT, OPENAI, check_error, events_of
from service import Dechunker, Service, alive, group, parse_raw, pids, stat, status_number, until, within
from talk import standing_still


def reported(service):
    """The processes that the fake CLI says it consists of, newest call last."""
    path = service.base / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def forget(service):
    (service.base / "pids").unlink(missing_ok=True)


def works_again(service):
    """The next requests are as if nothing had happened."""
    service.mode("fast")
    for dialect in ALL:
        answer = service.post(dialect.path, dialect.body("still there?"))
        assert answer.status_code == 200 and dialect.text(answer.json()) == "still there?"
    service.no_cli()
    until(lambda: not service.temporary(), 20, "an empty RUN_DIR/tmp")


# ---- a CLI that misbehaves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("mode, status", [
    ("exits", (500, 502)), ("exits-on-turn", (500, 502)), ("garbage", (500, 502)), ("garbage-on-turn", (500, 502)),
    ("line 20", (500, 502)), ("old", (500,)),
])
def test_a_broken_cli_gives_a_clear_error(fake, dialect, stream, mode, status):
    fake.mode(mode)
    answer = fake.post(dialect.path, dialect.body("hi", stream=stream))
    assert answer.status_code in status, f"{answer.status_code}: {answer.text}"
    message = check_error(dialect, answer.json())
    assert "CLI" in message or "Claude Code" in message
    assert "giving up" not in answer.text, "the CLI's standard error is the operator's"
    line = fake.request_line(answer.headers["x-request-id"])
    assert line["error.kind"].startswith("cli") and line["level"] == "warning"
    if mode.startswith("exits"):
        assert "giving up" in line["cli.stderr"] and line["cli.end"].startswith("exit")
    if mode == "old":
        assert "2.1.100" in message and "2.1.251" in message and "update" in message
    works_again(fake)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
@pytest.mark.parametrize("mode", ["exits-midstream", "garbage-midstream"])
def test_a_cli_that_breaks_in_mid_stream_leaves_no_whole_answer(fake, dialect, mode):
    fake.mode(mode)
    answer = fake.post(dialect.path, dialect.body("some words", stream=True))
    events = events_of(answer.text)
    assert dialect.streamed_text(events) == "some words" and not dialect.is_whole(events)
    assert len(dialect.error_events(events)) == 1
    check_error(dialect, dialect.error_events(events)[0], "cli_error")
    answer = fake.post(dialect.path, dialect.body("some words"))
    assert answer.status_code in (500, 502)
    works_again(fake)


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_ten_megabytes_on_standard_error_block_nothing(fake, dialect):
    fake.mode("stderr")
    answer = fake.post(dialect.path, dialect.body("hi"))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"
    works_again(fake)


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_a_line_of_ten_megabytes_is_read(fake, dialect):
    fake.mode("line 10")
    answer = fake.post(dialect.path, dialect.body("hi"))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"


def test_an_endless_line_does_not_fill_the_memory(fake):
    before = {pid: status_number(pid, "VmRSS") for pid in fake.responders()}
    fake.mode("line 300")
    for _ in range(3):
        assert fake.post(OPENAI.path, OPENAI.body("hi")).status_code in (500, 502)
    for pid, kilobytes in before.items():
        assert status_number(pid, "VmHWM") < kilobytes + 150_000
    works_again(fake)


@pytest.mark.parametrize("mode", ["stalls-on-turn stubborn", "deaf stubborn"])
def test_a_cli_that_stalls_is_ended_with_all_its_processes(fake, mode):
    forget(fake)
    fake.mode(mode)

    def ask(case):
        dialect, stream = case
        began = time.monotonic()
        answer = fake.post(dialect.path, dialect.body("hi", **({"stream": True} if stream else {})))
        return dialect, answer, time.monotonic() - began

    cases = [(OPENAI, False), (OPENAI, True), (ANTHROPIC, False), (ANTHROPIC, True), (DIRECT, False), (DIRECT, True)]
    with ThreadPoolExecutor(len(cases)) as pool:
        for dialect, answer, took in pool.map(ask, cases):
            assert answer.status_code == 504, answer.text
            assert 4.9 < took < 30
            assert "REQUEST_TIMEOUT_MS" in check_error(dialect, answer.json(), "timeout")
            assert fake.request_line(answer.headers["x-request-id"])["cli.end"] == "signal 9"
    processes = set(reported(fake))
    assert len(processes) >= 2 * len(cases)
    until(lambda: not any(alive(pid) for pid in processes), 20, "the end of the CLIs and their children")
    works_again(fake)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_stream_that_stalls_ends_with_a_timeout_error(fake, dialect):
    forget(fake)
    fake.mode("stalls-midstream stubborn")
    answer = fake.post(dialect.path, dialect.body("some words", stream=True))
    events = events_of(answer.text)
    assert answer.status_code == 200 and dialect.streamed_text(events) == "some words" and not dialect.is_whole(events)
    check_error(dialect, dialect.error_events(events)[0], "timeout")
    until(lambda: not any(alive(pid) for pid in reported(fake)), 20, "the end of the CLI and its child")
    works_again(fake)


def test_a_five_megabyte_prompt_to_a_deaf_cli_is_a_timeout(fake):
    fake.mode("deaf")
    answer = fake.post(OPENAI.path, OPENAI.body("x" * 5_000_000))
    assert answer.status_code == 504
    works_again(fake)


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("mode", ["lingers stubborn", "silent-end"])
def test_an_answer_is_out_before_its_cli_has_ended(fake, dialect, mode):
    """A CLI that will not end does not hold the answer back; one that ends without its report has still answered a chat."""
    forget(fake)
    fake.mode(mode)
    # What is kept of a session is whole only when the CLI has ended.
    body = dialect.body("hi", **({"ephemeral": True} if dialect is DIRECT else {}))
    if mode == "silent-end" and dialect is DIRECT:
        assert fake.post(dialect.path, body).status_code in (500, 502)  # its result is what the report says
    else:
        answer = within(1.5, lambda: fake.post(dialect.path, body))
        assert answer.status_code == 200 and dialect.text(answer.json()) == "hi"
    if fake.has_defaults and mode.startswith("lingers") and dialect is not DIRECT:
        fake.no_cli()  # it is kept for the next turn
    else:
        until(lambda: not any(alive(pid) for pid in reported(fake)), 20, "the end of the CLI and its child")
    works_again(fake)


def test_an_answer_that_came_while_its_responder_stood_still_counts():
    """The request's time is over when the responder looks again, but the answer was there in time."""
    with Service(cli="fake", RESPONDERS=1, REQUEST_TIMEOUT_MS=4000, RETRY_MAX_ATTEMPTS=1) as service:
        service.mode("slow 1500")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: service.post(OPENAI.path, OPENAI.body("hi")))
            cli = service.one_cli()
            until(lambda: cli in reported(service), 10, "the CLI's turn")
            with standing_still(service.responders()):
                time.sleep(5)
            answer = answer.result(30)
        assert answer.status_code == 200 and OPENAI.text(answer.json()) == "hi", answer.text


def test_a_missing_cli_is_named(workspace):
    """Either the start says so, or each request does."""
    with Service(cli="fake", RESPONDERS=1) as service:
        # Gone while the service runs, as an update that failed leaves it.
        os.unlink(service.base / "claude")
        for dialect in ALL:
            answer = service.post(dialect.path, dialect.body("hi"))
            assert answer.status_code == 500, answer.text
            assert "CLAUDE_PATH" in check_error(dialect, answer.json(), "cli_not_found")
        assert service.get("/v1/models").status_code in (200, 500)
        assert service.get("/health").status_code == 200
        (service.base / "claude").mkdir()
        answer = service.post(OPENAI.path, OPENAI.body("hi"))
        assert answer.status_code == 500, answer.text
        check_error(OPENAI, answer.json(), "cli_not_found")


# ---- a client that leaves ------------------------------------------------------------------------------------------------------


def measured(service, pid, connection, record_property):
    """Closes the connection; how long the CLI's process group lives on, in milliseconds."""
    number = stat(pid)[2]
    began = time.monotonic()
    connection.close()
    until(lambda: not alive(pid), 20, "the end of the CLI", 0.0005)
    leader = time.monotonic() - began
    until(lambda: not group(number), 20, "the end of the CLI's process group", 0.002)
    took = (leader * 1000, (time.monotonic() - began) * 1000)
    print(f"the CLI ended {took[0]:.1f} ms after the client left, its group was seen gone after {took[1]:.1f} ms")
    record_property("ms", took[1])
    return took[1]


def ends_in_time(leave):
    """A client leaves, three at most: within a second the CLI has ended, unless the machine stood still meanwhile."""
    took = [leave()]
    while took[-1] >= 1000 and len(took) < 3:
        took.append(leave())
    assert took[-1] < 1000, took


def receive(connection, wanted):
    """Reads on until this has come."""
    seen = b""
    while wanted not in seen:
        chunk = connection.recv(65536)
        assert chunk, seen[-500:]
        seen = seen[-2000:] + chunk


def check_abandoned(service, pid):
    """Nothing is left of the run, and the log says how it ended."""
    until(lambda: not service.temporary(), 20, "an empty RUN_DIR/tmp")
    line = until(lambda: [line for line in service.request_lines() if line.get("cli.pid") == pid], 20, "the log line")[0]
    assert line["outcome"] == "abandoned"


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("kind", ["stream, in the middle", "stream, before the first byte", "whole"])
def test_the_cli_ends_when_its_client_leaves(service, dialect, kind, mark, record_property):
    text = f"{mark} [[stall=3]]" if "middle" in kind else f"{mark} [[first_ms=60000]] [[say=late]]"

    def leave():
        service.no_cli()
        before = len(service.recorded(mark))
        connection = service.connect(dialect, dialect.body(text, **({"stream": True} if "stream" in kind else {})))
        pid = service.one_cli()
        if "middle" in kind:
            receive(connection, b"tok2")
        else:
            until(lambda: len(service.recorded(mark)) > before, 20, "the request's way upstream", 0.02)
        took = measured(service, pid, connection, record_property)
        check_abandoned(service, pid)
        return took

    ends_in_time(leave)


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_the_cli_ends_when_its_client_leaves_a_burst(service, dialect, mark, record_property):
    """The responder waits a moment before each read then."""

    def leave():
        service.no_cli()
        connection = service.connect(dialect, dialect.body(f"{mark} [[tokens=200000]]", stream=True, max_tokens=200000))
        pid = service.one_cli()
        receive(connection, b"tok2000 ")
        took = measured(service, pid, connection, record_property)
        check_abandoned(service, pid)
        return took

    ends_in_time(leave)


@pytest.mark.parametrize("mode", ["deaf stubborn", "stalls-on-turn stubborn", "stalls-midstream stubborn"])
def test_a_cli_that_will_not_end_ends_when_its_client_leaves(fake, mode, record_property):
    def leave():
        forget(fake)
        fake.mode(mode)
        connection = fake.connect(OPENAI, OPENAI.body("hi", stream=True))
        until(lambda: len(set(reported(fake))) >= 2, 10, "the CLI and its child")
        took = measured(fake, fake.one_cli(), connection, record_property)
        until(lambda: not any(alive(pid) for pid in reported(fake)), 3, "the end of the CLI and its child")
        works_again(fake)
        return took

    ends_in_time(leave)


def test_a_cli_ends_when_an_http2_client_cancels(service, mark):
    """The stream is reset, as a browser's abort does; the connection lives and serves the next one."""
    import h2.config
    import h2.connection
    import h2.events

    service.no_cli()
    context = service.tls_context()
    context.set_alpn_protocols(["h2"])
    body = json.dumps(OPENAI.body(f"{mark} [[stall=3]]", stream=True)).encode()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", service.tls_port), 20), server_hostname="localhost") as connection:
        assert connection.selected_alpn_protocol() == "h2"
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()

        def ask(stream, method, path):
            http.send_headers(stream, [
                (":method", method), (":path", path), (":scheme", "https"), (":authority", "localhost"), ("x-api-key", service.key)],
                end_stream=method == "GET")
            if method == "POST":
                http.send_data(stream, body, end_stream=True)
            connection.sendall(http.data_to_send())

        def events():
            while True:
                found = http.receive_data(connection.recv(65536))
                connection.sendall(http.data_to_send())
                yield from found

        ask(1, "POST", OPENAI.path)
        for event in events():
            if isinstance(event, h2.events.DataReceived) and b"tok2" in event.data:
                break
        pid = service.one_cli()
        http.reset_stream(1, 8)
        connection.sendall(http.data_to_send())
        began = time.monotonic()
        until(lambda: not alive(pid), 10, "the end of the CLI", 0.0005)
        print(f"the CLI ended {1000 * (time.monotonic() - began):.1f} ms after its HTTP/2 stream was reset")
        ask(3, "GET", "/health")
        status = next(event for event in events() if isinstance(event, h2.events.ResponseReceived) and event.stream_id == 3)
        assert dict(status.headers)[":status"] == "200"


def test_a_client_that_leaves_the_queue_is_never_run(mark):
    with Service(cli="fake", WORKER_CONCURRENCY=1, RESPONDERS=1) as service:
        service.mode("held")
        forget(service)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(service.post, OPENAI.path, OPENAI.body("first"))
            until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 20, "the first one's place")
            connection = service.connect(OPENAI, OPENAI.body("second"))
            until(lambda: service.get("/health").json()["queue"]["pending"] == 1, 20, "one in the queue")
            connection.close()
            until(lambda: service.get("/health").json()["queue"]["pending"] == 0, 10, "an empty queue")
            (service.base / "go").touch()
            assert first.result().status_code == 200
        service.no_cli()
        assert len(set(reported(service))) == 1


@pytest.mark.parametrize("where", ["in the first answer", "between two answers", "without a stream"])
def test_a_client_that_leaves_one_of_several_answers_is_given_no_other(fake, where):
    """The answers of `n` are made one after the other."""
    def abandoned():
        return len([entry for entry in fake.request_lines() if entry["outcome"] == "abandoned"])

    forget(fake)
    (fake.base / "go").unlink(missing_ok=True)
    before = abandoned()
    fake.mode("stalls-midstream" if where == "in the first answer" else "held")
    with fake.connect(OPENAI, OPENAI.body("several", n=4, stream=where != "without a stream")) as connection:
        if where != "in the first answer":
            # The first answer comes, the second does not: it is where the client leaves.
            until(lambda: reported(fake), 10, "the first answer's CLI")
            fake.mode("stalls-on-turn")
            (fake.base / "go").touch()
        if where == "without a stream":
            until(lambda: len(set(reported(fake))) == 2, 10, "the second answer's CLI")
        else:
            dechunker, text = Dechunker(), ""
            wanted = "several" if where == "in the first answer" else '"finish_reason":"stop"'
            while wanted not in text:
                text += dechunker.feed(connection.recv(65536)).decode()
            if where == "between two answers":
                until(lambda: len(set(reported(fake))) == 2, 10, "the second answer's CLI")
        started = set(reported(fake))
    (fake.base / "go").unlink(missing_ok=True)
    fake.no_cli()
    until(lambda: fake.get("/health").json()["queue"]["processing"] == 0, 20, "a free place")
    time.sleep(1)
    assert set(reported(fake)) == started, "a further answer was begun"
    # As one that is over its time would be ended as well, and is not said to be abandoned.
    until(lambda: abandoned() > before, 20, "a log line")
    works_again(fake)


def test_a_slow_reader_gets_everything(service):
    """The responder stops reading the CLI while nginx takes no more, and goes on when it does."""
    body = json.dumps(ANTHROPIC.body("[[tokens=30000]]", stream=True, max_tokens=40000)).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", service.port))
        connection.sendall(
            f"POST {ANTHROPIC.path} HTTP/1.1\r\nHost: x\r\nx-api-key: {service.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(3)
        memory = {pid: status_number(pid, "VmHWM") for pid in service.responders()}
        dechunker, text = Dechunker(), b""
        while not dechunker.is_ended:
            chunk = connection.recv(1 << 20)
            assert chunk, text[-500:]
            text += dechunker.feed(chunk)
    events = events_of(text.decode())
    assert ANTHROPIC.is_whole(events)
    assert ANTHROPIC.streamed_text(events) == "".join(f"tok{number} " for number in range(30000))
    print(f"most memory of a responder: {max(memory.values())} kB")
    assert max(memory.values()) < 200_000


# ---- a responder that dies -----------------------------------------------------------------------------------------------------


def streaming(service, dialect, text):
    """A stream that has begun: the connection, what it brought, its CLI and its responder."""
    service.no_cli()
    connection = service.connect(dialect, dialect.body(text, stream=True))
    pid = service.one_cli()
    seen = b""
    while b"tok2" not in seen:
        chunk = connection.recv(65536)
        assert chunk, seen
        seen += chunk
    return connection, seen, pid, int(stat(pid)[1])


def rest(connection):
    text = b""
    while True:
        try:
            chunk = connection.recv(65536)
        except ConnectionError:
            return text
        text += chunk
        if not chunk or text.endswith(b"0\r\n\r\n"):
            return text


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_responder_killed_in_mid_stream_leaves_no_whole_answer_and_no_cli(service, dialect):
    connection, seen, pid, responder = streaming(service, dialect, "[[tokens=200]] [[delay_ms=50]]")
    os.kill(responder, signal.SIGKILL)
    text = seen + rest(connection)
    connection.close()
    assert b"[DONE]" not in text and b"message_stop" not in text
    took = time.monotonic()
    until(lambda: not alive(pid), 5, "the end of the CLI", 0.002)
    print(f"the CLI ended {1000 * (time.monotonic() - took):.1f} ms after its responder was killed")
    answer = service.post(dialect.path, dialect.body("[[say=next]]"))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "next"
    until(lambda: len(service.responders()) == 2 and responder not in service.responders(), 30, "a new responder")
    until(lambda: not service.temporary(), 20, "an empty RUN_DIR/tmp")


def test_a_killed_responders_stubborn_cli_is_gone_too(fake):
    forget(fake)
    fake.mode("stalls-on-turn stubborn")
    connection = fake.connect(OPENAI, OPENAI.body("hi"))
    until(lambda: len(set(reported(fake))) >= 2, 10, "the CLI and its child")
    pid = fake.one_cli()
    responder = int(stat(pid)[1])
    os.kill(responder, signal.SIGKILL)
    status, _, body = parse_raw(connection.recv(65536))
    connection.close()
    assert status == 502
    check_error(OPENAI, json.loads(body))
    until(lambda: not any(alive(pid) for pid in reported(fake)), 20, "the end of the CLI and its child")
    works_again(fake)
    until(lambda: len(fake.responders()) == 2 and responder not in fake.responders(), 30, "a new responder")


@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_responder_that_is_asked_to_end_finishes_its_stream(service, dialect):
    connection, seen, pid, responder = streaming(service, dialect, "[[tokens=30]] [[delay_ms=150]]")
    before = service.log().count('"draining"')
    os.kill(responder, signal.SIGTERM)
    until(lambda: service.log().count('"draining"') > before, 20, "the responder's word that it ends")
    time.sleep(0.3)
    assert alive(responder) and alive(pid)
    # It takes nothing new meanwhile; others do.
    answer = service.post(dialect.path, dialect.body("[[say=meanwhile]]"))
    assert answer.status_code == 200 and dialect.text(answer.json()) == "meanwhile"
    text = (seen + rest(connection)).decode()
    connection.close()
    assert len(re.findall(r"tok\d+ ", text)) == 30
    assert ("[DONE]" if dialect is OPENAI else "message_stop") in text
    until(lambda: not alive(responder), 20, "the end of the responder")
    until(lambda: len(service.responders()) == 2, 30, "a new responder")


def test_every_responder_killed_over_and_over_is_back(service):
    for _ in range(5):
        for pid in service.responders():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    until(lambda: len(service.responders()) == 2, 30, "two responders")
    answer = service.post(OPENAI.path, OPENAI.body("[[say=back]]"))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("bytes_", [
    b"\x01\x01\x00\x01\xff\xff\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\x09" * 4096,
    b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", b"",
], ids=["cut", "http", "zeros", "noise", "no parameters", "nothing"])
def test_a_hostile_peer_on_the_socket_costs_no_thread_for_good(fake, bytes_):
    """Only nginx's user reaches the socket; even so a bad record must not leave the service without threads."""
    connections = []
    for _ in range(4):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(fake.run_dir / "claude-fcgi.sock"))
        connection.sendall(bytes_)
        connections.append(connection)
    assert fake.post(OPENAI.path, OPENAI.body("hi")).status_code == 200
    for connection in connections:
        connection.close()


# ---- what a run's tools leave behind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["group", "session", "double fork"])
def test_a_background_process_of_a_run_ends_with_it(service, directory, how, mark):
    """Also one that left the CLI's process group, ignores signals and was adopted by another parent."""
    starts = {
        "group": "sleep 300 >/dev/null 2>&1 </dev/null &",
        "session": "setsid nohup sleep 300 >/dev/null 2>&1 </dev/null &",
        "double fork": "(trap '' TERM HUP INT; setsid bash -c 'trap \"\" TERM HUP INT; (sleep 300 & echo $! >> pids) & wait; sleep 300') >/dev/null 2>&1 </dev/null &",
    }
    (directory / "start.sh").write_text(f"{starts[how]}\necho $! >> pids\nsleep 0.2\n")
    command = json.dumps({"command": "bash start.sh; cat pids", "description": "starts it"})
    answer = service.post(DIRECT.path, DIRECT.body(
        f"{mark} [[tool=Bash {command}]]", allowedTools=["Bash"], workingDirectory=str(directory)))
    assert answer.status_code == 200, answer.text
    started = [int(number) for number in (directory / "pids").read_text().split()]
    assert started
    until(lambda: not any(alive(pid) for pid in started), 10, "the end of the background process", 0.01)
    until(lambda: not [pid for pid in pids() if str(directory) in _directory(pid)], 10, "no process in the directory")


def _directory(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


def test_a_background_process_ends_when_the_client_leaves(service, directory, mark):
    (directory / "start.sh").write_text("setsid nohup sleep 300 >/dev/null 2>&1 </dev/null &\necho $! >> pids\nsleep 60\n")
    command = json.dumps({"command": "bash start.sh", "description": "starts it"})
    connection = service.connect(DIRECT, DIRECT.body(
        f"{mark} [[tool=Bash {command}]]", allowedTools=["Bash"], workingDirectory=str(directory)))
    until(lambda: (directory / "pids").exists() and (directory / "pids").read_text().strip(), 30, "the background process")
    connection.close()
    started = [int(number) for number in (directory / "pids").read_text().split()]
    until(lambda: not any(alive(pid) for pid in started), 10, "the end of the background process")
    until(lambda: not [pid for pid in pids() if str(directory) in _directory(pid)], 10, "no process in the directory")
