"""A disk without space: a clear error while it lasts, and nothing to mend by hand afterwards."""

import contextlib
import os
import shutil
import subprocess

import pytest

from dialects import ALL
from service import CHECKOUT, Service, until

PROGRAMS = os.environ.get("CLAUDE_FCGI_BIN", str(CHECKOUT / ".build/release"))


@contextlib.contextmanager
def full(directory):
    """The directory takes no new file: a tmpfs without a free inode; where mounting is not allowed, a file in its place."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=1,size=4k", "none", str(directory)], capture_output=True).returncode == 0
    if not mounted:
        shutil.rmtree(directory)
        directory.write_text("no directory")
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)
        else:
            directory.unlink()
            directory.mkdir(mode=0o700)


def test_a_full_disk_is_a_clear_error_and_passes_by_itself():
    with Service(cli="fake") as service:
        with full(service.run_dir / "tmp"):
            for dialect in ALL:
                answer = service.post(dialect.path, dialect.body("x"))
                assert answer.status_code == 500
                error = answer.json()["error"]
                assert "claude-fcgi check" in error["message"]
                assert str(service.run_dir) not in answer.text, "a path of the server is none of the caller's business"
                line = service.request_line(answer.headers["x-request-id"])
                assert line["error.kind"] == "internal_error" and str(service.run_dir) in line["error.cause"]
            assert service.get("/health").json()["queue"]["processing"] == 0, "no place is lost"
            assert service.get("/v1/models").status_code == 200
        for dialect in ALL:
            answer = service.post(dialect.path, dialect.body("again"))
            assert answer.status_code == 200 and dialect.text(answer.json()) == "again"
        until(lambda: not service.temporary(), 20)


@pytest.mark.parametrize("obstacle", ["run_dir", "segment"])
def test_a_responder_that_can_write_nowhere_says_so_and_may_be_started_again(tmp_path, obstacle):
    run_dir = tmp_path / "r"
    environment = {**os.environ, "PROXY_API_KEY": "k" * 20, "RUN_DIR": str(run_dir), "CLAUDE_PATH": "/nonexistent"}
    if obstacle == "run_dir":
        run_dir.write_text("a file")
    else:
        run_dir.mkdir()
        settings = subprocess.run(
            [f"{PROGRAMS}/claude-fcgi", "settings"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        segment = dict(line.split("=", 1) for line in settings.stdout.splitlines())["ADMISSION_SEGMENT"]
        os.mkdir(segment)
    try:
        ended = subprocess.run(
            [f"{PROGRAMS}/claude-fcgi", "respond", "--socket", str(tmp_path / "s")], env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=30)
    finally:
        if obstacle == "segment":
            os.rmdir(segment)
    assert ended.returncode == 75, "a supervisor tries again, unlike after a bad setting (78)"
    assert "RUN_DIR" in ended.stderr
    assert not (tmp_path / "s").exists()
