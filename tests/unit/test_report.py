"""What is counted since the daemon started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.plan import Decision, Plan, Reason, Verdict
from numad_py.model.residency import Source
from numad_py.model.snapshot import WorkerId
from numad_py.serve.report import Took, Totals
from tests.unit.fake_kernel import MIB
from tests.unit.moving import decision

ACT = decision(WorkerId(10, 5))
REST = replace(ACT, label="x/1", verdict=Verdict.REST, reason=Reason.HOME)


def outcome(
    end: End, moved: dict[tuple[int, int], int], pages: dict[PageStatus, int], *, threads: int
) -> Outcome:
    """Return one that took two seconds."""
    return Outcome(ACT, end, 100.0, 2.0, threads_bound=threads, moved=moved, pages=pages)


def with_cycle(
    totals: Totals,
    decisions: list[Decision],
    *outcomes: Outcome,
    readings: Mapping[Source, int] = MappingProxyType({}),
) -> Totals:
    """Return the totals after a cycle of half a second, and so many readings of 10 ms by then."""
    return totals.add(
        plan=Plan(1, tuple(decisions)),
        outcomes=outcomes,
        took=Took(0.5, 0.25),
        readings=readings,
        reading_s={source: 0.01 * count for source, count in readings.items()},
    )


def test_cycles_add_up() -> None:
    """Each cycle adds one, and its own time."""
    totals = with_cycle(with_cycle(Totals(), []), [])
    assert (totals.cycles, totals.cycle_s, totals.cycle_cpu_s) == (2, 1.0, 0.5)


def test_readings_are_those_of_the_last_cycle_by_source() -> None:
    """Whoever reads counts from the start itself: they are taken over, not added up."""
    first = with_cycle(Totals(), [], readings={Source.SAMPLE: 2})
    totals = with_cycle(first, [], readings={Source.SAMPLE: 3, Source.NUMA_MAPS: 1})
    assert totals.readings == {Source.SAMPLE: 3, Source.NUMA_MAPS: 1}
    assert totals.reading_s == {Source.SAMPLE: 0.03, Source.NUMA_MAPS: 0.01}


def test_readings_that_were_handed_out_do_not_change() -> None:
    """The reader goes on counting in its own; another thread may be reading these."""
    counts = {Source.SAMPLE: 2}
    totals = with_cycle(Totals(), [], readings=counts)
    counts[Source.SAMPLE] += 1
    assert totals.readings == {Source.SAMPLE: 2}


def test_decisions_are_counted_by_verdict_and_reason() -> None:
    """Each in each cycle, those that stand as well."""
    totals = with_cycle(with_cycle(Totals(), [ACT, REST]), [REST, REST])
    assert totals.decisions == {("act", "remote-memory"): 1, ("rest", "home"): 3}


def test_moved_bytes_are_counted_by_source_and_target() -> None:
    """Pairs add up over outcomes and cycles; the way back is another pair."""
    one = outcome(End.DONE, {(1, 0): 5 * MIB, (2, 0): MIB}, {}, threads=0)
    two = outcome(End.DONE, {(1, 0): MIB, (0, 1): 7 * MIB}, {}, threads=0)
    totals = with_cycle(with_cycle(Totals(), [], one, two), [], one)
    assert totals.moved_bytes == {(1, 0): 11 * MIB, (2, 0): 2 * MIB, (0, 1): 7 * MIB}


def test_outcomes_are_counted_by_end_with_their_pages_threads_and_time() -> None:
    """Statuses are kept apart, and their names are label values."""
    done = outcome(End.DONE, {}, {PageStatus.MOVED: 10}, threads=4)
    partial = outcome(End.PARTIAL, {}, {PageStatus.MOVED: 5, PageStatus.SHARED: 2}, threads=1)
    totals = with_cycle(with_cycle(Totals(), [], done, done), [], partial)
    assert totals.moves == {"done": 2, "partial": 1}
    assert totals.pages == {"moved": 25, "shared": 2}
    assert (totals.threads_bound, totals.move_s) == (9, 6.0)


def test_totals_that_were_handed_out_do_not_change() -> None:
    """Another thread may be reading them; rejected reloads are carried along."""
    first = with_cycle(
        Totals(reload_failures=2), [ACT], outcome(End.DONE, {(1, 0): 1}, {}, threads=1)
    )
    kept = replace(first)
    second = with_cycle(first, [ACT], outcome(End.GONE, {(1, 0): 1}, {}, threads=1))
    assert first == kept
    assert first.moved_bytes == {(1, 0): 1}
    assert second.reload_failures == 2
