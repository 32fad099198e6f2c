"""The direct API as a client uses it: runs and their streams, sessions, runs in the background."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from dialects import DIRECT, check_error
from service import Service, until
from test_conversations import conversation, texts

UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RUN_ID = re.compile("run_[A-Za-z0-9_-]{8,}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
USAGE = {"inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens"}
REPLY = {
    "id", "result", "sessionId", "durationMs", "model", "stopReason", "turns", "workingDirectory", "usage", "costUsd", "toolsUsed",
    "permissionDenials", "structuredOutput"}
SESSION = {
    "id", "createdAt", "lastAccessedAt", "title", "workingDirectory", "model", "profile", "turns", "usage", "costUsd"}
ENDED = {"completed", "failed", "cancelled"}


def tool(name, **input):
    """The directive by which the model calls a tool."""
    return f"[[tool={name} {json.dumps(input)}]]"


def bash(command):
    return tool("Bash", command=command, description="x")


def stateful(cli=None, **settings):
    """A service with a second key, whose state is apart from its RUN_DIR."""
    service = Service(cli=cli, keys={"other": ""}, **settings)
    (service.base / "state").mkdir()
    service.environment["STATE_DIR"] = str(service.base / "state")
    return service


# ---- asking ------------------------------------------------------------------------------------------------------------------


def ask(service, method, path, headers=None, **options):
    """A request with the service's key, or with these headers."""
    with service.client(headers={**service.authorization, **(headers or {})}) as client:
        return client.request(method, path, **options)


def run(service, prompt, key=None, **body):
    """The reply of a run that must end well."""
    answer = ask(service, "POST", "/api/run", service.authorization_of(key) if key else None, json={"prompt": prompt, **body})
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    return answer.json()


def refused(answer, status, code=None, parameter=None):
    """Checks a refusal of the direct API; its message."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    message = check_error(DIRECT, answer.json(), code)
    if parameter:
        named = answer.json()["error"]["details"]["parameter"]
        assert named == parameter or named.startswith((parameter + "[", parameter + ".")), answer.text
    return message


def numbered_events(text):
    """A stream's events as (id, name, data); comments are left out."""
    found, number, name, data = [], None, None, []
    for line in text.split("\n"):
        if line.startswith("id:"):
            number = line[3:].strip()
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            found.append((number, name, json.loads("\n".join(data))))
            number, name, data = None, None, []
    return found


def stream(service, prompt, **body):
    """The events of a streamed run, as (name, data)."""
    answer = ask(service, "POST", "/api/run", json={"prompt": prompt, "stream": True, **body})
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [(name, data) for _, name, data in numbered_events(answer.text)]


def of(events, name):
    """The data of the events of one name."""
    return [data for found, data in events if found == name]


def check_stream(events):
    """What holds of every stream of a run."""
    names = [name for name, _ in events]
    assert set(names) <= {"start", "text", "thinking", "tool_use", "tool_result", "usage", "result", "error"}, names
    assert names[0] == "start" and names.count("start") == 1, names
    assert names[-1] in ("result", "error") and names.count("result") + names.count("error") == 1, names
    start = events[0][1]
    assert set(start) == {"id", "sessionId", "model", "workingDirectory"}
    calls = [data["id"] for data in of(events, "tool_use")]
    answered = [data["toolUseId"] for data in of(events, "tool_result")]
    assert answered == [call for call in calls if call in answered] and len(calls) == len(set(calls))
    for name, data in events:
        if name in ("text", "thinking"):
            assert set(data) == {"text"} and data["text"]
        elif name == "tool_use":
            assert set(data) == {"id", "name", "input"}
        elif name == "tool_result":
            assert set(data) == {"toolUseId", "isError", "content"}
            assert names.index("tool_use") < names.index("tool_result")
        elif name == "usage":
            assert USAGE <= set(data)
    if names[-1] == "result":
        reply = events[-1][1]
        check_reply(reply)
        for field in ("id", "sessionId", "workingDirectory"):
            assert reply[field] == start[field], field
    else:
        check_error(DIRECT, {"error": events[-1][1]})


def check_reply(reply):
    """The form of a run's reply."""
    assert set(reply) == REPLY, set(reply) ^ REPLY
    assert UUID.fullmatch(reply["id"]) or RUN_ID.fullmatch(reply["id"]), reply["id"]
    assert reply["sessionId"] is None or UUID.fullmatch(reply["sessionId"])
    assert isinstance(reply["result"], str) and isinstance(reply["model"], str) and reply["model"]
    assert isinstance(reply["durationMs"], int) and 0 < reply["durationMs"] < 120_000
    assert isinstance(reply["turns"], int) and reply["turns"] >= 1
    assert reply["workingDirectory"].startswith("/")
    assert set(reply["usage"]) == USAGE | {"thinkingTokens"}
    assert all(isinstance(count, int) and count >= 0 for count in reply["usage"].values())
    assert isinstance(reply["costUsd"], (int, float)) and reply["costUsd"] >= 0
    for used in reply["toolsUsed"]:
        assert set(used) == {"name", "count"} and used["count"] >= 1
    for denial in reply["permissionDenials"]:
        assert set(denial) == {"tool", "toolUseId", "input"}


# ---- what the model was sent -------------------------------------------------------------------------------------------------


def said(service, mark):
    """The user's and the model's texts of the last request with this word, in order."""
    return [(role, text) for role, text in conversation(service.upstream_body(mark)) if text]


def blocks(service, mark, kind):
    """The blocks of a kind in the last request with this word."""
    return [
        block for message in service.upstream_body(mark)["messages"] if isinstance(message["content"], list)
        for block in message["content"] if block["type"] == kind]


def tool_results(service, mark):
    """What the model was told of its tool calls."""
    found = blocks(service, mark, "tool_result")
    assert found, "no tool result reached the model"
    return "\n".join("\n".join(texts(block["content"])) if block.get("content") else "" for block in found)


# ---- sessions ----------------------------------------------------------------------------------------------------------------


def session(service, id, key=None):
    """A session with its messages."""
    answer = ask(service, "GET", f"/api/sessions/{id}", service.authorization_of(key) if key else None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def messages(service, id):
    """A session's messages as (role, text)."""
    return [(message["role"], "".join(texts(message["content"]))) for message in session(service, id)["messages"]]


def snapshot(service, id):
    """What a turn that fails must leave as it was."""
    found = session(service, id)
    return {name: value for name, value in found.items() if name != "lastAccessedAt"}


def delete(service, id, key=None):
    return ask(service, "DELETE", f"/api/sessions/{id}", service.authorization_of(key) if key else None)


def cli_session(service, mark):
    """The id that the CLI gave the conversation of the last request with this word."""
    return service.recorded(mark)[-1]["headers"]["x-claude-code-session-id"]


def traces(service, *ids):
    """Files and directories of the service's and of its CLIs' that are named after one of these ids."""
    roots = [service.state_dir, service.run_dir]
    paths = {f"{path}/{name}" for root in roots for path, inner, files in os.walk(root) for name in (*inner, *files)}
    return sorted(path for path in paths if any(id in path for id in ids))


def config_dir(service):
    """Where the CLIs keep what is their own: with the offline upstream a directory that `Scripts/run` makes."""
    found = service.run_dir / "claude"
    assert found.is_dir(), "nothing could be found there"
    return found


def transcripts(service):
    """The transcripts that are kept, and those that lie where the CLI makes them."""
    return sorted((service.state_dir / "transcripts").rglob("*.jsonl")) + sorted((config_dir(service) / "projects").rglob("*.jsonl"))


# ---- runs in the background --------------------------------------------------------------------------------------------------


def begin(service, prompt, **body):
    """Begins a run in the background; its id."""
    answer = ask(service, "POST", "/api/run", json={"prompt": prompt, "background": True, **body})
    assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
    reply = answer.json()
    assert set(reply) == {"id", "sessionId", "state"} and reply["state"] == "queued", reply
    assert RUN_ID.fullmatch(reply["id"]), reply
    return reply["id"]


def state(service, id):
    """A run as `GET` shows it, its form checked."""
    answer = ask(service, "GET", f"/api/runs/{id}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"id", "sessionId", "state", "createdAt", "progress", "result", "error"}, found
    assert found["id"] == id and found["state"] in ENDED | {"queued", "running"} and TIME.fullmatch(found["createdAt"])
    assert set(found["progress"]) == {"turns", "toolCalls", "textLength", "lastTool"}
    assert (found["result"] is not None) == (found["state"] == "completed"), found
    if found["result"]:
        check_reply(found["result"])
    if found["state"] == "failed":
        check_error(DIRECT, {"error": found["error"]})
    elif found["state"] != "cancelled":
        assert found["error"] is None
    return found


def ended(service, id, seconds=40):
    """Waits for a run's end."""
    return until(lambda: (found := state(service, id))["state"] in ENDED and found, seconds, f"the end of {id}", 0.05)


def run_events(service, id, after=None, header=None):
    """The stream of a run in the background, to its end."""
    headers = {"Last-Event-ID": str(header)} if header is not None else None
    answer = ask(service, "GET", f"/api/runs/{id}/events", headers, params={"after": after} if after is not None else None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return numbered_events(answer.text)


# ---- file systems that fail --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(directory, *how):
    """A mount at the directory; skips the test where mounting is not allowed."""
    directory.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", *how, str(directory)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def small_file_system(directory):
    """A file system of its own at the directory."""
    return mounted(directory, "-t", "tmpfs", "-o", "size=4m", "none")


def fill(directory):
    """Takes all space that is left in the directory's file system; the file that has it."""
    path = directory / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert shutil.disk_usage(directory).free == 0
    return path


def timed(action):
    """What the action returns, and how many seconds it took."""
    began = time.monotonic()
    value = action()
    return value, time.monotonic() - began
