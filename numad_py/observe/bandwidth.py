"""A worker's memory traffic, local and in all, where resctrl measures it."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.resctrl import ResctrlFs
from numad_py.model.snapshot import Bandwidth, WorkerId


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

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._before = {k: v for k, v in self._before.items() if k in workers}

    def look(self, worker: WorkerId, now_s: float) -> Bandwidth | None:
        """Return the traffic since the last look; None at the first, and where nothing measures it.

        A group that holds other threads too, or not all of its own, says nothing of this worker.
        """
        if not self._resctrl.mounted:
            return None
        before, self._before[worker] = self._before.get(worker), _NOTHING
        try:
            group = self._procfs.resctrl_group(worker.pid)
            tids = self._procfs.tids(worker.pid)
        except NumadError:
            return None
        if group is None or not self._resctrl.holds_only(*group, tids):
            return None
        traffic = self._resctrl.traffic(*group)
        if traffic is None:
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
