"""Families of metrics with a series for each worker, as far as something of it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from numad_py.model.plan import Decision
from numad_py.model.residency import Kind, Residency
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.serve.worker_status import error_share

Families = Iterator[Any]


def workers(
    snapshot: Snapshot,
    shown: tuple[Worker, ...],
    decisions: Mapping[WorkerId, Decision],
    age_s: float,
) -> Families:
    """Return every family about workers.

    Args:
        snapshot: with all of them.
        shown: those that have series of their own.
        decisions: the last one on each.
        age_s: time since the snapshot.
    """
    yield from _memory(snapshot, shown)
    yield from _looked(shown, snapshot.at_s + age_s)
    yield from _running(snapshot, shown)
    yield from _decided(shown, decisions)
    number = GaugeMetricFamily("numad_py_workers", "Workers by rule.", labels=["rule"])
    for rule, count in sorted(Counter(worker.rule for worker in snapshot.workers).items()):
        number.add_metric([rule], count)
    yield number


def _family(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"numad_py_worker_{name}", text, labels=["worker", "rule", *more])


def _labels(worker: Worker) -> list[str]:
    return [worker.label, worker.rule]


def _memory(snapshot: Snapshot, shown: tuple[Worker, ...]) -> Families:
    resident = _family("resident_bytes", "Resident bytes by node and kind.", "node", "kind")
    pinned = _family("pinned_bytes", "Bytes pinned for devices, which cannot be moved.")
    swapped = _family("swapped_bytes", "Bytes swapped out.")
    for worker in shown:
        labels, memory = _labels(worker), worker.memory
        if memory.pinned_bytes is not None:
            pinned.add_metric(labels, memory.pinned_bytes)
        if memory.swapped_bytes is not None:
            swapped.add_metric(labels, memory.swapped_bytes)
        if worker.residency is None:
            continue
        for kind in Kind:
            for node, size in worker.residency.by_node(kind=kind).items():
                resident.add_metric([*labels, str(node), kind.value], size)
    once = GaugeMetricFamily(
        "numad_py_workers_resident_bytes",
        "Resident bytes of all workers by node; what several map counts once.",
        labels=["node"],
    )
    by_node = {node.id: 0 for node in snapshot.topology.nodes} | snapshot.resident_by_node()
    for node, size in by_node.items():
        once.add_metric([str(node)], size)
    yield from (resident, pinned, swapped, once)


def _looked(shown: tuple[Worker, ...], now_s: float) -> Families:
    """Return where the memory figures come from, how old they are and how sure."""
    age = _family(
        "residency_age_seconds", "Time since the memory figures were read, or last confirmed."
    )
    error = _family(
        "residency_error_ratio",
        "By how much a node's share may be wrong, 95 times in 100; none where nobody knows.",
    )
    source = _family(
        "residency_source", "1 for the kind of reading the memory figures come from.", "source"
    )
    for worker in shown:
        if worker.residency is None:
            continue
        labels = _labels(worker)
        age.add_metric(labels, max(0.0, now_s - _looked_at_s(worker.residency)))
        source.add_metric([*labels, worker.residency.source.value], 1)
        if (share := _error(worker.residency)) is not None:
            error.add_metric(labels, share)
    yield from (age, error, source)


def _looked_at_s(residency: Residency) -> float:
    confirmed = residency.confirmed
    return max(residency.read_at_s, confirmed.at_s if confirmed is not None else 0.0)


def _error(residency: Residency) -> float | None:
    """Return the error of the figures, and what their confirmation may have missed since."""
    share = error_share(residency)
    if share is None or residency.confirmed is None:
        return share
    return share + residency.confirmed.error_share


def _running(snapshot: Snapshot, shown: tuple[Worker, ...]) -> Families:
    run = _family(
        "run_ratio", "Share of CPU time by node between the last two reads of its threads.", "node"
    )
    threads = _family("threads", "Threads.")
    demand = _family("demand_cpus", "CPUs that it keeps busy.")
    traffic = _family("bandwidth_bytes_per_second", "Memory traffic, as resctrl measures it.")
    local = _family(
        "local_bandwidth_bytes_per_second", "Memory traffic that the node of its threads serves."
    )
    for worker in shown:
        labels = _labels(worker)
        threads.add_metric(labels, len(worker.threads))
        demand.add_metric(labels, worker.demand_cpus)
        for node in snapshot.topology.nodes:
            run.add_metric([*labels, str(node.id)], worker.run_share.get(node.id, 0.0))
        if worker.bandwidth is not None:
            traffic.add_metric(labels, worker.bandwidth.total_bytes_per_s)
            local.add_metric(labels, worker.bandwidth.local_bytes_per_s)
    yield from (run, threads, demand, traffic, local)


def _decided(shown: tuple[Worker, ...], decisions: Mapping[WorkerId, Decision]) -> Families:
    movable = _family("movable_bytes", "Resident bytes that may be moved; none while not known.")
    immovable = _family("immovable_bytes", "Resident bytes shared, pinned or under a mempolicy.")
    remote = _family("remote_bytes", "Movable bytes off the home nodes; none without a home.")
    locality = _family("locality_ratio", "Share of the movable bytes on the home nodes.")
    home = _family("home", "1 for each home node.", "node")
    decided = _family("decision", "1 for what is done about it, and why.", "verdict", "reason")
    for worker in shown:
        decision = decisions.get(worker.id)
        if decision is None:
            continue
        labels, finding = _labels(worker), decision.finding
        decided.add_metric([*labels, decision.verdict.value, decision.reason.value], 1)
        if worker.residency is None:
            continue
        if worker.residency.mobility_known:
            movable.add_metric(labels, finding.movable_bytes)
            immovable.add_metric(labels, finding.immovable_bytes)
        if finding.home is not None:
            remote.add_metric(labels, finding.remote_bytes)
        if finding.locality is not None:
            locality.add_metric(labels, finding.locality)
        for node in sorted(finding.home.nodes) if finding.home else ():
            home.add_metric([*labels, str(node)], 1)
    yield from (movable, immovable, remote, locality, home, decided)
