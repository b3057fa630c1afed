"""Taking a move back: as many bytes as it had brought, and every mask as its user gave it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from numad_py.act.mover import Mover
from numad_py.act.tally import Tally
from numad_py.model.outcome import End
from numad_py.model.plan import MemoryMove
from numad_py.policy.schema import Method
from tests.fake_tree import PAGE
from tests.unit.fake_kernel import BASE, MIB, THP, FakeKernel, MadeProcFs
from tests.unit.moving import UNPACED, decision, this_process
from tests.unit.test_actuator import SIZE, Bench, bench

__all__ = ["bench"]


def taken_back(kernel: FakeKernel, size: int, method: Method = Method.MOVE_PAGES) -> Tally:
    """Bring so many bytes back from node 0 to node 1."""
    what = decision(this_process(), [MemoryMove(0, 1, size)])
    tally = Tally()
    mover = Mover(MadeProcFs(kernel), kernel, lambda _node, _page: 1 << 60, threading.Event())
    mover.move(replace(what, give_back=True), replace(UNPACED, method=method), tally)
    return tally


@pytest.mark.parametrize("folio", [PAGE, THP])
@pytest.mark.parametrize("method", Method)
def test_no_more_goes_back_than_had_come(folio: int, method: Method) -> None:
    """What was at home before the move stays there, also where migrate_pages would take it all."""
    kernel = FakeKernel()
    kernel.area(BASE, 64 * MIB)
    kernel.fill(BASE, 64 * MIB, 0, folio=folio)
    tally = taken_back(kernel, 20 * MIB, method)
    assert tally.end is End.DONE
    assert tally.moved == {(0, 1): 20 * MIB}
    assert (kernel.bytes_on(0), kernel.bytes_on(1)) == (44 * MIB, 20 * MIB)


def test_it_ends_with_the_huge_page_that_reaches_the_bytes() -> None:
    """No huge page is cut in two for it."""
    kernel = FakeKernel()
    kernel.area(BASE, 64 * MIB)
    kernel.fill(BASE, 64 * MIB, 0, folio=THP)
    taken_back(kernel, 3 * MIB)
    assert kernel.bytes_on(1) == 4 * MIB


def test_all_of_several_areas_goes_back() -> None:
    """As a move that brought everything is taken back."""
    kernel = FakeKernel()
    for i in range(5):
        kernel.area(BASE + 16 * MIB * i, 8 * MIB)
        kernel.fill(BASE + 16 * MIB * i, 8 * MIB, 0, folio=THP)
    assert taken_back(kernel, 40 * MIB).moved == {(0, 1): 40 * MIB}
    assert kernel.bytes_on(0) == 0


def test_masks_go_back_with_the_memory(bench: Bench) -> None:
    """Every thread has its user's mask again before memory moves, and the journal forgets them."""
    before = bench.masks()
    cpu = min(os.sched_getaffinity(0))
    if before == {frozenset({cpu})}:
        pytest.skip("one CPU")
    bench.actuator.submit(bench.decision(bind_cpus=frozenset({cpu})))
    bench.outcomes(1)
    assert bench.masks() == {frozenset({cpu})}
    seen: list[object] = []
    bench.kernel.on_call = lambda _calls: seen.append(bench.masks())
    bench.kernel.fill(BASE, SIZE, 1, folio=THP)
    undo = replace(bench.decision(number=2), give_back=True)
    bench.actuator.submit(undo)
    (outcome,) = bench.outcomes(1)
    assert (outcome.end, outcome.threads_given_back, outcome.threads_bound) == (End.DONE, 4, 0)
    assert seen[0] == bench.masks() == before
    assert bench.journal.entries() == ()


def test_masks_alone_can_go_back(bench: Bench) -> None:
    """A decision without moves calls nothing that moves memory."""
    cpu = min(os.sched_getaffinity(0))
    bind = replace(bench.decision(bind_cpus=frozenset({cpu})), moves=())
    bench.actuator.submit(bind)
    bench.outcomes(1)
    bench.actuator.submit(replace(bind, bind_cpus=None, give_back=True))
    (outcome,) = bench.outcomes(1)
    assert outcome.end is End.DONE
    assert bench.kernel.calls == []
    assert bench.journal.entries() == ()


def test_in_a_pause_no_mask_goes_back(bench: Bench) -> None:
    """It ends as stopped, and is decided again."""
    cpu = min(os.sched_getaffinity(0))
    bench.actuator.submit(replace(bench.decision(bind_cpus=frozenset({cpu})), moves=()))
    bench.outcomes(1)
    bench.actuator.pause()
    bench.actuator.submit(replace(bench.decision(number=2), give_back=True))
    (outcome,) = bench.outcomes(1)
    assert (outcome.end, outcome.threads_given_back, outcome.moved_bytes) == (End.STOPPED, 0, 0)
    assert bench.masks() == {frozenset({cpu})}


def test_without_a_mask_of_ours_only_memory_goes_back(bench: Bench) -> None:
    """A worker whose affinity was left alone has nothing in the journal."""
    bench.actuator.submit(replace(bench.decision(), give_back=True))
    (outcome,) = bench.outcomes(1)
    assert (outcome.end, outcome.threads_given_back) == (End.DONE, 0)
    assert outcome.moved == {(1, 0): SIZE}


def test_memory_of_several_nodes_goes_back_to_each() -> None:
    """Each source has its own bytes to give back."""
    kernel = FakeKernel()
    kernel.area(BASE, 32 * MIB)
    kernel.fill(BASE, 16 * MIB, 0, folio=THP)
    kernel.fill(BASE + 16 * MIB, 16 * MIB, 2, folio=THP)
    moves = [MemoryMove(0, 1, 4 * MIB), MemoryMove(2, 1, 16 * MIB)]
    what = replace(decision(this_process(), moves), give_back=True)
    tally = Tally()
    Mover(MadeProcFs(kernel), kernel, lambda _n, _p: 1 << 60, threading.Event()).move(
        what, UNPACED, tally
    )
    assert tally.moved[2, 1] == 16 * MIB
    assert 4 * MIB <= tally.moved[0, 1] <= 16 * MIB
