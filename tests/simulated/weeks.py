"""A made machine of eight nodes, and workers that come, grow, waver and go on it.

Two sockets of four nodes, with holes in their ids; sizes of a heavy tail, some beyond a node; CPU
demand that wavers, stops and starts; workers that are free to run, pinned, confined to a socket, or
replicas that share a model's file and are to be kept apart. The same seed makes the same weeks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from numad_py.model.machine import NodeState
from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import GIB, Policy, Rule
from numad_py.replay.guest import run_share

IDS = (0, 1, 2, 3, 8, 9, 10, 11)
"""Of the nodes; the first four are one socket."""
SOCKETS = (frozenset(IDS[:4]), frozenset(IDS[4:]))
BOOTED_S = 1000.0
BYTES_EACH = 4 * GIB
"""Of node memory by worker: what sizes as these fill to somewhat less than three quarters."""
LEAST_FULL, MOST_FULL = 0.62, 0.85
"""How full the machine is kept: the share that is aimed at goes up and down between the two. It is
never more; when one that is larger than a node goes, it is less for a while."""
OTHERS = 0.03
"""Share of a node that is taken by others."""
GROUPS, REPLICAS = 4, 6
"""Groups of replicas, and how many of each there are at a time at most."""
LARGEST = 1.5
"""In nodes."""
PINNED = "pinned"
"""The rule of workers whose users set masks, by themselves or by cpusets."""
LOADING_LOOKS = 5
"""A worker that loads has all of its memory after so many looks."""


@dataclass
class Guest:
    """A worker that is there."""

    worker: Worker
    goes_s: float
    largest_bytes: int
    """What room is kept for."""
    cpus: float
    grows: tuple[int, ...] = ()
    """Sizes in the cycles to come, the next one last."""
    breathes: bool = False
    noise: float = 0.0
    idle: bool = False
    wanders: bool = False
    """Its threads are free, and run now here, now there."""


@dataclass
class Weeks:
    """What is to be made, and with ``scenes`` the making of it."""

    seed: int = 1
    cycles: int = 10_000
    crowd: int = 256
    """Workers at a time."""
    interval_s: float = 60.0
    stay_s: float = 3 * 3600.0
    """On average."""
    topology: Topology = field(init=False)
    policy: Policy = field(init=False)
    full: list[float] = field(default_factory=list, init=False)
    """Share of the machine's memory that was taken, by cycle."""
    largest_bytes: int = field(default=0, init=False)
    """Of all workers so far."""

    def __post_init__(self) -> None:
        """Make the machine; who lives on it is made with the scenes."""
        self.node_bytes = self.crowd * BYTES_EACH // len(IDS)
        cpus = max(4, self.crowd // 4)
        self.topology = Topology(tuple(_node(at, cpus, self.node_bytes) for at in range(len(IDS))))
        spread = tuple(Rule(f"replica{k}", "weeks", spread="rule") for k in range(GROUPS))
        self.policy = Policy(rules=(Rule("free", "weeks"), Rule(PINNED, "weeks"), *spread))
        self._segment_bytes = self.node_bytes // 32 // BASE_PAGE_BYTES * BASE_PAGE_BYTES

    def scenes(self) -> Iterator[Snapshot]:
        """Yield one for each interval: node states are as if no worker had movable memory."""
        random_ = random.Random(self.seed)  # noqa: S311 - no secret
        states = tuple(self._state(node.id) for node in self.topology.nodes)
        every = len(IDS) * self.node_bytes
        fixed = every - sum(state.free_bytes for state in states)
        guests: list[Guest] = []
        pid = 1000
        for cycle in range(1, self.cycles + 1):
            at_s = BOOTED_S + cycle * self.interval_s
            guests = [g for g in guests if g.goes_s > at_s]
            taken = fixed + sum(guest.largest_bytes for guest in guests)
            # Each day has its tide.
            tide = math.sin(2 * math.pi * cycle * self.interval_s / 86400 * 5)
            aim = (LEAST_FULL + MOST_FULL) / 2 + tide * (MOST_FULL - LEAST_FULL) / 2
            while len(guests) < self.crowd:
                pid += 10
                most = int(MOST_FULL * every) - taken
                guest = self._arrival(random_, pid, at_s, guests, most, lacks=aim - taken / every)
                if guest is None:
                    break
                guests.append(guest)
                taken += guest.largest_bytes
            for guest in guests:
                self._live(random_, guest, at_s)
            workers = sorted((guest.worker for guest in guests), key=lambda w: w.label)
            self.largest_bytes = max(self.largest_bytes, *(_size(w) for w in workers))
            self.full.append((fixed + sum(_size(w) for w in workers)) / every)
            yield Snapshot(cycle, at_s, self.topology, states, tuple(workers))

    def _state(self, node: int) -> NodeState:
        """Return what is left of a node beside others and the models that replicas map."""
        models = sum(self._segment_bytes for k in range(GROUPS) if IDS[2 * k] == node)
        free = int(self.node_bytes * (1 - OTHERS)) - models
        return NodeState(node, self.node_bytes, free, 0, busy_cpus=0.0)

    # Coming

    def _arrival(
        self,
        random_: random.Random,
        pid: int,
        at_s: float,
        guests: Sequence[Guest],
        most: int,
        *,
        lacks: float,
    ) -> Guest | None:
        """Return one more worker; None where there is no room for any."""
        kind = random_.random()
        group = random_.randrange(GROUPS)
        # Of several sizes the one that brings the machine nearer to how full it is to be.
        draws = [self._draw(random_) for _ in range(12 if lacks > 0.05 else 3)]
        size = max(draws) if lacks > 0 else min(draws)
        rule, pin, mems, segment = "free", None, None, None
        others = [g for g in guests if g.worker.rule == f"replica{group}"]
        if kind < 0.12:
            pin = self.topology.cpus_of([random_.choice(IDS)])
            rule, size = PINNED, min(size, self.node_bytes // 2)
        elif kind < 0.2:
            mems = random_.choice(SOCKETS)
            pin = self.topology.cpus_of(mems)
            rule, size = PINNED, min(size, self.node_bytes)
        elif kind < 0.35 and len(others) < REPLICAS:
            rule, segment = f"replica{group}", IDS[2 * group]
            size = others[0].largest_bytes if others else min(size, self.node_bytes // 4)
        size = size // BASE_PAGE_BYTES * BASE_PAGE_BYTES
        if size > most:
            size = BASE_PAGE_BYTES * 16384
            if size > most:
                return None
        loads = random_.random() < 0.3
        steps = tuple(size * part // 5 for part in (5, 4, 3, 2)) if loads else ()
        start = size // 5 if loads else size
        nodes = self._first_touch(random_, mems)
        worker = self._worker(pid, at_s, rule, pin, mems)
        worker = replace(
            worker,
            residency=self._residency(dict.fromkeys(nodes, 1), start, at_s, segment),
            memory=replace(worker.memory, anon_bytes=start),
        )
        return Guest(
            worker,
            goes_s=at_s + random_.expovariate(1 / self.stay_s),
            largest_bytes=size,
            cpus=min(self.crowd / 10, 0.25 * random_.paretovariate(1.5)),
            grows=steps,
            breathes=not loads and random_.random() < 0.1,
            wanders=pin is None,
        )

    def _draw(self, random_: random.Random) -> int:
        """Return a size: of some the half of all memory, of many next to nothing."""
        size = int(GIB / 2 * random_.paretovariate(1.2))
        return min(size, int(LARGEST * self.node_bytes))

    @staticmethod
    def _first_touch(random_: random.Random, mems: frozenset[int] | None) -> list[int]:
        nodes = sorted(mems or IDS)
        how = random_.random()
        count = 1 if how < 0.6 else 2 if how < 0.85 else len(nodes)
        return random_.sample(nodes, count)

    def _worker(
        self,
        pid: int,
        at_s: float,
        rule: str,
        pin: frozenset[int] | None,
        mems: frozenset[int] | None,
    ) -> Worker:
        mask = pin or self.topology.cpus
        ticks = int(at_s * 100)
        return Worker(
            id=WorkerId(pid, ticks),
            label=f"{rule}/{pid}",
            rule=rule,
            comm=rule,
            user=None,
            cgroup=f"/{rule}",
            threads=(Thread(pid, ticks, mask, min(mask), 0),),
            cpuset_cpus=pin if mems is not None else None,
            memory=MemoryStatus(mems_allowed=mems),
            residency=None,
            run_share=run_share([mask], self.topology),
            demand_cpus=0.0,
            age_s=0.0,
        )

    # Living

    def _live(self, random_: random.Random, guest: Guest, at_s: float) -> None:
        """Let an interval pass."""
        if random_.random() < 0.02:
            guest.idle = not guest.idle
        guest.noise = 0.8 * guest.noise + random_.gauss(0, 0.15)
        demand = 0.0 if guest.idle else max(0.0, guest.cpus * (1 + guest.noise))
        worker = guest.worker
        size = _size(worker)
        if guest.grows:
            *rest, size = guest.grows
            guest.grows = tuple(rest)
        elif guest.breathes and random_.random() < 0.1:
            size = int(guest.largest_bytes * random_.uniform(0.7, 1.0))
        size = size // BASE_PAGE_BYTES * BASE_PAGE_BYTES
        share = worker.run_share
        if guest.wanders and random_.random() < 0.05:
            share = dict.fromkeys(random_.sample(IDS, 2), 0.5)
        if size != _size(worker) and worker.residency is not None:
            nodes = worker.residency.by_node(mobility=Mobility.MOVABLE)
            fixed = worker.residency.by_node(mobility=Mobility.SHARED)
            residency = self._residency(nodes, size, at_s, next(iter(fixed), None))
            memory = replace(worker.memory, anon_bytes=size)
            worker = replace(worker, residency=residency, memory=memory)
        guest.worker = replace(worker, demand_cpus=demand, run_share=share)

    def _residency(
        self, nodes: Mapping[int, int], size: int, at_s: float, segment: int | None
    ) -> Residency:
        """Return so many bytes shared out on nodes, and the model that replicas map."""
        total, left = sum(nodes.values()), size
        sizes = {}
        for node, weight in nodes.items():
            part = size * weight // total // BASE_PAGE_BYTES * BASE_PAGE_BYTES
            sizes[node, Kind.ANON, Mobility.MOVABLE, BASE_PAGE_BYTES] = part
            left -= part
        sizes[next(iter(nodes)), Kind.ANON, Mobility.MOVABLE, BASE_PAGE_BYTES] += left
        if segment is not None:
            sizes[segment, Kind.FILE, Mobility.SHARED, BASE_PAGE_BYTES] = self._segment_bytes
        return Residency(entries_of(sizes), read_at_s=at_s)


def _node(at: int, cpus: int, size: int) -> Node:
    """Return a node of cores with two threads each."""
    own = range(at * cpus, (at + 1) * cpus)
    half = cpus // 2
    return Node(
        IDS[at],
        frozenset(own),
        size,
        {
            other: 10 if other == IDS[at] else 12 if other // 8 == IDS[at] // 8 else 21
            for other in IDS
        },
        cores=tuple(frozenset({own[core], own[core + half]}) for core in range(half)),
    )


def _size(worker: Worker) -> int:
    return worker.memory.anon_bytes or 0
