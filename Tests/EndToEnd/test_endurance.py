"""Many requests, one after the other and at once: nothing grows, nothing is mixed up, nothing is lost."""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialects import ALL, ANTHROPIC, CHATS, DIRECT, OPENAI, check_error, events_of
from service import Service, proc, status_number, until, within


def footprint(service):
    """What a leak would show in."""
    responders = service.responders()
    return {
        "responders": len(responders),
        "descriptors": {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in responders},
        "threads": {pid: status_number(pid, "Threads") for pid in responders},
        "processes": len(service.processes()),
        "temporary": service.temporary(),
        "run_dir": sorted(path.name for path in service.run_dir.iterdir()),
        "workspace": sorted(os.listdir(service.run_dir / "workspace")) if (service.run_dir / "workspace").exists() else [],
    }


def memory(service):
    return {pid: status_number(pid, "VmRSS") for pid in service.responders()}


def test_a_thousand_requests_leave_everything_where_it_was():
    with Service(cli="fake", LOG_LEVEL="warn") as service, service.client() as client:

        def ask(number):
            dialect = ALL[number % 3]
            kind = number % 7
            if kind == 5:  # what fails must leak no more than what works
                assert client.post(dialect.path, content=b"{").status_code == 400
            elif kind == 6 and dialect is not DIRECT:
                answer = client.post(dialect.path, json=dialect.body(f"n{number}", stream=True))
                events = events_of(answer.text)
                assert dialect.streamed_text(events) == f"n{number}" and dialect.is_whole(events)
            else:
                answer = client.post(dialect.path, json=dialect.body(f"n{number}"))
                assert answer.status_code == 200 and dialect.text(answer.json()) == f"n{number}"

        for number in range(150):
            ask(number)
        service.no_cli()
        until(lambda: not service.temporary(), 20)
        before, memory_before = footprint(service), memory(service)
        began = time.monotonic()
        for number in range(1000):
            ask(number)
        print(f"1000 requests in {time.monotonic() - began:.1f} s")
        service.no_cli()
        until(lambda: footprint(service) == before, 30, f"the footprint of before ({before}; now {footprint(service)})", 0.2)

        def grown():
            return {pid: kilobytes - memory_before[pid] for pid, kilobytes in memory(service).items()}

        # What malloc keeps is given back every few seconds.
        with contextlib.suppress(AssertionError):
            until(lambda: max(grown().values()) < 4096, 15)
        for pid, kilobytes in grown().items():
            print(f"responder {pid}: {memory_before[pid]} kB, then {kilobytes:+} kB")
            assert kilobytes < 4096
        until(lambda: b"Z" not in states_of_children(service), 10, "the reaping of every CLI")


def states_of_children(service):
    from service import pids, stat

    responders = {str(pid) for pid in service.responders()}
    return [fields[0].encode() for pid in pids() if (fields := stat(pid)) and fields[1] in responders]


@pytest.mark.parametrize("responders", [1, 2])
def test_thirty_clients_at_once_all_get_their_own_whole_answer(responders, mark):
    with Service(cli="fake", WORKER_CONCURRENCY=2, RESPONDERS=responders) as service:
        service.mode("slow 50")
        most = 0

        def ask(number):
            dialect = CHATS[number % 2]
            text = f"{mark}-{number}-end"
            if number % 3 == 0:
                events = events_of(service.post(dialect.path, dialect.body(text, stream=True)).text)
                assert dialect.is_whole(events)
                return dialect.streamed_text(events) == text
            answer = service.post(dialect.path, dialect.body(text))
            return answer.status_code == 200 and dialect.text(answer.json()) == text

        with ThreadPoolExecutor(30) as pool:
            asked = [pool.submit(ask, number) for number in range(30)]
            while not all(one.done() for one in asked):
                most = max(most, len(service.clis()))
                time.sleep(0.005)
        assert all(one.result() for one in asked)
        assert 1 <= most <= 2, f"{most} CLIs at once, WORKER_CONCURRENCY is 2"


def test_a_full_queue_says_no_at_once():
    with Service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=1, RESPONDERS=1) as service:
        service.mode("held")
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(service.post, OPENAI.path, OPENAI.body("running"))
            until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 20)
            waiting = pool.submit(service.post, OPENAI.path, OPENAI.body("waiting"))
            until(lambda: service.get("/health").json()["queue"] == {"pending": 1, "processing": 1, "concurrency": 1}, 20)
            for dialect, extra in ((OPENAI, {}), (OPENAI, {"stream": True}), (ANTHROPIC, {}), (ANTHROPIC, {"stream": True}), (DIRECT, {})):
                answer = within(1, lambda: service.post(dialect.path, dialect.body("too many", **extra)))
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
                check_error(dialect, answer.json(), "queue_full")
            assert service.get("/health").json()["status"] == "degraded"
            (service.base / "go").touch()
            assert running.result().status_code == waiting.result().status_code == 200
        assert service.get("/health").json()["status"] == "ok"
        assert service.get("/health").json()["queue"]["pending"] == 0


def test_waiting_has_an_end():
    with Service(cli="fake", WORKER_CONCURRENCY=1, QUEUE_TIMEOUT_MS=500, RESPONDERS=1) as service:
        service.mode("held")
        with ThreadPoolExecutor(4) as pool:
            running = pool.submit(service.post, OPENAI.path, OPENAI.body("running"))
            until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 20)
            for dialect, answer in zip(ALL, pool.map(lambda dialect: service.post(dialect.path, dialect.body("waiting")), ALL), strict=True):
                assert answer.status_code == 504
                check_error(dialect, answer.json(), "queue_timeout")
            (service.base / "go").touch()
            assert running.result().status_code == 200


def test_many_idle_connections_and_a_burst_of_health_checks_disturb_nobody(fake):
    import socket

    idle = [socket.create_connection(("127.0.0.1", fake.port), 10) for _ in range(200)]
    try:
        for connection in idle[:100]:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: fake.get("/health").status_code, range(200)))
        assert set(answers) == {200}
        assert fake.post(OPENAI.path, OPENAI.body("hi")).status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_slow_uploads_hold_no_responder(fake):
    """nginx takes the whole body before a responder hears of the request."""
    import socket

    slow = []
    try:
        for _ in range(150):
            connection = socket.create_connection(("127.0.0.1", fake.port), 10)
            connection.sendall(
                f"POST /api/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fake.key}\r\nContent-Length: 1000\r\n\r\n{{".encode())
            slow.append(connection)
        began = time.monotonic()
        assert fake.post(OPENAI.path, OPENAI.body("hi")).status_code == 200
        assert time.monotonic() - began < 20
    finally:
        for connection in slow:
            connection.close()


def test_the_responders_are_not_busy_when_nothing_happens(fake):
    from service import cpu_seconds

    fake.no_cli()
    used = []
    # What others have begun may still end, and memory is given back every few seconds: one quiet time of three is enough.
    while not used or used[-1] > 0.05 and len(used) < 3:
        before = sum(cpu_seconds(pid) for pid in fake.responders())
        time.sleep(2)
        used.append(sum(cpu_seconds(pid) for pid in fake.responders()) - before)
    assert used[-1] <= 0.05, used
    assert all(proc(pid, "stat") for pid in fake.responders())
