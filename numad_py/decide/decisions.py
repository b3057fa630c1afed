"""One decision for each worker in each cycle, and the state for the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from numad_py.decide import words
from numad_py.decide.findings import diagnose
from numad_py.decide.guard.guards import Guards
from numad_py.decide.home import Given, bound_by_user, given_home, user_mask
from numad_py.decide.huge import makes_pages
from numad_py.decide.moves import reserve
from numad_py.decide.planner import place
from numad_py.decide.remember import cooldown_s
from numad_py.decide.reservations import with_promises
from numad_py.decide.room import Room
from numad_py.decide.said import Said as _Said
from numad_py.decide.shared import leave_files, share
from numad_py.decide.turns import Turn, Wish, turns
from numad_py.decide.watch import loading, watch, watch_others
from numad_py.model.plan import (
    Decision,
    DecisionState,
    Finding,
    Home,
    HomeSource,
    MemoryMove,
    Placed,
    Plan,
    Reason,
    Shared,
    Verdict,
    WorkerMemory,
)
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import Mode, PlacementPolicy, Policy

RUN_LOCALITY = 0.9
"""Threads that spend less of their CPU time at home than this are away."""


LEFT_SHARE = 0.05
"""A node from which less than this share of a move comes, and less than ``min_remote``, was no
place of the worker's."""
FINISHED_LOCALITY = 0.99
"""A move that was broken off goes on below this locality,"""
FINISHED_BYTES = 1 << 20
"""and while at least so much is remote."""
LATELY_S = 60.0
"""Nothing is done by figures that were read in full longer ago, though a sample confirms them."""


@dataclass(frozen=True)
class _Case:
    """All that a decision about one worker is made of."""

    worker: Worker
    memory: WorkerMemory
    given: Given
    finding: Finding
    placed: Placed
    remote: bool
    bind: frozenset[int] | None


def decide(snapshot: Snapshot, policy: Policy, state: DecisionState) -> tuple[Plan, DecisionState]:
    """Return what is done about every worker, and what is to be remembered.

    The first line that applies decides:

    ===============================================  ======  ================
    one node has memory                              rest    one-node
    its memory could not be read                     wait    unreadable
    most of its memory is under a user's mempolicy   refuse  mempolicy
    rule, pin or cpuset leave it no home, or none    refuse  no-home
    has room for it
    it is being moved                                wait    moving
    memory remote or threads away, but it has grown  wait    loading
    lately
    the same, but paused                             wait    paused
    the same, but acted on within the cooldown       wait    cooldown
    the same, but its memory was not read in full    wait    measuring
    memory remote, others move first                 wait    queued
    memory remote, no room at home                   refuse  no-room
    to be acted on by what was read in full long ago wait    measuring
    memory remote                                    act     remote-memory
    threads away or free to leave                    act     remote-threads
    all that is remote refused to move or is shared  refuse  immovable
    some memory remote, below the thresholds         rest    below-threshold
    else                                             rest    home
    ===============================================  ======  ================

    Where a rule names a guard, ``guard`` has lines of its own, from behind the one on moves on.
    """
    snapshot = leave_files(snapshot, policy)
    watched = {w.id: watch(state.of(w.id), w, snapshot.at_s) for w in snapshot.workers}
    state = replace(state, workers=watched)
    plannable = [w.id for w in snapshot.workers if _plannable(w)]
    given = _given(snapshot, policy)
    counted = [key for key in plannable if given[key].obstacle is None]
    state = watch_others(state, snapshot, counted)
    kept = with_promises(snapshot, state.reserved)
    placing = place(kept, policy, state, {key: given[key] for key in plannable})
    state = replace(state, placing=placing)
    placed = {w.id: placing.workers.get(w.id, Placed(given[w.id].home)) for w in snapshot.workers}
    sharing = share(snapshot, policy, state, {key: p.home for key, p in placed.items()})
    snapshot = sharing.seen(snapshot)
    made = _cases(snapshot, policy, state, given, placed)
    cases = {case.worker.id: case for case in made}
    guards = Guards(snapshot, policy, state)
    said = {key: _say(case, snapshot, policy.placement, state) for key, case in cases.items()}
    room = Room(kept, policy.placement, makes_pages=makes_pages(policy))
    for case in cases.values():
        reserve(case.worker, case.memory, snapshot.topology, room)
    free, said = said, guards.hold(said, room)
    wishes = _wishes(cases, {key for key in cases if _would_move(said[key])})
    if guards.waiting:
        # Whoever would not get a turn without its guard waits for that, or is refused.
        every = [*wishes, *_wishes(cases, guards.waiting)]
        any_bytes = sum(wish.finding.remote_bytes for wish in every)
        for key, turn in turns(every, snapshot, state, room.copy(), any_bytes).items():
            if key in guards.waiting and turn.moves is None:
                said[key] = _taken(cases[key], turn) if _would_move(free[key]) else free[key]
    most_bytes = policy.placement.moved_per_cycle_bytes
    for key, turn in turns(wishes, snapshot, state, room, most_bytes).items():
        said[key] = _taken(cases[key], turn)
    if policy.daemon.mode is Mode.ACT:
        for key, case in cases.items():
            if _would_move(said[key]) and _read_long_ago(case.worker, snapshot.at_s):
                said[key] = _measuring(case)
    said = guards.admit(said)
    decisions = tuple(
        _decision(case, said[key], snapshot, policy, sharing.told.get(key, ()))
        for key, case in cases.items()
    )
    memories = {}
    for key, case in cases.items():
        after = _after(case, said[key], snapshot.at_s, policy.placement)
        memories[key] = guards.remember(key, after, said[key])
    return Plan(snapshot.cycle, decisions), replace(state, workers=memories)


def _given(snapshot: Snapshot, policy: Policy) -> dict[WorkerId, Given]:
    rules = {rule.name: rule for rule in policy.rules}
    follow = policy.placement.follow_devices
    return {
        w.id: given_home(w, rules.get(w.rule), snapshot.topology, follow_devices=follow)
        for w in snapshot.workers
    }


def _cases(
    snapshot: Snapshot,
    policy: Policy,
    state: DecisionState,
    given: Mapping[WorkerId, Given],
    placed: Mapping[WorkerId, Placed],
) -> list[_Case]:
    cases = []
    for worker in snapshot.workers:
        memory = state.of(worker.id)
        home = placed[worker.id].home
        finding = diagnose(worker, home, memory)
        remote = _is_remote(finding, policy.placement, memory, _unsure(worker))
        bind = None
        if home is not None:
            bind = _bind(worker, home, finding, snapshot, policy.placement, remote=remote)
        its = placed[worker.id]
        cases.append(_Case(worker, memory, given[worker.id], finding, its, remote, bind))
    return cases


def _wishes(cases: Mapping[WorkerId, _Case], keys: Collection[WorkerId]) -> list[Wish]:
    """Return what those of these workers want whose memory is to be moved."""
    return [
        Wish(case.worker, case.finding.home, case.finding)
        for key, case in cases.items()
        if key in keys and case.remote and case.finding.home
    ]


def _plannable(worker: Worker) -> bool:
    return worker.residency is not None and not bound_by_user(worker)


def _decision(
    case: _Case, said: _Said, snapshot: Snapshot, policy: Policy, shared: tuple[Shared, ...]
) -> Decision:
    worker = case.worker
    least_bytes = policy.placement.min_remote_bytes
    # What is taken back is the worker's own memory.
    shared = () if said.give_back else shared
    return Decision(
        id=f"{snapshot.cycle}:{worker.label}",
        worker=worker.id,
        label=worker.label,
        rule=worker.rule,
        verdict=said.verdict,
        reason=said.reason,
        why=words.with_shared(said.why, shared, least_bytes),
        finding=case.finding,
        bind_cpus=said.bind_cpus,
        moves=said.moves,
        retry_refused=case.memory.retry_refused,
        shared=shared,
        leave_files=any(not rule.files for rule in policy.rules if rule.name == worker.rule),
        alternatives=case.placed.alternatives,
        constraints=case.placed.constraints,
        cost=case.placed.cost,
        give_back=said.give_back,
        judgement=said.judgement or case.memory.guard.judgement,
    )


def _after(case: _Case, said: _Said, now_s: float, policy: PlacementPolicy) -> WorkerMemory:
    """Return what is to be remembered of a worker."""
    memory = case.memory
    left = {n: at for n, at in memory.left_at_s.items() if now_s - at < policy.no_way_back_s}
    waits = said.reason is Reason.QUEUED
    queued_at_s = (now_s if memory.queued_at_s is None else memory.queued_at_s) if waits else None
    home = case.placed.home
    if said.verdict in {Verdict.WAIT, Verdict.REFUSE} and memory.home and home:
        # Until it has moved, its home is where it was: else a passing plan would be hard to leave.
        home = memory.home if home.source is memory.home.source else home
    memory = replace(memory, home=home, left_at_s=left, queued_at_s=queued_at_s)
    if said.verdict is not Verdict.ACT:
        return memory
    memory = replace(memory, home=case.placed.home)
    total = sum(move.move_bytes for move in said.moves)
    least = min(policy.min_remote_bytes, LEFT_SHARE * total)
    left |= {move.source: now_s for move in said.moves if move.move_bytes >= least}
    unfinished = bool(said.moves)
    return replace(memory, moving=True, acted_at_s=now_s, unfinished=unfinished, left_at_s=left)


def _say(  # noqa: PLR0911 - the truth table, a line a line
    case: _Case, snapshot: Snapshot, policy: PlacementPolicy, state: DecisionState
) -> _Said:
    """Return what is said of a worker; whether it may move now is told by ``turns``."""
    worker, memory, finding = case.worker, case.memory, case.finding
    unplaceable = _unplaceable(case, snapshot)
    if unplaceable is not None:
        return unplaceable
    if memory.moving:
        return _Said(Verdict.WAIT, Reason.MOVING, "a move is under way")
    if not case.remote and case.bind is None:
        return _rest(worker, finding, memory, policy)
    calm_s = loading(memory, worker, policy, snapshot.at_s)
    if calm_s is not None:
        return _Said(Verdict.WAIT, Reason.LOADING, words.loading(finding, calm_s))
    if state.paused:
        return _Said(Verdict.WAIT, Reason.PAUSED, words.paused(finding))
    left_s = _cooldown_left_s(memory, policy, snapshot.at_s)
    if left_s > 0:
        return _Said(Verdict.WAIT, Reason.COOLDOWN, words.cooldown(finding, left_s))
    if worker.residency is not None and not worker.residency.full:
        # What a cheap look takes for movable may be bound by its user, and so may its threads.
        return _measuring(case)
    return _act(case, ())


def _unplaceable(case: _Case, snapshot: Snapshot) -> _Said | None:
    worker, topology = case.worker, snapshot.topology
    if sum(1 for node in topology.nodes if node.has_memory) < 2:  # noqa: PLR2004 - from and to
        return _Said(Verdict.REST, Reason.ONE_NODE, words.one_node())
    if worker.residency is None:
        return _Said(Verdict.WAIT, Reason.UNREADABLE, worker.problem or "its memory is not known")
    if bound_by_user(worker):
        return _Said(Verdict.REFUSE, Reason.MEMPOLICY, words.mempolicy(worker.residency))
    if case.finding.home is None:
        why = case.given.obstacle or words.no_home(case.finding, case.placed.constraints)
        return _Said(Verdict.REFUSE, Reason.NO_HOME, why)
    return None


def _would_move(said: _Said) -> bool:
    """Say whether something new is to be done; to take a move back needs no turn."""
    return said.verdict is Verdict.ACT and not said.give_back


def _measuring(case: _Case) -> _Said:
    residency = case.worker.residency
    unsure = _unsure(case.worker) if case.remote else None
    why = words.measuring(case.finding, residency, unsure) if residency is not None else ""
    return _Said(Verdict.WAIT, Reason.MEASURING, why)


def _read_long_ago(worker: Worker, now_s: float) -> bool:
    """Say whether its user may have bound its memory since: a later sample would not show that."""
    return worker.residency is not None and now_s - worker.residency.read_at_s > LATELY_S


def _act(case: _Case, moves: tuple[MemoryMove, ...]) -> _Said:
    home = case.finding.home
    if home is None:
        return _Said(Verdict.REFUSE, Reason.NO_HOME, words.no_home(case.finding))
    why = words.act(case.worker, case.finding, home, case.bind, moves)
    reason = Reason.REMOTE_MEMORY if moves else Reason.REMOTE_THREADS
    return _Said(Verdict.ACT, reason, why, case.bind, moves)


def _taken(case: _Case, turn: Turn) -> _Said:
    """Return what is said of a worker that wants to move, after its turn is known."""
    if turn.moves is not None:
        return _act(case, turn.moves)
    if turn.after:
        return _Said(Verdict.WAIT, Reason.QUEUED, words.queued(case.finding, turn.after))
    home = case.finding.home
    nodes = home.nodes if home is not None else frozenset()
    return _Said(Verdict.REFUSE, Reason.NO_ROOM, words.no_room(case.finding, nodes, turn.short))


def _unsure(worker: Worker) -> float:
    """Return by what share of its movable bytes the figures may be wrong; 0.0 after a full reading.

    The cgroup's charges state no error: they are taken as they are, and read in full before acting.
    """
    return worker.residency.error_share if worker.residency is not None else 0.0


def _is_remote(
    finding: Finding, policy: PlacementPolicy, memory: WorkerMemory, unsure: float
) -> bool:
    """Say whether memory is to be moved: more of it than to leave as it is, or the rest of a move.

    A move that was broken off is brought to its end, which lies beyond where it would be begun.
    What a sample leaves open counts as remote: a full reading is to tell.
    """
    if finding.locality is None:
        return False
    locality = finding.locality - unsure
    remote_bytes = finding.remote_bytes + unsure * finding.movable_bytes
    if memory.unfinished and remote_bytes >= FINISHED_BYTES:
        return locality < FINISHED_LOCALITY
    return locality < policy.min_locality and remote_bytes >= max(1, policy.min_remote_bytes)


def _rest(worker: Worker, finding: Finding, memory: WorkerMemory, policy: PlacementPolicy) -> _Said:
    home = finding.home
    if finding.remote_bytes:
        return _Said(Verdict.REST, Reason.BELOW_THRESHOLD, words.below(finding))
    stuck = sum(memory.refused.values())
    if stuck < policy.min_remote_bytes:
        # A few pages are always pinned or shared; they are no reason to restart anything.
        stuck = 0
    if worker.residency is not None and home is not None and not stuck:
        shared = worker.residency.by_node(mobility=Mobility.SHARED)
        away = sum(size for node, size in shared.items() if node not in home.nodes)
        stuck = away if away > finding.movable_bytes else 0
    if stuck:
        return _Said(Verdict.REFUSE, Reason.IMMOVABLE, words.immovable(stuck))
    return _Said(Verdict.REST, Reason.HOME, words.at_home(finding))


def _bind(
    worker: Worker,
    home: Home,
    finding: Finding,
    snapshot: Snapshot,
    policy: PlacementPolicy,
    *,
    remote: bool,
) -> frozenset[int] | None:
    """Return the CPUs to bind to; None where affinity is left alone.

    A pin or a cpuset is the user's: memory follows it. Otherwise threads that could leave their
    home are bound when they are away, when memory moves (it would follow them off again), or when
    the worker is large enough for the policy to care. Threads that numad-py has bound elsewhere
    come along.
    """
    if home.source in {HomeSource.PIN, HomeSource.CPUSET}:
        return None
    cpus = snapshot.topology.cpus_of(home.nodes)
    cpus = (cpus - policy.reserved_cpus) or cpus
    wanted = cpus & user_mask(worker, snapshot.topology)
    # Also where numad-py has bound them to less than their home has become.
    unbound = any(
        t.affinity is not None
        and (mask := worker.first_masks.get(t.tid, t.affinity) & wanted)
        and t.affinity != mask
        for t in worker.threads
    )
    if not unbound:
        return None
    away = finding.run_locality is not None and finding.run_locality < RUN_LOCALITY
    if remote or away or finding.movable_bytes >= policy.min_remote_bytes:
        return wanted
    return None


def _cooldown_left_s(memory: WorkerMemory, policy: PlacementPolicy, now_s: float) -> float:
    if memory.acted_at_s is None:
        return 0.0
    return memory.acted_at_s + cooldown_s(policy.cooldown_s, memory.attempts) - now_s
