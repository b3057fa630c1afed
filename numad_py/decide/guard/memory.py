"""What is remembered of a worker's guard when its move has ended, or is taken back."""

from __future__ import annotations

from dataclasses import replace

from numad_py.decide.guard import words
from numad_py.decide.said import Said
from numad_py.model.guard import GuardMemory
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Home, HomeSource, WorkerMemory


def gone_back(memory: WorkerMemory, said: Said) -> WorkerMemory:
    """Return the memory of a worker that goes back to where it came from: that is its home."""
    back = frozenset(move.target for move in said.moves)
    home = memory.home
    if back and home is not None and home.source is HomeSource.PLANNER:
        home = Home(back, HomeSource.PLANNER, words.BROUGHT_BACK)
    left = {node: at_s for node, at_s in memory.left_at_s.items() if node not in back}
    return replace(memory, home=home, left_at_s=left, unfinished=False)


def ended(guard: GuardMemory, outcome: Outcome, at_s: float) -> GuardMemory:
    """Return what is known of a guard after acting has ended.

    Args:
        guard: what was known.
        outcome: what was done.
        at_s: time since boot; the window of after begins here.
    """
    if outcome.decision.give_back:
        if outcome.end is End.SIMULATED:
            return guard
        left = dict(guard.moved)
        for (source, target), size in outcome.moved.items():
            left[target, source] = left.get((target, source), 0) - size
        left = {pair: size for pair, size in left.items() if size > 0}
        if outcome.end is End.STOPPED or (outcome.end is End.PRESSURE and left):
            since_s = at_s if outcome.end is End.PRESSURE else None
            hindered_at_s = None if outcome.moved else guard.hindered_at_s
            return replace(guard, moved=left, moved_at_s=since_s, hindered_at_s=hindered_at_s)
        return replace(guard, moved={}, moved_at_s=None, undoing=False, hindered_at_s=None)
    if outcome.end is End.SIMULATED:
        return replace(guard, before=None)
    guard = replace(guard, wanted_at_s=None)
    if guard.before is None or not (outcome.moved or outcome.threads_bound):
        return replace(guard, before=None)
    # What others map too stays where it is now, even where the move is taken back.
    return replace(guard, moved=dict(outcome.moved_own), moved_at_s=at_s)
