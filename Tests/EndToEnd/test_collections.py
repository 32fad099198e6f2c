"""The request collections that we ship: each is valid, and each of their requests works."""

import json
import re

import pytest

from service import CHECKOUT

INSOMNIA = CHECKOUT / "insomnia-collection.json"
HTTP_FILES = sorted(path for path in CHECKOUT.glob("*.http")) + sorted(CHECKOUT.glob("docs/*.http"))


def insomnia_resources():
    if not INSOMNIA.exists():
        return []
    return json.loads(INSOMNIA.read_text())["resources"]


def insomnia_requests():
    return [resource for resource in insomnia_resources() if resource["_type"] == "request"]


def folder_of(request):
    by_id = {resource["_id"]: resource for resource in insomnia_resources()}
    return by_id[request["parentId"]]["name"]


def test_the_insomnia_collection_has_the_seeds_folders():
    document = json.loads(INSOMNIA.read_text())
    assert document["_type"] == "export" and document["__export_format"] == 4
    identities = [resource["_id"] for resource in document["resources"]]
    assert len(identities) == len(set(identities))
    folders = {resource["name"] for resource in document["resources"] if resource["_type"] == "request_group"}
    for name in ("Health", "Custom", "Sessions", "Background runs", "OpenAI", "Anthropic"):
        assert any(name.lower() in folder.lower() for folder in folders), folders
    environment = next(resource for resource in document["resources"] if resource["_type"] == "environment")
    assert environment["data"].keys() >= {"base_url", "api_key"}
    assert len(insomnia_requests()) >= 12
    for folder in ("OpenAI", "Anthropic"):
        assert any(folder in folder_of(request) and '"stream": true' in request["body"].get("text", "") for request in insomnia_requests())


@pytest.mark.parametrize("request_", insomnia_requests(), ids=lambda request: request["name"])
def test_each_insomnia_request_works(service, request_):
    variables = next(resource["data"] for resource in insomnia_resources() if resource["_type"] == "environment")

    def filled(text):
        return re.sub(r"\{\{\s*(?:_\.)?(\w+)\s*\}\}", lambda match: value(service, match[1], variables), text)

    headers = {header["name"]: filled(header["value"]) for header in request_.get("headers", []) if not header.get("disabled")}
    authentication = request_.get("authentication") or {}
    if authentication.get("type") == "bearer":
        headers["Authorization"] = "Bearer " + filled(authentication["token"])
    body = filled((request_.get("body") or {}).get("text", ""))
    check(service, request_["method"], filled(request_["url"]), headers, body)


def value(service, name, variables):
    """What a user puts in for a variable: the key, the address, and ids out of replies."""
    assert name in variables, name
    if name == "api_key":
        return service.key
    if name == "base_url":
        return service.url
    if name == "session_id":
        return service.post("/api/run", {"prompt": "Hello!"}).json()["sessionId"]
    if name == "chat_session_id":
        body = {"store": True, "messages": [{"role": "user", "content": "Hello!"}]}
        return service.post("/v1/chat/completions", body).json()["session_id"]
    assert name == "run_id", name
    return service.post("/api/run", {"prompt": "Hello!", "background": True}).json()["id"]


def http_requests():
    """The requests of the .http files, as (name, method, address, headers, body), variables filled in but for ours."""
    found = []
    for path in HTTP_FILES:
        variables = {}
        for part in re.split(r"^###", path.read_text(), flags=re.M):
            lines = part.splitlines()
            for line in lines:
                if match := re.match(r"@(\w+)\s*=\s*(.*)", line):
                    variables[match[1]] = match[2].strip()
            start = next((n for n, line in enumerate(lines) if re.match(r"(GET|POST|DELETE|PUT) ", line)), None)
            if start is None:
                continue
            method, address = lines[start].split()[:2]
            end = next((n for n in range(start + 1, len(lines)) if not lines[n].strip()), len(lines))
            headers = dict(line.split(": ", 1) for line in lines[start + 1 : end] if not line.startswith(("#", "//")))
            body = "\n".join(line for line in lines[end + 1 :] if not line.startswith(("#", "//"))).strip()
            found.append((lines[0].strip() or address, method, address, headers, body, dict(variables)))
    return found


def test_there_is_an_http_file():
    assert HTTP_FILES and len(http_requests()) >= 5


@pytest.mark.parametrize("entry", http_requests(), ids=lambda entry: entry[0])
def test_each_request_of_the_http_file_works(service, entry):
    _, method, address, headers, body, variables = entry

    def filled(text):
        return re.sub(r"\{\{\s*(?:\$\w+\s+)?(\w+)\s*\}\}", lambda match: value(service, match[1], variables), text)

    address = filled(address).replace("http://localhost:6789", service.url).replace("https://localhost:6790", service.url)
    check(service, method, address, {name: filled(value) for name, value in headers.items()}, filled(body))


def check(service, method, address, headers, body):
    assert address.startswith(service.url), address
    if "/some/path" in body:
        body = body.replace("/some/path", service.environment["ALLOWED_DIRECTORIES"].split(":")[-1])
    if body:
        json.loads(body)
    with service.client(headers={}) as client:
        answer = client.request(method, address, headers=headers, content=body or None)
    assert answer.status_code == (202 if '"background": true' in body else 200), f"{method} {address}: {answer.status_code} {answer.text}"
    if '"stream": true' in body or address.endswith("/events"):
        assert any(word in answer.text for word in ("[DONE]", "message_stop", "event: result"))
