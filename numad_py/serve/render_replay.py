"""What replaying came to, as text for people: runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numad_py.model.quantity import format_bytes
from numad_py.serve.render import table

Entry = Mapping[str, Any]

MOST_TIMES = 10
"""Rows of the locality over time."""


def render_replay(document: Entry) -> str:
    """Return a replay document as text."""
    runs: Sequence[Entry] = document["runs"]
    head = ("", *(run["name"].upper() for run in runs))
    rows = [(title, *(cell(run) for run in runs)) for title, cell in _ROWS]
    parts = [
        _first_line(document),
        table(head, rows),
        _counts(head, runs, "decisions", "DECISIONS"),
        _counts(head, runs, "ends", "CARRIED OUT"),
        _over_time(runs),
    ]
    return "\n\n".join(part for part in parts if part)


def _first_line(document: Entry) -> str:
    run = document["runs"][0]
    text = f"{document['kind']} {document['file']}: {run['cycles']} cycles"
    text += f" over {_time(run['duration_s'])}, {run['workers']} workers"
    if document["torn"]:
        text += "\nit was broken off while it was written; its last cycle is left out"
    return text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"


_ROWS: tuple[tuple[str, Callable[[Entry], str]], ...] = (
    ("memory at home, mean", lambda run: _percent(run["locality_mean"])),
    ("memory at home, at the end", lambda run: _percent(run["locality_end"])),
    ("accesses near, mean", lambda run: _percent(run["near_mean"])),
    ("accesses near, at the end", lambda run: _percent(run["near_end"])),
    ("99 % at home after", lambda run: _time(run["local_after_s"])),
    ("moved", lambda run: format_bytes(run["moved_bytes"])),
    ("moves", lambda run: str(run["moves"])),
    ("moves of one worker, at most", lambda run: str(run["moves_most"])),
    ("moves back and forth", lambda run: str(run["ping_pongs"])),
    ("plans beyond a node's room", lambda run: str(run["headroom_broken"])),
)


def _counts(head: Sequence[str], runs: Sequence[Entry], key: str, title: str) -> str:
    names = sorted({name for run in runs for name in run[key]})
    return table(
        (title, *head[1:]),
        [(name, *(str(run[key].get(name, "-")) for run in runs)) for name in names],
    )


def _over_time(runs: Sequence[Entry]) -> str:
    """Return the locality at some times; all runs were looked at at the same ones."""
    times = [at_s for at_s, _ in runs[0]["locality"]]
    step = max(1, -(-len(times) // MOST_TIMES))
    return table(
        ("MEMORY AT HOME AFTER", *(run["name"].upper() for run in runs)),
        [
            (_time(times[i]), *(_percent(run["locality"][i][1]) for run in runs))
            for i in range(0, len(times), step)
        ],
    )
