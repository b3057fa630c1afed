"""What a run came to, in figures that can be set beside those of another policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from numad_py.model.cycle import Cycle, Said
from numad_py.model.outcome import Outcome
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import PlacementPolicy

NEARLY_ALL = 0.99
"""A machine is called local from this locality on."""
PING_PONG_S = 600.0
"""Memory that comes back to a node within this time of leaving it was moved in vain."""
MOST_POINTS = 200
NOTABLE_BYTES = 1 << 20
"""Fewer bytes than these are no move to speak of."""


@dataclass(frozen=True)
class Figures:
    """One run."""

    name: str
    cycles: int
    duration_s: float
    workers: int
    """That were there at any time."""
    locality_mean: float | None
    """Share of all movable bytes that lie on their workers' homes, over time; a worker without a
    home counts by where it runs. None where nothing was movable."""
    locality_end: float | None
    near_mean: float | None
    """Share of accesses that would be near, were each byte used alike by each CPU second: does not
    hang on what a policy calls home."""
    near_end: float | None
    local_after_s: float | None
    """Time until the locality was first 99 %; None: never."""
    moved_bytes: int
    moves: int
    """Outcomes that moved something to speak of."""
    moves_most: int
    """Of one worker."""
    ping_pongs: int
    """Moves that brought a worker's memory back to a node it had left within the window."""
    headroom_broken: int
    """Plans that would have brought more to a node than it had room for, by node and cycle."""
    decisions: Mapping[str, int] = field(default_factory=dict)
    """``verdict reason``, by worker and cycle."""
    ends: Mapping[str, int] = field(default_factory=dict)
    """How what was acted on ended."""
    locality: tuple[tuple[float, float | None], ...] = ()
    """Over time: (seconds since the first cycle, share); fewer of a long run."""


class _Curve:
    """Values over time, thinned out as they become many."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float | None]] = []
        self._every = 1
        self._count = 0
        self._last: tuple[float, float | None] | None = None

    def whole(self) -> tuple[tuple[float, float | None], ...]:
        """Return the points, and the last value in any case: it is what a run came to."""
        if self._last is None or self.points[-1] == self._last:
            return tuple(self.points)
        return (*self.points, self._last)

    def add(self, at_s: float, value: float | None) -> None:
        self._last = at_s, value
        if self._count % self._every == 0:
            self.points.append((at_s, value))
            if len(self.points) >= MOST_POINTS:
                self.points = self.points[::2]
                self._every *= 2
        self._count += 1


@dataclass
class _Mean:
    """A share over time: each value stands until the next."""

    total: float = 0.0
    weight: float = 0.0
    last: float | None = None

    def add(self, value: float | None, for_s: float) -> None:
        if self.last is not None:
            self.total += self.last * for_s
            self.weight += for_s
        self.last = value

    def mean(self) -> float | None:
        """Return it; that of a single look is what was seen."""
        return self.total / self.weight if self.weight else self.last


class Tally:
    """Takes in cycles and makes figures of them."""

    def __init__(
        self, name: str, policy: PlacementPolicy, *, ping_pong_s: float = PING_PONG_S
    ) -> None:
        """Count for a run under this policy."""
        self.name = name
        self._policy = policy
        self._ping_pong_s = ping_pong_s
        self._cycles = 0
        self._began_s = self._last_s = 0.0
        self._locality, self._near = _Mean(), _Mean()
        self._curve = _Curve()
        self._local_after_s: float | None = None
        self._workers: set[WorkerId] = set()
        self._moves: Counter[WorkerId] = Counter()
        self._moved_bytes = self._ping_pongs = self._headroom_broken = 0
        self._left: dict[tuple[WorkerId, int], float] = {}
        """When a worker's memory last left a node."""
        self._decisions: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()

    def add(self, cycle: Cycle) -> None:
        """Take one in; cycles come in order of time."""
        at_s = cycle.snapshot.at_s
        if not self._cycles:
            self._began_s = self._last_s = at_s
        for_s = at_s - self._last_s
        self._cycles += 1
        self._last_s = at_s
        self._workers.update(worker.id for worker in cycle.snapshot.workers)
        locality, near = _shares(cycle)
        self._locality.add(locality, for_s)
        self._near.add(near, for_s)
        self._curve.add(round(at_s - self._began_s, 3), locality)
        if self._local_after_s is None and locality is not None and locality >= NEARLY_ALL:
            self._local_after_s = at_s - self._began_s
        for outcome in cycle.outcomes:
            self._outcome(outcome)
        self._decisions.update(f"{s.verdict.value} {s.reason.value}" for s in cycle.said)
        self._headroom_broken += self._beyond_room(cycle.snapshot, cycle.said)

    def figures(self) -> Figures:
        """Return what it has come to."""
        return Figures(
            name=self.name,
            cycles=self._cycles,
            duration_s=self._last_s - self._began_s,
            workers=len(self._workers),
            locality_mean=self._locality.mean(),
            locality_end=self._locality.last,
            near_mean=self._near.mean(),
            near_end=self._near.last,
            local_after_s=self._local_after_s,
            moved_bytes=self._moved_bytes,
            moves=sum(self._moves.values()),
            moves_most=max(self._moves.values(), default=0),
            ping_pongs=self._ping_pongs,
            headroom_broken=self._headroom_broken,
            decisions=dict(sorted(self._decisions.items())),
            ends=dict(sorted(self._ends.items())),
            locality=self._curve.whole(),
        )

    def _outcome(self, outcome: Outcome) -> None:
        self._ends[outcome.end.value] += 1
        self._moved_bytes += outcome.moved_bytes
        worker, ended_s = outcome.decision.worker, outcome.started_at_s + outcome.duration_s
        moved = [pair for pair, size in outcome.moved.items() if size >= NOTABLE_BYTES]
        if not moved:
            return
        self._moves[worker] += 1
        left = [self._left.get((worker, target)) for _, target in moved]
        self._ping_pongs += any(
            at_s is not None and outcome.started_at_s - at_s <= self._ping_pong_s for at_s in left
        )
        for source, _ in moved:
            self._left[worker, source] = ended_s

    def _beyond_room(self, snapshot: Snapshot, said: tuple[Said, ...]) -> int:
        coming: Counter[int] = Counter()
        for one in said:
            for move in one.moves:
                coming[move.target] += move.move_bytes
        if not coming:
            return 0
        headroom = self._policy.headroom
        room = {s.node: max(0, s.room_bytes(headroom)) for s in snapshot.node_states}
        return sum(size > room.get(node, 0) for node, size in coming.items())


def _shares(cycle: Cycle) -> tuple[float | None, float | None]:
    """Return the machine's locality, and the share of accesses that would be near."""
    homes = {said.worker: said.home for said in cycle.said}
    total = at_home = near = 0.0
    for worker in cycle.snapshot.workers:
        if worker.residency is None:
            continue
        movable = worker.residency.by_node(mobility=Mobility.MOVABLE)
        size = sum(movable.values())
        here = _near_bytes(worker, movable, size)
        home = homes.get(worker.id)
        total += size
        near += here
        at_home += here if home is None else sum(movable.get(node, 0) for node in home)
    return (at_home / total, near / total) if total else (None, None)


def _near_bytes(worker: Worker, movable: Mapping[int, int], size: int) -> float:
    """Return bytes by the share of its CPU time that a worker spends beside them.

    One that did not run has none far.
    """
    if not worker.run_share:
        return size
    return sum(movable.get(node, 0) * share for node, share in worker.run_share.items())
