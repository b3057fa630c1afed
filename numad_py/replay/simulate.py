"""A policy at work on a simulated machine, cycle by cycle as the daemon goes."""

from __future__ import annotations

from collections.abc import Callable

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.cycle import Cycle
from numad_py.model.plan import DecisionState, Plan
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy
from numad_py.replay.world import World

Decide = Callable[[Snapshot, Policy, DecisionState], tuple[Plan, DecisionState]]


class Simulation:
    """Looks, remembers, decides and acts at each scene.

    It acts whatever the policy's mode, and looks only when a scene comes: the daemon looks once
    more whenever a move has ended.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        acts: bool = True,
        minds_headroom: bool = True,
        decide: Decide = decide,
    ) -> None:
        """Begin with an empty machine; see ``World`` for what the switches do."""
        self.policy = policy
        self.world = World(policy, acts=acts, minds_headroom=minds_headroom)
        self.state = DecisionState()
        self._decide = decide

    def step(self, scene: Snapshot) -> Cycle:
        """Go through one cycle.

        Args:
            scene: what has come and gone since, later than the one before.
        """
        snapshot = self.world.look(scene)
        outcomes = self.world.outcomes()
        remembered = remember(self.state, outcomes, snapshot.at_s)
        plan, self.state = self._decide(snapshot, self.policy, remembered)
        self.world.submit(plan)
        return Cycle.of(snapshot, plan, outcomes)
