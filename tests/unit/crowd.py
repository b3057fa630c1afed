"""Processes in memory, for discovery: served as the kernel's texts, and every read counted."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from numad_py.errors import Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.observe.discovery import Census, Discovery
from numad_py.policy.schema import Policy, Rule
from tests.fake_tree import stat_line

TICKS = ProcFs().clock_ticks
BOOT_S = 100_000.0
"""Time since boot at which a test begins."""
OLD_S = 50_000.0
"""When an old process began."""
SERVER = "/opt/server --model m"
JUDGED = {"exe", "cmdline", "stat", "status", "cgroup"}
"""Files that are read to judge a process in full."""
MIB = 1024
"""In KiB."""


def rule(name: str, cmdline: str = "", user: str | None = None) -> Rule:
    """Return a rule by a regular expression on the arguments, or a user."""
    return Rule(name, "test", cmdline=(re.compile(cmdline),), user=(user,) if user else ())


POLICY = Policy(rules=(rule("server", cmdline=r"^/opt/server\b"),))


@dataclass
class Proc:
    """One process; everything of it may be changed while it lives."""

    cmdline: str = "sh"
    start_s: float = OLD_S
    inode: int = 0
    comm: str = "sh"
    uid: int = 0
    flags: int = 0
    resident_kib: int = 0
    cpu_ticks: int = 5
    ppid: int = 1
    odd: Exception | None = None
    """Raised by every read of it."""

    def exec(self, cmdline: str) -> None:
        """Become another program, which takes CPU time: identity and inode stay."""
        self.cpu_ticks += 2
        self.cmdline = cmdline
        self.comm = cmdline.split(maxsplit=1)[0].rpartition("/")[2]


@dataclass
class Crowd(ProcFs):
    """A proc file system made of Procs."""

    procs: dict[int, Proc] = field(default_factory=dict)
    reads: Counter[tuple[int, str]] = field(default_factory=Counter)
    listings: int = 0
    cpu_s: float = 0.0
    read_s: float = 0.0
    """CPU time that each read takes on the clock ``thread_cpu_s`` of the test."""
    inodes: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        """Make the reader itself."""
        super().__init__("/proc")

    def add(self, pid: int, proc: Proc) -> Proc:
        """Let a process begin, also at a pid that was used before."""
        proc.inode = next(self.inodes)
        self.procs[pid] = proc
        return proc

    def entries(self) -> dict[int, int]:
        """Return inodes by pid."""
        self.listings += 1
        return {pid: proc.inode for pid, proc in self.procs.items()}

    def pids_read(self) -> set[int]:
        """Return who was read since the last call."""
        pids = {pid for pid, _ in self.reads}
        self.reads.clear()
        return pids

    def _read_bytes(
        self, path: str, most: int | None = None, between: Callable[[], None] | None = None
    ) -> bytes:
        assert between is None
        name, _, file = path.partition("/")
        proc = self._reached(int(name), file)
        return self._text(int(name), proc, file).encode()[:most]

    def _exe(self, pid: int) -> str | None:
        words = self._reached(pid, "exe").cmdline.split()
        return words[0] if words else None

    def _reached(self, pid: int, file: str) -> Proc:
        self.reads[pid, file] += 1
        self.cpu_s += self.read_s
        proc = self.procs.get(pid)
        if proc is None:
            raise Vanished(file)
        if proc.odd is not None:
            raise proc.odd
        return proc

    @staticmethod
    def _text(pid: int, proc: Proc, file: str) -> str:
        start = round(proc.start_s * TICKS)
        texts = {
            "cmdline": "".join(f"{word}\0" for word in proc.cmdline.split()),
            "stat": stat_line(
                pid,
                proc.comm,
                start,
                proc.cpu_ticks,
                1,
                flags=proc.flags,
                ppid=proc.ppid,
                resident_kib=proc.resident_kib,
            ),
            "status": f"Name:\t{proc.comm}\nUid:\t{proc.uid}\t{proc.uid}\t{proc.uid}\t{proc.uid}\n",
            "cgroup": "0::/system.slice/x.service\n",
        }
        return texts[file]


@dataclass
class Looks:
    """A discovery over a crowd, looking at an interval."""

    crowd: Crowd
    policy: Policy = POLICY
    interval_s: float = 1.0
    named: frozenset[str] = frozenset()
    now_s: float = BOOT_S
    forks: int = 1
    """Made since boot; a test that adds a process counts it."""

    def __post_init__(self) -> None:
        """Make the discovery; nothing is looked at yet."""
        self.discovery = Discovery(self.crowd, self.policy, self.named)

    def look(self, *, forked: int = 0) -> Census:
        """Let an interval pass, in which some processes were made, and look."""
        self.now_s += self.interval_s
        self.forks += forked
        return self.discovery.look(self.now_s, self.forks)

    def start(self, pid: int, proc: Proc) -> Proc:
        """Let a process begin just now."""
        proc.start_s = self.now_s
        self.forks += 1
        return self.crowd.add(pid, proc)


def labels(census: Census) -> dict[int, str]:
    """Return the workers' labels by pid."""
    return {found.id.pid: found.label for found in census.workers}


def old_crowd(count: int) -> Crowd:
    """Return so many shells that began long ago, from pid 1000 on."""
    crowd = Crowd()
    for i in range(count):
        crowd.add(1000 + i, Proc())
    return crowd
