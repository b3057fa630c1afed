"""Processes in /proc, at any mount point."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from numad_py.errors import Malformed, NumadError, Vanished
from numad_py.kernel import users
from numad_py.kernel.clock import monotonic_s
from numad_py.kernel.machine import MachineFs
from numad_py.kernel.stat import Stat, parse_stat
from numad_py.model.cpulist import parse_list
from numad_py.model.snapshot import MemoryStatus, Thread

LONGEST_CMDLINE = 64 * 1024
"""Bytes of a command line that are read."""
USERS_S = 60.0
"""For so long the name of a user is taken to be the same."""
_UID = re.compile(r"^Uid:[ \t]+[0-9]+[ \t]+([0-9]+)", re.MULTILINE)
_MEMORY = re.compile(
    r"^(Rss(?:Anon|File|Shmem)|HugetlbPages|Vm(?:Swap|Lck|Pin)|Mems_allowed_list):[ \t]*(.*)$",
    re.MULTILINE,
)
_CPUS_ALLOWED = re.compile(r"^Cpus_allowed_list:[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """What a process runs, as exec sets it; it can write over its arguments."""

    exe: str | None
    cmdline: tuple[str, ...]


@dataclass(frozen=True)
class ProcessInfo:
    """What rules match on."""

    pid: int
    stat: Stat
    program: Program
    uid: int = 0
    """The effective one. This, user and cgroup are not read of a kernel thread."""
    user: str | None = None
    cgroup: str | None = None


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


class ProcFs(MachineFs):
    """Reads one proc file system. A process may vanish between any two reads: Vanished.

    Every method but ``entries``, ``cgroup``, ``resctrl_group``, ``mapped_files``,
    ``working_folder``, ``busy_s``, ``pressure``, ``stalled_s``, ``boot_id`` and ``sysctl_int``
    raises Vanished where the file is gone, RightsError where it may not be read and Malformed where
    reading fails in another way or the text is odd.
    """

    def __init__(self, root: str | os.PathLike[str] = "/proc") -> None:
        """Read below ``root``."""
        super().__init__(root)
        self._users: dict[int, str | None] = {}
        self._users_since_s = float("-inf")

    # Processes

    def own_pid(self) -> int | None:
        """Return the caller's own pid there; None where this is no procfs of ours."""
        try:
            return int(os.readlink(f"{self._prefix}self"))
        except (OSError, ValueError):
            return None

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
        with self._counted:
            return parse_stat(self._read(f"{pid}/stat"))

    def stat_changed(self, pid: int, known: int | None) -> tuple[int, Stat | None]:
        """Return /proc/PID/stat with the hash of its text; None for the stat where it is known.

        Of a process that did nothing it is the same to the letter, and need not be parsed.
        """
        with self._counted:
            line = self._read(f"{pid}/stat")
            text = hash(line)
            return text, None if text == known else parse_stat(line)

    def stat_often(self, pid: int) -> Stat:
        """Return /proc/PID/stat of a process that is asked for in each look, until it vanishes."""
        with self._counted:
            return parse_stat(self._read_often(f"{pid}/stat"))

    def forget(self, pid: int) -> None:
        """Ask for a process no more in each look."""
        self._close(f"{pid}/stat")

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
        # The program first: one that comes by exec while this is read differs from it then, and is
        # seen by whoever asks for it again.
        program = self.program(pid)
        stat = self.stat(pid)
        if stat.kernel_thread:
            return ProcessInfo(pid, stat, program)
        uid = self._uid(pid)
        return ProcessInfo(pid, stat, program, uid, self._user(uid), self.cgroup(pid))

    def program(self, pid: int) -> Program:
        """Return what a process runs: the cheapest way to tell that it still is the same."""
        return Program(self._exe(pid), self._cmdline(pid))

    def _uid(self, pid: int) -> int:
        """Return the effective uid: the second of four (proc_pid_status, fs/proc/array.c).

        Looked for at the start of a line, which no name can fake: its line feeds are escaped
        (proc_task_name, there).
        """
        with self._counted:
            found = _UID.search(self._read(f"{pid}/status"))
            if found is None:
                msg = f"process {pid}: status has no Uid with four numbers"
                raise Malformed(msg)
        return int(found[1])

    def _user(self, uid: int) -> str | None:
        """Return a user's name; asking for it can mean a server, so that it is kept for a while."""
        now_s = monotonic_s()
        if now_s - self._users_since_s >= USERS_S:
            self._users.clear()
            self._users_since_s = now_s
        if uid not in self._users:
            self._users[uid] = users.name_of(uid)
        return self._users[uid]

    def _cmdline(self, pid: int) -> tuple[str, ...]:
        """Return the arguments, as far as LONGEST_CMDLINE goes.

        They are parted by NUL; programs that overwrite theirs (setproctitle) part them by blanks. A
        process may make its own as long as it likes (PR_SET_MM), so that not all of it is read.
        """
        with self._counted:
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
        threads = []
        for tid in sorted(self.tids(pid)):
            with contextlib.suppress(Vanished, Malformed):
                threads.append(self.thread(pid, tid))
        return tuple(threads)

    def tids(self, pid: int) -> set[int]:
        """Return the ids of all threads."""
        with self._counted, self._translated(self.root / f"{pid}/task") as folder:
            return set(map(int, os.listdir(folder)))

    def thread(self, pid: int, tid: int) -> Thread:
        """Return one thread."""
        with self._counted:
            stat = parse_stat(self._read(f"{pid}/task/{tid}/stat"))
            cpus = _CPUS_ALLOWED.search(self._read(f"{pid}/task/{tid}/status"))
        return Thread(
            tid=tid,
            start_ticks=stat.start_ticks,
            affinity=self._list(cpus[1]) if cpus else None,
            last_cpu=stat.last_cpu,
            cpu_ticks=stat.cpu_ticks,
        )

    def memory(self, pid: int) -> MemoryStatus:
        """Return what status says of a process's memory, at no cost to it."""
        with self._counted:
            status = dict(_MEMORY.findall(self._read(f"{pid}/status")))
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

    def numa_maps(self, pid: int, between: Callable[[], None] | None = None) -> str:
        """Return /proc/PID/numa_maps; empty for zombies and kernel threads.

        Costs a walk of its page tables under mmap_lock (``show_numa_map``, fs/proc/task_mmu.c),
        which is dropped after each piece of 4 KiB.

        Args:
            pid: of the process.
            between: called between two pieces; what it raises ends the reading.
        """
        with self._counted:
            raw = self._read_bytes(f"{pid}/numa_maps", between=between)
        return raw.decode("utf-8", "surrogateescape")

    def maps(self, pid: int) -> str:
        """Return /proc/PID/maps."""
        with self._counted:
            return self._read(f"{pid}/maps")

    def mapped_files(
        self, pid: int, areas: Iterable[tuple[int, int]]
    ) -> set[tuple[int, int]] | None:
        """Return device and inode, as stat has them, of what is mapped from a start to an end.

        Not by path: that may be deleted, or lead elsewhere in a container. None without the right
        to (``map_files_get_link``, fs/proc/base.c: CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE).
        """
        found = set()
        for start, end in areas:
            try:
                told = os.stat(f"{self._prefix}{pid}/map_files/{start:x}-{end:x}")
            except PermissionError:
                return None
            except OSError:
                continue
            found.add((told.st_dev, told.st_ino))
        return found

    def root_of(self, pid: int) -> Path:
        """Return the path by which a process's root is reached from here."""
        return self.root / str(pid) / "root"

    def working_folder(self, pid: int) -> str:
        """Return its working folder as it has it itself, ``/`` where that cannot be read.

        The kernel tells it below our root.
        """
        try:
            folder, root = (os.readlink(f"{self._prefix}{pid}/{name}") for name in ("cwd", "root"))
        except OSError:
            return "/"
        return folder[len(root) :] or "/" if folder.startswith(f"{root}/") else folder

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

    def resctrl_group(self, pid: int) -> tuple[str, str] | None:
        """Return its control and its monitoring group, the latter empty where it is in none.

        That of its main thread; ``/`` is the root's name. None where resctrl is not mounted, or
        this kernel does not tell (``proc_resctrl_show``, Linux 5.6, CONFIG_PROC_CPU_RESCTRL).
        """
        try:
            lines = self._read(f"{pid}/cpu_resctrl_groups").split("\n")
        except NumadError:
            return None
        names = {key: name for key, colon, name in (x.partition(":") for x in lines[:-1]) if colon}
        res, mon = names.get("res"), names.get("mon")
        return (res, mon) if res and mon is not None else None

    def _list(self, text: str | None) -> frozenset[int] | None:
        if text is None:
            return None
        try:
            return parse_list(text)
        except ValueError:
            self.malformed += 1
            return None
