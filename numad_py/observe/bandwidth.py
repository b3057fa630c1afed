"""A worker's memory traffic, local and in all, where resctrl measures it."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.resctrl import ROOT, ResctrlFs
from numad_py.model.snapshot import Bandwidth, WorkerId

OTHERS_S = 60.0
"""For so long a group that was found to hold others than a worker is taken to do so."""


@dataclass(frozen=True)
class _Counted:
    """Counters of a group."""

    group: tuple[str, str] | None
    at_s: float = 0.0
    local_bytes: int = 0
    total_bytes: int = 0


_NOTHING = _Counted(None)


class BandwidthMeter:
    """Takes the rate between two looks."""

    def __init__(self, procfs: ProcFs, resctrl: ResctrlFs) -> None:
        """Start with nothing measured."""
        self._procfs = procfs
        self._resctrl = resctrl
        self._before: dict[WorkerId, _Counted] = {}
        self._others: dict[WorkerId, tuple[tuple[str, str], float]] = {}
        """The group of a worker that holds others too, and when that was found."""

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._before = {k: v for k, v in self._before.items() if k in workers}
        self._others = {k: v for k, v in self._others.items() if k in workers}

    def look(self, worker: WorkerId, now_s: float) -> Bandwidth | None:
        """Return the traffic since the last look; None at the first, and where nothing measures it.

        A group that holds other threads too, or not all of its own, says nothing of this worker,
        and is asked about it again after OTHERS_S. The root group holds all threads that are in no
        other: it is not even read.
        """
        if not self._resctrl.mounted:
            return None
        before, self._before[worker] = self._before.get(worker), _NOTHING
        try:
            group = self._own_group(worker, now_s)
        except NumadError:
            return None
        traffic = self._resctrl.traffic(*group) if group is not None else None
        if group is None or traffic is None:
            return None
        now = _Counted(group, now_s, traffic.local_bytes, traffic.total_bytes)
        self._before[worker] = now
        if before is None or before.group != group or now_s <= before.at_s:
            return None
        since_s = now_s - before.at_s
        # Counters start anew where the group was made anew.
        return Bandwidth(
            max(0, now.local_bytes - before.local_bytes) / since_s,
            max(0, now.total_bytes - before.total_bytes) / since_s,
        )

    def _own_group(self, worker: WorkerId, now_s: float) -> tuple[str, str] | None:
        """Return the group that holds a worker and nobody else; None where there is none."""
        group = self._procfs.resctrl_group(worker.pid)
        known = self._others.get(worker)
        if group is None or group == ROOT:
            return None
        if known is not None and known[0] == group and now_s - known[1] < OTHERS_S:
            return None
        if self._resctrl.holds_only(*group, self._procfs.tids(worker.pid)):
            return group
        self._others[worker] = (group, now_s)
        return None
