"""Room promised to processes to come, until they are there: at most so many, each for a while."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from numad_py.decide.home import user_mask
from numad_py.model.advice import Advice, Reservation
from numad_py.model.snapshot import Snapshot, Worker

ASKED_S = 10.0
"""Whoever asks and then becomes the program by exec (``advise --run``) began so long before the
promise at most."""
MOST = 1024
"""Whoever asks in a loop must not fill our memory."""


@dataclass(frozen=True)
class Reservations:
    """Those that are alive, oldest first; replaced, never changed."""

    alive: tuple[Reservation, ...] = ()
    last_id: int = 0

    def at(self, now_s: float) -> Reservations:
        """Return those that have not ended by then (time since boot)."""
        return replace(self, alive=tuple(r for r in self.alive if now_s < r.until_s))

    def without(self, name: str | None) -> Reservations:
        """Return all but the one of that name; None is no name."""
        if name is None:
            return self
        return replace(self, alive=tuple(r for r in self.alive if r.name != name))

    def add(
        self, advice: Advice, name: str | None, until_s: float, made_at_s: float = 0.0
    ) -> Reservations:
        """Return them with one more, which is the last; one of the same name goes."""
        one = Reservation(
            self.last_id + 1, name, advice.bytes_by_node, advice.cpus_by_node, until_s, made_at_s
        )
        return Reservations((*self.without(name).alive, one), one.id)

    @property
    def full(self) -> bool:
        """Whether there can be no more."""
        return len(self.alive) >= MOST

    def taken_bytes(self) -> dict[int, int]:
        """Return what is promised, by node."""
        taken: dict[int, int] = {}
        for reservation in self.alive:
            for node, size in reservation.bytes_by_node.items():
                taken[node] = taken.get(node, 0) + size
        return taken

    def taken_cpus(self) -> dict[int, float]:
        """Return the CPUs that are promised, by node."""
        taken: dict[int, float] = {}
        for reservation in self.alive:
            for node, cpus in reservation.cpus_by_node.items():
                taken[node] = taken.get(node, 0.0) + cpus
        return taken


def still_to_come(reserved: Iterable[Reservation], snapshot: Snapshot) -> Reservations:
    """Return what is still promised by the time of a look, less what has come already.

    A worker that has begun since, or just before, and by its user may run on these nodes alone, is
    taken for the process that they are kept for: as ``advise --run`` starts it. What it has is no
    longer to come, or the same memory would be counted twice until the reservation ends. One that
    was a worker before, and has become another program, is none of those to come.
    """
    left = list(Reservations(tuple(reserved)).at(snapshot.at_s).alive)
    nodes = [one.nodes for one in left]
    # There may be many, of few sets of nodes.
    cpus = {its: snapshot.topology.cpus_of(its) for its in set(nodes)}
    open_ = [i for i, one in enumerate(left) if _is_left(one)]
    first_s = min((left[i].made_at_s for i in open_), default=math.inf)
    for worker in snapshot.workers:
        if worker.execed_at_s is not None:
            continue
        began_at_s = snapshot.at_s - worker.age_s + ASKED_S
        mask = user_mask(worker, snapshot.topology) if began_at_s >= first_s else frozenset()
        around = {its for its, those in cpus.items() if mask <= those} if mask else set()
        if not around:
            continue
        for at, i in enumerate(open_):
            if nodes[i] in around and began_at_s >= left[i].made_at_s:
                left[i] = _taken_up(left[i], worker)
                if not _is_left(left[i]):
                    del open_[at]
                break
    return Reservations(tuple(left))


def with_promises(snapshot: Snapshot, promised: Mapping[int, int]) -> Snapshot:
    """Return a look in which nothing is free that is promised to processes to come, by node."""
    if not any(promised.values()):
        return snapshot
    states = tuple(
        replace(state, free_bytes=state.free_bytes - promised.get(state.node, 0))
        for state in snapshot.node_states
    )
    return replace(snapshot, node_states=states)


def _is_left(one: Reservation) -> bool:
    return any(one.bytes_by_node.values()) or any(one.cpus_by_node.values())


def _taken_up(one: Reservation, worker: Worker) -> Reservation:
    """Return a reservation less what a worker has: where it has it first, then wherever."""
    held = worker.residency.by_node() if worker.residency is not None else {}
    ran = {node: share * worker.demand_cpus for node, share in worker.run_share.items()}
    sizes = {node: int(left) for node, left in _less(one.bytes_by_node, held).items()}
    return replace(one, bytes_by_node=sizes, cpus_by_node=_less(one.cpus_by_node, ran))


def _less(promised: Mapping[int, float], has: Mapping[int, float]) -> dict[int, float]:
    left = {node: max(0.0, size - has.get(node, 0)) for node, size in promised.items()}
    over = sum(has.values()) - (sum(promised.values()) - sum(left.values()))
    for node in sorted(left):
        part = min(left[node], max(0.0, over))
        left[node] -= part
        over -= part
    return left
