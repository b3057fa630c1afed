"""What is said of one worker; whether it may move now is told by ``turns``, and by guards.

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

from __future__ import annotations

from collections.abc import Mapping

from numad_py.decide import words
from numad_py.decide.case import Case, unsure
from numad_py.decide.home import bound_by_user
from numad_py.decide.remember import cooldown_s
from numad_py.decide.said import Said
from numad_py.decide.turns import Turn
from numad_py.decide.watch import loading
from numad_py.model.plan import DecisionState, Finding, MemoryMove, Reason, Verdict, WorkerMemory
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy

LATELY_S = 60.0
"""Nothing is done by figures that were read in full longer ago, though a sample confirms them."""


def say(  # noqa: PLR0911 - the truth table, a line a line
    case: Case, snapshot: Snapshot, policy: PlacementPolicy, state: DecisionState
) -> Said:
    """Return what is said of a worker; whether it may move now is told by ``turns``."""
    worker, memory, finding = case.worker, case.memory, case.finding
    unplaceable = _unplaceable(case, snapshot)
    if unplaceable is not None:
        return unplaceable
    if memory.moving:
        return Said(Verdict.WAIT, Reason.MOVING, "a move is under way")
    if not case.remote and case.bind is None:
        return _rest(worker, finding, memory, policy)
    calm_s = loading(memory, worker, policy, snapshot.at_s)
    if calm_s is not None:
        return Said(Verdict.WAIT, Reason.LOADING, words.loading(finding, calm_s))
    if state.paused:
        return Said(Verdict.WAIT, Reason.PAUSED, words.paused(finding))
    left_s = _cooldown_left_s(memory, policy, snapshot.at_s)
    if left_s > 0:
        return Said(Verdict.WAIT, Reason.COOLDOWN, words.cooldown(finding, left_s))
    if worker.residency is not None and not worker.residency.full:
        # What a cheap look takes for movable may be bound by its user, and so may its threads.
        return measuring(case)
    return act(case, ())


def _unplaceable(case: Case, snapshot: Snapshot) -> Said | None:
    worker, topology = case.worker, snapshot.topology
    if sum(1 for node in topology.nodes if node.has_memory) < 2:  # noqa: PLR2004 - from and to
        return Said(Verdict.REST, Reason.ONE_NODE, words.one_node())
    if worker.residency is None:
        return Said(Verdict.WAIT, Reason.UNREADABLE, worker.problem or "its memory is not known")
    if bound_by_user(worker):
        return Said(Verdict.REFUSE, Reason.MEMPOLICY, words.mempolicy(worker.residency))
    if case.finding.home is None:
        why = case.given.obstacle or words.no_home(case.finding, case.placed.constraints)
        return Said(Verdict.REFUSE, Reason.NO_HOME, why)
    return None


def would_move(said: Said) -> bool:
    """Say whether something new is to be done; to take a move back needs no turn."""
    return said.verdict is Verdict.ACT and not said.give_back


def measuring(case: Case) -> Said:
    """Return that its memory is to be read in full before anything is done."""
    residency = case.worker.residency
    error_share = unsure(case.worker) if case.remote else None
    why = words.measuring(case.finding, residency, error_share) if residency is not None else ""
    return Said(Verdict.WAIT, Reason.MEASURING, why)


def read_long_ago(worker: Worker, now_s: float) -> bool:
    """Say whether its user may have bound its memory since: a later sample would not show that."""
    return worker.residency is not None and now_s - worker.residency.read_at_s > LATELY_S


def act(case: Case, moves: tuple[MemoryMove, ...]) -> Said:
    """Return that a worker is brought home by these moves, and its threads with it."""
    home = case.finding.home
    if home is None:
        return Said(Verdict.REFUSE, Reason.NO_HOME, words.no_home(case.finding))
    why = words.act(case.worker, case.finding, home, case.bind, moves)
    reason = Reason.REMOTE_MEMORY if moves else Reason.REMOTE_THREADS
    return Said(Verdict.ACT, reason, why, case.bind, moves)


def taken(case: Case, turn: Turn, promised: Mapping[int, int]) -> Said:
    """Return what is said of a worker that wants to move, after its turn is known.

    Args:
        case: of the worker.
        turn: what it may move now, or for what it waits.
        promised: bytes by node that are kept for processes to come.
    """
    if turn.moves is not None:
        return act(case, turn.moves)
    if turn.after:
        return Said(Verdict.WAIT, Reason.QUEUED, words.queued(case.finding, turn.after))
    home = case.finding.home
    nodes = home.nodes if home is not None else frozenset()
    kept_bytes = sum(promised.get(node, 0) for node in nodes)
    why = words.no_room(case.finding, nodes, turn.short, kept_bytes)
    return Said(Verdict.REFUSE, Reason.NO_ROOM, why)


def _rest(worker: Worker, finding: Finding, memory: WorkerMemory, policy: PlacementPolicy) -> Said:
    home = finding.home
    if finding.remote_bytes:
        return Said(Verdict.REST, Reason.BELOW_THRESHOLD, words.below(finding))
    stuck = sum(memory.refused.values())
    if stuck < policy.min_remote_bytes:
        # A few pages are always pinned or shared; they are no reason to restart anything.
        stuck = 0
    if worker.residency is not None and home is not None and not stuck:
        shared = worker.residency.by_node(mobility=Mobility.SHARED)
        away = sum(size for node, size in shared.items() if node not in home.nodes)
        stuck = away if away > finding.movable_bytes else 0
    if stuck:
        return Said(Verdict.REFUSE, Reason.IMMOVABLE, words.immovable(stuck))
    return Said(Verdict.REST, Reason.HOME, words.at_home(finding))


def _cooldown_left_s(memory: WorkerMemory, policy: PlacementPolicy, now_s: float) -> float:
    if memory.acted_at_s is None:
        return 0.0
    return memory.acted_at_s + cooldown_s(policy.cooldown_s, memory.attempts) - now_s
