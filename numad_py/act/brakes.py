"""Slower, or not at all, while the machine or the worker waits for something more urgent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from numad_py.policy.schema import MigrationPolicy

SLOW_SHARE = 0.25
"""Of the policy's duty, when slowed down."""
LOOK_S = 0.5
"""Pressure is looked at so often, over the time since the last look."""
MOST_WAIT_S = 30.0
"""Where memory stays short for so long, the move ends."""

BUSY_SHARE = 0.5
"""A CPU that is busy for less of the time can be had for moving."""
TRUST_S = 5.0
"""For so long one that was seen idle is taken to be: the move itself may keep it busy since."""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Strain:
    """How hard a machine is used, in seconds so far."""

    waited_s: Mapping[str, float] = field(default_factory=dict)
    """That tasks have waited: for ``cpu`` and ``memory`` of the machine, and for ``cgroup``, memory
    of the worker's own; those that the kernel tells."""
    busy_s: Mapping[int, float] = field(default_factory=dict)
    """That a CPU was not idle, by its id: of those on which the move may run."""


Look = Callable[[], Strain]


@dataclass
class Brakes:
    """What pressure stall information (PSI), and how busy CPUs are, ask of a move."""

    policy: MigrationPolicy
    look: Look
    """Returns the totals so far."""
    now_s: Callable[[], float]
    rest: Callable[[float], object]
    """Sleeps so many seconds, or until the move is to stop."""
    stopped: Callable[[], bool]
    waited_s: float = 0.0
    """Spent waiting for memory so far."""
    _at_s: float | None = None
    _before: Strain = field(default_factory=Strain)
    _shares: Mapping[str, float] = field(default_factory=dict)
    _idle_until_s: float = float("-inf")
    """So long some CPU is taken to be idle."""

    def duty_share(self) -> float:
        """Return which share of the policy's duty is fitting now; 0.0: none."""
        self._update()
        memory = max(self._shares.get("memory", 0.0), self._shares.get("cgroup", 0.0))
        if memory > self.policy.memory_pressure:
            return 0.0
        if memory > self.policy.memory_pressure / 2:
            return SLOW_SHARE
        if self._shares.get("cpu", 0.0) <= self.policy.cpu_pressure:
            return 1.0
        # Who waits for a CPU beside an idle one is bound elsewhere, and may go on waiting for it.
        return 1.0 if self.now_s() < self._idle_until_s else SLOW_SHARE

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
        strain = self.look()
        if self._at_s is not None:
            elapsed_s = now_s - self._at_s
            self._shares = _growth(self._before.waited_s, strain.waited_s, elapsed_s)
            busy = _growth(self._before.busy_s, strain.busy_s, elapsed_s)
            if any(share < BUSY_SHARE for share in busy.values()):
                self._idle_until_s = now_s + TRUST_S
        self._at_s, self._before = now_s, strain


def _growth(
    before: Mapping[_Key, float], now: Mapping[_Key, float], elapsed_s: float
) -> dict[_Key, float]:
    """Return by which share of the time each total has grown.

    Those that were not there before are left out, and those that have become less: what a
    hypervisor took (steal) may.
    """
    return {
        key: min(1.0, (so_far_s - before[key]) / elapsed_s)
        for key, so_far_s in now.items()
        if key in before and so_far_s >= before[key]
    }
