"""A made machine: /proc, /sys and a cgroup v2 file system under a folder of your choice.

Build values, write them, read them with the real readers::

    machine = FakeMachine(
        tmp_path,
        nodes=[FakeNode(0, "0-3"), FakeNode(2, "4-7")],           # ids may have holes
        processes=[
            FakeProcess(
                100, "vllm",
                cmdline=("/usr/bin/python3", "-m", "vllm"),
                cgroup="/system.slice/vllm.service",
                threads=[FakeThread(100, "0-7", last_cpu=1), FakeThread(101, "4-7", last_cpu=5)],
                numa_maps=numa_line(0x7F0000000000, {0: 512, 2: 256}, anon=768),
            )
        ],
        cpusets={"/": "0-7", "/system.slice/vllm.service": "0-3"},
        devices=[FakePci("0000:3b:00.0", numa_node=2)],
    ).write()
    machine.procfs(), machine.sysfs(), machine.cgroupfs()         # readers over these roots
    machine.proc, machine.sys                                     # the roots, for --procfs, --sysfs

Everything is mutable until ``write()``, which replaces what the last one wrote: change a field,
``write()`` again, and time has passed (``uptime_s``, ``utime_ticks`` are yours to raise).
``remove("proc/100/status")`` takes one path away, as a process that ends between two reads does.
``renumbered({0: 2, 2: 0}, other_path)`` is the same machine with other node ids, not yet written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.cpulist import format_list, parse_list

GIB = 1 << 30


def numa_line(
    start: int,
    pages: Mapping[int, int],
    *,
    policy: str = "default",
    what: str = "",
    page_kb: int = 4,
    **figures: int,
) -> str:
    """Return one line of numa_maps, with its newline.

    ``what`` is ``file=/path``, ``heap``, ``stack`` or ``file=/path huge``; ``figures`` are counts
    such as ``anon=3, mapmax=2``. Without pages the line ends after ``what``, as the kernel's does.
    """
    words = [f"{start:08x}", policy, *([what] if what else [])]
    if pages:
        words += [f"{key}={value}" for key, value in figures.items()]
        words += [f"N{node}={count}" for node, count in sorted(pages.items())]
        words.append(f"kernelpagesize_kB={page_kb}")
    return " ".join(words) + "\n"


@dataclass
class FakeNode:
    """One online node. ``distances`` by node id; 10 to itself and 20 to others where not given."""

    id: int
    cpus: str
    """A CPU list; empty for a CPU-less node."""
    total_bytes: int = 64 * GIB
    free_bytes: int = 32 * GIB
    cache_bytes: int = 0
    """Inactive(file); none of it dirty."""
    distances: dict[int, int] = field(default_factory=dict)
    free_huge_pages: dict[int, int] = field(default_factory=dict)
    """By page size in KiB."""


@dataclass
class FakeThread:
    """One thread of a process."""

    tid: int
    affinity: str = "0-7"
    last_cpu: int = 0
    utime_ticks: int = 0
    stime_ticks: int = 0
    start_ticks: int | None = None
    """That of the process where None."""


@dataclass
class FakeProcess:
    """One process. Without ``threads`` it has one, with its own pid."""

    pid: int
    comm: str
    cmdline: Sequence[str] = ()
    exe: str | None = None
    """Target of the exe link, which need not exist; no link where None (a kernel thread)."""
    uid: int = 0
    cgroup: str | None = "/"
    """cgroup v2 path; no cgroup file where None."""
    threads: list[FakeThread] = field(default_factory=list)
    numa_maps: str = ""
    maps: str = ""
    mems_allowed: str | None = None
    """Mems_allowed_list; all nodes where None."""
    start_ticks: int = 1000
    ppid: int = 1
    flags: int = 0
    """Field 9 of stat; 0x00200000 makes a kernel thread."""
    state: str = "S"


@dataclass
class FakePci:
    """One PCI device; a 3D controller unless told otherwise."""

    address: str
    class_code: str = "0x030200"
    vendor: str = "0x10de"
    device: str = "0x2330"
    numa_node: int = -1
    driver: str | None = None


@dataclass
class FakeMachine:
    """The whole machine; see the module's docstring."""

    root: Path
    nodes: list[FakeNode] = field(default_factory=lambda: [FakeNode(0, "0-3"), FakeNode(1, "4-7")])
    processes: list[FakeProcess] = field(default_factory=list)
    cpusets: dict[str, str] = field(default_factory=dict)
    """cpuset.cpus.effective by cgroup path."""
    devices: list[FakePci] = field(default_factory=list)
    uptime_s: float = 1000.0
    forks: int = 100
    boot_id: str = "11111111-2222-3333-4444-555555555555"
    sysctls: dict[str, str] = field(default_factory=lambda: {"kernel/numa_balancing": "0"})
    thp: str = "always [madvise] never"

    @property
    def proc(self) -> Path:
        """Where /proc is."""
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        """Where /sys is; the cgroup file system is below, at fs/cgroup."""
        return self.root / "sys"

    def procfs(self) -> ProcFs:
        """Return a reader of its /proc."""
        return ProcFs(self.proc, str(self.sys / "fs/cgroup"))

    def sysfs(self) -> SysFs:
        """Return a reader of its /sys."""
        return SysFs(self.sys)

    def cgroupfs(self) -> CgroupFs:
        """Return a reader of its cgroup file system."""
        return CgroupFs(str(self.sys / "fs/cgroup"))

    def process(self, pid: int) -> FakeProcess:
        """Return that process, to be changed before the next ``write``."""
        return next(process for process in self.processes if process.pid == pid)

    def write(self) -> FakeMachine:
        """Write all of it, in place of what is there; returns itself."""
        for folder in (self.proc, self.sys):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._write_nodes()
        self._write_devices()
        for path, cpus in self.cpusets.items():
            self.put(f"sys/fs/cgroup/{path.strip('/')}/cpuset.cpus.effective", f"{cpus}\n")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", f"{self.thp}\n")
        self.put("proc/uptime", f"{self.uptime_s:.2f} 0.00\n")
        self.put("proc/stat", f"cpu  0 0 0 0\nbtime 1700000000\nprocesses {self.forks}\n")
        self.put("proc/sys/kernel/random/boot_id", f"{self.boot_id}\n")
        for name, value in self.sysctls.items():
            self.put(f"proc/sys/{name}", f"{value}\n")
        for process in self.processes:
            self._write_process(process)
        return self

    def put(self, path: str, text: str) -> None:
        """Write one file by its path below the root, such as ``proc/100/stat``."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

    def remove(self, path: str) -> None:
        """Take a file or a folder away."""
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()

    def renumbered(self, mapping: Mapping[int, int], root: Path) -> FakeMachine:
        """Return the same machine with node ids replaced, at another root, not yet written.

        CPUs keep their numbers: just the nodes' names change, in sysfs, numa_maps, Mems_allowed and
        numa_node alike. Ids that ``mapping`` leaves out stay.
        """

        def to(node: int) -> int:
            return mapping.get(node, node)

        nodes = [
            replace(n, id=to(n.id), distances={to(k): v for k, v in n.distances.items()})
            for n in self.nodes
        ]
        processes = [
            replace(
                p,
                numa_maps="".join(
                    _renumber_line(line, to)
                    for line in re.findall(r"[^\n]*\n|[^\n]+$", p.numa_maps)
                ),
                mems_allowed=None if p.mems_allowed is None else _renumber(p.mems_allowed, to),
            )
            for p in self.processes
        ]
        devices = [
            replace(d, numa_node=to(d.numa_node) if d.numa_node >= 0 else d.numa_node)
            for d in self.devices
        ]
        return replace(self, root=root, nodes=nodes, processes=processes, devices=devices)

    def _write_nodes(self) -> None:
        nodes = sorted(self.nodes, key=lambda node: node.id)
        folder = "sys/devices/system/node"
        ids = format_list(node.id for node in nodes)
        cpus = frozenset[int]().union(*(parse_list(node.cpus) for node in nodes))
        self.put("sys/devices/system/cpu/online", f"{format_list(cpus)}\n")
        if not nodes:  # a kernel without CONFIG_NUMA
            return
        self.put(f"{folder}/online", f"{ids}\n")
        self.put(f"{folder}/has_cpu", f"{format_list(n.id for n in nodes if n.cpus)}\n")
        self.put(f"{folder}/has_memory", f"{format_list(n.id for n in nodes if n.total_bytes)}\n")
        for node in nodes:
            here = f"{folder}/node{node.id}"
            row = [node.distances.get(n.id, 10 if n.id == node.id else 20) for n in nodes]
            self.put(f"{here}/cpulist", f"{node.cpus}\n")
            self.put(f"{here}/distance", " ".join(map(str, row)) + "\n")
            figures = {
                "MemTotal": node.total_bytes,
                "MemFree": node.free_bytes,
                "Active(file)": 0,
                "Inactive(file)": node.cache_bytes,
                "Dirty": 0,
            }
            self.put(
                f"{here}/meminfo",
                "".join(f"Node {node.id} {k}: {v // 1024:>10} kB\n" for k, v in figures.items()),
            )
            for page_kb, free in node.free_huge_pages.items():
                self.put(f"{here}/hugepages/hugepages-{page_kb}kB/free_hugepages", f"{free}\n")

    def _write_devices(self) -> None:
        for device in self.devices:
            here = f"sys/bus/pci/devices/{device.address}"
            self.put(f"{here}/class", f"{device.class_code}\n")
            self.put(f"{here}/vendor", f"{device.vendor}\n")
            self.put(f"{here}/device", f"{device.device}\n")
            self.put(f"{here}/numa_node", f"{device.numa_node}\n")
            if device.driver:
                (self.root / here / "driver").symlink_to(f"../../../drivers/{device.driver}")

    def _write_process(self, process: FakeProcess) -> None:
        here = f"proc/{process.pid}"
        threads = process.threads or [FakeThread(process.pid)]
        utime = sum(t.utime_ticks for t in threads)
        stime = sum(t.stime_ticks for t in threads)
        self.put(
            f"{here}/stat",
            stat_line(
                process,
                replace(
                    threads[0],
                    tid=process.pid,
                    utime_ticks=utime,
                    stime_ticks=stime,
                    start_ticks=None,
                ),
            ),
        )
        self.put(f"{here}/status", self._status(process, threads[0].affinity))
        self.put(f"{here}/cmdline", "".join(f"{word}\0" for word in process.cmdline))
        self.put(f"{here}/numa_maps", process.numa_maps)
        self.put(f"{here}/maps", process.maps)
        if process.cgroup is not None:
            self.put(f"{here}/cgroup", f"0::{process.cgroup}\n")
        if process.exe is not None:
            (self.root / here / "exe").symlink_to(process.exe)
        for thread in threads:
            self.put(f"{here}/task/{thread.tid}/stat", stat_line(process, thread))
            self.put(f"{here}/task/{thread.tid}/status", self._status(process, thread.affinity))

    def _status(self, process: FakeProcess, affinity: str) -> str:
        mems = process.mems_allowed
        if mems is None:
            mems = format_list(node.id for node in self.nodes)
        # The kernel escapes newline and backslash in Name, nothing else (proc_task_name).
        name = process.comm.replace("\\", "\\\\").replace("\n", "\\n")
        uids = "\t".join([str(process.uid)] * 4)
        return (
            f"Name:\t{name}\nState:\t{process.state} (fake)\nPid:\t{process.pid}\nUid:\t{uids}\n"
            f"Cpus_allowed_list:\t{affinity}\nMems_allowed_list:\t{mems}\n"
        )


def stat_line(process: FakeProcess, thread: FakeThread) -> str:
    """Return a line of /proc/PID/stat with 52 fields (proc(5)); what nobody reads is 0."""
    start = process.start_ticks if thread.start_ticks is None else thread.start_ticks
    fields = ["0"] * 52
    fields[0], fields[1] = str(thread.tid), f"({process.comm})"
    fields[2], fields[3] = process.state, str(process.ppid)
    fields[8] = str(process.flags)
    fields[13], fields[14] = str(thread.utime_ticks), str(thread.stime_ticks)
    fields[21], fields[38] = str(start), str(thread.last_cpu)
    return " ".join(fields) + "\n"


def _renumber(text: str, to: Callable[[int], int]) -> str:
    return format_list(to(node) for node in parse_list(text))


def _renumber_line(line: str, to: Callable[[int], int]) -> str:
    """Replace node ids in one line of numa_maps: the policy's list and the N<node>= counts."""
    head, *counts = re.split(r" (?=N\d+=)", line.rstrip("\n"))
    head = re.sub(
        r"^([0-9a-f]+ [a-z ()]+(?:=[a-z|]+)?:)([0-9,-]+)",
        lambda m: m[1] + _renumber(m[2], to),
        head,
    )
    last, _, tail = counts[-1].partition(" ") if counts else ("", "", "")
    pairs = [part.split("=") for part in [*counts[:-1], last] if part]
    renamed = sorted((to(int(name[1:])), count) for name, count in pairs)
    words = [head, *(f"N{node}={count}" for node, count in renamed), *([tail] if tail else [])]
    return " ".join(words) + ("\n" if line.endswith("\n") else "")
