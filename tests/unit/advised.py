"""Machines made by hand, and what is advised on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from numad_py.decide.advise import advise
from numad_py.decide.reservations import Reservations
from numad_py.model.advice import Advice, NoAdvice, Request
from numad_py.model.machine import NodeState
from numad_py.model.snapshot import Snapshot
from numad_py.model.topology import Node, Performance, Topology
from numad_py.policy.schema import PlacementPolicy

GIB = 1 << 30
POLICY = PlacementPolicy(headroom=0.0)


@dataclass(frozen=True)
class N:
    """A node of 16 GiB, all of it free unless said otherwise."""

    id: int
    cpus: Sequence[int]
    free_gib: float = 16
    total_gib: int = 16
    busy: float | None = 0.0
    near: Mapping[int, int] = field(default_factory=dict)
    """Distances to others; 20 where not given."""
    cores: Sequence[frozenset[int]] = ()
    bandwidth: int | None = None


def machine(*nodes: N) -> Snapshot:
    """Return a look at these nodes."""
    topology = Topology(
        tuple(
            Node(
                n.id,
                frozenset(n.cpus),
                n.total_gib * GIB,
                {m.id: 10 if m.id == n.id else n.near.get(m.id, 20) for m in nodes},
                cores=tuple(n.cores),
                performance=Performance(read_bandwidth_mib_s=n.bandwidth) if n.bandwidth else None,
            )
            for n in nodes
        )
    )
    states = tuple(
        NodeState(n.id, n.total_gib * GIB, int(n.free_gib * GIB), 0, busy_cpus=n.busy)
        for n in nodes
    )
    return Snapshot(3, 1000.0, topology, states, ())


def advised(
    seen: Snapshot,
    cpus: int,
    gib: float = 0,
    policy: PlacementPolicy = POLICY,
    reserved: Reservations | None = None,
) -> Advice:
    """Return advice where there must be some."""
    found = advise(seen, policy, Request(cpus, int(gib * GIB)), reserved)
    assert isinstance(found, Advice), found
    assert sum(found.bytes_by_node.values()) == int(gib * GIB)
    assert sum(found.cpus_by_node.values()) == pytest.approx(cpus)
    return found


def refused(seen: Snapshot, request: Request, policy: PlacementPolicy = POLICY) -> NoAdvice:
    """Return why there is none."""
    found = advise(seen, policy, request)
    assert isinstance(found, NoAdvice), found
    return found


def sockets(*free_gib: float, busy: Sequence[float] = (0, 0, 0, 0)) -> Snapshot:
    """Return two sockets of two nodes of 4 CPUs, 11 apart within a socket and 21 between."""
    near = {0: {1: 11}, 1: {0: 11}, 4: {5: 11}, 5: {4: 11}}
    return machine(
        *(
            N(
                id_,
                range(4 * at, 4 * at + 4),
                free_gib[at],
                busy=busy[at],
                near={other: near[id_].get(other, 21) for other in near if other != id_},
            )
            for at, id_ in enumerate(near)
        )
    )
