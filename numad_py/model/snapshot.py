"""What was seen of the machine and its workers at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from numad_py.model.topology import Topology


@dataclass(frozen=True, order=True)
class WorkerId:
    """A process, for as long as it lives.

    pids are reused; the pair with the start time is not (field 22 of /proc/PID/stat, proc(5)).
    """

    pid: int
    start_ticks: int
    """Start time in clock ticks since boot."""

    def __str__(self) -> str:
        """Return ``pid@start``."""
        return f"{self.pid}@{self.start_ticks}"


class Kind(str, Enum):
    """What a resident page belongs to."""

    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    HUGETLB = "hugetlb"


class Mobility(str, Enum):
    """Whether a page may be moved, and what stands in the way if not."""

    MOVABLE = "movable"
    SHARED = "shared"
    """Mapped by other processes too: move_pages without MPOL_MF_MOVE_ALL answers EACCES."""
    POLICY = "policy"
    """Under a mempolicy that the user set: not ours to undo."""


@dataclass(frozen=True)
class ResidencyEntry:
    """Resident bytes of one kind and mobility on one node."""

    node: int
    kind: Kind
    mobility: Mobility
    resident_bytes: int


@dataclass(frozen=True)
class Residency:
    """Where a worker's resident pages lie, as read from its whole numa_maps."""

    entries: tuple[ResidencyEntry, ...]
    """Sorted by node, kind, mobility; no two alike."""
    read_at_s: float
    """Time since boot at which it was read."""
    cost_s: float = 0.0
    """How long reading took."""
    odd_lines: int = 0
    """Lines that did not follow the grammar and are left out."""
    policies: tuple[str, ...] = ()
    """Distinct mempolicies other than default and local, as numa_maps prints them, sorted."""

    def by_node(
        self, *, mobility: Mobility | None = None, kind: Kind | None = None
    ) -> dict[int, int]:
        """Return bytes per node, of one mobility or kind only where given."""
        total: dict[int, int] = {}
        for entry in self.entries:
            if mobility is not None and entry.mobility is not mobility:
                continue
            if kind is not None and entry.kind is not kind:
                continue
            total[entry.node] = total.get(entry.node, 0) + entry.resident_bytes
        return total

    def total_bytes(self, *, mobility: Mobility | None = None) -> int:
        """Return resident bytes of all nodes."""
        return sum(self.by_node(mobility=mobility).values())

    def bytes_on(self, nodes: Iterable[int], *, mobility: Mobility | None = None) -> int:
        """Return resident bytes on these nodes."""
        wanted = set(nodes)
        return sum(v for node, v in self.by_node(mobility=mobility).items() if node in wanted)


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
    mems_allowed: frozenset[int] | None
    """Mems_allowed_list: nodes on which the kernel will give it memory."""
    residency: Residency | None
    """None until it could be read; ``problem`` says why."""
    run_share: Mapping[int, float]
    """Share of its CPU time spent on each node, 0..1; empty where it did not run."""
    demand_cpus: float
    """CPUs it keeps busy: CPU time since the last look over the time passed."""
    age_s: float
    """Time since it started."""
    problem: str | None = None
    """Why something of it could not be read, in words; None when all is well."""
    first_masks: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Masks that threads had before numad-py narrowed them, by thread id; only of threads whose
    mask is still what it set."""

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


@dataclass(frozen=True)
class NodeState:
    """What changes on a node from cycle to cycle."""

    node: int
    total_bytes: int
    """MemTotal; 0 for a memoryless node, and for one that went offline."""
    free_bytes: int
    """MemFree."""
    reclaimable_bytes: int
    """Clean file cache that reclaim can drop: Active(file) + Inactive(file) - Dirty."""

    def room_bytes(self, headroom: float) -> int:
        """Return what may still come here, above a share of its memory; negative: less than that.

        Clean file cache counts half: reclaim can drop it, but somebody may want it.
        """
        return int(self.free_bytes + self.reclaimable_bytes / 2 - headroom * self.total_bytes)


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
    unmatched: int = 0
    """Processes looked at that no rule matches or that a rule excludes."""
    passed_over: tuple[PassedOver, ...] = ()
    """The largest of them, as far as they would be worth moving; largest first."""
    vanished: int = 0
    """Processes and threads that ended between two reads since the daemon started."""
    malformed: int = 0
    """Files or lines that did not follow their grammar since the daemon started."""
