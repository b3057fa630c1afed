"""Pools of huge pages that follow the kernel's rules, for moves over made memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from numad_py.kernel.settings import PoolCounts, Settings
from numad_py.kernel.sysfs import SysFs
from numad_py.model.machine import HugePages as Pool
from numad_py.model.machine import NodeState
from tests.unit.fake_kernel import THP

HUGE = THP
"""Pages of this size stand for those that the kernel makes none of."""
HOME, AWAY = 0, 1


@dataclass
class FakePool:
    """One node's pool as the kernel has it (``set_max_huge_pages``, mm/hugetlb.c)."""

    used: int = 0
    free: int = 0
    surplus: int = 0
    most: int = 1 << 30
    """Pages that the node's memory has room for."""


class FakePools(Settings):
    """Settings of a machine whose pools follow the kernel's rules."""

    def __init__(self, **pools: FakePool) -> None:
        """Take the pools of node0, node1 and so on."""
        super().__init__("/proc")
        self.pools = {int(name[4:]): pool for name, pool in pools.items()}
        self.largest = 4096
        self.keeps = False
        """Whether it takes a lower number, and keeps its pages all the same."""
        self.asked: list[tuple[int, int]] = []
        self.before_set: Callable[[], None] = lambda: None
        self.before_look: Callable[[], None] = lambda: None

    def largest_block_bytes(self) -> int:
        """Return the largest page that the kernel makes by itself."""
        return self.largest

    def pool(self, node: int, page_bytes: int) -> PoolCounts | None:
        """Return a node's pool; there is one size."""
        self.before_look()
        pool = self.pools.get(node)
        if pool is None or page_bytes != HUGE:
            return None
        return PoolCounts(pool.used + pool.free, pool.free, pool.surplus)

    def set_pool(self, node: int, page_bytes: int, pages: int) -> None:
        """Set how many persistent pages it has: free ones come and go, used ones become surplus."""
        self.before_set()
        self.asked.append((node, pages))
        pool, now = self.pools[node], self.pool(node, page_bytes)
        assert now is not None
        more = pages - now.persistent
        if more >= 0:
            taken = min(more, pool.surplus)
            pool.surplus -= taken
            pool.free += min(more - taken, pool.most - pool.used - pool.free)
        elif not self.keeps:
            freed = min(-more, pool.free)
            pool.free -= freed
            pool.surplus += -more - freed

    def move(self, pages: int, source: int = AWAY, target: int = HOME) -> None:
        """Move a worker's pages: they take free ones, and leave free ones behind."""
        here, there = self.pools[source], self.pools[target]
        assert there.free >= pages
        here.used, here.free = here.used - pages, here.free + pages
        there.used, there.free = there.used + pages, there.free - pages

    @property
    def persistent(self) -> int:
        """Pages of all pools together."""
        pools = (self.pool(node, HUGE) for node in self.pools)
        return sum(pool.persistent for pool in pools if pool is not None)


class FollowingSysFs(SysFs):
    """A sysfs whose free huge pages are those of the made pools."""

    def __init__(self, root: Path, pools: FakePools) -> None:
        """Take the rest from files."""
        super().__init__(root)
        self._pools = pools

    def node_state(self, node: int, before: NodeState | None = None) -> NodeState:
        """Return a node with its pool."""
        counts = self._pools.pool(node, HUGE)
        assert counts is not None
        pool = Pool(HUGE, counts.total, counts.free)
        return replace(super().node_state(node, before), huge_pages=(pool,))
