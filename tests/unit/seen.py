"""Workers and machines as they may be seen, made by hand, and reports of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numad_py.model.plan import Decision, Finding, Home, HomeSource, Plan, Reason, Verdict
from numad_py.model.residency import (
    BASE_PAGE_BYTES,
    Kind,
    Mobility,
    Residency,
    SegmentId,
    SegmentPart,
    entries_of,
)
from numad_py.model.snapshot import MemoryStatus, Segment, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.load import defaults
from numad_py.serve.report import CycleReport

GIB = 1 << 30
MIB = 1 << 20
NOW_S = 1000.0
MODEL = SegmentId("08:01", 42)

Sizes = Mapping[tuple[int, Kind, Mobility], int]


def residency(sizes: Sizes, *, age_s: float = 0.0, **more: Any) -> Residency:
    """Return one of base pages, by node, kind and mobility, that was read so long ago."""
    keyed = {(*key, BASE_PAGE_BYTES): size for key, size in sizes.items()}
    return Residency(entries_of(keyed), read_at_s=NOW_S - age_s, **more)


def anon(size: int, node: int = 0, **more: Any) -> Residency:
    """Return anonymous memory on one node."""
    return residency({(node, Kind.ANON, Mobility.MOVABLE): size}, **more)


def maps_file(by_node: Mapping[int, int], segment: SegmentId = MODEL) -> Residency:
    """Return a mapped file, and the segment that it is."""
    sizes = {(node, Kind.FILE, Mobility.SHARED): size for node, size in by_node.items()}
    part = SegmentPart(segment, "/model.gguf", Kind.FILE, tuple(sorted(by_node.items())))
    return residency(sizes, segments=(part,))


def worker(label: str = "x/0", found: Residency | None = None, **more: Any) -> Worker:
    """Return a worker of one thread; what is not said of it is not known."""
    values: dict[str, Any] = {
        "comm": "server",
        "user": "root",
        "cgroup": None,
        "threads": (Thread(10, 5, frozenset({0}), 0, 100),),
        "cpuset_cpus": None,
        "memory": MemoryStatus(),
        "run_share": {0: 1.0},
        "demand_cpus": 1.5,
        "age_s": 100.0,
    }
    rule, _, number = label.partition("/")
    return Worker(
        id=WorkerId(10 + int(number), 5),
        label=label,
        rule=rule,
        residency=found,
        **(values | more),
    )


def segment(
    by_node: Mapping[int, int], *users: str, number: int = MODEL.inode, path: str = "/model.gguf"
) -> Segment:
    """Return a file as the workers map it."""
    return Segment(SegmentId(MODEL.device, number), path, Kind.FILE, by_node, users)


def snapshot(*workers: Worker, **more: Any) -> Snapshot:
    """Return a look at a machine of two nodes, unless others are given."""
    nodes = tuple(
        Node(i, frozenset({i}), 4 * GIB, {0: 10 + 10 * i, 1: 20 - 10 * i}) for i in (0, 1)
    )
    values: dict[str, Any] = {"at_s": NOW_S, "topology": Topology(nodes), "node_states": ()} | more
    return Snapshot(cycle=3, workers=workers, **values)


def rests(seen: Worker, *, refused: int = 0) -> Decision:
    """Return the decision to let a worker rest on node 0, some of whose memory refused to move."""
    found = seen.residency
    total = found.total_bytes() if found else 0
    movable = found.total_bytes(mobility=Mobility.MOVABLE) - refused if found else 0
    home = Home(frozenset({0}), HomeSource.PLANNER, "because")
    finding = Finding(seen.id, seen.label, home, movable, 0, total - movable, 1.0, 1.0)
    return Decision(
        f"3:{seen.label}", seen.id, seen.label, seen.rule, Verdict.REST, Reason.HOME, "", finding
    )


def report(seen: Snapshot, *decisions: Decision) -> CycleReport:
    """Return a report; workers without a decision here rest."""
    known = {d.worker: d for d in decisions}
    every = tuple(known.get(w.id) or rests(w) for w in seen.workers)
    return CycleReport.of_one_look(seen, Plan(3, every), defaults())
