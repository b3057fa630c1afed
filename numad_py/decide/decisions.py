"""One decision for each worker in each cycle, and the state for the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from numad_py.decide import words
from numad_py.decide.case import Case, cases_of
from numad_py.decide.guard.guards import Guards
from numad_py.decide.home import Given, bound_by_user, given_home
from numad_py.decide.huge import makes_pages
from numad_py.decide.moves import reserve
from numad_py.decide.planner import place
from numad_py.decide.reservations import still_to_come, with_promises
from numad_py.decide.room import Room
from numad_py.decide.said import Said
from numad_py.decide.shared import leave_files, share
from numad_py.decide.turns import Wish, turns
from numad_py.decide.verdicts import measuring, read_long_ago, say, taken, would_move
from numad_py.decide.watch import watch, watch_others
from numad_py.model.plan import (
    Decision,
    DecisionState,
    Placed,
    Plan,
    Reason,
    Shared,
    Verdict,
    WorkerMemory,
)
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import Mode, PlacementPolicy, Policy

LEFT_SHARE = 0.05
"""A node from which less than this share of a move comes, and less than ``min_remote``, was no
place of the worker's."""


def decide(snapshot: Snapshot, policy: Policy, state: DecisionState) -> tuple[Plan, DecisionState]:
    """Return what is done about every worker, and what is to be remembered.

    ``verdicts`` has the table of what is said by what; where a rule names a guard, ``guard`` has
    lines of its own.
    """
    snapshot = leave_files(snapshot, policy)
    watched = {w.id: watch(state.of(w.id), w, snapshot.at_s) for w in snapshot.workers}
    state = replace(state, workers=watched)
    plannable = [w.id for w in snapshot.workers if _plannable(w)]
    given = _given(snapshot, policy)
    counted = [key for key in plannable if given[key].obstacle is None]
    state = watch_others(state, snapshot, counted)
    to_come = still_to_come(state.reserved, snapshot)
    promised = to_come.taken_bytes()
    kept = with_promises(snapshot, promised)
    placing = place(kept, policy, state, {key: given[key] for key in plannable}, to_come)
    state = replace(state, placing=placing)
    placed = {w.id: placing.workers.get(w.id, Placed(given[w.id].home)) for w in snapshot.workers}
    sharing = share(snapshot, policy, state, {key: p.home for key, p in placed.items()})
    snapshot = sharing.seen(snapshot)
    made = cases_of(snapshot, policy, state, given, placed)
    cases = {case.worker.id: case for case in made}
    guards = Guards(snapshot, policy, state)
    said = {key: say(case, snapshot, policy.placement, state) for key, case in cases.items()}
    room = Room(kept, policy.placement, makes_pages=makes_pages(policy))
    for case in cases.values():
        reserve(case.worker, case.memory, snapshot.topology, room)
    said = _with_guards(said, guards, cases, snapshot, state, room, promised)
    wishes = _wishes(cases, {key for key in cases if would_move(said[key])})
    most_bytes = policy.placement.moved_per_cycle_bytes
    for key, turn in turns(wishes, snapshot, state, room, most_bytes).items():
        said[key] = taken(cases[key], turn, promised)
    if policy.daemon.mode is Mode.ACT:
        for key, case in cases.items():
            if would_move(said[key]) and read_long_ago(case.worker, snapshot.at_s):
                said[key] = measuring(case)
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


def _with_guards(  # noqa: PLR0917 - all that turns hang on
    said: Mapping[WorkerId, Said],
    guards: Guards,
    cases: Mapping[WorkerId, Case],
    snapshot: Snapshot,
    state: DecisionState,
    room: Room,
    promised: Mapping[int, int],
) -> dict[WorkerId, Said]:
    """Return what is said with what guards say; room is taken for what goes back.

    Whoever waits for its guard, and would not get a turn without one, is said to wait for that, or
    is refused: it says first what hinders, and turns are tried on a copy of the room.
    """
    held = guards.hold(said, room)
    if not guards.waiting:
        return held
    wanting = {key for key in cases if would_move(held[key])} | guards.waiting
    wishes = _wishes(cases, wanting)
    any_bytes = sum(wish.finding.remote_bytes for wish in wishes)
    for key, turn in turns(wishes, snapshot, state, room.copy(), any_bytes).items():
        if key in guards.waiting and turn.moves is None:
            without = said[key]
            held[key] = taken(cases[key], turn, promised) if would_move(without) else without
    return held


def _given(snapshot: Snapshot, policy: Policy) -> dict[WorkerId, Given]:
    rules = {rule.name: rule for rule in policy.rules}
    follow = policy.placement.follow_devices
    return {
        w.id: given_home(w, rules.get(w.rule), snapshot.topology, follow_devices=follow)
        for w in snapshot.workers
    }


def _wishes(cases: Mapping[WorkerId, Case], keys: Collection[WorkerId]) -> list[Wish]:
    """Return what those of these workers want whose memory is to be moved."""
    return [
        Wish(case.worker, case.finding.home, case.finding)
        for key, case in cases.items()
        if key in keys and case.remote and case.finding.home
    ]


def _plannable(worker: Worker) -> bool:
    return worker.residency is not None and not bound_by_user(worker)


def _decision(
    case: Case, said: Said, snapshot: Snapshot, policy: Policy, shared: tuple[Shared, ...]
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


def _after(case: Case, said: Said, now_s: float, policy: PlacementPolicy) -> WorkerMemory:
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
