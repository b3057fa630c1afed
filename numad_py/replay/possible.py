"""What no machine can have shown: a recording that says it was changed, or is not whole.

A machine that is as odd as real ones get stands: nodes and CPUs that come and go, distances that
differ by direction (ACPI 6.5, 5.2.17, stores both), masks that name CPUs which are offline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from numad_py.model.cpulist import format_list
from numad_py.model.quantity import format_bytes
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.model.topology import LOCAL_DISTANCE, Topology

UNSURE = 1.25
"""A worker has no more memory than the machine, times this: a sample may be as wrong."""
_MOST = 1e18
"""No time, rate or number of CPUs is greater; JSON's readers take infinity, and what is none."""
_MOST_SHARE = 1.001
"""Shares add up to one, give or take what rounding does."""


class Seen:
    """Goes through the looks of a recording, and remembers the nodes that have been there."""

    def __init__(self) -> None:
        """Begin before the first look."""
        self._nodes: set[int] = set()
        self._at_s = float("-inf")

    def problems(self, snapshot: Snapshot) -> Iterator[str]:
        """Yield ``key: what is wrong`` of a look; looks come in the order of the recording."""
        for value in _odd((snapshot.at_s,)):
            yield f"at_s: {value:g} is no time"
        if snapshot.at_s < self._at_s:
            yield f"at_s: {snapshot.at_s:g} s is before the look above it"
        self._at_s = snapshot.at_s
        yield from _topology(snapshot.topology)
        self._nodes.update(snapshot.topology.node_ids)
        yield from _states(snapshot)
        yield from _twice("workers", "id", [str(worker.id.pid) for worker in snapshot.workers])
        yield from _twice("workers", "label", [worker.label for worker in snapshot.workers])
        most = int(UNSURE * sum(node.memory_bytes for node in snapshot.topology.nodes))
        for i, worker in enumerate(snapshot.workers):
            for key, what in self._worker(worker, most):
                yield f"workers[{i}].{key}: {worker.label} {what}"

    def _worker(self, worker: Worker, most: int) -> Iterator[tuple[str, str]]:
        for key, values in _floats(worker):
            for value in _odd(values):
                yield key, f"has {value:g} there, no figure of a machine"
        if worker.demand_cpus < 0:
            yield "demand_cpus", f"keeps {worker.demand_cpus:g} CPUs busy, less than none"
        shares = worker.run_share
        if min(shares.values(), default=0.0) < 0 or sum(shares.values()) > _MOST_SHARE:
            yield "run_share", "ran on the nodes for shares that do not add up to 1"
        yield from self._on("run_share", "ran", shares)
        if worker.residency is None:
            return
        entries = worker.residency.entries
        if any(entry.resident_bytes < 0 for entry in entries):
            yield "residency", "has less than no memory on a node"
        elif (total := worker.residency.total_bytes()) > most:
            yield "residency", f"has {format_bytes(total)}, more than the machine"
        if any(entry.page_bytes <= 0 for entry in entries):
            yield "residency", "has pages without a size"
        yield from self._on("residency", "has memory", (entry.node for entry in entries))

    def _on(self, key: str, does: str, nodes: Iterable[int]) -> Iterator[tuple[str, str]]:
        if absent := set(nodes) - self._nodes:
            yield key, f"{does} on node {min(absent)}, which the machine has not had"


def _topology(topology: Topology) -> Iterator[str]:
    yield from _twice("topology.nodes", "id", [str(node.id) for node in topology.nodes])
    cpus: set[int] = set()
    for i, node in enumerate(topology.nodes):
        key = f"topology.nodes[{i}]"
        if node.id < 0:
            yield f"{key}.id: {node.id} is less than 0"
        if node.memory_bytes < 0:
            yield f"{key}.memory_bytes: {node.memory_bytes} is less than 0"
        if both := cpus & node.cpus:
            yield f"{key}.cpus: {format_list(both)} of node {node.id} belong to another node, too"
        cpus |= node.cpus
        for other, distance in node.distances.items():
            bad = distance != LOCAL_DISTANCE if other == node.id else distance < LOCAL_DISTANCE
            if bad:
                yield (
                    f"{key}.distances: {distance} from node {node.id} to node {other}; "
                    f"{LOCAL_DISTANCE} is local, and none is less"
                )


def _states(snapshot: Snapshot) -> Iterator[str]:
    yield from _twice("node_states", "node", [str(s.node) for s in snapshot.node_states])
    for i, state in enumerate(snapshot.node_states):
        key = f"node_states[{i}]"
        for name in ("total_bytes", "free_bytes", "reclaimable_bytes"):
            if (size := getattr(state, name)) < 0:
                yield f"{key}.{name}: {size} is less than 0"
        for value in _odd((state.busy_cpus,)):
            yield f"{key}.busy_cpus: {value:g} is no figure of a machine"
        if (state.busy_cpus or 0.0) < 0:
            yield f"{key}.busy_cpus: {state.busy_cpus} is less than 0"
        for pool in state.huge_pages:
            if pool.page_bytes <= 0 or pool.free < 0 or pool.total < 0:
                yield f"{key}.huge_pages: a size or a number of pages is less than 0"


def _floats(worker: Worker) -> Iterator[tuple[str, Iterable[float | None]]]:
    """Yield what of a worker is no whole number, by key."""
    yield "demand_cpus", (worker.demand_cpus,)
    yield "age_s", (worker.age_s,)
    yield "execed_at_s", (worker.execed_at_s,)
    yield "run_share", worker.run_share.values()
    if (found := worker.residency) is not None:
        yield "residency", (found.read_at_s, found.cost_s)
        if found.confirmed is not None:
            yield "residency.confirmed", (found.confirmed.at_s, found.confirmed.error_share)
    if (rates := worker.bandwidth) is not None:
        yield "bandwidth", (rates.local_bytes_per_s, rates.total_bytes_per_s)
    if (read := worker.guard) is not None:
        # The last bucket of a histogram has no bound: infinity is its right name.
        counts = (count for _, count in read.buckets)
        yield "guard", (read.at_s, read.count, read.value, *counts)


def _odd(values: Iterable[float | None]) -> Iterator[float]:
    """Yield what is infinite, beyond all measure, or no number."""
    for value in values:
        # Nothing compares to what is no number.
        if value is not None and not abs(value) <= _MOST:
            yield value


def _twice(where: str, key: str, names: list[str]) -> Iterator[str]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield f"{where}[{i}].{key}: {name} is there twice"
        seen.add(name)
