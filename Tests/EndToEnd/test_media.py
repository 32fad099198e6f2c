"""Images and documents: they reach the model as native blocks, byte for byte; what is none is refused by name; nothing is fetched."""

import base64
import random
import socket
import struct
import threading
import zlib

import pytest

from dialects import ANTHROPIC, OPENAI, check_error
from test_sdks import anthropic_client, openai_client  # noqa: F401
from tools import function, turns, user

RESPONSES = "/v1/responses"


def png(width=2, height=2, pixels=lambda count: b"\xff\0\0" * (count // 3)):
    """A picture, red unless pixels are given, whole with its checksums."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels(3 * width) for _ in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def gif():
    """One red dot."""
    return b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0," + bytes(4) + b"\1\0\1\0\0\2\2D\1\0;"


def jpeg():
    """One grey dot: a baseline JPEG with tables of the least size."""
    def segment(marker, data):
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data

    # The only code of either table is `0`: no difference, end of block.
    table = bytes([1] + [0] * 15) + b"\0"
    return (b"\xff\xd8" + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0") + segment(0xDB, b"\0" + b"\1" * 64)
            + segment(0xC0, struct.pack(">BHHB", 8, 1, 1, 1) + b"\1\x11\0") + segment(0xC4, b"\0" + table)
            + segment(0xC4, b"\x10" + table) + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x3f" + b"\xff\xd9")


def webp():
    """One dot: lossless, each of its five codes of a single symbol."""
    body = b"VP8L" + struct.pack("<I", 17) + bytes.fromhex("2f0000000007d0fffef7bfff8188e87f4c") + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def pdf():
    """An empty page, its table of places right."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"]
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%sendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 4\n0000000000 65535 f \n" + table + b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(out)


def text_of(data):
    return base64.b64encode(data).decode()


IMAGES = {"image/png": png(), "image/gif": gif(), "image/jpeg": jpeg(), "image/webp": webp()}
PNG = text_of(png())


def data_url(kind="image/png", data=PNG):
    return f"data:{kind};base64,{data}"


def base64_source(kind, data=None):
    return {"type": "base64", "media_type": kind, "data": data or text_of(IMAGES[kind])}


def text(words):
    return {"type": "text", "text": words}


def image_url(url, **more):
    return {"type": "image_url", "image_url": {"url": url, **more}}


def sent_blocks(service, mark):
    """The blocks of the last user message that the model was sent."""
    return turns(service.upstream_body(mark))[-1][1]


# ---- what arrives ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_arrives_byte_for_byte(service, mark, kind):
    """In all three APIs, at its place among the words."""
    words = [text(f"{mark} before"), text("after [[say=seen]]")]
    image = {"type": "image", "source": base64_source(kind)}
    url = data_url(kind, text_of(IMAGES[kind]))
    answer = service.post(OPENAI.path, OPENAI.body("") | {"messages": [user([words[0], image_url(url, detail="low"), words[1]])]})
    assert answer.status_code == 200 and OPENAI.text(answer.json()) == "seen", answer.text
    assert sent_blocks(service, mark) == [words[0], image, words[1]]
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {
        "messages": [user([words[0], {**image, "cache_control": {"type": "ephemeral"}}, words[1]])]})
    assert answer.status_code == 200 and ANTHROPIC.text(answer.json()) == "seen", answer.text
    assert sent_blocks(service, mark) == [words[0], image, words[1]]
    answer = service.post(RESPONSES, {"model": "sonnet", "store": False, "input": [user([
        {"type": "input_text", "text": words[0]["text"]}, {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": words[1]["text"]}])]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark) == [words[0], image, words[1]]
    assert len(service.recorded(mark)) == 3


def test_an_image_alone_is_a_message(service, mark):
    answer = service.post(OPENAI.path, OPENAI.body("") | {"messages": [
        user(f"{mark} [[say=first]]"), {"role": "assistant", "content": "first"}, user([image_url(data_url())])]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark) == [{"type": "image", "source": base64_source("image/png")}]


def test_images_stay_in_the_history(service, mark):
    answer = service.post(OPENAI.path, OPENAI.body("") | {"messages": [
        user([image_url(data_url()), text(mark)]), {"role": "assistant", "content": "a dot"}, user("sure? [[say=yes]]")]})
    assert answer.status_code == 200, answer.text
    assert turns(service.upstream_body(mark))[0] == ("user", [{"type": "image", "source": base64_source("image/png")}, text(mark)])


@pytest.mark.parametrize("side, is_kept", [(300, True), (1000, False)])
def test_a_large_image_arrives(service, mark, side, is_kept):
    """The CLI makes images of more than half a megabyte smaller; they are images still."""
    large = text_of(png(side, side, random.Random(7).randbytes))
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {
        "messages": [user([{"type": "image", "source": base64_source("image/png", large)}, text(f"{mark} [[say=ok]]")])]})
    assert answer.status_code == 200, answer.text
    source = sent_blocks(service, mark)[0]["source"]
    assert (source["data"] == large) == is_kept and source["media_type"] in IMAGES
    assert base64.b64decode(source["data"])[:3] in (b"\x89PN", b"\xff\xd8\xff", b"RIF")


def test_a_document_of_megabytes_arrives(service, mark):
    large = text_of(pdf() + b"%" + b"x" * 3_000_000)
    source = {"type": "base64", "media_type": "application/pdf", "data": large}
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {
        "messages": [user([{"type": "document", "source": source}, text(f"{mark} [[say=ok]]")])]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark)[0]["source"] == source


class Listener:
    """A port of this machine that counts who comes."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.visits = 0
        self.thread = threading.Thread(target=self.count, daemon=True)
        self.thread.start()
        return self

    def count(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/dot.png"

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


def test_an_address_is_passed_on_and_never_fetched(service, mark):
    """The vendor fetches it; a service that did would reach into its operator's network for any caller."""
    with Listener() as listener:
        for url in (listener.url, "https://example.com/a%20b/c.png?x=1&y=2#z"):
            word, wanted = f"{mark}-{len(url)}", [{"type": "image", "source": {"type": "url", "url": url}}]
            words = text(f"{word} [[say=ok]]")
            for path, body in (
                (OPENAI.path, OPENAI.body("") | {"messages": [user([image_url(url), words])]}),
                (ANTHROPIC.path, ANTHROPIC.body("") | {"messages": [user([*wanted, words])]}),
                (RESPONSES, {"model": "sonnet", "input": [user([
                    {"type": "input_image", "image_url": url}, {"type": "input_text", "text": words["text"]}])]}),
            ):
                answer = service.post(path, body)
                assert answer.status_code == 200, answer.text
                assert sent_blocks(service, word) == [*wanted, words]
        assert listener.visits == 0


def test_a_pdf_arrives_as_a_document(service, mark):
    document = text_of(pdf())
    wanted = {"type": "base64", "media_type": "application/pdf", "data": document}
    words = text(f"{mark} [[say=ok]]")
    url = f"data:application/pdf;base64,{document}"
    for path, body in (
        (OPENAI.path, OPENAI.body("") | {"messages": [
            user([{"type": "file", "file": {"filename": "a.pdf", "file_data": url}}, words])]}),
        (ANTHROPIC.path, ANTHROPIC.body("") | {"messages": [user([{"type": "document", "source": wanted, "title": "a.pdf"}, words])]}),
        (RESPONSES, {"model": "sonnet", "input": [user([
            {"type": "input_file", "filename": "a.pdf", "file_data": url}, {"type": "input_text", "text": words["text"]}])]}),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 200, answer.text
        block, said = sent_blocks(service, mark)
        assert (block["type"], block["source"], block.get("title"), said) == ("document", wanted, "a.pdf", words)
    assert len(service.recorded(mark)) == 3


@pytest.mark.parametrize("source", [
    {"type": "text", "media_type": "text/plain", "data": "The sky is blue. \u00fc"}, {"type": "url", "url": "https://example.com/a.pdf"},
    {"type": "content", "content": [text("one"), text("two")]},
], ids=lambda source: source["type"])
def test_anthropics_documents_arrive_as_they_are(service, mark, source):
    document = {"type": "document", "source": source, "title": "Sky", "context": "Trust it.", "citations": {"enabled": True}}
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {"messages": [user([document, text(f"{mark} [[say=ok]]")])]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark)[0] == document


def test_citations_come_back(anthropic_client):  # noqa: F811
    document = {
        "type": "document", "citations": {"enabled": True}, "source": {"type": "text", "media_type": "text/plain", "data": "Blue sky."}}
    create = {"model": "sonnet", "max_tokens": 99, "messages": [user([document, text("[[say=It is blue.]] [[cite=Blue sky]]")])]}
    answer = anthropic_client.messages.create(**create)
    with anthropic_client.messages.stream(**create) as stream:
        streamed = stream.get_final_message()
    for message in (answer, streamed):
        cited = [citation.cited_text for block in message.content for citation in block.citations or []]
        assert cited == ["Blue sky"] and "".join(block.text for block in message.content) == "It is blue.Blue sky"


# ---- images in tool results --------------------------------------------------------------------------------------------------


def test_an_image_in_a_tool_result_arrives(service, mark):
    image = {"type": "image", "source": base64_source("image/png")}
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {"tools": tools, "messages": [
        user(f"{mark} [[then=a dot]]"), {"role": "assistant", "content": [call]},
        user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("here"), image]}])]})
    assert answer.status_code == 200 and ANTHROPIC.text(answer.json()) == "a dot", answer.text
    assert sent_blocks(service, mark)[0]["content"] == [text("here"), image]
    answer = service.post(RESPONSES, {
        "model": "sonnet", "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}], "input": [
            user(f"{mark} [[then=a dot]]"), {"type": "function_call", "call_id": "toolu_1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "toolu_1", "output": [
                {"type": "input_text", "text": "here"}, {"type": "input_image", "image_url": data_url()}]}]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark)[0]["content"] == [text("here"), image]
    answer = service.post(OPENAI.path, OPENAI.body("") | {"tools": [function("look")], "messages": [
        user(f"{mark} [[then=a dot]]"),
        {"role": "assistant", "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": [text("here"), image_url(data_url())]}]})
    assert answer.status_code == 200, answer.text
    assert sent_blocks(service, mark)[0]["content"] == [text("here"), image]


# ---- what is refused ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "bad base64": image_url("data:image/png;base64,a%%%"), "no base64": image_url("data:image/png,abc"),
    "no data": image_url("data:image/png;base64,"), "a TIFF": image_url(data_url("image/tiff")),
    "a text as image": image_url(data_url("text/html")), "file:": image_url("file:///etc/passwd"), "ftp:": image_url("ftp://host/a.png"),
    "a path": image_url("/etc/passwd"), "no address": image_url(""), "a number": image_url(7), "nothing": {"type": "image_url"},
    "a string": {"type": "image_url", "image_url": 7}, "sound": {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    "unknown": {"type": "hologram"}, "no type": {"text": "x"},
    "a file by id": {"type": "file", "file": {"file_id": "file-1"}}, "an empty file": {"type": "file", "file": {}},
    "a file in words": {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,%"}},
    "a program": {"type": "file", "file": {"filename": "a.exe", "file_data": data_url("application/x-msdownload")}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_openais_parts_that_are_none_are_refused(service, name):
    answer = service.post(OPENAI.path, OPENAI.body("") | {"messages": [user([text("x"), REFUSED[name]])]})
    assert answer.status_code == 400, answer.text
    check_error(OPENAI, answer.json(), "invalid_request")
    assert answer.json()["error"]["param"].startswith("messages[0].content[1]") and "messages[0].content[1]" in answer.text


def block(kind, **source):
    return {"type": kind, "source": source}


ANTHROPIC_REFUSED = {
    "bad base64": block("image", type="base64", media_type="image/png", data="a%%%"),
    "no data": block("image", type="base64", media_type="image/png"), "empty": block("image", type="base64", media_type="image/png", data=""),
    "a BMP": block("image", type="base64", media_type="image/bmp", data=PNG), "no media type": block("image", type="base64", data=PNG),
    "file:": block("image", type="url", url="file:///etc/passwd"), "a path": block("document", type="url", url="/etc/passwd"),
    "a file by id": block("document", type="file", file_id="file_1"), "unknown source": block("image", type="wish", data=PNG),
    "no source": {"type": "image"}, "a source in words": {"type": "image", "source": PNG}, "unknown": {"type": "hologram"},
    "a picture as document": block("document", type="base64", media_type="image/png", data=PNG),
    "a server's result": {"type": "web_search_tool_result", "tool_use_id": "x", "content": []},
    "an upload": {"type": "container_upload", "file_id": "file_1"},
}


@pytest.mark.parametrize("name", ANTHROPIC_REFUSED)
def test_anthropics_blocks_that_are_none_are_refused(service, name):
    answer = service.post(ANTHROPIC.path, ANTHROPIC.body("") | {"messages": [user([text("x"), ANTHROPIC_REFUSED[name]])]})
    assert answer.status_code == 400, answer.text
    assert "messages[0].content[1]" in check_error(ANTHROPIC, answer.json(), "invalid_request")


RESPONSES_REFUSED = {
    "bad base64": {"type": "input_image", "image_url": "data:image/png;base64,%"}, "file:": {"type": "input_image", "image_url": "file:///x"},
    "by id": {"type": "input_image", "file_id": "file-1"}, "a file by id": {"type": "input_file", "file_id": "file-1"},
    "sound": {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}, "unknown": {"type": "hologram"},
}


@pytest.mark.parametrize("name", RESPONSES_REFUSED)
def test_responses_parts_that_are_none_are_refused(service, name):
    answer = service.post(RESPONSES, {"model": "sonnet", "input": [user([{"type": "input_text", "text": "x"}, RESPONSES_REFUSED[name]])]})
    assert answer.status_code == 400, answer.text
    check_error(OPENAI, answer.json(), "invalid_request")
    assert answer.json()["error"]["param"].startswith("input[0].content[1]")


def test_pictures_are_the_users_alone(service):
    """The model can't have sent one, and a system prompt is text."""
    for role in ("assistant", "system"):
        answer = service.post(OPENAI.path, OPENAI.body("") | {"messages": [{"role": role, "content": [image_url(data_url())]}, user("x")]})
        assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("messages[0].content[0]")
