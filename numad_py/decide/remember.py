"""What outcomes teach: the state after them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from numad_py.decide.guard.memory import ended
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, WorkerMemory
from numad_py.model.residency import Mobility, SegmentId

LONGEST_BACK_OFF = 16
"""The cooldown grows by at most this factor."""


def cooldown_s(base_s: float, attempts: int) -> float:
    """Return the pause after acting: doubled for each try in a row that brought little."""
    return base_s * min(LONGEST_BACK_OFF, 1 << min(attempts, 10))


def remember(state: DecisionState, outcomes: Iterable[Outcome], at_s: float) -> DecisionState:
    """Return the state after these outcomes; workers that are gone are dropped by ``decide``.

    Args:
        state: what was remembered so far.
        outcomes: what has ended since.
        at_s: time since boot; the cooldown counts from the end of a move.
    """
    workers = dict(state.workers)
    for outcome in outcomes:
        worker = outcome.decision.worker
        memory = state.of(worker)
        guard = ended(memory.guard, outcome, at_s)
        workers[worker] = replace(_after(memory, outcome, at_s), guard=guard)
    return replace(state, workers=workers)


def _after(memory: WorkerMemory, outcome: Outcome, at_s: float) -> WorkerMemory:
    if outcome.end is End.SIMULATED:
        # Nothing was done, so nothing is to cool down: the same is said again next time.
        return replace(memory, moving=False, acted_at_s=None)
    if outcome.end is End.STOPPED:
        # Broken off by us, not by the worker: it may go on as soon as it may.
        return replace(memory, moving=False, acted_at_s=None)
    # The way back is barred from when memory has left, not from when that was decided.
    left = {source: at_s for source, _ in outcome.moved if source in memory.left_at_s}
    memory = replace(memory, left_at_s={**memory.left_at_s, **left})
    wanted = outcome.decision.move_bytes
    brought_little = bool(wanted) and outcome.moved_bytes * 2 < wanted
    whole = outcome.end in {End.DONE, End.PARTIAL}
    if wanted and (whole or outcome.refused_bytes):
        refused, stuck = _refused(memory, outcome), _stuck(outcome)
        if not whole:
            # Of what was not got to, what it said earlier holds.
            refused, stuck = {**memory.refused, **refused}, stuck or memory.stuck
        memory = replace(
            memory,
            refused=refused,
            stuck=stuck,
            refused_at_s=at_s if refused or stuck else None,
            refusals=memory.refusals + 1 if refused or stuck else 0,
            retry_refused=False,
        )
    # Where memory was short, the worker is not to blame, and the rest is still to be moved.
    short = outcome.end is End.PRESSURE and not outcome.decision.give_back
    return replace(
        memory,
        moving=False,
        acted_at_s=at_s,
        unfinished=short,
        attempts=memory.attempts + 1 if brought_little and not short else 0,
    )


def _refused(memory: WorkerMemory, outcome: Outcome) -> dict[int, int]:
    """Return the bytes by node that would not move.

    After a whole walk that is what still lies on the sources, also where nobody gave a reason:
    pages that AutoNUMA has marked answer as if they were not there on Linux 6.1.
    """
    if outcome.after is None or outcome.end not in {End.DONE, End.PARTIAL}:
        return dict(outcome.refused_bytes)
    movable = outcome.after.by_node(mobility=Mobility.MOVABLE)
    stayed: dict[int, int] = {}
    for move in outcome.decision.moves:
        stayed[move.source] = stayed.get(move.source, 0) + move.move_bytes
    for (source, _), size in outcome.moved.items():
        stayed[source] = stayed.get(source, 0) - size
    # What is there beyond that, and beyond what refused earlier, has come since.
    left = {
        source: min(movable.get(source, 0), max(0, size) + memory.refused.get(source, 0))
        for source, size in stayed.items()
    }
    return {source: size for source, size in left.items() if size}


def _stuck(outcome: Outcome) -> tuple[SegmentId, ...]:
    """Return what was to be moved for all its users, and still lies where it was for the most part.

    It is kept apart from the worker's own memory: none of its users is to try in its place.
    """
    if outcome.after is None or outcome.end not in {End.DONE, End.PARTIAL}:
        return ()
    sources = {move.source for move in outcome.decision.moves}
    left = {
        part.id: sum(size for node, size in part.shared_by_node if node in sources)
        for part in outcome.after.segments
    }
    return tuple(s.id for s in outcome.decision.carried if 2 * left.get(s.id, 0) > s.away_bytes)
