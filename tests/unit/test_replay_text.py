"""What replaying came to, as it is printed: the whole time, and words that a newcomer knows."""

from __future__ import annotations

from typing import Any

import pytest

from numad_py.serve.render_replay import render_replay


def run(name: str, count: int = 3, **more: Any) -> dict[str, Any]:
    """Return a run of so many looks, 5 s apart; its memory comes home at the very end."""
    return {
        "name": name,
        "cycles": count,
        "duration_s": 5.0 * (count - 1),
        "workers": 1,
        "locality_mean": 0.0,
        "locality_end": 1.0,
        "near_mean": 0.9999,
        "near_end": 1.0,
        "local_after_s": 5.0 * (count - 1),
        "moved_bytes": 0,
        "moves": 0,
        "moves_most": 0,
        "ping_pongs": 0,
        "headroom_broken": 0,
        "decisions": {},
        "ends": {},
        "locality": [(5.0 * at, float(at == count - 1)) for at in range(count)],
        **more,
    }


def text(*runs: dict[str, Any], **more: Any) -> str:
    """Return what is printed of runs of a recording."""
    return render_replay({"file": "x", "kind": "recording", "torn": False, "runs": runs, **more})


@pytest.mark.parametrize("count", [1, 2, 10, 11, 12, 13, 16, 19, 20, 21, 97, 199])
def test_the_table_goes_to_the_end(count: int) -> None:
    """Whatever the number of cycles; and its rows stay few."""
    rows = text(run("policy", count)).split("MEMORY AT HOME AFTER")[1].splitlines()[1:]
    assert rows[-1].split()[-1] == "100.0%"
    assert [row.split()[-1] for row in rows[:-1]] == ["0.0%"] * (len(rows) - 1)
    assert min(count, 10) / 2 <= len(rows) <= 11


def test_what_would_be_done_is_not_told_as_done() -> None:
    """Where nothing is done to the machine, nothing acts and nothing is carried out."""
    acts = {"act remote-memory": 3, "rest home": 1}
    said = text(
        run("untouched", decisions=acts, ends={"simulated": 3}),
        run("policy", decisions=acts, ends={"done": 1}),
    )
    rows = [line.split("  ") for line in said.splitlines()]
    cells = {row[0]: [cell.strip() for cell in row[1:] if cell] for row in rows}
    assert cells["would act remote-memory"] == ["3", "-"]
    assert cells["act remote-memory"] == ["-", "3"]
    assert cells["rest home"] == ["1", "1"]
    assert cells["done"] == ["-", "1"]
    assert "simulated" not in said


def test_every_column_is_explained() -> None:
    """Above the tables, in the order of the columns."""
    said = text(*(run(name) for name in ("recorded", "untouched", "policy", "new")))
    lines = said.split("\n\n")[1].splitlines()
    assert [line.split(":")[0] for line in lines] == ["RECORDED", "UNTOUCHED", "POLICY", "NEW"]
    assert lines[1] == "UNTOUCHED: nothing is done: memory and threads stay as they were"


def test_one_is_not_many_and_nearly_all_is_not_all() -> None:
    """In the words of people."""
    said = text(run("policy", 1))
    assert said.startswith("recording x: 1 cycle over 0 s, 1 worker\n")
    assert ">99.9%" in said
