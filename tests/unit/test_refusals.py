"""What refuses is recognised after one bounded try, remembered by range, and tried seldom."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numad_py.act.mover import Mover
from numad_py.act.refusals import MOST_RANGES, Refusals
from numad_py.act.tally import Tally
from numad_py.act.walk import BARREN_CHUNKS
from numad_py.decide.remember import remember
from numad_py.decide.watch import FIRST_REFUSED_S, MOST_REFUSED_S, watch
from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.plan import DecisionState, MemoryMove, WorkerMemory
from numad_py.model.snapshot import WorkerId
from tests.fake_tree import PAGE
from tests.unit import seen
from tests.unit.fake_kernel import BASE, MIB, Bar, FakeKernel, MadeProcFs
from tests.unit.moving import chunked, decision, this_process

WORKER = WorkerId(1, 1)
spans = st.tuples(st.integers(0, 60), st.integers(1, 8)).map(lambda at: (at[0], at[0] + at[1]))


@given(st.lists(st.lists(spans, max_size=6), max_size=4), spans)
def test_open_parts_are_what_no_span_covers(
    added: list[list[tuple[int, int]]], asked: tuple[int, int]
) -> None:
    """In order, not empty, and none of them twice."""
    refusals = Refusals()
    for found in added:
        refusals.add(WORKER, found)
    parts = list(refusals.open_parts(WORKER, *asked))
    covered = {at for found in added for low, high in found for at in range(low, high)}
    open_ = [at for low, high in parts for at in range(low, high)]
    assert open_ == [at for at in range(*asked) if at not in covered]
    assert all(low < high for low, high in parts)


def test_others_are_not_meant_and_all_can_be_forgotten() -> None:
    """Ranges are a worker's own; what is remembered is bounded."""
    refusals = Refusals()
    refusals.add(WORKER, [(2 * i, 2 * i + 1) for i in range(MOST_RANGES + 10)])
    assert list(refusals.open_parts(WorkerId(2, 2), 0, 3)) == [(0, 3)]
    last = 2 * (MOST_RANGES + 9)
    assert list(refusals.open_parts(WORKER, last, last + 1)) == [(last, last + 1)]
    refusals.forget(WORKER)
    assert list(refusals.open_parts(WORKER, 0, 3)) == [(0, 3)]


class Pinned:
    """A worker whose one area is pinned, and another that is not."""

    SIZE = 64 * MIB
    CHUNK = 4 * MIB

    def __init__(self) -> None:
        """Fill both on node 1."""
        self.kernel = FakeKernel()
        self.kernel.area(BASE, self.SIZE)
        self.kernel.fill(BASE, self.SIZE, 1, bar=Bar.PINNED)
        self.kernel.area(BASE + 2 * self.SIZE, MIB)
        self.kernel.fill(BASE + 2 * self.SIZE, MIB, 1)
        self.refusals = Refusals()

    def move(self, *, retry: bool = False) -> Tally:
        """Bring what lies on node 1 to node 0."""
        moves = [MemoryMove(1, 0, self.kernel.bytes_on(1))]
        what = replace(decision(this_process(), moves), retry_refused=retry)
        tally = Tally()
        stop = threading.Event()
        mover = Mover(
            MadeProcFs(self.kernel), self.kernel, lambda _n, _p: 1 << 60, stop, self.refusals
        )
        mover.move(what, chunked(self.CHUNK), tally)
        return tally

    def tried(self) -> int:
        """Return how many pinned pages were ever handed in."""
        return sum(1 for folio in set(self.kernel.folios.values()) if folio.failures)


@pytest.fixture
def pinned() -> Pinned:
    """Make one."""
    return Pinned()


def test_a_pinned_area_is_given_up_after_a_few_chunks(pinned: Pinned) -> None:
    """What stands behind is not unmapped for nothing, and counts as refused, untried."""
    tally = pinned.move()
    assert tally.end is End.PARTIAL
    assert tally.moved == {(1, 0): MIB}
    assert tally.refused_bytes == {1: Pinned.SIZE}
    assert pinned.tried() <= BARREN_CHUNKS * Pinned.CHUNK // PAGE
    tried = BARREN_CHUNKS * Pinned.CHUNK // PAGE
    assert tally.pages[PageStatus.UNTRIED] == Pinned.SIZE // PAGE - tried


def test_what_refused_is_not_tried_again_unless_told_to(pinned: Pinned) -> None:
    """A later move for other memory leaves it alone; a retry takes all of it up."""
    pinned.move()
    calls = len(pinned.kernel.calls)
    pinned.move()
    assert len(pinned.kernel.calls) == calls
    for folio in pinned.kernel.folios.values():
        folio.bar = None
    assert pinned.move(retry=True).end is End.DONE
    assert pinned.kernel.bytes_on(1) == 0


def test_what_refused_is_taken_up_after_ever_longer_pauses() -> None:
    """Ten minutes after the first time, twice as long after each further one, up to a day."""
    worker, state, now_s = WorkerId(1, 1), DecisionState(), 1000.0
    what = decision(worker, [MemoryMove(1, 0, MIB)])
    pauses = []
    for _ in range(12):
        refused = Outcome(what, End.PARTIAL, now_s, 1.0, refused_bytes={1: MIB})
        state = remember(state, [refused], now_s)
        assert state.of(worker).refused == {1: MIB}
        since_s = now_s
        memory = state.of(worker)
        while not memory.retry_refused:
            now_s += FIRST_REFUSED_S / 2
            memory = watch(memory, seen.worker(), now_s)
        assert memory.refused == {}
        pauses.append(now_s - since_s)
        state = DecisionState({worker: memory})
    assert pauses[:3] == [FIRST_REFUSED_S, 2 * FIRST_REFUSED_S, 4 * FIRST_REFUSED_S]
    assert pauses[-1] == MOST_REFUSED_S


def test_what_has_moved_at_last_begins_anew() -> None:
    """A move without refusals ends the row: the next refusal is a first one."""
    worker = WorkerId(1, 1)
    what = decision(worker, [MemoryMove(1, 0, MIB)])
    state = DecisionState({worker: WorkerMemory(refusals=7, retry_refused=True)})
    done = Outcome(what, End.DONE, 1.0, 1.0, moved={(1, 0): MIB})
    memory = remember(state, [done], 2.0).of(worker)
    assert (memory.refusals, memory.refused_at_s, memory.retry_refused) == (0, None, False)
