"""When a worker's numa_maps is read: it costs what the worker is big, and holds its mmap_lock."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.errors import RightsError, Vanished
from numad_py.kernel import numa_maps
from numad_py.kernel.clock import thread_cpu_s
from numad_py.kernel.procfs import ProcFs
from numad_py.model.snapshot import Residency, WorkerId
from numad_py.policy.schema import ScanPolicy

SETTLING_S = 10.0
"""An empty file of a process younger than this says that it has just begun, nothing more."""


@dataclass(frozen=True)
class Reading:
    """What is known of a worker's memory."""

    residency: Residency | None
    problem: str | None
    tried_at_s: float


class Scanner:
    """Reads numa_maps within the budget of ``[scan]``, longest unread first."""

    def __init__(self, procfs: ProcFs, policy: ScanPolicy) -> None:
        """Start with nothing read."""
        self._procfs = procfs
        self._policy = policy
        self._readings: dict[WorkerId, Reading] = {}
        self.scans = 0
        self.scan_s = 0.0

    def use(self, policy: ScanPolicy) -> None:
        """Keep to another budget from now on."""
        self._policy = policy

    def accept(self, worker: WorkerId, residency: Residency) -> None:
        """Take a measurement that somebody else has made, after a move."""
        self._readings[worker] = Reading(residency, None, residency.read_at_s)

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is known of workers that ended."""
        self._readings = {k: v for k, v in self._readings.items() if k in workers}

    def reading(self, worker: WorkerId, now_s: float) -> Reading:
        """Return what is known of a worker's memory, read anew where that is due."""
        known = self._readings.get(worker)
        if known is None or now_s - known.tried_at_s >= self._pause_s(known):
            known = self._readings[worker] = self._read(worker, now_s)
        return known

    def _pause_s(self, reading: Reading) -> float:
        """Return how long a reading stands.

        Reading all workers costs the sum of their costs; spread over this pause it is at most the
        share of a CPU that the policy grants.
        """
        total = sum(r.residency.cost_s for r in self._readings.values() if r.residency)
        if reading.residency is None:
            return 0.0
        return max(self._policy.interval_s, total / self._policy.cpu_share)

    def _read(self, worker: WorkerId, now_s: float) -> Reading:
        """Read and parse numa_maps; a problem leaves no figures rather than old ones.

        An empty text is a zombie, a process in exec, or one that has just begun: no memory is not
        what it says (KERNEL: ``show_numa_map`` prints nothing where there is no mm).
        """
        began = thread_cpu_s()
        try:
            text = self._procfs.numa_maps(worker.pid)
        except Vanished:
            return Reading(None, "it ended while it was looked at", now_s)
        except RightsError as error:
            return Reading(None, str(error), now_s)
        if not text.strip():
            return Reading(None, "its numa_maps is empty: it is starting, in exec or ending", now_s)
        vmas, odd = numa_maps.parse(text)
        cost_s = thread_cpu_s() - began
        self.scans += 1
        self.scan_s += cost_s
        if not vmas:
            return Reading(None, f"no line of its numa_maps follows the grammar ({odd} odd)", now_s)
        return Reading(numa_maps.residency(vmas, odd, read_at_s=now_s, cost_s=cost_s), None, now_s)
