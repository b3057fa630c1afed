"""Families of metrics about the machine: its nodes, what workers map, and what interferes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from numad_py.model.machine import Pressure
from numad_py.model.snapshot import Snapshot

Families = Iterator[Any]


def machine(snapshot: Snapshot) -> Families:
    """Return every family about the machine; what could not be read has no series."""
    yield from _memory(snapshot)
    yield from _huge_pages(snapshot)
    yield from _use(snapshot)
    yield from _segments(snapshot)
    yield _pressure(snapshot.pressure)
    present = GaugeMetricFamily(
        "numad_py_interference",
        "1 where it is there: it moves pages or threads, or makes memory remote.",
        labels=["name"],
    )
    for interference in snapshot.interferences:
        present.add_metric([interference.name], float(interference.present))
    yield present


def _family(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"numad_py_node_{name}", text, labels=["node", *more])


def _memory(snapshot: Snapshot) -> Families:
    total = _family("memory_bytes", "Memory of a node.")
    free = _family("free_bytes", "Free memory of a node.")
    reclaimable = _family("reclaimable_bytes", "Clean file cache of a node.")
    for state in snapshot.node_states:
        labels = [str(state.node)]
        total.add_metric(labels, state.total_bytes)
        free.add_metric(labels, state.free_bytes)
        reclaimable.add_metric(labels, state.reclaimable_bytes)
    yield from (total, free, reclaimable)


def _huge_pages(snapshot: Snapshot) -> Families:
    pages = _family("huge_pages", "Pages in the pool of hugetlb, by their bytes.", "size")
    free = _family("free_huge_pages", "Free pages in the pool of hugetlb, by their bytes.", "size")
    for state in snapshot.node_states:
        for pool in state.huge_pages:
            labels = [str(state.node), str(pool.page_bytes)]
            pages.add_metric(labels, pool.total)
            free.add_metric(labels, pool.free)
    yield from (pages, free)


def _use(snapshot: Snapshot) -> Families:
    busy = _family("busy_cpus", "CPUs of a node kept busy since the last cycle.")
    allocated = CounterMetricFamily(
        "numad_py_node_numastat_pages",
        "Allocations on a node in pages, by the events of numastat(8).",
        labels=["node", "event"],
    )
    for state in snapshot.node_states:
        if state.busy_cpus is not None:
            busy.add_metric([str(state.node)], state.busy_cpus)
        if state.numastat is not None:
            for event, pages in asdict(state.numastat).items():
                allocated.add_metric([str(state.node), event], pages)
    yield from (busy, allocated)


def _segments(snapshot: Snapshot) -> Families:
    """Return their number and size only: as labels, paths would have no end."""
    yield GaugeMetricFamily(
        "numad_py_segments",
        "Files and shared segments that workers map, the larger ones.",
        value=len(snapshot.segments),
    )
    yield GaugeMetricFamily(
        "numad_py_segments_resident_bytes",
        "Resident bytes of these, each counted once.",
        value=sum(segment.resident_bytes for segment in snapshot.segments),
    )


def _pressure(pressure: Pressure) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "numad_py_pressure_ratio",
        "Share of the last 10 s in which some waited for it, or all did at once.",
        labels=["resource", "stall"],
    )
    for resource, stall, share in (
        ("cpu", "some", pressure.cpu_some),
        ("memory", "some", pressure.memory_some),
        ("memory", "full", pressure.memory_full),
    ):
        if share is not None:
            family.add_metric([resource, stall], share)
    return family
