"""Where a worker belongs, as far as rule, pin, cpuset and devices say; else the planner decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Home, HomeSource
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Worker
from numad_py.model.topology import ACCELERATORS, Node, PciDevice, Topology
from numad_py.policy.schema import Rule

MEMPOLICY_SHARE = 0.5
"""A worker with more than this share of its bytes under a mempolicy was placed by its user."""
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
    mask covers some CPU of every node    no wish for a node (reserved CPUs left out): those of its
                                          accelerators, else none
    ====================================  ==========================================

    Nodes on which the kernel would give it no memory (Mems_allowed) are never part of a home.
    """
    if rule is not None and rule.nodes is not None:
        absent = rule.nodes - set(topology.node_ids)
        if absent:
            return Given(
                obstacle=f"rule {rule.name} ({rule.origin}) names node {format_list(absent)}, "
                f"but only {format_list(topology.node_ids)} are online"
            )
        home = Home(rule.nodes, HomeSource.RULE, f"rule {rule.name} says so ({rule.origin})")
        return _allowed(home, worker)
    with_cpus = {node.id for node in topology.nodes if node.has_cpu}
    mask = user_mask(worker, topology)
    nodes = topology.nodes_of(mask)
    if not mask or nodes >= with_cpus:
        return Given(_device_home(worker, topology) if follow_devices else None)
    if worker.cpuset_cpus is not None and mask == worker.cpuset_cpus & topology.cpus:
        source, why = HomeSource.CPUSET, f"its cpuset grants CPUs {format_list(mask)} only"
    else:
        source, why = HomeSource.PIN, f"its user pinned its threads to CPUs {format_list(mask)}"
    return _allowed(Home(nodes, source, why), worker)


def _allowed(home: Home, worker: Worker) -> Given:
    if worker.memory.mems_allowed is None:
        return Given(home)
    nodes = home.nodes & worker.memory.mems_allowed
    if not nodes:
        return Given(
            obstacle=f"{home.why}, which means node {format_list(home.nodes)}, but its cpuset "
            f"grants memory on node {format_list(worker.memory.mems_allowed)} only"
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


def _nearest_full(node: Node, topology: Topology) -> int | None:
    """Return the nearest node with CPUs and memory: itself, where it has both."""
    if node.has_cpu and node.has_memory:
        return node.id
    full = [other.id for other in topology.nodes if other.has_cpu and other.has_memory]
    return min(full, key=lambda other: (topology.distance(node.id, other), other), default=None)


def _named(devices: Sequence[PciDevice]) -> str:
    """Return devices in words: by address and name while they are few, else by number."""
    noun = "GPU" if all(device.kind == "display" for device in devices) else "accelerator"
    if len(devices) > _MOST_NAMED:
        return f"{len(devices)} {noun}s"
    names = [f"{d.address} ({d.name})" if d.name else d.address for d in devices]
    return f"the {noun}{'s' if len(names) > 1 else ''} {' and '.join(names)}"
