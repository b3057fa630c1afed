"""A long move and what its worker's user does meanwhile; and pages that come home by themselves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from numad_py.act.lookout import AGAIN_S, MOST_SHARE
from numad_py.act.mover import Mover
from numad_py.act.refusals import Refusals
from numad_py.act.tally import Tally
from numad_py.act.walk import ASKED_BYTES, SAMPLED
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import MemoryMove
from tests.fake_tree import PAGE
from tests.unit.fake_kernel import BASE, MIB, THP, Area, Bar, FakeKernel, MadeProcFs
from tests.unit.moving import chunked, decision, this_process

SIZE = 32 * MIB
SECOND = BASE + 4 * SIZE
CHUNK = 4 * MIB
CALLS = 2 * SIZE // CHUNK


class Long:
    """A move of two areas in chunks of which each takes half of the time between two looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the memory, and the time."""
        self.kernel = FakeKernel()
        for start in (BASE, SECOND):
            self.kernel.area(start, SIZE, page_kib=4)
            self.kernel.fill(start, SIZE, 1)
        self.now_s = 1000.0
        self.look_s = 0.0
        self.call_s: Callable[[], float] = lambda: AGAIN_S / 2
        self.looks: list[float] = []
        self.at_call: dict[int, Callable[[], object]] = {}
        monkeypatch.setattr("numad_py.kernel.clock.monotonic_s", lambda: self.now_s)

    def move(self, planned_bytes: int = 2 * SIZE, refusals: Refusals | None = None) -> Tally:
        """Bring all of it to node 0."""
        long, tally = self, Tally()

        class Shown(MadeProcFs):
            def numa_maps(self, pid: int, between: Callable[[], None] | None = None) -> str:
                long.looks.append(long.now_s)
                long.now_s += long.look_s
                return super().numa_maps(pid, between)

        def on_call(calls: int) -> None:
            self.at_call.get(calls, lambda: None)()
            self.now_s += self.call_s()

        self.kernel.on_call = on_call
        what = decision(this_process(), [MemoryMove(1, 0, planned_bytes)])
        stop = threading.Event()
        known = refusals or Refusals()
        mover = Mover(Shown(self.kernel), self.kernel, lambda _n, _p: 1 << 60, stop, known)
        mover.move(what, chunked(CHUNK), tally)
        return tally

    def bind(self, number: int, policy: str = "bind:1") -> None:
        """Bind an area, as mbind does."""
        self.kernel.areas[number] = replace(self.kernel.areas[number], policy=policy)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Long:
    """Return one."""
    return Long(monkeypatch)


@pytest.mark.parametrize("number", [0, 1], ids=["under way", "waits"])
def test_memory_that_its_user_binds_meanwhile_ends_the_move(long: Long, number: int) -> None:
    """At the next look, and it is said why; what was moved before is told."""
    if number == 0:
        long.kernel.areas.pop()
    long.at_call[2] = lambda: long.bind(number)
    tally = long.move()
    assert tally.end is End.PLACED
    assert tally.error is not None
    assert "was bound since the move began (bind:1" in tally.error
    assert len(long.kernel.calls) <= 2 + 3
    assert tally.moved == long.kernel.moved


def test_the_lesser_part_that_is_bound_meanwhile_is_left_out(long: Long) -> None:
    """A library that binds a buffer has not placed the worker: the rest goes home."""
    long.at_call[2] = lambda: long.bind(0)
    tally = long.move()
    assert (tally.end, tally.moved) == (End.DONE, long.kernel.moved)
    nodes = {a: folio.node for a, folio in long.kernel.folios.items()}
    assert {node for a, node in nodes.items() if a >= SECOND} == {0}
    assert sum(node == 1 for a, node in nodes.items() if a < SECOND) > SIZE // PAGE // 2


def test_memory_that_was_bound_before_or_is_none_of_the_moves_ends_nothing(long: Long) -> None:
    """A library may map and bind areas of its own at any time."""
    long.kernel.areas.append(Area(BASE + 16 * SIZE, BASE + 17 * SIZE, policy="bind:1"))
    long.at_call[2] = lambda: long.kernel.areas.append(
        Area(BASE + 20 * SIZE, BASE + 21 * SIZE, policy="interleave:0-1")
    )
    tally = long.move()
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): 2 * SIZE})


@pytest.fixture
def cpus() -> Iterator[tuple[int, int]]:
    """Run on the first of two CPUs alone."""
    before = sorted(os.sched_getaffinity(0))
    if len(before) < 2:
        pytest.skip("needs two CPUs")
    os.sched_setaffinity(0, {before[0]})
    yield before[0], before[1]
    os.sched_setaffinity(0, before)


def test_threads_that_its_user_pins_elsewhere_meanwhile_end_the_move(
    long: Long, cpus: tuple[int, int]
) -> None:
    """Memory would go where nobody is: at the next look that is seen, and said."""
    long.at_call[2] = lambda: os.sched_setaffinity(0, {cpus[1]})
    tally = long.move()
    assert tally.end is End.PLACED
    assert tally.error is not None
    assert f"pinned elsewhere since the move began (CPUs {cpus[1]})" in tally.error
    assert len(long.kernel.calls) <= 2 + 3


def test_threads_that_get_more_cpus_end_nothing(long: Long, cpus: tuple[int, int]) -> None:
    """They may still run where they could."""
    long.at_call[2] = lambda: os.sched_setaffinity(0, cpus)
    assert long.move().end is End.DONE


def test_areas_that_are_new_are_moved_and_those_that_went_are_not_tried(long: Long) -> None:
    """The plan is as old as the move: what is there now counts."""

    def change() -> None:
        gone = long.kernel.areas.pop(1)
        for address in range(gone.start, gone.end, PAGE):
            del long.kernel.folios[address]
        long.kernel.area(BASE + 8 * SIZE, MIB)
        long.kernel.fill(BASE + 8 * SIZE, MIB, 1)

    long.at_call[2] = change
    tally = long.move()
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): SIZE + MIB})
    assert tally.moved == long.kernel.moved
    assert PageStatus.ABSENT not in tally.pages


def test_a_worker_that_goes_on_making_areas_does_not_keep_the_move_going(long: Long) -> None:
    """When as much has moved as was planned, what is new since is another decision's."""
    for number in range(4, 200):
        start = BASE + 16 * SIZE * number

        def make(start: int = start) -> None:
            long.kernel.area(start, CHUNK)
            long.kernel.fill(start, CHUNK, 1)

        long.at_call[number] = make
    tally = long.move()
    assert tally.end is End.DONE
    assert 2 * SIZE < tally.moved_bytes <= 3 * 2 * SIZE
    assert long.kernel.bytes_on(1) > 0
    assert not any(folio.node for a, folio in long.kernel.folios.items() if a < SECOND + SIZE)


def test_an_area_is_gone_on_with_where_it_was_left(long: Long) -> None:
    """No page is handed in twice, nor asked for: by the last look the rest is on one node."""
    tally = long.move()
    assert len(long.looks) > 2
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): 2 * SIZE})
    assert max(long.kernel.tries().values()) == 1
    # A chunk is tried by the heads of its blocks first, and then asked for once.
    assert long.kernel.queried <= 2 * SIZE // PAGE + CALLS * SAMPLED


def test_what_refused_is_neither_tried_anew_nor_taken_for_the_rest(long: Long) -> None:
    """After a look at its area; and what is at home of the rest is not handed in."""
    long.kernel.fill(BASE, 3 * PAGE, 1, bar=Bar.PINNED)
    long.at_call[1] = lambda: long.kernel.fill(BASE + SIZE - 3 * PAGE, 3 * PAGE, 0)
    tally = long.move()
    assert len(long.looks) > 2
    assert tally.refused_bytes == {1: 3 * PAGE}
    assert tally.moved == long.kernel.moved
    assert max(long.kernel.tries().values()) <= 2


def test_what_is_known_to_refuse_is_not_taken_for_moved_at_the_next_look(long: Long) -> None:
    """What a look finds remote may lie there, so that the rest is asked for page by page."""
    refusals = Refusals()
    refusals.add(this_process(), [(BASE, BASE + 2 * PAGE)])
    long.kernel.areas.pop()
    long.at_call[0] = lambda: long.kernel.fill(BASE + SIZE - 3 * PAGE, 2 * PAGE, 0)
    tally = long.move(refusals=refusals)
    assert len(long.looks) > 2
    assert tally.moved == long.kernel.moved


def test_an_area_that_was_given_up_is_not_taken_up_at_the_next_look(long: Long) -> None:
    """Each of its pages was tried twice at most: not again because it was looked at again."""
    long.kernel.fill(BASE, SIZE, 1, bar=Bar.PINNED)
    long.kernel.fill(BASE, PAGE, 1)
    long.call_s = lambda: AGAIN_S if long.kernel.moved.total() > PAGE else 0.0
    tally = long.move()
    assert len(long.looks) > 2
    assert tally.moved == long.kernel.moved == {(1, 0): SIZE + PAGE}
    assert max(long.kernel.tries().values()) <= 2
    assert sum(tally.refused_bytes.values()) == SIZE - PAGE


def test_areas_are_looked_at_the_less_the_longer_that_takes(long: Long) -> None:
    """It takes a twentieth of the time at most: numa_maps of 100 GiB takes seconds."""
    long.look_s = 2.0
    long.move()
    pauses = [after - before for before, after in pairwise(long.looks)]
    assert pauses
    assert all(pause >= long.look_s / MOST_SHARE for pause in pauses)


@pytest.mark.parametrize(("every", "first"), [(2, 0), (2, 1), (4, 0), (4, 3)])
def test_pages_that_came_home_by_themselves_are_not_counted_as_moved(
    long: Long, every: int, first: int
) -> None:
    """The kernel's own balancing works meanwhile: a few of each chunk are asked for first.

    Whichever they are: threads that share memory page by page bring home stripes.
    """
    long.kernel.areas.pop()
    long.call_s = lambda: 0.0

    def come_home() -> None:
        for number in range(2 * CHUNK // PAGE + first, SIZE // PAGE, every):
            long.kernel.folios[BASE + number * PAGE].node = 0

    long.at_call[0] = come_home
    tally = long.move()
    assert tally.end is End.DONE
    assert tally.moved == long.kernel.moved


# Areas of which little is resident


def test_an_area_with_little_in_it_is_looked_through_in_large_steps(long: Long) -> None:
    """Each address once, and many at once: else a TiB takes a minute of CPU time."""
    kernel = FakeKernel()
    kernel.area(BASE, 4 * ASKED_BYTES)
    for i in (0, 5000, 5001, 60000):
        kernel.fill(BASE + i * PAGE, PAGE, 1)
    long.kernel = kernel
    tally = long.move(4 * PAGE)
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): 4 * PAGE})
    assert kernel.queries == 4
    assert kernel.queried == 4 * ASKED_BYTES // PAGE


def test_much_in_one_place_of_such_an_area_is_moved_in_chunks(long: Long) -> None:
    """No more at once than the policy grants."""
    kernel = FakeKernel()
    kernel.area(BASE, 1024 * MIB)
    kernel.fill(BASE + 640 * MIB, 3 * MIB, 1)
    long.kernel = kernel
    stop, tally = threading.Event(), Tally()
    what = decision(this_process(), [MemoryMove(1, 0, 3 * MIB)])
    Mover(MadeProcFs(kernel), kernel, lambda _n, _p: 1 << 60, stop).move(what, chunked(THP), tally)
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): 3 * MIB})
    assert max(len(call.addresses) for call in kernel.calls) <= THP // PAGE
    assert kernel.queried <= (1024 * MIB + 2 * ASKED_BYTES) // PAGE
