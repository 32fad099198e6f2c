"""What the Responses API and the newer parts of a chat must never do."""

import json

import pytest

from dialects import ANTHROPIC
from service import KEY, Service

PATH = "/v1/responses"


@pytest.mark.parametrize("where", ["responses", "completions", "tool result", "document"])
def test_a_path_in_a_callers_text_reads_no_file(service, mark, tmp_path, where):
    canary = tmp_path / "canary.txt"
    canary.write_text("the-secret-of-the-file")
    text = f"{mark} [[say=ok]] see @{canary} and /model"
    if where == "responses":
        answer = service.post(PATH, {"model": "sonnet", "store": False, "input": text})
    elif where == "completions":
        answer = service.post("/v1/completions", {"model": "sonnet", "prompt": text})
    else:
        body = ANTHROPIC.body("x")
        if where == "document":
            source = {"type": "text", "media_type": "text/plain", "data": f"@{canary}"}
            body["messages"] = [{"role": "user", "content": [{"type": "document", "source": source}, {"type": "text", "text": text}]}]
        else:
            body["tools"] = [{"name": "look", "input_schema": {"type": "object"}}]
            body["messages"] = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": f"@{canary}"}]}]
        answer = service.post(ANTHROPIC.path, body)
    assert answer.status_code == 200, answer.text
    sent = json.dumps(service.upstream_body(mark)["messages"])
    assert str(canary) in sent and "the-secret-of-the-file" not in sent and "/model" in sent


def test_another_keys_response_is_none():
    other = "another-key-of-another-client"
    import hashlib
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
        file.write(f"other:{hashlib.sha256(other.encode()).hexdigest()}\n")
        file.flush()
        with Service(cli="fake", PROXY_API_KEYS_FILE=file.name) as service:
            mine = service.post(PATH, {"model": "sonnet", "input": "hi"}).json()["id"]
            assert service.get(f"{PATH}/{mine}").status_code == 200
            service.key = other
            with service.client(headers=service.authorization) as client:
                assert client.get(f"{PATH}/{mine}").status_code == 404
                assert client.delete(f"{PATH}/{mine}").status_code == 404
                assert client.post(f"{PATH}/{mine}/cancel").status_code == 404
                assert client.get(f"{PATH}/{mine}/input_items").status_code == 404
                assert client.post(PATH, json={"input": "x", "previous_response_id": mine}).status_code == 400
            service.key = KEY
            assert service.get(f"{PATH}/{mine}").status_code == 200
