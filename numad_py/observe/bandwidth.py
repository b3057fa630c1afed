"""A worker's memory traffic, local and in all, where resctrl measures it."""

from __future__ import annotations

from collections.abc import Sequence

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.resctrl import ResctrlFs
from numad_py.model.snapshot import Bandwidth, Thread, WorkerId


class BandwidthMeter:
    """Takes the rate between two looks."""

    def __init__(self, procfs: ProcFs, resctrl: ResctrlFs) -> None:
        """Start with nothing measured."""
        self._procfs = procfs
        self._resctrl = resctrl
        self._before: dict[WorkerId, tuple[float, int, int]] = {}

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._before = {k: v for k, v in self._before.items() if k in workers}

    def look(self, worker: WorkerId, threads: Sequence[Thread], now_s: float) -> Bandwidth | None:
        """Return the traffic since the last look; None at the first, and where nothing measures it.

        A group that holds other threads too says nothing of this worker.
        """
        if not self._resctrl.mounted:
            return None
        try:
            group = self._procfs.resctrl_group(worker.pid)
        except NumadError:
            return None
        tids = {thread.tid for thread in threads}
        if group is None or not self._resctrl.holds_only(*group, tids):
            self._before.pop(worker, None)
            return None
        traffic = self._resctrl.traffic(*group)
        if traffic is None:
            return None
        before = self._before.get(worker)
        self._before[worker] = (now_s, traffic.local_bytes, traffic.total_bytes)
        if before is None or now_s <= before[0]:
            return None
        since_s = now_s - before[0]
        # Counters start anew where the group was made anew.
        return Bandwidth(
            max(0, traffic.local_bytes - before[1]) / since_s,
            max(0, traffic.total_bytes - before[2]) / since_s,
        )
