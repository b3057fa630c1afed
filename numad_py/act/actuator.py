"""What the cycle needs of a doer, and the one that only says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from numad_py.act import affinity
from numad_py.act.journal import NAME, read
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision
from numad_py.model.settings import SettingsTold
from numad_py.model.snapshot import FirstMasks, Thread, WorkerId
from numad_py.policy.schema import Policy


class Actuator(Protocol):
    """What the cycle needs of a doer."""

    def submit(self, decision: Decision) -> None:
        """Take a decision; returns at once."""

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended since the last call."""

    def busy(self) -> int:
        """Return how many decisions are under way or waiting."""

    def progress(self) -> Mapping[WorkerId, int]:
        """Return bytes moved so far by worker, of the moves under way."""

    def first_masks(
        self, worker: WorkerId, threads: tuple[Thread, ...]
    ) -> Mapping[int, frozenset[int]]:
        """Return the masks that threads had before numad-py narrowed them."""

    def use(self, policy: Policy) -> None:
        """Go on by another policy."""

    def pause(self) -> None:
        """Stop within a chunk and drop what waits; each ends with an outcome."""

    def resume(self) -> None:
        """Take decisions again."""

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Drop what is remembered of processes that have ended; these are known to live."""

    def restore_all(self) -> int:
        """Give all masks back; return for how many workers."""

    def restore_settings(self) -> tuple[str, ...]:
        """Give kernel settings back; return what was done, in words."""

    def settings(self) -> SettingsTold:
        """Return what is changed of kernel settings, and what could not be."""

    def stop(self, timeout_s: float) -> None:
        """End for good, within a chunk or the given time."""


class DryActuator:
    """Touches nothing: every decision ends as simulated."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """``now_s`` is the time since boot."""
        self._now_s = now_s
        self._outcomes: list[Outcome] = []

    def submit(self, decision: Decision) -> None:
        """Note that it would have been done."""
        self._outcomes.append(Outcome(decision, End.SIMULATED, self._now_s(), 0.0))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what would have been done."""
        done, self._outcomes = tuple(self._outcomes), []
        return done

    def busy(self) -> int:
        """Return 0."""
        return 0

    def progress(self) -> Mapping[WorkerId, int]:
        """Return nothing."""
        return {}

    def first_masks(
        self,
        worker: WorkerId,  # noqa: ARG002
        threads: tuple[Thread, ...],  # noqa: ARG002
    ) -> Mapping[int, frozenset[int]]:
        """Return nothing: no mask is ours."""
        return {}

    def use(self, policy: Policy) -> None:
        """Need nothing of it."""

    def pause(self) -> None:
        """Have nothing to stop."""

    def resume(self) -> None:
        """Have nothing to go on with."""

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Remember nothing."""

    def restore_all(self) -> int:
        """Have nothing to give back."""
        return 0

    def restore_settings(self) -> tuple[str, ...]:
        """Have none to give back."""
        return ()

    def settings(self) -> SettingsTold:
        """Return nothing: none is changed."""
        return SettingsTold()

    def stop(self, timeout_s: float) -> None:
        """Have nothing to end."""


def read_first_masks(folder: Path, procfs: ProcFs, cgroups: CgroupFs) -> FirstMasks:
    """Return what a journal that another process keeps knows; nothing where it cannot be read."""
    try:
        entries = read(folder / NAME, procfs.boot_id() or "unknown")
    except OSError:
        entries = {}
    granted = affinity.granted_by(procfs, cgroups)

    def first_masks(worker: WorkerId, threads: tuple[Thread, ...]) -> Mapping[int, frozenset[int]]:
        return affinity.first_masks(worker, entries.get(worker), threads, granted)

    return first_masks
