"""A made machine: /proc, /sys and cgroupfs as files, with any nodes, devices and processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from numad_py.model.cpulist import format_list

PAGE = 4096
PF_KTHREAD = 0x00200000
_ESCAPED = str.maketrans({" ": r"\040", "\t": r"\011", "\n": r"\012", "=": r"\075"})
"""What ``seq_file_path`` escapes in numa_maps (show_numa_map, fs/proc/task_mmu.c)."""
_NUMASTAT = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")


@dataclass(frozen=True)
class FakeNode:
    """One node; no CPUs: CPU-less, no memory: memoryless."""

    id: int
    cpus: Sequence[int]
    memory_mib: int = 2048
    free_mib: int = 1536
    active_file_mib: int = 0
    inactive_file_mib: int = 0
    dirty_mib: int = 0
    huge_pages: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Pages in all and free, by size in KiB."""
    numastat: Sequence[int] | None = None
    """The six figures in the kernel's order; None: no such file."""
    initiators: Mapping[str, int] = field(default_factory=dict)
    """Figures below access0/initiators, by name."""
    memory_tier: int | None = None


@dataclass(frozen=True)
class FakeDevice:
    """One PCI device; node -1: its firmware does not say."""

    address: str
    class_code: str
    node: int
    driver: str | None = None
    vendor: str = "0x10de"
    device: str = "0x2330"


@dataclass(frozen=True)
class FakeCgroup:
    """One cgroup v2 with a memory controller; ``cpusets`` tells of the other."""

    path: str
    pids: Sequence[int] = ()
    numa_stat: Mapping[str, Mapping[int, int]] | None = None
    """Bytes by node, by key; None: no such file."""


@dataclass(frozen=True)
class FakeResctrlGroup:
    """One resctrl group: a control group where ``mon`` is empty, the root where ``res`` is."""

    res: str = ""
    mon: str = ""
    tids: Sequence[int] = ()
    traffic: Sequence[tuple[object, object]] = ()
    """What mbm_local_bytes and mbm_total_bytes say, by L3 cache."""
    cpus: str = ""


@dataclass(frozen=True)
class FakeThread:
    """One thread; affinity None: the process's."""

    last_cpu: int
    cpu_ticks: int = 1000
    affinity: Sequence[int] | None = None


@dataclass(frozen=True)
class FakeProcess:
    """One process; without ``threads`` it has one that ran last on each of ``last_cpus``."""

    pid: int
    cmdline: Sequence[str]
    numa_maps: str
    comm: str = "server"
    affinity: Sequence[int] | None = None
    """None: every CPU of the machine."""
    last_cpus: Sequence[int] = (0,)
    cpu_ticks: int = 1000
    start_ticks: int = 5000
    uid: int = 0
    threads: Sequence[FakeThread] = ()
    cgroup: str = "0::/system.slice/server.service\n"
    exe: str | None = None
    mems: Sequence[int] | None = None
    """None: every node with memory."""
    resident_kib: int | None = None
    """Resident memory without hugetlb; None leaves VmRSS out, as for a kernel thread."""
    flags: int = 0
    resctrl: tuple[str, str] | None = None
    """Its control and monitoring group; None: the kernel does not tell."""
    descriptors: Sequence[str] = ()
    """What its open files are, by descriptor."""

    @property
    def all_threads(self) -> Sequence[FakeThread]:
        """Its threads, the main one first."""
        return self.threads or [FakeThread(cpu, self.cpu_ticks) for cpu in self.last_cpus]


@dataclass
class FakeMachine:
    """Writes itself below a folder; ``procfs`` and ``sysfs`` are the roots to hand in."""

    folder: Path
    nodes: Sequence[FakeNode]
    processes: Sequence[FakeProcess] = ()
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Between nodes by id, either way round; 20 where not given."""
    devices: Sequence[FakeDevice] = ()
    cpusets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """CPUs that the cgroups with a cpuset controller grant, by path."""
    cgroups: Sequence[FakeCgroup] = ()
    resctrl: Sequence[FakeResctrlGroup] = ()
    forks: int = 500
    busy_ticks: Mapping[int, int] = field(default_factory=dict)
    """User time by CPU; none: /proc/stat has no line for it."""
    pressure: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Per cent of 10 s in which some and all waited, by resource; none: no such file."""

    @property
    def procfs(self) -> Path:
        """Root of the made proc."""
        return self.folder / "proc"

    @property
    def sysfs(self) -> Path:
        """Root of the made sysfs."""
        return self.folder / "sys"

    @property
    def cpus(self) -> list[int]:
        """All CPUs."""
        return sorted(cpu for node in self.nodes for cpu in node.cpus)

    def write(self) -> FakeMachine:
        """Write all files and return self."""
        put(self.procfs / "uptime", "1000.00 900.00\n")
        put(self.procfs / "stat", self._stat())
        put(self.procfs / "sys/kernel/random/boot_id", "fake-boot\n")
        put(self.sysfs / "devices/system/node/online", format_list(self._ids) + "\n")
        for node in self.nodes:
            self._write_node(node)
        for device in self.devices:
            self._write_device(device)
        for path, cpus in self.cpusets.items():
            folder = self.sysfs / "fs/cgroup" / path.lstrip("/")
            put(folder / "cpuset.cpus.effective", format_list(cpus) + "\n")
        for cgroup in self.cgroups:
            self._write_cgroup(cgroup)
        for group in self.resctrl:
            self._write_group(group)
        for name, (some, full) in self.pressure.items():
            lines = [
                f"{key} avg10={percent:.2f} avg60=0.00 avg300=0.00 total=0\n"
                for key, percent in (("some", some), ("full", full))
            ]
            put(self.procfs / "pressure" / name, "".join(lines))
        for process in self.processes:
            self._write_process(process)
        return self

    def _stat(self) -> str:
        cpus = "".join(f"cpu{cpu} {t} 0 0 9 9 0 0 0 0 0\n" for cpu, t in self.busy_ticks.items())
        return f"cpu 0 0 0 0\n{cpus}btime 1700000000\nprocesses {self.forks}\n"

    @property
    def _ids(self) -> list[int]:
        return [node.id for node in self.nodes]

    def _write_node(self, node: FakeNode) -> None:
        here = self.sysfs / f"devices/system/node/node{node.id}"
        put(here / "cpulist", format_list(node.cpus) + "\n")
        row = [self._distance(node.id, other) for other in self._ids]
        put(here / "distance", " ".join(map(str, row)) + "\n")
        figures = {
            "MemTotal": node.memory_mib,
            "MemFree": node.free_mib,
            "Active(file)": node.active_file_mib,
            "Inactive(file)": node.inactive_file_mib,
            "Dirty": node.dirty_mib,
        }
        lines = [f"Node {node.id} {k + ':':<15}{v * 1024:>8} kB\n" for k, v in figures.items()]
        # Huge pages are counted, not measured: such a line has no unit.
        put(here / "meminfo", "".join(lines) + f"Node {node.id} HugePages_Total:     0\n")
        for size, (total, free) in node.huge_pages.items():
            put(here / f"hugepages/hugepages-{size}kB/nr_hugepages", f"{total}\n")
            put(here / f"hugepages/hugepages-{size}kB/free_hugepages", f"{free}\n")
        if node.numastat is not None:
            pairs = zip(_NUMASTAT, node.numastat, strict=True)
            put(here / "numastat", "".join(f"{name} {count}\n" for name, count in pairs))
        for name, figure in node.initiators.items():
            put(here / "access0/initiators" / name, f"{figure}\n")
        if (tier := node.memory_tier) is not None:
            alike = [other.id for other in self.nodes if other.memory_tier == tier]
            tiers = self.sysfs / "devices/virtual/memory_tiering"
            put(tiers / f"memory_tier{tier}/nodelist", format_list(alike) + "\n")

    def _distance(self, a: int, b: int) -> int:
        if a == b:
            return 10
        return self.distances.get((a, b), self.distances.get((b, a), 20))

    def _write_device(self, device: FakeDevice) -> None:
        here = self.sysfs / "bus/pci/devices" / device.address
        put(here / "class", device.class_code + "\n")
        put(here / "vendor", device.vendor + "\n")
        put(here / "device", device.device + "\n")
        put(here / "numa_node", f"{device.node}\n")
        if device.driver is not None:
            (here / "driver").symlink_to(f"../../../../bus/pci/drivers/{device.driver}")

    def _write_cgroup(self, cgroup: FakeCgroup) -> None:
        here = self.sysfs / "fs/cgroup" / cgroup.path.lstrip("/")
        put(here / "cgroup.procs", "".join(f"{pid}\n" for pid in cgroup.pids))
        if cgroup.numa_stat is not None:
            put(here / "memory.numa_stat", numa_stat(cgroup.numa_stat))

    def _write_group(self, group: FakeResctrlGroup) -> None:
        here = self.sysfs / "fs/resctrl" / group.res.lstrip("/")
        if group.mon:
            here = here / "mon_groups" / group.mon
        put(here / "tasks", "".join(f"{tid}\n" for tid in group.tids))
        put(here / "cpus_list", group.cpus + "\n")
        for i, (local, total) in enumerate(group.traffic):
            put(here / f"mon_data/mon_L3_{i:02}/mbm_local_bytes", f"{local}\n")
            put(here / f"mon_data/mon_L3_{i:02}/mbm_total_bytes", f"{total}\n")

    def _write_process(self, process: FakeProcess) -> None:
        here = self.procfs / str(process.pid)
        put(here / "cmdline", "".join(f"{word}\0" for word in process.cmdline))
        put(here / "cgroup", process.cgroup)
        put(here / "numa_maps", process.numa_maps)
        put(here / "maps", maps_of(process.numa_maps))
        (here / "fd").mkdir(exist_ok=True)
        for old in (here / "fd").iterdir():
            old.unlink()
        for descriptor, path in enumerate(process.descriptors):
            link(here / f"fd/{descriptor}", path)
        if process.exe is not None:
            (here / "exe").symlink_to(process.exe)
        if process.resctrl is not None:
            res, mon = process.resctrl
            put(here / "cpu_resctrl_groups", f"res:{res}\nmon:{mon}\n")
        for i, thread in enumerate(process.all_threads):
            tid = process.pid + i
            stat = self._stat_of(process, tid, thread.cpu_ticks, thread.last_cpu)
            status = self._status(process, thread)
            put(here / f"task/{tid}/stat", stat)
            put(here / f"task/{tid}/status", status)
            if not i:
                # The process's own line has the time of all its threads.
                ticks = sum(t.cpu_ticks for t in process.all_threads)
                put(here / "stat", self._stat_of(process, tid, ticks, thread.last_cpu))
                put(here / "status", status)

    @staticmethod
    def _stat_of(process: FakeProcess, tid: int, cpu_ticks: int, last_cpu: int) -> str:
        return stat_line(
            tid,
            process.comm,
            process.start_ticks,
            cpu_ticks,
            last_cpu,
            flags=process.flags,
            resident_kib=process.resident_kib,
            num_threads=len(process.all_threads),
        )

    def _status(self, process: FakeProcess, thread: FakeThread) -> str:
        own = thread.affinity if thread.affinity is not None else process.affinity
        with_memory = [node.id for node in self.nodes if node.memory_mib]
        mems = process.mems if process.mems is not None else with_memory
        rss = ""
        if process.resident_kib is not None:
            rss = f"VmRSS:\t{process.resident_kib:>8} kB\nRssAnon:\t{process.resident_kib:>8} kB\n"
        return (
            f"Name:\t{process.comm}\nUid:\t{process.uid}\t{process.uid}\t{process.uid}\t"
            f"{process.uid}\nGid:\t0\t0\t0\t0\n{rss}"
            f"Cpus_allowed_list:\t{format_list(self.cpus if own is None else own)}\n"
            f"Mems_allowed_list:\t{format_list(mems)}\n"
        )


def stat_line(
    pid: int,
    comm: str,
    start_ticks: int,
    cpu_ticks: int,
    last_cpu: int,
    *,
    flags: int = 0,
    resident_kib: int | None = None,
    num_threads: int = 1,
    ppid: int = 1,
) -> str:
    """Return a line as /proc/PID/stat has it (proc(5))."""
    fields = ["0"] * 50
    fields[0], fields[1], fields[6] = "S", str(ppid), str(flags)
    fields[11] = str(cpu_ticks)
    fields[17] = str(num_threads)
    fields[19] = str(start_ticks)
    fields[21] = str((resident_kib or 0) * 1024 // os.sysconf("SC_PAGE_SIZE"))
    fields[36] = str(last_cpu)
    return f"{pid} ({comm}) {' '.join(fields)}\n"


def area(
    pages: Mapping[int, int],
    *,
    start: int = 0x7F0000000000,
    policy: str = "default",
    file: str | None = None,
    words: Iterable[str] = (),
    figures: Mapping[str, int] | None = None,
    page_kib: int = 4,
) -> str:
    """Return a line as numa_maps has it (show_numa_map, fs/proc/task_mmu.c).

    Args:
        pages: resident pages by node; none: the line ends after its words.
        start: first address.
        policy: as mpol_to_str prints it.
        file: its path as it is; it is escaped here.
        words: ``heap``, ``stack`` or ``huge``.
        figures: ``anon``, ``dirty`` and so on, in the kernel's order.
        page_kib: ``kernelpagesize_kB``.
    """
    parts = [f"{start:08x}", policy]
    if file is not None:
        parts.append(f"file={file.translate(_ESCAPED)}")
    parts += words
    if pages:
        parts += [f"{key}={value}" for key, value in (figures or {}).items()]
        parts += [f"N{node}={count}" for node, count in sorted(pages.items())]
        parts.append(f"kernelpagesize_kB={page_kib}")
    return " ".join(parts) + "\n"


def numa_stat(sizes: Mapping[str, Mapping[int, int]]) -> str:
    """Return a memory.numa_stat of cgroup v2: bytes by node, by key."""
    return "".join(
        " ".join([key, *(f"N{node}={size}" for node, size in by_node.items())]) + "\n"
        for key, by_node in sizes.items()
    )


def maps_of(numa_maps: str) -> str:
    """Return the maps of the same areas, each as large as what is resident in it."""
    lines = []
    for line in numa_maps.splitlines():
        words = line.split(" ")
        figures = dict(word.partition("=")[::2] for word in words[2:])
        pages = sum(int(v) for k, v in figures.items() if k[1:].isdecimal() and v.isdecimal())
        size = max(1, pages) * int(figures.get("kernelpagesize_kB") or 4) * 1024
        with contextlib.suppress(ValueError):
            start = int(words[0], 16)
            path = figures.get("file", "").replace(r"\040", " ")
            inode = crc32(path.encode())
            lines.append(f"{start:x}-{start + size:x} rw-p 00000000 fe:01 {inode} {path}")
    return "".join(f"{line}\n" for line in lines)


def anon(bytes_by_node: Mapping[int, int], policy: str = "default") -> str:
    """Return a numa_maps of one anonymous area with bytes on nodes."""
    pages = {node: size // PAGE for node, size in bytes_by_node.items()}
    total = sum(pages.values())
    return area(pages, policy=policy, figures={"anon": total, "dirty": total})


def put(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def link(path: Path, target: str) -> None:
    """Make a link anew, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
