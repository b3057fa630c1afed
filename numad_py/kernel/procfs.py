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

from numad_py.errors import Malformed, NumadError, RightsError, Vanished
from numad_py.kernel.stat import PF_KTHREAD, Stat, parse_stat
from numad_py.model.cpulist import parse_list
from numad_py.model.snapshot import Thread

LONGEST_CMDLINE = 64 * 1024
"""Bytes of a command line that are read."""


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
    ppid: int
    kernel_thread: bool
    resident_bytes: int


@dataclass(frozen=True)
class MemoryStatus:
    """What /proc/PID/status says of memory (proc(5))."""

    mems_allowed: frozenset[int] | None
    """Nodes on which the kernel will give it memory; None where the kernel does not say."""
    resident_bytes: int | None
    """VmRSS, without hugetlb; None for a kernel thread or a zombie."""


def _kib(text: str | None) -> int | None:
    number, _, unit = (text or "").partition(" ")
    try:
        return int(number) * 1024 if unit == "kB" else None
    except ValueError:
        return None


def is_own(root: str | os.PathLike[str]) -> bool:
    """Say whether a proc file system shows the pids that system calls of ours take.

    A container with the host's pids may have them at /host/proc; a copy has no ``self`` of ours.
    """
    try:
        return os.readlink(f"{os.fspath(root)}/self") == str(os.getpid())  # noqa: PTH115
    except OSError:
        return False


class ProcFs:
    """Reads one proc file system. A process may vanish between any two reads: Vanished.

    Every method but ``pids``, ``cgroup``, ``boot_id`` and ``sysctl_int`` raises Vanished where the
    file is gone (ENOENT, ESRCH), RightsError where it may not be read (hidepid, or ptrace's check)
    and Malformed where reading fails in another way (EIO, ENOMEM). ``vanished`` and ``malformed``
    count both events since the reader was made.
    """

    def __init__(self, root: str | os.PathLike[str] = "/proc") -> None:
        """Read below ``root``."""
        self.root = Path(root)
        self.clock_ticks = os.sysconf("SC_CLK_TCK")
        self.vanished = 0
        self.malformed = 0

    # Processes

    def pids(self) -> list[int]:
        """Return the ids of all processes.

        Raises:
            NumadError: the root cannot be listed, or has no process in it.
        """
        psutil.PROCFS_PATH = str(self.root)
        try:
            return psutil.pids()
        except OSError as error:
            raise self._no_procfs(error) from None
        except IndexError:
            # psutil looks for the lowest of them.
            why = "it shows no process"
            raise self._no_procfs(why) from None

    def stat(self, pid: int) -> Stat:
        """Return /proc/PID/stat."""
        with self._counted():
            return parse_stat(self._read(f"{pid}/stat"))

    def status(self, pid: int, tid: int | None = None) -> dict[str, str]:
        """Return /proc/PID/status, or that of one thread, as words by key."""
        path = f"{pid}/status" if tid is None else f"{pid}/task/{tid}/status"
        with self._counted():
            pairs = (line.partition(":") for line in self._read(path).split("\n"))
            return {key: value.strip() for key, _, value in pairs if key}

    def process(self, pid: int) -> ProcessInfo:
        """Return what rules match on; what may not be read is None or empty.

        Nothing of it is psutil's: that takes the first ``Uid:`` of status, which a process can put
        into its own name, guesses an unreadable executable from the command line, and reads a
        command line of any size.

        Raises:
            Vanished: it ended.
            Malformed: its stat or status is odd.
            RightsError: its stat may not be read.
        """
        stat = self.stat(pid)
        uid = self._uid(pid)
        return ProcessInfo(
            pid=pid,
            comm=stat.comm,
            exe=self._exe(pid),
            cmdline=self._cmdline(pid),
            uid=uid,
            user=_user(uid),
            cgroup=self.cgroup(pid),
            start_ticks=stat.start_ticks,
            ppid=stat.ppid,
            kernel_thread=bool(stat.flags & PF_KTHREAD),
            resident_bytes=stat.resident_bytes,
        )

    def _uid(self, pid: int) -> int:
        """Return the effective uid: the second of four (proc_pid_status, fs/proc/array.c)."""
        words = self.status(pid).get("Uid", "").split()
        try:
            return int(words[1])
        except (IndexError, ValueError):
            self.malformed += 1
            msg = f"process {pid}: status has no Uid with four numbers"
            raise Malformed(msg) from None

    def _cmdline(self, pid: int) -> tuple[str, ...]:
        """Return the arguments, as far as LONGEST_CMDLINE goes.

        They are parted by NUL; programs that overwrite theirs (setproctitle) part them by blanks. A
        process may make its own as long as it likes (PR_SET_MM), so that not all of it is read.
        """
        file = self.root / f"{pid}/cmdline"
        with self._counted(), self._translated(file), file.open("rb") as opened:
            raw = opened.read(LONGEST_CMDLINE)
        text = raw.decode("utf-8", "surrogateescape")
        if not text:
            return ()
        parted = "\0" if "\0" in text.rstrip("\0") or text.endswith("\0") else " "
        words = text.rstrip("\0").split(parted)
        if len(words) == 1 and " " in words[0]:
            words = words[0].split(" ")
        return tuple(words)

    def _exe(self, pid: int) -> str | None:
        """Return the executable; None for kernel threads, zombies, and without the right to see.

        An executable replaced on disk still counts by its name: upgrades delete the old file.
        """
        try:
            return str((self.root / f"{pid}/exe").readlink()).removesuffix(" (deleted)")
        except OSError:
            return None

    def threads(self, pid: int) -> tuple[Thread, ...]:
        """Return all threads that could be read, by id.

        Raises:
            Vanished: the process ended.
        """
        with self._counted(), self._translated(self.root / f"{pid}/task") as folder:
            tids = sorted(int(path.name) for path in folder.iterdir())
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

    def memory(self, pid: int) -> MemoryStatus:
        """Return what status says of a process's memory, at no cost to it."""
        status = self.status(pid)
        return MemoryStatus(
            mems_allowed=self._list(status.get("Mems_allowed_list")),
            resident_bytes=_kib(status.get("VmRSS")),
        )

    def numa_maps(self, pid: int) -> str:
        """Return /proc/PID/numa_maps; empty for zombies and kernel threads.

        Costs a walk of its page tables under mmap_lock (``show_numa_map``, fs/proc/task_mmu.c).
        """
        with self._counted():
            return self._read(f"{pid}/numa_maps")

    def maps(self, pid: int) -> str:
        """Return /proc/PID/maps."""
        with self._counted():
            return self._read(f"{pid}/maps")

    def cgroup(self, pid: int) -> str | None:
        """Return the path of its cgroup, None where it cannot be read.

        The v1 cpuset where there is one and the process is below its root, else v2, else v1's
        memory or systemd's own: on a hybrid machine the others hold the path that names the unit.
        A path outside of our cgroup namespace (``/../x``, cgroup_namespaces(7)) leads nowhere here.
        """
        try:
            lines = self._read(f"{pid}/cgroup").split("\n")
        except NumadError:
            return None
        found: dict[str, str] = {}
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, colon, path = rest.partition(":")
            if colon and ".." not in path.split("/"):
                for controller in controllers.split(","):
                    found[controller] = path.removesuffix(" (deleted)")
        paths = [found[c] for c in ("cpuset", "", "memory", "name=systemd") if c in found]
        return next((path for path in paths if path != "/"), paths[0] if paths else None)

    # The machine

    def uptime_s(self) -> float:
        """Return the time since boot (CLOCK_BOOTTIME; uptime_proc_show, fs/proc/uptime.c).

        Raises:
            NumadError: there is no such file: this is no proc file system.
            Malformed: the file holds no number.
        """
        try:
            text = self._read("uptime")
        except (Vanished, Malformed) as error:
            raise self._no_procfs(error) from None
        try:
            return float(text.split()[0])
        except (ValueError, IndexError):
            msg = f"{self.root / 'uptime'} holds no number: {text[:40]!r}"
            raise Malformed(msg) from None

    def boot_id(self) -> str | None:
        """Return the id of this boot."""
        try:
            return self._read("sys/kernel/random/boot_id").strip()
        except NumadError:
            return None

    def sysctl_int(self, name: str) -> int | None:
        """Return a number below /proc/sys, None where this kernel has none of that name."""
        try:
            return int(self._read(f"sys/{name}").split()[0])
        except (NumadError, ValueError, IndexError):
            return None

    # Reading

    def _read(self, path: str) -> str:
        with self._translated(self.root / path) as file:
            return file.read_bytes().decode("utf-8", "surrogateescape")

    @contextlib.contextmanager
    def _translated(self, path: Path) -> Iterator[Path]:
        """Turn what the kernel answers on reading a path into our errors."""
        try:
            yield path
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ESRCH}:
                msg = f"{path} is gone"
                raise Vanished(msg) from None
            if error.errno in {errno.EACCES, errno.EPERM}:
                msg = (
                    f"no right to read {path}: CAP_SYS_PTRACE is missing; run it as root, "
                    "or ask the running daemon as a member of the group numad-py"
                )
                raise RightsError(msg) from None
            msg = f"{path} cannot be read: {error.strerror}"
            raise Malformed(msg) from None

    def _no_procfs(self, why: object) -> NumadError:
        return NumadError(f"{self.root} cannot be used ({why}): is this a proc file system?")

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


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, ValueError):
        return None
