"""Advice for a process that is not there yet: what is asked, what is answered, what is reserved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """A process to come."""

    cpus: int
    """CPUs that it will keep busy, 1 or more."""
    size_bytes: int = 0
    """Memory that it will take; 0: not known, any node will do."""
    within_cpus: frozenset[int] | None = None
    """CPUs that it may use; None: any."""
    within_nodes: frozenset[int] | None = None
    """Nodes whose memory it may use; None: any."""


@dataclass(frozen=True)
class OtherNodes:
    """Nodes that were not advised."""

    nodes: frozenset[int]
    fits: bool
    """Whether they would have held it."""
    why: str
    """What speaks against them, in words."""


@dataclass(frozen=True)
class Advice:
    """Where to start it."""

    nodes: frozenset[int]
    cpus: frozenset[int]
    """Their CPUs, as far as it may use them; reserved ones are left out."""
    bytes_by_node: Mapping[int, int]
    """How its memory is expected to lie."""
    cpus_by_node: Mapping[int, float]
    """How its CPU time is expected to be spread."""
    crowded: bool
    """No nodes have so many unused CPUs: these are the least busy."""
    reasons: tuple[str, ...]
    alternatives: tuple[OtherNodes, ...] = ()
    """Other sets of as many nodes, best first."""


@dataclass(frozen=True)
class NoAdvice:
    """It fits nowhere."""

    why: str
    most_cpus: int
    """As many CPUs could be had."""
    most_bytes: int
    """As much memory could be had."""


@dataclass(frozen=True)
class Reservation:
    """Room that was promised to a process to come."""

    id: int
    name: str | None
    """What its caller calls it; a later one of the same name replaces it."""
    bytes_by_node: Mapping[int, int]
    cpus_by_node: Mapping[int, float]
    until_s: float
    """Time since boot at which it ends."""
    made_at_s: float = 0.0
    """Time since boot at which it was made."""

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes on which it holds something."""
        return frozenset(self.cpus_by_node)
