"""What it costs that a worker runs while its pages move: a TLB shootdown for each, or for many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.bench.chunks import MIB, speed
from tests.bench.movers import Scenario, shoot_down
from tests.bench.table import Figure, Row
from tests.guest.machine import Machine
from tests.guest.shootdowns import CALL_BYTES

PAIRS = (("the others", "all", "it runs alone"), ("none", "it", "all run"))
"""Who is stopped in ours, and in theirs, in which the worker itself is stopped too."""


def shootdown_rows(guest: Machine, scenario: Scenario, rounds: int, where: str) -> Iterator[Row]:
    """Compare move_pages(2) by itself while the worker runs with the same while it is stopped."""
    case = f"{guest.topology.cpus} CPUs, {scenario.pages}: move_pages"
    yield from compared(shoot_down(guest, scenario, rounds), case, where)


def compared(moves: Sequence[Mapping[str, Any]], case: str, where: str) -> Iterator[Row]:
    """Return a row for each pair."""
    for running, stopped, what in PAIRS:
        ours = [move for move in moves if move["stopped"] == running]
        theirs = [move for move in moves if move["stopped"] == stopped]
        note = (
            f"ours: {_words(ours)}; theirs: the same with the worker stopped (SIGSTOP): "
            f"{_words(theirs)}; no target; who runs also takes CPU time"
        )
        figures = Figure.of(map(speed, ours)), Figure.of(map(speed, theirs))
        yield Row("moving", f"{case}, {what}", *figures, "MiB/s", note=note, where=where)


def _words(moves: Sequence[Mapping[str, Any]]) -> str:
    each = Figure.of(move["shootdowns"] * MIB / max(1, move["moved_bytes"]) for move in moves)
    longest_ms = 1e3 * max(move["longest_call_s"] for move in moves)
    call = f"longest call of {CALL_BYTES // MIB} MiB {longest_ms:.0f} ms"
    return f"{each} interrupts for TLB shootdowns a MiB, {call}"
