"""Kernels whose ordinary pages have 64 KiB (aarch64): these are no huge pages (hugetlb)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from numad_py.act.huge import HugePages
from numad_py.act.journal import Journal
from numad_py.act.mover import Mover
from numad_py.act.ranges import look
from numad_py.act.settings import Keeper
from numad_py.act.tally import Tally
from numad_py.decide.sizes import huge_by_size, ordinary_by_node
from numad_py.kernel import numa_maps
from numad_py.kernel.maps import parse_maps
from numad_py.kernel.settings import Settings
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End
from numad_py.model.plan import MemoryMove
from numad_py.model.residency import Kind
from numad_py.observe import estimate
from numad_py.observe.areas import Frame, candidates, frame_of
from numad_py.policy.schema import HugeTlb, Method, MigrationPolicy, Policy
from tests.fake_tree import FakeMachine, FakeNode
from tests.unit import seen
from tests.unit.fake_kernel import BASE, MIB, FakeKernel, MadeProcFs
from tests.unit.moving import decision, this_process

PAGE = 64 << 10
HUGE_AT = BASE + (1 << 30)
NUMA_MAPS = f"""\
{BASE:x} default anon=96 dirty=96 N0=32 N1=64 kernelpagesize_kB=64
{BASE + 96 * PAGE:x} default file=/srv/m.gguf mapped=10 N1=10 kernelpagesize_kB=64
{HUGE_AT:x} default file=/anon_hugepage\\040(deleted) huge anon=3 N1=3 kernelpagesize_kB=64
"""
MAPS = f"""\
{BASE:x}-{BASE + 96 * PAGE:x} rw-p 00000000 00:00 0
{BASE + 96 * PAGE:x}-{BASE + 106 * PAGE:x} r--p 00000000 08:01 7 /srv/m.gguf
{HUGE_AT:x}-{HUGE_AT + 3 * PAGE:x} rw-p 00000000 00:0f 9 /anon_hugepage (deleted)
"""


class LargePages(MadeProcFs):
    """Shows what the kernel has as ordinary memory in pages of 64 KiB."""

    def numa_maps(self, pid: int, between: Callable[[], None] | None = None) -> str:
        """Return the areas without the word that tells hugetlb."""
        return super().numa_maps(pid, between).replace(" huge", "")


def kernel() -> FakeKernel:
    """Return 64 MiB in such pages on node 1."""
    made = FakeKernel()
    made.area(BASE, 64 * MIB, page_kib=PAGE >> 10)
    made.fill(BASE, 64 * MIB, 1, folio=PAGE)
    return made


@pytest.mark.parametrize("hugetlb", HugeTlb)
@pytest.mark.parametrize("method", [Method.MOVE_PAGES, Method.MIGRATE_PAGES])
def test_ordinary_pages_of_64_kib_come_home(
    tmp_path: Path, hugetlb: HugeTlb, method: Method
) -> None:
    """They take the node's free memory: that no pool has pages of 64 KiB is no matter."""
    made, stop = kernel(), threading.Event()
    nodes = [FakeNode(0, [0], free_mib=900), FakeNode(1, [1])]
    sysfs = SysFs(FakeMachine(tmp_path, nodes).write().sysfs)
    settings = Settings("/proc", sysfs.root)
    keeper = Keeper(settings, Journal(tmp_path / "state", "boot"))
    migration = MigrationPolicy(
        method=method, hugetlb=hugetlb, rate_bytes_per_s=None, duty=1.0, longest_chunk_s=60.0
    )
    huge = HugePages(sysfs, settings, keeper, Policy(migration=migration), stop)
    tally = Tally()
    what = decision(this_process(), [MemoryMove(1, 0, 64 * MIB)])
    Mover(LargePages(made), made, huge.room, stop, huge=huge).move(what, migration, tally)
    assert (tally.end, tally.error) == (End.DONE, None)
    assert made.bytes_on(0) == 64 * MIB
    assert tally.moved == {(1, 0): 64 * MIB}


def test_the_word_tells_huge_pages_not_their_size() -> None:
    """Of two areas in pages of one size, the one that says so is of a pool."""

    class Shown(MadeProcFs):
        def numa_maps(self, _pid: int, _between: Callable[[], None] | None = None) -> str:
            return NUMA_MAPS

        def maps(self, _pid: int) -> str:
            return MAPS

    shown = look(1, frozenset({1}), Shown(FakeKernel()))
    found = {r.start: r for r in shown.ranges}
    assert {start: r.huge_bytes for start, r in found.items()} == {
        BASE: 0,
        BASE + 96 * PAGE: 0,
        HUGE_AT: PAGE,
    }
    assert not any(r.may_be_thp for r in found.values())
    assert found[BASE].remote == {1: 64 * PAGE}


def test_deciding_counts_them_as_ordinary_memory() -> None:
    """By kind."""
    vmas, odd = numa_maps.parse(NUMA_MAPS)
    residency = numa_maps.residency(vmas, odd, read_at_s=1.0, cost_s=0.0)
    worker = seen.worker("x/0", residency)
    assert huge_by_size(worker, {}) == {PAGE: {1: 3 * PAGE}}
    assert ordinary_by_node(worker, {}) == {0: 32 * PAGE, 1: 74 * PAGE}


def test_an_area_that_nobody_has_read_has_pages_of_this_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So what a reading says of ordinary areas is no news, and need not be remembered."""
    monkeypatch.setattr(estimate, "PAGE_BYTES", PAGE)
    mapped, (vmas, _) = parse_maps(MAPS), numa_maps.parse(NUMA_MAPS)
    frame = frame_of(vmas, mapped)
    assert [(known.start, known.page_bytes) for known in frame.areas] == [(HUGE_AT, PAGE)]
    unread = [area for _, area in candidates(mapped, Frame())]
    assert [(area.kind, area.page_bytes) for area in unread] == [
        (Kind.ANON, PAGE),
        (Kind.FILE, PAGE),
        (Kind.HUGETLB, 4096),
    ]
