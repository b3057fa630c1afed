"""Processes that cannot be read, and looks that are broken off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from numad_py.errors import Interrupted, Malformed, NumadError, RightsError, Vanished
from numad_py.observe.discovery import (
    SLOW_S,
)
from tests.unit.crowd import (
    BOOT_S,
    SERVER,
    Crowd,
    Looks,
    Proc,
    labels,
    old_crowd,
)


@pytest.mark.parametrize("error", [RightsError("no"), Malformed("odd"), Vanished("gone")])
@pytest.mark.parametrize("cmdline", [SERVER, "sh"])
def test_a_process_that_cannot_be_read_raises_nothing(error: NumadError, cmdline: str) -> None:
    """Neither before it was judged nor after; it is judged again, and a worker when it can be."""
    looks = Looks(old_crowd(3))
    looks.crowd.add(5, Proc(cmdline, odd=error))
    gone = isinstance(error, Vanished)
    assert looks.look().unmatched == 3 + (not gone)
    looks.crowd.procs[5].odd = None
    looks.forks += 1
    looks.crowd.procs[5].inode = next(looks.crowd.inodes)
    assert len(looks.look().workers) == (cmdline == SERVER)
    looks.crowd.procs[5].odd = error
    for _ in range(int(SLOW_S) + 1):
        census = looks.look()
    assert (census.workers, census.unmatched) == ((), 3 + (not gone))


def test_one_that_could_not_be_read_is_asked_again_by_and_by() -> None:
    """At growing pauses as a young process is, not in every look."""
    looks = Looks(old_crowd(1))
    looks.look()
    process = looks.start(5, Proc(SERVER, odd=RightsError("no")))
    for _ in range(20):
        looks.look()
    assert 3 <= looks.crowd.reads[5, "exe"] <= 8
    process.odd = None
    while not looks.look().workers:
        assert looks.now_s < BOOT_S + 60


def interrupt_after(calls: int) -> Callable[[], None]:
    """Return something that says stop when it is called for the so-manieth time."""
    left = [calls]

    def between() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    return between


@pytest.mark.parametrize("calls", range(12))
def test_a_look_that_is_broken_off_loses_nobody(calls: int) -> None:
    """Whenever it ends, the next look tells of all, with figures of its own."""
    looks = Looks(Crowd())
    for pid in range(1, 5):
        looks.crowd.add(pid, Proc(SERVER if pid % 2 else "sh"))
    with pytest.raises(Interrupted) if calls < 4 else contextlib.nullcontext():
        looks.discovery.look(looks.now_s, looks.forks, interrupt_after(calls))
    looks.start(9, Proc(SERVER))
    for pid in (2, 4):
        looks.crowd.procs[pid].exec(SERVER)
    looks.now_s += SLOW_S + 1
    with contextlib.suppress(Interrupted):
        looks.discovery.look(looks.now_s, looks.forks, interrupt_after(calls))
    for process in looks.crowd.procs.values():
        process.resident_kib = 16
    looks.now_s += 0.01
    census = looks.discovery.look(looks.now_s, looks.forks)
    assert labels(census).keys() == {1, 2, 3, 4, 9}
    assert len({found.label for found in census.workers}) == 5
    assert {found.stat.resident_bytes for found in census.workers} == {16 * 1024}
