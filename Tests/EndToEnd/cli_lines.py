"""What a CLI may write in a turn, at random: as the real one does, and with faults that it has never had.

A sequence is the lines of one turn and the end of the process, made from a seed alone.
"""

import json
from dataclasses import dataclass, field

WORDS = ["Hello", " world", "\n\n", "ü€", "😀", "\"quoted\"", "\\", "</s>", "\u2028", "data: x\n\nevent: y", "{\"a\":", "\u0000", "STOP", "ST", "OP", "x" * 3000]
REASONS = ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn", "model_context_window_exceeded"]
NOTHINGS = [None, "", 0, -1, 1.5, True, [], {}, "words", 2**70, [[]], {"type": "text"}]


@dataclass
class Turn:
    """One turn's lines; what a caller must be told of it where nothing is wrong with it."""

    lines: list = field(default_factory=list)
    text: str = ""
    has_faults: bool = False

    def claims_an_end(self):
        """Whether the CLI said, rightly or not, that an answer is whole."""
        has_reason = False
        for line in self.lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if not isinstance(value, dict):
                continue
            event = value.get("event") if isinstance(value.get("event"), dict) else {}
            delta = event.get("delta") if isinstance(event.get("delta"), dict) else {}
            has_reason |= event.get("type") == "message_delta" and isinstance(delta.get("stop_reason"), str)
            if value.get("type") == "result" or (event.get("type") == "message_stop" and has_reason):
                return True
        return False


def line(value):
    # ASCII and not, because the CLI writes both.
    return json.dumps(value, ensure_ascii=len(json.dumps(value)) % 2 == 0, separators=(",", ":"))


def event(value, parent=None):
    return {"type": "stream_event", "event": value, "session_id": "s", "parent_tool_use_id": parent, "uuid": "u"}


def turn(random, is_structured):
    """A turn from a seeded generator."""
    made = Turn()
    values = [{"type": "system", "subtype": "init", "session_id": "s", "model": "claude-fake-1", "tools": ["StructuredOutput"]}]
    for number in range(random.choice([1, 1, 1, 2, 3])):
        events, text = message(random, number, is_structured)
        for value in events:
            if random.random() < 0.15:
                values.append(noise(random))
            values.append(event(value))
        if number == 0:
            made.text = text
    values.append(result(random, made.text, is_structured))
    if random.random() < 0.6:
        made.has_faults = True
        for _ in range(random.choice([1, 1, 2, 4])):
            values = spoilt(random, values)
    made.lines = [value if isinstance(value, str) else line(value) for value in values]
    if made.has_faults and random.random() < 0.3:
        made.lines = made.lines[: random.randrange(len(made.lines) + 1)]
    # A process that says nothing more would only be waited for.
    made.lines.append(f"!exit {random.choice([0, 1, 143])}")
    return made


def message(random, number, is_structured):
    """A message's events, and its text as a caller sees it."""
    events = [{"type": "message_start", "message": {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": "claude-fake-1", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": usage(random)}}]
    text = ""
    kinds = random.choices(["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use"], [6, 3, 1, 3, 1], k=random.randrange(5))
    if is_structured:
        # No tool but the CLI's own is offered then.
        kinds = [kind for kind in kinds if kind != "tool_use"] + ["structured"]
    for index, kind in enumerate(kinds):
        block, deltas = content(random, kind, f"{number}_{index}")
        text += "".join(delta.get("text", "") for delta in deltas)
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = "tool_use" if "structured" in kinds or "tool_use" in kinds else random.choice(REASONS[:3] + REASONS[4:])
    sequence = "STOP" if reason == "stop_sequence" else None
    events.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": usage(random)})
    return [*events, {"type": "message_stop"}], text


def content(random, kind, name):
    """A block as it starts, and its deltas."""
    pieces = random.choices(WORDS, k=random.randrange(6))
    match kind:
        case "text":
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": "c2ln"}]
        case "redacted_thinking":
            return {"type": "redacted_thinking", "data": "cmVk"}, []
        case "structured":
            return {"type": "tool_use", "id": f"toolu_{name}", "name": "StructuredOutput", "input": {}}, [
                {"type": "input_json_delta", "partial_json": piece} for piece in ('{"a":', "1}")]
        case _:
            whole = json.dumps({"city": "".join(pieces)}) if pieces else ""
            cut = random.randrange(len(whole) + 1)
            return {"type": kind, "id": f"toolu_{name}", "name": "mcp__client__look", "input": {}}, [
                {"type": "input_json_delta", "partial_json": piece} for piece in (whole[:cut], whole[cut:])]


def usage(random):
    counts = {"input_tokens": random.randrange(9), "output_tokens": random.randrange(9)}
    if random.random() < 0.5:
        counts.update(cache_read_input_tokens=random.randrange(9), cache_creation_input_tokens=random.randrange(9))
    return counts


def result(random, text, is_structured):
    """The turn's report: mostly a good one."""
    value = {
        "type": "result", "subtype": "success", "is_error": False, "result": text, "stop_reason": "end_turn", "num_turns": 1,
        "session_id": "s", "total_cost_usd": 0.1, "usage": usage(random), "uuid": "0a-1b"}
    if is_structured:
        value["structured_output"] = {"a": 1}
    if random.random() < 0.15:
        status = random.choice([None, 400, 401, 404, 413, 429, 500, 529])
        value.update(is_error=True, result="API Error: it failed", api_error_status=status)
    return value


def noise(random):
    """Lines beside the answer: they change nothing."""
    return random.choice([
        {"type": "system", "subtype": "status", "status": "requesting"},
        {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 3, "retry_delay_ms": 1, "error_status": 529},
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed", "resetsAt": 1, "rateLimitType": "five_hour", "utilization": 0.5}},
        {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "again"}]}, "parent_tool_use_id": None},
        {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}},
        {"type": "control_request", "request_id": "r", "request": {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}},
        {"type": "keep_alive"}, {"type": "of tomorrow", "event": {"type": "message_stop"}}, "",
        event({"type": "ping"}), event({"type": "content_block_of_tomorrow", "index": 0}),
        event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "of a subagent"}}, parent="toolu_x"),
    ])


def spoilt(random, values):
    """The values with one fault more."""
    values = list(values)
    at = random.randrange(len(values)) if values else 0
    fault = random.choice(["drop", "double", "swap", "change", "change", "foreign", "garbage", "remove", "deep", "error"])
    if fault == "garbage":
        return [*values[:at], random.choice(["not JSON", "{", "[]", "null", "7", '"text"', "\ufeff{}", '{"type":']), *values[at:]]
    if fault == "error":
        return [*values[:at], event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), *values[at:]]
    if fault == "foreign":
        # An event of another message at a place where it does not belong.
        events, _ = message(random, 9, random.random() < 0.2)
        return [*values[:at], event(random.choice(events)), *values[at:]]
    if not values:
        return values
    if fault == "drop":
        del values[at]
    elif fault == "double":
        values.insert(at, values[at])
    elif fault == "swap":
        other = random.randrange(len(values))
        values[at], values[other] = values[other], values[at]
    elif isinstance(values[at], dict):
        values[at] = json.loads(json.dumps(values[at]))
        inner = random.choice(objects(values[at]))
        if inner:
            key = random.choice(sorted(inner))
            if fault == "remove":
                del inner[key]
            elif fault == "deep":
                inner["extra"] = json.loads("[" * 60 + "]" * 60)
            else:
                inner[key] = random.choice(NOTHINGS)
    return values


def objects(value):
    """The objects in a value, itself first."""
    found = [value] if isinstance(value, dict) else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        found += objects(item)
    return found
