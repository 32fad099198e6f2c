"""The vendors' own SDKs, through TLS and HTTP/2, with the certificate verified."""

import anthropic
import openai
import pytest


@pytest.fixture(scope="module")
def openai_client(service):
    transport = openai.DefaultHttpxClient(http2=True, verify=service.tls_context(), trust_env=False)
    with openai.OpenAI(
        base_url=service.tls_url + "/v1", api_key=service.key, http_client=transport, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(service):
    transport = anthropic.DefaultHttpxClient(http2=True, verify=service.tls_context(), trust_env=False)
    with anthropic.Anthropic(
        base_url=service.tls_url, api_key=service.key, http_client=transport, max_retries=0, timeout=60) as client:
        yield client


def test_openai_answers_over_http2(openai_client):
    raw = openai_client.chat.completions.with_raw_response.create(
        model="sonnet", messages=[{"role": "user", "content": "[[say=Bonjour, le monde]] [[usage=11,5,3]]"}])
    assert raw.http_response.http_version == "HTTP/2"
    answer = raw.parse()
    assert answer.choices[0].message.content == "Bonjour, le monde"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 11 + 5 + 3
    assert answer.usage.prompt_tokens_details.cached_tokens == 5
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id.startswith("chatcmpl-") and answer.model.startswith("claude-")


def test_openai_streams_token_by_token(openai_client):
    chunks = list(openai_client.chat.completions.create(
        model="sonnet", stream=True, stream_options={"include_usage": True},
        messages=[{"role": "user", "content": "[[tokens=5]] [[delay_ms=20]] [[usage=7,2,1]]"}]))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert pieces == ["tok0 ", "tok1 ", "tok2 ", "tok3 ", "tok4 "]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.prompt_tokens == 10
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_openai_gives_a_stream_without_usage_none(openai_client):
    chunks = list(openai_client.chat.completions.create(
        model="sonnet", stream=True, messages=[{"role": "user", "content": "[[say=x]]"}]))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_openai_lists_and_gets_models(openai_client):
    listed = [model.id for model in openai_client.models.list()]
    assert {"opus", "sonnet", "haiku"} <= set(listed) and len(listed) == len(set(listed))
    assert any(name.startswith("claude-") for name in listed)
    for name in listed:
        assert openai_client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError) as failure:
        openai_client.models.retrieve("gpt-4o")
    assert failure.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_raises_its_own_errors(openai_client, stream):
    ask = openai_client.chat.completions.create
    with pytest.raises(openai.RateLimitError) as failure:
        ask(model="sonnet", stream=stream, messages=[{"role": "user", "content": "[[error=429]]"}])
    assert int(failure.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.NotFoundError):
        ask(model="gpt-4o", stream=stream, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError) as failure:
        ask(model="sonnet", stream=stream, messages=[])
    assert failure.value.param == "messages"
    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key="wrong").chat.completions.create(
            model="sonnet", stream=stream, messages=[{"role": "user", "content": "x"}])


def test_openai_raises_for_a_stream_cut_short(openai_client):
    pieces = []
    with pytest.raises(openai.APIError):
        for chunk in openai_client.chat.completions.create(
            model="sonnet", stream=True, messages=[{"role": "user", "content": "[[tokens=9]] [[cut=3]]"}]):
            pieces.append(chunk.choices[0].delta.content or "")
    assert "".join(pieces) == "tok0 tok1 tok2 "


def test_anthropic_answers_over_http2(anthropic_client):
    raw = anthropic_client.messages.with_raw_response.create(
        model="sonnet", max_tokens=100,
        messages=[{"role": "user", "content": "[[say=Bonjour, le monde]] [[usage=11,5,3]]"}])
    assert raw.http_response.http_version == "HTTP/2"
    answer = raw.parse()
    assert [block.text for block in answer.content] == ["Bonjour, le monde"]
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert answer.id.startswith("msg_") and answer.model.startswith("claude-")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.cache_creation_input_tokens) == (11, 5, 3)
    assert answer.usage.output_tokens > 0


def test_anthropic_streams_token_by_token(anthropic_client):
    with anthropic_client.messages.stream(
        model="sonnet", max_tokens=100,
        messages=[{"role": "user", "content": "[[tokens=5]] [[delay_ms=20]] [[usage=7,2,1]]"}]) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert pieces == ["tok0 ", "tok1 ", "tok2 ", "tok3 ", "tok4 "]
    assert final.content[0].text == "".join(pieces) and final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.cache_creation_input_tokens) == (7, 2, 1)
    assert final.usage.output_tokens > 0


def test_anthropic_sends_its_events_in_order(anthropic_client):
    events = [event.type for event in anthropic_client.messages.create(
        model="sonnet", max_tokens=100, stream=True, messages=[{"role": "user", "content": "[[tokens=2]]"}])]
    assert events == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_raises_its_own_errors(anthropic_client, stream):
    def ask(client, text="x", model="sonnet"):
        client.messages.create(model=model, max_tokens=9, stream=stream, messages=[{"role": "user", "content": text}])

    with pytest.raises(anthropic.RateLimitError):
        ask(anthropic_client, "[[error=429]]")
    with pytest.raises(anthropic.APIStatusError) as failure:
        ask(anthropic_client, "[[error=529]]")
    assert failure.value.status_code == 529 and failure.value.body["error"]["type"] == "overloaded_error"
    with pytest.raises(anthropic.NotFoundError):
        ask(anthropic_client, model="gpt-4o")
    with pytest.raises(anthropic.BadRequestError):
        ask(anthropic_client, "  ")
    with pytest.raises(anthropic.AuthenticationError):
        ask(anthropic_client.with_options(api_key="wrong"))


def test_anthropic_raises_for_a_stream_cut_short(anthropic_client):
    with pytest.raises(anthropic.APIError):
        for _ in anthropic_client.messages.create(
            model="sonnet", max_tokens=9, stream=True, messages=[{"role": "user", "content": "[[tokens=9]] [[cut=3]]"}]):
            pass


def test_anthropics_other_credential_works_too(service):
    transport = anthropic.DefaultHttpxClient(http2=True, verify=service.tls_context(), trust_env=False)
    with anthropic.Anthropic(
        base_url=service.tls_url, auth_token=service.key, api_key=None, http_client=transport, max_retries=0) as client:
        answer = client.messages.create(model="sonnet", max_tokens=9, messages=[{"role": "user", "content": "[[say=ok]]"}])
    assert answer.content[0].text == "ok"


def test_a_client_that_does_not_trust_the_certificate_gets_nothing(service):
    with openai.OpenAI(base_url=service.tls_url + "/v1", api_key=service.key, max_retries=0, timeout=10) as client:
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
