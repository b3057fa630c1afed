"""A worker's bytes by node, as placing counts them."""

from __future__ import annotations

from collections.abc import Mapping

from numad_py.model.machine import NodeState
from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility
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


def huge_by_size(worker: Worker, refused: Mapping[int, int]) -> dict[int, dict[int, int]]:
    """Return the bytes of movable_by_node that are hugetlb, by size of page and node.

    They are of the pools of huge pages and take no part in a node's free memory
    (Documentation/admin-guide/mm/hugetlbpage.rst). What refused is taken off the others first.
    """
    if worker.residency is None or not worker.residency.by_node(kind=Kind.HUGETLB):
        return {}
    left = movable_by_node(worker, refused)
    found: dict[int, dict[int, int]] = {}
    for entry in worker.residency.entries:
        if entry.kind is not Kind.HUGETLB or entry.mobility is not Mobility.MOVABLE:
            continue
        part = min(entry.resident_bytes, left.get(entry.node, 0))
        if part:
            left[entry.node] -= part
            by_node = found.setdefault(entry.page_bytes, {})
            by_node[entry.node] = by_node.get(entry.node, 0) + part
    return found


def huge_free(state: NodeState) -> dict[int, int]:
    """Return the bytes free in a node's pools of huge pages, by size of page.

    Under BASE_PAGE_BYTES stands the sum of all: before a full reading a worker's huge pages are of
    a size that is not known.
    """
    free = {pool.page_bytes: pool.free * pool.page_bytes for pool in state.huge_pages}
    return {BASE_PAGE_BYTES: sum(free.values()), **free}


def ordinary_by_node(worker: Worker, refused: Mapping[int, int]) -> dict[int, int]:
    """Return the bytes of movable_by_node that take room in a node's free memory."""
    movable = movable_by_node(worker, refused)
    for by_node in huge_by_size(worker, refused).values():
        for node, size in by_node.items():
            movable[node] -= size
    return {node: size for node, size in movable.items() if size}
