"""A made machine: /proc, /sys and cgroupfs as files, with any nodes, devices and processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numad_py.model.cpulist import format_list

PAGE = 4096
PF_KTHREAD = 0x00200000
_ESCAPED = str.maketrans({" ": r"\040", "\t": r"\011", "\n": r"\012", "=": r"\075"})
"""What ``seq_file_path`` escapes in numa_maps (show_numa_map, fs/proc/task_mmu.c)."""


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
        put(self.procfs / "stat", "cpu 0 0 0 0\nbtime 1700000000\nprocesses 500\n")
        put(self.procfs / "sys/kernel/random/boot_id", "fake-boot\n")
        put(self.sysfs / "devices/system/node/online", format_list(self._ids) + "\n")
        for node in self.nodes:
            self._write_node(node)
        for device in self.devices:
            self._write_device(device)
        for path, cpus in self.cpusets.items():
            folder = self.sysfs / "fs/cgroup" / path.lstrip("/")
            put(folder / "cpuset.cpus.effective", format_list(cpus) + "\n")
        for process in self.processes:
            self._write_process(process)
        return self

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

    def _write_process(self, process: FakeProcess) -> None:
        here = self.procfs / str(process.pid)
        put(here / "cmdline", "".join(f"{word}\0" for word in process.cmdline))
        put(here / "cgroup", process.cgroup)
        put(here / "numa_maps", process.numa_maps)
        if process.exe is not None:
            (here / "exe").symlink_to(process.exe)
        for i, thread in enumerate(process.all_threads):
            tid = process.pid + i
            stat = stat_line(
                tid,
                process.comm,
                process.start_ticks,
                thread.cpu_ticks,
                thread.last_cpu,
                flags=process.flags,
                resident_kib=process.resident_kib,
            )
            status = self._status(process, thread)
            put(here / f"task/{tid}/stat", stat)
            put(here / f"task/{tid}/status", status)
            if not i:
                put(here / "stat", stat)
                put(here / "status", status)

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
) -> str:
    """Return a line as /proc/PID/stat has it (proc(5))."""
    fields = ["0"] * 50
    fields[0], fields[1], fields[6] = "S", "1", str(flags)
    fields[11] = str(cpu_ticks)
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


def anon(bytes_by_node: Mapping[int, int], policy: str = "default") -> str:
    """Return a numa_maps of one anonymous area with bytes on nodes."""
    pages = {node: size // PAGE for node, size in bytes_by_node.items()}
    total = sum(pages.values())
    return area(pages, policy=policy, figures={"anon": total, "dirty": total})


def put(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
