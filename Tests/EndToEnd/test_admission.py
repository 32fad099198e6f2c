"""Who runs, who waits and who is refused, over all responders together, whoever dies."""

import asyncio
import collections
import contextlib
import datetime
import json
import os
import random
import signal
import subprocess
import threading
import time

import httpx

from dialects import ANTHROPIC, OPENAI, events_of
from service import CHECKOUT, KEY, Service, alive, until
from test_faults import reported

BINARY = CHECKOUT / ".build/release/claude-fcgi"


def command(service, *arguments, check=True, **extra):
    """`claude-fcgi …` with the service's settings, as its operator runs it."""
    environment = {**service.environment, **{name: str(value) for name, value in extra.items()}}
    return subprocess.run(
        [BINARY, *arguments], env=environment, cwd=service.base, capture_output=True, text=True, timeout=30, check=check)


def board(service):
    """What `claude-fcgi status --json` says."""
    # Its exit status is 1 when no responder lives; what it says is asked for here.
    return json.loads(command(service, "status", "--json", check=False).stdout)


def release(service):
    (service.base / "go").touch()


def test_three_hundred_clients_at_once_exactly_102_are_served():
    """Concurrency 2, queue 100: 102 get their answers, 198 are refused at once, /health answers all the while."""
    with Service(cli="fake", WORKER_CONCURRENCY=2, MAX_QUEUE_SIZE=100, LOG_LEVEL="warn") as service:
        service.mode("held")
        answers = collections.Counter()
        waits = []

        async def everything():
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(
                    base_url=service.url, headers=service.authorization, timeout=100, limits=limits, trust_env=False) as client:

                async def ask(number):
                    answer = await client.post(ANTHROPIC.path, json=ANTHROPIC.body(f"n{number}"))
                    if answer.status_code == 200:
                        assert ANTHROPIC.text(answer.json()) == f"n{number}"
                    else:
                        assert answer.json()["error"]["type"] == "rate_limit_error"
                        assert int(answer.headers["retry-after"]) >= 1
                    answers[answer.status_code] += 1

                tasks = [asyncio.create_task(ask(number)) for number in range(300)]
                while answers[429] < 198:
                    assert not [task for task in tasks if task.done() and task.exception()]
                    # curl, because this process is busy with its own 300 clients.
                    curl = await asyncio.create_subprocess_exec(
                        "curl", "-s", "-w", "\n%{time_total}", service.url + "/health", stdout=subprocess.PIPE)
                    body, seconds = (await curl.communicate())[0].decode().split("\n")
                    queue = json.loads(body)["queue"]
                    waits.append(float(seconds))
                    assert queue["processing"] <= 2 and queue["pending"] <= 100
                    await asyncio.sleep(0.05)
                health = (await client.get("/health")).json()
                assert health["status"] == "degraded" and health["queue"] == {"pending": 100, "processing": 2, "concurrency": 2}
                release(service)
                await asyncio.gather(*tasks)

        asyncio.run(everything())
        assert answers == {200: 102, 429: 198}
        print(f"/health while full: median {sorted(waits)[len(waits) // 2] * 1000:.1f} ms, worst {max(waits) * 1000:.1f} ms")
        until(lambda: board(service)["running"] == 0, 20)
        assert board(service)["totals"]["refused"] == 198


def keyed_service(**settings):
    """A service with the keys of alice and bob, made as an operator makes them."""
    service = Service(cli="fake", **settings)
    path = service.base / "keys"
    service.environment["PROXY_API_KEYS_FILE"] = str(path)
    keys = {
        name: command(service, "keys", "add", name, "--file", str(path)).stdout.strip() for name in ("alice", "bob")
    }
    return service, keys


def headers(key):
    return {"Authorization": f"Bearer {key}"}


def place_taken(line):
    """When a request got its place, by its line in the log."""
    written = datetime.datetime.fromisoformat(line["time"]).timestamp()
    return written - (line["time.total_ms"] - line["time.queue_ms"]) / 1000


def test_a_key_with_a_long_queue_does_not_starve_another():
    service, keys = keyed_service(WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=100)
    with service:
        service.mode("held")

        def ask(name):
            with httpx.Client(base_url=service.url, headers=headers(keys[name]), timeout=100, trust_env=False) as client:
                assert client.post(OPENAI.path, json=OPENAI.body("x")).status_code == 200

        threads = [threading.Thread(target=ask, args=("alice",)) for _ in range(30)]
        for thread in threads:
            thread.start()
        until(lambda: board(service)["waiting"] == 29, 30)
        threads.append(threading.Thread(target=ask, args=("bob",)))
        threads[-1].start()
        until(lambda: board(service)["waiting"] == 30, 30)
        clients = collections.Counter(request["client"] for request in board(service)["requests"])
        assert clients == {"alice": 30, "bob": 1}
        release(service)
        for thread in threads:
            thread.join(60)
        # By the service's clock: clients hear of their answers in any order. One run was under way; bob's is the next.
        lines = until(
            lambda: len(found := [line for line in service.request_lines() if "time.queue_ms" in line]) == 31 and found, 20,
            "the requests' log lines")
        order = [line["client.name"] for line in sorted(lines, key=place_taken)]
        assert order.index("bob") <= 2, order


def test_keys_are_made_listed_removed_and_read_again_on_sighup():
    service, keys = keyed_service()
    with service:
        path = service.base / "keys"
        assert path.stat().st_mode & 0o777 == 0o600
        assert not any(key in path.read_text() for key in keys.values())
        assert command(service, "keys", "list", "--file", str(path)).stdout.split() == ["alice", "bob"]
        assert command(service, "keys", "add", "bob", "--file", str(path), check=False).returncode != 0
        assert command(service, "keys", "add", "two words", "--file", str(path), check=False).returncode != 0
        for key in (*keys.values(), KEY):
            assert service.get("/v1/models", headers=headers(key)).status_code == 200
        command(service, "keys", "remove", "bob", "--file", str(path))
        carol = command(service, "keys", "add", "carol", "--file", str(path), "--concurrency", "1").stdout.strip()
        assert service.get("/v1/models", headers=headers(carol)).status_code == 401
        for pid in service.responders():
            os.kill(pid, signal.SIGHUP)
        until(lambda: service.get("/v1/models", headers=headers(carol)).status_code == 200, 20)
        until(lambda: service.log().count("keys read again") == 2, 20)
        assert service.get("/v1/models", headers=headers(keys["bob"])).status_code == 401
        path.write_text("this is no keys file\n")
        for pid in service.responders():
            os.kill(pid, signal.SIGHUP)
        until(lambda: service.log().count("keys not read again") == 2, 20)
        assert service.get("/v1/models", headers=headers(carol)).status_code == 200
        assert carol not in service.all_logs() and KEY not in service.all_logs()


def test_a_stream_that_waits_gets_heartbeats_and_then_its_answer():
    with Service(cli="fake", WORKER_CONCURRENCY=1, HEARTBEAT_AFTER_MS=300) as service:
        service.mode("held")
        first = threading.Thread(target=lambda: service.post(OPENAI.path, OPENAI.body("first")))
        first.start()
        until(lambda: board(service)["running"] == 1, 10)
        texts = {}

        def ask(dialect):
            texts[dialect] = service.post(dialect.path, dialect.body("waited", stream=True)).text

        threads = [threading.Thread(target=ask, args=(dialect,)) for dialect in (OPENAI, ANTHROPIC)]
        for thread in threads:
            thread.start()
        until(lambda: "claude_fcgi_heartbeats_total 2" in service.get("/metrics").text, 10)
        release(service)
        for thread in [first, *threads]:
            thread.join(60)
        for dialect, text in texts.items():
            beat, _, rest = text.partition("\n")
            assert beat.startswith(":") and len(beat) >= 2048, "a padded comment comes first"
            events = events_of(rest)
            assert dialect.streamed_text(events) == "waited" and dialect.is_whole(events)
        assert "event: ping" in texts[ANTHROPIC]


def test_a_failure_after_a_heartbeat_is_the_streams_error_event():
    with Service(cli="fake", WORKER_CONCURRENCY=1, HEARTBEAT_AFTER_MS=200, QUEUE_TIMEOUT_MS=3000) as service:
        service.mode("held")
        first = threading.Thread(target=lambda: service.post(OPENAI.path, OPENAI.body("first")))
        first.start()
        until(lambda: board(service)["running"] == 1, 10)
        for dialect in (OPENAI, ANTHROPIC):
            answer = service.post(dialect.path, dialect.body("waits too long", stream=True))
            assert answer.status_code == 200
            events = events_of(answer.text)
            assert not dialect.is_whole(events)
            assert "error" in events[-1][1]
        # Unstreamed there is nothing to keep open: the failure has its status.
        assert service.post(OPENAI.path, OPENAI.body("x")).status_code == 504
        release(service)
        first.join(30)


def test_a_cli_that_died_is_tried_again_in_the_same_place():
    with Service(cli="fake") as service:
        service.mode("exits-on-turn")

        def mend():
            # One that had waited is replaced at once: its death is no attempt.
            until(lambda: len(reported(service)) > service.has_defaults, 10, "the death of a CLI")
            service.mode("fast")

        mending = threading.Thread(target=mend)
        mending.start()
        answer = service.post(OPENAI.path, OPENAI.body("again"))
        mending.join()
        assert answer.status_code == 200 and OPENAI.text(answer.json()) == "again"
        line = service.request_line(answer.headers["x-request-id"])
        assert line["attempts"] >= 2
        assert "claude_fcgi_admitted_total 1\n" in service.get("/metrics").text
        service.mode("exits-on-turn")
        answer = service.post(ANTHROPIC.path, ANTHROPIC.body("never"))
        assert answer.status_code == 500
        assert service.request_line(answer.headers["x-request-id"])["attempts"] == 3


def test_metrics_are_for_this_machine_and_never_go_down():
    with Service(cli="fake") as service:
        service.post(OPENAI.path, OPENAI.body("one"))
        until(lambda: 'requests_total{route="/v1/chat/completions",status="200"} 1' in service.get("/metrics").text, 20)
        killed = set(service.responders())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(now := {entry["pid"] for entry in board(service)["responders"]}) == 2 and not now & killed, 30, "two others")
        until(lambda: service.get("/health").status_code == 200, 20)
        page = service.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert 'requests_total{route="/v1/chat/completions",status="200"} 1' in page.text
        assert "claude_fcgi_responders 2" in page.text
        names = set()
        for line in page.text.splitlines():
            if line.startswith("# TYPE "):
                names.add(line.split()[2])
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                float(value)
                base = name.partition("{")[0]
                assert any(base == known or base.removesuffix(end) == known
                           for known in names for end in ("_bucket", "_sum", "_count")), name
        bucket = [int(line.rsplit(" ", 1)[1]) for line in page.text.splitlines() if line.startswith("claude_fcgi_request_seconds_bucket")]
        assert bucket == sorted(bucket) and bucket[-1] >= 1


def test_a_dead_responders_place_and_processes_are_freed_by_another():
    with Service(cli="fake", WORKER_CONCURRENCY=1, RESPONDERS=2) as service:
        service.mode("stalls-on-turn")
        thread = threading.Thread(target=lambda: service.post(OPENAI.path, OPENAI.body("x")))
        thread.start()
        cli = service.one_cli()
        owner = until(
            lambda: [request for request in board(service)["requests"] if request["cliPid"] == cli], 20, "its request")[0]["responderPid"]
        began = time.monotonic()
        os.kill(owner, signal.SIGKILL)
        until(lambda: not alive(cli), 20, "the CLI's end", 0.005)
        until(lambda: board(service)["running"] == 0, 20, "the place", 0.005)
        print(f"place and CLI free {1000 * (time.monotonic() - began):.0f} ms after the responder's death")
        thread.join(30)
        service.mode("fast")
        assert service.post(OPENAI.path, OPENAI.body("next")).status_code == 200
        assert until(lambda: "reaped_total 1" in service.get("/metrics").text, 20)


def test_limits_change_with_a_restart_of_the_responders():
    with Service(cli="fake", WORKER_CONCURRENCY=1) as service:
        # What an operator does: new settings, one responder after the other.
        assert service.get("/health").json()["queue"]["concurrency"] == 1
        other = subprocess.Popen(
            [BINARY, "respond", "--socket", str(service.base / "s")], env={**service.environment, "WORKER_CONCURRENCY": "3"},
            cwd=service.base, stderr=subprocess.DEVNULL)
        try:
            until(lambda: service.get("/health").json()["queue"]["concurrency"] == 3, 30)
        finally:
            other.terminate()
            assert other.wait(20) == 0


def test_random_deaths_under_load_leave_every_client_with_an_answer_or_a_failure():
    """A responder is killed every 200 ms while clients keep asking."""
    seconds = float(os.environ.get("CHAOS_SECONDS", "12"))
    with Service(cli="fake", WORKER_CONCURRENCY=3, MAX_QUEUE_SIZE=50, RESPONDERS=4, LOG_LEVEL="info") as service:
        service.mode("slow 20")
        outcomes = collections.Counter()
        stop = time.monotonic() + seconds

        def ask(number):
            dialect = (OPENAI, ANTHROPIC)[number % 2]
            with service.client() as client:
                count, history = 0, []
                while time.monotonic() < stop:
                    count += 1
                    text, streams = f"c{number}-{count}", count % 2 == 0
                    if len(history) >= 6:
                        history = []
                    try:
                        answer = client.post(dialect.path, json=dialect.body(text, history=history, stream=streams))
                    except httpx.RemoteProtocolError:
                        # With a length announced nginx can only break the connection: clear enough.
                        outcomes["broken"] += 1
                        continue
                    if answer.status_code != 200:
                        assert answer.status_code in (502, 503), answer.text
                        assert answer.json()["error"]
                        outcomes[answer.status_code] += 1
                        continue
                    if not streams:
                        assert dialect.text(answer.json()) == text
                        outcomes["whole"] += 1
                    else:
                        events = events_of(answer.text)
                        if not dialect.is_whole(events):
                            outcomes["cut, and it shows"] += 1
                            continue
                        assert dialect.streamed_text(events) == text
                        outcomes["streamed"] += 1
                    # Where processes wait, the next turn finds this one's, or that it has died.
                    history += [("user", text), ("assistant", text)]

        failures = []

        def guarded(number):
            try:
                ask(number)
            except BaseException as error:  # a thread's failure is the test's
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        deaths = 0
        while time.monotonic() < stop:
            time.sleep(0.2)
            found = service.responders()
            if found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(found), signal.SIGKILL)
                    deaths += 1
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"
        assert not failures, failures[0]
        print(f"{deaths} deaths: {dict(outcomes)}")
        assert outcomes["whole"] and outcomes["streamed"]
        until(lambda: len(service.responders()) == 4, 30)
        until(lambda: (now := board(service))["running"] == 0 and now["waiting"] == 0, 20, "an empty gate")
        service.no_cli()
        until(lambda: not service.temporary(), 20, "empty temporary directories")
        assert service.post(OPENAI.path, OPENAI.body("after")).status_code == 200
        if service.has_defaults:
            uses = collections.Counter(line["cli.pid"] for line in service.request_lines() if "cli.pid" in line)
            resumed = uses.total() - len(uses)
            print(f"{resumed} of {uses.total()} runs went on in the process of another")
            assert resumed, "no conversation found its process"
            until(lambda: service.get("/health").json()["processes"]["spares"] == 3, 40, "all spares")
