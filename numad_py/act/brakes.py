"""Slower, or not at all, while the machine or the worker waits for something more urgent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from numad_py.policy.schema import MigrationPolicy

SLOW_SHARE = 0.25
"""Of the policy's duty, when slowed down."""
LOOK_S = 0.5
"""Pressure is looked at so often, over the time since the last look."""
MOST_WAIT_S = 30.0
"""Where memory stays short for so long, the move ends."""

Look = Callable[[], Mapping[str, float]]
"""Returns for how many seconds tasks have waited so far: ``cpu`` and ``memory`` of the machine, and
``cgroup``, memory of the worker's own; those that the kernel tells."""


@dataclass
class Brakes:
    """What pressure stall information (PSI) asks of a move."""

    policy: MigrationPolicy
    look: Look
    now_s: Callable[[], float]
    rest: Callable[[float], object]
    """Sleeps so many seconds, or until the move is to stop."""
    stopped: Callable[[], bool]
    waited_s: float = 0.0
    """Spent waiting for memory so far."""
    _at_s: float | None = None
    _before: Mapping[str, float] = field(default_factory=dict)
    _shares: Mapping[str, float] = field(default_factory=dict)

    def duty_share(self) -> float:
        """Return which share of the policy's duty is fitting now; 0.0: none."""
        self._update()
        memory = max(self._shares.get("memory", 0.0), self._shares.get("cgroup", 0.0))
        if memory > self.policy.memory_pressure:
            return 0.0
        if memory > self.policy.memory_pressure / 2:
            return SLOW_SHARE
        return SLOW_SHARE if self._shares.get("cpu", 0.0) > self.policy.cpu_pressure else 1.0

    def wait(self) -> float | None:
        """Wait until something may be moved; return the share of duty, None where it stays short.

        Returns at once when the move is to stop.
        """
        began_s = self.now_s()
        while (share := self.duty_share()) == 0.0 and not self.stopped():
            if self.now_s() - began_s >= MOST_WAIT_S:
                break
            self.rest(LOOK_S)
        self.waited_s += self.now_s() - began_s
        return share if share or self.stopped() else None

    def _update(self) -> None:
        now_s = self.now_s()
        if self._at_s is not None and now_s - self._at_s < LOOK_S:
            return
        stalled = self.look()
        if self._at_s is not None:
            elapsed_s = now_s - self._at_s
            self._shares = {
                name: max(0.0, found_s - self._before[name]) / elapsed_s
                for name, found_s in stalled.items()
                if name in self._before
            }
        self._at_s, self._before = now_s, stalled
