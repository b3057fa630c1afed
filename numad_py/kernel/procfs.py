"""/proc of a machine, at any mount point."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass

from numad_py.errors import Malformed, NumadError, Vanished
from numad_py.kernel.files import Files
from numad_py.kernel.stat import PF_KTHREAD, Stat, parse_stat
from numad_py.model.cpulist import parse_list
from numad_py.model.snapshot import MemoryStatus, Thread

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
        return os.readlink(f"{os.fspath(root)}/self") == str(os.getpid())
    except OSError:
        return False


class ProcFs(Files):
    """Reads one proc file system. A process may vanish between any two reads: Vanished.

    Every method but ``entries``, ``cgroup``, ``boot_id`` and ``sysctl_int`` raises Vanished where
    the file is gone, RightsError where it may not be read and Malformed where reading fails in
    another way or the text is odd.
    """

    def __init__(self, root: str | os.PathLike[str] = "/proc") -> None:
        """Read below ``root``."""
        super().__init__(root)
        self.clock_ticks = os.sysconf("SC_CLK_TCK")

    # Processes

    def entries(self) -> dict[int, int]:
        """Return the inode number of each process's folder, by pid, as listing alone tells them.

        A pid that is used again has another inode: procfs makes one when a folder is first looked
        up, numbers them in order (``proc_pid_make_inode``, fs/proc/base.c) and drops them when the
        process is reaped (``proc_flush_pid``). Under memory pressure a folder of the same process
        can get a new one, too.

        Raises:
            NumadError: the root cannot be listed, or has no process in it.
        """
        try:
            with os.scandir(self.root) as listing:
                found = {int(e.name): e.inode() for e in listing if e.name.isdecimal()}
        except OSError as error:
            raise self._no_procfs(error) from None
        if not found:
            why = "it shows no process"
            raise self._no_procfs(why)
        return found

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
        with self._counted():
            raw = self._read_bytes(f"{pid}/cmdline", LONGEST_CMDLINE)
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
            return os.readlink(f"{self._prefix}{pid}/exe").removesuffix(" (deleted)")
        except OSError:
            return None

    def threads(self, pid: int) -> tuple[Thread, ...]:
        """Return all threads that could be read, by id.

        Raises:
            Vanished: the process ended.
        """
        with self._counted(), self._translated(self.root / f"{pid}/task") as folder:
            tids = sorted(map(int, os.listdir(folder)))
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
            anon_bytes=_kib(status.get("RssAnon")),
            file_bytes=_kib(status.get("RssFile")),
            shmem_bytes=_kib(status.get("RssShmem")),
            hugetlb_bytes=_kib(status.get("HugetlbPages")),
            swapped_bytes=_kib(status.get("VmSwap")),
            locked_bytes=_kib(status.get("VmLck")),
            pinned_bytes=_kib(status.get("VmPin")),
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


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, ValueError):
        return None
