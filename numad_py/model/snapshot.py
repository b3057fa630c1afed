"""What was seen of the machine and its workers at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from numad_py.model.guard import GuardReading
from numad_py.model.machine import Interference, NodeState, Pressure
from numad_py.model.residency import Kind, Residency, SegmentId
from numad_py.model.topology import Topology


class WorkerId(NamedTuple):
    """A process, for as long as it lives.

    pids are reused; the pair with the start time is not (field 22 of /proc/PID/stat, proc(5)).
    """

    pid: int
    start_ticks: int
    """Start time in clock ticks since boot."""

    def __str__(self) -> str:
        """Return ``pid@start``."""
        return f"{self.pid}@{self.start_ticks}"


@dataclass(frozen=True)
class Thread:
    """One thread of a worker."""

    tid: int
    start_ticks: int
    affinity: frozenset[int] | None
    """Cpus_allowed_list; None where the thread ended while it was read."""
    last_cpu: int
    cpu_ticks: int
    """utime + stime since the thread began, in clock ticks."""


@dataclass(frozen=True)
class MemoryStatus:
    """What /proc/PID/status says of a process's memory, at no cost to it (proc(5)).

    None where the kernel does not say: kernel threads and zombies have none of it.
    """

    mems_allowed: frozenset[int] | None = None
    """Nodes on which the kernel will give it memory."""
    anon_bytes: int | None = None
    """RssAnon."""
    file_bytes: int | None = None
    """RssFile."""
    shmem_bytes: int | None = None
    """RssShmem."""
    hugetlb_bytes: int | None = None
    """HugetlbPages."""
    swapped_bytes: int | None = None
    """VmSwap."""
    locked_bytes: int | None = None
    """VmLck: mlocked, which may be moved all the same."""
    pinned_bytes: int | None = None
    """VmPin: pinned for devices, which cannot be moved; not every driver counts here."""

    @property
    def resident_bytes(self) -> int | None:
        """Resident bytes of every kind; None where none is known."""
        known = [
            size
            for size in (self.anon_bytes, self.file_bytes, self.shmem_bytes, self.hugetlb_bytes)
            if size is not None
        ]
        return sum(known) if known else None


@dataclass(frozen=True)
class Bandwidth:
    """Memory traffic of a worker, as resctrl measures it."""

    local_bytes_per_s: float
    """Served by memory of the node on which its threads run (mbm_local_bytes)."""
    total_bytes_per_s: float
    """All of it (mbm_total_bytes); what is not local is truly remote."""


FirstMasks = Callable[[WorkerId, tuple[Thread, ...]], Mapping[int, frozenset[int]]]
"""Tells the masks that a worker's threads had before numad-py narrowed them, by thread id."""


@dataclass(frozen=True)
class Worker:
    """One process that a policy rule matches, as seen in this cycle."""

    id: WorkerId
    label: str
    """``rule/ordinal``: what people and metrics call it; stable while it lives."""
    rule: str
    comm: str
    user: str | None
    cgroup: str | None
    """Path of its cgroup v2, or of the cpuset or memory controller of v1."""
    threads: tuple[Thread, ...]
    cpuset_cpus: frozenset[int] | None
    """cpuset.cpus.effective of its cgroup; None where there is no cpuset controller."""
    memory: MemoryStatus
    residency: Residency | None
    """None until it could be read; ``problem`` says why."""
    run_share: Mapping[int, float]
    """Share of its CPU time spent on each node, 0..1; empty where it did not run."""
    demand_cpus: float
    """CPUs it keeps busy: CPU time since the last look over the time passed."""
    age_s: float
    """Time since it started, or since it was seen to have become another program by exec."""
    problem: str | None = None
    """Why something of it could not be read, in words; None when all is well."""
    first_masks: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Masks that threads had before numad-py narrowed them, by thread id; only of threads whose
    mask is still what it set."""
    bandwidth: Bandwidth | None = None
    """None where there is no resctrl, or none of its groups holds this worker."""
    thp_bytes: int | None = None
    """Of its memory in transparent huge pages; None where its cgroup is not its own."""
    devices: tuple[str, ...] = ()
    """Addresses of the PCI devices that it uses, sorted; empty where they may not be seen, too."""
    devices_unsure: bool = False
    """It has several accelerators open and none mapped: it may use some of them only."""
    execed_at_s: float | None = None
    """When it was seen to have become another program by exec, time since boot; None: never."""
    guard: GuardReading | None = None
    """The last reading of the metric that its rule guards; None where that failed, or none is."""
    guard_problem: str | None = None
    """Why that could not be read, in words."""

    @property
    def allowed_cpus(self) -> frozenset[int]:
        """Every CPU that any of its threads may use."""
        masks = [t.affinity for t in self.threads if t.affinity is not None]
        return frozenset().union(*masks)


@dataclass(frozen=True)
class PassedOver:
    """A process that is no worker, and why."""

    pid: int
    comm: str
    resident_bytes: int
    """RSS when it was judged, without hugetlb."""
    why: str
    command: str = ""
    """How its command line begins; empty where it has none."""


@dataclass(frozen=True)
class Segment:
    """A file or a shared segment that workers map: on the machine once, whoever maps it."""

    id: SegmentId
    path: str
    kind: Kind
    bytes_by_node: Mapping[int, int]
    """Resident bytes by node; of what several have resident, the most that any of them has."""
    users: tuple[str, ...]
    """Labels of the workers that map it, sorted."""
    mapmax: int = 0
    """How many mappings the page has that has most, whoever's they are; 0: not known."""

    @property
    def resident_bytes(self) -> int:
        """Resident bytes on all nodes."""
        return sum(self.bytes_by_node.values())


@dataclass(frozen=True)
class Snapshot:
    """One look at the whole machine."""

    cycle: int
    at_s: float
    """Time since boot (CLOCK_BOOTTIME, as in /proc/uptime)."""
    topology: Topology
    node_states: tuple[NodeState, ...]
    workers: tuple[Worker, ...]
    """Sorted by label."""
    segments: tuple[Segment, ...] = ()
    """What several workers map, and the larger files that one maps; largest first."""
    pressure: Pressure = field(default_factory=Pressure)
    interferences: tuple[Interference, ...] = ()
    """By name; those that are not present too. Empty where nobody looked."""
    unmatched: int = 0
    """Processes looked at that no rule matches or that a rule excludes."""
    deferred: int = 0
    """Processes that were not looked at yet, since so many are new."""
    passed_over: tuple[PassedOver, ...] = ()
    """The largest of them, as far as they would be worth moving; largest first."""
    vanished: int = 0
    """Processes and threads that ended between two reads since the daemon started."""
    malformed: int = 0
    """Files or lines that did not follow their grammar since the daemon started."""

    def resident_by_node(self) -> dict[int, int]:
        """Return resident bytes of all workers by node, what several map counted once.

        That is as far as their figures tell files and shared segments apart: what a worker's
        ``Residency.segments`` does not name counts for each who has it resident.
        """
        once = {segment.id for segment in self.segments}
        total: dict[int, int] = {}

        def add(by_node: Iterable[tuple[int, int]], sign: int = 1) -> None:
            for node, size in by_node:
                total[node] = total.get(node, 0) + sign * size

        for segment in self.segments:
            add(segment.bytes_by_node.items())
        for worker in self.workers:
            if worker.residency is None:
                continue
            add(worker.residency.by_node().items())
            for part in worker.residency.segments:
                if part.id in once:
                    add(part.bytes_by_node, -1)
        return {node: max(0, size) for node, size in sorted(total.items())}
