"""How much room nodes have, and how much of it is promised already in this cycle."""

from __future__ import annotations

from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import PlacementPolicy


class Room:
    """A ledger of memory by node, for the moves of one cycle."""

    def __init__(self, snapshot: Snapshot, policy: PlacementPolicy) -> None:
        """Open it with what the nodes have."""
        self._bytes = {
            state.node: state.room_bytes(policy.headroom) for state in snapshot.node_states
        }

    def bytes_on(self, node: int) -> int:
        """Return what may still come to a node."""
        return max(0, self._bytes.get(node, 0))

    def take_bytes(self, node: int, size: int) -> None:
        """Promise room to somebody."""
        self._bytes[node] = self._bytes.get(node, 0) - size
