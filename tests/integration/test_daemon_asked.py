"""Which daemon a verb asks: ``--config`` names it, by the file that it runs by."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.cli import main
from numad_py.events import Wake
from numad_py.policy.schema import LogFormat
from numad_py.serve.logs import configure
from tests.integration.program import machine, numad_py, policy
from tests.integration.running import Running, running, until

CHANGES = ("pause", "resume", "reload", "restore")
LOOKS = (["status"], ["plan"], ["explain", "100"], ["advise", "1:1MiB"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    """Run a daemon whose socket lies in a folder of its own."""
    configure("error", LogFormat.JSON)  # it logs to the output of this process
    with running(machine(tmp_path), policy(tmp_path)) as up:
        yield up


@pytest.mark.parametrize("verb", LOOKS, ids=lambda verb: verb[0])
def test_a_daemon_with_another_runtime_dir_is_asked_by_its_file(
    served: Running, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    """As pause and restore do; the answer is the daemon's, and nothing is said beside it."""
    assert main([*verb, "--json", "--config", str(served.policy)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "daemon"
    assert not captured.err


def test_a_recording_by_its_file_is_of_the_daemon(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of looks of our own, at the wrong machine."""
    asked = ["record", str(tmp_path / "x"), "--for", "0s", "--config", str(served.policy)]
    assert main([*asked, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "daemon"
    assert "recording the daemon's cycles" in captured.err


def test_the_file_may_be_named_by_another_path(
    served: Running,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By a link, or from where it lies: it is the same file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.toml").symlink_to(served.policy)
    for name in ("policy.toml", "link.toml"):
        assert main(["plan", "--json", "--config", name]) == 0
        assert json.loads(capsys.readouterr().out)["source"] == "daemon"


@pytest.mark.parametrize("more", [["--direct"], ["--procfs", "/proc/.", "--sysfs", "/sys/../sys"]])
def test_a_look_is_a_look_where_it_is_asked_for(
    served: Running, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """``--direct`` tries a file on this machine; other spellings of its roots change nothing."""
    assert main(["plan", "--json", "--config", str(served.policy), *more]) == 0
    source = json.loads(capsys.readouterr().out)["source"]
    assert source == ("direct" if "--direct" in more else "daemon")


def test_a_file_that_the_daemon_does_not_run_by_is_tried_by_a_look(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its answer would pass for what the new file says; who asked is told of the daemon."""
    new = beside(served, tmp_path)
    assert main(["advise", "1:1MiB", "--json", "--config", str(new)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "direct"
    said = f"the daemon on {served.socket} runs by {served.policy}; looking by {new} without it\n"
    assert f"numad-py: {said}" in captured.err
    assert served.daemon.advisor.told() == []


def beside(served: Running, folder: Path) -> Path:
    """Return a file that leads to the same socket, and by which no daemon runs."""
    (folder / "new").mkdir()
    new = folder / "new/policy.toml"
    new.write_text(served.policy.read_text())
    return new


@pytest.mark.parametrize("verb", CHANGES)
def test_a_daemon_that_runs_by_another_file_is_not_changed(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """It was not meant; the error says by which file it runs and what to do."""
    served.daemon.handle("resume" if verb != "resume" else "pause", {})
    served.policy.write_text(served.policy.read_text() + "[discovery]\nknown_servers = false\n")
    before = served.daemon.policy
    new = beside(served, tmp_path)
    assert main([verb, "--json", "--config", str(new)]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err == (
        f"numad-py: the daemon on {served.socket} runs by {served.policy}, not by {new}; nothing "
        f"was changed; to have it changed: numad-py {verb} --config {served.policy}\n"
    )
    assert served.daemon.policy is before
    # What it was told before still holds: the next cycle says so.
    cycles = served.daemon.totals.cycles
    served.daemon.mailbox.put(Wake("the test wants a cycle"))
    until(lambda: served.daemon.totals.cycles > cycles, "another cycle")
    assert served.daemon.report is not None
    assert served.daemon.report.paused is (verb == "resume")


@pytest.mark.parametrize("verb", CHANGES)
def test_a_daemon_is_changed_by_the_file_that_it_runs_by(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """By whichever path."""
    (tmp_path / "link.toml").symlink_to(served.policy)
    assert main([verb, "--json", "--config", str(tmp_path / "link.toml")]) == 0
    captured = capsys.readouterr()
    told = {
        "pause": ("paused", True),
        "resume": ("paused", False),
        "reload": ("files", [str(served.policy)]),
        "restore": ("by", "daemon"),
    }
    key, expected = told[verb]
    assert json.loads(captured.out)[key] == expected
    assert not captured.err


@pytest.fixture
def with_drop_in(tmp_path: Path) -> Iterator[Running]:
    """Run a daemon by two files, written a while before it began."""
    configure("error", LogFormat.JSON)
    path, drop_in = policy(tmp_path), tmp_path / "conf.d/50-x.toml"
    drop_in.parent.mkdir()
    drop_in.write_text(path.read_text())
    for file in (path, drop_in):
        os.utime(file, (time.time() - 100,) * 2)
    with running(machine(tmp_path), path) as up:
        yield up


def test_a_drop_in_is_not_the_policy(
    with_drop_in: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a part of what the daemon runs by: alone, it says something else."""
    drop_in = tmp_path / "conf.d/50-x.toml"
    assert main(["plan", "--json", "--config", str(drop_in)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "direct"
    assert f"runs by {with_drop_in.policy}, {drop_in}; looking by {drop_in} with" in captured.err
    assert main(["pause", "--config", str(drop_in)]) == 1
    assert f"numad-py pause --config {with_drop_in.policy}\n" in capsys.readouterr().err


def changed_later(path: Path) -> None:
    """Let a file be one that was written after now."""
    os.utime(path, (time.time() + 100,) * 2)


@pytest.mark.parametrize("change", ["main", "drop-in", "added", "removed"])
def test_a_file_that_was_changed_since_it_was_loaded_is_noted(
    with_drop_in: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """The answer is the daemon's, by what it has loaded; reload takes up what is new."""
    main_file, drop_in, other = (
        with_drop_in.policy,
        tmp_path / "conf.d/50-x.toml",
        tmp_path / "conf.d/60-y.toml",
    )
    if change == "removed":
        drop_in.unlink()
    elif change == "added":
        other.write_text("# nothing\n")
        os.utime(other, (1, 1))
    else:
        changed_later(main_file if change == "main" else drop_in)
    changed = {"main": main_file, "added": other}.get(change, drop_in)
    asked = ["plan", "--json", "--config", str(main_file)]
    assert main(asked) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "daemon"
    assert captured.err == (
        f"numad-py: written since the daemon loaded its policy: {changed}; what is new there "
        f"holds after numad-py reload --config {main_file}\n"
    )
    for file in (main_file, drop_in):
        if file.exists():
            os.utime(file, (1, 1))
    cycles = with_drop_in.daemon.totals.cycles
    assert main(["reload", "--config", str(main_file)]) == 0
    until(lambda: with_drop_in.daemon.totals.cycles > cycles, "a cycle by the new text")
    capsys.readouterr()
    assert main(asked) == 0
    assert not capsys.readouterr().err


def test_without_a_daemon_the_machine_is_looked_at_by_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing listens where the file says: no error, and no word of a daemon."""
    assert main(["plan", "--json", "--config", str(policy(tmp_path))]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["source"] == "direct"
    assert "daemon" not in captured.err


@pytest.mark.parametrize("verb", LOOKS, ids=lambda verb: verb[0])
def test_a_file_with_a_mistake_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    """It says which daemon is meant, so that another must not answer in its place."""
    path = policy(tmp_path, "levl = 1\n")
    assert main([*verb, "--config", str(path)]) == 78
    captured = capsys.readouterr()
    assert f"{path}:6: log.levl: no such key" in captured.err
    assert not captured.out


def test_a_daemon_knows_its_file_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who asks from another folder could not name it."""
    policy(tmp_path)
    made = machine(tmp_path)
    monkeypatch.chdir(tmp_path)
    ended = numad_py(
        *("run", "--once", "--dry-run", "--json", "--config", "policy.toml"),
        *("--procfs", str(made.procfs), "--sysfs", str(made.sysfs)),
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["plan"]["policy"]["files"] == [f"{tmp_path}/policy.toml"]


@pytest.mark.parametrize("verb", ["status", "plan", "explain", "advise", "record", "pause"])
def test_the_help_says_how_the_daemon_is_found(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """By the file that it runs by."""
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "the daemon that runs by it is asked, at its daemon.runtime_dir" in said


@pytest.mark.parametrize("verb", ["pause", "resume", "restore"])
@pytest.mark.parametrize("what", ["mistake", "gone"])
def test_a_daemon_can_be_stopped_whatever_became_of_its_policy(
    served: Running, capsys: pytest.CaptureFixture[str], verb: str, what: str
) -> None:
    """A typo in the file must not stand between somebody and hands off."""
    text = served.policy.read_text()
    if what == "mistake":
        served.policy.write_text(f"{text}\n[migration]\nrate = 5\n")
    else:
        # Its folder is said by a drop-in, which is there still.
        folder = served.policy.parent / "conf.d"
        folder.mkdir(exist_ok=True)
        (folder / "50-dir.toml").write_text(text)
        served.policy.unlink()
    assert main([verb, "--config", str(served.policy)]) == 0
    assert not capsys.readouterr().err
    paused = verb != "resume"
    until(
        lambda: served.daemon.report is not None and served.daemon.report.paused is paused,
        "it was told",
    )


def test_a_policy_with_mistakes_that_no_daemon_runs_by_is_refused(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mistakes are said, and the daemon that listens where it points is not touched."""
    other = tmp_path / "other.toml"
    other.write_text(f"{served.policy.read_text()}\n[migration]\nrate = 5\n")
    assert main(["pause", "--config", str(other)]) == 78
    assert "migration.rate" in capsys.readouterr().err
    assert served.daemon.report is not None
    assert not served.daemon.report.paused


def test_doctor_says_that_the_daemon_is_not_the_files(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All is not well with it because one answers where it points."""
    other = tmp_path / "other.toml"
    other.write_text(served.policy.read_text())
    levels = {}
    for file in (served.policy, other):
        main(["doctor", "--json", "--config", str(file)])
        checks = json.loads(capsys.readouterr().out)["checks"]
        levels[file] = [c["level"] for c in checks if c["name"] == "daemon"]
    assert levels == {served.policy: ["ok"], other: ["warn"]}


def test_what_to_type_next_finds_the_same_daemon(
    served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is printed."""
    assert main(["restore", "--config", str(served.policy)]) == 0
    assert f"(numad-py resume --config {served.policy})" in capsys.readouterr().out
