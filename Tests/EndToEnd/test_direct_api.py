"""`POST /api/run` in all its parameters: what each does to the run, and what is refused."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialects import DIRECT
from direct import ask, bash, begin, blocks, check_reply, check_stream, ended, numbered_events, of, refused, run, said, stream, timed, tool
from service import Service, parse_raw, proc, until
from test_conversations import texts

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


# ---- what is refused, and what is named --------------------------------------------------------------------------------------

BAD = [
    ("prompt", None), ("prompt", ""), ("prompt", " \n\t "), ("prompt", 5), ("prompt", True), ("prompt", []), ("prompt", {}),
    ("prompt", [5]), ("prompt", [{"type": "text"}]), ("prompt", [{"type": "text", "text": 5}]), ("prompt", [{"type": "nonsense"}]),
    ("prompt", [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}]),
    ("prompt", [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}]),
    ("prompt", [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "bm8gaW1hZ2U="}}]),
    ("prompt", [{"type": "image", "source": {"type": "file", "path": "/etc/passwd"}}]),
    ("model", 5), ("model", ["sonnet"]), ("model", {}),
    ("effort", "enormous"), ("effort", 5), ("effort", ""),
    ("allowedTools", "Bash"), ("allowedTools", [5]), ("allowedTools", ["Nonsense"]), ("allowedTools", ["Bash("]), ("allowedTools", ["bash"]),
    ("allowedTools", [""]), ("allowedTools", ["Bash", "Read Write"]), ("allowedTools", ["Write(/etc/**)"]), ("allowedTools", ["Read(../**)"]),
    ("allowedTools", ["Edit(./a/../../**)"]), ("allowedTools", ["Read(~/**)"]), ("allowedTools", ["Read(//etc/**)"]),
    ("allowedTools", ["Bash(git\n*)"]), ("allowedTools", {"Bash": True}), ("allowedTools", ["--dangerously-skip-permissions"]),
    ("disallowedTools", "Bash"), ("disallowedTools", [5]), ("disallowedTools", ["Bash("]), ("disallowedTools", ["--help"]),
    ("permissionMode", 5), ("permissionMode", ["plan"]),
    ("workingDirectory", 5), ("workingDirectory", "relative"), ("workingDirectory", "./x"), ("workingDirectory", "~"), ("workingDirectory", ""),
    ("workingDirectory", ["/tmp"]), ("workingDirectory", "/a\u0000b"),
    ("addDirs", "x"), ("addDirs", [5]), ("addDirs", ["relative"]), ("addDirs", [""]), ("addDirs", ["/a\u0000b"]),
    ("sessionId", 5), ("sessionId", ["x"]),
    ("fork", "yes"), ("fork", 1), ("fork", True),
    ("ephemeral", "yes"), ("ephemeral", 1),
    ("systemPrompt", 5), ("systemPrompt", ["x"]), ("systemPrompt", {}), ("appendSystemPrompt", 5), ("appendSystemPrompt", ["x"]),
    ("schema", "x"), ("schema", 5), ("schema", []), ("schema", {"type": "array"}), ("schema", {"type": 5}),
    ("schema", {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}),
    ("maxTurns", 0), ("maxTurns", -1), ("maxTurns", 1.5), ("maxTurns", "1"), ("maxTurns", True), ("maxTurns", 1e300),
    ("maxBudgetUsd", -1), ("maxBudgetUsd", "1"), ("maxBudgetUsd", True), ("maxBudgetUsd", [1]),
    ("timeoutMs", 999), ("timeoutMs", 0), ("timeoutMs", -5), ("timeoutMs", "2000"), ("timeoutMs", 2000.5), ("timeoutMs", 300001), ("timeoutMs", True),
    ("stream", "yes"), ("stream", 1), ("background", "yes"), ("background", 1),
]


@pytest.mark.parametrize("name, value", BAD, ids=lambda value: json.dumps(value)[:50])
def test_a_bad_parameter_is_named(service, name, value):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", name: value})
    refused(answer, 400, "invalid_request", name)
    if name != "schema":  # which the CLI checks
        assert "cli.pid" not in service.request_line(answer.headers["x-request-id"]), "it was run"


@pytest.mark.parametrize("server", [
    5, {}, {"command": 5}, {"command": ""}, {"command": "x", "args": "y"}, {"command": "x", "args": [5]}, {"command": "x", "env": {"A": 5}},
    {"type": "nonsense", "url": "http://127.0.0.1/"}, {"type": "http"}, {"type": "http", "url": 5},
    {"type": "sse", "url": "http://x/", "headers": {"A": 5}},
], ids=lambda value: json.dumps(value)[:50])
def test_a_bad_server_is_named(open_handed, server):
    refused(ask(open_handed, "POST", "/api/run", json={"prompt": "x", "mcpServers": {"a": server}}), 400, "invalid_request", "mcpServers")


@pytest.mark.parametrize("servers", [5, "x", [], [{"command": "x"}]], ids=str)
def test_servers_of_the_wrong_type_are_named(open_handed, servers):
    refused(ask(open_handed, "POST", "/api/run", json={"prompt": "x", "mcpServers": servers}), 400, "invalid_request", "mcpServers")


@pytest.mark.parametrize("first, second", [
    ({"stream": True}, {"background": True}), ({"ephemeral": True}, {"sessionId": "00000000-0000-4000-8000-000000000000"}),
    ({"fork": True}, {}), ({"fork": True}, {"ephemeral": True})], ids=str)
def test_what_does_not_go_together_is_refused(service, first, second):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", **first, **second})
    assert refused(answer, 400, "invalid_request")
    assert answer.json()["error"]["details"]["parameter"] in {*first, *second, "sessionId"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"null", b'"x"', b'{"prompt": "x\xff"}', b'{"prompt": "x"} x'], ids=repr)
def test_what_is_no_object_is_refused(service, body):
    refused(ask(service, "POST", "/api/run", content=body), 400, "invalid_request")


def test_null_counts_as_missing_and_the_unknown_is_named(service):
    names = {name for name, _ in BAD if name != "prompt"} | {"mcpServers"}
    answer = ask(service, "POST", "/api/run", json={"prompt": "[[say=ok]]", **dict.fromkeys(names), "nonsense": 1, "temperature": 0.5})
    assert answer.status_code == 200, answer.text
    check_reply(answer.json())
    assert {name.strip() for name in answer.headers["x-claude-ignored"].split(",")} == {"nonsense", "temperature"}


def test_a_model_that_is_none_is_a_404(service):
    refused(ask(service, "POST", "/api/run", json={"prompt": "x", "model": "nonsense"}), 404, "model_not_found")


@pytest.mark.parametrize("id", ["nonsense", "", "00000000-0000-4000-8000-000000000000", "--help", "../x", "x" * 5000])
def test_a_session_that_is_none_is_a_404(service, id):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", "sessionId": id})
    assert answer.status_code in ((400, 404) if id == "" else (404,)), answer.text
    assert answer.json()["error"]["details"]["parameter"] == "sessionId"


@pytest.mark.parametrize("mode", ["bypassPermissions", "nonsense", ""])
def test_a_permission_mode_that_the_operator_does_not_offer_is_refused(service, mode):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", "permissionMode": mode})
    refused(answer, 403 if mode == "bypassPermissions" else answer.status_code, None, "permissionMode")
    assert answer.status_code in (400, 403)


def test_servers_are_refused_unless_the_operator_allows_them(service):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", "mcpServers": {"a": {"command": "/bin/true"}}})
    assert "ALLOW_MCP_SERVERS" in refused(answer, 403, "forbidden", "mcpServers")
    assert run(service, "[[say=ok]]", mcpServers={})["result"] == "ok"


# ---- the reply ---------------------------------------------------------------------------------------------------------------


def test_a_reply_says_everything(service, directory, mark):
    (directory / "a").write_text("content of a\n")
    prompt = f"{mark} [[usage=100,20,3]] {tool('Read', file_path=str(directory / 'a'))} {bash('echo one')} [[then=the end]]"
    reply = run(service, prompt, allowedTools=["Read", "Bash"], workingDirectory=str(directory), model="sonnet")
    check_reply(reply)
    assert reply["result"] == "the end" and reply["turns"] == 2 and reply["stopReason"] == "end_turn" and "sonnet" in reply["model"]
    assert reply["workingDirectory"] == str(directory) and reply["permissionDenials"] == [] and reply["structuredOutput"] is None
    assert sorted(reply["toolsUsed"], key=lambda used: used["name"]) == [{"name": "Bash", "count": 1}, {"name": "Read", "count": 1}]
    usage = reply["usage"]
    assert usage["inputTokens"] >= 100 and usage["cacheReadTokens"] >= 20 and usage["cacheCreationTokens"] >= 3 and usage["outputTokens"] > 0
    assert reply["costUsd"] > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_failure_has_its_status_or_its_event(service, streamed):
    answer = ask(service, "POST", "/api/run", json={"prompt": "[[error=400]]", "stream": streamed})
    if answer.status_code == 200:
        events = [(name, data) for _, name, data in numbered_events(answer.text)]
        check_stream(events)
        assert events[-1][0] == "error" and events[-1][1]["code"] == "invalid_request"
        assert streamed
    else:
        refused(answer, 400, "invalid_request")


# ---- each parameter, seen where it arrives -----------------------------------------------------------------------------------


def test_a_prompt_of_blocks_arrives_natively(service, mark):
    run(service, [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a document"}, "title": "T"},
        {"type": "search_result", "source": "https://example.org/", "title": "S", "content": [{"type": "text", "text": "found"}]},
        {"type": "text", "text": f"{mark} [[say=ok]]"}])
    for kind in ("image", "document", "search_result"):
        assert len(blocks(service, mark, kind)) == 1, kind
    assert blocks(service, mark, "image")[0]["source"]["data"] == PIXEL


def test_a_path_in_a_prompt_reads_no_file(service, directory, mark):
    (directory / "canary.txt").write_text("the-secret-of-the-file")
    for number, prompt in enumerate((f"@{directory}/canary.txt", "@canary.txt", [{"type": "text", "text": "@canary.txt"}])):
        prompt = f"{mark}-{number} {prompt}" if isinstance(prompt, str) else [*prompt, {"type": "text", "text": f"{mark}-{number}"}]
        run(service, prompt, workingDirectory=str(directory), appendSystemPrompt=f"@{directory}/canary.txt")
        assert "the-secret-of-the-file" not in json.dumps(service.upstream_body(f"{mark}-{number}"))


def test_the_model_is_the_one_that_was_named(service, mark):
    reply = run(service, f"{mark} [[say=ok]]", model="haiku")
    assert "haiku" in service.upstream_body(mark)["model"] and "haiku" in reply["model"]


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
def test_effort_arrives(service, mark, effort):
    run(service, f"{mark} [[say=ok]]", model="opus", effort=effort)
    assert service.upstream_body(mark)["output_config"]["effort"] == effort


def test_system_prompts_arrive(service, mark):
    def system(number):
        return "\n".join(texts(service.upstream_body(f"{mark}-{number}")["system"]))

    run(service, f"{mark}-0 [[say=ok]]")
    run(service, f"{mark}-1 [[say=ok]]", systemPrompt=f"Only this {mark}.")
    run(service, f"{mark}-2 [[say=ok]]", appendSystemPrompt=f"And this {mark}.")
    run(service, f"{mark}-3 [[say=ok]]", systemPrompt=f"Only this {mark}.", appendSystemPrompt=f"And this {mark}.")
    assert len(system(0)) > 3000
    assert f"Only this {mark}." in system(1) and len(system(1)) < 2500
    assert f"And this {mark}." in system(2) and len(system(2)) > 3000
    assert system(3).index(f"Only this {mark}.") < system(3).index(f"And this {mark}.") and len(system(3)) < 2500


def test_prompts_are_in_no_command_line(service, mark):
    body = DIRECT.body(
        f"{mark} [[stall=0]]", systemPrompt=f"system {mark}", appendSystemPrompt=f"append {mark}", schema={**SCHEMA, "description": mark},
        allowedTools=[f"Bash(echo {mark})"])
    with service.connect(DIRECT, body):
        until(lambda: service.recorded(mark), 20, "the request's way upstream", 0.05)
        for pid in service.clis():
            assert mark.encode() not in proc(pid, "cmdline")
    service.no_cli()


def test_an_answer_fits_its_schema(service, mark):
    reply = run(service, f"{mark} [[json={json.dumps({'n': 7})}]]", schema=SCHEMA)
    check_reply(reply)
    assert reply["structuredOutput"] == {"n": 7}
    events = stream(service, f"{mark} [[json={json.dumps({'n': 8})}]]", schema=SCHEMA)
    check_stream(events)
    assert events[-1][1]["structuredOutput"] == {"n": 8}
    reply = run(service, f"{mark} {bash('echo x')} [[json={json.dumps({'n': 9})}]]", schema=SCHEMA, allowedTools=["Bash"])
    assert reply["structuredOutput"] == {"n": 9} and {"name": "Bash", "count": 1} in reply["toolsUsed"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_run_has_so_many_turns(service, mark, streamed):
    prompt = f"{mark} {bash('echo one')} [[then_tool=Bash {json.dumps({'command': 'echo two', 'description': 'x'})}]] [[then=end]]"
    body = {"allowedTools": ["Bash"], "maxTurns": 1}
    if streamed:
        events = stream(service, prompt, **body)
        check_stream(events)
        reply = events[-1][1]
    else:
        reply = run(service, prompt, **body)
    check_reply(reply)
    assert reply["stopReason"] == "max_turns" and reply["turns"] <= 2
    assert len(service.recorded(mark)) == 1
    # The conversation goes on from there.
    later = run(service, f"{mark}-later [[say=on]]", sessionId=reply["sessionId"])
    assert later["result"] == "on" and f"{mark} " in json.dumps(said(service, f"{mark}-later"))
    reply = run(service, prompt, allowedTools=["Bash"], maxTurns=10)
    assert reply["stopReason"] == "end_turn" and reply["result"] == "end" and reply["turns"] == 3


def test_a_run_has_so_much_money(service, mark):
    prompt = f"{mark} [[usage=100000,0,0]] {bash('echo one')} [[then=end]]"
    reply = run(service, prompt, allowedTools=["Bash"], maxBudgetUsd=0.01)
    check_reply(reply)
    assert reply["stopReason"] == "max_budget" and reply["costUsd"] > 0.01
    assert run(service, f"{mark}-later [[say=on]]", sessionId=reply["sessionId"])["result"] == "on"
    assert run(service, prompt, allowedTools=["Bash"], maxBudgetUsd=1000)["stopReason"] == "end_turn"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_run_has_so_much_time(service, mark, streamed):
    body = {"prompt": f"{mark} [[stall=2]]", "timeoutMs": 3000, "stream": streamed}
    answer, seconds = timed(lambda: ask(service, "POST", "/api/run", json=body))
    assert 2.9 < seconds < 30
    if streamed and answer.status_code == 200:
        events = [(name, data) for _, name, data in numbered_events(answer.text)]
        check_stream(events)
        assert events[-1][0] == "error" and events[-1][1]["code"] == "timeout"
    else:
        refused(answer, 504, "timeout")
    service.no_cli()


# ---- streams -----------------------------------------------------------------------------------------------------------------


def test_a_stream_has_everything_in_order(service, directory, mark):
    prompt = (
        f"{mark} [[think=hm]] [[usage=10,0,0]] {bash('echo the-output')} "
        f"{tool('Write', file_path=str(directory / 'made'), content='x')} [[then=the end of it]]")
    events = stream(service, prompt, allowedTools=["Bash", "Write"], workingDirectory=str(directory), effort="high", model="opus")
    check_stream(events)
    assert events[0][1]["workingDirectory"] == str(directory)
    calls, results = of(events, "tool_use"), of(events, "tool_result")
    assert [(call["name"], call["input"].get("command")) for call in calls] == [("Bash", "echo the-output"), ("Write", None)]
    assert [result["toolUseId"] for result in results] == [call["id"] for call in calls]
    assert not any(result["isError"] for result in results) and "the-output" in json.dumps(results[0]["content"])
    assert "".join(data["text"] for data in of(events, "text")).endswith("the end of it")
    assert len(of(events, "usage")) == 2 and events[-1][1]["turns"] == 2 and events[-1][1]["result"] == "the end of it"
    assert (directory / "made").exists()


def test_a_stream_comes_as_it_is_written(service, mark):
    with service.client() as client, client.stream(
            "POST", "/api/run", json={"prompt": f"{mark} [[tokens=10]] [[delay_ms=400]]", "stream": True}) as answer:
        assert answer.status_code == 200
        times = [time.monotonic() for line in answer.iter_lines() if line.startswith("event: text") or line.startswith("event:text")]
    assert len(times) >= 10 and times[-1] - times[0] > 1
    assert "x-request-id" in answer.headers


def test_what_was_thought_is_streamed_as_such(service, mark):
    for model in ("opus", "haiku", "sonnet"):
        events = stream(service, f"{mark} [[think=a musing]] [[say=the word]]", model=model, effort="high")
        check_stream(events)
        assert "".join(data["text"] for data in of(events, "thinking")) == "a musing"
        assert "".join(data["text"] for data in of(events, "text")) == events[-1][1]["result"] == "the word"


def test_a_failing_tool_is_an_error_in_its_result(service, mark):
    events = stream(service, f"{mark} {bash('echo broken >&2; exit 3')} [[then=so]]", allowedTools=["Bash"])
    check_stream(events)
    assert of(events, "tool_result")[0]["isError"] is True and "broken" in json.dumps(of(events, "tool_result"))
    assert events[-1][0] == "result"


def test_a_stream_that_breaks_off_ends_with_an_error(service, mark):
    # Two attempts too many for a test; what counts is the end.
    events = stream(service, f"{mark} [[tokens=9]] [[error_after=3]]")
    check_stream(events)
    assert events[-1][0] == "error" and events[-1][1]["code"] in ("overloaded", "upstream_error")


def test_a_refusal_of_a_stream_is_no_stream(service):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", "stream": True, "workingDirectory": "/etc"})
    refused(answer, 403, "forbidden")
    assert answer.headers["content-type"].startswith("application/json")


# ---- the rest ----------------------------------------------------------------------------------------------------------------


def test_a_body_of_many_megabytes_is_taken_and_a_larger_one_is_not(service, mark):
    answer = ask(service, "POST", "/api/run", json={"prompt": "x", "nonsense": "y" * 34_000_000})
    assert answer.status_code == 413
    assert run(service, f"{mark} [[say=ok]] " + "word " * 100_000)["result"] == "ok"


@pytest.mark.parametrize("path, method", [
    ("/api/run", "GET"), ("/api/run", "DELETE"), ("/api/runs/run_x", "POST"), ("/api/runs/run_x", "DELETE"), ("/api/runs/run_x/events", "POST"),
    ("/api/runs/run_x/cancel", "GET"), ("/api/sessions", "POST"), ("/api/sessions/x", "POST"), ("/api/sessions/x", "PUT")])
def test_a_method_that_a_path_has_not_is_a_405(fake, path, method):
    answer = ask(fake, method, path)
    refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/runs", "/api/runs/", "/api/runs/x/y", "/api/sessions/x/y", "/api/nonsense"])
def test_a_path_that_is_none_is_a_404(fake, path):
    answer = ask(fake, "GET", path)
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/api/run", "/api/runs/run_x", "/api/runs/run_x/events", "/api/runs/run_x/cancel"])
def test_every_route_wants_a_key(fake, path):
    method = "POST" if path.endswith(("run", "cancel")) else "GET"
    assert ask(fake, method, path, {"Authorization": "Bearer wrong-key-of-nobody"}).status_code == 401
    answer = fake.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
    assert parse_raw(answer)[0] == 401


def test_a_full_queue_refuses_runs_of_every_kind():
    with Service(cli="fake", WORKER_CONCURRENCY=1, MAX_QUEUE_SIZE=0, RESPONDERS=1) as service:
        service.mode("held")
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(run, service, "first")
            until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 20)
            for extra in ({}, {"stream": True}, {"ephemeral": True}):
                answer = ask(service, "POST", "/api/run", json={"prompt": "x", **extra})
                refused(answer, 429, "queue_full")
                assert int(answer.headers["retry-after"]) >= 1
            assert ask(service, "GET", "/api/sessions").json()["sessions"] == []
            (service.base / "go").touch()
            id = first.result()["sessionId"]
        # Those that were refused began no sessions.
        assert [entry["id"] for entry in ask(service, "GET", "/api/sessions").json()["sessions"]] == [id]
        assert [path.name for path in (service.state_dir / "sessions").glob("*")] == [id]


def test_one_reply_for_every_way_to_ask(service, mark):
    """Whole, streamed and in the background: the same reply but for ids and times."""
    prompt = f"{mark} {bash('echo x')} [[then=end]]"
    replies = [
        run(service, prompt, allowedTools=["Bash"]), stream(service, prompt, allowedTools=["Bash"])[-1][1],
        ended(service, begin(service, prompt, allowedTools=["Bash"]))["result"]]
    own = {"id", "sessionId", "durationMs", "workingDirectory", "usage", "costUsd"}
    assert all({name: value for name, value in reply.items() if name not in own} == {
        name: value for name, value in replies[0].items() if name not in own} for reply in replies)


def test_a_reply_of_a_closed_connection_costs_nothing(service, mark):
    with socket.create_connection(("127.0.0.1", service.port), 5) as connection:
        connection.sendall(f"POST /api/run HTTP/1.1\r\nHost: x\r\nx-api-key: {service.key}\r\nContent-Length: 100\r\n\r\n{{".encode())
    service.no_cli()
    assert re.fullmatch("ok", run(service, f"{mark} [[say=ok]]")["result"])
