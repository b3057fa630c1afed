"""A worker's threads: where they run and may run, read as seldom as will do."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from numad_py.errors import Malformed, Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.stat import Stat
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.model.topology import Topology
from numad_py.observe.pauses import as_long_again

THREADS_S = 15.0
"""So often a worker's threads are read, each with two files; sooner where one is new, all of them
before it is acted on, and ever more seldom while they and their masks stay the same."""

Ticks = Mapping[tuple[int, int], int]
"""CPU time in clock ticks by (thread id, start time)."""


@dataclass(frozen=True)
class ThreadsSeen:
    """A worker's threads and what they did since the last look."""

    threads: tuple[Thread, ...]
    run_share: Mapping[int, float] = field(default_factory=dict)
    """Share of its CPU time by node, 0..1, between the last two times that its threads were read;
    empty where it did not run."""
    demand_cpus: float = 0.0
    """CPUs kept busy since the last look."""


@dataclass(frozen=True)
class _Read:
    """Threads as they were read."""

    at_s: float
    """When all of them were."""
    since_s: float
    """Since when they and their masks are the same."""
    threads: tuple[Thread, ...]
    run_share: Mapping[int, float]
    counted: tuple[Thread, ...]
    """All of them as of ``at_s``: what they run counts from there."""


@dataclass(frozen=True)
class _Seen:
    read: _Read
    num_threads: int
    seen: ThreadsSeen
    looked_at_s: float
    ticks: int
    """CPU time of the whole process at the last look."""


class Threads:
    """Remembers each worker's threads from look to look.

    What the process spends in all stands in its stat, which is read in any case. Its threads are
    read one by one now and then only: a server has hundreds of them. In between those alone that
    are new where their number changed; one that has taken the id of another meanwhile is told from
    it when all are read again.
    """

    def __init__(self, procfs: ProcFs) -> None:
        """Start with nothing seen."""
        self._procfs = procfs
        self._seen: dict[WorkerId, _Seen] = {}

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._seen = {k: v for k, v in self._seen.items() if k in workers}

    def masks_changed(self) -> None:
        """Read every thread anew at the next look: masks were set, or CPUs came or went."""
        self._seen = {
            k: replace(v, read=replace(v.read, at_s=float("-inf"))) for k, v in self._seen.items()
        }

    def look(self, worker: WorkerId, stat: Stat, now_s: float, topology: Topology) -> ThreadsSeen:
        """Return a worker's threads, and what they did.

        Args:
            worker: whose.
            stat: of the process, read in this look.
            now_s: time since boot.
            topology: tells the node of a CPU.

        Raises:
            Vanished: it ended.
            RightsError: its threads may not be seen.
            Malformed: their folder cannot be listed.
        """
        before = self._seen.get(worker)
        if before is None:
            read = self._all(worker, None, now_s, topology)
            ran_since_s = worker.start_ticks / self._procfs.clock_ticks
            spent_ticks = stat.cpu_ticks
        else:
            read = before.read
            if now_s - read.at_s >= as_long_again(read.at_s - read.since_s, THREADS_S):
                read = self._all(worker, read, now_s, topology)
            elif before.num_threads != stat.num_threads:
                read = self._new_ones(worker, read, now_s)
            ran_since_s = before.looked_at_s
            spent_ticks = stat.cpu_ticks - before.ticks
        demand = demand_cpus(spent_ticks, now_s - ran_since_s, self._procfs.clock_ticks)
        seen = ThreadsSeen(read.threads, read.run_share, demand)
        self._seen[worker] = _Seen(read, stat.num_threads, seen, now_s, stat.cpu_ticks)
        return seen

    def confirm(self, worker: WorkerId, now_s: float, topology: Topology) -> ThreadsSeen:
        """Return the threads of a worker that was looked at, as of now: it is to be acted on.

        Raises:
            as ``look``.
        """
        before = self._seen[worker]
        if before.read.at_s >= now_s:
            return before.seen
        read = self._all(worker, before.read, now_s, topology)
        seen = replace(before.seen, threads=read.threads, run_share=read.run_share)
        self._seen[worker] = replace(before, read=read, seen=seen)
        return seen

    def _all(
        self, worker: WorkerId, before: _Read | None, now_s: float, topology: Topology
    ) -> _Read:
        threads = self._procfs.threads(worker.pid)
        ticks = spent(ticks_of(before.counted) if before is not None else {}, threads)
        since_s = now_s
        if before is not None and _masks(threads) == _masks(before.threads):
            since_s = before.since_s
        return _Read(now_s, since_s, threads, run_share(ticks, threads, topology), threads)

    def _new_ones(self, worker: WorkerId, before: _Read, now_s: float) -> _Read:
        """Return the threads that are still there and the new ones, which alone are read."""
        tids = self._procfs.tids(worker.pid)
        threads = [thread for thread in before.threads if thread.tid in tids]
        for tid in tids.difference(thread.tid for thread in threads):
            with contextlib.suppress(Vanished, Malformed):
                threads.append(self._procfs.thread(worker.pid, tid))
        threads.sort(key=attrgetter("tid"))
        return replace(before, since_s=now_s, threads=tuple(threads))


def _masks(threads: Sequence[Thread]) -> list[tuple[int, int, frozenset[int] | None]]:
    return [(t.tid, t.start_ticks, t.affinity) for t in threads]


def ticks_of(threads: Sequence[Thread]) -> dict[tuple[int, int], int]:
    """Return each thread's CPU time so far, by an identity that survives reuse of thread ids."""
    return {(t.tid, t.start_ticks): t.cpu_ticks for t in threads}


def spent(before: Ticks, now: Sequence[Thread]) -> dict[int, int]:
    """Return the ticks that each thread ran since ``before``, by thread id.

    A thread that was not there before counts with all it has run; with an empty ``before`` this is
    therefore the time since each thread began.
    """
    return {t.tid: max(0, t.cpu_ticks - before.get((t.tid, t.start_ticks), 0)) for t in now}


def run_share(
    spent_ticks: Mapping[int, int], now: Sequence[Thread], topology: Topology
) -> dict[int, float]:
    """Return the share of CPU time by node, 0..1, each thread counted where it ran last.

    The kernel does not account a thread's time by CPU (proc(5) has one ``processor`` field, the
    last), so time is credited to the node on which the thread was seen. Empty when nothing ran.
    """
    by_node: dict[int, int] = {}
    for thread in now:
        node = topology.node_of_cpu(thread.last_cpu)
        if node is not None and spent_ticks.get(thread.tid, 0) > 0:
            by_node[node] = by_node.get(node, 0) + spent_ticks[thread.tid]
    total = sum(by_node.values())
    return {node: ticks / total for node, ticks in sorted(by_node.items())} if total else {}


def demand_cpus(spent_ticks: int, elapsed_s: float, ticks_per_s: int) -> float:
    """Return how many CPUs were kept busy; 0.0 when no time has passed."""
    if elapsed_s <= 0:
        return 0.0
    return max(0, spent_ticks) / ticks_per_s / elapsed_s
