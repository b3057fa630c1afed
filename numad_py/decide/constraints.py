"""What bars a worker from nodes, before and in planning, and how that is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numad_py.decide.sizes import huge_by_size, huge_free, movable_by_node
from numad_py.decide.solver.problem import Item, Solution
from numad_py.model.cpulist import format_list
from numad_py.model.plan import Alternative, HomeSource, Limit, WorkerMemory
from numad_py.model.quantity import format_bytes
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy

SETTLED_SHARE = 0.95
"""A worker with this share of its memory on one node, and """
SETTLED_RUN_SHARE = 0.9
"""this share of its CPU time there, has settled there."""


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
    short = _short_of_huge_pages(worker, memory, snapshot) & allowed
    if short:
        why.append(f"too few free huge pages for it on node {format_list(short)}")
    earlier = _earlier(worker, memory, snapshot, policy)
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


def _earlier(
    worker: Worker, memory: WorkerMemory, snapshot: Snapshot, policy: PlacementPolicy
) -> frozenset[int] | None:
    """Return the home it was planned, in this daemon's life or, by its masks, in an earlier one.

    Else the node on which nearly all of it is: who has settled by itself is not moved on for less
    than who was placed.
    """
    if memory.home is not None and memory.home.source is HomeSource.PLANNER:
        return memory.home.nodes
    masks = [t.affinity for t in worker.threads if t.tid in worker.first_masks and t.affinity]
    held = movable_by_node(worker, memory.refused)
    if masks and memory.home is None:
        # Of a node of its home all of whose CPUs are reserved there are none in its masks.
        hidden = {
            n.id for n in snapshot.topology.nodes if n.has_cpu and n.cpus <= policy.reserved_cpus
        }
        bound = snapshot.topology.nodes_of(frozenset().union(*masks))
        return (bound | (hidden & held.keys())) or None
    node = max(held, key=lambda node: (held[node], -node), default=None)
    if node is None or held[node] < SETTLED_SHARE * sum(held.values()):
        return None
    if worker.run_share and worker.run_share.get(node, 0.0) < SETTLED_RUN_SHARE:
        return None
    return frozenset({node})


def _short_of_huge_pages(
    worker: Worker, memory: WorkerMemory, snapshot: Snapshot
) -> frozenset[int]:
    """Return the nodes that lack free huge pages for what is not there yet."""
    short = set()
    for page_bytes, by_node in huge_by_size(worker, memory.refused).items():
        for state in snapshot.node_states:
            coming = sum(by_node.values()) - by_node.get(state.node, 0)
            if coming > huge_free(state).get(page_bytes, 0):
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
    said = [*bars.why, *_narrow(item)]
    home = solution.homes[worker.label]
    if home is not None and len(home) > 1:
        said.append(_why_several(len(home), item, alternatives))
    if item.coming_bytes:
        said.append(f"it is still loading: room for {format_bytes(item.coming_bytes)} more is kept")
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


def _why_several(count: int, item: Item, alternatives: Sequence[Alternative]) -> str:
    """Return why it has so many nodes; only a home of earlier may have more than needed."""
    no_fewer = {Limit.MEMORY, Limit.ALLOWED}
    if any(len(a.home) < count and a.barred_by not in no_fewer for a in alternatives):
        return f"it keeps the {count} nodes that it has, though fewer would hold it"
    usable = item.usable_cpus
    if usable and item.needs_cpus > max(usable.get(node, 0.0) for node in item.allowed):
        return (
            f"it keeps up to {item.needs_cpus:.1f} CPUs busy, more than it could on one node: it "
            f"has the {count} closest that have as many, or all"
        )
    return (
        f"its {format_bytes(item.own_bytes)} fit no single node: it has the "
        f"{count} closest that hold it"
    )


def _narrow(item: Item) -> list[str]:
    """Return which nodes have too few CPUs for it, where others have enough."""
    enough = {n for n in item.allowed if item.usable_cpus.get(n, 0.0) >= item.needs_cpus}
    narrow = item.allowed - enough
    if not enough or not narrow or not item.usable_cpus:
        return []
    where, most = format_list(narrow), f"{item.needs_cpus:.1f}"
    return [f"too few CPUs that it may use on node {where} for the {most} that it keeps busy"]


_BARRED = {
    Limit.MEMORY: "has too little memory left beside the others",
    Limit.CPUS: "has too few CPUs left beside the others",
    Limit.APART: "holds another of its group (spread)",
    Limit.ORDER: "has no room on the way",
}
