"""What anybody on the machine may try against a daemon with rights."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
import structlog

from numad_py.act.journal import Journal, read
from numad_py.errors import NumadError, PolicyError
from numad_py.kernel.procfs import LONGEST_CMDLINE, ProcFs
from numad_py.policy.load import defaults, load
from numad_py.policy.match import Subject, match
from numad_py.policy.schema import LogFormat
from numad_py.serve import logs


@pytest.mark.parametrize("name", ["journal.new", "lock", "journal.jsonl", "journal.bad"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_the_state_directory_lead_root_nowhere(
    tmp_path: Path, name: str, link: type
) -> None:
    """A file that a link points at is neither written nor given away, whoever put the link."""
    if os.geteuid() != 0:
        pytest.skip("only root can be led")
    victim = tmp_path / "shadow"
    victim.write_text("secret\n")
    victim.chmod(0o644)
    state = tmp_path / "state"
    state.mkdir()
    link(victim, state / name)
    os.chown(state, 65534, 65534)
    if name == "journal.bad":
        (state / "journal.jsonl").write_text("odd\n")
    try:
        Journal(state, "boot").close()
    except NumadError as error:
        assert "link" in str(error)  # noqa: PT017 - either way the victim is what counts
    assert victim.read_text() == "secret\n"
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o644)


@pytest.mark.parametrize(
    "arguments",
    ["/" * 100_000, "a/" * 50_000, "python " * 20_000, "-a " * 30_000, "java " + "x " * 50_000],
)
def test_no_command_line_takes_long_to_match(arguments: str) -> None:
    """The built-in patterns are linear, and what is matched is bounded."""
    subject = Subject("x", "", (arguments,), "", 0, None, None, None)
    began = time.thread_time()
    match(defaults(), subject)
    assert time.thread_time() - began < 0.5


def test_a_command_line_of_any_size_is_read_in_part(tmp_path: Path) -> None:
    """PR_SET_MM lets a process have one of gigabytes; no more of it is read than is looked at."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cmdline").write_bytes(b"server\0" + b"x" * (1 << 20) + b"\0")
    words = ProcFs(tmp_path)._cmdline(7)
    assert words[0] == "server"
    assert sum(map(len, words)) < LONGEST_CMDLINE


def test_a_fifo_among_the_policy_files_is_no_file(tmp_path: Path) -> None:
    """It is named as a problem, not waited for."""
    (tmp_path / "policy.toml").write_text("# all defaults\n")
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d/z.toml")
    with pytest.raises(PolicyError, match=r"z\.toml: not a file"):
        load(tmp_path / "policy.toml")


def test_many_rules_are_read_in_no_time(tmp_path: Path) -> None:
    """The line of each is found in one pass."""
    rules = "".join(f"[[rule]]\nname = 'r{i}'\ncomm = '^r{i}$'\n" for i in range(400))
    (tmp_path / "policy.toml").write_text(rules)
    began = time.thread_time()
    policy = load(tmp_path / "policy.toml")
    assert time.thread_time() - began < 3
    assert policy.rules[1].origin.endswith(":4")


@pytest.mark.parametrize(
    "line", ["[" * 200_000, '{"v":1,"boot_id":"boot","pid":1e999}', '{"v":9,"boot_id":"boot"}']
)
def test_an_odd_journal_record_is_kept_aside(tmp_path: Path, line: str) -> None:
    """Neither too deep, nor too large, nor of another version: it ends nothing."""
    (tmp_path / "journal.jsonl").write_text(line + "\n")
    assert read(tmp_path / "journal.jsonl", "boot", keep_bad=True) == {}
    assert (tmp_path / "journal.bad").read_text() == line + "\n"


def test_a_log_that_cannot_be_written_decides_nothing() -> None:
    """The line is lost, and nothing else."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, text)

        def flush(self) -> None:
            raise BrokenPipeError

    logs.configure("info", LogFormat.JSON, Full())
    structlog.get_logger("x").info("said")
