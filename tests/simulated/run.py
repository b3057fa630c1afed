"""Weeks gone through by a rule, and what it came to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from numad_py.decide.decisions import decide as ours
from numad_py.model.cycle import Cycle, Said
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy, Policy
from numad_py.replay.compare import Figures, Tally
from numad_py.replay.simulate import Simulation
from numad_py.replay.world import World
from tests.simulated import greedy
from tests.simulated.weeks import LOADING_LOOKS, MOST_FULL, PINNED, Weeks


@dataclass
class Wait:
    """A worker that is remote though there is room for it."""

    label: str
    since_s: float
    until_s: float
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def for_s(self) -> float:
        """How long it has been so."""
        return self.until_s - self.since_s


@dataclass
class Watch:
    """Looks at each cycle for what must not be."""

    policy: PlacementPolicy
    waiting: dict[str, Wait] = field(default_factory=dict)
    longest: Wait | None = None
    """Of all that were remote without a break while there was room for them."""
    promised_too_much: list[str] = field(default_factory=list)
    """Plans that, with what was under way, left less than the headroom."""
    pins_overwritten: set[str] = field(default_factory=set)
    """Workers with a mask of their user's that were bound beyond it."""
    crowded: list[int] = field(default_factory=list)
    """Pairs of replicas of a group whose homes overlap, by cycle."""
    near_bytes: float = 0.0
    """Bytes beside the threads that use them, on average over cycles."""
    busy_s: float = 0.0
    """CPU time of deciding and of the simulation."""
    slowest_s: float = 0.0
    cycles: int = 0

    def look(self, cycle: Cycle, under_way: Counter[int]) -> None:
        """Take one in; with what earlier moves are still to bring to each node."""
        self.cycles += 1
        headroom = self.policy.headroom
        room = {s.node: max(0, s.room_bytes(headroom)) for s in cycle.snapshot.node_states}
        said = {one.worker: one for one in cycle.said}
        coming: Counter[int] = Counter()
        for one in cycle.said:
            for move in one.moves:
                coming[move.target] += move.move_bytes
        # Who grows may take room that was promised; then nothing more may be.
        self.promised_too_much += [
            f"cycle {cycle.snapshot.cycle}: node {node}: {size} and {under_way[node]} under way,"
            f" of {room.get(node, 0)}"
            for node, size in coming.items()
            if size + under_way[node] > room.get(node, 0)
        ]
        homes = []
        for worker in cycle.snapshot.workers:
            self._worker(worker, said[worker.id], room, under_way, cycle.snapshot.at_s)
            if worker.rule.startswith("replica"):
                homes.append((worker.rule, said[worker.id].home or frozenset()))
        self.crowded.append(
            sum(a == b and bool(x & y) for i, (a, x) in enumerate(homes) for b, y in homes[:i])
        )
        for gone in self.waiting.keys() - {one.label for one in cycle.said}:
            del self.waiting[gone]

    def count(self, worker: Worker) -> Mapping[int, int]:
        """Count what lies near its threads; return where its movable bytes are."""
        assert worker.residency is not None
        held = worker.residency.by_node(mobility=Mobility.MOVABLE)
        self.near_bytes += sum(size * worker.run_share.get(n, 0.0) for n, size in held.items())
        return held

    def _worker(
        self, worker: Worker, said: Said, room: dict[int, int], under_way: Counter[int], at_s: float
    ) -> None:
        held = self.count(worker)
        total = sum(held.values())
        home = said.home or frozenset(held)
        remote = sum(size for node, size in held.items() if node not in home)
        free = sum(max(0, room.get(node, 0) - under_way[node]) for node in home)
        if (
            remote < self.policy.min_remote_bytes
            or remote <= (1 - self.policy.min_locality) * total
            or remote > free
        ):
            self.waiting.pop(worker.label, None)
            return
        wait = self.waiting.setdefault(worker.label, Wait(worker.label, at_s, at_s))
        wait.until_s = at_s
        wait.reasons[said.reason.value] += 1
        if self.longest is None or wait.for_s >= self.longest.for_s:
            self.longest = wait


@dataclass
class Came:
    """What a rule came to."""

    figures: Figures
    watch: Watch

    @property
    def near_bytes(self) -> float:
        """Bytes beside the threads that use them, on average."""
        return self.watch.near_bytes / max(1, self.watch.cycles)

    def moved_per_gained(self, untouched: Came) -> float | None:
        """Return bytes moved in all for each byte more that was near, on average; None: no gain."""
        gained = self.near_bytes - untouched.near_bytes
        return self.figures.moved_bytes / gained if gained > 0 else None


def longest_wait_s(weeks: Weeks) -> float:
    """Return for how long a worker may be remote though there is room for it.

    It may still be loading, which takes five looks here, and rest from an earlier move. Then it
    queues: at worst behind all memory that workers have, of which each cycle sets so much in motion
    as the policy says. What is more is starvation.
    """
    placement = weeks.policy.placement
    every = sum(node.memory_bytes for node in weeks.topology.nodes) * MOST_FULL
    queue = math.ceil(every / placement.moved_per_cycle_bytes)
    return placement.settle_s + placement.cooldown_s + (LOADING_LOOKS + queue) * weeks.interval_s


class Runs:
    """Ours, the greedy rule's and nobody's way with the same weeks."""

    def __init__(self, weeks: Weeks) -> None:
        """Begin on an empty machine each."""
        self.weeks = weeks
        daemon = replace(weeks.policy.daemon, interval_s=weeks.interval_s)
        policy = replace(weeks.policy, daemon=daemon)
        # numad moves without pauses.
        unpaced = replace(policy, migration=replace(policy.migration, rate_bytes_per_s=None))
        self._ours = _Run("ours", policy, Simulation(policy, decide=ours))
        numad = Simulation(unpaced, decide=greedy.decide)
        numad.world = _Overwriting(unpaced, minds_headroom=False)
        self._greedy = _Run("greedy", unpaced, numad)
        self._untouched = _Run("untouched", policy, None)

    def __iter__(self) -> Iterator[Snapshot]:
        """Go through them, cycle by cycle."""
        for seen in self.weeks.scenes():
            self._untouched.step(seen)
            self._ours.step(seen)
            self._greedy.step(seen)
            yield seen

    def came(self) -> tuple[Came, Came, Came]:
        """Return ours, the greedy rule's and that of nothing done."""
        return self._ours.came(), self._greedy.came(), self._untouched.came()


class _Run:
    """One of them."""

    def __init__(self, name: str, policy: Policy, simulation: Simulation | None) -> None:
        self._simulation = simulation
        self._world = World(policy, acts=False) if simulation is None else simulation.world
        self._tally = Tally(name, policy.placement)
        self.watch = Watch(policy.placement)

    def step(self, seen: Snapshot) -> None:
        """Go through one cycle."""
        began = time.thread_time()
        if self._simulation is None:
            cycle = Cycle(self._world.look(seen))
            self._tally.add(cycle)
            for worker in cycle.snapshot.workers:
                self.watch.count(worker)
            self.watch.cycles += 1
            return
        cycle = self._simulation.step(seen)
        spent = time.thread_time() - began
        self.watch.busy_s += spent
        self.watch.slowest_s = max(self.watch.slowest_s, spent)
        self._tally.add(cycle)
        self.watch.look(cycle, _under_way(self._world, cycle))
        self.watch.pins_overwritten |= overwritten(seen, cycle.said)

    def came(self) -> Came:
        """Return what it has come to so far."""
        return Came(self._tally.figures(), self.watch)


def _under_way(world: World, cycle: Cycle) -> Counter[int]:
    """Return what decisions of earlier cycles are still to bring to each node.

    A worker has no more than what it holds on the source.
    """
    new = {f"{cycle.snapshot.cycle}:{one.label}" for one in cycle.said if one.moves}
    held = {
        worker.id: worker.residency.by_node(mobility=Mobility.MOVABLE)
        for worker in cycle.snapshot.workers
        if worker.residency is not None
    }
    coming: Counter[int] = Counter()
    jobs = [(world._job.decision, world._job.left)] if world._job is not None else []
    jobs += [(d, [[m.source, m.target, m.move_bytes] for m in d.moves]) for d in world._queue]
    for decision, left in jobs:
        if decision.id in new:
            continue
        there = dict(held.get(decision.worker, {}))
        for source, target, size in left:
            part = min(size, there.get(source, 0))
            there[source] = there.get(source, 0) - part
            coming[target] += part
    return coming


class _Overwriting(World):
    """A world whose workers let their users' masks be overwritten, as the kernel does."""

    def look(self, seen: Snapshot) -> Snapshot:
        """Return what is seen; pins are the users', but hinder nothing."""
        workers = tuple(_freed(worker, seen.topology.cpus) for worker in seen.workers)
        return super().look(replace(seen, workers=workers))


def _freed(worker: Worker, cpus: frozenset[int]) -> Worker:
    if worker.rule != PINNED:
        return worker
    threads = tuple(replace(thread, affinity=cpus) for thread in worker.threads)
    return replace(worker, threads=threads)


def overwritten(seen: Snapshot, said: Iterable[Said]) -> set[str]:
    """Return who is bound beyond the mask of its user."""
    pins = {worker.label: worker.allowed_cpus for worker in seen.workers if worker.rule == PINNED}
    return {
        one.label
        for one in said
        if one.bind_cpus is not None and one.label in pins and not one.bind_cpus <= pins[one.label]
    }
