"""A simulated week of a crowded machine: our rule beside one like numad's, on the same trace."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.table import Figure, Row
from tests.simulated.run import Came, Runs, longest_wait_s
from tests.simulated.weeks import Weeks

CYCLES = 10_000
CROWD = 256
GIB = 1 << 30


def rows() -> Iterator[Row]:
    """Go through the week once, and tell what became of memory, moves and waiting."""
    weeks = Weeks(cycles=CYCLES, crowd=CROWD)
    runs = Runs(weeks)
    for _ in runs:
        pass
    ours, theirs, untouched = runs.came()
    days = CYCLES * weeks.interval_s / 86400
    case = f"{CYCLES:,} cycles, {CROWD} workers"
    note = (
        f"theirs: a greedy rule after numad's manual; {days:.1f} days on 8 nodes, "
        f"{ours.figures.workers:,} workers in all, memory {min(weeks.full[10:]):.0%} to "
        f"{max(weeks.full):.0%} full"
    )
    moved = (ours.moved_per_gained(untouched), theirs.moved_per_gained(untouched))
    yield _row(f"{case}: moved per byte gained", *moved, "B/B", note).at_most(1.0)
    near = (_near(ours), _near(theirs))
    yield _row(f"{case}: near its threads", *near, "%", f"nothing done: {_near(untouched):.1f} %")
    local = (100 * (ours.figures.locality_mean or 0), 100 * (theirs.figures.locality_mean or 0))
    yield _row(f"{case}: at home", *local, "%", "mean over time, by bytes")
    bytes_moved = (ours.figures.moved_bytes / GIB, theirs.figures.moved_bytes / GIB)
    yield _row(
        f"{case}: moved",
        *bytes_moved,
        "GiB",
        f"{ours.figures.moves:,} moves and theirs "
        f"{theirs.figures.moves:,}; of one worker {ours.figures.moves_most} and "
        f"{theirs.figures.moves_most} at most",
    )
    returned = (ours.figures.ping_pongs, theirs.figures.ping_pongs)
    yield _row(f"{case}: came back in 10 min", *returned, "", "").below(0)
    broken = (len(ours.watch.promised_too_much), len(theirs.watch.promised_too_much))
    yield _row(f"{case}: headroom broken", *broken, "", "nodes and cycles").below(0)
    pins = (len(ours.watch.pins_overwritten), len(theirs.watch.pins_overwritten))
    yield _row(f"{case}: pins overwritten", *pins, "", "workers").below(0)
    waited = (_longest_s(ours), _longest_s(theirs))
    note = f"remote without a break while there was room at home: {ours.watch.longest}"
    yield _row(f"{case}: longest wait", *waited, "s", note).below(longest_wait_s(weeks))
    spent = (_cycle_ms(ours), _cycle_ms(theirs))
    note = f"CPU, deciding and simulating; ours {1e3 * ours.watch.slowest_s:.0f} ms at most"
    yield _row(f"{case}: a cycle", *spent, "ms", note)


def _row(case: str, ours: float | None, theirs: float | None, unit: str, note: str) -> Row:
    figures = [None if value is None else Figure.of([value]) for value in (ours, theirs)]
    return Row("weeks", case, figures[0], figures[1], unit, note=note)


def _near(came: Came) -> float:
    return 100 * (came.figures.near_mean or 0.0)


def _longest_s(came: Came) -> float:
    return came.watch.longest.for_s if came.watch.longest is not None else 0.0


def _cycle_ms(came: Came) -> float:
    return 1e3 * came.watch.busy_s / came.watch.cycles
