"""Conversations of any length over either vendor's API, and what the model was sent for them."""

import contextlib
import copy
import json
import os
import re
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from dialects import OPENAI, events_of
from service import children, stat, until


# For a prompt of a megabyte.
SMALL = pytest.mark.newer_cli("it takes Sonnet's context for 200,000 tokens, and refuses the prompt by itself")


def without(value, *names):
    """A JSON value without these members, at any depth."""
    if isinstance(value, dict):
        return {name: without(member, *names) for name, member in value.items() if name not in names}
    return [without(member, *names) for member in value] if isinstance(value, list) else value


def sent(body):
    """All that the model was sent, but for what names the session; the service's own directory and the calls' ids are made alike."""
    text = json.dumps(without(body, "metadata"))
    text = re.sub(r"/[\w./-]*/cf-[\w./-]*", "/directory", text)
    for index, identity in enumerate(dict.fromkeys(re.findall(r"toolu_[\w-]+", text))):
        text = text.replace(identity, f"call-{index}")
    return json.loads(text)


def core(body):
    """What the model was sent, without what the CLI says of its own accord and without cache marks.

    Contents are arrays, and neighbours of one role are one message, as the API has it.
    """
    body = without(sent(body), "cache_control")
    messages = []
    for message in body["messages"]:
        if message["role"] == "system":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [_plain(block) for block in blocks if not block.get("text", "").startswith("<system-reminder>")]
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": message["role"], "content": blocks})
    return {**body, "messages": messages}


def _plain(block):
    if block["type"] != "tool_result":
        return block
    content = block.get("content", "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        if "text" in part:  # for some models the CLI's own words stand behind a result
            part["text"] = part["text"].partition("<system-reminder>")[0].rstrip("\n")
    parts = [part for part in parts if part.get("text") != ""]
    return {**{name: value for name, value in block.items() if value is not False}, "content": parts}


@dataclass
class Reply:
    """One answer: the text, the process that gave it, what the model was sent, the request's line in the log."""

    text: str
    pid: int
    body: dict
    line: dict

    @property
    def core(self):
        return core(self.body)


class Talk:
    """A conversation: `turns` are (role, blocks), the blocks in Anthropic's words, whichever API carries them.

    With `session="new"` the service keeps it: only the new turn is sent, and `session` is its id.
    """

    def __init__(self, service, dialect, system=None, key=None, stream=False, mark=None, session=None, **parameters):
        self.service, self.dialect, self.system, self.stream, self.parameters = service, dialect, system, stream, parameters
        self.session = session
        self.headers = service.authorization_of(key) if key else service.authorization
        self.mark = mark or "talk-" + uuid.uuid4().hex
        self.turns = []

    def fork(self, service=None):
        """Another conversation that is the same so far."""
        other = copy.copy(self)
        other.turns, other.parameters = copy.deepcopy(self.turns), copy.deepcopy(self.parameters)
        other.service = service or self.service
        return other

    @property
    def open_calls(self):
        """The calls of the last answer, by their ids."""
        return [block["id"] for block in self.turns[-1][1] if block["type"] == "tool_use"] if self.turns else []

    def say(self, prompt, **more):
        """The next turn: a text."""
        if not self.turns:
            prompt = f"{self.mark} {prompt}"
        return self.add([{"type": "text", "text": prompt}], **more)

    def give(self, *results, **more):
        """The next turn: what the tools said, in the order of their calls; what is not text is a result's own members."""
        blocks = []
        for identity, result in zip(self.open_calls, results, strict=True):
            members = {"content": result} if isinstance(result, str | list) else result
            blocks.append({"type": "tool_result", "tool_use_id": identity, **members})
        return self.add(blocks, **more)

    def add(self, blocks, **more):
        self.turns.append(("user", blocks))
        return self.send(**more)

    def send(self, **more):
        """Sends the conversation as it stands, and adds the answer."""
        answer = self.post(**more)
        assert answer.status_code == 200, answer.text
        if self.session:
            assert self.session in ("new", answer.headers["x-session-id"])
            self.session = answer.headers["x-session-id"]
        blocks = self.read(answer)
        self.turns.append(("assistant", blocks))
        line = self.service.request_line(answer.headers["x-request-id"])
        text = "".join(block.get("text", "") for block in blocks)
        return Reply(text, line["cli.pid"], self.service.upstream_body(self.mark), line)

    def ask(self, prompt):
        """The answer to a turn that is not to be a part of the conversation."""
        other = self.fork()
        other.turns.append(("user", [{"type": "text", "text": prompt}]))
        return other.post()

    def post(self, **more):
        headers = {**self.headers, **({"X-Session-Id": self.session} if self.session else {})}
        with httpx.Client(base_url=self.service.url, trust_env=False, timeout=60, headers=headers) as client:
            return client.post(self.dialect.path, json=self.request(), **more)

    # -- what the APIs look like

    def request(self):
        body = {"model": "sonnet", "stream": self.stream, **self.parameters}
        turns = self.turns[-1:] if self.session else self.turns
        if self.dialect is not OPENAI:
            messages = [{"role": role, "content": blocks} for role, blocks in turns]
            more = {} if self.system is None else {"system": self.system}
            return {"max_tokens": 1024, **body, **more, "messages": messages}
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for role, blocks in turns:
            messages += _openai_messages(role, blocks)
        if "tools" in body:
            body["tools"] = [{"type": "function", "function": {
                "name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"]}} for tool in body["tools"]]
        return {"max_completion_tokens": 1024, **body, "messages": messages}

    def read(self, answer):
        """The blocks of an answer, whole or streamed."""
        is_openai = self.dialect is OPENAI
        if not self.stream:
            data = answer.json()
            return _openai_blocks(data["choices"][0]["message"]) if is_openai else data["content"]
        events = events_of(answer.text)
        assert self.dialect.is_whole(events) and not self.dialect.error_events(events), answer.text
        return _openai_blocks(_joined(events)) if is_openai else _anthropic_blocks(events)


def _openai_messages(role, blocks):
    texts = "".join(block["text"] for block in blocks if block["type"] == "text")
    if role == "assistant":
        calls = [{"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
                 for block in blocks if block["type"] == "tool_use"]
        return [{"role": role, "content": texts or None, **({"tool_calls": calls} if calls else {})}]
    results = [{"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]}
               for block in blocks if block["type"] == "tool_result"]
    return results + ([{"role": role, "content": texts}] if texts else [])


def _openai_blocks(message):
    blocks = [{"type": "text", "text": message["content"]}] if message.get("content") else []
    return blocks + [
        {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": json.loads(call["function"]["arguments"])}
        for call in message.get("tool_calls") or []]


def _joined(events):
    text, calls = "", {}
    for _, data in events:
        for choice in data.get("choices", []) if isinstance(data, dict) else []:
            text += choice["delta"].get("content") or ""
            for part in choice["delta"].get("tool_calls") or []:
                call = calls.setdefault(part["index"], {"id": part.get("id"), "function": {"name": "", "arguments": ""}})
                for name in ("name", "arguments"):
                    call["function"][name] += part["function"].get(name) or ""
    return {"content": text, "tool_calls": list(calls.values())}


def _anthropic_blocks(events):
    blocks, inputs = [], {}
    for name, data in events:
        if name == "content_block_start":
            blocks.append(dict(data["content_block"]))
        elif name == "content_block_delta":
            delta = data["delta"]
            if delta["type"] == "input_json_delta":
                inputs[data["index"]] = inputs.get(data["index"], "") + delta["partial_json"]
            else:
                member = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}[delta["type"]]
                blocks[-1][member] = blocks[-1].get(member, "") + delta[member]
    for index, text in inputs.items():
        blocks[index]["input"] = json.loads(text or "{}")
    return blocks


def waiting(service):
    """The processes that wait, as /health counts them: spares and live; None where the responder that was asked has died."""
    answer = service.get("/health")
    if answer.status_code == 502:
        return None
    counts = answer.json()["processes"]
    return counts["spares"], counts["live"]


def until_waiting(service, spares, live, seconds=40):
    """Waits until so many processes wait: time passes on a busy machine."""
    def is_so():
        found = waiting(service)
        return found == (spares, live)
    try:
        until(is_so, seconds, "processes that wait", 0.05)
    except AssertionError as failure:
        raise AssertionError(f"{waiting(service)} wait, not {(spares, live)}") from failure


def process_of(service, answer, seconds=20):
    """The process that gave an answer."""
    return service.request_line(answer.headers["x-request-id"], seconds)["cli.pid"]


# ---- which responder gets a request ------------------------------------------------------------------------------------------------


def holder_of(service, pid):
    """The responder that has a CLI process."""
    return next(responder for responder in service.responders() if pid in children([responder]))


def _stands_still(pid):
    """Whether all of a process's threads have stopped: one that has not yet may be woken for a connection, and keep it from all others."""
    return all((stat(f"{pid}/task/{path.name}") or "X")[0] in "TZX" for path in Path(f"/proc/{pid}/task").glob("*"))


@contextlib.contextmanager
def standing_still(responders):
    """These get no request: the kernel wakes whom it likes."""
    try:
        for pid in responders:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: all(_stands_still(pid) for pid in responders), 20, "responders that stand still", 0.001)
        yield
    finally:
        for pid in responders:
            os.kill(pid, signal.SIGCONT)


def at(responder, service, ask):
    """What `ask` returns, where this responder gets the request."""
    with standing_still([pid for pid in service.responders() if pid != responder]):
        return ask()


def hand_overs(service):
    """How many there were; needs LOG_LEVEL=debug."""
    return service.log().count('"handed over"')


def handed_to(holder, service, ask):
    """What `ask` returns, where another responder than this one gets the request and hands it over."""
    before = hand_overs(service)
    with ThreadPoolExecutor(1) as pool:
        with standing_still([holder]):
            answer = pool.submit(ask)
            until(lambda: answer.done() or hand_overs(service) > before, 20, "the hand-over")
        answer = answer.result(60)
    assert hand_overs(service) == before + 1
    return answer


def in_parallel(functions):
    """Calls all at the same time; their values in order."""
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(function) for function in functions]]
