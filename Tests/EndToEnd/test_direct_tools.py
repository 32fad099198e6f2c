"""`POST /api/run` with tools: the CLI's own, and those of MCP servers that the caller names."""

import http.server
import json
import sys
import threading

import pytest

from dialects import DIRECT
from direct import ask, bash, blocks, refused, run, timed, tool, tool_results
from service import pids, proc, until

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
    assert reply["result"] == "so" and seconds < 50
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
            assert f"secret-{mark}".encode() not in proc(pid, "cmdline")
    open_handed.no_cli()
    assert f"secret-{mark}" not in open_handed.all_logs()


def test_a_server_ends_with_its_run(open_handed, mark, probe):
    run(open_handed, f"{mark} [[tool=mcp__probe__echo {{}}]]", mcpServers={"probe": probe}, allowedTools=["mcp__probe"])

    def servers():
        return [pid for pid in pids() if probe["args"][0].encode() in proc(pid, "cmdline")]

    until(lambda: not servers(), 20, "the end of the server")


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
