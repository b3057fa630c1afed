"""Prometheus metrics over the last cycle report.

Labels are bounded: workers by rule and ordinal, never by pid, and no more than the policy's
``max_workers``; a worker's series end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

import numad_py
from numad_py.model.guard import Compared
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import Reason, Verdict
from numad_py.model.residency import Source
from numad_py.model.settings import KINDS
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Mode
from numad_py.serve.metrics_nodes import machine
from numad_py.serve.metrics_workers import workers
from numad_py.serve.report import CycleReport, Totals

Families = Iterator[Any]
Report = Callable[[], tuple["CycleReport | None", Totals]]


class Collector:
    """Makes every family at scrape time from the report, which is frozen."""

    def __init__(self, source: Report, max_workers: int) -> None:
        """``source`` returns the last report, aged to now (None before a cycle), and totals."""
        self._source = source
        self._max_workers = max_workers

    def describe(self) -> Iterable[Any]:
        """Return nothing: registering is not to collect."""
        return ()

    def collect(self) -> Families:
        """Return every family."""
        report, totals = self._source()
        build = GaugeMetricFamily("numad_py_build_info", "Version.", labels=["version"])
        build.add_metric([numad_py.__version__], 1)
        yield build
        yield from _totals(totals)
        if report is None:
            return
        yield from _state(report)
        yield from _moved(report.snapshot, totals)
        yield from machine(report.snapshot)
        shown = report.snapshot.workers[: self._max_workers]
        hidden = len(report.snapshot.workers) - len(shown)
        yield _plain("workers_unlabelled", "Workers beyond metrics.max_workers.", hidden)
        decisions = {d.worker: d for d in report.plan.decisions}
        yield from workers(report.snapshot, shown, decisions, report.age_s)


def make_registry(source: Report, max_workers: int) -> CollectorRegistry:
    """Return a registry with the daemon's own metrics and the standard process_* ones."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(source, max_workers))
    ProcessCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the exposition and its content type for an Accept header."""
    try:
        encode, content_type = choose_encoder(accept)
    except Exception:  # noqa: BLE001 - the library parses a header that anybody may send
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def _plain(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"numad_py_{name}", text, value=value)


def _count(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"numad_py_{name}", text, value=value)


def _totals(totals: Totals) -> Families:
    yield _count("cycles", "Cycles since the start.", totals.cycles)
    yield _count("failed_cycles", "Cycles that a machine's odd answer ended.", totals.failed_cycles)
    yield _count("cycle_seconds", "Time spent in cycles.", totals.cycle_s)
    yield _count("cycle_cpu_seconds", "CPU time spent in cycles.", totals.cycle_cpu_s)
    readings = CounterMetricFamily(
        "numad_py_readings", "Readings of a worker's memory, by source.", labels=["source"]
    )
    reading_s = CounterMetricFamily(
        "numad_py_reading_cpu_seconds", "CPU time that readings took.", labels=["source"]
    )
    for source in Source:
        readings.add_metric([source.value], totals.readings.get(source, 0))
        reading_s.add_metric([source.value], totals.reading_s.get(source, 0.0))
    yield readings
    yield reading_s
    yield _count("move_seconds", "Time spent acting on decisions.", totals.move_s)
    yield _count("chunks", "Chunks that memory was moved in.", totals.chunks)
    yield GaugeMetricFamily(
        "numad_py_longest_chunk_seconds",
        "The longest that one chunk has taken since the start.",
        value=totals.longest_chunk_s,
    )
    yield _count("move_wait_seconds", "Time that moves waited for memory.", totals.waited_s)
    yield _count(
        "promised_bytes", "Bytes that decisions carried out were to move.", totals.promised_bytes
    )
    yield _count("threads_bound", "Threads whose affinity was narrowed.", totals.threads_bound)
    yield _count("reload_failures", "Policies refused on reload.", totals.reload_failures)
    decisions = CounterMetricFamily(
        "numad_py_decisions", "Decisions by verdict and reason.", labels=["verdict", "reason"]
    )
    known = {(verdict.value, reason.value): 0 for verdict, reason in _PAIRS}
    for (verdict, reason), count in sorted({**known, **totals.decisions}.items()):
        decisions.add_metric([verdict, reason], count)
    yield decisions
    judgements = CounterMetricFamily(
        "numad_py_guard_judgements",
        "Moves of guarded workers, by what comparing latency before and after has led to.",
        labels=["result"],
    )
    for result in Compared:
        judgements.add_metric([result.value], totals.judgements.get(result, 0))
    yield judgements
    moves = CounterMetricFamily(
        "numad_py_moves", "Decisions carried out, by how they ended.", labels=["end"]
    )
    for end in End:
        moves.add_metric([end.value], totals.moves.get(end.value, 0))
    yield moves
    pages = CounterMetricFamily(
        "numad_py_pages", "Pages handed to the kernel, by what became of them.", labels=["status"]
    )
    for status in PageStatus:
        pages.add_metric([status.value], totals.pages.get(status.value, 0))
    yield pages


_PAIRS = (
    (Verdict.ACT, Reason.REMOTE_MEMORY),
    (Verdict.ACT, Reason.REMOTE_THREADS),
    (Verdict.ACT, Reason.GUARD_UNDO),
    (Verdict.REST, Reason.HOME),
    (Verdict.REST, Reason.BELOW_THRESHOLD),
    (Verdict.REST, Reason.ONE_NODE),
    (Verdict.WAIT, Reason.LOADING),
    (Verdict.WAIT, Reason.QUEUED),
    (Verdict.WAIT, Reason.COOLDOWN),
    (Verdict.WAIT, Reason.MOVING),
    (Verdict.WAIT, Reason.PAUSED),
    (Verdict.WAIT, Reason.UNREADABLE),
    (Verdict.WAIT, Reason.MEASURING),
    (Verdict.WAIT, Reason.GUARDING),
    (Verdict.WAIT, Reason.GUARD_PAUSE),
    (Verdict.REFUSE, Reason.MEMPOLICY),
    (Verdict.REFUSE, Reason.NO_ROOM),
    (Verdict.REFUSE, Reason.NO_HOME),
    (Verdict.REFUSE, Reason.IMMOVABLE),
)
"""Every pair there is, so that each series exists from the start and its first rise is seen."""


def _state(report: CycleReport) -> Families:
    mode = GaugeMetricFamily("numad_py_mode", "1 for the mode it runs in.", labels=["mode"])
    for name in Mode:
        mode.add_metric([name.value], float(report.mode == name.value))
    yield mode
    yield _plain("paused", "1 while paused.", float(report.paused))
    yield _plain(
        "policy_valid", "0 after a reload was refused.", float(report.policy_error is None)
    )
    yield _plain(
        "policy_loaded_timestamp_seconds", "When the policy was read.", report.policy_loaded_at
    )
    yield _plain("last_cycle_timestamp_seconds", "When the last cycle ended.", report.last_cycle_at)
    yield _plain("interval_seconds", "Time from one cycle to the next.", report.interval_s)
    yield _plain(
        "unmatched_processes", "Processes that no rule matches.", report.snapshot.unmatched
    )
    yield _plain(
        "deferred_processes", "Processes that wait to be looked at.", report.snapshot.deferred
    )
    settings = CounterMetricFamily(
        "numad_py_setting_failures",
        "Kernel settings that could not be changed or given back, by setting.",
        labels=["setting"],
    )
    for kind in KINDS:
        settings.add_metric([kind], report.settings.failures.get(kind, 0))
    yield settings
    errors = CounterMetricFamily(
        "numad_py_read_errors",
        "Reads that failed: the process vanished, or the file did not follow its grammar.",
        labels=["kind"],
    )
    errors.add_metric(["vanished"], report.snapshot.vanished)
    errors.add_metric(["malformed"], report.snapshot.malformed)
    yield errors


def _moved(snapshot: Snapshot, totals: Totals) -> Families:
    moved = CounterMetricFamily(
        "numad_py_moved_bytes", "Bytes moved between nodes.", labels=["source", "target"]
    )
    with_memory = [node.id for node in snapshot.topology.nodes if node.has_memory]
    known = {(a, b): 0 for a, b in product(with_memory, with_memory) if a != b}
    for (source, target), size in sorted({**known, **totals.moved_bytes}.items()):
        moved.add_metric([str(source), str(target)], size)
    yield moved
