"""How much room nodes have, and how much of it is promised already in this cycle."""

from __future__ import annotations

from copy import copy

from numad_py.model.residency import BASE_PAGE_BYTES
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import PlacementPolicy


class Room:
    """A ledger of memory by node, for the moves of one cycle.

    A node's memory and each of its pools of huge pages are books of their own: pages of a pool are
    not free memory. Where pages are made for a move, what a pool has too little of comes out of the
    node's memory, which is promised once, whatever is made of it.
    """

    def __init__(
        self, snapshot: Snapshot, policy: PlacementPolicy, *, makes_pages: bool = False
    ) -> None:
        """Open it with what the nodes have.

        Args:
            snapshot: of the nodes.
            policy: with the headroom that is kept.
            makes_pages: whether huge pages are made for a move (``hugetlb = "reserve"``).
        """
        self.makes_pages = makes_pages
        self._ordinary: dict[int, int] = {}
        self._free: dict[int, dict[int, int]] = {}
        """Bytes free in pools by node and size of page, smallest pages first."""
        for state in snapshot.node_states:
            self._ordinary[state.node] = state.room_bytes(policy.headroom)
            self._free[state.node] = {
                pool.page_bytes: pool.free * pool.page_bytes
                for pool in sorted(state.huge_pages, key=lambda pool: pool.page_bytes)
            }

    def copy(self) -> Room:
        """Return one to try things on."""
        copied = copy(self)
        copied._ordinary = dict(self._ordinary)  # noqa: SLF001 - one of this class
        copied._free = {node: dict(pools) for node, pools in self._free.items()}  # noqa: SLF001
        return copied

    def bytes_on(self, node: int, huge_bytes: int | None = None) -> int:
        """Return what may still come to a node, in huge pages of a size or in ordinary ones.

        Those of BASE_PAGE_BYTES are of a size that is not known yet: any of its pools would do.
        """
        ordinary = max(0, self._ordinary.get(node, 0))
        if huge_bytes is None:
            return ordinary
        pools = self._pools(node, huge_bytes)
        free = sum(max(0, size) for size in pools.values())
        if self.makes_pages and pools:
            free += ordinary // huge_bytes * huge_bytes
        return free

    def take_bytes(self, node: int, size: int, huge_bytes: int | None = None) -> None:
        """Promise room to somebody; of huge pages the free ones go first, as in a move."""
        if huge_bytes is not None:
            for page_bytes, free in self._pools(node, huge_bytes).items():
                part = min(size, max(0, free))
                self._free[node][page_bytes] -= part
                size -= part
            if not self.makes_pages:
                return
        self._ordinary[node] = self._ordinary.get(node, 0) - size

    def _pools(self, node: int, huge_bytes: int) -> dict[int, int]:
        pools = self._free.get(node, {})
        if huge_bytes == BASE_PAGE_BYTES:
            return pools
        return {huge_bytes: pools[huge_bytes]} if huge_bytes in pools else {}
