"""The doer of a daemon whose mode may change while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from numad_py.act.actuator import Actuator, DryActuator
from numad_py.act.settings import Keeper
from numad_py.model.outcome import Outcome
from numad_py.model.plan import Decision
from numad_py.model.settings import SettingsTold
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.policy.schema import AutoNuma, Mode, OnStop, Policy


class ByMode:
    """Acts in mode ``act``; in any other it only says what it would do.

    The real doer keeps the journal in every mode, so that masks set earlier are known as ours and
    can be given back.
    """

    def __init__(self, real: Actuator, dry: DryActuator, keeper: Keeper, policy: Policy) -> None:
        """Begin in the policy's mode; settings of a run that was killed are given back, or kept."""
        self._real = real
        self._dry = dry
        self._keeper = keeper
        self._autonuma_off = policy.migration.autonuma is AutoNuma.OFF
        self._acting = policy.daemon.mode is Mode.ACT
        self._paused = False
        keeper.take_up()
        self._use_settings()

    def submit(self, decision: Decision) -> None:
        """Hand a decision to the doer of this mode."""
        (self._real if self._acting else self._dry).submit(decision)

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended, in this mode or the one before."""
        return (*self._real.outcomes(), *self._dry.outcomes())

    def busy(self) -> int:
        """Return how many decisions the real doer has."""
        return self._real.busy()

    def progress(self) -> Mapping[WorkerId, int]:
        """Return bytes moved so far by worker."""
        return self._real.progress()

    def first_masks(
        self, worker: WorkerId, threads: tuple[Thread, ...]
    ) -> Mapping[int, frozenset[int]]:
        """Return the masks that threads had before numad-py narrowed them."""
        return self._real.first_masks(worker, threads)

    def use(self, policy: Policy) -> None:
        """Go on by another policy; leaving mode ``act`` is a stop: moves end, masks as it says.

        Kernel settings are given back, whatever it says of masks.
        """
        self._real.use(policy)
        self._autonuma_off = policy.migration.autonuma is AutoNuma.OFF
        was_acting, self._acting = self._acting, policy.daemon.mode is Mode.ACT
        if was_acting and not self._acting:
            self._real.pause()
            if policy.daemon.on_stop is OnStop.RESTORE:
                self._real.restore_all()
        elif self._acting and not was_acting and not self._paused:
            self._real.resume()
        self._use_settings()

    def pause(self) -> None:
        """Stop within a chunk."""
        self._paused = True
        self._real.pause()

    def resume(self) -> None:
        """Take decisions again."""
        self._paused = False
        if self._acting:
            self._real.resume()
        self._use_settings()

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Drop what is remembered of processes that have ended."""
        self._real.forget_ended(alive)

    def restore_all(self) -> int:
        """Give all masks back, whatever the mode."""
        return self._real.restore_all()

    def restore_settings(self) -> tuple[str, ...]:
        """Give kernel settings back, until it is resumed; return what was done, in words."""
        return self._keeper.give_back()

    def settings(self) -> SettingsTold:
        """Return what is changed of kernel settings, and what could not be."""
        return self._keeper.told()

    def stop(self, timeout_s: float) -> None:
        """End for good; kernel settings are given back."""
        self._real.stop(timeout_s)
        self._keeper.give_back()

    def _use_settings(self) -> None:
        if self._paused and self._acting and self._autonuma_off:
            # Nothing is changed now; resuming does it.
            return
        self._keeper.use(acting=self._acting, autonuma_off=self._autonuma_off)
