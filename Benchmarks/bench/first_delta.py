"""Time to the first content delta and to the end, through nginx and TLS, against `claude -p` by hand for the same conversation."""

from dialects import ANTHROPIC, CHATS, OPENAI

from .by_hand import ByHand
from .client import CALL, ask, call_of, text_of
from .running import service, settle, ways

SYSTEM = "You are brief."
TOOL = {"name": "lookup", "description": "Looks a word up.", "input_schema": {
    "type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}
TOOL_OPENAI = {"type": "function", "function": {
    "name": "lookup", "description": TOOL["description"], "parameters": TOOL["input_schema"]}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
BARS = {"spare": 0.25, "live": 0.08}
# What else a conversation can have; all of it is told to a process that is there already.
VARIANTS = {
    "no system prompt": {"system": None}, "50 kB of system prompt": {"system": "You are brief. " * 3400},
    "another model": {"model": "haiku"}, "a tool offered": {"tools": [TOOL]},
}


def history(turns):
    """So many exchanges, as (role, text)."""
    return [(role, text) for n in range(turns) for role, text in (("user", f"Question {n}?"), ("assistant", f"Answer {n}."))]


def run(figures, options):
    for way, settings in ways():
        with service(**settings) as running:
            hand = ByHand(running, options.cli)
            try:
                for turns in (0, 20):
                    conversations(figures, options, running, hand, way, turns)
                if way == "live":
                    for variant in VARIANTS:
                        conversations(figures, options, running, hand, way, 0, variant)
                for pause in (False, True) if way == "live" else (False,):
                    tools(figures, options, running, hand, way, pause)
                # Last: from the first schema on, one of the spares is kept for the next.
                if way == "spare":
                    structured(figures, options, running, hand)
            finally:
                hand.close()


def conversations(figures, options, running, hand, way, turns, variant=None):
    """A first request with so many exchanges behind it, and the next turn of the same conversation."""
    having = {"system": SYSTEM, **VARIANTS.get(variant, {})}
    by_hand = {**having, "system": having["system"] or ""}
    past, prompt, following = history(turns), "[[say=Paris, of course.]]", "[[say=And London.]]"
    series = {name: ([], []) for name in ("hand", "hand next", *(f"{dialect} {kind}" for dialect in CHATS for kind in ("first", "next")))}

    def note(name, reading):
        series[name][0].append(reading.first)
        series[name][1].append(reading.end)

    for count in range(options.runs + 1):
        tag = f"{prompt} {way} {turns} {count}"
        settle(running)
        readings = [("hand", hand.ask([*past, ("user", tag)], **by_hand)),
                    ("hand next", hand.ask([*past, ("user", tag), ("assistant", "Paris, of course."), ("user", following)], **by_hand))]
        for dialect in CHATS:
            settle(running)
            reading = ask(running, dialect, body(dialect, tag, past, **having))
            readings.append((f"{dialect} first", reading))
            settle(running)
            longer = [*past, ("user", tag), ("assistant", text_of(dialect, reading))]
            readings.append((f"{dialect} next", ask(running, dialect, body(dialect, following, longer, **having))))
        if count:  # the first round warms caches
            for name, reading in readings:
                note(name, reading)
    subject = f"first content delta and end, {way}, {turns + 1} turn{'s' if turns else ''}{', ' + variant if variant else ''}"
    for dialect in CHATS:
        for kind, base, bar in (("first", "hand", BARS.get("spare")), ("next", "hand next", 0.10 if turns else BARS["live"])):
            reaches = way == "live" if kind == "next" else way in ("spare", "live") and not turns
            for which, index in (("first delta", 0), ("end", 1)):
                figures.ratio(
                    subject, f"{dialect}, {'request' if kind == 'first' else 'next turn'}, {which}", series[f"{dialect} {kind}"][index],
                    series[base][index], "claude -p by hand", "s", bar if reaches and index == 0 else None)


def structured(figures, options, running, hand):
    """A request with a JSON Schema: its caller gets the answer when the CLI has found that it fits."""
    series = {"hand": [], **{str(dialect): [] for dialect in CHATS}}
    for count in range(options.runs + 1):
        prompt = f'[[json={{"city": "Paris"}}]] {count}'
        settle(running)
        rounds = {"hand": hand.ask([("user", prompt)], SYSTEM, schema=SCHEMA)}
        for dialect in CHATS:
            settle(running)
            asked = dialect.body(prompt, SYSTEM)
            if dialect is OPENAI:
                asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
            else:
                asked["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
            rounds[str(dialect)] = ask(running, dialect, asked)
        if count:
            for name, reading in rounds.items():
                series[name].append(reading.end)
    for dialect in CHATS:
        figures.ratio("an answer that fits a schema, spare", f"{dialect}, end", series[str(dialect)], series["hand"], "claude -p by hand", "s")


def body(dialect, prompt, past, system, tools=None, **more):
    """A request of this dialect."""
    if tools and dialect is OPENAI:
        tools = [TOOL_OPENAI]
    return dialect.body(prompt, system, past, tools=tools, **more)


def tools(figures, options, running, hand, way, pause=False):
    """A tool call, its result and the answer: two requests, against two runs by hand.

    - pause: Whether the tool takes as long as the service needs to come to rest; one that runs in no time is the hardest case.
    """
    prompt = '[[tool=lookup {"word": "Paris"}]][[then=It is a city.]]'
    series = {"hand": [], **{str(dialect): [] for dialect in CHATS}}
    for count in range(options.runs + 1):
        asked = f"{prompt} {way} {count}"
        settle(running)
        begun = hand.ask([("user", asked)], SYSTEM, [TOOL], "message_stop")
        block = next(e["content_block"] for e in begun.events if e["type"] == "content_block_start" and e["content_block"]["type"] == "tool_use")
        call = {"type": "tool_use", "id": block["id"], "name": "lookup", "input": {"word": "Paris"}}
        result = {"type": "tool_result", "tool_use_id": block["id"], "content": "A city."}
        ended = hand.ask([("user", asked), ("assistant", [call]), ("user", [result])], SYSTEM, [TOOL])
        rounds = {"hand": (begun.end, ended)}
        for dialect in CHATS:
            settle(running)
            begun = ask(running, dialect, with_tools(dialect, asked), wanted=CALL)
            identifier, name, arguments = call_of(dialect, begun)
            assert name == "lookup" and "Paris" in arguments, begun.text[-600:]
            if pause:
                settle(running)
            rounds[str(dialect)] = (begun.end, ask(running, dialect, with_tools(dialect, asked, identifier, arguments)))
        if count:
            for name, (first, reading) in rounds.items():
                series[name].append((first, reading.first, reading.end))
    subject = f"a tool round trip, {way}{', the tool takes a moment' if pause else ''}"
    for dialect in CHATS:
        for figure, index, bar in (("call, to its end", 0, None), ("result to first delta", 1, BARS["live"]), ("result to end", 2, None)):
            figures.ratio(
                subject, f"{dialect}, {figure}", [sample[index] for sample in series[str(dialect)]],
                [sample[index] for sample in series["hand"]], "claude -p by hand", "s", bar if way == "live" else None)


def with_tools(dialect, prompt, identifier=None, arguments=None):
    """A request that offers the tool; with the call's id also its result."""
    if dialect is OPENAI:
        body = dialect.body(prompt, SYSTEM, tools=[TOOL_OPENAI])
        if identifier:
            call = {"id": identifier, "type": "function", "function": {"name": "lookup", "arguments": arguments}}
            body["messages"] += [{"role": "assistant", "content": None, "tool_calls": [call]},
                                 {"role": "tool", "tool_call_id": identifier, "content": "A city."}]
        return body
    assert dialect is ANTHROPIC
    body = dialect.body(prompt, SYSTEM, tools=[TOOL])
    if identifier:
        call = {"type": "tool_use", "id": identifier, "name": "lookup", "input": {"word": "Paris"}}
        result = {"type": "tool_result", "tool_use_id": identifier, "content": "A city."}
        body["messages"] += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return body
