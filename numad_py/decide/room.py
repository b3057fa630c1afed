"""How much room nodes have, and how much of it is promised already in this cycle."""

from __future__ import annotations

from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import PlacementPolicy


class Room:
    """A ledger of memory and CPUs by node, for one round of planning."""

    def __init__(self, snapshot: Snapshot, policy: PlacementPolicy) -> None:
        """Open it with what the nodes have."""
        self._bytes = {
            state.node: state.room_bytes(policy.headroom) for state in snapshot.node_states
        }
        self._cpus = {
            node.id: float(len(node.cpus - policy.reserved_cpus))
            for node in snapshot.topology.nodes
        }

    def bytes_on(self, node: int) -> int:
        """Return what may still come to a node."""
        return max(0, self._bytes.get(node, 0))

    def take_bytes(self, node: int, size: int) -> None:
        """Promise room to somebody."""
        self._bytes[node] = self._bytes.get(node, 0) - size

    def cpus_on(self, node: int) -> float:
        """Return CPUs not yet claimed; negative where more are claimed than there are."""
        return self._cpus.get(node, 0.0)

    def take_cpus(self, node: int, demand: float) -> None:
        """Claim CPUs for somebody."""
        self._cpus[node] = self._cpus.get(node, 0.0) - demand
