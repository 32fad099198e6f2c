"""The files that an operator puts in place: systemd's units and nginx's configuration."""

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

import fastcgi
from service import CHECKOUT, KEY, remove_segment, until

SYSTEMD = CHECKOUT / "deploy/systemd"
PROGRAMS = os.environ.get("CLAUDE_FCGI_BIN", str(CHECKOUT / ".build/release"))


def units():
    return sorted(path for path in SYSTEMD.rglob("*") if path.suffix in (".socket", ".service", ".target"))


def test_there_are_units():
    assert {path.suffix for path in units()} == {".socket", ".service", ".target"}


@pytest.fixture
def installed(tmp_path):
    """A root directory with the units in it and a program where they look for it."""
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    for path in units():
        text = path.read_text()
        for command in re.findall(r"^Exec\w+=[-+!@:]*(\S+)", text, re.M):
            target = tmp_path / command.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy("/bin/true", target)
        shutil.copy(path, directory)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", tmp_path / "etc" / name)
    # systemd's own units, which ours refer to.
    for place in ("lib/systemd/system", "usr/lib/systemd/system"):
        if os.path.isdir(f"/{place}") and not (tmp_path / place).exists():
            shutil.copytree(f"/{place}", tmp_path / place, symlinks=True, ignore_dangling_symlinks=True)
    return tmp_path


def test_systemd_has_nothing_to_say_against_the_units(installed):
    names = [path.name.replace("@.", "@1.") for path in units()]
    ended = subprocess.run(
        ["systemd-analyze", "verify", f"--root={installed}", "--man=no", "--recursive-errors=no", *names], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_service_is_hardened():
    service = next(path for path in units() if path.suffix == ".service")
    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(service)], capture_output=True, text=True, timeout=60)
    print(ended.stdout.splitlines()[-1] if ended.stdout else ended.stderr)
    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr
    text = service.read_text()
    for line in ("NoNewPrivileges=yes|true", "ProtectSystem=strict", "PrivateTmp=yes|true", "CapabilityBoundingSet=", "MemoryMax=.+", "TasksMax=.+", "User=.+"):
        assert re.search(rf"^{line.replace('yes|true', '(yes|true)')}$", text, re.M), line
    assert "LoadCredential" in text or "EnvironmentFile" in text


def test_socket_activation_works(service, tmp_path):
    path = service.base / "activated.sock"

    def first():
        # It is bound a moment before it is listened on.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return fastcgi.get(path, "/health", 60)

    environment = {**service.environment, "RUN_DIR": str(service.base / "activated")}
    passed = [f"--setenv={name}={value}" for name, value in environment.items() if name not in ("LISTEN_FDS", "LISTEN_PID")]
    activator = subprocess.Popen(
        ["systemd-socket-activate", "-l", str(path), *passed, f"{PROGRAMS}/claude-fcgi", "respond"],
        env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        # The first connection starts the responder, which takes the place of the activator.
        status, body = until(first, 30, "the socket")
        assert status == 200 and b'"status":"ok"' in body.replace(b" ", b"")
        assert fastcgi.get(path, "/v1/models")[0] == 401
        assert fastcgi.get(path, "/v1/models", 60, HTTP_AUTHORIZATION=f"Bearer {KEY}")[0] == 200
    finally:
        activator.send_signal(signal.SIGTERM)
        status = activator.wait(60)
        remove_segment(environment["RUN_DIR"])
    assert status == 0, activator.stderr.read().decode()[-2000:]


def nginx_prefix(tmp_path, site):
    """nginx's directory as /etc/nginx is on Debian, with one site."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "claude-fcgi.d").mkdir()
    shutil.copy(CHECKOUT / "deploy/nginx.conf", tmp_path / "claude-fcgi.conf")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True, timeout=30)
    site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {tmp_path}/cert.pem;", site)
    site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {tmp_path}/key.pem;", site)
    site = site.replace("/var/log/nginx/", f"{tmp_path}/logs/")
    site = re.sub(r"listen (\[::\]:)?(\d+)", lambda match: f"listen {match[1] or ''}{20000 + int(match[2])}", site)
    (tmp_path / "site.conf").write_text(site)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/logs/error.log;\nevents {{}}\nhttp {{\n"
        + "".join(f"    {name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi"))
        + "    include site.conf;\n}\n")


def nginx_test(tmp_path):
    ended = subprocess.run(
        ["nginx", "-t", "-q", "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, timeout=30,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    return ended.returncode, ended.stderr


def test_nginx_takes_the_whole_site(tmp_path):
    nginx_prefix(tmp_path, (CHECKOUT / "deploy/nginx-site.conf").read_text())
    assert nginx_test(tmp_path) == (0, "")


def test_an_existing_server_takes_the_locations_with_one_line(tmp_path):
    nginx_prefix(tmp_path, """
        server {
            listen 81; server_name a; root /var/www; index index.html; auth_basic "site"; auth_basic_user_file /dev/null;
            client_max_body_size 1m; gzip on; location / { try_files $uri =404; } location ~ \\.php$ { return 403; }
            include claude-fcgi.conf;
        }
        server { listen 82; server_name b; include claude-fcgi.conf; }
    """)
    assert nginx_test(tmp_path) == (0, "")
