"""When a worker's numa_maps is read: it costs what the worker is big, and holds its mmap_lock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel import numa_maps
from numad_py.kernel.clock import thread_cpu_s
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import Residency
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import ScanPolicy

BURST_S = 1.0
"""CPU time that may be saved up for reading: a quiet hour must not pay for a busy minute."""
LONGEST_LOOK_S = 2.0
"""CPU time after which a look reads no more, not even workers of which nothing is known."""
CHANGED_SHARE = 0.05
"""A reading no longer stands when the worker has grown or shrunk by this share of its size,"""
CHANGED_BYTES = 8 << 20
"""and by at least so much."""


@dataclass(frozen=True)
class Reading:
    """What is known of a worker's memory."""

    residency: Residency | None
    problem: str | None
    tried_at_s: float
    resident_bytes: int | None = None
    """Its size in whole (VmRSS) when it was read."""


class Scanner:
    """Reads numa_maps when the worker has changed, and slowly in any case, within ``[scan]``.

    The share of a CPU that the policy grants is saved up, to BURST_S at most, and spent by reading.
    What is overspent is waited for, except by a worker of which nothing is known yet; those that
    wait take their turn.
    """

    def __init__(self, procfs: ProcFs, policy: ScanPolicy) -> None:
        """Start with nothing read."""
        self._procfs = procfs
        self._policy = policy
        self._readings: dict[WorkerId, Reading] = {}
        self._waiting: dict[WorkerId, None] = {}
        """Workers due for a reading, longest waiting first."""
        self._spent_s = 0.0
        """CPU time spent in this look."""
        self._credit_s = BURST_S
        self._credited_at_s: float | None = None
        self.scans = 0
        self.scan_s = 0.0

    def use(self, policy: ScanPolicy) -> None:
        """Keep to another budget from now on."""
        self._policy = policy

    def begin(self) -> None:
        """Begin a look at all workers."""
        self._spent_s = 0.0

    def accept(self, worker: WorkerId, residency: Residency) -> None:
        """Take a measurement that somebody else has made, after a move."""
        self._readings[worker] = Reading(residency, None, residency.read_at_s)
        self._waiting.pop(worker, None)

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is known of workers that ended."""
        self._readings = {k: v for k, v in self._readings.items() if k in workers}
        self._waiting = {k: None for k in self._waiting if k in workers}

    def reading(self, worker: WorkerId, now_s: float, resident_bytes: int | None) -> Reading:
        """Return what is known of a worker's memory, read anew where that is due.

        Args:
            worker: whose.
            now_s: time since boot.
            resident_bytes: its size in whole, which costs nothing to know; None: not known.
        """
        self._save_up(now_s)
        if self._spent_s >= LONGEST_LOOK_S and worker not in self._readings:
            return Reading(None, "its memory is read in one of the next cycles", now_s)
        known = self._readings.get(worker)
        if (
            known is None
            or known.residency is None
            or self._its_turn(worker, known, now_s, resident_bytes)
        ):
            known = self._read(worker, now_s, resident_bytes)
        elif known.resident_bytes is None:
            # A measurement made after a move: from now on changes count against this size.
            known = replace(known, resident_bytes=resident_bytes)
        self._readings[worker] = known
        return known

    def _save_up(self, now_s: float) -> None:
        if self._credited_at_s is not None:
            earned_s = (now_s - self._credited_at_s) * self._policy.cpu_share
            self._credit_s = min(BURST_S, self._credit_s + earned_s)
        self._credited_at_s = now_s

    def _its_turn(
        self, worker: WorkerId, known: Reading, now_s: float, resident_bytes: int | None
    ) -> bool:
        """Say whether a worker is to be read anew now, and can be; else it waits in line."""
        if self._stands(known, now_s, resident_bytes):
            self._waiting.pop(worker, None)
            return False
        self._waiting.setdefault(worker)
        if self._credit_s <= 0 or next(iter(self._waiting)) != worker:
            return False
        del self._waiting[worker]
        return True

    def _stands(self, known: Reading, now_s: float, resident_bytes: int | None) -> bool:
        """Say whether a reading still holds."""
        if now_s - known.tried_at_s >= self._policy.interval_s:
            return False
        if resident_bytes is None or known.resident_bytes is None:
            return True
        changed_bytes = abs(resident_bytes - known.resident_bytes)
        return changed_bytes < max(CHANGED_BYTES, CHANGED_SHARE * known.resident_bytes)

    def _read(self, worker: WorkerId, now_s: float, resident_bytes: int | None) -> Reading:
        """Read and parse numa_maps; a problem leaves no figures rather than old ones.

        An empty text is a zombie, a process in exec, or one that has just begun: no memory is not
        what it says (``show_numa_map`` prints nothing where there is no mm, fs/proc/task_mmu.c).
        """
        began = thread_cpu_s()
        try:
            text = self._procfs.numa_maps(worker.pid)
        except Vanished:
            return Reading(None, "it ended while it was looked at", now_s)
        except (RightsError, Malformed) as error:
            return Reading(None, str(error), now_s)
        if not text.strip():
            return Reading(None, "its numa_maps is empty: it is starting, in exec or ending", now_s)
        vmas, odd = numa_maps.parse(text)
        cost_s = thread_cpu_s() - began
        self.scans += 1
        self.scan_s += cost_s
        self._credit_s -= cost_s
        self._spent_s += cost_s
        if not vmas:
            return Reading(None, f"no line of its numa_maps follows the grammar ({odd} odd)", now_s)
        residency = numa_maps.residency(vmas, odd, read_at_s=now_s, cost_s=cost_s)
        return Reading(residency, None, now_s, resident_bytes)
