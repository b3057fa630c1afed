"""Where threads ran and how much: functions of two samples and the time between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numad_py.model.snapshot import Thread
from numad_py.model.topology import Topology

Ticks = Mapping[tuple[int, int], int]
"""CPU time in clock ticks by (thread id, start time)."""


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


def demand_cpus(spent_ticks: Mapping[int, int], elapsed_s: float, ticks_per_s: int) -> float:
    """Return how many CPUs were kept busy; 0.0 when no time has passed."""
    if elapsed_s <= 0:
        return 0.0
    return sum(spent_ticks.values()) / ticks_per_s / elapsed_s
