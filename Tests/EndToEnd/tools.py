"""Tools as callers offer them, and what of a conversation reached the model."""

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PARIS, ROME = {"city": "Paris"}, {"city": "Rome"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def function(name, parameters=CITY, **more):
    """A tool as Chat Completions has it."""
    return {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": parameters, **more}}


def tool(name, schema=CITY, **more):
    """A tool as the Messages API has it."""
    return {"name": name, "description": f"The {name}.", "input_schema": schema, **more}


def own(name):
    """A caller's tool under the name that the model sees."""
    return name.removeprefix("mcp__client__")


def turns(body):
    """What the model was sent, as [(role, blocks)]: contents as blocks, the CLI's own words and its cache marks left out."""
    found = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]
        blocks = [block for block in blocks if not block.get("text", "").startswith("<system-reminder>")]
        if message["role"] != "system":
            found.append((message["role"], blocks))
    return found


def result_of(block):
    """A tool result's content as blocks; a lone text as it is. The CLI's own words go: for some models they stand behind it."""
    content = block.get("content", "")
    if isinstance(content, str):
        text, reminder, _ = content.partition("<system-reminder>")
        return text.removesuffix("\n\n") if reminder else text
    blocks = [part for part in content if not part.get("text", "").startswith("<system-reminder>")]
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return blocks[0]["text"].removesuffix("\n") if len(content) > 1 else blocks[0]["text"]
    return blocks


def user(text):
    return {"role": "user", "content": text}


def ask(client, prompt, **more):
    """A chat completion by the SDK's client."""
    return client.chat.completions.create(model="sonnet", messages=[user(prompt)], **more)
