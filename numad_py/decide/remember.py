"""What outcomes teach: the state after them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, WorkerMemory
from numad_py.model.residency import Mobility

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
        workers[worker] = _after(state.of(worker), outcome, at_s)
    return replace(state, workers=workers)


def _after(memory: WorkerMemory, outcome: Outcome, at_s: float) -> WorkerMemory:
    if outcome.end is End.SIMULATED:
        # Nothing was done, so nothing is to cool down: the same is said again next time.
        return replace(memory, moving=False, acted_at_s=None)
    if outcome.end is End.STOPPED:
        # Broken off by us, not by the worker: it may go on as soon as it may.
        return replace(memory, moving=False, acted_at_s=None)
    wanted = outcome.decision.move_bytes
    brought_little = bool(wanted) and outcome.moved_bytes * 2 < wanted
    refused = _refused(outcome) if wanted else dict(memory.refused)
    return replace(
        memory,
        moving=False,
        acted_at_s=at_s,
        refused=refused,
        unfinished=False,
        attempts=memory.attempts + 1 if brought_little else 0,
    )


def _refused(outcome: Outcome) -> dict[int, int]:
    """Return the bytes by node that would not move.

    After a whole walk that is what still lies on the sources, also where nobody gave a reason:
    pages that AutoNUMA has marked answer as if they were not there on Linux 6.1.
    """
    if outcome.after is None or outcome.end not in {End.DONE, End.PARTIAL}:
        return dict(outcome.refused_bytes)
    movable = outcome.after.by_node(mobility=Mobility.MOVABLE)
    sources = {move.source for move in outcome.decision.moves}
    return {source: movable[source] for source in sources if movable.get(source)}
