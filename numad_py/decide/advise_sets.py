"""Sets of nodes that may hold a process to come, and what speaks for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

from numad_py.decide.places import CROWDED
from numad_py.decide.solver.candidates import Choices
from numad_py.decide.solver.problem import Item, Place, Problem
from numad_py.model.advice import Request
from numad_py.model.topology import LOCAL_DISTANCE

NOMINAL_BYTES = 1 << 30
"""What distance and slow memory are weighed by where nobody says how much memory it will take."""
_MOST_SETS = 2000
"""Where there are more sets of a size, only those that lie close around a node are looked at."""
_CPU_STEP = 0.25
"""How busy CPUs are wavers: less is no difference."""


@dataclass(frozen=True)
class Room:
    """A node that comes into question: it has memory, and a CPU that is not reserved."""

    place: Place
    cpus: frozenset[int]
    """That the process may use, reserved ones left out."""
    worth_cpus: float
    """The same, SMT siblings weighted."""
    used_cpus: float
    """Kept busy, or promised to others."""
    total_bytes: int
    """All memory of the node."""
    busy_known: bool
    promised_cpus: float = 0.0
    """Of the used ones, those that are promised to others."""

    @property
    def idle_cpus(self) -> float:
        """CPUs that are neither busy nor promised, each sibling counted: what a request counts."""
        return max(0.0, len(self.cpus) - self.used_cpus)

    @property
    def spare_cpus(self) -> float:
        """The same, and what wavers: so many may be asked for.

        How busy CPUs are wavers; what is promised does not, and is promised once.
        """
        wavering = CROWDED * len(self.cpus) - self.used_cpus
        return max(0.0, min(wavering, len(self.cpus) - self.promised_cpus))

    @property
    def unused_cpus(self) -> float:
        """CPUs that are neither busy nor promised, in whole cores: what is compared."""
        return max(0.0, self.worth_cpus - self.used_cpus)


@dataclass(frozen=True)
class NodeSet:
    """Some of them, in the order of places."""

    rooms: tuple[Room, ...]

    @cached_property
    def ids(self) -> frozenset[int]:
        """Their nodes."""
        return frozenset(room.place.id for room in self.rooms)

    @cached_property
    def cpus(self) -> frozenset[int]:
        """Their CPUs, reserved ones left out."""
        return frozenset().union(*(room.cpus for room in self.rooms))

    @cached_property
    def room_bytes(self) -> int:
        """What may still come to them."""
        return sum(room.place.room_bytes for room in self.rooms)

    @cached_property
    def idle_cpus(self) -> float:
        """CPUs that are neither busy nor promised, each sibling counted."""
        return sum(room.idle_cpus for room in self.rooms)

    @cached_property
    def unused_cpus(self) -> float:
        """The same in whole cores."""
        return sum(room.unused_cpus for room in self.rooms)

    @cached_property
    def distance(self) -> int:
        """The longest way between two of them; local for one."""
        pairs = combinations(self.rooms, 2)
        return max((_distance(a.place, b.place) for a, b in pairs), default=LOCAL_DISTANCE)

    def has(self, request: Request) -> bool:
        """Say whether they have the memory, and so many CPUs, busy or not."""
        return self.room_bytes >= request.size_bytes and len(self.cpus) >= request.cpus

    def has_unused(self, request: Request) -> bool:
        """Say whether so many CPUs are unused, within what wavers."""
        return sum(room.spare_cpus for room in self.rooms) >= request.cpus

    def split_bytes(self, request: Request) -> dict[int, int]:
        """Return its memory by node: alike, as far as there is room."""
        rooms = [room.place.room_bytes for room in self.rooms]
        parts = share_out(request.size_bytes, rooms)
        sizes = [int(part) for part in parts]
        for i, room in enumerate(rooms):  # what rounding has left over
            sizes[i] += min(room - sizes[i], request.size_bytes - sum(sizes))
        return {r.place.id: size for r, size in zip(self.rooms, sizes, strict=True)}

    def split_cpus(self, request: Request) -> dict[int, float]:
        """Return its CPUs by node: alike, as far as some are unused; the rest alike as well."""
        parts = share_out(request.cpus, [room.spare_cpus for room in self.rooms])
        left = (request.cpus - sum(parts)) / len(parts)
        return {r.place.id: p + max(0.0, left) for r, p in zip(self.rooms, parts, strict=True)}


@dataclass(frozen=True)
class Weighed:
    """A set of nodes that holds the process, and what is to be said for it."""

    nodes: NodeSet
    lacking_steps: int
    """Steps of whole cores that are not unused there."""
    cost: int
    """Distance and slowness of its memory, in bytes."""
    uneven: float
    """Share of its memory that lies beside other CPUs than those that it has, 0..1."""
    full_cpus: float
    full_memory: float
    """How full both will be, 0..1; more where CPUs are crowded."""

    @property
    def rank(self) -> tuple[int, int, float, float]:
        """Less is better; equal ones stay in their order."""
        less, more = sorted((round(self.full_cpus, 2), round(self.full_memory, 2)))
        return self.lacking_steps, self.cost, more, less


def weigh(sets: Sequence[NodeSet], every: NodeSet, request: Request) -> list[Weighed]:
    """Return sets of the same size, best first."""
    size = max(request.size_bytes, NOMINAL_BYTES)
    item = Item("advise", coming_bytes=size)
    choices = Choices(Problem(tuple(room.place for room in every.rooms), (item,)))
    weighed = []
    for nodes in sets:
        cost = choices.cost_of(item, choices.mask_of(nodes.ids)).total
        uneven = _uneven(nodes, request)
        hop = nodes.distance / LOCAL_DISTANCE - 1
        weighed.append(
            Weighed(
                nodes=nodes,
                lacking_steps=int(max(0.0, request.cpus - nodes.unused_cpus) / _CPU_STEP),
                cost=cost + round(size * uneven * hop),
                uneven=uneven,
                full_cpus=_full_cpus(nodes, request),
                full_memory=_full_memory(nodes, request),
            )
        )
    return sorted(weighed, key=lambda w: w.rank)


def sets_of(rooms: Sequence[Room], count: int) -> list[NodeSet]:
    """Return sets of so many nodes: all, or on large machines close ones around each node."""
    if comb(len(rooms), count) <= _MOST_SETS:
        return [NodeSet(nodes) for nodes in combinations(rooms, count)]
    position = {room.place.id: at for at, room in enumerate(rooms)}
    grown = set()
    for centre in rooms:
        near = _by_distance(rooms, centre)
        roomy = sorted(near, key=lambda room: (-room.place.room_bytes, -room.unused_cpus))
        idle = sorted(near, key=lambda room: (-room.unused_cpus, -room.place.room_bytes))
        for order in (near, roomy, idle):
            grown.add(tuple(sorted(position[room.place.id] for room in order[:count])))
    return [NodeSet(tuple(rooms[at] for at in positions)) for positions in sorted(grown)]


def share_out(total: float, limits: Sequence[float]) -> list[float]:
    """Return equal parts of a total, each within its limit; less in all where the limits say so."""
    parts = [0.0] * len(limits)
    left = float(total)
    for done, at in enumerate(sorted(range(len(limits)), key=lambda at: limits[at])):
        parts[at] = min(limits[at], left / (len(limits) - done))
        left -= parts[at]
    return parts


def _by_distance(rooms: Sequence[Room], centre: Room) -> list[Room]:
    return sorted(rooms, key=lambda room: _distance(centre.place, room.place))


def _uneven(nodes: NodeSet, request: Request) -> float:
    if not request.size_bytes:
        return 0.0
    sizes, cpus = nodes.split_bytes(request), nodes.split_cpus(request)
    return sum(abs(sizes[n] / request.size_bytes - cpus[n] / request.cpus) for n in nodes.ids) / 2


def _full_cpus(nodes: NodeSet, request: Request) -> float:
    worth = sum(room.worth_cpus for room in nodes.rooms)
    used = sum(room.used_cpus for room in nodes.rooms) + request.cpus
    return used / worth if worth else 1.0


def _full_memory(nodes: NodeSet, request: Request) -> float:
    total = sum(room.total_bytes for room in nodes.rooms)
    return 1 - (nodes.room_bytes - request.size_bytes) / total if total else 1.0


def _distance(a: Place, b: Place) -> int:
    unknown = LOCAL_DISTANCE if a.id == b.id else 2 * LOCAL_DISTANCE
    return a.distances.get(b.id, unknown)
