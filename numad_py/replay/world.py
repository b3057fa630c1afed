"""A simulated machine: a kernel that gives memory, and a mover that works at the policy's rate.

What comes to it is told by scenes: snapshots whose node states are as if no worker had any movable
memory or kept a CPU busy. Workers, their sizes, their demand and where their memory was first are a
scene's; where it lies afterwards, and where bound threads run, is the simulation's. Memory moves at
the policy's rate, by whichever call; what is under a user's mempolicy does not move, and what is
shared only with a decision to move it for all its users.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from numad_py.decide.sizes import huge_free
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.plan import Decision, Plan, Verdict
from numad_py.model.residency import BASE_PAGE_BYTES, Kind, SegmentId
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.model.topology import Topology
from numad_py.policy.schema import GIB, Policy
from numad_py.replay.guest import Guest, What, movable_of, pool_of

UNPACED_BYTES_PER_S = 4 * GIB
"""What a mover without a rate is taken to move: base pages of one thread on servers of today."""
UNLIMITED = 1 << 62


@dataclass
class _Job:
    """A decision that the mover has begun."""

    decision: Decision
    began_s: float
    left: list[list[int]]
    """[source, target, bytes] in order."""
    bound: int = 0
    given_back: int = 0
    moved: dict[tuple[int, int], int] = field(default_factory=dict)
    shared_left: int = 0
    """Bytes that are still to be moved of what others map too."""


def scene(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot as a scene: its workers' movable memory and CPU time off its nodes."""
    held: dict[tuple[int, int | None], int] = {}
    for worker in snapshot.workers:
        for what, by_node in movable_of(worker.residency).items() if worker.residency else ():
            for node, size in by_node.items():
                held[node, pool_of(what)] = held.get((node, pool_of(what)), 0) + size
    busy = _busy(snapshot.workers)
    states = tuple(
        replace(
            s,
            free_bytes=min(s.total_bytes, s.free_bytes + held.get((s.node, None), 0)),
            huge_pages=tuple(
                replace(
                    pool, free=pool.free + held.get((s.node, pool.page_bytes), 0) // pool.page_bytes
                )
                for pool in s.huge_pages
            ),
            busy_cpus=max(0.0, (s.busy_cpus or 0.0) - busy.get(s.node, 0.0)),
        )
        for s in snapshot.node_states
    )
    return replace(snapshot, node_states=states)


def _busy(workers: Iterable[Worker]) -> dict[int, float]:
    """Return the CPUs that workers keep busy, by node."""
    busy: dict[int, float] = {}
    for worker in workers:
        for node, share in worker.run_share.items():
            busy[node] = busy.get(node, 0.0) + share * worker.demand_cpus
    return busy


class World:
    """Goes from scene to scene; between two of them the mover works on what it was given."""

    def __init__(self, policy: Policy, *, acts: bool = True, minds_headroom: bool = True) -> None:
        """Be empty.

        Args:
            policy: how fast memory moves, and how much of a node stays free.
            acts: False: nothing is touched, every decision ends as simulated.
            minds_headroom: the mover stops where a node has lost its headroom, as the real one
                does; False lets it go on to the last free byte, so that a plan shows what it does.
        """
        self._policy = policy
        self._acts = acts
        self._minds_headroom = minds_headroom
        self._topology = Topology(())
        self._guests: dict[WorkerId, Guest] = {}
        self._used: dict[tuple[int, int | None], int] = {}
        """Movable bytes of all guests by node and pool of huge pages; None: of none."""
        self._relocated: dict[SegmentId, dict[int, int]] = {}
        """Where files and segments that several map are by now, by where they are seen."""
        self._bare: dict[int, NodeState] = {}
        self._clock_s = 0.0
        self._queue: deque[Decision] = deque()
        self._job: _Job | None = None
        self._ended: list[Outcome] = []

    def look(self, seen: Snapshot) -> Snapshot:
        """Let the time of a scene come, and return what is seen of the machine then."""
        self._work_until(seen.at_s)
        self._topology = seen.topology
        self._bare = {state.node: state for state in seen.node_states}
        alive = set()
        # Sizes of those who are here already first: what goes makes room for those who come.
        for worker in sorted(seen.workers, key=lambda w: w.id not in self._guests):
            alive.add(worker.id)
            guest = self._guests.get(worker.id)
            if guest is None:
                guest = Guest.arrived(worker, seen.at_s, self._relocated)
                self._guests[worker.id] = guest
                self._resize(guest, worker)
            elif worker is not guest.seen:
                guest.follow(worker, seen.topology)
                self._resize(guest, worker)
        for gone in self._guests.keys() - alive:
            self._drop(self._guests.pop(gone))
        workers = tuple(self._guests[w.id].worker(seen.at_s) for w in seen.workers)
        busy = _busy(workers)
        states = tuple(self._state(s, busy.get(s.node, 0.0)) for s in seen.node_states)
        return replace(seen, workers=workers, node_states=states)

    def submit(self, plan: Plan) -> None:
        """Hand the plan's decisions to the mover."""
        at_s = self._clock_s
        for decision in plan.decisions:
            if decision.verdict is not Verdict.ACT:
                continue
            if self._acts:
                self._queue.append(decision)
            else:
                self._ended.append(Outcome(decision, End.SIMULATED, at_s, 0.0))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended since the last call."""
        ended, self._ended = tuple(self._ended), []
        return ended

    # Nodes

    def _free(self, node: int, pool: int | None) -> int:
        """Return what no one has on a node, file cache included; negative where it is overfull."""
        bare = self._bare.get(node)
        if bare is None:
            return 0
        used = self._used.get((node, pool), 0)
        if pool is not None:
            return huge_free(bare).get(pool, 0) - used
        return bare.free_bytes + bare.reclaimable_bytes - used

    def _room(self, node: int, pool: int | None) -> int:
        """Return what the mover may bring to a node."""
        bare = self._bare.get(node)
        if bare is None:
            return 0
        if pool is not None:
            return self._free(node, pool)
        if self._minds_headroom:
            return self._state(bare, 0.0).room_bytes(self._policy.placement.headroom)
        return self._free(node, None)

    def _state(self, bare: NodeState, busy_cpus: float) -> NodeState:
        free = bare.free_bytes - self._used.get((bare.node, None), 0)
        return NodeState(
            node=bare.node,
            total_bytes=bare.total_bytes,
            free_bytes=max(0, free),
            # What does not fit beside the file cache has pushed some of it out.
            reclaimable_bytes=max(0, bare.reclaimable_bytes + min(0, free)),
            huge_pages=tuple(
                replace(
                    pool, free=max(0, self._free(bare.node, pool.page_bytes)) // pool.page_bytes
                )
                for pool in bare.huge_pages
            ),
            numastat=bare.numastat,
            busy_cpus=(bare.busy_cpus or 0.0) + busy_cpus,
        )

    # Memory comes and goes

    def _resize(self, guest: Guest, seen: Worker) -> None:
        """Give a worker the movable bytes that it has by now, and take those it has given back.

        New memory is first touched where its threads run; at its arrival it is where the scene
        says, as far as there is room.
        """
        if seen.residency is None:
            return
        wanted = movable_of(seen.residency)
        arriving = not guest.held
        # In order: the same recording is to give the same figures each time.
        for what in [*guest.held, *(what for what in wanted if what not in guest.held)]:
            held = guest.held.setdefault(what, {})
            by_node = wanted.get(what, {})
            more = sum(by_node.values()) - sum(held.values())
            if more > 0:
                shares = by_node if arriving else guest.run_share or by_node
                self._touch(what, held, more, shares, seen)
            elif more < 0:
                self._give_back(what, held, -more)
        guest.residency = None

    def _touch(
        self,
        what: What,
        held: dict[int, int],
        size: int,
        shares: Mapping[int, float],
        seen: Worker,
    ) -> None:
        """Put new bytes onto nodes by their shares; what finds no room goes to the nearest."""
        left, weight, pool = size, sum(shares.values()), pool_of(what)
        for node, share in shares.items() if weight > 0 else ():
            part = min(left, math.ceil(size * share / weight))
            left -= self._put(held, node, min(part, self._allowed(node, pool, seen)), pool)
        if left:
            first = max(shares, key=lambda n: (shares[n], -n))
            for node in sorted(
                self._topology.node_ids, key=lambda n: (self._topology.distance(first, n), n)
            ):
                left -= self._put(held, node, min(left, self._allowed(node, pool, seen)), pool)
        if left:
            # More than the machine has; a kernel would swap, or kill somebody.
            self._put(held, first, left, pool)

    def _allowed(self, node: int, pool: int | None, seen: Worker) -> int:
        """Return what the kernel would still give a worker on a node."""
        mems = seen.memory.mems_allowed
        if mems is not None and node not in mems:
            return 0
        # Huge pages of a size that is not known are of a pool that is not known.
        return UNLIMITED if pool == BASE_PAGE_BYTES else max(0, self._free(node, pool))

    def _put(self, held: dict[int, int], node: int, size: int, pool: int | None) -> int:
        if size:
            held[node] = held.get(node, 0) + size
            self._used[node, pool] = self._used.get((node, pool), 0) + size
        return size

    def _give_back(self, what: What, held: dict[int, int], size: int) -> None:
        """Take bytes off each node in proportion."""
        left, total = size, sum(held.values())
        for node, there in held.items():
            part = min(left, there, -(-size * there // total))  # rounded up
            self._put(held, node, -part, pool_of(what))
            left -= part

    def _drop(self, guest: Guest) -> None:
        for what, held in guest.held.items():
            for node, size in held.items():
                self._put(held, node, -size, pool_of(what))

    # The mover

    def _work_until(self, at_s: float) -> None:
        """Carry out what is queued, one decision after the other, as far as the time goes."""
        while self._job is not None or self._queue:
            if self._job is None:
                self._job = self._begin(self._queue.popleft())
            end = self._move(self._job, at_s)
            if end is None:
                break
            self._end(self._job, end)
            self._job = None
        self._clock_s = at_s

    def _begin(self, decision: Decision) -> _Job:
        job = _Job(
            decision, self._clock_s, [[m.source, m.target, m.move_bytes] for m in decision.moves]
        )
        job.shared_left = sum(shared.away_bytes for shared in decision.carried)
        guest = self._guests.get(decision.worker)
        if guest is not None and not decision.give_back:
            # As the real mover does: what has come to a source since goes to its last target.
            last = {part[0]: part for part in job.left}
            for source, part in last.items():
                planned = sum(size for at, _, size in job.left if at == source)
                part[2] += max(0, guest.bytes_on(source) - planned)
        if guest is not None and decision.bind_cpus is not None:
            job.bound = guest.bind(decision.bind_cpus, self._topology)
        if guest is not None and decision.give_back:
            job.given_back = guest.unbind()
        return job

    def _move(self, job: _Job, until_s: float) -> End | None:
        """Move until the time is up: then None, else how it ended."""
        guest = self._guests.get(job.decision.worker)
        if guest is None:
            return End.GONE
        rate = self._policy.migration.rate_bytes_per_s or UNPACED_BYTES_PER_S
        while job.left:
            source, target, planned = job.left[0]
            left = min(planned, guest.bytes_on(source))
            time = math.floor((until_s - self._clock_s) * rate)
            full = False
            for pool, there in guest.pools_on(source).items():
                size, room = min(left, there), self._room(target, pool)
                part = max(0, min(size, room, time))
                guest.shift(source, target, part, pool)
                self._used[source, pool] = self._used.get((source, pool), 0) - part
                self._used[target, pool] = self._used.get((target, pool), 0) + part
                job.moved[source, target] = job.moved.get((source, target), 0) + part
                self._clock_s += part / rate
                full = full or (part < size and room <= time)
                left, time = left - part, time - part
            if left:
                job.left[0][2] = left
                return End.NO_ROOM if full else None
            job.left.pop(0)
        part = min(job.shared_left, math.floor((until_s - self._clock_s) * rate))
        self._clock_s += part / rate
        job.shared_left -= part
        if job.shared_left:
            return None
        self._carry(job, guest)
        return End.DONE

    def _carry(self, job: _Job, carrier: Guest) -> None:
        """Have what the worker moves for all its users on their home."""
        targets = {move.source: move.target for move in job.decision.moves}
        seen = carrier.measured(self._clock_s)
        parts = {part.id: part for part in seen.segments} if seen is not None else {}
        for shared in job.decision.carried:
            places = self._relocated.setdefault(shared.id, {})
            known = parts[shared.id].shared_by_node if shared.id in parts else ()
            kind = parts[shared.id].kind if shared.id in parts else Kind.FILE
            pool = pool_of((kind, BASE_PAGE_BYTES))
            for source, size in ((n, size) for n, size in known if n in targets):
                target = targets[source]
                places.update({was: target for was, is_ in places.items() if is_ == source})
                places.setdefault(source, target)
                self._used[source, pool] = self._used.get((source, pool), 0) - size
                self._used[target, pool] = self._used.get((target, pool), 0) + size
                job.moved[source, target] = job.moved.get((source, target), 0) + size
        if job.decision.carried:
            for guest in self._guests.values():
                guest.residency = None

    def _end(self, job: _Job, end: End) -> None:
        guest = self._guests.get(job.decision.worker)
        moved = {pair: size for pair, size in job.moved.items() if size}
        self._ended.append(
            Outcome(
                decision=job.decision,
                end=end,
                started_at_s=job.began_s,
                duration_s=self._clock_s - job.began_s,
                threads_bound=job.bound,
                threads_given_back=job.given_back,
                moved=moved,
                pages={PageStatus.MOVED: sum(moved.values()) // BASE_PAGE_BYTES} if moved else {},
                after=guest.measured(self._clock_s) if guest is not None and moved else None,
            )
        )
