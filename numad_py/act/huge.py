"""Huge pages (hugetlb) for a move: how many a target takes, and having them there in time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from numad_py.act.journal import Growth
from numad_py.act.pools import growth_for
from numad_py.act.ranges import Range
from numad_py.act.room import room_bytes
from numad_py.act.settings import Keeper
from numad_py.errors import NumadError
from numad_py.kernel.settings import Settings
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import Decision
from numad_py.policy.schema import HugeTlb, Policy


@dataclass
class HugePages:
    """Knows the pools of one machine, and what the policy wants done with them."""

    sysfs: SysFs
    settings: Settings
    keeper: Keeper
    policy: Policy
    stop: threading.Event

    def room(self, node: int, huge_bytes: int) -> int:
        """Return what a node can still take now, in huge pages of a size; 0: in ordinary ones."""
        reserve = self.policy.migration.hugetlb is HugeTlb.RESERVE
        made = self.settings.largest_block_bytes() if reserve else 0
        headroom = self.policy.placement.headroom
        return room_bytes(self.sysfs.node_state(node), huge_bytes, headroom, made_bytes=made)

    @contextlib.contextmanager
    def ready(
        self, decision: Decision, ranges: Sequence[Range]
    ) -> Iterator[dict[tuple[int, int], int]]:
        """Have the huge pages on the targets that a move needs, as far as there is room for them.

        Those that the kernel makes by itself are left to it. What was added to a pool is taken off
        again at the end, however it ends. Yields how many were free before, by target and size.
        """
        self.keeper.take_up()
        free = self._free(decision, ranges)
        added: list[str] = []
        try:
            if self.policy.migration.hugetlb is HugeTlb.RESERVE:
                for growth in self._growths(decision, ranges):
                    if self.stop.is_set():
                        break
                    added.append(growth.name)
                    self._grow(growth)
            yield free
        finally:
            for name in added:
                self.keeper.end_growth(name)

    def why_full(self, full: Collection[tuple[int, int]], free: dict[tuple[int, int], int]) -> str:
        """Say of which targets the huge pages did not do, and how to have more.

        Args:
            full: targets without room, with the size of huge page that they have none for.
            free: how many were free there when the move began.
        """
        told = [
            self._why_full(node, size, free.get((node, size), 0))
            for node, size in sorted(full)
            if size
        ]
        return "; ".join(told)

    def _free(self, decision: Decision, ranges: Sequence[Range]) -> dict[tuple[int, int], int]:
        """Return how many huge pages are free now, by target and size, of the sizes that come."""
        sizes = {found.huge_bytes for found in ranges if found.huge_bytes}
        return {
            (node, size): pool.free
            for node in {move.target for move in decision.moves}
            for size in sizes
            if (pool := self.settings.pool(node, size)) is not None
        }

    def _growths(self, decision: Decision, ranges: Sequence[Range]) -> Iterator[Growth]:
        """Yield what pools are to grow by, of the pages that the kernel makes none of."""
        targets = list(dict.fromkeys(move.target for move in decision.moves))
        made = self.settings.largest_block_bytes()
        for size in sorted({found.huge_bytes for found in ranges if found.huge_bytes > made}):
            # The first target that has room for them: what is too much for it stays.
            for target in targets:
                growth = growth_for(ranges, size, target, self.settings, self.room(target, 0))
                if growth is not None:
                    yield growth
                    break

    def _grow(self, growth: Growth) -> None:
        try:
            self.keeper.grow(growth, self.stop.is_set)
        except NumadError as error:
            self.keeper.failed(growth.name, error)
        else:
            self.keeper.solved(growth.name)

    def _why_full(self, node: int, size: int, free: int) -> str:
        pool = self.settings.pool(node, size)
        one = free == 1
        said = (
            f"node {node} had {free or 'no'} free huge page{'' if one else 's'} of {size >> 10} kB "
            f"for it; to have more: echo NUMBER > {self.settings.pool_file(node, size)} "
            f"(now {pool.total if pool is not None else 0})"
        )
        if self.policy.migration.hugetlb is HugeTlb.FREE:
            return f'{said}, or [migration] hugetlb = "reserve"'
        name = Growth(size, node, 0).name
        problem = self.keeper.told().problems.get(name)
        return f"{said}; {problem}" if problem else said
