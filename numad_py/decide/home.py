"""Where a worker belongs, as far as rule, pin, cpuset and devices say; else the planner decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Home, HomeSource
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Worker
from numad_py.model.topology import ACCELERATORS, Node, PciDevice, Topology, device_noun
from numad_py.policy.schema import Rule

MEMPOLICY_SHARE = 0.5
"""A worker with more than this share of its bytes under a mempolicy was placed by its user."""
FREE_SHARE = 0.1
"""Where the threads that may run anywhere had less than this share of its CPU time, it is pinned by
the masks of the others: an OpenMP team beside threads that wait."""
_MOST_NAMED = 2
"""Further devices are counted."""


@dataclass(frozen=True)
class Given:
    """What is said of a worker's home before planning.

    At most one of ``home`` and ``obstacle`` is set; neither: the planner is free to choose.
    """

    home: Home | None = None
    obstacle: str | None = None
    """Why it can have no home."""


def user_mask(worker: Worker, topology: Topology) -> frozenset[int]:
    """Return the CPUs that its threads may use as far as numad-py did not narrow them.

    A cpuset that has been narrowed since holds all the same.
    """
    masks = [
        worker.first_masks.get(t.tid, t.affinity) for t in worker.threads if t.affinity is not None
    ]
    granted = worker.cpuset_cpus or topology.cpus
    return frozenset().union(*(mask for mask in masks if mask)) & granted & topology.cpus


def bound_by_user(worker: Worker) -> bool:
    """Say whether its user bound its memory (numactl --membind, mbind)."""
    if worker.residency is None:
        return False
    under = worker.residency.total_bytes(mobility=Mobility.POLICY)
    return under > MEMPOLICY_SHARE * worker.residency.total_bytes()


def given_home(
    worker: Worker, rule: Rule | None, topology: Topology, *, follow_devices: bool = True
) -> Given:
    """Return the home that rule, pin, cpuset or, where they are followed, devices give.

    ====================================  ==========================================
    the rule names nodes                  those; an obstacle where one is not online
    mask leaves out a node with CPUs      the nodes it covers: pin, or cpuset where it is the
                                          cpuset's own mask
    masks of its threads do, one by one   the nodes they cover together: pin
    mask covers some CPU of every node    no wish for a node (reserved CPUs left out): those of its
                                          accelerators, else none
    ====================================  ==========================================

    Nodes on which the kernel would give it no memory (Mems_allowed) are never part of a home. Where
    all that are named have no memory at all, the nearest that has some is part of it as well.
    """
    if rule is not None and rule.nodes is not None:
        absent = rule.nodes - set(topology.node_ids)
        if absent:
            return Given(
                obstacle=f"rule {rule.name} ({rule.origin}) names node {format_list(absent)}, "
                f"but only {format_list(topology.node_ids)} are online"
            )
        home = Home(rule.nodes, HomeSource.RULE, f"rule {rule.name} says so ({rule.origin})")
        return _allowed(home, worker, topology)
    with_cpus = {node.id for node in topology.nodes if node.has_cpu}
    mask = user_mask(worker, topology)
    nodes = topology.nodes_of(mask)
    one_by_one = bool(mask) and nodes >= with_cpus and _pinned_one_by_one(worker, topology)
    if not mask or (nodes >= with_cpus and not one_by_one):
        return Given(_device_home(worker, topology) if follow_devices else None)
    if one_by_one:
        source = HomeSource.PIN
        why = f"its user pinned its threads one by one, together to CPUs {format_list(mask)}"
    elif worker.cpuset_cpus is not None and mask == worker.cpuset_cpus & topology.cpus:
        source, why = HomeSource.CPUSET, f"its cpuset grants CPUs {format_list(mask)} only"
    else:
        source, why = HomeSource.PIN, f"its user pinned its threads to CPUs {format_list(mask)}"
    return _allowed(Home(nodes, source, why), worker, topology)


def _pinned_one_by_one(worker: Worker, topology: Topology) -> bool:
    """Say whether each thread, of those that run for long, is kept from some node with CPUs."""
    if not any(node.has_cpu for node in topology.nodes):
        return False
    masks = [
        (worker.first_masks.get(t.tid, t.affinity), t.cpu_ticks)
        for t in worker.threads
        if t.affinity is not None
    ]
    reach = {
        mask: all(node.cpus & mask for node in topology.nodes if node.has_cpu)
        for mask in {mask for mask, _ in masks if mask}
    }
    free = [ticks for mask, ticks in masks if mask and reach[mask]]
    total = sum(ticks for _, ticks in masks)
    return not free or sum(free) < FREE_SHARE * total


def _allowed(home: Home, worker: Worker, topology: Topology) -> Given:
    mems = worker.memory.mems_allowed
    named = [node for node in topology.nodes if node.id in home.nodes]
    if named and not any(node.has_memory for node in named):
        full = [n for n in topology.nodes if n.has_memory and (mems is None or n.id in mems)]
        near = {_nearest(node, full, topology) for node in named} - {None}
        if near:
            nodes = frozenset(node for node in near if node is not None)
            why = (
                f"{home.why}; node {format_list(home.nodes)} has no memory, the nearest with some: "
                f"node {format_list(nodes)}"
            )
            return Given(Home(home.nodes | nodes, home.source, why))
    if mems is None:
        return Given(home)
    nodes = home.nodes & mems
    if not nodes:
        return Given(
            obstacle=f"{home.why}, which means node {format_list(home.nodes)}, but its cpuset "
            f"grants memory on node {format_list(mems)} only"
        )
    return Given(Home(nodes, home.source, home.why))


def _device_home(worker: Worker, topology: Topology) -> Home | None:
    """Return the nodes of its accelerators, all of them; None where they say nothing.

    That is where no node of them is known, not all of these are allowed, or it is not known which
    of the devices it uses and they are on several nodes.
    """
    if not worker.devices:
        return None
    used = set(worker.devices)
    devices = [d for d in topology.devices if d.address in used and d.kind in ACCELERATORS]
    known = [d for d in devices if d.node in topology.node_ids]
    nodes = frozenset(d.node for d in known if d.node is not None)
    if not nodes or (worker.devices_unsure and (len(nodes) > 1 or len(known) < len(devices))):
        return None
    near = {_nearest_full(node, topology) for node in topology.nodes if node.id in nodes}
    home = frozenset(node for node in near if node is not None)
    mems = worker.memory.mems_allowed
    if not home or (mems is not None and not home <= mems):
        return None
    why = f"it uses {_named(known)} of node {format_list(nodes)}"
    if home != nodes:
        why += f"; the nearest with CPUs and memory: node {format_list(home)}"
    return Home(home, HomeSource.DEVICE, why)


def device_shares(worker: Worker, topology: Topology) -> dict[int, float]:
    """Return the share of its accelerators by node, as far as their nodes are known.

    Also where it is not sure which of them it uses: then each of them counts alike.
    """
    used = set(worker.devices)
    nodes = [d.node for d in topology.devices if d.address in used and d.kind in ACCELERATORS]
    known = [node for node in nodes if node is not None and node in topology.node_ids]
    return {node: known.count(node) / len(nodes) for node in known}


def _nearest_full(node: Node, topology: Topology) -> int | None:
    """Return the nearest node with CPUs and memory: itself, where it has both."""
    if node.has_cpu and node.has_memory:
        return node.id
    full = [other for other in topology.nodes if other.has_cpu and other.has_memory]
    return _nearest(node, full, topology)


def _nearest(node: Node, others: Sequence[Node], topology: Topology) -> int | None:
    ids = (other.id for other in others)
    return min(ids, key=lambda other: (topology.distance(node.id, other), other), default=None)


def _named(devices: Sequence[PciDevice]) -> str:
    """Return devices in words: by address and name while they are few, else by number."""
    nouns = {device_noun(device.kind) for device in devices}
    noun = nouns.pop() if len(nouns) == 1 else "accelerator"
    if len(devices) > _MOST_NAMED:
        return f"{len(devices)} {noun}s"
    names = [f"{d.address} ({d.name})" if d.name else d.address for d in devices]
    return f"the {noun}{'s' if len(names) > 1 else ''} {' and '.join(names)}"
