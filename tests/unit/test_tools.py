"""What the demo and the benches print, for people who read it for the first time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.bench.table import Figure, Row, head
from tests.demo import show
from tests.guest import project

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_demo_says_which_letter_is_which_label() -> None:
    """Its story speaks of a and d, the daemon of labels; what is no worker has none."""
    status = {"workers": [{"pid": 7, "worker": "llama.cpp/0"}]}
    assert show.labels({"a": "7", "d": "9"}, status) == "a is llama.cpp/0, d is not watched"


def test_the_demo_says_what_little_was_left(capsys: pytest.CaptureFixture[str]) -> None:
    """A move that is done but for a trifle is done, and the trifle is told."""
    move = {"decision": "1:x/0", "event": "move done", "moved": "1 GiB", "seconds": 1}
    show.decisions([json.dumps({**move, "threads_bound": 1, "but_for": "2 shared pages"})])
    assert "move done: 1 GiB in 1 s, 1 threads bound, all but 2 shared pages" in (
        capsys.readouterr().out
    )


def test_the_table_of_benches_tells_how_to_read_it() -> None:
    """The legend stands above the columns, and is true of a row."""
    legend, columns, _ = head().splitlines()
    assert legend.startswith("figures: median (lowest-highest); ratio: ours / theirs")
    assert columns.split()[:2] == ["subject", "case"]
    line = Row("x", "y", Figure((1.0, 2.0, 6.0)), Figure((4.0,)), "ms").lines()
    assert line.split() == ["x", "y", "2", "(1-6)", "4", "ms", "0.5"]


def test_what_is_built_here_is_not_said_to_be_a_guests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bench that boots no guest builds a program too."""
    monkeypatch.setattr(project, "_scratch", lambda: tmp_path)
    monkeypatch.setattr(project, "_run", lambda *_: None)
    project._compile("crowd")
    assert capsys.readouterr().err == "building crowd\n"
