"""What a caller of `POST /api/run` may do: what the operator allows, a key, and the directories."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from direct import ask, bash, refused, run, tool, tool_results
from service import Service, until
from test_run import program


@pytest.fixture(scope="module")
def limited(workspace):
    """An operator who allows little, and two keys that may do less, and something else."""
    (workspace / "for-alice").mkdir()
    (workspace / "for-all").mkdir()
    keys = {
        "alice": f"directories={workspace}/for-alice:{workspace}/for-nobody tools=Read,Bash", "bob": "concurrency=2 tools=Bash",
        "carol": "queue=5"}
    with Service(
            keys=keys, ALLOWED_DIRECTORIES=workspace, ALLOWED_TOOLS="Read,Glob,Bash(echo *),Write", PERMISSION_MODES="default,plan",
            WORKER_CONCURRENCY=4, REQUEST_TIMEOUT_MS=60000) as service:
        yield service


# ---- what an operator and a key allow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools, fits", [
    (["Read"], True), (["Glob", "Read"], True), (["Bash(echo *)"], True), (["Write"], True), (["Write(./src/**)"], True), ([], True),
    (["Bash"], False), (["Bash(rm *)"], False), (["Edit"], False), (["WebFetch"], False), (["Read", "Task"], False),
])
def test_an_operators_tools_bound_every_caller(limited, tools, fits):
    answer = ask(limited, "POST", "/api/run", json={"prompt": "[[say=ok]]", "allowedTools": tools})
    if fits:
        assert answer.status_code == 200, answer.text
    else:
        message = refused(answer, 403, "forbidden", "allowedTools")
        assert "ALLOWED_TOOLS" in message or "allowed" in message


def test_without_names_the_default_tools_keep_to_what_is_allowed(limited, mark):
    """`Grep` is none of the operator's tools: either the rest is taken, or the caller is told."""
    answer = ask(limited, "POST", "/api/run", json={"prompt": f"{mark} [[say=ok]]"})
    if answer.status_code == 200:
        assert {entry["name"] for entry in limited.upstream_body(mark).get("tools", [])} <= {"Read", "Glob"}
    else:
        refused(answer, 403, "forbidden", "allowedTools")


@pytest.mark.parametrize("mode, fits", [("default", True), ("plan", True), ("acceptEdits", False), ("dontAsk", False), ("bypassPermissions", False)])
def test_an_operators_modes_bound_every_caller(limited, mode, fits):
    answer = ask(limited, "POST", "/api/run", json={"prompt": "[[say=ok]]", "permissionMode": mode, "allowedTools": ["Read"]})
    if fits:
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, 403, "forbidden", "permissionMode")


def as_key(service, name, **body):
    return ask(service, "POST", "/api/run", service.authorization_of(name), json={"prompt": "[[say=ok]]", "allowedTools": ["Read"], **body})


def test_a_key_works_in_its_own_directories(limited, workspace):
    assert as_key(limited, "alice", workingDirectory=f"{workspace}/for-alice").status_code == 200
    for place in ("for-all", ""):
        refused(as_key(limited, "alice", workingDirectory=f"{workspace}/{place}"), 403, "forbidden", "workingDirectory")
        assert as_key(limited, "carol", workingDirectory=f"{workspace}/{place}").status_code == 200
    refused(as_key(limited, "alice", addDirs=[f"{workspace}/for-all"]), 403, "forbidden", "addDirs")
    assert as_key(limited, "alice", addDirs=[f"{workspace}/for-alice"]).status_code == 200
    message = as_key(limited, "alice", workingDirectory=f"{workspace}/for-all").json()["error"]["message"]
    assert "for-alice" in message
    # One's own directory is everybody's right.
    assert as_key(limited, "alice").status_code == 200


def test_a_key_has_its_own_tools(limited):
    """They narrow the operator's, and widen nothing."""
    for name in ("alice", "bob", "carol"):
        assert as_key(limited, name, allowedTools=["Bash(echo *)"]).status_code == 200
        refused(as_key(limited, name, allowedTools=["Bash"]), 403, "forbidden", "allowedTools")
    for name, tools in (("alice", ["Write"]), ("alice", ["Glob"]), ("bob", ["Read"]), ("bob", ["Write"]), ("carol", ["Edit"])):
        refused(as_key(limited, name, allowedTools=tools), 403, "forbidden", "allowedTools")
    assert as_key(limited, "bob", allowedTools=[]).status_code == 200
    assert as_key(limited, "carol", allowedTools=["Write"]).status_code == 200


@pytest.mark.parametrize("rest", [
    "directories=relative", "directories=", "tools=Nonsense", "tools=Bash(", "directories=/a:relative", "nonsense=1"])
def test_a_fault_in_the_keys_file_stops_the_start_with_its_line(limited, tmp_path, rest):
    path = tmp_path / "keys"
    path.write_text(f"# mine\nalice:{'0' * 64} {rest}\n")
    ended_with = program(limited, "check", PROXY_API_KEYS_FILE=path)
    text = ended_with.stdout + ended_with.stderr
    assert ended_with.returncode != 0 and "PROXY_API_KEYS_FILE" in text and "line 2" in text, text


@pytest.mark.parametrize("variable, value", [
    ("ALLOWED_TOOLS", "Nonsense"), ("ALLOWED_TOOLS", "Bash("), ("PERMISSION_MODES", "nonsense"), ("PERMISSION_MODES", "default,,x"),
    ("ALLOW_MCP_SERVERS", "perhaps"), ("SESSION_TITLES", "perhaps")])
def test_a_bad_setting_is_named(limited, variable, value):
    ended_with = program(limited, "settings", "--shell", **{variable: value})
    assert ended_with.returncode != 0 and variable in ended_with.stderr, ended_with


# ---- directories -------------------------------------------------------------------------------------------------------------


def test_added_directories_are_the_file_tools(service, workspace, directory, mark):
    added, other = workspace / f"{mark}-added", workspace / f"{mark}-other"
    for place in (added, other):
        place.mkdir()
        (place / "there").write_text(f"content of {place.name}")
    prompt = f"{mark} {tool('Read', file_path=str(added / 'there'))} {tool('Read', file_path=str(other / 'there'))}"
    reply = run(service, prompt, allowedTools=["Read"], workingDirectory=str(directory), addDirs=[str(added)])
    assert f"content of {added.name}" in tool_results(service, mark) and f"content of {other.name}" not in tool_results(service, mark)
    assert len(reply["permissionDenials"]) == 1
    prompt = f"{mark}-2 {tool('Write', file_path=str(added / 'made'), content='x')} {tool('Write', file_path=str(other / 'made'), content='x')}"
    run(service, prompt, allowedTools=["Write"], workingDirectory=str(directory), addDirs=[str(added)])
    assert (added / "made").exists() and not (other / "made").exists()


def paths(workspace, mark):
    """Ways out of the allowed directories, with the status that each is refused with."""
    place = workspace / f"{mark}-tricks"
    place.mkdir()
    (place / "out").symlink_to("/etc")
    (place / "root").symlink_to("/")
    (place / "chain").symlink_to(place / "out")
    (place / "relative").symlink_to("../../..")
    (place / "loop").symlink_to("loop")
    (place / "self").symlink_to("/proc/self/cwd")
    (place / "file").write_text("x")
    (place / "in").mkdir()
    os.mkdir(os.fsencode(str(place)) + b"/n\xffn")
    os.symlink(b"n\xffn", os.fsencode(str(place / "nameless")))
    sibling = Path(f"{workspace}-sibling")
    return {
        "dots": (f"{place}/../../..", (400,)), "dots inside": (f"{place}/in/..", (400,)), "dots at the end": (f"{workspace}/..", (400,)),
        "link": (f"{place}/out", (403,)), "link with slash": (f"{place}/out/", (403,)), "below a link": (f"{place}/root/etc", (403,)),
        "chain": (f"{place}/chain", (403,)), "relative link": (f"{place}/relative", (403,)), "loop": (f"{place}/loop", (400, 403)),
        "/proc/self/cwd": ("/proc/self/cwd", (403,)), "/proc/self/root": ("/proc/self/root", (403,)), "link to /proc": (f"{place}/self", (403,)),
        "/proc/1/cwd": ("/proc/1/cwd", (403,)), "/proc/thread-self": ("/proc/thread-self/cwd", (403,)), "/dev/fd": ("/dev/fd/0", (403,)),
        "root": ("/", (403,)), "double slash": ("//etc", (403,)), "slash": ("/etc/", (403,)), "dot": (f"{place}/./out", (400, 403)),
        "sibling": (str(sibling), (403,)), "prefix": (str(workspace)[:-1], (403,)), "file": (f"{place}/file", (400, 403)),
        "file with slash": (f"{place}/file/", (400, 403)), "missing": (f"{place}/missing", (400,)), "not UTF-8": (f"{place}/nameless", (400, 403)),
        "long": (f"{place}/" + "x" * 5000, (400, 403)), "surrogate": (f"{place}/\ud800", (400, 403)), "new line": (f"{place}/in\n", (400, 403)),
        "space": (f" {place}/in", (400,)), "home": ("~/x", (400,)),
    }


@pytest.fixture(scope="module")
def tricks(workspace):
    return paths(workspace, "module")


NAMES = [
    "dots", "dots inside", "dots at the end", "link", "link with slash", "below a link", "chain", "relative link", "loop", "/proc/self/cwd",
    "/proc/self/root", "link to /proc", "/proc/1/cwd", "/proc/thread-self", "/dev/fd", "root", "double slash", "slash", "dot", "sibling", "prefix",
    "file", "file with slash", "missing", "not UTF-8", "long", "surrogate", "new line", "space", "home"]


@pytest.mark.parametrize("field", ["workingDirectory", "addDirs"])
@pytest.mark.parametrize("name", NAMES)
def test_no_path_leads_out_of_the_allowed_directories(fake, tricks, field, name):
    path, statuses = tricks[name]
    body = json.dumps({"prompt": "x", "allowedTools": ["Read"], field: path if field == "workingDirectory" else [path]})
    answer = ask(fake, "POST", "/api/run", content=body)
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text}"
    if name != "surrogate":
        refused(answer, answer.status_code, None, field)


def test_bytes_that_are_no_text_are_no_path(fake, tricks):
    place = os.fsencode(str(Path(tricks["file"][0]).parent)) + b"/n\xffn"
    refused(ask(fake, "POST", "/api/run", content=b'{"prompt": "x", "workingDirectory": "' + place + b'"}'), 400, "invalid_request")


def test_a_trailing_slash_and_a_link_that_stays_inside_are_fine(fake, workspace, directory, mark):
    (directory / "real").mkdir()
    (directory / "link").symlink_to("real")
    fake.mode("where")
    for path in (f"{directory}/real/", f"{directory}/link", f"{directory}/link/", f"{directory}//real", f"{directory}/./real"):
        reply = run(fake, "x", workingDirectory=path)
        assert reply["result"] == reply["workingDirectory"] == str(directory / "real"), path


@pytest.mark.parametrize("field", ["workingDirectory", "addDirs"])
def test_a_link_that_is_swapped_meanwhile_leads_nowhere_else(fake, workspace, directory, tmp_path, field):
    """Hundreds of requests, while a link inside points in and out in turns: each is refused, or its CLI is where it may be."""
    (directory / "real").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    link, over = directory / "link", threading.Event()
    link.symlink_to("real")

    def swap():
        number = 0
        while not over.is_set():
            number += 1
            other = directory / f"new-{number}"
            other.symlink_to(outside if number % 2 else directory / "real")
            os.rename(other, link)

    fake.mode("where")
    seen = {"in": 0, "refused": 0}
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            body = {"prompt": "x", "allowedTools": ["Read"], "ephemeral": True, field: str(link) if field == "workingDirectory" else [str(link)]}
            for answer in pool.map(lambda _: ask(fake, "POST", "/api/run", json=body), range(300)):
                if answer.status_code == 200:
                    seen["in"] += 1
                    if field == "workingDirectory":
                        assert answer.json()["result"] == answer.json()["workingDirectory"] == str(directory / "real")
                else:
                    assert answer.status_code in (400, 403), answer.text
                    seen["refused"] += 1
    finally:
        over.set()
        swapper.join()
    print(seen)
    assert seen["in"] and seen["refused"], "this test wants both"


def test_an_added_link_that_is_swapped_later_opens_nothing(service, workspace, directory, tmp_path, mark):
    """The CLI is told where it leads, not its name."""
    (directory / "real").mkdir()
    (tmp_path / "secret").write_text("the-secret-outside")
    link = directory / "link"
    link.symlink_to("real")
    command = f"rm {link}; ln -s {tmp_path} {link}"
    prompt = f"{mark} {bash(command)} [[then_tool=Read {json.dumps({'file_path': str(link / 'secret')})}]] [[then=so]]"
    (workspace / f"{mark}-work").mkdir()
    run(service, prompt, allowedTools=["Bash", "Read"], workingDirectory=str(workspace / f"{mark}-work"), addDirs=[str(link)])
    assert os.readlink(link) == str(tmp_path)
    assert "the-secret-outside" not in tool_results(service, mark)


def test_a_session_goes_on_only_where_it_is_still_allowed(service, workspace, directory, tmp_path, mark):
    place = directory / "place"
    place.mkdir()
    id = run(service, f"{mark}-1 [[say=one]]", workingDirectory=str(place))["sessionId"]
    place.rmdir()
    place.symlink_to(tmp_path)
    answer = ask(service, "POST", "/api/run", json={"prompt": f"{mark}-2 {bash('touch made')}", "sessionId": id, "allowedTools": ["Bash"]})
    assert answer.status_code in (400, 403, 410), answer.text
    assert list(tmp_path.iterdir()) == []


def test_by_default_the_services_own_workspace_is_allowed():
    with Service(cli="fake") as service:
        place = service.state_dir / "workspace"
        until(place.is_dir, 20, "the workspace")
        (place / "a").mkdir()
        service.mode("where")
        assert run(service, "x", workingDirectory=str(place / "a"))["result"] == str(place / "a")
        for path in ("/tmp", str(service.state_dir), str(service.state_dir / "sessions")):
            refused(ask(service, "POST", "/api/run", json={"prompt": "x", "workingDirectory": path}), 403, "forbidden", "workingDirectory")
