"""Starts the service as a user does, with Scripts/run, and looks at it from outside: processes, descriptors, logs.

Everything here waits on conditions with a deadline. Processes are found by this service's own RUN_DIR, and only those are ever ended.
"""

import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

CHECKOUT = Path(__file__).resolve().parents[2]
FAKE_CLI = CHECKOUT / "Tests/EndToEnd/fake/claude"
KEY = "e2e-Key-5f2c81d0a94b"

# What a developer's own environment may hold and a test must not meet.
SETTINGS = """
    PROXY_API_KEY PORT TLS_PORT RUN_DIR UPSTREAM LOG_LEVEL LOG_FORMAT REQUEST_TIMEOUT_MS WORKER_CONCURRENCY MAX_QUEUE_SIZE
    QUEUE_TIMEOUT_MS RESPONDERS ALLOWED_DIRECTORIES DEFAULT_MODEL MODEL_ALIASES MAX_CHOICES BIND_ADDRESS OFFLINE_UPSTREAM_RECORD SESSION_TTL_MS
    MAX_SESSIONS_PER_KEY SESSION_CLEANUP_INTERVAL_MS HEARTBEAT_AFTER_MS
    PROXY_API_KEYS_FILE RETRY_MAX_ATTEMPTS STATE_DIR ALLOWED_TOOLS PERMISSION_MODES ALLOW_MCP_SERVERS SESSION_TITLES CHAT_TOOLS CHAT_PRESET
    CHAT_DIRECTORY SPARES SPARE_TTL LIVE_MAX LIVE_TTL MEMORY_HEADROOM
""".split()


def until(condition, seconds=10.0, what="the condition", every=0.01):
    """Waits until the condition holds; returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        # Asked before the look, so that the last one is behind the deadline: this process may have stood still since the one before.
        is_over = time.monotonic() > deadline
        value = condition()
        if value:
            return value
        if is_over:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(every)


def within(seconds, action, tries=3):
    """What the action returns where it takes less time than that; a machine that stood still in one try is forgiven, not a slow program."""
    took = []
    while len(took) < tries:
        began = time.monotonic()
        value = action()
        took.append(time.monotonic() - began)
        if took[-1] < seconds:
            return value
    raise AssertionError(f"it took {', '.join(f'{one:.2f}' for one in took)} s, not less than {seconds} s")


_ports_given = set()
# Several processes of pytest run at once (xdist: gw0, gw1, …); each gives others.
_port_range = 20000 + 2000 * int("0" + os.environ.get("PYTEST_XDIST_WORKER", "")[2:]) % 10000


def free_port():
    """A port below the range that outgoing connections take theirs from."""
    while True:
        port = random.randrange(_port_range, _port_range + 2000)
        if port in _ports_given:
            continue
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port


# ---- processes, as /proc shows them -----------------------------------------------------------------------------------------


def proc(pid, name):
    """A file of /proc/PID as bytes; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def stat(pid):
    """The fields of /proc/PID/stat after the name: state, parent, group, session, …; None when the process is gone."""
    text = proc(pid, "stat").decode(errors="replace")
    return text[text.rindex(")") + 2 :].split() if ")" in text else None


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def alive(pid):
    """Whether the process runs; a zombie does not."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def children(parents):
    """The running processes whose parent is one of these."""
    parents = {str(pid) for pid in parents}
    found = []
    for pid in pids():
        fields = stat(pid)
        if fields and fields[1] in parents and fields[0] not in "ZX":
            found.append(pid)
    return found


def group(number):
    """The running processes of a process group."""
    return [pid for pid in pids() if (fields := stat(pid)) and fields[2] == str(number) and fields[0] not in "ZX"]


def environment(pid):
    """A process's environment as a dictionary of bytes."""
    pairs = (entry.partition(b"=") for entry in proc(pid, "environ").split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def cpu_seconds(pid):
    """User and system time of the process, without its children."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def thread_seconds(pid):
    """CPU time of the process's living threads, to the nanosecond; for a process whose threads stay."""
    nanoseconds = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            nanoseconds += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def status_number(pid, name):
    """A number of /proc/PID/status, such as VmRSS in kB."""
    for line in proc(pid, "status").decode().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return None


def remove_segment(run_dir):
    """What only the next start on the same RUN_DIR would remove: a responder's without Scripts/run, or of one that was killed."""
    # FNV-1a, as in Settings.segmentPath.
    number = 0xCBF29CE484222325
    for byte in str(run_dir).encode():
        number = (number ^ byte) * 0x100000001B3 % 2**64
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    Path(f"/dev/shm/claude-fcgi-{os.geteuid()}-{digits}").unlink(missing_ok=True)


# ---- the service -------------------------------------------------------------------------------------------------------------


class Service:
    """One `Scripts/run` in the foreground. A context manager: left, it has ended everything and checked that nothing is left."""

    # Processes that only wait are the matter of tests of their own: elsewhere each CLI there is has a request. `pytest --waiting` has
    # them at their defaults.
    waiting = {"SPARES": 0, "LIVE_MAX": 0}

    def __init__(self, cli=None, checkout=CHECKOUT, wait=True, keys=None, **settings):
        """`cli="fake"` puts the fake CLI in, in its mode `fast`; a path sets CLAUDE_PATH. Others are environment variables; None unsets.

        `keys` makes further clients: names, with what their line of the keys file says of them.
        """
        self.base = Path(tempfile.mkdtemp(prefix="cf-"))
        self.checkout = Path(checkout)
        self.run_dir = self.base / "r"
        self.record_file = self.base / "record.jsonl"
        self.log_file = self.base / "log"
        self.output_file = self.base / "out"
        self.port, self.tls_port = free_port(), free_port()
        self.mode_file = self.base / "mode"
        self.process = None
        self.wait = wait
        self.key = KEY
        self.keys = {name: f"e2e-{name}-{secrets.token_hex(12)}" for name in keys or {}}
        own = {
            "PORT": self.port, "TLS_PORT": self.tls_port, "RUN_DIR": self.run_dir, "UPSTREAM": "offline",
            "PROXY_API_KEY": KEY, "OFFLINE_UPSTREAM_RECORD": self.record_file, "LOG_FORMAT": "json", "RESPONDERS": 2,
            **self.waiting,
        }
        if cli == "fake":
            shutil.copy(FAKE_CLI, self.base / "claude")
            self.mode_file.write_text("fast")
            own["CLAUDE_PATH"] = self.base / "claude"
        elif cli:
            own["CLAUDE_PATH"] = cli
        if keys:
            lines = [f"{name}:{hashlib.sha256(self.keys[name].encode()).hexdigest()} {rest}\n" for name, rest in keys.items()]
            own["PROXY_API_KEYS_FILE"] = self.base / "keys"
            own["PROXY_API_KEYS_FILE"].write_text("".join(lines))
        if os.environ.get("CLAUDE_FCGI_BIN"):
            # The CLI's tools read the shell's start files there, and a developer's may do anything. (A build needs the true one.)
            own["HOME"] = self.base / "home"
            own["HOME"].mkdir()
        own.update(settings)
        self.environment = {
            name: value for name, value in os.environ.items()
            if name not in SETTINGS and not name.startswith(("ANTHROPIC_", "CLAUDE_CODE_", "AWS_"))
        }
        for name, value in own.items():
            self.environment.pop(name, None)
            if value is not None:
                self.environment[name] = str(value)
        self.marker = f"RUN_DIR={self.run_dir}".encode()

    # -- life

    def start(self, seconds=900):
        """Starts it; waits for /health unless told otherwise. The first start of a checkout builds, hence the patience."""
        with open(self.log_file, "ab") as log, open(self.output_file, "ab") as output:
            self.process = subprocess.Popen(
                ["bash", str(self.checkout / "Scripts/run")], cwd="/", env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=log, start_new_session=True)
        if self.wait:
            # Its own sign that it is up, after which signals are handled as a user's would be.
            until(lambda: self.process.poll() is not None or "claude-fcgi is up" in self.output(), seconds, "the start", 0.05)
            assert self.process.poll() is None, f"Scripts/run ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            # One responder is enough for that. The others may still ask their CLI, which is no run's, for its models; then they listen.
            count = int(self.environment.get("RESPONDERS", 1))
            with contextlib.suppress(AssertionError):
                until(lambda: len(list(self.run_dir.glob("r-*.sock"))) >= count, 20, "every responder")
        return self

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Ends it as Ctrl-C or `kill` does, and checks that nothing is left of it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            left = {pid: proc(pid, "cmdline").replace(b"\0", b" ") for pid in self.processes()}
            self.kill()
            raise AssertionError(f"the service did not end within {seconds} s; running: {left}\n{self.log()[-3000:]}")
        assert status == 0, f"Scripts/run ended with {status}:\n{self.log()[-4000:]}"
        # What was killed takes some milliseconds to be gone.
        with contextlib.suppress(AssertionError):
            until(lambda: not self.processes(), 2)
        left = {pid: proc(pid, "cmdline").replace(b"\0", b" ") for pid in self.processes()}
        if left:
            self.kill()
        assert not left, f"processes left behind: {left}"
        sockets = [path for path in self.run_dir.rglob("*") if path.is_socket()]
        assert not sockets, f"sockets left behind: {sockets}"
        assert self.temporary() == [], f"left in RUN_DIR/tmp: {self.temporary()}"
        for port in (self.port, self.tls_port):
            with socket.socket() as attempt:
                assert attempt.connect_ex(("127.0.0.1", port)) != 0, f"port {port} still answers"

    def kill(self):
        """SIGKILL to every process of this service, at once as far as that goes."""
        for _ in range(100):
            found = self.processes()
            if self.process and self.process.poll() is None and self.process.pid not in found:
                found.append(self.process.pid)
            if not found:
                break
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        if self.process:
            self.process.wait(10)

    def restart_responders(self, number=signal.SIGTERM):
        """Ends every responder, and waits until as many others are there."""
        before = self.responders()
        for pid in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until(
            lambda: len(now := self.responders()) == len(before) and not set(now) & set(before), 60, "new responders")

    def crash(self):
        """Kills everything at once and starts it again, as after a power cut."""
        self.kill()
        self.output_file.write_text("")
        self.start()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            shutil.rmtree(self.base, ignore_errors=True)
            raise

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
            else:
                with contextlib.suppress(AssertionError):
                    self.stop()
        finally:
            self.kill()
            remove_segment(self.run_dir)
            shutil.rmtree(self.base, ignore_errors=True)

    # -- processes

    def processes(self):
        """All running processes of this service, whoever's child they have become."""
        found = []
        below = str(self.run_dir).encode()
        for pid in pids():
            if pid == os.getpid() or not alive(pid):
                continue
            environ = proc(pid, "environ")
            directory = b""
            with contextlib.suppress(OSError):
                directory = os.readlink(f"/proc/{pid}/cwd").encode()
            if (self.marker in environ.split(b"\0") or below + b"/" in environ or directory == below
                    or directory.startswith(below + b"/")):
                found.append(pid)
        return found

    def named(self, prefix):
        """The processes that Scripts/run recorded under this name."""
        found = []
        for path in sorted((self.run_dir / "pids").glob(prefix + "*")):
            with contextlib.suppress(ValueError, OSError):
                found.append(int(path.read_text()))
        return [pid for pid in found if alive(pid)]

    def responders(self):
        return self.named("responder-")

    def clis(self):
        """The CLIs that run now, the responders' children; where some wait for requests at their defaults, those that have one."""
        found = children(self.responders())
        return sorted({*found} & {*self.running()}) if self.has_defaults else found

    @property
    def has_defaults(self):
        """Whether `SPARES` is not set, so that there are processes that wait."""
        return "SPARES" not in self.environment

    def running(self):
        """The CLIs that have a request, as the admission segment says."""
        binary = Path(os.environ.get("CLAUDE_FCGI_BIN", self.checkout / ".build/release")) / "claude-fcgi"
        said = subprocess.run(
            [binary, "status", "--json"], env=self.environment, cwd=self.base, stdout=subprocess.PIPE, timeout=30).stdout
        return [request["cliPid"] for request in json.loads(said).get("requests", []) if request["cliPid"]]

    def idle(self):
        """Whether no request runs, and each CLI is one that is said to wait."""
        answer = self.get("/health")
        if answer.status_code == 502:  # the responder that was asked has died
            return False
        health, count = answer.json(), len(children(self.responders()))
        return health["queue"]["processing"] == 0 and count == health["processes"]["spares"] + health["processes"]["live"]

    def one_cli(self, seconds=40):
        """Waits until exactly one CLI runs."""
        return until(lambda: (found := self.clis()) and len(found) == 1 and found, seconds, "one running CLI")[0]

    def no_cli(self, seconds=30):
        """Waits until no CLI runs; returns how long that took."""
        began = time.monotonic()
        if self.has_defaults:
            until(lambda: not self.running() and self.idle(), seconds, "the end of every CLI but those that wait")
        else:
            until(lambda: not self.clis(), seconds, "the end of every CLI", 0.002)
        return time.monotonic() - began

    def temporary(self):
        """What is in RUN_DIR/tmp besides the directories that nginx keeps there, and those of processes that wait at their defaults."""
        root = self.run_dir / "tmp"
        if not root.is_dir():
            return []
        nginx = {"body", "fastcgi", "proxy", "scgi", "uwsgi"}
        waiting = set()
        if self.has_defaults:
            having = self.running()
            waiting = {environment(pid).get(b"CLAUDE_FCGI_RUN", b"").decode() for pid in children(self.responders()) if pid not in having}
        found = []
        for directory, directories, files in os.walk(root):  # which forgives what vanishes meanwhile
            place = Path(directory).relative_to(root)
            names = [*directories, *files] if not (place.parts and place.parts[0] in nginx) else files
            found += [str(place / name) for name in names if place.parts or name not in nginx]
        return sorted(path for path in found if path.partition("/")[0] not in waiting)

    # -- what it says

    def log(self):
        return self.log_file.read_text(errors="replace")

    def output(self):
        return self.output_file.read_text(errors="replace")

    def all_logs(self):
        """Everything that was written anywhere for people to read."""
        texts = [self.log(), self.output()]
        texts += [path.read_text(errors="replace") for path in sorted(self.run_dir.glob("*.log*"))]
        return "\n".join(texts)

    def request_lines(self, request_id=None):
        """The one-line reports of ended requests."""
        found = []
        for line in self.log().split("\n"):
            if line.startswith("{") and '"request.id"' in line:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if entry.get("message") == "request" and request_id in (None, entry.get("request.id")):
                        found.append(entry)
        return found

    def request_line(self, request_id, seconds=20):
        """The report of one request; waits for it, for it is written after the answer, and when the CLI has ended."""
        return until(lambda: self.request_lines(request_id), seconds, f"the log line of request {request_id}", 0.02)[0]

    def recorded(self, mark, path="/v1/messages"):
        """The requests that the offline upstream got with this text in them, `count_tokens` apart."""
        if not self.record_file.exists():
            return []
        found = []
        # What is behind the last line end is still being written.
        for line in self.record_file.read_text().split("\n")[:-1]:
            if mark in line:
                entry = json.loads(line)
                if path in entry["path"] and "count_tokens" not in entry["path"]:
                    found.append(entry)
        return found

    def upstream_body(self, mark):
        """What the model was sent for the one request with this text."""
        found = self.recorded(mark)
        assert found, f"no request with {mark} reached the upstream"
        return found[-1]["body"]

    # -- asking

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self):
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def authorization(self):
        return {"Authorization": f"Bearer {self.key}"}

    def authorization_of(self, name):
        """The header of another client's key."""
        return {"Authorization": f"Bearer {self.keys[name]}"}

    @property
    def state_dir(self):
        return Path(self.environment.get("STATE_DIR", self.run_dir))

    def tls_context(self):
        """Trusts this service's own certificate and nothing else; names are checked."""
        return ssl.create_default_context(cafile=str(self.run_dir / "tls.crt"))

    def client(self, **options):
        """An HTTP client with the key."""
        options.setdefault("headers", self.authorization)
        options.setdefault("timeout", 60)
        return httpx.Client(base_url=self.url, trust_env=False, **options)

    def get(self, path, **options):
        with self.client() as client:
            return client.get(path, **options)

    def post(self, path, body, **options):
        with self.client() as client:
            return client.post(path, json=body, **options)

    def connect(self, dialect, body, seconds=20):
        """Sends a request and leaves its answer to be read, or not."""
        connection = socket.create_connection(("127.0.0.1", self.port), seconds)
        text = json.dumps(body).encode()
        connection.sendall(
            f"POST {dialect.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        return connection

    def mode(self, text):
        """Tells the fake CLI what to do from its next start on."""
        self.mode_file.write_text(text)

    def raw(self, data, seconds=10, port=None):
        """Sends bytes, returns all bytes that come until the server closes or falls silent."""
        with socket.create_connection(("127.0.0.1", port or self.port), seconds) as connection:
            connection.settimeout(seconds)
            answer = b""
            with contextlib.suppress(ConnectionError, BrokenPipeError):
                connection.sendall(data)
            with contextlib.suppress(ConnectionError, TimeoutError):
                while chunk := connection.recv(65536):
                    answer += chunk
                    head, separator, body = answer.partition(b"\r\n\r\n")
                    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    if separator and length and len(body) >= int(length[0].split(b":")[1]):
                        break
            return answer


class Dechunker:
    """Takes the framing off a chunked HTTP/1.1 answer as it comes."""

    def __init__(self):
        self._rest = b""
        self._is_body = False
        self.is_ended = False

    def feed(self, data):
        """The bytes of the body that are whole by now."""
        self._rest += data
        if not self._is_body:
            _, separator, rest = self._rest.partition(b"\r\n\r\n")
            if not separator:
                return b""
            self._is_body, self._rest = True, rest
        body = b""
        while not self.is_ended:
            line, separator, rest = self._rest.partition(b"\r\n")
            if not separator:
                break
            length = int(line, 16)
            if len(rest) < length + 2:
                break
            body += rest[:length]
            self._rest = rest[length + 2 :]
            self.is_ended = length == 0
        return body


def parse_raw(answer):
    """A raw HTTP/1.1 answer as status, headers and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body
