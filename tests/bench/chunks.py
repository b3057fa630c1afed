"""The speed of numad-py's mover against migrate_pages, and what the size of chunks does to it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tomli

from numad_py.policy.keys import TABLES
from tests.bench import movers
from tests.bench.movers import Busy, Scenario, alternate
from tests.bench.plot import Line
from tests.bench.table import Figure, Row
from tests.guest.machine import Machine

MIB = 1 << 20
IDLE = Busy("idle", 2, 3_600_000)
_KEYS = TABLES["migration"][1]
FULL_SPEED: dict[str, Any] = {
    _KEYS[name].field: _KEYS[name].parse(value)
    for name, value in tomli.loads(movers.FULL_SPEED).items()
}
"""As fields of MigrationPolicy."""
UNPACED = {name: FULL_SPEED[name] for name in ("rate_bytes_per_s", "duty", "cpu_pressure")}
"""Whatever the size of chunks."""
RAW_TARGETS = {"never": 1.0, "always": 0.9}
"""Of migrate_pages' speed, with 4 KiB pages and with huge ones."""
CHUNKS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DUTIES = (1.0, 0.5, 0.25)
GOOD_SHARE = 0.9
"""A chunk is long enough where this share of the best speed is reached."""


@dataclass(frozen=True)
class Point:
    """What one way of moving came to."""

    longest_chunk_s: float
    duty: float
    mib_per_s: Figure
    stall: float
    """The longest pass by the quiet p99."""
    p99_stall: float
    chunk_s: float
    """The longest chunk that there was."""


def raw_row(guest: Machine, scenario: Scenario, rounds: int, where: str) -> Row:
    """Compare speeds on a worker that does nothing meanwhile."""
    idle = replace(scenario, busy=IDLE, quiet_s=0.5)
    found = alternate(guest, [None, FULL_SPEED], idle, rounds)
    theirs = Figure.of(speed(move) for move in found if move["way"] is None)
    our_moves = [move for move in found if move["way"] is not None]
    ours = Figure.of(speed(move) for move in our_moves)
    kernel = Figure.of(speed(move, "move_pages_s") for move in our_moves)
    note = (
        f"one idle worker of {scenario.sizes[0]}, unpaced, to and fro in turn; theirs: "
        "migrate_pages(2), which is all that migratepages does; no program is started; within "
        f"move_pages(2) itself ours is at {kernel.median:.0f} MiB/s"
    )
    row = Row(
        "moving", f"{scenario.pages}: raw speed", ours, theirs, "MiB/s", note=note, where=where
    )
    target = RAW_TARGETS[scenario.thp]
    met = row.ratio is not None and row.ratio >= target
    return replace(row, target=f"ratio >= {target:g}", met=met)


def speed(move: Mapping[str, Any], spent: str = "seconds") -> float:
    """Return MiB a second, of the time by this name."""
    return float(move["moved_bytes"]) / MIB / float(move[spent])


def sweep(
    guest: Machine, scenario: Scenario, rounds: int, chunks_s: Sequence[float] = CHUNKS_S
) -> list[Point]:
    """Move a worker that works, by chunks of different lengths, then with different duties."""
    ways: list[Mapping[str, float | None]] = [
        {**UNPACED, "longest_chunk_s": chunk_s, "duty": 1.0} for chunk_s in chunks_s
    ]
    ways += [{**UNPACED, "longest_chunk_s": 0.05, "duty": duty} for duty in DUTIES[1:]]
    return points(alternate(guest, ways, scenario, rounds))


def points(moves: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return a point for each way, in the order in which they were tried."""
    by_way: dict[tuple[float, float], list[Mapping[str, Any]]] = {}
    for move in moves:
        way = move["way"]
        by_way.setdefault((way["longest_chunk_s"], way["duty"]), []).append(move)
    quiet_ms = statistics.median(move["quiet"]["p99"] for move in moves if move["quiet"])
    made = []
    for (chunk_s, duty), of_way in by_way.items():
        passes = [move["moving"] for move in of_way if move["moving"]]
        made.append(
            Point(
                chunk_s,
                duty,
                Figure.of(speed(move) for move in of_way),
                max((found["worst"] for found in passes), default=0.0) / quiet_ms,
                max((found["p99"] for found in passes), default=0.0) / quiet_ms,
                max(move["longest_chunk_s"] for move in of_way),
            )
        )
    return made


def advised(found: Sequence[Point]) -> float:
    """Return the shortest chunk that is fast enough: stalls and stops only get longer with it."""
    full = [point for point in found if point.duty == 1.0]
    best = max(point.mib_per_s.median for point in full)
    return min(p.longest_chunk_s for p in full if p.mib_per_s.median >= GOOD_SHARE * best)


def chunk_rows(found: Sequence[Point], scenario: Scenario, where: str) -> Iterator[Row]:
    """Tell of each way, and which chunk follows from them."""
    note = (
        "longest pass {stall:.1f} times the quiet p99, p99 {p99:.1f} times; longest chunk "
        "{chunk:.0f} ms"
    )
    for point in found:
        case = f"longest_chunk {1e3 * point.longest_chunk_s:g} ms, duty {point.duty:.0%}"
        told = note.format(stall=point.stall, p99=point.p99_stall, chunk=1e3 * point.chunk_s)
        yield Row("moving", case, point.mib_per_s, unit="MiB/s", note=told, where=where)
    chunk = Figure.of([1e3 * advised(found)])
    told = (
        f"the shortest that reaches {GOOD_SHARE:.0%} of the best speed; worker of "
        f"{scenario.sizes[0]}, {scenario.busy.title}"
    )
    yield Row("moving", "longest_chunk that follows", chunk, unit="ms", note=told, where=where)


def lines(found: Sequence[Point]) -> list[Line]:
    """Return speed and stall over the length of chunks, to be drawn."""
    full = [point for point in found if point.duty == 1.0]
    chunks_ms = [1e3 * point.longest_chunk_s for point in full]
    return [
        Line("speed, MiB/s", list(zip(chunks_ms, [p.mib_per_s.median for p in full], strict=True))),
        Line(
            "longest pass, by quiet p99", list(zip(chunks_ms, [p.stall for p in full], strict=True))
        ),
    ]
