"""The last cycles, kept for whoever records them, and only while somebody does."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from numad_py import __version__
from numad_py.model.codec import encode
from numad_py.model.cycle import Cycle
from numad_py.model.outcome import Outcome
from numad_py.model.plan import Plan
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy

KEPT = 8
"""Cycles that follow each other while a recorder is busy writing."""
ASKED_WITHIN_S = 60.0
"""Nobody records any more when nobody has asked for so long."""


class Recent:
    """Filled by the main loop, read by the threads of the control socket."""

    def __init__(self) -> None:
        """Keep nothing until somebody asks."""
        self._start = secrets.token_hex(4)
        """Cycles are counted anew by each daemon: this tells its numbers from an earlier one's."""
        self._until_s = 0.0
        self._looks = 0
        """Whole looks so far: cycles that were a mere glance are not recorded, and not missed."""
        self._cycles: tuple[tuple[int, Cycle], ...] = ()
        """With the number of the look. Replaced, never changed: another thread may be going through
        it."""

    def add(
        self, snapshot: Snapshot, plan: Plan, outcomes: Iterable[Outcome], now_s: float
    ) -> None:
        """Keep a cycle where somebody records, and drop them all where nobody does any more.

        ``now_s`` is a clock for durations.
        """
        self._looks += 1
        wanted = now_s < self._until_s
        newest = (self._looks, Cycle.of(snapshot, plan, outcomes))
        self._cycles = (*self._cycles, newest)[-KEPT:] if wanted else ()

    def document(self, after: object, policy: Policy, now_s: float) -> dict[str, Any]:
        """Return the cycles that came after one; ``start`` tells one daemon from the next.

        ``looks`` has a number for each of them: where one is left out, a cycle was missed.

        Args:
            after: its number; None: the first question, which only begins the recording.
            policy: that is in force.
            now_s: a clock for durations.
        """
        self._until_s = now_s + ASKED_WITHIN_S
        document = {
            "schema": 1,
            "version": __version__,
            "start": self._start,
            "interval_s": policy.daemon.interval_s,
        }
        if not isinstance(after, int):
            return {**document, "policy": encode(policy), "looks": [], "cycles": []}
        newer = [(look, cycle) for look, cycle in self._cycles if cycle.snapshot.cycle > after]
        looks = [look for look, _ in newer]
        return {**document, "looks": looks, "cycles": [encode(cycle) for _, cycle in newer]}
