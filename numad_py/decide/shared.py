"""Files and shared segments that several workers map: one of these moves them, once, for all.

A page is on the machine once, whoever maps it. So it is moved only where all who map it are known,
want that, and belong on the same nodes. What a worker is to move for all counts as its movable
memory, with one of them alone; for its other users it counts as left to that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from numad_py.decide.home import bound_by_user
from numad_py.decide.words import named
from numad_py.model.cpulist import format_list
from numad_py.model.plan import DecisionState, Home, Part, Shared, WorkerMemory
from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    SegmentId,
    SegmentPart,
    entries_of,
)
from numad_py.model.snapshot import Segment, Snapshot, Worker, WorkerId
from numad_py.policy.schema import Policy, Rule, SharedPages


@dataclass(frozen=True)
class Sharing:
    """Who moves what of the shared memory."""

    workers: Mapping[WorkerId, Worker] = field(default_factory=dict)
    """Those with memory whose mobility is another than a look by itself tells."""
    told: Mapping[WorkerId, tuple[Shared, ...]] = field(default_factory=dict)
    """What each worker shares and has away from its home, the largest first."""

    def seen(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with these workers in place of what a look tells."""
        if not self.workers:
            return snapshot
        workers = tuple(self.workers.get(worker.id, worker) for worker in snapshot.workers)
        return replace(snapshot, workers=workers)


@dataclass(frozen=True)
class _User:
    """A worker that maps the segment in question."""

    worker: Worker
    rule: Rule | None
    home: Home | None
    memory: WorkerMemory
    here: Mapping[int, int]
    """Bytes by node of the segment that it maps, in areas that others map too."""

    @property
    def label(self) -> str:
        return self.worker.label

    @property
    def away_bytes(self) -> int:
        """Return what of these lies off its home."""
        if self.home is None:
            return 0
        return sum(size for node, size in self.here.items() if node not in self.home.nodes)


def leave_files(snapshot: Snapshot, policy: Policy) -> Snapshot:
    """Return the snapshot with files as left alone where a rule says ``files = false``."""
    leaving = {rule.name for rule in policy.rules if not rule.files}
    if not leaving:
        return snapshot
    workers = tuple(
        _with_mobility(worker, _files_left) if worker.rule in leaving else worker
        for worker in snapshot.workers
    )
    return replace(snapshot, workers=workers)


def share(
    snapshot: Snapshot,
    policy: Policy,
    state: DecisionState,
    homes: Mapping[WorkerId, Home | None],
) -> Sharing:
    """Return who moves which of the files and segments that several workers map.

    For each worker that has some of it away from its home, and whose rule says
    ``shared = "users"``, the first line that applies:

    ======================================================  ============================
    a user's rule does not say so, or leaves files alone    stays
    a user has no home, or its user placed its memory       stays
    two users have different homes                          stays
    a page has more mappings than there are known users     stays
    it would not move lately                                stays
    another user than the one below is being moved          waits
    it is the first by label that has some of it away       carries: moves it for all
    else                                                    waits
    ======================================================  ============================

    Args:
        snapshot: workers with their residency; the segments that they map.
        policy: what the rules say.
        state: who is being moved, and what would not move.
        homes: of all workers.
    """
    if all(rule.shared is SharedPages.LEAVE for rule in policy.rules):
        return Sharing()
    rules = {rule.name: rule for rule in policy.rules}
    by_label = {worker.label: worker for worker in snapshot.workers}
    told: dict[WorkerId, list[Shared]] = {}
    changes: dict[WorkerId, list[tuple[Kind, Mapping[int, int], Mobility]]] = {}
    for segment in snapshot.segments:
        users = [
            _User(
                worker=(worker := by_label[label]),
                rule=rules.get(worker.rule),
                home=homes.get(worker.id),
                memory=state.of(worker.id),
                here=_shared_of(worker, segment.id),
            )
            for label in segment.users
        ]
        for user, part, why in _parts(segment, users):
            ids = tuple(u.worker.id for u in users)
            shared = Shared(segment.id, segment.path, user.away_bytes, ids, part, why)
            told.setdefault(user.worker.id, []).append(shared)
            if part is not Part.STAYS:
                to = Mobility.MOVABLE if part is Part.CARRIES else Mobility.LEFT
                changes.setdefault(user.worker.id, []).append((segment.kind, user.here, to))
    workers: dict[WorkerId, Worker] = {}
    for worker in snapshot.workers:
        for kind, by_node, to in changes.get(worker.id, ()):
            before = workers.get(worker.id, worker)
            workers[worker.id] = _with_mobility(before, _shared_to(kind, by_node, to))
    ordered = {key: tuple(sorted(all_, key=_largest)) for key, all_ in told.items()}
    return Sharing(workers, ordered)


def _parts(segment: Segment, users: Sequence[_User]) -> Iterator[tuple[_User, Part, str]]:
    """Yield what each user has to do with the move of a segment, and why, in words."""
    flaws = {user.label: flaw for user in users if (flaw := _flaw(segment, user))}
    wanting = [user for user in users if user.label not in flaws and user.away_bytes]
    if not wanting:
        return
    obstacle = _obstacle(segment, users)
    for user in wanting:
        others = (u for u in users if u is not user)
        why = next((f"{u.label}, {flaws[u.label]}" for u in others if u.label in flaws), None)
        if why is None:
            why = _elsewhere(user, users)
        why = f"it is shared with {why}" if why is not None else obstacle
        if why is not None:
            yield user, Part.STAYS, f"stays: {why}"
    if flaws or obstacle or any(_elsewhere(user, users) for user in users):
        return
    first = wanting[0]
    moving = next((u for u in users if u.memory.moving and u is not first), None)
    for user in wanting:
        if moving is not None:
            yield user, Part.WAITS, f"waits until {moving.label} has been moved"
        elif user is first:
            others_named = named([u.label for u in users if u is not user])
            yield user, Part.CARRIES, f"is moved once, for {others_named} too"
        else:
            yield user, Part.WAITS, f"is left to {first.label}, which moves it for all"


def _flaw(segment: Segment, user: _User) -> str | None:
    """Say what keeps a user, and so all of them, from having a segment moved."""
    if user.rule is None or user.rule.shared is SharedPages.LEAVE:
        return 'whose rule does not say shared = "users"'
    if segment.kind is Kind.FILE and not user.rule.files:
        return "whose rule leaves files alone"
    if bound_by_user(user.worker):
        return "whose user placed its memory"
    if user.home is None:
        return "which has no home"
    return None


def _elsewhere(user: _User, users: Sequence[_User]) -> str | None:
    """Name a user that belongs on other nodes."""
    for other in users:
        if user.home and other.home and other.home.nodes != user.home.nodes:
            return f"{other.label}, whose home is node {format_list(other.home.nodes)}"
    return None


def _obstacle(segment: Segment, users: Sequence[_User]) -> str | None:
    """Say what keeps a segment from being moved, whoever looks at it."""
    if len(users) == 1:
        return "others map it too, and none of them is a known worker"
    if segment.mapmax > len(users):
        return (
            f"up to {segment.mapmax} processes map a page of it, and only {len(users)} of all that "
            "map it are known workers"
        )
    tried = next((user for user in users if segment.id in user.memory.stuck), None)
    return f"it would not move when {tried.label} was to move it" if tried is not None else None


def _shared_of(worker: Worker, segment: SegmentId) -> dict[int, int]:
    """Return a worker's bytes by node of a segment, in areas that others map too.

    A sample tells of the segment only how much lies where, and of the kind how much is shared.
    """
    residency = worker.residency
    part = _part(residency, segment)
    if residency is None or part is None:
        return {}
    if part.mapmax or residency.full:
        return dict(part.shared_by_node)
    shared = _shared_of_kind(residency, part.kind)
    found = {node: min(size, shared.get(node, 0)) for node, size in part.bytes_by_node}
    return {node: size for node, size in found.items() if size}


def _part(residency: Residency | None, segment: SegmentId) -> SegmentPart | None:
    parts = residency.segments if residency is not None else ()
    return next((part for part in parts if part.id == segment), None)


def _shared_of_kind(residency: Residency, kind: Kind) -> dict[int, int]:
    total: dict[int, int] = {}
    for entry in residency.entries:
        if entry.kind is kind and entry.mobility is Mobility.SHARED:
            total[entry.node] = total.get(entry.node, 0) + entry.resident_bytes
    return total


# Counting memory as other than it was read

_Sizes = dict[tuple[int, Kind, Mobility, int], int]
"""Bytes by node, kind, mobility and size of page."""


def _with_mobility(worker: Worker, change: Callable[[_Sizes], None]) -> Worker:
    residency = worker.residency
    if residency is None:
        return worker
    sizes = {
        (e.node, e.kind, e.mobility, e.page_bytes): e.resident_bytes for e in residency.entries
    }
    change(sizes)
    return replace(worker, residency=replace(residency, entries=entries_of(sizes)))


def _files_left(sizes: _Sizes) -> None:
    for key in list(sizes):
        if key[1] is Kind.FILE and key[2] is not Mobility.POLICY:
            _shift(sizes, key, Mobility.LEFT, sizes[key])


def _shared_to(kind: Kind, by_node: Mapping[int, int], to: Mobility) -> Callable[[_Sizes], None]:
    def change(sizes: _Sizes) -> None:
        left = dict(by_node)
        for key in list(sizes):
            if key[1] is kind and key[2] is Mobility.SHARED and left.get(key[0]):
                part = min(left[key[0]], sizes[key])
                _shift(sizes, key, to, part)
                left[key[0]] -= part

    return change


def _shift(sizes: _Sizes, key: tuple[int, Kind, Mobility, int], to: Mobility, size: int) -> None:
    node, kind, _, page_bytes = key
    sizes[key] -= size
    there = node, kind, to, page_bytes
    sizes[there] = sizes.get(there, 0) + size


def _largest(shared: Shared) -> tuple[int, SegmentId]:
    return -shared.away_bytes, shared.id
