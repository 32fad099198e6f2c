"""docs/openapi.yaml against the running service: requests made from it, good and bad, and every answer held against it.

Schemathesis makes the requests and checks status, content type, headers and body. What the file can't say (the last message is a user's, a
call has its result behind it) is put right in the good ones, so that each of them must be answered with 200.
"""

import copy
import re
import uuid
from collections import Counter

import jsonschema_rs
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup

from dialects import events_of
from direct import bash, numbered_events
from service import CHECKOUT, Service, until

DOCUMENT = yaml.safe_load((CHECKOUT / "docs/openapi.yaml").read_text())
METHODS = {"get", "post", "delete", "put", "patch", "options", "trace", "head"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjQK"
RUN_LIMIT_MS = 20000
# Good and bad requests of each operation with a body, and of each other.
COUNTS = {True: {GenerationMode.POSITIVE: 40, GenerationMode.NEGATIVE: 60}, False: {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 20}}


def references(value):
    """The components that a part of the document names, directly or not."""
    found, open_ = set(), [value]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            name = value.get("$ref", "")
            if isinstance(name, str) and name.startswith("#/") and name not in found:
                found.add(name)
                open_.append(resolve(value))
            open_ += value.values()
        elif isinstance(value, list):
            open_ += value
    return found


def resolve(value):
    """What a reference stands for; anything else as it is."""
    while "$ref" in value:
        name, value = value["$ref"], DOCUMENT
        for part in name[2:].split("/"):
            value = value[part]
    return value


def strict(document):
    """The document with every object of an answer closed: a member that it does not name is a fault."""
    document = copy.deepcopy(document)

    def close(value):
        if isinstance(value, dict):
            if isinstance(value.get("properties"), dict):
                value.setdefault("additionalProperties", False)
            for item in value.values():
                close(item)
        elif isinstance(value, list):
            for item in value:
                close(item)

    asked = references([
        [operation.get("requestBody"), operation.get("parameters"), item.get("parameters")]
        for item in DOCUMENT["paths"].values() for method, operation in item.items() if method in METHODS])
    for name, schema in document["components"]["schemas"].items():
        if "#/components/schemas/" + name not in asked:
            close(schema)
    close(document["components"]["responses"])
    close([operation["responses"] for item in document["paths"].values() for method, operation in item.items() if method in METHODS])
    return document


# The tests send keys themselves. Without numbers Schemathesis leaves a stream after some events, and after ten seconds.
CONFIG = schemathesis.Config.from_dict({
    "generation": {"with-security-parameters": False}, "max-stream-events": 1_000_000, "request-timeout": 100})
SCHEMA = schemathesis.openapi.from_dict(strict(DOCUMENT), config=CONFIG)
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}
LOCKED = [label for label, operation in OPERATIONS.items() if operation.definition.raw.get("security") != []]


@pytest.fixture(scope="module")
def talker(workspace):
    """The service with the fake CLI, and more time than the tests of time-outs give it."""
    settings = {"ALLOWED_DIRECTORIES": workspace, "ALLOW_MCP_SERVERS": "true", "MAX_SESSIONS_PER_KEY": 100000}
    with Service(cli="fake", REQUEST_TIMEOUT_MS=RUN_LIMIT_MS, WORKER_CONCURRENCY=10, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        session.trust_env = False
        yield session


# ---- every operation, with good and with bad requests ----------------------------------------------------------------------------


def cases():
    for label, operation in OPERATIONS.items():
        yield label, GenerationMode.POSITIVE
        if operation.body or any(operation.iter_parameters()):
            yield label, GenerationMode.NEGATIVE


@pytest.mark.parametrize("label, mode", list(cases()), ids=lambda value: str(getattr(value, "value", value)))
def test_generated_requests(talker, session, workspace, label, mode):
    operation = OPERATIONS[label]
    counts = Counter()
    is_good = mode is GenerationMode.POSITIVE

    @settings(
        max_examples=COUNTS[bool(operation.body)][mode], derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        if is_good:
            repair(case, talker, workspace)
        elif label == "GET /v1/models":
            # The page's parameters are read only for Anthropic's clients.
            case.headers["anthropic-version"] = "2023-06-01"
        elif label == "GET /api/runs/{run_id}/events" and str((case.query or {}).get("after", "x")).isdigit():
            # A good one counts before a bad header.
            del case.query["after"]
        answer = case.call(base_url=talker.url, headers=talker.authorization, session=session)
        counts[answer.status_code] += 1
        case.validate_response(answer, headers=talker.authorization)
        check_stream(answer)
        assert not is_good or answer.status_code in (200, 202), f"{answer.status_code} {answer.text}\n{case.as_curl_command()}"

    ask()
    print(f"{label} {mode.value}: {dict(counts)}")


def check_stream(answer):
    """Its last event ends a stream; nothing follows."""
    if not answer.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    name, data = events_of(answer.content.decode())[-1]
    kind = name or (data if isinstance(data, str) else "")
    assert kind in ("[DONE]", "message_stop", "response.completed", "response.incomplete", "result"), f"{answer.request.body}\n{answer.text}"


# ---- what the file can't say ------------------------------------------------------------------------------------------------------


def repair(case, service, workspace):
    """Makes a request that fits its schema one that the service must take."""
    parameters = case.path_parameters or {}
    if "response_id" in parameters:
        body = {"input": "hi", "background": True} if case.path.endswith("/cancel") else {"input": "hi"}
        parameters["response_id"] = service.post("/v1/responses", body).json()["id"]
    if "run_id" in parameters:
        parameters["run_id"] = service.post("/api/run", {"prompt": "hi", "background": True}).json()["id"]
    if case.path.endswith("/events"):
        # Behind an event that is there: nothing would come from behind the last one.
        for place, name in ((case.query, "after"), (case.headers, "Last-Event-ID")):
            if name in (place or {}):
                place[name] = str(min(int(place[name]), 1))
    if "session_id" in parameters:
        parameters["session_id"] = session_of(service, "/api/run")
    body = case.body
    if not isinstance(body, dict):
        return
    media(body)
    path = case.path
    if path == "/v1/chat/completions":
        chat(body)
    elif path == "/v1/completions":
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if (body.get("n") or 1) * len(prompts) > 8:
            body["n"] = 1
        if body.get("best_of"):
            body["best_of"] = body.get("n") or 1
    elif path == "/v1/responses":
        responses(body, service)
    elif path.startswith("/v1/messages"):
        messages(body)
    else:
        run(body, service, str(workspace))
    if path in ("/v1/chat/completions", "/v1/messages"):
        if body.get("session_id"):
            body["session_id"] = session_of(service, path)
        if case.headers.get("X-Session-Id") not in (None, "", "new"):
            case.headers["X-Session-Id"] = session_of(service, path)
        if body.get("session_id") or body.get("store") or case.headers.get("X-Session-Id"):
            body["n"] = None
        if body.get("session_id") or case.headers.get("X-Session-Id") not in (None, "", "new"):
            # The session has no call for the result of a tool behind the last answer.
            body["messages"] = [{"role": "user", "content": "and?"}]


def session_of(service, path):
    """A session that the API of this path has begun."""
    bodies = {
        "/api/run": {"prompt": "hi"}, "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}}
    answer = service.post(path, bodies[path], headers={**service.authorization, "X-Session-Id": "new"})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-session-id"]


def run(body, service, directory):
    """Directories that are there, sessions that are there, and nothing that excludes something else."""
    if body.get("workingDirectory"):
        body["workingDirectory"] = directory
    body["addDirs"] = [directory for _ in body.get("addDirs") or []]
    if body.get("sessionId") is not None or body.get("fork"):
        body["sessionId"], body["ephemeral"] = session_of(service, "/api/run"), False
    if body.get("background"):
        body["stream"] = False
    if body.get("timeoutMs"):
        # A busy machine may stand still for the second that is the least.
        body["timeoutMs"] = RUN_LIMIT_MS
    servers = list(body.get("mcpServers") or {})
    if "client" in servers:
        body["mcpServers"]["client-0"] = body["mcpServers"].pop("client")
        servers.remove("client")
    for key in ("allowedTools", "disallowedTools"):
        rules = body.get(key) or []
        body[key] = [rule for rule in rules if not rule.startswith("mcp__")]
        body[key] += [f"mcp__{servers[0]}" for rule in rules if rule.startswith("mcp__") and servers]


def media(value):
    """Base64 that is what it says."""
    if isinstance(value, list):
        for item in value:
            media(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and re.match("data:image/[a-z]+;base64,", item):
                value[key] = "data:image/png;base64," + PNG
            elif key == "file_data" and item is not None:
                value[key] = "data:application/pdf;base64," + PDF
            elif key == "data" and value.get("type") == "base64":
                value[key] = PNG if "media_type" in value and "JVBER" not in str(item) else PDF
            else:
                media(item)


def named(tools, name=lambda tool: tool):
    """Tools with a name of its own each."""
    for index, tool in enumerate(tools or []):
        name(tool)["name"] = f"tool_{index}"
    return bool(tools)


def chat(body):
    """Every call has its result behind it, and the user has the last word."""
    whole = []
    for message in body["messages"]:
        if message["role"] in ("tool", "function"):
            continue
        if message["role"] == "user":
            filled(message, "text")
        whole.append(message)
        if message["role"] == "assistant":
            message["function_call"] = None
            for index, call in enumerate(message.get("tool_calls") or []):
                call["id"] = f"call_{len(whole)}_{index}"
            whole += [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in message.get("tool_calls") or []]
    body["messages"] = [*whole, {"role": "user", "content": "and?"}]
    has_tools = named(body.get("tools"), lambda tool: tool["function"])
    for index, function in enumerate(body.get("functions") or []):
        function["name"] = f"function_{index}"
    has_functions = bool(body.get("functions"))
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if not has_tools:
            del body["tool_choice"]
        elif choice["type"] == "function":
            choice["function"]["name"] = "tool_0"
        else:
            choice["allowed_tools"]["tools"] = [{"type": "function", "function": {"name": "tool_0"}}]
    elif choice == "required" and not has_tools and not has_functions:
        del body["tool_choice"]
    if isinstance(body.get("function_call"), dict):
        body["function_call"] = {"name": "function_0"} if has_functions and not has_tools else None


def filled(message, kind):
    """A message of a user's with something in it."""
    if isinstance(message["content"], list):
        message["content"].append({"type": kind, "text": "hi"})


def responses(body, service):
    """The same for items."""
    whole = []
    if isinstance(body.get("input"), list):
        for index, item in enumerate(body["input"]):
            if item.get("type") == "function_call_output":
                continue
            if item.get("role") == "user":
                filled(item, "input_text")
            whole.append(item)
            if item.get("type") == "function_call":
                item["call_id"] = f"call_{index}"
                whole.append({"type": "function_call_output", "call_id": item["call_id"], "output": "done"})
        body["input"] = [*whole, {"role": "user", "content": "and?"}]
    if body.get("previous_response_id") is not None or not body.get("input"):
        body["previous_response_id"] = service.post("/v1/responses", {"input": "hi"}).json()["id"]
        body.setdefault("input", "and?")
    if body.get("background"):
        body["stream"], body["store"] = False, True
    has_tools = named(body.get("tools"))
    choice = body.get("tool_choice")
    if not has_tools and choice not in (None, "none", "auto"):
        del body["tool_choice"]
    elif isinstance(choice, dict):
        choice.update({"tools": [{"type": "function", "name": "tool_0"}]} if "tools" in choice else {"name": "tool_0"})


def messages(body):
    """The same for blocks."""
    whole = []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text", "text": message["content"]}]
        blocks = [block for block in blocks if block["type"] != "tool_result"] or [{"type": "text", "text": "hi"}]
        calls = [block for block in blocks if block["type"] == "tool_use"]
        for index, call in enumerate(calls):
            call["id"] = f"toolu_{len(whole)}_{index}"
        whole.append({"role": message["role"], "content": blocks})
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "done"} for call in calls]
        whole.append({"role": "user" if message["role"] == "assistant" else "assistant", "content": results or "and?"})
    body["messages"] = [*whole, {"role": "user", "content": "and?"}]
    has_tools = named(body.get("tools"))
    choice = body.get("tool_choice")
    if choice and not has_tools:
        choice["type"] = "auto"
    elif choice and choice["type"] == "tool":
        choice["name"] = "tool_0"
    budget = (body.get("thinking") or {}).get("budget_tokens")
    if budget and "max_tokens" in body:
        body["thinking"]["budget_tokens"] = 1
        body["max_tokens"] = max(body["max_tokens"], 2)


# ---- keys and methods -------------------------------------------------------------------------------------------------------------


def validate(operation, answer):
    """Holds an answer of httpx's against the document; returns its schema's name for the status."""
    answer.read()
    operation.validate_response(schemathesis.Response.from_any(answer))


def path_of(label):
    names = {"model": "sonnet", "response_id": "resp_" + "0" * 32, "run_id": "run_" + "0" * 32, "session_id": str(uuid.UUID(int=0))}
    return re.sub(r"\{(\w+)\}", lambda match: names[match[1]], label.split()[1])


@pytest.mark.parametrize("label", LOCKED)
@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer no-such-key"}, {"x-api-key": "no-such-key"}, {"Authorization": "Basic bm86bm8="}, {"Authorization": "Bearer"},
], ids=["none", "bearer", "x-api-key", "basic", "scheme alone"])
def test_a_request_without_a_good_key_is_401(talker, label, headers):
    method, _ = label.split()
    with talker.client(headers=headers) as client:
        answer = client.request(method, path_of(label), content=b"{}" if method == "POST" else None)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", answer.text
    validate(OPERATIONS[label], answer)


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_key_may_come_either_way(talker, label):
    method, _ = label.split()
    for headers in (talker.authorization, {"x-api-key": talker.key}):
        with talker.client(headers=headers) as client:
            answer = client.request(method, path_of(label), content=b"{}" if method == "POST" else None)
        assert answer.status_code in (200, 400, 404), answer.text
        validate(OPERATIONS[label], answer)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_other_methods_are_405(talker, path):
    listed = METHODS & DOCUMENT["paths"][path].keys()
    operation = next(operation for label, operation in OPERATIONS.items() if label.split()[1] == path)
    for method in sorted(METHODS - listed - {"head"}):
        with talker.client() as client:
            answer = client.request(method.upper(), path_of(f"X {path}"), content=b"{}" if method in ("put", "patch") else None)
        assert answer.status_code == 405, f"{method} {answer.status_code} {answer.text}"
        validate(operation, answer)
        if method != "trace":  # which nginx refuses wherever it is
            allowed = {word.strip().lower() for word in answer.headers["allow"].split(",")}
            assert allowed == listed | ({"head"} if "get" in listed else set()), answer.headers["allow"]


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("GET")])
def test_head_is_get_without_a_body(talker, label):
    with talker.client() as client:
        got, head = client.get(path_of(label)), client.head(path_of(label))
    assert head.status_code == got.status_code and head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


# ---- the file is whole ------------------------------------------------------------------------------------------------------------


def test_the_file_has_every_route_and_no_other():
    source = (CHECKOUT / "Sources/ClaudeFCGI/Routing/Route.swift").read_text()
    names = re.findall(r'"([^"]+)"', re.search(r"static let names = \[(.*?)\]", source, re.S)[1])
    assert names.pop() == "other"
    numbers = {int(number): case for case, number in re.findall(r"case \.(\w+): (\d+)\n", source)}
    assert sorted(numbers) == list(range(len(names))), numbers
    methods = {}
    body = re.search(r"private var methods: \[String\] \{(.*?)\n    \}", source, re.S)[1]
    for some, words in re.findall(r"case (.*?):\s+\[(.*?)\]", body, re.S):
        for case in re.findall(r"\.(\w+)", some):
            methods[case] = set(re.findall(r'"(\w+)"', words))
    routes = {(names[number], method) for number, case in numbers.items() for method in methods[case]}
    listed = {
        (re.sub(r"\{\w+\}", "ID", path), method.upper())
        for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS}
    assert listed == routes


def test_the_file_has_every_parameter_of_the_compatibility_tables():
    """What docs/compatibility.md calls honoured or refused is in the request's schema, by its name."""
    text = (CHECKOUT / "docs/compatibility.md").read_text()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"):
        section = re.search(rf"^## POST {path}\n(.*?)(?=^## )", text, re.S | re.M)[1]
        wanted = {name for name, what in re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.M) if what in ("honoured", "refused")}
        wanted |= {
            name for name, where, what in re.findall(r"^\| `(\w+)` \| `(\S+)` \| (\w+) \|", text, re.M) if where == path and what == "honoured"}
        body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        missing = wanted - resolve(body)["properties"].keys()
        assert wanted and not missing, f"{path}: {missing}"


def test_the_file_uses_every_component():
    used = references(DOCUMENT["paths"])
    for kind in ("schemas", "responses", "headers", "parameters"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, f"{kind}/{name} is not used"


def test_the_checks_see_a_wrong_answer(talker):
    """An answer that is not what the file says does not pass: in a body, in an event of a stream, in a header."""
    document = strict(DOCUMENT)
    schemas = document["components"]["schemas"]
    schemas["ChatCompletion"]["properties"]["object"] = {"const": "other"}
    schemas["ChatCompletionChunk"]["properties"]["object"] = {"const": "other"}
    schemas["Message"]["properties"]["role"] = {"const": "other"}
    schemas["RunReply"]["properties"]["result"] = {"const": "other"}
    schemas["RunPiece"]["properties"]["text"] = {"const": "other"}
    document["components"]["headers"]["OpenAIVersion"]["schema"]["const"] = "other"
    schema = schemathesis.openapi.from_dict(document)
    for path, body in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"stream": True, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/api/run", {"prompt": "hi"}),
        ("/api/run", {"prompt": "hi", "stream": True}),
    ]:
        case = schema[path]["POST"].Case(body=body, media_type="application/json")
        answer = case.call(base_url=talker.url, headers=talker.authorization)
        assert answer.status_code == 200, answer.text
        with pytest.raises(FailureGroup, match="other|not valid under any"):
            case.validate_response(answer, headers=talker.authorization)


# ---- the examples, with the real CLI ------------------------------------------------------------------------------------------------


def examples():
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}) if method in METHODS else {}
            for name, example in content.get("application/json", {}).get("examples", {}).items():
                yield pytest.param(f"{method.upper()} {path}", example["value"], id=f"{path} {name}")


@pytest.mark.parametrize("label, body", list(examples()))
def test_each_example_works(service, label, body):
    operation = OPERATIONS[label]
    request = DOCUMENT["paths"][operation.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**request, "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(whole).validate(body)
    case = operation.Case(body=copy.deepcopy(body), media_type="application/json")
    answer = case.call(base_url=service.url, headers=service.authorization)
    assert answer.status_code == (202 if label == "POST /api/run" and body.get("background") else 200), answer.text
    case.validate_response(answer, headers=service.authorization)
    check_stream(answer)


def asker(service):
    """Asks by the document's names; every answer is held against it."""

    def ask(label, status=200, **parts):
        case = OPERATIONS[label].Case(**parts, **({"media_type": "application/json"} if "body" in parts else {}))
        answer = case.call(base_url=service.url, headers=service.authorization)
        assert answer.status_code == status, answer.text
        case.validate_response(answer, headers=service.authorization)
        check_stream(answer)
        is_stream = answer.headers["content-type"][0].startswith("text/event-stream")
        return numbered_events(answer.content.decode()) if is_stream else answer.json()

    return ask


def test_the_life_of_a_response(service):
    """The routes of a stored response, one after the other, with the real CLI."""
    ask = asker(service)
    create, one = "POST /v1/responses", "/v1/responses/{response_id}"
    first = ask(create, body={"input": "Hello!"})
    place = {"path_parameters": {"response_id": first["id"]}}
    assert ask(f"GET {one}", **place) == first
    items = ask(f"GET {one}/input_items", **place, query={"limit": 1})
    assert [item["role"] for item in items["data"]] == ["user"]
    second = ask(create, body={"input": "And?", "previous_response_id": first["id"]})
    assert second["previous_response_id"] == first["id"]
    slow = ask(create, body={"input": "[[tokens=9]] [[delay_ms=500]]", "background": True})
    assert slow["status"] == "queued"
    assert ask(f"POST {one}/cancel", path_parameters={"response_id": slow["id"]})["status"] == "cancelled"
    assert ask(f"DELETE {one}", **place)["deleted"]
    ask(f"GET {one}", 404, **place)


def test_the_life_of_a_session(service, directory):
    """The same of a session, of either kind."""
    ask = asker(service)
    create, one = "POST /api/run", "/api/sessions/{session_id}"
    first = ask(create, body={"prompt": f"{bash('echo x')} [[then=one]]", "allowedTools": ["Bash"], "workingDirectory": str(directory)})
    id = first["sessionId"]
    second = ask(create, body={"prompt": "[[say=two]]", "sessionId": id, "stream": True})
    assert second[-1][2]["result"] == "two"
    fork = ask(create, body={"prompt": "[[say=three]]", "sessionId": id, "fork": True})["sessionId"]
    chat = ask("POST /v1/chat/completions", body={"store": True, "messages": [{"role": "user", "content": "[[say=four]]"}]})["session_id"]
    ask("POST /v1/messages", body={"max_tokens": 99, "session_id": chat, "messages": [{"role": "user", "content": "[[say=five]]"}]})
    turns = {id: 2, fork: 1, chat: 2}
    for number, count in turns.items():
        assert ask(f"GET {one}", path_parameters={"session_id": number})["turns"] == count
    listed = {entry["id"] for entry in ask("GET /api/sessions", query={"limit": 1000})["sessions"]}
    assert turns.keys() <= listed
    for number in turns:
        place = {"path_parameters": {"session_id": number}}
        assert ask(f"DELETE {one}", **place)["sessionId"] == number
        ask(f"GET {one}", 404, **place)


def test_the_life_of_a_background_run(service):
    """The same of a run in the background: one that is cancelled, one that is followed to its end and from the middle."""
    ask = asker(service)
    create, one = "POST /api/run", "/api/runs/{run_id}"
    slow = ask(create, 202, body={"prompt": "[[tokens=99]] [[delay_ms=500]]", "background": True})
    place = {"path_parameters": {"run_id": slow["id"]}}
    assert ask(f"GET {one}", **place)["state"] in ("queued", "running")
    # It waits some seconds for the run's end, not for ever.
    until(lambda: ask(f"POST {one}/cancel", **place)["state"] == "cancelled", 20, "the end of the run")
    whole = ask(create, 202, body={"prompt": f"{bash('echo x')} [[then=end]]", "allowedTools": ["Bash"], "background": True})
    place = {"path_parameters": {"run_id": whole["id"]}}
    events = ask(f"GET {one}/events", **place)
    assert [number for number, _, _ in events] == [str(number + 1) for number in range(len(events))]
    assert {name for _, name, _ in events} >= {"start", "tool_use", "tool_result", "usage", "text", "result"}
    assert ask(f"GET {one}/events", **place, headers={"Last-Event-ID": "2"}) == events[2:]
    assert ask(f"GET {one}/events", **place, query={"after": 3}) == events[3:]
    assert ask(f"GET {one}", **place)["result"] == events[-1][2]
