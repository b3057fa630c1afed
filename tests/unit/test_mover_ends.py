"""The mover against made memory: when it ends and how, its pace, and migrate_pages."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from dataclasses import replace

import pytest

from numad_py.act.tally import Tally
from numad_py.errors import NumadError
from numad_py.model.outcome import End, PageStatus
from numad_py.policy.schema import Method, MigrationPolicy
from tests.fake_tree import PAGE
from tests.unit.fake_kernel import BASE, MIB, THP, Bar, FakeKernel, Life
from tests.unit.moving import chunked, home, move

CHUNK = 2 * THP
SIZE = 8 * CHUNK
PLAN = {(1, 0): SIZE}
CHUNKED = chunked(CHUNK)


def many(kernel: FakeKernel) -> None:
    """Two areas of hugetlb pages, two of which make a chunk and one call."""
    for start in (BASE, BASE + SIZE):
        kernel.area(start, SIZE // 2, page_kib=2048)
        kernel.fill(start, SIZE // 2, 1, folio=THP)


def has_moved(kernel: FakeKernel, size: int) -> bool:
    """Say whether so much has changed its node."""
    return kernel.moved.total() >= size


def test_without_room_nothing_is_handed_in() -> None:
    """Room is asked for before each call: a full target is never pushed into."""
    kernel = FakeKernel()
    many(kernel)
    tally = move(kernel, PLAN, CHUNKED, room=lambda _node, _page_bytes: THP - 1)
    assert tally.end is End.NO_ROOM
    assert kernel.calls == []
    assert tally.pages == {PageStatus.NO_ROOM: 1}


def test_room_that_is_lost_on_the_way_ends_it() -> None:
    """Room is read anew for each chunk, and is that of the chunk's target."""
    kernel = FakeKernel()
    many(kernel)

    def room(node: int, _page_bytes: int) -> int:
        assert node == 0
        return 3 * CHUNK - kernel.bytes_on(0)

    tally = move(kernel, PLAN, CHUNKED, room=room)
    assert tally.end is End.NO_ROOM
    assert tally.moved == kernel.moved == {(1, 0): 3 * CHUNK}


def test_a_target_that_is_full_in_the_middle_of_a_call_is_no_room() -> None:
    """The call fails with ENOMEM; what it had moved by then is counted."""
    kernel = FakeKernel()
    many(kernel)
    kernel.free[0] = CHUNK + THP
    tally = move(kernel, PLAN, CHUNKED)
    assert tally.end is End.NO_ROOM
    assert tally.moved == kernel.moved == {(1, 0): CHUNK + THP}


@pytest.mark.parametrize("bar", [None, Bar.PINNED])
def test_stop_ends_it_within_a_chunk(bar: Bar | None) -> None:
    """No chunk is begun after it; the one under way takes one call more at most."""
    kernel, stop = FakeKernel(), threading.Event()
    many(kernel)
    if bar is not None:
        kernel.fill(BASE + 2 * CHUNK, THP, 1, folio=THP, bar=bar)
    before: list[int] = []

    def on_call(calls: int) -> None:
        if has_moved(kernel, 2 * CHUNK) and not stop.is_set():
            stop.set()
            before.append(calls)

    kernel.on_call = on_call
    tally = move(kernel, PLAN, CHUNKED, stop=stop)
    assert tally.end is End.STOPPED
    assert len(kernel.calls) - before[0] == (1 if bar is None else 2)
    assert not has_moved(kernel, 3 * CHUNK + 1)


@pytest.mark.parametrize("life", [Life.ZOMBIE, Life.REAPED])
@pytest.mark.parametrize("inside", [False, True], ids=["between two chunks", "inside of a call"])
def test_the_end_of_the_worker_ends_it(life: Life, inside: bool) -> None:  # noqa: FBT001
    """The outcome is gone, whichever step finds out, and what was moved before is told.

    Only the call in which it happens is made with its pid, which may be another's afterwards.
    """
    kernel = FakeKernel()
    many(kernel)

    def end(*, here: bool) -> None:
        if here and has_moved(kernel, 3 * CHUNK):
            kernel.life = life

    class Pausing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            end(here=not inside)
            return timeout is None

    kernel.on_call = lambda _calls: end(here=inside)
    paced = replace(CHUNKED, rate_bytes_per_s=1)
    tally = move(kernel, PLAN, paced, stop=Pausing())
    assert tally.end is End.GONE
    assert tally.moved == kernel.moved == {(1, 0): 3 * CHUNK}
    assert kernel.strays == inside


def test_a_worker_that_ends_before_it_is_looked_at_is_gone() -> None:
    """The empty numa_maps of a zombie is not a worker without memory."""
    kernel = FakeKernel()
    many(kernel)
    kernel.life = Life.ZOMBIE
    assert move(kernel, PLAN).end is End.GONE


def test_a_node_that_its_cpuset_forbids_by_now_is_named() -> None:
    """The call as a whole says EACCES; nothing is tried again, and what is in the way is told."""
    kernel = FakeKernel()
    many(kernel)

    def on_call(calls: int) -> None:
        if calls:
            raise PermissionError(errno.EACCES, "move_pages: Permission denied")

    kernel.on_call = on_call
    with pytest.raises(NumadError, match="no longer grants it memory on node 0"):
        move(kernel, PLAN, CHUNKED)
    assert kernel.moved == {(1, 0): CHUNK}


# The pace


@pytest.mark.parametrize(("call_s", "pause_s"), [(0.0, 0.25), (0.1, 0.15), (0.5, None)])
def test_a_rate_is_kept_by_pauses_after_each_chunk(
    call_s: float, pause_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk and its pause take what the rate grants; a chunk that took longer has no pause."""
    kernel, now, pauses = FakeKernel(), [100.0], []
    many(kernel)

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return False

    def on_call(_calls: int) -> None:
        now[0] += call_s

    kernel.on_call = on_call
    monkeypatch.setattr("numad_py.kernel.clock.monotonic_s", lambda: now[0])
    paced = replace(CHUNKED, rate_bytes_per_s=4 * CHUNK)
    move(kernel, PLAN, paced, stop=Waiting())
    assert pauses == [pytest.approx(pause_s)] * 8 if pause_s else pauses == []


# The other call


MIGRATING = MigrationPolicy(method=Method.MIGRATE_PAGES, migrate_pages_limit_bytes=SIZE)


def test_migrate_pages_is_for_workers_below_the_limit() -> None:
    """It can neither be paced nor stopped: a larger worker is moved in chunks all the same."""
    kernel = FakeKernel()
    many(kernel)
    tally = home(kernel, MIGRATING)
    assert kernel.migrations == [(1, 0)]
    assert kernel.calls == []
    assert_moved_all(kernel, tally)

    larger = FakeKernel()
    many(larger)
    larger.area(BASE + 4 * SIZE, PAGE)
    larger.fill(BASE + 4 * SIZE, PAGE, 0)
    tally = home(larger, MIGRATING)
    assert larger.migrations == []
    assert_moved_all(larger, tally)


def assert_moved_all(kernel: FakeKernel, tally: Tally) -> None:
    """All of it is home and told of."""
    assert kernel.bytes_on(1) == 0
    assert tally.moved == kernel.moved == PLAN
    assert tally.end is End.DONE


def test_what_migrate_pages_left_is_measured_and_told() -> None:
    """Its return value is no full account, so the source is looked at again."""
    kernel = FakeKernel()
    kernel.area(BASE, MIB)
    kernel.fill(BASE, MIB, 1)
    kernel.fill(BASE + 4 * PAGE, 4 * PAGE, 1, bar=Bar.PINNED)
    tally = home(kernel, MIGRATING)
    assert tally.moved == kernel.moved == {(1, 0): MIB - 4 * PAGE}
    assert tally.refused_bytes == {1: 4 * PAGE}
    assert tally.end is End.PARTIAL


@pytest.mark.parametrize(("stopped", "end"), [(True, End.STOPPED), (False, End.NO_ROOM)])
def test_migrate_pages_asks_for_room_and_for_stop_first(stopped: bool, end: End) -> None:  # noqa: FBT001
    """Once begun it cannot be broken off, so it is not begun."""
    kernel, stop = FakeKernel(), threading.Event()
    many(kernel)
    if stopped:
        stop.set()
    tally = move(kernel, PLAN, MIGRATING, room=lambda _node, _page_bytes: MIB, stop=stop)
    assert tally.end is end
    assert kernel.migrations == []


def test_migrate_pages_keeps_to_the_plan_of_two_targets() -> None:
    """It moves all that a node has: where the plan splits a source, it would overfill one."""
    kernel = FakeKernel()
    many(kernel)
    plan = {(1, 0): SIZE // 2, (1, 2): SIZE // 2}
    move(kernel, plan, MIGRATING)
    assert Counter(plan) == kernel.moved
