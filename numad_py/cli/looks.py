"""Look after look at the machine, as the daemon looks, without one; nothing is changed."""

from __future__ import annotations

import argparse

from numad_py.cli.direct import observer_for
from numad_py.cycle import look_and_decide
from numad_py.decide.remember import remember
from numad_py.model.cycle import Cycle
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, Verdict
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import LogFormat, Policy
from numad_py.serve.logs import configure


class Looker:
    """Remembers from look to look what a dry run does."""

    def __init__(self, arguments: argparse.Namespace, policy: Policy) -> None:
        """Look at the roots that were asked for."""
        configure("warning", LogFormat.AUTO)
        self._policy = policy
        self._observer = observer_for(arguments, policy)
        self._state = DecisionState()
        self._simulated: tuple[Outcome, ...] = ()

    def look(self) -> Cycle:
        """Look once and decide; what is decided is not done."""
        snapshot, plan, self._state = look_and_decide(
            self._observer, self._policy, self._remembered
        )
        self._simulated = tuple(
            Outcome(decision, End.SIMULATED, snapshot.at_s, 0.0)
            for decision in plan.decisions
            if decision.verdict is Verdict.ACT
        )
        return Cycle.of(snapshot, plan, ())

    def _remembered(self, snapshot: Snapshot) -> DecisionState:
        return remember(self._state, self._simulated, snapshot.at_s)
