"""How far a replay has come: told to who calls it, and shown on a terminal alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from numad_py.cli import main
from numad_py.cli import replay as verb
from numad_py.policy.schema import Policy
from numad_py.replay.recording import BadFile
from numad_py.replay.runs import replay_file
from tests.unit.test_recording import CYCLES, write
from tests.unit.test_simulate import REMOTE


class Terminal:
    """A terminal, and what is seen on it."""

    def __init__(self) -> None:
        """Open it."""
        self._seen, end = os.openpty()
        self.stream = os.fdopen(end, "w")

    def text(self) -> str:
        """Return what was written, and let nothing more be."""
        self.stream.close()
        data = b""
        # Reading ends with an error where the last writer has closed it (pty(7)).
        with contextlib.suppress(OSError):
            while part := os.read(self._seen, 4096):
                data += part
        return data.decode()

    def hang_up(self) -> None:
        """Have it gone for who writes."""
        os.close(self._seen)
        self._seen = -1

    def close(self) -> None:
        """Close what is open."""
        with contextlib.suppress(OSError):
            self.stream.close()
        if self._seen >= 0:
            self.hang_up()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Lend a terminal."""
    made = Terminal()
    yield made
    made.close()


def replay(path: Path, monkeypatch: pytest.MonkeyPatch, on: TextIO) -> int:
    """Replay with this as standard error, and with progress after each cycle; return the code."""
    monkeypatch.setattr(verb, "EVERY_S", 0.0)
    # Here: pytest puts its own there when a test begins.
    monkeypatch.setattr(sys, "stderr", on)
    return main(["replay", "--json", str(path)])


def told(path: Path) -> list[tuple[int, int]]:
    """Return what is told while a file is gone through."""
    calls: list[tuple[int, int]] = []
    replay_file(path, Policy, progress=lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize(("duration", "cycles"), [("60s", 13), ("12s", 4), ("0s", 1)])
def test_each_cycle_of_a_machine_is_told(tmp_path: Path, duration: str, cycles: int) -> None:
    """With how many there will be, the end of the time included."""
    path = tmp_path / "machine.toml"
    path.write_text(REMOTE.replace("60s", duration))
    assert told(path) == [(done, cycles) for done in range(1, cycles + 1)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_each_cycle_of_a_recording_is_told(tmp_path: Path, name: str) -> None:
    """Packed or not; what was cut off at its end does not count."""
    path = write(tmp_path / name)
    assert told(path) == [(1, 3), (2, 3), (3, 3)]
    path.write_bytes(path.read_bytes()[:-20])
    assert told(path) == [(1, 2), (2, 2)]


def test_no_more_are_done_than_there_are(tmp_path: Path) -> None:
    """Also where the last line is whole but for its newline, or was not there yet when counted."""
    path = write(tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes()[:-1])
    assert told(path) == [(1, 2), (2, 2), (3, 3)]


def test_an_odd_recording_is_refused_as_without(tmp_path: Path) -> None:
    """Counting says nothing of what is wrong; reading does."""
    # So long that the fault is not met when the header is read.
    path = write(tmp_path / "a.jsonl.gz", CYCLES * 100)
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    said = []
    for progress in (None, lambda _done, _of_all: None):
        with pytest.raises(BadFile, match="cannot be read: CRC") as caught:
            replay_file(path, Policy, progress=progress)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_terminal_sees_one_line_that_goes(
    tmp_path: Path,
    terminal: Terminal,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written over at each cycle, and blank at the end; the answer is what it is without."""
    path = write(tmp_path / "a.jsonl")
    assert replay(path, monkeypatch, terminal.stream) == 0
    *lines, blank, end = terminal.text().removeprefix("\r").split("\r")
    assert [line.rstrip() for line in lines] == [f"cycle {i} of 3" for i in (1, 2, 3)]
    assert blank.isspace()
    assert len(blank) >= max(map(len, lines))
    assert end == ""
    shown = capsys.readouterr().out
    with (tmp_path / "log").open("w") as log:
        assert replay(path, monkeypatch, log) == 0
    assert capsys.readouterr().out == shown


def test_an_error_has_a_line_of_its_own(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown is gone before it is said."""
    path = write(tmp_path / "a.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{}", *lines[3:]]) + "\n")
    assert replay(path, monkeypatch, terminal.stream) == 1
    *_, shown, blank, error, end = terminal.text().split("\r")
    assert shown == "cycle 2 of 4"
    assert blank.isspace()
    assert error.startswith(f"numad-py: {path}:4: ")
    assert end == "\n"


def test_a_terminal_that_has_gone_ends_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer goes elsewhere."""
    monkeypatch.setattr(verb, "EVERY_S", 0.0)
    with verb.shown_on(terminal.stream) as show:
        assert show is not None
        terminal.hang_up()
        show(1, 2)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(terminal.stream.fileno(), b"x")


def test_nothing_is_shown_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log gets errors only."""
    with (tmp_path / "log").open("w") as log:
        assert replay(write(tmp_path / "a.jsonl"), monkeypatch, log) == 0
    assert (tmp_path / "log").read_text() == ""


def test_it_is_shown_once_a_second(terminal: Terminal) -> None:
    """At most, and not before the first has gone: what is quick shows nothing."""
    now_s = 100.0
    with verb.shown_on(terminal.stream, lambda: now_s) as show:
        assert show is not None
        for done in range(1, 10):
            now_s += 0.3
            show(done, 10)
    with verb.shown_on(terminal.stream, lambda: now_s) as show:
        assert show is not None
        show(1, 1)
    shown = [part.rstrip() for part in terminal.text().split("\r")]
    assert [part for part in shown if part] == ["cycle 4 of 10", "cycle 8 of 10"]
