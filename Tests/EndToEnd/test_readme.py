"""The commands that the documentation shows, run as they stand: only the ports and the place of the certificate are this test's."""

import json
import os
import re
import subprocess

import pytest

from dialects import ANTHROPIC, OPENAI, events_of
from service import CHECKOUT

# The seed project's README, word for word.
MODELS = r'''curl http://localhost:6789/v1/models \
  -H "Authorization: Bearer $API_KEY"'''

CHAT = r'''curl http://localhost:6789/v1/chat/completions \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "sonnet",
    "messages": [{"role": "user", "content": "Hello!"}]
  }'
'''

STREAM = r'''curl -N http://localhost:6789/v1/chat/completions \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "sonnet",
    "stream": true,
    "messages": [{"role": "user", "content": "Write a haiku"}]
  }'
'''

MESSAGES = r'''curl http://localhost:6789/v1/messages \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "claude-sonnet-4-20250514",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello!"}]
  }'
'''

RUN = r'''curl http://localhost:6789/api/run \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "prompt": "List files here",
    "allowedTools": ["Bash", "Read"],
    "workingDirectory": "/some/path"
  }'
'''

SESSIONS = r'''curl http://localhost:6789/api/sessions \
  -H "Authorization: Bearer $API_KEY"'''

DELETION = r'''curl -X DELETE http://localhost:6789/api/sessions/session-id \
  -H "Authorization: Bearer $API_KEY"'''


def run(command, service, **replaced):
    """What a shell prints for the command, pasted as it is."""
    command = command.replace(":6789", f":{service.port}").replace(":6790", f":{service.tls_port}")
    command = command.replace(".run/", f"{service.run_dir}/")
    for old, new in replaced.items():
        command = command.replace(old, new)
    names = ("API_KEY", "PROXY_API_KEY", "KEY", "key")
    ended = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "no_proxy": "*", **dict.fromkeys(names, service.key)}, cwd=CHECKOUT,
        capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def session(service):
    """The id of a session of the key's."""
    return service.post("/api/run", {"prompt": "Hello!"}).json()["sessionId"]


def test_the_seed_lists_models(service):
    answer = json.loads(run(MODELS, service))
    assert answer["object"] == "list"
    assert {"opus", "sonnet", "haiku"} <= {model["id"] for model in answer["data"]}
    assert {model["owned_by"] for model in answer["data"]} == {"anthropic"}


def test_the_seed_chats(service):
    answer = json.loads(run(CHAT, service))
    assert answer["object"] == "chat.completion" and OPENAI.text(answer).strip()
    assert OPENAI.stop(answer) == "stop" and answer["usage"]["completion_tokens"] > 0


def test_the_seed_streams(service):
    events = events_of(run(STREAM, service))
    assert events[-1] == (None, "[DONE]")
    assert OPENAI.streamed_text(events).strip()
    assert [data["choices"][0]["finish_reason"] for _, data in events[:-1]][-1] == "stop"


def test_the_seed_speaks_anthropics_format(service):
    answer = json.loads(run(MESSAGES, service))
    assert answer["type"] == "message" and answer["role"] == "assistant" and ANTHROPIC.text(answer).strip()
    assert answer["model"] == "claude-sonnet-4-20250514" and answer["usage"]["output_tokens"] > 0


def test_the_seed_runs_in_a_directory(service, some_path):
    answer = json.loads(run(RUN, service, **{"/some/path": str(some_path)}))
    assert set(answer) >= {"id", "result", "sessionId", "durationMs"} and answer["result"].strip()


def test_the_seed_lists_and_deletes_sessions(service, session):
    listed = json.loads(run(SESSIONS, service))["sessions"]
    assert session in [entry["id"] for entry in listed]
    answer = json.loads(run(DELETION, service, **{"session-id": session}))
    assert answer == {"message": "Session deleted", "sessionId": session}
    assert session not in [entry["id"] for entry in json.loads(run(SESSIONS, service))["sessions"]]


def test_health_needs_no_key(service):
    answer = json.loads(run("curl http://localhost:6789/health", service))
    assert answer["status"] == "ok" and answer["uptime"] >= 0
    assert answer["queue"].keys() >= {"pending", "processing", "concurrency"}
    assert answer["sessions"].keys() >= {"total", "locked"}


def readme_commands():
    """The README's ```bash blocks that begin with curl; a blank line parts commands."""
    path = CHECKOUT / "README.md"
    text = path.read_text() if path.exists() else ""
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.S | re.M)
    commands = []
    for block in blocks:
        for command in re.split(r"\n\s*\n", block):
            command = "\n".join(line for line in command.splitlines() if not line.startswith("#"))
            if command.startswith("curl"):
                commands.append(command)
    return commands


def test_the_readme_shows_curl_commands():
    commands = [command.strip() for command in readme_commands()]
    assert commands
    for wanted in (MODELS, CHAT, STREAM, MESSAGES, RUN, SESSIONS, DELETION):
        assert wanted.strip() in commands, wanted


@pytest.mark.parametrize("command", readme_commands())
def test_the_readmes_commands_work_as_printed(service, command, some_path, session):
    output = run(command, service, **{"/some/path": str(some_path), "session-id": session})
    assert output.strip()
    if output.startswith(("data:", "event:")):
        assert OPENAI.is_whole(events_of(output)) or ANTHROPIC.is_whole(events_of(output))
    else:
        assert '"error"' not in output, output


def test_the_readme_stays_short():
    assert len((CHECKOUT / "README.md").read_text().splitlines()) < 150
