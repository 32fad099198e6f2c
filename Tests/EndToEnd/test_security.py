"""What a caller's words must never do, and what nobody must ever read."""

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path

import pytest

from conftest import CANARY_VARIABLE
from dialects import ALL, ANTHROPIC, CHATS, DIRECT, OPENAI
from service import environment, pids, proc, until
from test_conversations import conversation


@pytest.fixture(scope="module")
def chat_directory(service):
    """Where the CLI of a chat stands, as the kernel shows it."""
    # With words: a process that has just been forked stands where its responder does.
    with running(service, OPENAI, f"mark-{uuid.uuid4().hex}") as pid:
        return os.readlink(f"/proc/{pid}/cwd")


@contextlib.contextmanager
def running(service, dialect, text="", **extra):
    """A request whose answer does not come, and the process id of its CLI; the client leaves at the end."""
    service.no_cli()
    with service.connect(dialect, dialect.body(f"[[stall=0]] {text}", **extra)):
        pid = service.one_cli()
        if text:
            until(lambda: service.recorded(text), 20, "the request's way upstream", 0.05)
        yield pid
    service.no_cli()


@pytest.fixture(scope="module")
def canaries(service, chat_directory, workspace):
    """Files whose content must stay where it is: outside and inside of every working directory, with and without spaces."""
    secret = "canary" + uuid.uuid4().hex
    outside = workspace / "outside"
    inside = workspace / "inside"
    made = [outside, inside]
    places = [outside, inside, service.run_dir / "claude"]
    chat = Path(chat_directory)
    places += [chat, chat.parent]
    files = []
    for place in places:
        place.mkdir(exist_ok=True)
        for name in ("e2e-canary.txt", "e2e canary with spaces.md", "e2e-canary.png", "CLAUDE.md"):
            path = place / name
            if not path.exists():
                path.write_text(f"{secret} in {name}\n")
                files.append(path)
    command = inside / ".claude" / "commands"
    command.mkdir(parents=True)
    (command / "e2e-canary.md").write_text(f"{secret} in a command\n")
    (inside / ".claude" / "settings.json").write_text(json.dumps({"env": {"E2E": secret}, "model": secret}))
    yield secret, files, inside
    for path in files:
        path.unlink(missing_ok=True)
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


def mentions(files):
    """Every way to name the files that the CLI knows."""
    text = []
    for path in files:
        text += [f"@{path}", f'@"{path}"', f"@{path}#L1-2", f"@{path.parent}/", f'@"./{path.name}"', f"@../{path.name}"]
        text += [f"@{path.name}", f'@"{path.name}"', f"@./{path.name}", f"@file://{path}"]
    return "\n".join(dict.fromkeys(text))


@pytest.mark.parametrize("blocks", [False, True], ids=["string", "blocks"])
@pytest.mark.parametrize("dialect", CHATS, ids=str)
def test_a_path_in_a_chat_reads_no_file(service, canaries, dialect, blocks, mark):
    secret, files, _ = canaries
    text = f"{mark}\n{mentions(files)}"
    body = dialect.body(
        f"{text} [[say=ok]]", system=f"system {text}", history=[("user", f"user {text}"), ("assistant", f"assistant {text}")],
        blocks=blocks)
    answer = service.post(dialect.path, body)
    assert answer.status_code == 200, answer.text
    assert len(service.recorded(mark)) == 1
    messages = service.upstream_body(mark)["messages"]
    # What was said arrived as it was said, and the file's content did not.
    assert conversation(service.upstream_body(mark)) == [
        ("user", f"user {text}"), ("assistant", f"assistant {text}"), ("user", f"{text} [[say=ok]]")]
    assert secret not in service.record_file.read_text() and secret not in answer.text
    assert {block["type"] for message in messages for block in message["content"] if isinstance(block, dict)} <= {"text"}


@pytest.mark.parametrize("alone", [False, True], ids=["among words", "alone"])
def test_a_path_in_a_run_reads_no_file(service, canaries, mark, alone):
    secret, files, inside = canaries
    names = [mentions(files)] if not alone else ["@e2e-canary.txt", '@"e2e canary with spaces.md"', f"@{inside}/e2e-canary.txt"]
    for name in names:
        prompt = f"{name} {mark} [[say=ok]]"
        answer = service.post(DIRECT.path, DIRECT.body(prompt, workingDirectory=str(inside), allowedTools=["Read", "Bash"]))
        assert answer.status_code == 200, answer.text
        assert conversation(service.recorded(mark)[-1]["body"])[-1] == ("user", prompt)
        assert secret not in service.record_file.read_text() and secret not in answer.text


def test_a_directorys_own_settings_and_memory_have_no_part_in_a_run(service, canaries, mark):
    secret, _, inside = canaries
    answer = service.post(DIRECT.path, DIRECT.body(f"{mark} [[say=ok]]", workingDirectory=str(inside)))
    assert answer.status_code == 200, answer.text
    assert secret not in json.dumps(service.recorded(mark))


@pytest.mark.parametrize("dialect", ALL, ids=str)
@pytest.mark.parametrize("text", ["/cost", "/clear", "/init", "/compact", "/model haiku", "/e2e-canary", "/context", "!id", "# remember"])
def test_a_command_arrives_as_text(service, canaries, dialect, text):
    before = len(service.recorded(json.dumps(text)))
    extra = {"workingDirectory": str(canaries[2])} if dialect is DIRECT else {}
    answer = service.post(dialect.path, dialect.body(text, **extra))
    assert answer.status_code == 200, answer.text
    found = service.recorded(json.dumps(text))
    assert len(found) == before + 1
    assert conversation(found[-1]["body"])[-1] == ("user", text)


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_the_clis_arguments_and_environment_hold_nothing_of_the_caller_or_the_service(service, dialect, mark):
    extra = {} if dialect is DIRECT else {"system": f"system-{mark}", "history": [("user", f"old-{mark}"), ("assistant", "ok")]}
    with running(service, dialect, mark, **extra) as pid:
        assert proc(pid, "cmdline")
        for process in pids():
            assert mark.encode() not in proc(process, "cmdline"), "the prompt is in a process list"
        variables = environment(pid)
        assert variables and b"PROXY_API_KEY" not in variables
        assert CANARY_VARIABLE.encode() not in variables
        text = proc(pid, "environ") + proc(pid, "cmdline")
        assert service.key.encode() not in text and mark.encode() not in text
        for name in (b"PORT", b"TLS_PORT", b"LOG_LEVEL", b"WORKER_CONCURRENCY", b"ALLOWED_DIRECTORIES", b"SUPERVISOR_ENABLED"):
            assert name not in variables
        # Nothing of the service's is open in it.
        links = {os.readlink(f"/proc/{pid}/fd/{number}") for number in ("0", "1", "2")}
        assert all(link.startswith("pipe:") for link in links)


def test_the_clis_environment_is_not_inherited_by_a_tool(service, directory, mark):
    prompt = f'{mark} [[tool=Bash {{"command":"env; cat /proc/$PPID/environ | tr \'\\\\0\' \'\\\\n\'","description":"x"}}]]'
    answer = service.post(DIRECT.path, DIRECT.body(prompt, allowedTools=["Bash"], workingDirectory=str(directory)))
    assert answer.status_code == 200, answer.text
    seen = json.dumps(service.recorded(mark)[-1]["body"]["messages"])
    assert "tool_result" in seen and "PATH=" in seen
    assert service.key not in seen and "PROXY_API_KEY" not in seen and "canary-of-the-environment" not in seen


def test_keys_prompts_and_answers_are_in_no_log(service, mark):
    prompt, said, wrong = f"prompt-{mark}", f"answer-{mark}", f"wrong-{mark}"
    for dialect in ALL:
        service.post(dialect.path, dialect.body(f"{prompt} [[say={said}]]"))
        service.post(dialect.path, dialect.body(f"{prompt} [[say={said}]]"), headers={"Authorization": f"Bearer {wrong}"})
        service.post(dialect.path, dialect.body(f"{prompt} [[say={said}]]"), headers={"x-api-key": wrong})
        service.post(dialect.path, dialect.body(f"{prompt} [[error=400]]"))
        service.post(dialect.path + f"?key={wrong}", dialect.body(f"{prompt} [[say={said}]]"))
        service.post(dialect.path, {"prompt": prompt, "messages": prompt, prompt: prompt})
    service.post(ANTHROPIC.path, ANTHROPIC.body(f"{prompt} [[error=500]]"))  # with the CLI's retries
    service.raw(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nAuthorization: Bearer {wrong}\r\n\r\n".encode())
    service.get("/v1/models", headers={"Authorization": f"Bearer {wrong}"})
    service.get("/health")
    logs = service.all_logs()
    for word in (service.key, prompt, said, wrong, "canary-of-the-environment"):
        assert word not in logs, f"{word} is in a log: {logs[max(0, logs.index(word) - 300):][:600]}"


def test_errors_do_not_quote_prompts_or_keys(service, mark):
    for dialect in ALL:
        for body in (dialect.body(f"{mark} [[error=401]]"), dialect.body(mark, model=5), dialect.body(mark, messages=mark, workingDirectory=5)):
            answer = service.post(dialect.path, body)
            assert mark not in answer.text or answer.status_code == 200, answer.text
        answer = service.post(dialect.path, dialect.body(mark), headers={"Authorization": f"Bearer {mark}"})
        assert answer.status_code == 401 and mark not in answer.text


def test_one_callers_words_never_reach_another(service, mark):
    """Answers of requests at the same time stay apart."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(number):
        dialect = ALL[number % 3]
        return number, dialect.text(service.post(dialect.path, dialect.body(f"[[echo]] {mark}-{number}-end")).json())

    with ThreadPoolExecutor(6) as pool:
        for number, text in pool.map(ask, range(8)):
            assert f"{mark}-{number}-end" in text and text.count(mark) == 1


def test_the_run_directory_is_for_its_owner_alone(service):
    # Not by rglob, which does not forgive what vanishes meanwhile.
    found = [Path(directory, name) for directory, names, files in os.walk(service.run_dir) for name in (*names, *files)]
    assert found
    for path in found:
        if path.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            assert path.stat().st_mode & 0o007 == 0 or (path.parent.stat().st_mode & 0o007) == 0, path
    for name in ("tls.key", "claude-fcgi.sock"):
        assert (service.run_dir / name).stat().st_mode & 0o077 == 0, name


def test_the_offline_upstream_answers_this_machine_only(service):
    """It listens nowhere but behind nginx on loopback."""
    for pid in service.named("offline-"):
        for name in ("net/tcp", "net/tcp6"):
            own_sockets = set()
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # a connection that was closed meanwhile
                    own_sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
            listening = {line.split()[9] for line in proc(pid, name).decode().splitlines()[1:] if line.split()[3] == "0A"}
            assert not own_sockets & listening
