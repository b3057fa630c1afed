"""Where a worker belongs, as far as rule, pin and cpuset say so; else the planner decides."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Home, HomeSource
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Worker
from numad_py.model.topology import Topology
from numad_py.policy.schema import Rule

MEMPOLICY_SHARE = 0.5
"""A worker with more than this share of its bytes under a mempolicy was placed by its user."""


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


def given_home(worker: Worker, rule: Rule | None, topology: Topology) -> Given:
    """Return the home that rule, pin or cpuset give.

    ====================================  ==========================================
    the rule names nodes                  those; an obstacle where one is not online
    mask leaves out a node with CPUs      the nodes it covers: pin, or cpuset where it is the
                                          cpuset's own mask
    mask covers some CPU of every node    none: it is no wish for a node (reserved CPUs left out)
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
        return Given()
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
