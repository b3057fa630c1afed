"""A made machine: /proc and /sys as files, with any nodes and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numad_py.model.cpulist import format_list

PAGE = 4096


@dataclass(frozen=True)
class FakeNode:
    """One node; no CPUs: CPU-less."""

    id: int
    cpus: Sequence[int]
    memory_mib: int = 2048
    free_mib: int = 1536


@dataclass(frozen=True)
class FakeProcess:
    """One process with threads that ran last on ``last_cpus``, one each."""

    pid: int
    cmdline: Sequence[str]
    numa_maps: str
    comm: str = "server"
    affinity: Sequence[int] | None = None
    last_cpus: Sequence[int] = (0,)
    cpu_ticks: int = 1000
    start_ticks: int = 5000
    uid: int = 0


@dataclass
class FakeMachine:
    """Writes itself below a folder; ``procfs`` and ``sysfs`` are the roots to hand in."""

    folder: Path
    nodes: Sequence[FakeNode]
    processes: Sequence[FakeProcess] = ()
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)

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
        _put(self.procfs / "uptime", "1000.00 900.00\n")
        _put(self.procfs / "stat", "cpu 0 0 0 0\nbtime 1700000000\nprocesses 500\n")
        _put(self.procfs / "sys/kernel/random/boot_id", "fake-boot\n")
        base = self.sysfs / "devices/system/node"
        ids = [node.id for node in self.nodes]
        _put(base / "online", format_list(ids) + "\n")
        for node in self.nodes:
            here = base / f"node{node.id}"
            _put(here / "cpulist", format_list(node.cpus) + "\n")
            row = [
                10 if other == node.id else self.distances.get((node.id, other), 20)
                for other in ids
            ]
            _put(here / "distance", " ".join(map(str, row)) + "\n")
            _put(
                here / "meminfo",
                f"Node {node.id} MemTotal:       {node.memory_mib * 1024} kB\n"
                f"Node {node.id} MemFree:        {node.free_mib * 1024} kB\n",
            )
        for process in self.processes:
            self._write_process(process)
        return self

    def _write_process(self, process: FakeProcess) -> None:
        here = self.procfs / str(process.pid)
        affinity = format_list(process.affinity if process.affinity is not None else self.cpus)
        mems = format_list(node.id for node in self.nodes)
        _put(here / "cmdline", "\0".join(process.cmdline) + "\0")
        _put(here / "cgroup", "0::/system.slice/server.service\n")
        _put(here / "numa_maps", process.numa_maps)
        for i, cpu in enumerate(process.last_cpus):
            tid = process.pid + i
            stat = stat_line(tid, process.comm, process.start_ticks, process.cpu_ticks, cpu)
            status = (
                f"Name:\t{process.comm}\nUid:\t{process.uid}\t{process.uid}\t{process.uid}\t"
                f"{process.uid}\nGid:\t0\t0\t0\t0\nCpus_allowed_list:\t{affinity}\n"
                f"Mems_allowed_list:\t{mems}\n"
            )
            _put(here / f"task/{tid}/stat", stat)
            _put(here / f"task/{tid}/status", status)
            if not i:
                _put(here / "stat", stat)
                _put(here / "status", status)


def stat_line(pid: int, comm: str, start_ticks: int, cpu_ticks: int, last_cpu: int) -> str:
    """Return a line as /proc/PID/stat has it (proc(5))."""
    fields = ["0"] * 50
    fields[0], fields[1] = "S", "1"
    fields[11] = str(cpu_ticks)
    fields[19] = str(start_ticks)
    fields[36] = str(last_cpu)
    return f"{pid} ({comm}) {' '.join(fields)}\n"


def anon(bytes_by_node: Mapping[int, int], policy: str = "default") -> str:
    """Return a numa_maps of one anonymous area with bytes on nodes."""
    pages = {node: size // PAGE for node, size in bytes_by_node.items()}
    total = sum(pages.values())
    words = " ".join(f"N{node}={count}" for node, count in sorted(pages.items()))
    return f"7f0000000000 {policy} anon={total} dirty={total} {words} kernelpagesize_kB=4\n"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
