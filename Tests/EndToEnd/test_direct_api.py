"""`POST /api/run` in all its parameters: what each does to the run, and what is refused."""

import http.server
import json
import os
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dialects import DIRECT
from direct import (
    ask, bash, begin, blocks, check_reply, check_stream, ended, numbered_events, of, refused, run, said, stream, timed, tool, tool_results)
from service import Service, parse_raw, until
from test_conversations import texts
from test_run import program

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(scope="module")
def limited(workspace):
    """An operator who allows little, and two keys that may do less, and something else."""
    (workspace / "for-alice").mkdir()
    (workspace / "for-all").mkdir()
    keys = {
        "alice": f"directories={workspace}/for-alice:{workspace}/for-nobody tools=Read,Bash", "bob": "concurrency=2 tools=Bash",
        "carol": "queue=5"}
    with Service(
            keys=keys, ALLOWED_DIRECTORIES=workspace, ALLOWED_TOOLS="Read,Glob,Bash(echo *),Write", PERMISSION_MODES="default,plan",
            WORKER_CONCURRENCY=4, REQUEST_TIMEOUT_MS=60000) as service:
        yield service


@pytest.fixture(scope="module")
def open_handed(workspace):
    """An operator who allows MCP servers and every mode."""
    with Service(
            ALLOW_MCP_SERVERS="true", PERMISSION_MODES="default,acceptEdits,plan,dontAsk,bypassPermissions", ALLOWED_DIRECTORIES=workspace,
            WORKER_CONCURRENCY=4, IS_SANDBOX=1) as service:
        yield service


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
            assert mark.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
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
    assert 2.9 < seconds < 10
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
            "POST", "/api/run", json={"prompt": f"{mark} [[tokens=10]] [[delay_ms=150]]", "stream": True}) as answer:
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


# ---- tools -------------------------------------------------------------------------------------------------------------------


def snapshot_of(root):
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_loop_of_tools_works_in_its_directory_and_nowhere_else(service, workspace, directory, mark):
    before = snapshot_of(workspace)
    prompt = (
        f"{mark} {bash('mkdir sub; echo by bash > sub/bash.txt; pwd')} {tool('Write', file_path=str(directory / 'written.txt'), content='by write')} "
        f"{tool('Write', file_path=str(workspace / (mark + '-outside.txt')), content='x')} "
        f"[[then_tool=Read {json.dumps({'file_path': str(directory / 'written.txt')})}]] [[then=done]]")
    reply = run(service, prompt, allowedTools=["Bash", "Write", "Read"], workingDirectory=str(directory))
    assert reply["result"] == "done"
    assert (directory / "sub/bash.txt").read_text() == "by bash\n" and (directory / "written.txt").read_text() == "by write"
    made = {f"{directory.name}/{name}" for name in ("sub", "sub/bash.txt", "written.txt")}
    assert snapshot_of(workspace) - before == made
    assert "by write" in tool_results(service, mark) and str(directory) in tool_results(service, mark)
    assert [(denial["tool"], denial["input"]["file_path"]) for denial in reply["permissionDenials"]] == [
        ("Write", str(workspace / f"{mark}-outside.txt"))]
    assert {used["name"]: used["count"] for used in reply["toolsUsed"]} == {"Bash": 1, "Write": 2, "Read": 1}


@pytest.mark.parametrize("rule, command, works", [
    ("Bash(echo *)", "echo x > made", None), ("Bash(echo *)", "echo fine", True), ("Bash(touch made)", "touch made", True),
    ("Bash(touch made)", "touch other", False), ("Bash(echo *)", "touch other", False), ("Bash(echo *)", "echo a; touch other", False),
    ("Bash(echo *)", "echo $(touch other)", False), ("Bash(echo *)", "echo a && touch other", False), ("Bash(echo *)", "echo a | tee other", False),
])
def test_a_command_that_is_not_permitted_is_denied_and_told(service, directory, mark, rule, command, works):
    reply, seconds = timed(lambda: run(service, f"{mark} {bash(command)} [[then=so]]", allowedTools=[rule], workingDirectory=str(directory)))
    assert reply["result"] == "so" and seconds < 20
    if works is False:
        assert not (directory / "other").exists()
        assert [denial["tool"] for denial in reply["permissionDenials"]] == ["Bash"]
        denial = reply["permissionDenials"][0]
        assert denial["input"]["command"] == command and denial["toolUseId"] in json.dumps(blocks(service, mark, "tool_use"))
        assert blocks(service, mark, "tool_result")[0]["is_error"] is True
    elif works:
        assert reply["permissionDenials"] == []


def test_a_tool_that_was_not_named_can_be_called_in_vain(service, directory, mark):
    reply = run(service, f"{mark} {bash('touch made')} [[then=so]]", allowedTools=["Read"], workingDirectory=str(directory))
    assert list(directory.iterdir()) == [] and reply["result"] == "so"
    assert blocks(service, mark, "tool_result")[0]["is_error"] is True


def test_a_rule_for_files_holds_for_its_paths(service, directory, mark):
    (directory / "src").mkdir()
    calls = [tool("Write", file_path=str(directory / name), content="x") for name in ("src/in", "out")]
    prompt = f"{mark} {' '.join(calls)}"
    reply = run(service, prompt, allowedTools=["Write(./src/**)"], workingDirectory=str(directory))
    assert (directory / "src/in").exists() and not (directory / "out").exists()
    assert [denial["input"]["file_path"] for denial in reply["permissionDenials"]] == [str(directory / "out")]


def test_a_refused_tool_is_refused_whatever_is_granted(service, directory, mark):
    run(service, f"{mark}-0 [[say=ok]]", allowedTools=["Bash", "Read"], disallowedTools=["Bash"], workingDirectory=str(directory))
    assert {entry["name"] for entry in service.upstream_body(f"{mark}-0")["tools"]} == {"Read"}
    prompt = f"{mark} {bash('touch made')} {bash('echo fine > fine')}"
    reply = run(service, prompt, allowedTools=["Bash"], disallowedTools=["Bash(touch *)"], workingDirectory=str(directory))
    assert [path.name for path in directory.iterdir()] == ["fine"]
    assert [denial["input"]["command"] for denial in reply["permissionDenials"]] == ["touch made"]


@pytest.mark.parametrize("mode, writes", [(None, False), ("default", False), ("acceptEdits", True), ("plan", False), ("dontAsk", False)], ids=str)
def test_a_permission_mode_does_what_it_says(service, directory, mark, mode, writes):
    prompt = f"{mark} {tool('Write', file_path=str(directory / 'made'), content='x')} [[then=so]]"
    reply = run(service, prompt, allowedTools=["Write(./src/**)"], permissionMode=mode, workingDirectory=str(directory))
    assert reply["result"] == "so" and (directory / "made").exists() == writes
    assert bool(reply["permissionDenials"]) != writes


def test_a_plan_writes_nothing_whatever_is_granted(service, directory, mark):
    prompt = f"{mark} {tool('Write', file_path=str(directory / 'made'), content='x')} {bash('touch other')} [[then=so]]"
    run(service, prompt, allowedTools=["Write", "Bash"], permissionMode="plan", workingDirectory=str(directory))
    assert not (directory / "made").exists()


def test_edits_are_accepted_in_the_runs_directories_only(service, workspace, directory, mark):
    outside = workspace / f"{mark}-outside"
    reply = run(service, f"{mark} {tool('Write', file_path=str(outside), content='x')}", allowedTools=["Write"], permissionMode="acceptEdits",
                workingDirectory=str(directory))
    assert not outside.exists() and reply["permissionDenials"]


def test_every_permission_can_be_bypassed_where_the_operator_offers_it(open_handed, directory, mark):
    """The CLI takes this from root with IS_SANDBOX only."""
    run(open_handed, f"{mark} {bash('touch made')}", allowedTools=["Bash"], permissionMode="bypassPermissions", workingDirectory=str(directory))
    assert (directory / "made").exists()


@pytest.mark.parametrize("name", [
    "Agent", "Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "Skill", "Task", "TodoWrite", "WebFetch",
    "WebSearch", "Write"])
def test_every_tool_of_the_documentation_may_be_named(service, mark, name):
    run(service, f"{mark} [[say=ok]]", allowedTools=[name])


@pytest.mark.parametrize("how", ["settings", "hooks", "CLAUDE.md", "mcp", "skills"])
def test_nothing_of_the_directory_is_read_by_itself(service, directory, mark, how):
    """Settings that grant, hooks that run, texts that speak, servers that start."""
    (directory / ".claude").mkdir()
    made = directory.parent / f"{mark}-ran"
    files = {
        "settings": (".claude/settings.json", json.dumps({"permissions": {"allow": ["Write", "Edit"], "defaultMode": "acceptEdits"}})),
        "hooks": (".claude/settings.local.json", json.dumps({"hooks": {
            event: [{"matcher": "*", "hooks": [{"type": "command", "command": f"touch {made}"}]}]
            for event in ("SessionStart", "UserPromptSubmit", "PreToolUse", "Stop")}})),
        "CLAUDE.md": ("CLAUDE.md", "canary-of-the-directory"),
        "mcp": (".mcp.json", json.dumps({"mcpServers": {"x": {"command": "touch", "args": [str(made)]}}})),
        "skills": (
            ".claude/skills/canary-of-the-directory/SKILL.md",
            "---\nname: canary-of-the-directory\ndescription: canary-of-the-directory\n---\nx"),
    }
    path, content = files[how]
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(content)
    written = directory / "outside-of-src"
    prompt = f"{mark} {tool('Write', file_path=str(written), content='x')}"
    run(service, prompt, allowedTools=["Write(./src/**)", "Skill"], workingDirectory=str(directory))
    assert not written.exists() and not made.exists()
    assert "canary-of-the-directory" not in json.dumps(service.upstream_body(mark))


# ---- what an operator and a key allow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools, fits", [
    (["Read"], True), (["Glob", "Read"], True), (["Bash(echo *)"], True), (["Write"], True), (["Write(./src/**)"], True), ([], True),
    (["Bash"], False), (["Bash(rm *)"], False), (["Edit"], False), (["WebFetch"], False), (["Read", "Task"], False),
])
def test_an_operators_tools_bound_every_caller(limited, tools, fits):
    answer = ask(limited, "POST", "/api/run", json={"prompt": "[[say=ok]]", "allowedTools": tools})
    if fits:
        assert answer.status_code == 200, answer.text
    else:
        message = refused(answer, 403, "forbidden", "allowedTools")
        assert "ALLOWED_TOOLS" in message or "allowed" in message


def test_without_names_the_default_tools_keep_to_what_is_allowed(limited, mark):
    """`Grep` is none of the operator's tools: either the rest is taken, or the caller is told."""
    answer = ask(limited, "POST", "/api/run", json={"prompt": f"{mark} [[say=ok]]"})
    if answer.status_code == 200:
        assert {entry["name"] for entry in limited.upstream_body(mark).get("tools", [])} <= {"Read", "Glob"}
    else:
        refused(answer, 403, "forbidden", "allowedTools")


@pytest.mark.parametrize("mode, fits", [("default", True), ("plan", True), ("acceptEdits", False), ("dontAsk", False), ("bypassPermissions", False)])
def test_an_operators_modes_bound_every_caller(limited, mode, fits):
    answer = ask(limited, "POST", "/api/run", json={"prompt": "[[say=ok]]", "permissionMode": mode, "allowedTools": ["Read"]})
    if fits:
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, 403, "forbidden", "permissionMode")


def as_key(service, name, **body):
    return ask(service, "POST", "/api/run", service.authorization_of(name), json={"prompt": "[[say=ok]]", "allowedTools": ["Read"], **body})


def test_a_key_works_in_its_own_directories(limited, workspace):
    assert as_key(limited, "alice", workingDirectory=f"{workspace}/for-alice").status_code == 200
    for place in ("for-all", ""):
        refused(as_key(limited, "alice", workingDirectory=f"{workspace}/{place}"), 403, "forbidden", "workingDirectory")
        assert as_key(limited, "carol", workingDirectory=f"{workspace}/{place}").status_code == 200
    refused(as_key(limited, "alice", addDirs=[f"{workspace}/for-all"]), 403, "forbidden", "addDirs")
    assert as_key(limited, "alice", addDirs=[f"{workspace}/for-alice"]).status_code == 200
    message = as_key(limited, "alice", workingDirectory=f"{workspace}/for-all").json()["error"]["message"]
    assert "for-alice" in message
    # One's own directory is everybody's right.
    assert as_key(limited, "alice").status_code == 200


def test_a_key_has_its_own_tools(limited):
    """They narrow the operator's, and widen nothing."""
    for name in ("alice", "bob", "carol"):
        assert as_key(limited, name, allowedTools=["Bash(echo *)"]).status_code == 200
        refused(as_key(limited, name, allowedTools=["Bash"]), 403, "forbidden", "allowedTools")
    for name, tools in (("alice", ["Write"]), ("alice", ["Glob"]), ("bob", ["Read"]), ("bob", ["Write"]), ("carol", ["Edit"])):
        refused(as_key(limited, name, allowedTools=tools), 403, "forbidden", "allowedTools")
    assert as_key(limited, "bob", allowedTools=[]).status_code == 200
    assert as_key(limited, "carol", allowedTools=["Write"]).status_code == 200


@pytest.mark.parametrize("rest", [
    "directories=relative", "directories=", "tools=Nonsense", "tools=Bash(", "directories=/a:relative", "nonsense=1"])
def test_a_fault_in_the_keys_file_stops_the_start_with_its_line(limited, tmp_path, rest):
    path = tmp_path / "keys"
    path.write_text(f"# mine\nalice:{'0' * 64} {rest}\n")
    ended_with = program(limited, "check", PROXY_API_KEYS_FILE=path)
    text = ended_with.stdout + ended_with.stderr
    assert ended_with.returncode != 0 and "PROXY_API_KEYS_FILE" in text and "line 2" in text, text


@pytest.mark.parametrize("variable, value", [
    ("ALLOWED_TOOLS", "Nonsense"), ("ALLOWED_TOOLS", "Bash("), ("PERMISSION_MODES", "nonsense"), ("PERMISSION_MODES", "default,,x"),
    ("ALLOW_MCP_SERVERS", "perhaps"), ("SESSION_TITLES", "perhaps")])
def test_a_bad_setting_is_named(limited, variable, value):
    ended_with = program(limited, "settings", "--shell", **{variable: value})
    assert ended_with.returncode != 0 and variable in ended_with.stderr, ended_with


# ---- directories -------------------------------------------------------------------------------------------------------------


def test_added_directories_are_the_file_tools(service, workspace, directory, mark):
    added, other = workspace / f"{mark}-added", workspace / f"{mark}-other"
    for place in (added, other):
        place.mkdir()
        (place / "there").write_text(f"content of {place.name}")
    prompt = f"{mark} {tool('Read', file_path=str(added / 'there'))} {tool('Read', file_path=str(other / 'there'))}"
    reply = run(service, prompt, allowedTools=["Read"], workingDirectory=str(directory), addDirs=[str(added)])
    assert f"content of {added.name}" in tool_results(service, mark) and f"content of {other.name}" not in tool_results(service, mark)
    assert len(reply["permissionDenials"]) == 1
    prompt = f"{mark}-2 {tool('Write', file_path=str(added / 'made'), content='x')} {tool('Write', file_path=str(other / 'made'), content='x')}"
    run(service, prompt, allowedTools=["Write"], workingDirectory=str(directory), addDirs=[str(added)])
    assert (added / "made").exists() and not (other / "made").exists()


def paths(workspace, mark):
    """Ways out of the allowed directories, with the status that each is refused with."""
    place = workspace / f"{mark}-tricks"
    place.mkdir()
    (place / "out").symlink_to("/etc")
    (place / "root").symlink_to("/")
    (place / "chain").symlink_to(place / "out")
    (place / "relative").symlink_to("../../..")
    (place / "loop").symlink_to("loop")
    (place / "self").symlink_to("/proc/self/cwd")
    (place / "file").write_text("x")
    (place / "in").mkdir()
    os.mkdir(os.fsencode(str(place)) + b"/n\xffn")
    os.symlink(b"n\xffn", os.fsencode(str(place / "nameless")))
    sibling = Path(f"{workspace}-sibling")
    return {
        "dots": (f"{place}/../../..", (400,)), "dots inside": (f"{place}/in/..", (400,)), "dots at the end": (f"{workspace}/..", (400,)),
        "link": (f"{place}/out", (403,)), "link with slash": (f"{place}/out/", (403,)), "below a link": (f"{place}/root/etc", (403,)),
        "chain": (f"{place}/chain", (403,)), "relative link": (f"{place}/relative", (403,)), "loop": (f"{place}/loop", (400, 403)),
        "/proc/self/cwd": ("/proc/self/cwd", (403,)), "/proc/self/root": ("/proc/self/root", (403,)), "link to /proc": (f"{place}/self", (403,)),
        "/proc/1/cwd": ("/proc/1/cwd", (403,)), "/proc/thread-self": ("/proc/thread-self/cwd", (403,)), "/dev/fd": ("/dev/fd/0", (403,)),
        "root": ("/", (403,)), "double slash": ("//etc", (403,)), "slash": ("/etc/", (403,)), "dot": (f"{place}/./out", (400, 403)),
        "sibling": (str(sibling), (403,)), "prefix": (str(workspace)[:-1], (403,)), "file": (f"{place}/file", (400, 403)),
        "file with slash": (f"{place}/file/", (400, 403)), "missing": (f"{place}/missing", (400,)), "not UTF-8": (f"{place}/nameless", (400, 403)),
        "long": (f"{place}/" + "x" * 5000, (400, 403)), "surrogate": (f"{place}/\ud800", (400, 403)), "new line": (f"{place}/in\n", (400, 403)),
        "space": (f" {place}/in", (400,)), "home": ("~/x", (400,)),
    }


@pytest.fixture(scope="module")
def tricks(workspace):
    return paths(workspace, "module")


NAMES = [
    "dots", "dots inside", "dots at the end", "link", "link with slash", "below a link", "chain", "relative link", "loop", "/proc/self/cwd",
    "/proc/self/root", "link to /proc", "/proc/1/cwd", "/proc/thread-self", "/dev/fd", "root", "double slash", "slash", "dot", "sibling", "prefix",
    "file", "file with slash", "missing", "not UTF-8", "long", "surrogate", "new line", "space", "home"]


@pytest.mark.parametrize("field", ["workingDirectory", "addDirs"])
@pytest.mark.parametrize("name", NAMES)
def test_no_path_leads_out_of_the_allowed_directories(fake, tricks, field, name):
    path, statuses = tricks[name]
    body = json.dumps({"prompt": "x", "allowedTools": ["Read"], field: path if field == "workingDirectory" else [path]})
    answer = ask(fake, "POST", "/api/run", content=body)
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text}"
    if name != "surrogate":
        refused(answer, answer.status_code, None, field)


def test_bytes_that_are_no_text_are_no_path(fake, tricks):
    place = os.fsencode(str(Path(tricks["file"][0]).parent)) + b"/n\xffn"
    refused(ask(fake, "POST", "/api/run", content=b'{"prompt": "x", "workingDirectory": "' + place + b'"}'), 400, "invalid_request")


def test_a_trailing_slash_and_a_link_that_stays_inside_are_fine(fake, workspace, directory, mark):
    (directory / "real").mkdir()
    (directory / "link").symlink_to("real")
    fake.mode("where")
    for path in (f"{directory}/real/", f"{directory}/link", f"{directory}/link/", f"{directory}//real", f"{directory}/./real"):
        reply = run(fake, "x", workingDirectory=path)
        assert reply["result"] == reply["workingDirectory"] == str(directory / "real"), path


@pytest.mark.parametrize("field", ["workingDirectory", "addDirs"])
def test_a_link_that_is_swapped_meanwhile_leads_nowhere_else(fake, workspace, directory, tmp_path, field):
    """Hundreds of requests, while a link inside points in and out in turns: each is refused, or its CLI is where it may be."""
    (directory / "real").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    link, over = directory / "link", threading.Event()
    link.symlink_to("real")

    def swap():
        number = 0
        while not over.is_set():
            number += 1
            other = directory / f"new-{number}"
            other.symlink_to(outside if number % 2 else directory / "real")
            os.rename(other, link)

    fake.mode("where")
    seen = {"in": 0, "refused": 0}
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            body = {"prompt": "x", "allowedTools": ["Read"], "ephemeral": True, field: str(link) if field == "workingDirectory" else [str(link)]}
            for answer in pool.map(lambda _: ask(fake, "POST", "/api/run", json=body), range(300)):
                if answer.status_code == 200:
                    seen["in"] += 1
                    if field == "workingDirectory":
                        assert answer.json()["result"] == answer.json()["workingDirectory"] == str(directory / "real")
                else:
                    assert answer.status_code in (400, 403), answer.text
                    seen["refused"] += 1
    finally:
        over.set()
        swapper.join()
    print(seen)
    assert seen["in"] and seen["refused"], "this test wants both"


def test_an_added_link_that_is_swapped_later_opens_nothing(service, workspace, directory, tmp_path, mark):
    """The CLI is told where it leads, not its name."""
    (directory / "real").mkdir()
    (tmp_path / "secret").write_text("the-secret-outside")
    link = directory / "link"
    link.symlink_to("real")
    command = f"rm {link}; ln -s {tmp_path} {link}"
    prompt = f"{mark} {bash(command)} [[then_tool=Read {json.dumps({'file_path': str(link / 'secret')})}]] [[then=so]]"
    (workspace / f"{mark}-work").mkdir()
    run(service, prompt, allowedTools=["Bash", "Read"], workingDirectory=str(workspace / f"{mark}-work"), addDirs=[str(link)])
    assert os.readlink(link) == str(tmp_path)
    assert "the-secret-outside" not in tool_results(service, mark)


def test_a_session_goes_on_only_where_it_is_still_allowed(service, workspace, directory, tmp_path, mark):
    place = directory / "place"
    place.mkdir()
    id = run(service, f"{mark}-1 [[say=one]]", workingDirectory=str(place))["sessionId"]
    place.rmdir()
    place.symlink_to(tmp_path)
    answer = ask(service, "POST", "/api/run", json={"prompt": f"{mark}-2 {bash('touch made')}", "sessionId": id, "allowedTools": ["Bash"]})
    assert answer.status_code in (400, 403, 410), answer.text
    assert list(tmp_path.iterdir()) == []


def test_by_default_the_services_own_workspace_is_allowed():
    with Service(cli="fake") as service:
        place = service.state_dir / "workspace"
        until(place.is_dir, 5, "the workspace")
        (place / "a").mkdir()
        service.mode("where")
        assert run(service, "x", workingDirectory=str(place / "a"))["result"] == str(place / "a")
        for path in ("/tmp", str(service.state_dir), str(service.state_dir / "sessions")):
            refused(ask(service, "POST", "/api/run", json={"prompt": "x", "workingDirectory": path}), 403, "forbidden", "workingDirectory")


# ---- MCP servers -------------------------------------------------------------------------------------------------------------

SERVER = '''
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {}
    if message["method"] == "initialize":
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": name, "description": "d", "inputSchema": {"type": "object"}} for name in ("echo", "other")]}
    elif message["method"] == "tools/call":
        text = message["params"]["name"] + " of " + sys.argv[1] + " with " + os.environ.get("PROBE", "nothing")
        result = {"content": [{"type": "text", "text": text}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
'''


@pytest.fixture
def probe(tmp_path):
    """A server that is started, which tells its argument and its variable."""
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return {"command": sys.executable, "args": [str(path), "its-argument"], "env": {"PROBE": "its-variable"}}


@pytest.mark.parametrize("rule", ["mcp__probe__echo", "mcp__probe"])
def test_a_servers_tools_can_be_called(open_handed, mark, probe, rule):
    prompt = f"{mark} [[tool=mcp__probe__echo {{}}]] [[then=so]]"
    reply = run(open_handed, prompt, mcpServers={"probe": probe}, allowedTools=[rule])
    assert "echo of its-argument with its-variable" in tool_results(open_handed, mark)
    assert reply["toolsUsed"] == [{"name": "mcp__probe__echo", "count": 1}] and reply["permissionDenials"] == []
    assert "Bash" not in {entry["name"] for entry in open_handed.upstream_body(mark)["tools"]}


def test_a_servers_tool_that_was_not_named_is_denied(open_handed, mark, probe):
    prompt = f"{mark} [[tool=mcp__probe__other {{}}]] [[then=so]]"
    reply = run(open_handed, prompt, mcpServers={"probe": probe}, allowedTools=["mcp__probe__echo"])
    assert "its-argument" not in tool_results(open_handed, mark) and reply["result"] == "so"
    reply = run(open_handed, f"{mark}-2 [[tool=mcp__probe__echo {{}}]] [[then=so]]", mcpServers={"probe": probe})
    assert "its-argument" not in tool_results(open_handed, f"{mark}-2")


def test_a_servers_environment_is_in_no_command_line_and_no_log(open_handed, mark, probe):
    probe["env"]["PROBE"] = f"secret-{mark}"
    with open_handed.connect(DIRECT, DIRECT.body(f"{mark} [[stall=0]]", mcpServers={"probe": probe})):
        until(lambda: open_handed.recorded(mark), 20, "the request's way upstream", 0.05)
        for pid in open_handed.clis():
            assert f"secret-{mark}".encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    open_handed.no_cli()
    assert f"secret-{mark}" not in open_handed.all_logs()


def test_a_server_ends_with_its_run(open_handed, mark, probe):
    run(open_handed, f"{mark} [[tool=mcp__probe__echo {{}}]]", mcpServers={"probe": probe}, allowedTools=["mcp__probe"])

    def servers():
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and probe["args"][0].encode() in _command(pid)]

    until(lambda: not servers(), 5, "the end of the server")


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_server_that_does_not_start_is_named(open_handed, mark):
    answer = ask(open_handed, "POST", "/api/run", json={"prompt": f"{mark} [[say=ok]]", "mcpServers": {"broken": {"command": "/nonexistent"}}})
    refused(answer, 400, "invalid_request")
    assert answer.json()["error"]["details"] == {"parameter": "mcpServers.broken"}


def test_a_server_on_the_network_gets_its_headers(open_handed, mark):
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((message["method"], self.headers.get("X-Probe")))
            if "id" not in message:
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            result = {
                "initialize": lambda: {
                    "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"}},
                "tools/list": lambda: {"tools": [{"name": "far", "description": "d", "inputSchema": {"type": "object"}}]},
                "tools/call": lambda: {"content": [{"type": "text", "text": "from afar"}]},
            }.get(message["method"], dict)()
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        servers = {"net": {"type": "http", "url": f"http://127.0.0.1:{server.server_port}/mcp", "headers": {"X-Probe": "its-header"}}}
        run(open_handed, f"{mark} [[tool=mcp__net__far {{}}]]", mcpServers=servers, allowedTools=["mcp__net__far"])
    finally:
        server.shutdown()
        server.server_close()
    assert "from afar" in tool_results(open_handed, mark)
    assert ("tools/call", "its-header") in seen


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
            until(lambda: service.get("/health").json()["queue"]["processing"] == 1, 10)
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
