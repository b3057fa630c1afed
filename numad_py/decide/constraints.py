"""What bars a worker from nodes, before and in planning, and how that is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numad_py.decide.problem import Item, Solution
from numad_py.model.cpulist import format_list
from numad_py.model.plan import Alternative, HomeSource, Limit, WorkerMemory
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy


@dataclass(frozen=True)
class Bars:
    """Which nodes may be part of a worker's home, and why others may not."""

    allowed: frozenset[int]
    earlier: frozenset[int] | None
    """The home that it has already, from planning."""
    why: tuple[str, ...]


def bars_of(
    worker: Worker, memory: WorkerMemory, snapshot: Snapshot, policy: PlacementPolicy
) -> Bars:
    """Return the nodes of a worker that nobody has placed."""
    topology = snapshot.topology
    why: list[str] = []
    whole = frozenset(node.id for node in topology.nodes if node.has_cpu and node.has_memory)
    lacking = frozenset(topology.node_ids) - whole
    if lacking:
        why.append(f"no CPUs or no memory on node {format_list(lacking)}")
    allowed, mems = whole, worker.memory.mems_allowed
    if mems is not None and not allowed <= mems:
        allowed &= mems
        why.append(f"its cpuset grants memory on node {format_list(mems)} only")
    short = _short_of_huge_pages(worker, snapshot) & allowed
    if short:
        allowed -= short
        why.append(f"too few free huge pages for it on node {format_list(short)}")
    earlier = _earlier(worker, memory, snapshot)
    left = {
        node
        for node, at_s in memory.left_at_s.items()
        if snapshot.at_s - at_s < policy.no_way_back_s and node not in (earlier or ())
    }
    back = allowed & left
    if back and allowed - back:
        allowed -= back
        why.append(
            f"it was moved away from node {format_list(back)} within the last "
            f"{policy.no_way_back_s:.0f} s (no_way_back)"
        )
    return Bars(allowed, earlier, tuple(why))


def _earlier(worker: Worker, memory: WorkerMemory, snapshot: Snapshot) -> frozenset[int] | None:
    """Return the home it was planned, in this daemon's life or, by its masks, in an earlier one."""
    if memory.home is not None:
        return memory.home.nodes if memory.home.source is HomeSource.PLANNER else None
    masks = [t.affinity for t in worker.threads if t.tid in worker.first_masks and t.affinity]
    return snapshot.topology.nodes_of(frozenset().union(*masks)) or None if masks else None


def _short_of_huge_pages(worker: Worker, snapshot: Snapshot) -> frozenset[int]:
    """Return the nodes that lack free huge pages for what is not there yet."""
    if worker.residency is None:
        return frozenset()
    held: dict[int, dict[int, int]] = {}
    for entry in worker.residency.entries:
        if entry.kind is Kind.HUGETLB and entry.mobility is Mobility.MOVABLE:
            held.setdefault(entry.page_bytes, {})[entry.node] = entry.resident_bytes
    short = set()
    for state in snapshot.node_states if held else ():
        free = {pool.page_bytes: pool.free * pool.page_bytes for pool in state.huge_pages}
        for page_bytes, by_node in held.items():
            coming = sum(by_node.values()) - by_node.get(state.node, 0)
            if coming > free.get(page_bytes, 0):
                short.add(state.node)
    return frozenset(short)


def constraints_of(
    worker: Worker,
    item: Item,
    bars: Bars,
    alternatives: Sequence[Alternative],
    solution: Solution,
) -> tuple[str, ...]:
    """Return what shaped the choice of a worker's home, in words."""
    said = list(bars.why)
    home = solution.homes[worker.label]
    if home is not None and len(home) > 1:
        said.append(
            f"its {format_bytes(item.size_bytes)} fit no single node: it has the "
            f"{len(home)} closest that hold it"
        )
    stuck = solution.stuck.get(worker.label)
    if stuck is not None:
        said.append(
            f"node {format_list(stuck)} would be better, but no order of moves finds room for it"
        )
    said += [
        f"node {format_list(alternative.home)} would be {format_bytes(-alternative.dearer)} "
        f"cheaper, but {_BARRED[alternative.barred_by]}"
        for alternative in alternatives
        if alternative.dearer < 0 and alternative.barred_by in _BARRED
    ]
    return tuple(said)


_BARRED = {
    Limit.MEMORY: "has too little memory left beside the others",
    Limit.CPUS: "has too few CPUs left beside the others",
    Limit.APART: "holds another of its group (spread)",
    Limit.ORDER: "has no room on the way",
}
