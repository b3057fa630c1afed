"""Looking and deciding: what the daemon and a look without one have in common."""

from __future__ import annotations

from collections.abc import Callable

from numad_py.decide.decisions import decide
from numad_py.model.plan import DecisionState, Plan
from numad_py.model.snapshot import Snapshot
from numad_py.observe.observer import Observer
from numad_py.policy.schema import Policy


def look_and_decide(
    observer: Observer,
    policy: Policy,
    remembered: Callable[[Snapshot], DecisionState],
    between: Callable[[], None] = lambda: None,
) -> tuple[Snapshot, Plan, DecisionState]:
    """Look at all workers cheaply, then closely at those on which a decision hangs; decide.

    Args:
        observer: looks.
        policy: what is a worker, and what is done about it.
        remembered: what is known from earlier cycles, given the snapshot.
        between: called before each process and reading; what it raises ends the look.
    """
    snapshot = observer.observe(between)
    state = remembered(snapshot)
    plan, after = decide(snapshot, policy, state)
    if plan.to_measure:
        snapshot = observer.look_closer(snapshot, plan.to_measure, between)
        plan, after = decide(snapshot, policy, state)
    return snapshot, plan, after
