"""One decision for each worker in each cycle, and the state for the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numad_py.decide import words
from numad_py.decide.findings import diagnose
from numad_py.decide.home import Given, bound_by_user, given_home, user_mask
from numad_py.decide.moves import moves_home, reserve
from numad_py.decide.planner import place
from numad_py.decide.remember import cooldown_s
from numad_py.decide.room import Room
from numad_py.model.plan import (
    Decision,
    DecisionState,
    Finding,
    Home,
    HomeSource,
    MemoryMove,
    Plan,
    Reason,
    Verdict,
    WorkerMemory,
)
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy, Policy

RUN_LOCALITY = 0.9
"""Threads that spend less of their CPU time at home than this are away."""


FINISHED_LOCALITY = 0.99
"""A move that was broken off goes on below this locality,"""
FINISHED_BYTES = 1 << 20
"""and while at least so much is remote."""


@dataclass(frozen=True)
class _Said:
    """A decision less the worker it is about."""

    verdict: Verdict
    reason: Reason
    why: str
    bind_cpus: frozenset[int] | None = None
    moves: tuple[MemoryMove, ...] = ()


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
    memory remote or threads away, but paused        wait    paused
    the same, but acted on within the cooldown       wait    cooldown
    the same, but its memory was not read in full    wait    measuring
    memory remote, no room at home                   refuse  no-room
    memory remote                                    act     remote-memory
    threads away or free to leave                    act     remote-threads
    all that is remote refused to move or is shared  refuse  immovable
    some memory remote, below the thresholds         rest    below-threshold
    else                                             rest    home
    ===============================================  ======  ================
    """
    room = Room(snapshot, policy.placement)
    for worker in snapshot.workers:
        reserve(worker, state.of(worker.id), snapshot.topology, room)
    rules = {rule.name: rule for rule in policy.rules}
    given = {w.id: given_home(w, rules.get(w.rule), snapshot.topology) for w in snapshot.workers}
    planned = place(
        [w for w in snapshot.workers if given[w.id] == Given() and _plannable(w)],
        snapshot,
        room,
        state,
    )
    decisions = []
    memories = {}
    for worker in snapshot.workers:
        memory = state.of(worker.id)
        home = given[worker.id].home or planned.get(worker.id)
        finding = diagnose(worker, home, memory)
        said = _say(worker, finding, given[worker.id], snapshot, policy.placement, state, room)
        decisions.append(
            Decision(
                id=f"{snapshot.cycle}:{worker.label}",
                worker=worker.id,
                label=worker.label,
                rule=worker.rule,
                verdict=said.verdict,
                reason=said.reason,
                why=said.why,
                finding=finding,
                bind_cpus=said.bind_cpus,
                moves=said.moves,
            )
        )
        memory = replace(memory, home=home)
        if said.verdict is Verdict.ACT:
            unfinished = bool(said.moves)
            memory = replace(memory, moving=True, acted_at_s=snapshot.at_s, unfinished=unfinished)
        memories[worker.id] = memory
    return Plan(snapshot.cycle, tuple(decisions)), replace(state, workers=memories)


def _plannable(worker: Worker) -> bool:
    return worker.residency is not None and not bound_by_user(worker)


def _say(  # noqa: C901, PLR0911, PLR0917 - the truth table, a line a line
    worker: Worker,
    finding: Finding,
    given: Given,
    snapshot: Snapshot,
    policy: PlacementPolicy,
    state: DecisionState,
    room: Room,
) -> _Said:
    topology, memory, home = snapshot.topology, state.of(worker.id), finding.home
    if sum(1 for node in topology.nodes if node.has_memory) < 2:  # noqa: PLR2004 - from and to
        return _Said(Verdict.REST, Reason.ONE_NODE, words.one_node())
    if worker.residency is None:
        return _Said(Verdict.WAIT, Reason.UNREADABLE, worker.problem or "its memory is not known")
    if bound_by_user(worker):
        return _Said(Verdict.REFUSE, Reason.MEMPOLICY, words.mempolicy(worker.residency))
    if home is None:
        return _Said(Verdict.REFUSE, Reason.NO_HOME, given.obstacle or words.no_home(finding))
    if memory.moving:
        return _Said(Verdict.WAIT, Reason.MOVING, "a move is under way")
    unsure = _unsure(worker)
    remote = _is_remote(finding, policy, memory, unsure)
    bind = _bind(worker, home, finding, snapshot, policy, remote=remote)
    if not remote and bind is None:
        return _rest(worker, finding, memory, policy)
    if state.paused:
        return _Said(Verdict.WAIT, Reason.PAUSED, words.paused(finding))
    left_s = _cooldown_left_s(memory, policy, snapshot.at_s)
    if left_s > 0:
        return _Said(Verdict.WAIT, Reason.COOLDOWN, words.cooldown(finding, left_s))
    if not worker.residency.full:
        # What a cheap look takes for movable may be bound by its user, and so may its threads.
        why = words.measuring(finding, worker.residency, unsure if remote else None)
        return _Said(Verdict.WAIT, Reason.MEASURING, why)
    moves: tuple[MemoryMove, ...] | None = ()
    if remote:
        moves = moves_home(worker, home, memory, topology, room)
    if moves is None:
        return _Said(Verdict.REFUSE, Reason.NO_ROOM, words.no_room(finding, home, room.bytes_on))
    why = words.act(worker, finding, home, bind, moves)
    reason = Reason.REMOTE_MEMORY if moves else Reason.REMOTE_THREADS
    return _Said(Verdict.ACT, reason, why, bind, moves)


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
    free = any(
        t.affinity is not None
        and not t.affinity <= cpus
        and worker.first_masks.get(t.tid, t.affinity) & cpus
        for t in worker.threads
    )
    if not wanted or not free:
        return None
    away = finding.run_locality is not None and finding.run_locality < RUN_LOCALITY
    if remote or away or finding.movable_bytes >= policy.min_remote_bytes:
        return wanted
    return None


def _cooldown_left_s(memory: WorkerMemory, policy: PlacementPolicy, now_s: float) -> float:
    if memory.acted_at_s is None:
        return 0.0
    return memory.acted_at_s + cooldown_s(policy.cooldown_s, memory.attempts) - now_s
