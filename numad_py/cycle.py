"""Looking and deciding: what the daemon and a look without one have in common."""

from __future__ import annotations

from collections.abc import Callable

from numad_py.decide.decisions import decide
from numad_py.model.plan import DecisionState, Plan
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.observe.glance import Glance
from numad_py.observe.observer import Closer, Observer
from numad_py.policy.schema import Mode, Policy


def look_and_decide(
    observer: Observer,
    policy: Policy,
    remembered: Callable[[Snapshot], DecisionState],
    between: Callable[[], None] = lambda: None,
    glance: Glance | None = None,
) -> tuple[Snapshot, Plan, DecisionState]:
    """Look at all workers cheaply, then closely at those on which a decision hangs; decide.

    Where the policy acts, nobody is acted on by masks and limits that an earlier look has read.

    Args:
        observer: looks.
        policy: what is a worker, and what is done about it.
        remembered: what is known from earlier cycles, given the snapshot.
        between: called before each process and reading; what it raises ends the look.
        glance: the beginning of this look, where it has begun.
    """
    snapshot = observer.observe(between, glance)
    state = remembered(snapshot)
    plan, after = decide(snapshot, policy, state)
    acts = policy.daemon.mode is Mode.ACT
    looked_at: frozenset[WorkerId] = frozenset()
    # What a closer look brings may give another worker its turn: each is looked at once.
    while wanted := (plan.to_measure | (plan.to_act if acts else frozenset())) - looked_at:
        closer = Closer(plan.to_measure & wanted, plan.to_act & wanted)
        snapshot = observer.look_closer(snapshot, closer, between)
        plan, after = decide(snapshot, policy, state)
        looked_at |= wanted
    return snapshot, plan, after
