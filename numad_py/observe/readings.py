"""The three ways of finding out where a worker's memory lies, each with its cost and its error."""

from __future__ import annotations

import contextlib
import random
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel import numa_maps
from numad_py.kernel.cgroupfs import CgroupFs, MemoryNumaStat
from numad_py.kernel.clock import thread_cpu_s
from numad_py.kernel.maps import MappedArea, parse_maps
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.segments import segments
from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    Source,
    entries_of,
)
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe import sample as sampling
from numad_py.observe.areas import Frame, Layout, frame_of, layout_of, sampled_segments
from numad_py.observe.estimate import unread_page_bytes

OTHERWISE_SHARE = 0.1
"""A cgroup whose charges differ from its one process's size by more counts something else."""

SHARED_S = 60.0
"""For so long a cgroup that was found not to be a worker's own is taken to stay so."""
MOST_SHARED = 1024
"""So many of them are remembered."""

MOST_AREAS = 1 << 17
"""So many areas of all workers are remembered, 200 bytes each. A worker's that are beyond are found
out anew with each sample, and what it maps is taken for movable until it is read in full."""

NodesOf = Callable[[int, "array[int]"], "array[int]"]
"""Asks for the node, or negative errno, of the pages of a process at addresses (move_pages(2))."""


@dataclass(frozen=True)
class Subject:
    """A worker whose memory is looked at, and what is known of it at no cost."""

    id: WorkerId
    memory: MemoryStatus
    cgroup: str | None


@dataclass(frozen=True)
class Looked:
    """What one reading brought: figures, or why there are none."""

    residency: Residency | None
    problem: str | None = None
    doubt: str | None = None
    """Why a sample is not to be trusted."""
    no_right: bool = False


class Readings:
    """Reads one worker in one of three ways; remembers its areas, and what it read in full last."""

    def __init__(self, procfs: ProcFs, cgroupfs: CgroupFs, nodes_of: NodesOf | None) -> None:
        """Read these roots.

        Args:
            procfs: the machine's processes.
            cgroupfs: its memory controller.
            nodes_of: the kernel, or None where the roots are another machine's.
        """
        self._procfs = procfs
        self._cgroupfs = cgroupfs
        self._nodes_of = nodes_of
        self._frames: dict[WorkerId, Frame | None] = {}
        """None where there was no room for it."""
        self._layouts: dict[WorkerId, tuple[int, Layout]] = {}
        """With a hash of the maps from which it was made: these may be long."""
        self._texts: dict[WorkerId, tuple[int, Residency]] = {}
        """What was read in full last, with a hash of its text."""
        self._shared: dict[str, float] = {}
        """When a cgroup was found not to be a worker's own."""
        # Any draws will do; the same ones each time would miss the same pages each time.
        self._random = random.Random()  # noqa: S311

    @property
    def can_sample(self) -> bool:
        """Whether pages can be asked for."""
        return self._nodes_of is not None

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._frames = {k: v for k, v in self._frames.items() if k in workers}
        self._texts = {k: v for k, v in self._texts.items() if k in workers}
        self._layouts = {k: v for k, v in self._layouts.items() if k in workers}

    def knows_areas(self, worker: WorkerId) -> bool:
        """Whether a full reading has told kind and mobility of a worker's areas."""
        return self._frames.get(worker) is not None

    def full(
        self,
        subject: Subject,
        now_s: float,
        between: Callable[[], None],
        *,
        keep_areas: bool = True,
    ) -> Looked:
        """Read numa_maps: every page counted, at the price of walking its page tables.

        An empty text is a zombie, a process in exec, or one that has just begun: no memory is not
        what it says (``show_numa_map`` prints nothing where there is no mm, fs/proc/task_mmu.c).

        Args:
            subject: whose.
            now_s: time since boot.
            between: called between two pieces of the text; what it raises ends the reading.
            keep_areas: remember them for later samples.
        """
        began_s = thread_cpu_s()
        pid = subject.id.pid
        try:
            text = self._procfs.numa_maps(pid, between)
        except (Vanished, RightsError, Malformed) as error:
            return _failed(error)
        if not text.strip():
            return Looked(None, "its numa_maps is empty: it is starting, in exec or ending")
        known = self._texts.get(subject.id)
        if not keep_areas:
            self._frames.pop(subject.id, None)
        if (
            known is not None
            and known[0] == hash(text)
            and (not keep_areas or subject.id in self._frames)
        ):
            # To the letter as before: a worker at rest.
            return Looked(replace(known[1], read_at_s=now_s, cost_s=thread_cpu_s() - began_s))
        vmas, odd = numa_maps.parse(text)
        if not vmas:
            return Looked(None, f"no line of its numa_maps follows the grammar ({odd} odd)")
        mapped: tuple[MappedArea, ...] = ()
        # It may have ended by now, which makes the figures no worse; a copied tree may lack maps.
        with contextlib.suppress(Vanished, RightsError, Malformed):
            mapped = parse_maps(self._procfs.maps(pid))
            self._layouts.pop(subject.id, None)
            if keep_areas:
                frame = frame_of(vmas, mapped)
                kept = self._has_room(subject.id, len(frame.areas))
                self._frames[subject.id] = frame if kept else None
        self._procfs.malformed += odd
        found = numa_maps.residency(
            vmas, odd, read_at_s=now_s, cost_s=0.0, segments=segments(vmas, mapped)
        )
        if mapped:
            self._texts[subject.id] = (hash(text), found)
        return Looked(replace(found, cost_s=thread_cpu_s() - began_s))

    def sample(self, subject: Subject, now_s: float, *, light: bool = False) -> Looked:
        """Ask for the nodes of some pages, drawn at random: the same cost whatever its size.

        Args:
            subject: whose.
            now_s: time since boot.
            light: ask for a third of the pages: it is to confirm what is known.
        """
        if self._nodes_of is None:
            return Looked(None, "its pages cannot be asked for: this is another machine's /proc")
        began_s = thread_cpu_s()
        pid, nodes_of = subject.id.pid, self._nodes_of
        frame = self._frames.get(subject.id)

        def ask(addresses: array[int]) -> array[int]:
            return nodes_of(pid, addresses)

        try:
            layout = self._layout(subject, frame or Frame())
            if not layout.movable:
                return Looked(None, "it has no memory: it is starting, in exec or ending")
            first = sampling.LIGHT_DRAWS if light else sampling.FIRST_DRAWS
            drawn = sampling.sample(layout.movable, ask, self._random, first_draws=first)
            if layout.others:
                others = sampling.sample(layout.others, ask, self._random, first_draws=first)
                drawn = sampling.together(drawn, others)
        except (Vanished, RightsError, Malformed) as error:
            return _failed(error)
        found = sampling.residency(
            drawn,
            subject.memory,
            read_at_s=now_s,
            cost_s=0.0,
            policies=frame.policies if frame is not None else (),
        )
        if not layout.others and found.sampled_pages is not None:
            # Drawn from all alike: of what can be moved it tells as much as there was of it.
            share = found.total_bytes(mobility=Mobility.MOVABLE) / max(1, found.total_bytes())
            found = replace(found, sampled_pages=int(found.sampled_pages * share))
        found = replace(
            found,
            cost_s=thread_cpu_s() - began_s,
            mobility_known=frame is not None,
            segments=sampled_segments(drawn, layout),
        )
        return Looked(found, doubt=sampling.disagrees(drawn, subject.memory))

    def _layout(self, subject: Subject, frame: Frame) -> Layout:
        text = self._procfs.maps(subject.id.pid)
        known = self._layouts.get(subject.id)
        if known is None or known[0] != hash(text):
            known = (hash(text), layout_of(parse_maps(text), frame))
            self._layouts.pop(subject.id, None)
            if self._has_room(subject.id, len(known[1].movable) + len(known[1].others)):
                self._layouts[subject.id] = known
        return known[1]

    def _has_room(self, worker: WorkerId, areas: int) -> bool:
        """Say whether so many areas more may be kept, beside those of all workers."""
        areas += sum(len(frame.areas) for k, frame in self._frames.items() if frame and k != worker)
        areas += sum(len(at.movable) + len(at.others) for _, at in self._layouts.values())
        return areas <= MOST_AREAS

    def own_cgroup(self, subject: Subject, now_s: float) -> MemoryNumaStat | None:
        """Return what its cgroup is charged for; None where that is not this worker's alone."""
        cgroup = subject.cgroup
        if cgroup is None or now_s - self._shared.get(cgroup, float("-inf")) < SHARED_S:
            return None
        if not self._cgroupfs.holds_only(cgroup, subject.id.pid):
            if len(self._shared) >= MOST_SHARED:
                self._shared.clear()
            self._shared[cgroup] = now_s
            return None
        return self._cgroupfs.memory_numa_stat(cgroup)


def by_cgroup(stat: MemoryNumaStat, memory: MemoryStatus, now_s: float) -> Residency | None:
    """Return residency as its cgroup is charged for it; None where that is not what it has.

    Pages of a file count where they were touched first, which may be in another cgroup, hugetlb not
    at all (``memory_numa_stat_show``, mm/memcontrol.c), and v1 counts what is cached but not mapped
    and leaves out what is mlocked: charges are of use where they add up to the worker's own size.

    Args:
        stat: of a cgroup that holds the worker alone.
        memory: the worker's.
        now_s: time since boot.
    """
    size = (memory.resident_bytes or 0) - (memory.hugetlb_bytes or 0)
    if stat.anon is None:
        return None
    sizes: dict[tuple[int, Kind, Mobility, int], int] = {}

    def put(kind: Kind, by_node: Mapping[int, int]) -> None:
        for node, charged in by_node.items():
            sizes[node, kind, Mobility.MOVABLE, unread_page_bytes(kind)] = charged

    put(Kind.ANON, stat.anon)
    files = stat.file_mapped if stat.file_mapped is not None else stat.file or {}
    shmem = stat.shmem or {}
    put(Kind.SHMEM, {node: min(mapped, shmem.get(node, 0)) for node, mapped in files.items()})
    put(Kind.FILE, {node: max(0, mapped - shmem.get(node, 0)) for node, mapped in files.items()})
    if abs(sum(sizes.values()) - size) > OTHERWISE_SHARE * size:
        return None
    entries = entries_of(sizes)
    return Residency(entries, read_at_s=now_s, source=Source.NUMA_STAT, mobility_known=False)


def thp_bytes(stat: MemoryNumaStat) -> int | None:
    """Return the bytes in transparent huge pages; None where this kernel does not count them."""
    if stat.anon_thp is None:
        return None
    kinds = (stat.anon_thp, stat.shmem_thp, stat.file_thp)
    return sum(sum(kind.values()) for kind in kinds if kind is not None)


def left_out(residency: Residency | None) -> str | None:
    """Say that lines of numa_maps could not be read; None where all could."""
    if residency is None or not residency.odd_lines:
        return None
    odd = residency.odd_lines
    lines = "1 line" if odd == 1 else f"{odd} lines"
    return f"{lines} of its numa_maps could not be parsed and count for nothing: it has more memory"


def _failed(error: Vanished | RightsError | Malformed) -> Looked:
    if isinstance(error, Vanished):
        return Looked(None, "it ended while it was looked at")
    return Looked(None, str(error), no_right=isinstance(error, RightsError))
