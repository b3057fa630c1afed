"""What the placement solver is asked and what it answers: frozen values, in bytes and CPUs.

Nodes are *places*, workers are *items*. What a cost is worth is said in bytes: one byte that a
fully busy worker uses over twice the local distance costs 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from numad_py.model.plan import Alternative, Cost


@dataclass(frozen=True)
class Place:
    """A node as a place for workers; CPU-less ones too, for the distance of what lies there."""

    id: int
    room_bytes: int
    """What may still come to it, headroom already off; what items hold there is not counted as
    free. Below 0 reads as 0."""
    cpus: float
    """CPUs for the items: SMT siblings weighted, reserved ones and those that others use off."""
    distances: Mapping[int, int]
    """Distance to each node by id; 10 is local. A node that is left out is 20 away."""
    slow: float = 1.0
    """How slow its memory is beside the fastest; 1.0 where that is not known."""
    huge_free: Mapping[int, int] = field(default_factory=dict)
    """Bytes free in its pools of huge pages, by size of page: what each item could have if no other
    took any. Who comes too late is refused when it is to move."""


@dataclass(frozen=True)
class Item:
    """A worker to be placed."""

    key: str
    """Unique; items are taken in the order of their keys where nothing else decides."""
    bytes_by_node: Mapping[int, int] = field(default_factory=dict)
    """Resident bytes that may be moved, by node; without huge pages."""
    huge: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """Huge pages (hugetlb) that may be moved: bytes by size of page and node. They take no room in
    a node's memory, but free pages of its pool."""
    fixed_by_node: Mapping[int, int] = field(default_factory=dict)
    """Resident bytes that cannot be moved, by node: shared segments, pinned pages."""
    coming_bytes: int = 0
    """Memory that it has yet to allocate: all of it for a process that is not there yet."""
    cpus: float = 0.0
    """CPUs it keeps busy; a home of several nodes gives each an equal share of them."""
    needs_cpus: float = 0.0
    """What its home must have of ``usable_cpus``; all allowed nodes together are always enough."""
    usable_cpus: Mapping[int, float] = field(default_factory=dict)
    """CPUs by node that it could use if nobody else were there; empty: enough on every node."""
    run_cpus: Mapping[int, float] = field(default_factory=dict)
    """CPUs by node that it keeps busy as long as it has no home."""
    busy: float = 1.0
    """0..1: what a remote byte costs it."""
    allowed: frozenset[int] = frozenset()
    """Nodes that may be part of its home: allowed to it, with CPUs and memory."""
    device_nodes: Mapping[int, float] = field(default_factory=dict)
    """Weight of its devices by node."""
    home: frozenset[int] | None = None
    """Where it was placed earlier."""
    apart: str | None = None
    """Items of one group want homes without a node in common: replicas."""
    keep: bool = False
    """It stays with ``home``, allowed or not; what is not there yet is still to come there."""

    @cached_property
    def size_bytes(self) -> int:
        """What its home must have room for: what may be moved and what is yet to come."""
        return sum(self.bytes_by_node.values()) + self.coming_bytes

    @cached_property
    def movable_by_node(self) -> Mapping[int, int]:
        """Resident bytes that may be moved, by node, huge pages included."""
        if not self.huge:
            return self.bytes_by_node
        found = dict(self.bytes_by_node)
        for by_node in self.huge.values():
            for node, size in by_node.items():
                found[node] = found.get(node, 0) + size
        return found

    @cached_property
    def own_bytes(self) -> int:
        """What is at its home in the end: what may be moved, huge pages too, and is yet to come."""
        return sum(self.movable_by_node.values()) + self.coming_bytes

    @cached_property
    def all_bytes(self) -> int:
        """All of its memory, that which cannot be moved included."""
        return self.own_bytes + sum(self.fixed_by_node.values())


@dataclass(frozen=True)
class Weights:
    """What counts how much against a remote byte of a fully busy worker."""

    moving: float = 0.1
    """A byte moved, at the local distance (at most twice that: most of the work is per page, and
    a detour must not come cheaper than the way). What a minute of remote use costs, for a home that
    is kept for ten."""
    switching: float = 0.25
    """Share of a worker's bytes that another home must save: less is no clear gain. Greater than
    ``moving``, so that no plan is changed again once it is carried out."""
    device: float = 0.5
    """Share of a worker's bytes that pass between it and its devices."""
    cpu_step: float = 0.25
    """CPUs beyond what there is count in whole steps of this: a measured demand wavers."""


@dataclass(frozen=True)
class Problem:
    """All workers and all nodes of a machine, at one moment."""

    places: tuple[Place, ...]
    """In an order of which the answer hangs where all else is equal; their ids are only names."""
    items: tuple[Item, ...]
    weights: Weights = Weights()


@dataclass(frozen=True)
class Solution:
    """Homes for all items together, and why."""

    homes: Mapping[str, frozenset[int] | None]
    """By key; None where an item has no home: its memory stays where it is."""
    splits: Mapping[str, Mapping[int, int]]
    """Bytes of ``size_bytes`` by node at the end; without a home what is there already."""
    costs: Mapping[str, Cost]
    """By key; nothing for an item without a home."""
    alternatives: Mapping[str, tuple[Alternative, ...]]
    """By key, cheapest first."""
    unplaced: tuple[str, ...]
    """Keys of items without a home."""
    order: tuple[str, ...]
    """Keys of items to which memory comes, in an order in which each finds room: what it brings is
    there in whole before what it leaves is free."""
    stuck: Mapping[str, frozenset[int]]
    """Homes that items were to have in a better answer, for which no such order was found; they
    have another now, or none."""
    crowded_pairs: int
    """Pairs of one group whose homes overlap."""
    lacking_cpus: float
    """CPUs wanted beyond what the nodes have."""
    proven: bool
    """Whether it is known that no better answer exists."""

    @property
    def cost(self) -> int:
        """What all homes cost together, in bytes."""
        return sum(cost.total for cost in self.costs.values())
