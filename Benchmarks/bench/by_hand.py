"""`claude -p` as a person would run it for the same prompt: started for the occasion, fed with the conversation, read as stream-json.

The same CLI, the same upstream, the same options as the service's chats, so that the difference is the service. Each process is a session of its own, as
the service is: the kernel shares the processor out by sessions (autogroup), and one that shared ours would get less of a busy machine.
"""

import json
import os
import subprocess
import tempfile
import time

from .client import Reading

ARGUMENTS = [
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--include-partial-messages",
    "--setting-sources", "", "--strict-mcp-config", "--no-session-persistence", "--tools", "",
]


class ByHand:
    """Runs the CLI in front of a service's offline upstream."""

    def __init__(self, service, cli):
        self.cli = cli
        self._directory = tempfile.TemporaryDirectory(prefix="by-hand-")
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self._directory.name, "LANG": "C.UTF-8",
            "ANTHROPIC_BASE_URL": f"{service.url}/offline-upstream", "ANTHROPIC_API_KEY": "offline", "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1",
            "DISABLE_ERROR_REPORTING": "1", "ENABLE_TOOL_SEARCH": "false", "CLAUDE_CODE_MAX_RETRIES": "0",
            "TMPDIR": self._directory.name,
        }

    def close(self):
        self._directory.cleanup()

    def ask(self, turns, system="You are brief.", tools=(), until="result", model="sonnet", schema=None):
        """Puts a conversation to a fresh process.

        - turns: (role, text or blocks), the last one the user's.
        - schema: a JSON Schema for the answer.
        - until: the line or stream event that ends the measurement: a tool call's message ends with `message_stop`.
        """
        environment = dict(self.environment)
        if tools:
            environment["CLAUDE_CODE_EXTRA_BODY"] = json.dumps({"tools": list(tools)})
        reading = Reading()
        began = time.perf_counter()
        process = subprocess.Popen(
            [self.cli, *ARGUMENTS, "--system-prompt", system, "--model", model, *(["--json-schema", json.dumps(schema)] if schema else [])],
            cwd=self._directory.name, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            for role, content in turns[:-1]:
                self._write(process, role, content, shouldQuery=False)
                if role == "user":
                    self._read(process, "result")
            self._write(process, *turns[-1])
            while True:
                line = json.loads(process.stdout.readline())
                event = line.get("event", {})
                if line["type"] == "stream_event":
                    reading.events.append(event)
                    starts = event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use"
                    if not reading.first and (starts or event.get("delta", {}).get("text")):
                        reading.first = time.perf_counter() - began
                if until in (line["type"], event.get("type")):
                    break
            reading.end = time.perf_counter() - began
            assert reading.first, line
        finally:
            process.kill()
            process.stdout.close()
            process.stdin.close()
            process.wait()
        return reading

    @staticmethod
    def _write(process, role, content, **more):
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        line = {"type": role, "message": {"role": role, "content": blocks}, "parent_tool_use_id": None, "session_id": ""}
        if role == "user":
            line.update(more, client_composed=True)
        process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()

    @staticmethod
    def _read(process, kind):
        while json.loads(process.stdout.readline())["type"] != kind:
            pass


def cli_path():
    """The CLI that the service will use."""
    found = subprocess.run(
        ["bash", "Scripts/claude-cli"], cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        check=True, stdout=subprocess.PIPE, text=True)
    return found.stdout.strip()
