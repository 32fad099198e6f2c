"""`POST /api/run`: Claude Code with tools, in a directory."""

from pathlib import Path

import pytest

from dialects import DIRECT
from direct import UUID, bash, check_reply, delete, run, tool, tool_results
from service import Service, until


def test_a_reply_has_the_fields_of_the_node_proxy_and_more(service):
    answer = run(service, "[[say=done]]")
    assert UUID.fullmatch(answer["id"]) and UUID.fullmatch(answer["sessionId"])
    assert answer["result"] == "done"
    assert isinstance(answer["durationMs"], int) and 0 < answer["durationMs"] < 60000
    check_reply(answer)


def test_the_result_is_the_last_message(service, directory, mark):
    (directory / "a").write_text("content of a\n")
    answer = run(service, f"{mark} {tool('Read', file_path=str(directory / 'a'))}", workingDirectory=str(directory))
    assert "content of a" in tool_results(service, mark)
    assert answer["result"]


def test_a_named_tool_writes_in_the_directory(service, directory, mark):
    run(service, f"{mark} {tool('Write', file_path=str(directory / 'made.txt'), content='made by a tool')}",
        allowedTools=["Write"], workingDirectory=str(directory))
    assert (directory / "made.txt").read_text() == "made by a tool"
    assert [path.name for path in directory.iterdir()] == ["made.txt"]


@pytest.mark.parametrize("where", ["sibling", "parent", "link"])
def test_a_named_tool_writes_nowhere_else(service, workspace, directory, mark, where):
    other = workspace / f"{mark}-other"
    other.mkdir()
    (directory / "link").symlink_to(other)
    path = {"sibling": other / "made.txt", "parent": directory / ".." / f"{mark}-made.txt", "link": directory / "link" / "made.txt"}[where]
    run(service, f"{mark} {tool('Write', file_path=str(path), content='x')}", allowedTools=["Write"], workingDirectory=str(directory))
    assert tool_results(service, mark)
    assert not path.exists()


@pytest.mark.parametrize("allowed", [None, [], ["Read"], ["Bash(git *)", "Read"]], ids=["default", "none", "Read", "another command"])
def test_a_tool_that_was_not_named_is_denied(service, directory, mark, allowed):
    (directory / "there").write_text("x")
    run(service, f"{mark} {tool('Bash', command='touch made; rm there', description='x')}",
        allowedTools=allowed, workingDirectory=str(directory))
    run(service, f"{mark} {tool('Write', file_path=str(directory / 'made'), content='x')}",
        allowedTools=allowed, workingDirectory=str(directory))
    assert [path.name for path in directory.iterdir()] == ["there"]


def test_a_rule_grants_what_it_says(service, directory, mark):
    run(service, f"{mark} {tool('Bash', command='echo granted', description='x')}",
        allowedTools=["Bash(echo *)"], workingDirectory=str(directory))
    assert "granted" in tool_results(service, mark)


def test_the_tools_that_the_model_sees_are_the_named_ones(service, directory, mark):
    run(service, f"{mark} [[say=ok]]", allowedTools=["Bash", "Read"], workingDirectory=str(directory))
    # The CLI adds a placeholder of its own, which is no tool that does anything.
    assert {entry["name"] for entry in service.upstream_body(mark)["tools"]} - {"DeferredToolPlaceholder"} == {"Bash", "Read"}


def test_without_names_the_tools_only_read_their_own_directory(service, directory, mark):
    run(service, f"{mark} [[say=ok]]", workingDirectory=str(directory))
    assert not {entry["name"] for entry in service.upstream_body(mark)["tools"]} & {"Bash", "Write", "Edit", "WebFetch", "Agent", "Task"}
    run(service, f"{mark} {tool('Read', file_path='/etc/hostname')}", workingDirectory=str(directory))
    with open("/etc/hostname") as file:
        assert file.read().strip() not in tool_results(service, mark)


def test_a_named_read_reads_its_directory_only(service, workspace, directory, mark):
    outside = workspace / f"{mark}-outside.txt"
    for path in (outside, directory / "inside.txt"):
        path.write_text(f"content of {path.name}")
    prompts = [f"{mark}-{path.name} {tool('Read', file_path=str(path))}" for path in (outside, directory / "inside.txt")]
    for prompt in prompts:
        run(service, prompt, allowedTools=["Read"], workingDirectory=str(directory))
    assert "content of inside" in tool_results(service, f"{mark}-inside.txt")
    assert "content of" not in tool_results(service, f"{mark}-{outside.name}")


LITTER = bash("pwd; ls -A; touch left-behind; mkdir -p a/b; chmod 0 a")


def test_an_ephemeral_run_without_a_directory_has_a_fresh_one_that_goes_with_it(service, mark):
    answer = run(service, f"{mark} {LITTER}", allowedTools=["Bash"], ephemeral=True)
    assert answer["sessionId"] is None
    lines = tool_results(service, mark).strip().splitlines()
    assert lines[0].startswith(str(service.state_dir)) and lines == [answer["workingDirectory"]], "it was not empty"
    until(lambda: not Path(lines[0]).exists(), 20, "the removal of the fresh directory")
    until(lambda: not service.temporary(), 20, "an empty RUN_DIR/tmp")


def test_a_session_without_a_directory_has_one_that_goes_with_it(service, mark):
    answer = run(service, f"{mark} {LITTER}", allowedTools=["Bash"])
    lines = tool_results(service, mark).strip().splitlines()
    assert lines[0].startswith(str(service.state_dir)) and lines == [answer["workingDirectory"]], "it was not empty"
    assert (Path(lines[0]) / "left-behind").exists()
    assert delete(service, answer["sessionId"]).status_code == 200
    # The run may still have its place, and removes it then when it has none any more.
    until(lambda: not Path(lines[0]).exists(), 20, "the removal of the directory")
    until(lambda: not service.temporary(), 20, "an empty RUN_DIR/tmp")


@pytest.mark.parametrize("ephemeral", [True, False])
def test_two_runs_do_not_share_a_fresh_directory(service, mark, ephemeral):
    places = set()
    for number in range(2):
        run(service, f"{mark}-{number} {bash('pwd')}", allowedTools=["Bash"], ephemeral=ephemeral)
        places.add(tool_results(service, f"{mark}-{number}"))
    assert len(places) == 2


def test_a_run_leaves_nothing_in_its_directory(service, directory):
    run(service, "[[say=ok]]", workingDirectory=str(directory), allowedTools=["Bash", "Read", "Write"])
    assert list(directory.iterdir()) == []


def test_without_allowed_directories_only_the_workspace_may_be_named(tmp_path):
    with Service(cli="fake", RESPONDERS=1) as service:
        answer = service.post(DIRECT.path, DIRECT.body("hi", workingDirectory=str(tmp_path)))
        place = (service.state_dir / "workspace").resolve()
        assert answer.status_code == 403 and str(place) in answer.json()["error"]["message"]
        assert run(service, "hi", workingDirectory=str(place))["workingDirectory"] == str(place)
        assert service.post(DIRECT.path, DIRECT.body("hi")).status_code == 200
