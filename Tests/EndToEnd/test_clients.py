"""Clients that many programs are written with: LangChain's two and LiteLLM in both dialects, over HTTPS, with the certificate verified.

Nothing but this machine can be reached meanwhile: neither a price list nor a tracing service.
"""

import json
import os
import socket

import httpx
import pydantic
import pytest

from tools import PARIS, result_of, turns

QUESTION = "[[say=Let me look.]] [[tool=weather {\"city\": \"Paris\"}]] [[then=It is sunny.]]"
PERSON = {"name": "Ann", "age": 3}
# Names that each client's own tables know, and that the service hands to the CLI as they are.
MODEL = "claude-sonnet-4-6"


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str = pydantic.Field(description="The name.")
    age: int = pydantic.Field(description="In years.")


@pytest.fixture(scope="module", autouse=True)
def this_machine_only(service):
    """The network is off, tracing and price lists too, and the service's certificate is the only one that counts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.lower().endswith("_proxy") or name.startswith(("LANGCHAIN", "LANGSMITH", "LITELLM", "OPENAI_", "ANTHROPIC_")):
                patch.delenv(name)
        for name, value in {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "true", "HF_HUB_OFFLINE": "1",
            "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false",
            "SSL_CERT_FILE": str(service.run_dir / "tls.crt"), "SSL_VERIFY": str(service.run_dir / "tls.crt"), "NO_PROXY": "*",
        }.items():
            patch.setenv(name, value)
        connect, look_up = socket.socket.connect, socket.getaddrinfo

        def connected(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
                raise AssertionError(f"a client wanted to reach {address}")
            return connect(self, address)

        def looked_up(host, *rest, **more):
            if host not in ("127.0.0.1", b"127.0.0.1", "localhost", None):
                raise AssertionError(f"a client asked for {host}")
            return look_up(host, *rest, **more)

        patch.setattr(socket.socket, "connect", connected)
        patch.setattr(socket, "getaddrinfo", looked_up)
        yield


# ---- LangChain ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["openai", "responses", "anthropic"])
def chat(request, service, this_machine_only):
    """LangChain's chat model of each API."""
    if request.param == "anthropic":
        from langchain_anthropic import ChatAnthropic

        yield ChatAnthropic(model=MODEL, base_url=service.tls_url, api_key=service.key, max_retries=0, timeout=60, max_tokens=1024)
    else:
        from langchain_openai import ChatOpenAI

        with httpx.Client(verify=service.tls_context(), trust_env=False, http2=True) as transport:
            yield ChatOpenAI(
                model=MODEL, base_url=service.tls_url + "/v1", api_key=service.key, http_client=transport, max_retries=0, timeout=60,
                use_responses_api=request.param == "responses", stream_usage=True)


@pytest.fixture(scope="module")
def weather(this_machine_only):
    from langchain_core.tools import tool

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"{city} is sunny"

    return weather


def test_langchain_invokes(service, chat, mark):
    answer = chat.invoke([
        ("system", f"Be {mark}."), ("human", "hello"), ("ai", "Hi."), ("human", f"{mark} [[say=Bonjour]] [[usage=11,5,3]]")])
    assert answer.text == "Bonjour" and answer.response_metadata["model_name"].startswith("claude-")
    assert answer.usage_metadata["input_tokens"] == 19 and answer.usage_metadata["output_tokens"] > 0
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 5
    body = service.upstream_body(mark)
    assert [role for role, _ in turns(body)] == ["user", "assistant", "user"] and f"Be {mark}." in json.dumps(body["system"])


def test_langchain_streams(chat):
    chunks = list(chat.stream("[[tokens=5]] [[delay_ms=5]]"))
    assert [chunk.text for chunk in chunks if chunk.text] == [f"tok{number} " for number in range(5)]
    whole = sum(chunks[1:], chunks[0])
    assert whole.usage_metadata["output_tokens"] == 5


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_langchain_calls_tools(service, chat, weather, mark, stream):
    from langchain_core.messages import HumanMessage

    bound = chat.bind_tools([weather])
    messages = [HumanMessage(f"{mark} {QUESTION}")]
    if stream:
        chunks = list(bound.stream(messages))
        first = sum(chunks[1:], chunks[0])
    else:
        first = bound.invoke(messages)
    [call] = first.tool_calls
    assert (call["name"], call["args"]) == ("weather", PARIS) and first.text == "Let me look."
    messages += [first, weather.invoke(call)]
    assert bound.invoke(messages).text == "It is sunny."
    _, (_, said), (_, given) = turns(service.upstream_body(mark))
    assert said[-1]["input"] == PARIS and result_of(given[0]) == "Paris is sunny" and given[0]["tool_use_id"] == said[-1]["id"]


def test_langchain_forces_a_tool(service, chat, weather, mark):
    bound = chat.bind_tools([weather], tool_choice="weather")
    assert [call["name"] for call in bound.invoke(mark).tool_calls] == ["weather"]
    assert service.upstream_body(mark)["tool_choice"]["name"] == "weather"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structures(service, chat, mark, method):
    text = json.dumps(PERSON)
    structured = chat.with_structured_output(Person, method=method)
    # Either way of asking; the tool that LangChain makes of the class is called after it.
    prompt = f"{mark} [[json={text}]]" if method == "json_schema" else f"{mark} [[tool=Person {text}]]"
    assert structured.invoke(prompt) == Person(**PERSON)
    [sent] = service.upstream_body(mark)["tools"]
    assert sent["name"] == ("StructuredOutput" if method == "json_schema" else "Person")
    assert sent["input_schema"]["properties"].keys() == PERSON.keys()


def test_langchain_shows_images(service, chat, mark):
    from test_media import PNG

    answer = chat.invoke([{"role": "user", "content": [
        {"type": "text", "text": f"{mark} [[say=a dot]]"}, {"type": "image", "base64": PNG, "mime_type": "image/png"}]}])
    assert answer.text == "a dot"
    assert turns(service.upstream_body(mark))[0][1][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}


def test_langchain_raises_what_the_vendor_raises(chat):
    with pytest.raises(Exception) as failure:
        chat.invoke("[[error=400]]")
    # LangChain may wrap it, the vendor's own class is among its causes.
    kinds, error = [], failure.value
    while error:
        kinds.append(type(error).__name__)
        error = error.__cause__
    assert "BadRequestError" in kinds, kinds


# ---- LiteLLM -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["openai", "anthropic"])
def complete(request, service, this_machine_only):
    """LiteLLM's `completion` towards each dialect."""
    import functools

    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.ssl_verify = str(service.run_dir / "tls.crt")
    base = service.tls_url + ("/v1" if request.param == "openai" else "")
    return functools.partial(
        litellm.completion, model=f"{request.param}/{MODEL}", api_base=base, api_key=service.key, num_retries=0, max_retries=0, timeout=60)


LITELLM_TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def user(prompt):
    return {"role": "user", "content": prompt}


def test_litellm_completes(service, complete, mark):
    answer = complete(messages=[{"role": "system", "content": f"Be {mark}."}, user(f"{mark} [[say=Bonjour]] [[usage=11,5,3]]")])
    assert answer.choices[0].message.content == "Bonjour" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 19 and answer.usage.prompt_tokens_details.cached_tokens == 5
    assert f"Be {mark}." in json.dumps(service.upstream_body(mark)["system"])


def test_litellm_streams(complete):
    chunks = list(complete(messages=[user("[[tokens=5]]")], stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "tok0 tok1 tok2 tok3 tok4 "
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason] == ["stop"]
    assert [chunk.usage.completion_tokens for chunk in chunks if getattr(chunk, "usage", None)][-1] == 5


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_litellm_calls_tools(service, complete, mark, stream):
    import litellm

    question = user(f"{mark} {QUESTION}")
    first = complete(messages=[question], tools=[LITELLM_TOOL], stream=stream)
    if stream:
        first = litellm.stream_chunk_builder(list(first))
    [choice] = first.choices
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look."
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", PARIS)
    end = complete(tools=[LITELLM_TOOL], messages=[
        question, choice.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "25 degrees"}])
    assert end.choices[0].message.content == "It is sunny."
    _, (_, said), (_, given) = turns(service.upstream_body(mark))
    assert said[-1]["id"] == call.id == given[0]["tool_use_id"] and result_of(given[0]) == "25 degrees"


def test_litellm_forces_a_tool_and_stops(service, complete, mark):
    answer = complete(messages=[user(mark)], tools=[LITELLM_TOOL], tool_choice={"type": "function", "function": {"name": "weather"}})
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    assert service.upstream_body(mark)["tool_choice"]["name"] == "weather"
    answer = complete(messages=[user("[[say=one STOP two]]")], stop=["STOP"])
    assert answer.choices[0].message.content.strip() == "one" and answer.choices[0].finish_reason == "stop"


def test_litellm_structures(complete):
    # Towards Anthropic in the beta's spelling, a top-level `output_format`.
    text = json.dumps(PERSON)
    answer = complete(messages=[user(f"[[json={text}]]")], response_format=Person)
    assert Person.model_validate_json(answer.choices[0].message.content) == Person(**PERSON)


def test_litellm_raises_what_the_vendor_raises(complete):
    import litellm

    with pytest.raises(litellm.BadRequestError):
        complete(messages=[user("[[error=400]]")])
    with pytest.raises(litellm.NotFoundError):
        complete(messages=[user("x")], model="openai/gpt-4o" if "openai" in complete.keywords["model"] else "anthropic/gpt-4o")
