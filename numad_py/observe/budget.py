"""What looking at workers' memory may cost: CPU time, saved up and spent."""

from __future__ import annotations

BURST_S = 1.0
"""CPU time that may be saved up: a quiet hour must not pay for a busy minute."""
LONGEST_LOOK_S = 2.0
"""CPU time after which one look reads no more, whoever waits."""


class Budget:
    """A share of one CPU, saved up to BURST_S at most.

    What is overspent is paid off before more is spent; LONGEST_LOOK_S bounds one look even where
    it may overspend, as for workers of which nothing is known yet.
    """

    def __init__(self, cpu_share: float) -> None:
        """Start with all that can be saved up.

        Args:
            cpu_share: of one CPU, 0..1.
        """
        self.cpu_share = cpu_share
        self._credit_s = BURST_S
        self._earned_at_s: float | None = None
        self._spent_s = 0.0

    def begin(self, now_s: float) -> None:
        """Begin a look: save up what was earned since the last one.

        Args:
            now_s: time since boot.
        """
        if self._earned_at_s is not None:
            earned_s = max(0.0, now_s - self._earned_at_s) * self.cpu_share
            self._credit_s = min(BURST_S, self._credit_s + earned_s)
        self._earned_at_s = now_s
        self._spent_s = 0.0

    def spend(self, cpu_s: float) -> None:
        """Take what a reading has cost."""
        self._credit_s -= cpu_s
        self._spent_s += cpu_s

    @property
    def granted(self) -> bool:
        """Whether something that can wait may be read now."""
        return self._credit_s > 0 and not self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether this look has read as much as any look may."""
        return self._spent_s >= LONGEST_LOOK_S
