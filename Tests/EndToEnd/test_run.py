"""`make run` as a person meets it: starts, messages, endings, and the program's own commands."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat as stat_bits
import subprocess
import time

import pytest

from dialects import OPENAI
from service import CHECKOUT, KEY, Service, alive, remove_segment, until

PROGRAMS = CHECKOUT / ".build/release"


def program(service, *arguments, cwd="/", **settings):
    """Runs claude-fcgi with a service's environment."""
    environment = {**service.environment, **{name: str(value) for name, value in settings.items() if value is not None}}
    for name, value in settings.items():
        if value is None:
            environment.pop(name, None)
    directory = os.environ.get("CLAUDE_FCGI_BIN", str(PROGRAMS))
    return subprocess.run(
        [f"{directory}/claude-fcgi", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def refused(**settings):
    """Scripts/run with settings that can't work: what it says."""
    service = Service(wait=False, **settings)
    try:
        service.start()
        until(lambda: service.process.poll() is not None or "claude-fcgi is up" in service.output(), 90, "the start or its end")
        assert service.process.poll() not in (0, None), "it started"
        until(lambda: not service.processes(), 5, "the end of every process")
        return service.log() + service.output()
    finally:
        service.kill()
        shutil.rmtree(service.base, ignore_errors=True)


def test_the_start_says_what_to_type_next(service):
    text = service.output()
    assert f"http://localhost:{service.port}" in text and f"https://localhost:{service.tls_port}" in text
    assert "CANNED" in text
    command = next(line for line in text.splitlines() if line.startswith("curl "))
    assert KEY not in text, "a key was printed into a file"
    ended = subprocess.run(["bash", "-c", command], env={**os.environ, "PROXY_API_KEY": KEY}, capture_output=True, text=True, timeout=60)
    assert '"chat.completion"' in ended.stdout, ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_everything(number):
    with Service(cli="fake") as service:
        assert service.post(OPENAI.path, OPENAI.body("hi")).status_code == 200
        assert len(service.responders()) == 2
        service.stop(number)  # checks that nothing is left


def test_a_stop_lets_a_running_stream_finish():
    import httpx

    from dialects import events_of

    with Service() as service:
        with service.client() as client, client.stream(
            "POST", OPENAI.path, json=OPENAI.body("[[tokens=20]] [[delay_ms=100]]", stream=True)) as answer:
            lines = answer.iter_lines()
            text = ""
            for line in lines:
                text += line + "\n"
                if "tok2 " in line:
                    break
            service.process.send_signal(signal.SIGTERM)
            for line in lines:
                text += line + "\n"
        events = events_of(text)
        assert OPENAI.is_whole(events) and len(re.findall(r"tok\d+ ", OPENAI.streamed_text(events))) == 20
        assert service.process.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            service.get("/health")
        until(lambda: not service.processes(), 5, "the end of every process")


def test_a_second_signal_does_not_wait():
    with Service(cli="fake") as service:
        service.mode("slow 30000")
        subprocess.Popen(  # a caller that would be waited for
            ["curl", "-s", "-o", "/dev/null", "-H", f"x-api-key: {KEY}", "-d", '{"prompt": "hi"}', service.url + "/api/run"])
        until(lambda: service.clis(), 10)
        began = time.monotonic()
        service.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(25) == 0
        assert time.monotonic() - began < 20
        until(lambda: not service.processes(), 5, "the end of every process")


def test_two_services_run_side_by_side(mark):
    with Service(cli="fake") as first, Service(cli="fake", PROXY_API_KEY="another-key-for-the-second") as second:
        second.key = "another-key-for-the-second"
        for service in (first, second):
            assert service.post(OPENAI.path, OPENAI.body(mark)).status_code == 200
        with first.client(headers=second.authorization) as client:
            assert client.get("/v1/models").status_code == 401
        second.stop()
        assert first.post(OPENAI.path, OPENAI.body(mark)).status_code == 200


def test_a_second_service_on_the_same_directory_is_refused():
    with Service(cli="fake") as service:
        text = refused(cli=str(service.base / "claude"), RUN_DIR=service.run_dir)
        assert "RUN_DIR" in text
        assert service.post(OPENAI.path, OPENAI.body("hi")).status_code == 200


def test_a_second_start_after_everything_was_killed_works():
    with Service(cli="fake") as service:
        service.mode("slow 30000")
        caller = subprocess.Popen(
            ["curl", "-s", "-o", "/dev/null", "-H", f"x-api-key: {KEY}", "-d", '{"prompt": "hi"}', service.url + "/api/run"])
        until(lambda: service.clis(), 10)
        service.kill()
        caller.wait(10)
        assert list(service.run_dir.glob("*.sock")), "this test wants remains"
        service.output_file.write_text("")
        service.mode("fast")
        service.start()
        answer = service.post(OPENAI.path, OPENAI.body("hi"))
        assert answer.status_code == 200 and OPENAI.text(answer.json()) == "hi"
        until(lambda: not service.temporary(), 20, f"an empty RUN_DIR/tmp, not {service.temporary()} of {service.responders()}")


def test_a_start_after_only_the_script_was_killed_ends_what_was_left():
    with Service(cli="fake") as service:
        before = set(service.processes())
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait(10)
        service.output_file.write_text("")
        service.start()
        until(lambda: not any(alive(pid) for pid in before), 10, "the end of the old processes")
        assert service.post(OPENAI.path, OPENAI.body("hi")).status_code == 200


@pytest.mark.parametrize("variable", ["PORT", "TLS_PORT"])
def test_a_busy_port_is_named(variable):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = refused(**{variable: port})
    assert variable in text and str(port) in text and ("taken" in text or "use" in text)


BAD = [
    ("PORT", "abc"), ("PORT", "0"), ("PORT", "70000"), ("TLS_PORT", "x"), ("REQUEST_TIMEOUT_MS", "5"), ("REQUEST_TIMEOUT_MS", "soon"),
    ("WORKER_CONCURRENCY", "0"), ("WORKER_CONCURRENCY", "two"), ("MAX_QUEUE_SIZE", "-1"), ("QUEUE_TIMEOUT_MS", "x"),
    ("RESPONDERS", "0"), ("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml"), ("ALLOWED_DIRECTORIES", "relative"),
    ("PROXY_API_KEY", "with space"), ("BIND_ADDRESS", "example.org; }"),
]


@pytest.mark.parametrize("variable, value", BAD)
def test_a_bad_setting_is_named(service, variable, value):
    ended = program(service, "settings", "--shell", **{variable: value})
    assert ended.returncode != 0 and variable in ended.stderr, ended
    assert "Fatal error" not in ended.stderr and len(ended.stderr) < 600
    checked = program(service, "check", **{variable: value})
    assert checked.returncode != 0 and variable in checked.stdout + checked.stderr


def test_the_greatest_times_are_taken():
    times = {"SESSION_CLEANUP_INTERVAL_MS": 86_400_000, "REQUEST_TIMEOUT_MS": 1_800_000, "QUEUE_TIMEOUT_MS": 1_800_000}
    with Service(cli="fake", **times) as service:
        before = service.responders()
        assert service.post("/api/run", {"prompt": "hi"}).status_code == 200
        assert service.responders() == before


@pytest.mark.parametrize("variable, value", [("REQUEST_TIMEOUT_MS", "5"), ("PORT", "abc"), ("UPSTREAM", "somewhere")])
def test_a_bad_setting_stops_the_start(variable, value):
    text = refused(**{variable: value})
    assert variable in text and value in text


def test_a_cli_that_is_not_there_stops_the_start_or_is_told(tmp_path):
    service = Service(cli=str(tmp_path / "no-claude"), wait=False)
    try:
        service.start()
        until(lambda: service.process.poll() is not None or "claude-fcgi is up" in service.output(), 60, "the start or its end")
        if service.process.poll() is None:
            answer = service.post(OPENAI.path, OPENAI.body("hi"))
            assert answer.status_code == 500 and "CLAUDE_PATH" in answer.json()["error"]["message"]
            service.stop()
        else:
            assert service.process.returncode != 0 and "CLAUDE_PATH" in service.log()
        until(lambda: not service.processes(), 5, "the end of every process")
    finally:
        service.kill()
        shutil.rmtree(service.base, ignore_errors=True)


def test_a_cli_too_old_stops_the_start():
    service = Service(cli="fake", wait=False)
    service.mode("old")
    try:
        service.start()
        assert service.process.wait(60) != 0
        text = service.log() + service.output()
        assert "2.1.100" in text and "2.1.251" in text and "update" in text
        until(lambda: not service.processes(), 5, "the end of every process")
    finally:
        service.kill()
        shutil.rmtree(service.base, ignore_errors=True)


def test_a_key_is_made_where_there_is_none():
    """In a tree of its own, so that the checkout's .env stays what it is; only ready programs are borrowed."""
    template = Service(cli="fake")
    tree = template.base / "tree"
    tree.mkdir()
    for name in ("Scripts", "deploy"):
        shutil.copytree(CHECKOUT / name, tree / name)
    (tree / ".env").write_text("# mine\nMAX_QUEUE_SIZE=7")  # no newline at its end
    directory = os.environ.get("CLAUDE_FCGI_BIN", str(PROGRAMS))
    shutil.rmtree(template.base / "nothing", ignore_errors=True)
    keys = []
    for _ in range(2):
        service = Service(cli=str(template.base / "claude"), checkout=tree, PROXY_API_KEY=None, CLAUDE_FCGI_BIN=directory)
        template.mode("fast")
        with service:
            env = (tree / ".env").read_text()
            assert env.startswith("# mine\nMAX_QUEUE_SIZE=7\n")
            service.key = re.search(r"^PROXY_API_KEY=(\S{32,})$", env, re.M)[1]
            keys.append(service.key)
            assert stat_bits.S_IMODE((tree / ".env").stat().st_mode) == 0o600
            assert service.post(OPENAI.path, OPENAI.body("hi")).status_code == 200
            assert service.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 401
            assert service.key not in service.all_logs()
    assert keys[0] == keys[1]
    shutil.rmtree(template.base, ignore_errors=True)


def test_the_environment_wins_over_the_env_file(service, tmp_path):
    (tmp_path / ".env").write_text("PORT=1234\nexport LOG_LEVEL='debug'\nMAX_QUEUE_SIZE=\"9\" # nine\n")
    ended = program(service, "settings", "--shell", cwd=tmp_path, LOG_LEVEL=None)
    assert ended.returncode == 0, ended.stderr
    assert re.search(rf"\bPORT='?{service.port}'?\b", ended.stdout), ended.stdout
    assert "1234" not in ended.stdout
    (tmp_path / ".env").write_text("this is no setting\n")
    ended = program(service, "settings", "--shell", cwd=tmp_path)
    assert ended.returncode != 0 and "line 1" in ended.stderr


def test_check_says_that_a_running_service_is_ready(service):
    ended = program(service, "check", cwd=CHECKOUT, ANTHROPIC_API_KEY="offline")
    text = ended.stdout + ended.stderr
    assert ended.returncode == 0, text
    for word in ("CLI", "2.", "login", "socket"):
        assert word.lower() in text.lower(), text
    assert KEY not in text and "offline" not in text.replace("offline upstream", "")


def test_check_says_what_is_missing(service, tmp_path):
    ended = program(service, "check", cwd=tmp_path, CLAUDE_PATH=tmp_path / "no-claude", PROXY_API_KEY=None, RUN_DIR="/proc/nowhere")
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0
    for word in ("CLAUDE_PATH", "PROXY_API_KEY", "/proc/nowhere"):
        assert word in text, text


def test_the_cli_that_was_fetched_is_found_last(service, tmp_path):
    """Beside `make run`: it is in the checkout of the program. One in the working directory is nobody's: who may write there?"""
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    build = checkout / ".build" / "release"
    fetched, named, planted = checkout / ".claude-cli" / "claude", tmp_path / "bin" / "claude", elsewhere / ".claude-cli" / "claude"
    for path in (fetched, named, planted):
        path.parent.mkdir(parents=True)
        path.symlink_to(os.environ["CLAUDE_PATH"])
    build.mkdir(parents=True)
    shutil.copy(f'{os.environ.get("CLAUDE_FCGI_BIN", PROGRAMS)}/claude-fcgi', build)
    directories = {named: f"{named.parent}:/usr/bin:/bin", fetched: "/usr/bin:/bin"}
    for found, path in directories.items():
        assert f"CLAUDE_PATH='{found}'\n" in _settings(build, service, elsewhere, path)
    fetched.unlink()
    assert "CLAUDE_PATH=''\n" in _settings(build, service, elsewhere, "/usr/bin:/bin")


def _settings(build, service, directory, path):
    """What the program finds in a directory, with this PATH."""
    environment = {name: value for name, value in service.environment.items() if name != "CLAUDE_PATH"} | {"PATH": path}
    return subprocess.run(
        [build / "claude-fcgi", "settings", "--shell"], env=environment, cwd=directory, check=True, capture_output=True, text=True, timeout=60).stdout


def test_check_knows_an_old_cli(service, fake):
    fake.mode("old")
    ended = program(service, "check", CLAUDE_PATH=fake.base / "claude")
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0 and "2.1.100" in text and "2.1.251" in text


def test_check_without_a_login_says_so_and_tries_no_spare(service):
    variables = dict.fromkeys(("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"))
    ended = program(service, "check", cwd=CHECKOUT, SPARES=1, **variables)
    assert ended.returncode == 0 and re.search("^warn +login: none", ended.stdout, re.M), ended.stdout
    assert re.search("^ok +SPARES: 1; .*login", ended.stdout, re.M) and not ended.stderr, ended.stdout + ended.stderr


def test_check_says_that_spares_fail_to_start(service, tmp_path):
    """The CLI answers the first who asks, and ends at once from then on."""
    cli = tmp_path / "claude"
    cli.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *stream-json*) if ! mkdir {tmp_path}/asked 2>/dev/null; then echo "it is broken" >&2; exit 1; fi ;; esac\n'
        f'exec {os.environ["CLAUDE_PATH"]} "$@"\n')
    cli.chmod(0o755)
    ended = program(service, "check", cwd=CHECKOUT, ANTHROPIC_API_KEY="offline", CLAUDE_PATH=cli, SPARES=1)
    text = ended.stdout + ended.stderr
    assert re.search(r"warn +SPARES: a spare could not be warmed: .*\n.*SPARES=0", text), text
    assert (tmp_path / "asked").exists()


def test_version_and_help(service):
    ended = program(service, "version")
    assert ended.returncode == 0 and re.search(r"claude-fcgi \d+\.\d+\.\d+", ended.stdout)
    assert re.search(r"claude 2\.\d+\.\d+", ended.stdout)
    assert re.search(r"\d+\.\d+\.\d+", program(service, "--version").stdout)
    text = program(service, "--help").stdout
    for word in ("respond", "check", "version"):
        assert word in text
    assert program(service, "nonsense").returncode != 0


def test_respond_without_a_socket_says_what_to_do(service):
    ended = program(service, "respond")
    assert ended.returncode != 0 and "socket" in ended.stderr and "Fatal" not in ended.stderr


def test_respond_without_a_key_says_what_to_do(service, tmp_path):
    ended = program(service, "respond", "--socket", str(tmp_path / "s"), PROXY_API_KEY=None, cwd=tmp_path)
    assert ended.returncode != 0 and "PROXY_API_KEY" in ended.stderr


def test_respond_on_a_path_serves_and_ends(service, tmp_path):
    """On a socket of its own: FastCGI by hand, then SIGTERM."""
    import fastcgi

    def asked():
        # It is bound a moment before it listens.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return fastcgi.get(path, "/health", 60)

    directory = os.environ.get("CLAUDE_FCGI_BIN", str(PROGRAMS))
    path = service.base / "own.sock"
    responder = subprocess.Popen(
        [f"{directory}/claude-fcgi", "respond", "--socket", str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**service.environment, "RUN_DIR": str(service.base / "own")})
    try:
        status, body = until(asked, 60, "an answer on the socket")
        assert stat_bits.S_IMODE(path.stat().st_mode) == 0o660
        assert status == 200 and b'"status"' in body
        other = subprocess.run(
            [f"{directory}/claude-fcgi", "respond", "--socket", str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={**service.environment, "RUN_DIR": str(service.base / "own")}, timeout=20)
        assert other.returncode != 0 and "another server" in other.stderr
        assert fastcgi.get(path, "/health")[0] == 200
    finally:
        responder.terminate()
        assert responder.wait(30) == 0
        remove_segment(service.base / "own")
    assert not path.exists()


def test_a_responder_inherits_no_log_and_no_lock(service):
    for pid in service.responders():
        targets = set()
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                targets.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        assert targets
        assert not [target for target in targets if target.endswith((".log", "/lock"))], targets
