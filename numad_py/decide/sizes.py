"""A worker's bytes by node, as placing counts them."""

from __future__ import annotations

from collections.abc import Mapping

from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Worker


def movable_by_node(worker: Worker, refused: Mapping[int, int]) -> dict[int, int]:
    """Return bytes by node that may be moved, less what refused to earlier."""
    if worker.residency is None:
        return {}
    movable = worker.residency.by_node(mobility=Mobility.MOVABLE)
    left = {node: max(0, size - refused.get(node, 0)) for node, size in movable.items()}
    return {node: size for node, size in left.items() if size}


def fixed_by_node(worker: Worker, refused: Mapping[int, int]) -> dict[int, int]:
    """Return bytes by node that stay where they are: shared, bound by the user, or refused."""
    if worker.residency is None:
        return {}
    movable = movable_by_node(worker, refused)
    resident = worker.residency.by_node()
    left = {node: size - movable.get(node, 0) for node, size in resident.items()}
    return {node: size for node, size in left.items() if size > 0}
