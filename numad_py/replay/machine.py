"""A described machine, and the scenes that it makes as time goes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from numad_py.model.machine import NodeState
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import LOCAL_DISTANCE, Node, Topology
from numad_py.replay.guest import run_share

BOOTED_S = 1000.0
"""Time since boot at the first scene."""
TICKS_PER_S = 100
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Arrival:
    """``[[worker]]``."""

    name: str
    size_bytes: int
    nodes: tuple[int, ...] = ()
    run: tuple[int, ...] = ()
    cpus: float = 1.0
    threads: int | None = None
    pin: frozenset[int] | None = None
    count: int = 1
    arrive_s: float = 0.0
    every_s: float = 0.0
    stay_s: float | None = None
    grow_bytes_per_s: int = 0
    grow_to_bytes: int | None = None

    def at(self, age_s: float) -> int:
        """Return its movable bytes at an age, in whole pages."""
        size = self.size_bytes + int(self.grow_bytes_per_s * age_s)
        if self.grow_to_bytes is not None:
            size = min(size, max(self.size_bytes, self.grow_to_bytes))
        return size // PAGE_BYTES * PAGE_BYTES


@dataclass(frozen=True)
class NodePart:
    """``[[node]]``."""

    id: int
    memory_bytes: int
    cpus: frozenset[int] = frozenset()
    used_bytes: int = 0
    distances: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Machine:
    """What the file says."""

    nodes: tuple[NodePart, ...]
    workers: tuple[Arrival, ...] = ()
    interval_s: float = 5.0
    duration_s: float = 600.0
    topology: Topology = field(default=Topology(()))

    def scenes(self) -> Iterator[Snapshot]:
        """Yield a scene for each interval and the end: node states as if no worker had memory."""
        states = tuple(
            NodeState(n.id, n.memory_bytes, max(0, n.memory_bytes - n.used_bytes), 0)
            for n in sorted(self.nodes, key=lambda n: n.id)
        )
        coming = sorted(self._coming(), key=lambda one: one.label)
        known: dict[str, tuple[int, Worker]] = {}
        for cycle, since_s in enumerate(self._times(), 1):
            workers = []
            for one in coming:
                if one.came_s <= since_s < one.goes_s:
                    size, before = one.what.at(since_s - one.came_s), known.get(one.label)
                    # The same value as long as it has the same size: nothing is to be done for it.
                    if before is None:
                        before = size, one.worker(since_s, size, self.topology)
                    elif before[0] != size:
                        before = size, one.grown(before[1], since_s, size)
                    known[one.label] = before
                    workers.append(before[1])
            yield Snapshot(cycle, BOOTED_S + since_s, self.topology, states, tuple(workers))

    def count_cycles(self) -> int:
        """Return how many scenes there are."""
        return sum(1 for _ in self._times())

    def _times(self) -> Iterator[float]:
        """Yield the times of looks: each interval, and the end, be it the last interval's or not.

        Three times 0.1 s are 0.3 s and eleven times 30 ms are 330 ms, whatever the last bit says.
        """
        whole = int(self.duration_s / self.interval_s + 1e-6)
        for count in range(whole):
            yield count * self.interval_s
        if self.duration_s - whole * self.interval_s > 1e-6 * self.interval_s:
            yield whole * self.interval_s
        yield self.duration_s

    def _coming(self) -> Iterator[_Coming]:
        pid = 1000
        for what in self.workers:
            for ordinal in range(what.count):
                came_s = what.arrive_s + ordinal * what.every_s
                goes_s = float("inf") if what.stay_s is None else came_s + what.stay_s
                yield _Coming(what, f"{what.name}/{ordinal}", pid, came_s, goes_s)
                pid += 1000


@dataclass(frozen=True)
class _Coming:
    """One worker that comes at some time."""

    what: Arrival
    label: str
    pid: int
    came_s: float
    """Since the first scene."""
    goes_s: float

    def worker(self, since_s: float, size: int, topology: Topology) -> Worker:
        """Return it with so many bytes, as if nothing had been done to it."""
        what = self.what
        online = topology.cpus
        mask = online if what.pin is None else what.pin & online
        runs = what.run or what.nodes
        on = topology.cpus_of(runs) & mask or mask
        shares = run_share([on], topology)
        start_ticks = int((BOOTED_S + self.came_s) * TICKS_PER_S)
        count = what.threads or max(1, -int(-what.cpus // 1))
        return Worker(
            id=WorkerId(self.pid, start_ticks),
            label=self.label,
            rule=what.name,
            comm=what.name,
            user=None,
            cgroup=None,
            threads=tuple(
                Thread(self.pid + i, start_ticks, mask, min(on), 0) for i in range(count)
            ),
            cpuset_cpus=None,
            memory=MemoryStatus(anon_bytes=size),
            residency=_residency(what.nodes or tuple(shares), size, BOOTED_S + since_s),
            run_share=shares,
            demand_cpus=what.cpus,
            age_s=since_s - self.came_s,
        )

    def grown(self, before: Worker, since_s: float, size: int) -> Worker:
        """Return it with another size."""
        nodes = self.what.nodes or tuple(before.run_share)
        residency = _residency(nodes, size, BOOTED_S + since_s)
        return replace(before, memory=MemoryStatus(anon_bytes=size), residency=residency)


def _residency(nodes: Sequence[int], size: int, at_s: float) -> Residency:
    """Return movable memory in equal parts on these nodes; what is left over is the first one's."""
    part = size // len(nodes) // PAGE_BYTES * PAGE_BYTES
    parts = dict.fromkeys(nodes, part)
    parts[nodes[0]] += size - part * len(nodes)
    sizes = {(n, Kind.ANON, Mobility.MOVABLE, PAGE_BYTES): held for n, held in parts.items()}
    return Residency(entries_of(sizes), read_at_s=at_s)


def topology_of(parts: Sequence[NodePart]) -> Topology:
    """Return nodes with their distances, in order of their ids; a way is as long back."""
    told = {
        frozenset({part.id, other.id}): distance
        for part in parts
        if part.distances is not None
        for other, distance in zip(parts, part.distances, strict=True)
    }
    nodes = []
    for part in parts:
        by_id = {
            other.id: told.get(
                frozenset({part.id, other.id}), LOCAL_DISTANCE * (1 if other is part else 2)
            )
            for other in parts
        }
        nodes.append(Node(part.id, part.cpus, part.memory_bytes, by_id))
    return Topology(tuple(sorted(nodes, key=lambda node: node.id)))
