"""The command line: exit codes, and what is said with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from numad_py.cli import config, main
from numad_py.kernel.rights import effective_capabilities
from numad_py.policy import load as load_module
from tests.fake_tree import put
from tests.integration.program import NONE_AT_ALL, ask, machine, numad_py, policy, roots

# 78: the policy


@pytest.mark.parametrize(
    "verb", [["run", "--config"], ["check-config"], ["check-config", "--config"]]
)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, ": no such file; copy config/numad-py.toml"),
        (b"", ":1: the file is empty"),
        (b"[daemon]\n[log\n", ":2: not TOML: "),
        (b"#\n[daemon]\nintervall = '5s'\n", ":3: daemon.intervall: no such key"),
        (b"[[rule]]\nname = 'x'\ncomm = '('\n", ":3: rule.comm: '(' is not a regular expression"),
        (b"\xff\xfe", ":1: not UTF-8 text"),
    ],
)
def test_a_bad_policy_ends_with_78_and_says_file_line_and_key(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: list[str],
    data: bytes | None,
    said: str,
) -> None:
    """Whoever starts it or checks it by a script learns what is wrong, and where."""
    path = tmp_path / "p.toml"
    if data is not None:
        path.write_bytes(data)
    assert main([*verb, str(path)]) == 78
    captured = capsys.readouterr()
    assert f"{path}{said}" in captured.err
    assert not captured.out


@pytest.mark.parametrize("verb", [["run", "--config"], ["check-config"]])
def test_an_unreadable_policy_ends_with_78_and_says_what_to_do(
    tmp_path: Path, verb: list[str]
) -> None:
    """No right to the file is no usable policy; it is never taken for an absent one."""
    path = policy(tmp_path)
    path.chmod(0)
    ended = numad_py(*verb, str(path), drop=NONE_AT_ALL)
    assert ended.returncode == 78
    assert f"{path}: cannot be read: Permission denied; make it readable" in ended.stderr


def test_an_unreadable_folder_of_drop_ins_is_not_passed_over(tmp_path: Path) -> None:
    """Drop-ins that cannot be seen may hold what keeps a worker from being touched."""
    path = policy(tmp_path)
    (tmp_path / "conf.d").mkdir()
    put(tmp_path / "conf.d/10-canary.toml", "[[exclude]]\nname = 'canary'\ncomm = 'x'\n")
    (tmp_path / "conf.d").chmod(0)
    ended = numad_py("check-config", str(path), drop=NONE_AT_ALL)
    (tmp_path / "conf.d").chmod(0o700)
    assert ended.returncode == 78
    assert f"{tmp_path}/conf.d: cannot be read: Permission denied" in ended.stderr


def test_a_drop_in_that_links_to_itself_is_a_problem_of_that_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is reported like any file that cannot be read."""
    path = policy(tmp_path)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10-a.toml").symlink_to("10-a.toml")
    assert main(["check-config", str(path)]) == 78
    assert f"{tmp_path}/conf.d/10-a.toml: cannot be read: " in capsys.readouterr().err


def test_check_config_says_in_json_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, mode and rules in the order in which they match."""
    path = policy(tmp_path, "[[rule]]\nname = 'mine'\ncomm = 'x'\n")
    document = ask(capsys, "check-config", str(path))
    assert (document["schema"], document["ok"], document["mode"]) == (1, True, "act")
    assert document["files"] == [str(path)]
    assert document["rules"][0] == {"name": "mine", "origin": f"{path}:6"}
    assert document["rules"][1]["origin"] == "built-in"
    assert document["excludes"] == []


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the usual place of the policy, in a folder that is empty."""
    path = tmp_path / "etc/numad-py.toml"
    path.parent.mkdir()
    for module in (config, load_module):
        monkeypatch.setattr(module, "DEFAULT_PATH", str(path))
    return path


def test_check_config_lists_the_built_in_rules_where_there_is_no_file(
    usual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before an install: where it looked, that defaults hold, and how to give a file."""
    assert main(["check-config"]) == 0
    captured = capsys.readouterr()
    assert not captured.err
    where = f"no policy file: looked for {usual} and {usual.parent}/conf.d/*.toml\n"
    assert captured.out.startswith(where)
    for said in ("built-in defaults", "or name one with --config", "copy config/numad-py.toml"):
        assert said in captured.out
    assert re.search(
        r"^mode act, \d+ rules, first match wins:\n  vllm +built-in$", captured.out, re.MULTILINE
    )
    assert ask(capsys, "check-config")["files"] == []


@pytest.mark.parametrize("there", ["drop-in", "dangling", "folder"])
def test_check_config_takes_no_defaults_where_something_is_wrong(
    usual: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    """A drop-in alone, or a link that leads nowhere, keeps the daemon from starting."""
    if there == "drop-in":
        put(usual.parent / "conf.d/10-mode.toml", "[daemon]\nmode = 'advise'\n")
    elif there == "dangling":
        usual.symlink_to("nowhere.toml")
    else:
        usual.mkdir()
    assert main(["check-config"]) == 78
    assert f"{usual}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("autonuma = false", 'autonuma: false is not one of "leave", "off"'),
        ("rate = true", "rate: true is not a rate"),
        ("chunk = [1, true]", "chunk: [1, true] is not a size"),
        ("longest_chunk = { a = false }", "longest_chunk: { a = false } is not a duration"),
        ("rate = 2020-01-01", "rate: 2020-01-01 is not a rate"),
    ],
)
def test_what_is_wrong_is_told_as_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    """In the words of the file, which are not Python's."""
    path = policy(tmp_path, f"[migration]\n{line}\n")
    assert main(["check-config", str(path)]) == 78
    assert f"{path}:7: migration.{said}" in capsys.readouterr().err


def test_check_config_takes_one_file_at_its_place_or_by_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--config`` as every verb has it; two files are one too many."""
    path = str(policy(tmp_path))
    assert ask(capsys, "check-config", "--config", path) == ask(capsys, "check-config", path)
    assert main(["check-config", path, "--config", path]) == 2
    assert "name one policy file" in capsys.readouterr().err


def test_check_config_says_every_problem_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All problems at once, one a string."""
    path = policy(tmp_path, "levl = 1\n[scan]\ninterval = 5\n")
    document = ask(capsys, "check-config", str(path), code=78)
    assert document["ok"] is False
    assert [p.removeprefix(str(path))[:18] for p in document["problems"]] == [
        ":6: log.levl: no s",
        ":8: scan.interval:",
    ]


# 77: rights


@pytest.mark.skipif(
    len(effective_capabilities()) < 2, reason="has no capabilities that could be missed one by one"
)
@pytest.mark.parametrize(
    ("capability", "flag"), [("CAP_SYS_NICE", "sys_nice"), ("CAP_SYS_PTRACE", "sys_ptrace")]
)
def test_run_names_the_capability_that_is_missing(
    tmp_path: Path, capability: str, flag: str
) -> None:
    """77, the one that is missing, what for, and how to get it."""
    drop = (f"--bounding-set=-{flag}", "--inh-caps=-all")
    ended = numad_py("run", "--config", str(policy(tmp_path)), drop=drop)
    assert ended.returncode == 77
    assert ended.stderr.startswith(f"numad-py: {capability} is missing, needed to ")
    assert ended.stderr.count("CAP_") == 1
    assert "numad-py.service" in ended.stderr


def test_run_without_any_right_names_both_and_changes_nothing(tmp_path: Path) -> None:
    """It ends before it opens its journal."""
    ended = numad_py("run", "--config", str(policy(tmp_path)), drop=NONE_AT_ALL)
    assert ended.returncode == 77
    assert "CAP_SYS_PTRACE is missing" in ended.stderr
    assert "CAP_SYS_NICE is missing" in ended.stderr
    assert not (tmp_path / "state").exists()


def test_a_look_that_may_see_no_worker_ends_with_77(tmp_path: Path) -> None:
    """Nothing to report is not the same as nothing to see."""
    made = machine(tmp_path)
    (made.procfs / "100/numa_maps").chmod(0)
    config = ["--config", str(policy(tmp_path))]
    ended = numad_py("status", *roots(made), *config, drop=NONE_AT_ALL)
    assert ended.returncode == 77
    assert f"no right to read {made.procfs}/100/numa_maps: CAP_SYS_PTRACE" in ended.stderr
    assert not ended.stdout


# 2 and 1: what was asked for, and of what


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["run", "--mode", "haste"], ["status", "--config"], ["pause", "now"]],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Usage is printed, and nothing done."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: numad-py")


@pytest.mark.parametrize(
    ("verb", "odd", "hint"),
    [
        ("status", "999999", "status shows all workers; it takes no pid or name (explain does)"),
        ("plan", "vllm/0", "plan shows all workers; it takes no pid or name (explain does)"),
        ("status", "--pid=7", None),
        ("pause", "7", None),
    ],
)
def test_what_a_verb_does_not_take_is_told_with_its_own_usage(
    capsys: pytest.CaptureFixture[str], verb: str, odd: str, hint: str | None
) -> None:
    """Not with that of all verbs; who asks for one worker is told which verb does it."""
    with pytest.raises(SystemExit) as ended:
        main([verb, odd])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: numad-py {verb} ")
    assert f"unrecognized arguments: {odd}" in said
    assert ("explain does" in said) is (hint is not None)
    assert hint is None or said.endswith(f"; {hint}\n")


@pytest.mark.parametrize("verb", ["status", "plan", "doctor"])
@pytest.mark.parametrize("wrong", ["absent", "other", "file"])
@pytest.mark.parametrize("root", ["procfs", "sysfs"])
def test_a_wrong_root_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, wrong: str, root: str
) -> None:
    """A root that is absent, another folder or a file: 1, its path and a question, no traceback."""
    made = machine(tmp_path)
    put(tmp_path / "other/readme", "")
    put(tmp_path / "file", "")
    path = tmp_path / wrong
    asked = [verb, *roots(made), f"--{root}", str(path), "--config", str(policy(tmp_path))]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"numad-py: {path}")
    assert "is this a proc file system?" in said or "is this a sysfs" in said
    assert said.count("\n") == 1
