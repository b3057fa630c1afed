"""What moving costs the workers and how long it takes, against targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.bench.movers import (
    AUTONUMA,
    CONTENDERS,
    MIGRATEPAGES,
    NOTHING,
    NUMAD,
    PACED,
    UNPACED,
    Contender,
    Run,
)
from tests.bench.table import Figure, Row

INTERVAL_S = 5.0
"""Of a cycle: so long a daemon may not look."""
RAW_FACTOR = 1.3
STALL = 3.0
OF_MIGRATEPAGES = {"bookworm": 1 / 50, "trixie": 1 / 3}
"""Linux 6.1 holds mmap_lock for a whole migrate_pages(2), 6.12 does not (mm/mempolicy.c)."""
OF_AUTONUMA = 1 / 2
OF_NUMAD = 1 / 5

Runs = Mapping[Contender, Run]


@dataclass(frozen=True)
class Setting:
    """Where and in which scenario it was measured."""

    release: str
    case: str
    where: str

    def row(self, what: str, ours: float, theirs: float | None, unit: str, note: str) -> Row:
        """Return a row of one figure each."""
        other = None if theirs is None else Figure.of([theirs])
        case = f"{self.case}: {what}"
        return Row("moving", case, Figure.of([ours]), other, unit, note=note, where=self.where)


def rows(setting: Setting, runs: Runs) -> Iterator[Row]:
    """Compare what there is: first how long it took, then how long workers waited."""
    yield from times(setting, runs)
    yield from waits(setting, runs)
    yield from costs(setting, runs)
    yield from work(setting, runs)


def times(setting: Setting, runs: Runs) -> Iterator[Row]:
    """How long it took until all was local. Whoever did not end counts as long as it was given.

    Where that is too short to tell, whether a target was met stays open.
    """
    ours = runs[UNPACED]
    note = f"ours: unpaced; theirs: {{}}: {{}}; ours: {ours.words()}"
    for contender, limit in ((MIGRATEPAGES, None), (AUTONUMA, 1.0), (NUMAD, OF_NUMAD)):
        theirs = runs.get(contender)
        if theirs is None:
            continue
        told = note.format(contender.title, theirs.words())
        figures = (ours.at_least_s, theirs.at_least_s)
        row = setting.row(f"time, {contender.title}", *figures, "s", told)
        if limit is not None:
            row = row.at_most(limit)
            if theirs.seconds is None and not row.met:
                row = replace(row, met=None)
            yield _if_ended(row, ours)
        else:
            most_s = RAW_FACTOR * theirs.at_least_s + INTERVAL_S
            yield _if_ended(row.below(round(most_s, 1)), ours)


def _if_ended(row: Row, ours: Run) -> Row:
    """Count a target as missed where our own move did not end: who moves nothing stalls nobody."""
    return row if ours.seconds is not None else replace(row, met=False)


def waits(setting: Setting, runs: Runs) -> Iterator[Row]:
    """How long a pass took at worst while memory moved."""
    ours, nothing = runs[PACED], runs.get(NOTHING)
    note = f"longest pass by the worker's own quiet p99; ours: paced: {ours.words()}"
    if nothing is not None:
        note += f"; theirs: nothing moves: {nothing.words()}"
    baseline = None if nothing is None else nothing.stall
    row = setting.row("worst pass by quiet p99", ours.stall, baseline, "times", note).below(STALL)
    yield _if_ended(row, ours)
    limits = ((MIGRATEPAGES, OF_MIGRATEPAGES.get(setting.release)), (AUTONUMA, OF_AUTONUMA))
    for contender, limit in (*limits, (NUMAD, None)):
        theirs = runs.get(contender)
        if theirs is None:
            continue
        told = f"ours: paced; theirs: {contender.title}: {theirs.words()}"
        figures = (ours.worst_ms, theirs.worst_ms)
        row = setting.row(f"worst pass, {contender.title}", *figures, "ms", told)
        yield row if limit is None else _if_ended(row.at_most(limit), ours)
    unpaced = runs[UNPACED]
    told = f"ours: paced; theirs: unpaced: {unpaced.words()}"
    figures = (ours.worst_ms, unpaced.worst_ms)
    yield setting.row("worst pass, paced by unpaced", *figures, "ms", told)


def costs(setting: Setting, runs: Runs) -> Iterator[Row]:
    """How much CPU time it took, wherever it was spent."""
    ours = runs[PACED]
    parts = [
        f"{contender.title} {run.own_cpu_s:.1f} {run.others_cpu_s:+.1f} "
        f"{run.workers_kernel_cpu_s:+.1f}"
        for contender in CONTENDERS
        if (run := runs.get(contender)) is not None
    ]
    note = (
        "CPU time of the processes, of others in the machine beyond the quiet rate, and of the "
        f"workers in the kernel beyond what their passes take: {'; '.join(parts)}; ours: paced; "
        "theirs: migratepages, the processes"
    )
    theirs_s = runs[MIGRATEPAGES].own_cpu_s if MIGRATEPAGES in runs else None
    yield setting.row("CPU", ours.own_cpu_s, theirs_s, "s", note)


def work(setting: Setting, runs: Runs) -> Iterator[Row]:
    """How much the workers got done meanwhile: a time alone does not tell what they lost."""
    ours, theirs = runs[UNPACED], runs.get(MIGRATEPAGES)
    told = "; ".join(f"{each.title} {runs[each].work:.0%}" for each in CONTENDERS if each in runs)
    note = (
        f"passes a second by those of the quiet window: {told}; ours: unpaced; theirs: migratepages"
    )
    figures = 100 * ours.work, None if theirs is None else 100 * theirs.work
    yield setting.row("work meanwhile", *figures, "%", note)
