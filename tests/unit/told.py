"""Readings that say what they are told, for the tests of the scanner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from numad_py.kernel.cgroupfs import CgroupFs, MemoryNumaStat
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    ResidencyEntry,
    Source,
)
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe.areas import Frame
from numad_py.observe.readings import Looked, Readings, Subject
from numad_py.observe.scan import Reading, Scanner
from numad_py.policy.schema import ScanPolicy

MIB, GIB = 1 << 20, 1 << 30
ONE, TWO = WorkerId(10, 5), WorkerId(20, 5)
POLICY = ScanPolicy(interval_s=15.0, cpu_share=0.02)
DRAWN = 1024


def residency(
    by_node: dict[int, int], source: Source, *, cost_s: float = 0.0, at_s: float = 0.0
) -> Residency:
    """Return anonymous memory on nodes."""
    entries = (ResidencyEntry(n, Kind.ANON, Mobility.MOVABLE, s) for n, s in by_node.items())
    return Residency(
        tuple(entries),
        read_at_s=at_s,
        cost_s=cost_s,
        source=source,
        sampled_pages=DRAWN if source is Source.SAMPLE else None,
    )


class Told(Readings):
    """Brings what it was told to, and counts how often it was asked."""

    def __init__(self) -> None:
        """Tell one GiB on node 0, whoever is asked for."""
        super().__init__(ProcFs(), CgroupFs("/nowhere"), None)
        self.by_node = {0: GIB}
        self.full_cost_s = 0.0
        self.sample_cost_s = 0.001
        self.sampling = True
        self.looked: Looked | None = None
        self.doubt: str | None = None
        self.drawn = DRAWN
        self.charged: dict[int, int] | None = None
        self.fulls: Counter[int] = Counter()
        self.samples: Counter[int] = Counter()
        self.order: list[int] = []
        self.light: list[bool] = []
        self.kept_areas: list[bool] = []

    @property
    def can_sample(self) -> bool:
        """Say what it was told."""
        return self.sampling

    def full(
        self,
        subject: Subject,
        now_s: float,
        _between: Callable[[], None],
        *,
        keep_areas: bool = True,
    ) -> Looked:
        """Count, and bring a full reading."""
        self.kept_areas.append(keep_areas)
        self.fulls[subject.id.pid] += 1
        self.order.append(subject.id.pid)
        if self.looked is not None:
            return self.looked
        self._frames[subject.id] = Frame()
        return Looked(
            residency(self.by_node, Source.NUMA_MAPS, cost_s=self.full_cost_s, at_s=now_s)
        )

    def sample(self, subject: Subject, now_s: float, *, light: bool = False) -> Looked:
        """Count, and bring a sample."""
        self.light.append(light)
        self.samples[subject.id.pid] += 1
        self.order.append(subject.id.pid)
        if self.looked is not None:
            return self.looked
        found = residency(self.by_node, Source.SAMPLE, cost_s=self.sample_cost_s, at_s=now_s)
        return Looked(replace(found, sampled_pages=self.drawn), doubt=self.doubt)

    def own_cgroup(self, _subject: Subject, _now_s: float) -> MemoryNumaStat | None:
        """Bring what it was told."""
        if self.charged is None:
            return None
        return MemoryNumaStat(
            anon=self.charged,
            file={},
            shmem={},
            file_mapped={},
            anon_thp={0: 2 * MIB},
            shmem_thp=None,
            file_thp=None,
        )


def subject(worker: WorkerId = ONE, size: int | None = GIB, hugetlb: int | None = None) -> Subject:
    """Return a worker of a size."""
    return Subject(worker, MemoryStatus(anon_bytes=size, hugetlb_bytes=hugetlb), "/one.service")


def look(scanner: Scanner, now_s: float, *subjects: Subject) -> dict[WorkerId, Reading]:
    """Look at workers, or at one of one GiB."""
    return scanner.look(subjects or (subject(),), now_s, lambda: None)


def source_of(reading: Reading) -> Source:
    """Return where its figures come from."""
    assert reading.residency is not None
    return reading.residency.source
