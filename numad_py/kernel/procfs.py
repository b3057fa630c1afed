"""/proc of a machine, at any mount point."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.model.cpulist import parse_list
from numad_py.model.snapshot import Thread

PF_KTHREAD = 0x00200000
"""Flag of kernel threads in field 9 of stat (include/linux/sched.h)."""
_FIELDS_AFTER_COMM = 37
"""A stat line has at least field 39, the last CPU; comm is field 2."""


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says (proc(5))."""

    comm: str
    state: str
    ppid: int
    flags: int
    start_ticks: int
    cpu_ticks: int
    """utime + stime."""
    last_cpu: int


@dataclass(frozen=True)
class ProcessInfo:
    """What rules match on."""

    pid: int
    comm: str
    exe: str | None
    cmdline: tuple[str, ...]
    uid: int
    user: str | None
    cgroup: str | None
    start_ticks: int
    kernel_thread: bool


def parse_stat(text: str) -> Stat:
    """Return the fields of a stat line; comm may hold blanks and parentheses.

    Raises:
        Malformed: the line is cut short or not a stat line.
    """
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 1 :].split()
    if opening < 0 or closing < opening or len(fields) < _FIELDS_AFTER_COMM:
        msg = f"not a stat line: {text[:80]!r}"
        raise Malformed(msg)
    try:
        return Stat(
            comm=text[opening + 1 : closing],
            state=fields[0],
            ppid=int(fields[1]),
            flags=int(fields[6]),
            start_ticks=int(fields[19]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            last_cpu=int(fields[36]),
        )
    except ValueError as error:
        msg = f"not a number in a stat line: {error}"
        raise Malformed(msg) from None


class ProcFs:
    """Reads one proc file system. A process may vanish between any two reads: Vanished."""

    def __init__(
        self, root: str | os.PathLike[str] = "/proc", cgroup_root: str = "/sys/fs/cgroup"
    ) -> None:
        """Read below ``root``."""
        self.root = Path(root)
        self.cgroup_root = Path(cgroup_root)
        self.clock_ticks = os.sysconf("SC_CLK_TCK")
        self.vanished = 0
        self.malformed = 0

    # Processes

    def pids(self) -> list[int]:
        """Return the ids of all processes."""
        psutil.PROCFS_PATH = str(self.root)
        return psutil.pids()

    def stat(self, pid: int) -> Stat:
        """Return /proc/PID/stat."""
        with self._counted():
            return parse_stat(self._read(f"{pid}/stat"))

    def status(self, pid: int, tid: int | None = None) -> dict[str, str]:
        """Return /proc/PID/status, or that of one thread, as words by key."""
        path = f"{pid}/status" if tid is None else f"{pid}/task/{tid}/status"
        with self._counted():
            pairs = (line.partition(":") for line in self._read(path).splitlines())
            return {key: value.strip() for key, _, value in pairs}

    def process(self, pid: int) -> ProcessInfo:
        """Return what rules match on; what may not be read is None or empty.

        Raises:
            Vanished: it ended.
            Malformed: its stat is odd.
        """
        stat = self.stat(pid)
        psutil.PROCFS_PATH = str(self.root)
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                uid = process.uids().effective
                cmdline = tuple(process.cmdline())
            exe = _exe(process)
        except psutil.AccessDenied:
            uid, cmdline, exe = -1, (), None
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            self.vanished += 1
            msg = f"process {pid} ended"
            raise Vanished(msg) from None
        except (OSError, ValueError, IndexError, KeyError, AttributeError, TypeError):
            # psutil parses without checks; a file cut short shows as one of these.
            self.malformed += 1
            msg = f"process {pid}: status or cmdline cannot be parsed"
            raise Malformed(msg) from None
        return ProcessInfo(
            pid=pid,
            comm=stat.comm,
            exe=exe,
            cmdline=cmdline,
            uid=uid,
            user=_user(uid),
            cgroup=self.cgroup(pid),
            start_ticks=stat.start_ticks,
            kernel_thread=bool(stat.flags & PF_KTHREAD),
        )

    def threads(self, pid: int) -> tuple[Thread, ...]:
        """Return all threads that could be read, by id.

        Raises:
            Vanished: the process ended.
        """
        try:
            tids = sorted(int(name) for name in os.listdir(self.root / f"{pid}/task"))
        except OSError as error:
            self.vanished += 1
            msg = f"process {pid} ended"
            raise Vanished(msg) from error
        threads = []
        for tid in tids:
            with contextlib.suppress(Vanished, Malformed):
                threads.append(self.thread(pid, tid))
        return tuple(threads)

    def thread(self, pid: int, tid: int) -> Thread:
        """Return one thread."""
        with self._counted():
            stat = parse_stat(self._read(f"{pid}/task/{tid}/stat"))
        return Thread(
            tid=tid,
            start_ticks=stat.start_ticks,
            affinity=self._list(self.status(pid, tid).get("Cpus_allowed_list")),
            last_cpu=stat.last_cpu,
            cpu_ticks=stat.cpu_ticks,
        )

    def mems_allowed(self, pid: int) -> frozenset[int] | None:
        """Return the nodes on which a process may have memory (Mems_allowed_list)."""
        return self._list(self.status(pid).get("Mems_allowed_list"))

    def numa_maps(self, pid: int) -> str:
        """Return /proc/PID/numa_maps; empty for zombies and kernel threads.

        Costs a walk of its page tables under mmap_lock.
        """
        return self._read_guarded(pid, "numa_maps")

    def maps(self, pid: int) -> str:
        """Return /proc/PID/maps."""
        return self._read_guarded(pid, "maps")

    def cgroup(self, pid: int) -> str | None:
        """Return the path of its cgroup v2, else of the v1 cpuset or memory controller."""
        try:
            lines = self._read(f"{pid}/cgroup").splitlines()
        except (Vanished, OSError):
            return None
        found: dict[str, str] = {}
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(","):
                found[controller] = path
        return found.get("cpuset") or found.get("memory") or found.get("")

    # The machine

    def uptime_s(self) -> float:
        """Return the time since boot (CLOCK_BOOTTIME)."""
        return float(self._read("uptime").split()[0])

    def boot_id(self) -> str | None:
        """Return the id of this boot."""
        try:
            return self._read("sys/kernel/random/boot_id").strip()
        except (Vanished, OSError):
            return None

    def sysctl_int(self, name: str) -> int | None:
        """Return a number below /proc/sys, None where this kernel has none of that name."""
        try:
            return int(self._read(f"sys/{name}").split()[0])
        except (Vanished, OSError, ValueError, IndexError):
            return None

    # Reading

    def _read(self, path: str) -> str:
        try:
            return (self.root / path).read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ESRCH}:
                msg = f"{self.root / path} is gone"
                raise Vanished(msg) from None
            raise

    def _read_guarded(self, pid: int, name: str) -> str:
        try:
            with self._counted():
                return self._read(f"{pid}/{name}")
        except PermissionError:
            msg = (
                f"no right to read {self.root / str(pid) / name}: CAP_SYS_PTRACE is missing; "
                "use the shipped unit, or run as root"
            )
            raise RightsError(msg) from None

    def _list(self, text: str | None) -> frozenset[int] | None:
        if text is None:
            return None
        try:
            return parse_list(text)
        except ValueError:
            self.malformed += 1
            return None

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Vanished:
            self.vanished += 1
            raise
        except Malformed:
            self.malformed += 1
            raise


def _exe(process: psutil.Process) -> str | None:
    try:
        return process.exe() or None
    except (psutil.Error, OSError):
        return None


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, ValueError):
        return None
