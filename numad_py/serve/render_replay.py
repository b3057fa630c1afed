"""What replaying came to, as text for people: runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numad_py.model.outcome import End
from numad_py.model.plan import Verdict
from numad_py.model.quantity import format_bytes
from numad_py.serve.plain import counted
from numad_py.serve.render import table
from numad_py.serve.render_head import percent

Entry = Mapping[str, Any]

MOST_TIMES = 10
"""Rows of the locality over time, about: the last cycle has one in any case."""
COLUMNS = {
    "recorded": "what happened when it was recorded",
    "untouched": "nothing is done: memory and threads stay as they were",
    "policy": "as this policy acts",
    "new": "as the policy of --config acts",
}
"""What each run is, by its name."""


def render_replay(document: Entry) -> str:
    """Return a replay document as text."""
    runs: Sequence[Entry] = document["runs"]
    head = ("", *(run["name"].upper() for run in runs))
    rows = [(title, *(cell(run) for run in runs)) for title, cell in _ROWS]
    parts = [
        _first_line(document),
        "\n".join(f"{n.upper()}: {COLUMNS[n]}" for n in (r["name"] for r in runs) if n in COLUMNS),
        table(head, rows),
        _counts(head, runs, _said_of, "DECISIONS"),
        _counts(head, runs, _ended_of, "CARRIED OUT"),
        _over_time(runs),
    ]
    return "\n\n".join(part for part in parts if part)


def _first_line(document: Entry) -> str:
    run = document["runs"][0]
    text = f"{document['kind']} {document['file']}: {counted(run['cycles'], 'cycle')}"
    text += f" over {_time(run['duration_s'])}, {counted(run['workers'], 'worker')}"
    if document["torn"]:
        text += "\nit was broken off while it was written; its last cycle is left out"
    return text


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"


_ROWS: tuple[tuple[str, Callable[[Entry], str]], ...] = (
    ("memory at home, mean", lambda run: percent(run["locality_mean"])),
    ("memory at home, at the end", lambda run: percent(run["locality_end"])),
    ("accesses near, mean", lambda run: percent(run["near_mean"])),
    ("accesses near, at the end", lambda run: percent(run["near_end"])),
    ("99 % at home after", lambda run: _time(run["local_after_s"])),
    ("moved", lambda run: format_bytes(run["moved_bytes"])),
    ("moves", lambda run: str(run["moves"])),
    ("moves of one worker, at most", lambda run: str(run["moves_most"])),
    ("moves back and forth", lambda run: str(run["ping_pongs"])),
    ("plans beyond a node's room", lambda run: str(run["headroom_broken"])),
)


def _said_of(run: Entry) -> Mapping[str, int]:
    """Return how often what was decided; where nothing is done, to act is what would be done."""
    if run["name"] != "untouched":
        return run["decisions"]  # type: ignore[no-any-return]
    act = f"{Verdict.ACT.value} "
    return {
        f"would {name}" if name.startswith(act) else name: count
        for name, count in run["decisions"].items()
    }


def _ended_of(run: Entry) -> Mapping[str, int]:
    """Return how often what ended how; what was only said was not carried out."""
    return {name: n for name, n in run["ends"].items() if name != End.SIMULATED.value}


def _counts(
    head: Sequence[str],
    runs: Sequence[Entry],
    counts_of: Callable[[Entry], Mapping[str, int]],
    title: str,
) -> str:
    counts = [counts_of(run) for run in runs]
    return table(
        (title, *head[1:]),
        [
            (name, *(str(one.get(name, "-")) for one in counts))
            for name in sorted({name for one in counts for name in one})
        ],
    )


def _over_time(runs: Sequence[Entry]) -> str:
    """Return the locality at some times, the last among them; all runs have the same ones."""
    times = [at_s for at_s, _ in runs[0]["locality"]]
    step = max(1, -(-len(times) // MOST_TIMES))
    return table(
        ("MEMORY AT HOME AFTER", *(run["name"].upper() for run in runs)),
        [
            (_time(times[i]), *(percent(run["locality"][i][1]) for run in runs))
            for i in sorted({*range(0, len(times), step), len(times) - 1})
        ],
    )
