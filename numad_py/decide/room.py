"""How much room nodes have, and how much of it is promised already in this cycle."""

from __future__ import annotations

from numad_py.decide.sizes import huge_free
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import PlacementPolicy


class Room:
    """A ledger of memory by node, for the moves of one cycle.

    A node's memory and each of its pools of huge pages are books of their own: pages of a pool are
    not free memory. What the policy has made for a move is counted in by ``with_made_pages``.
    """

    def __init__(self, snapshot: Snapshot, policy: PlacementPolicy) -> None:
        """Open it with what the nodes have."""
        self._bytes: dict[tuple[int, int | None], int] = {}
        for state in snapshot.node_states:
            self._bytes[state.node, None] = state.room_bytes(policy.headroom)
            for huge_bytes, free in huge_free(state).items():
                self._bytes[state.node, huge_bytes] = free

    def bytes_on(self, node: int, huge_bytes: int | None = None) -> int:
        """Return what may still come to a node, in huge pages of a size or in ordinary ones."""
        return max(0, self._bytes.get((node, huge_bytes), 0))

    def take_bytes(self, node: int, size: int, huge_bytes: int | None = None) -> None:
        """Promise room to somebody."""
        self._bytes[node, huge_bytes] = self._bytes.get((node, huge_bytes), 0) - size
