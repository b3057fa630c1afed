"""Which processes are workers.

No process can be new while the kernel has counted no fork, so that /proc is not even listed then. A
process is judged when its folder in /proc is new, and looked at again since exec keeps the folder
and the identity: at the next look, and then whenever its age has about doubled, or grown more yet
where it did not run meanwhile. Most of that is to see that it still is the same program. Of a
worker its stat is read in every look.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel.cgroupfs import container_of, unit_of
from numad_py.kernel.clock import thread_cpu_s
from numad_py.kernel.procfs import ProcessInfo, ProcFs
from numad_py.model.snapshot import PassedOver, WorkerId
from numad_py.observe.judged import Found, Judged, Register
from numad_py.policy.match import Match, Subject, match
from numad_py.policy.schema import Policy

__all__ = ["Census", "Discovery", "Found", "subject_of"]

SLOW_S = 600.0
"""So often an old process that is no worker is looked at again; a younger one after its own age."""
LARGE_SLOW_S = 120.0
"""The same for one that would be worth moving: idle workers of a pool are given their name late.
And for a worker whose start time and name have not changed."""
IDLE_S = 3600.0
"""So often one that did not run at all is judged again: its cgroup may have been changed for it."""
MOST_RESTED = 2
"""Each look that finds that it did not run doubles the next pause, so many times at most."""
RELIST_S = 30.0
"""So often /proc is listed without a fork, so that what has ended is forgotten."""
LONGEST_LOOK_S = 0.1
"""CPU time that judging may take in one look; a tenth of one CPU at the shortest interval."""
SECOND_LOOKS_S = 0.02
"""Of it for processes that were judged before, so that newcomers never keep an exec unseen."""
EARLIEST = 0.75
"""Share of a pause that is kept in any case; the rest is drawn, so that pauses drift apart."""
MOST_MATCHES = 4096
"""So many answers of the rules are kept; forks of one program need no more than one."""
MOST_CGROUPS = 1024
"""Of so many cgroups it is kept which unit and container they belong to."""
MOST_COMMAND = 60
"""So many characters of a command line are kept: the program and its first arguments."""
_GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, lie evenly however many there are."""


@dataclass(frozen=True)
class Census:
    """All processes, as far as they matter."""

    workers: tuple[Found, ...]
    """Sorted by label."""
    unmatched: int
    passed_over: tuple[PassedOver, ...]
    """Those of MOST_NAMED that would be worth moving, largest first."""
    named: Mapping[str, int]
    """The lowest pid by command name, of the names that were to be noticed."""
    deferred: int
    """Processes that are not judged yet, since the look's time was spent."""
    execed: frozenset[WorkerId] = frozenset()
    """Workers that were seen to have become another program since the last look."""


class Discovery:
    """Remembers what was judged, and hands out labels that last as long as the worker.

    A program that a process becomes by exec at age A is seen by age A + min(A, SLOW_S) and one
    look, by A + min(A, LARGE_SLOW_S) where it was large by then; one that it becomes before it is
    looked at for the second time, in that look. Where the last looks found that it had not run,
    and no child of it has ended, four times A takes the place of A. A change of user, cgroup or
    command name alone takes two such pauses.
    """

    def __init__(self, procfs: ProcFs, policy: Policy, named: frozenset[str] = frozenset()) -> None:
        """Start with nothing known; processes with a command name in ``named`` are noticed."""
        self._procfs = procfs
        self._own_pid = procfs.own_pid()
        self._policy = policy
        self._known = Register(named)
        self._waiting: dict[int, None] = {}
        self._renewed: dict[int, None] = {}
        """Known pids whose folder is another one than before, and that are no workers."""
        self._execed: set[WorkerId] = set()
        self._inodes: dict[int, int] = {}
        self._forks: int | None = None
        self._listed_at_s = float("-inf")
        self._judge_all = True
        self._matches: dict[int, Match] = {}
        self._drawn = 0.0

    def use(self, policy: Policy) -> None:
        """Judge everything again by another policy; labels of workers that stay are kept."""
        self._policy = policy
        self._matches.clear()
        self._judge_all = True
        self._waiting = dict.fromkeys(sorted(self._waiting.keys() | self._known.agenda.pids))

    def look(
        self, now_s: float, forks: int | None = None, between: Callable[[], None] = lambda: None
    ) -> Census:
        """Return who is a worker and who is not.

        Args:
            now_s: time since boot.
            forks: made since boot (``processes`` of /proc/stat), read before this call; None where
                that is not known: then /proc is listed each time. A process can be found before it
                is counted (copy_process, kernel/fork.c), never the other way round.
            between: called before each process; what it raises ends the look.

        Raises:
            NumadError: /proc cannot be listed.
        """
        if forks is None or forks != self._forks or now_s - self._listed_at_s >= RELIST_S:
            self._list(now_s, forks)
        self._known.label()  # where the last look was broken off
        self._read_workers(now_s, between)
        self._judge_waiting(now_s, between)
        self._known.label()
        execed = frozenset(self._execed)
        self._execed.clear()
        return Census(
            workers=self._workers(),
            unmatched=len(self._known) - len(self._known.workers()),
            passed_over=self._known.largest_passed_over(),
            named=self._known.named(),
            deferred=len(self._waiting) + len(self._renewed),
            execed=execed,
        )

    def _workers(self) -> tuple[Found, ...]:
        verdicts = (self._known.get(pid) for pid in self._known.workers())
        return tuple(v.found for v in verdicts if v and v.found)

    def _list(self, now_s: float, forks: int | None) -> None:
        """Forget who has ended, and let newcomers wait behind those that wait already.

        A known pid in a new folder may be another process, and hardly ever is: when memory is
        short the kernel drops all folders at once. It waits behind who was never seen.

        The parents of those who ended are looked at at once: a script that waits for a download
        and then becomes a server by exec does not run before.
        """
        inodes = self._procfs.entries()
        ended = self._known.ended(inodes)
        for parent in {self._forget(pid) for pid in ended}:
            self._known.stir(parent, now_s)
        for waiting in (self._waiting, self._renewed):
            for pid in waiting.keys() - inodes.keys():
                del waiting[pid]
        before = self._inodes.get
        for pid in sorted(pid for pid, inode in inodes.items() if before(pid) != inode):
            if self._known.get(pid):
                self._renewed[pid] = None
            else:
                self._waiting.pop(pid, None)
                self._waiting[pid] = None
        self._inodes, self._forks, self._listed_at_s = inodes, forks, now_s

    def _forget(self, pid: int) -> int | None:
        """Drop a process that has ended, and what is open of it; return its parent's pid."""
        self._procfs.forget(pid)
        return self._known.forget(pid)

    def _read_workers(self, now_s: float, between: Callable[[], None]) -> None:
        """Read each worker's stat, whatever it costs; judge at once who is another than before."""
        for pid in self._known.workers():
            judged = self._known.get(pid)
            if judged is None or judged.found is None:
                continue
            between()
            try:
                stat = self._procfs.stat_often(pid)
            except Vanished:
                self._forget(pid)
                continue
            except (Malformed, RightsError):
                self._judge(pid, now_s)
                continue
            if stat.start_ticks != judged.start_ticks or stat.comm != judged.comm:
                self._judge(pid, now_s)
            else:
                judged.found = judged.found.now(stat)

    def _judge_waiting(self, now_s: float, between: Callable[[], None]) -> None:
        """Judge newcomers by order of arrival, then renewed ones and who is due, in time.

        All of them in the first look, and in the first by another policy.
        """
        began_s = thread_cpu_s()
        newcomers_s = float("inf") if self._judge_all else LONGEST_LOOK_S - SECOND_LOOKS_S
        while self._waiting and thread_cpu_s() - began_s < newcomers_s:
            between()
            pid = next(iter(self._waiting))
            self._judge(pid, now_s)
            self._waiting.pop(pid, None)
        while self._renewed and thread_cpu_s() - began_s < newcomers_s:
            between()
            pid = next(iter(self._renewed))
            self._recognise(pid, now_s)
            self._renewed.pop(pid, None)
        self._judge_all = False
        while thread_cpu_s() - began_s < LONGEST_LOOK_S:
            due = self._known.agenda.first_due(now_s)
            if due is None:
                return
            between()
            self._look_again(due, now_s)

    def _recognise(self, pid: int, now_s: float) -> None:
        """Judge a known pid in a new folder, unless its stat shows that it is the same process."""
        judged = self._known.get(pid)
        try:
            stat = self._procfs.stat(pid)
        except Vanished:
            self._forget(pid)
            return
        except (Malformed, RightsError):
            stat = None
        if not judged or not stat or stat.start_ticks != judged.start_ticks:
            self._judge(pid, now_s)

    def _look_again(self, pid: int, now_s: float) -> None:
        """Judge a process again: a worker always, another if it ran and its program changed.

        Who ran is judged in full every other time even so: user and cgroup may change without an
        exec. Who did not run has become no other program: loading one takes more than a tick.
        """
        judged = self._known.get(pid)
        if judged is None or judged.found or judged.program is None:
            self._judge(pid, now_s)
            return
        try:
            idle = not self._has_run(pid, judged)
            if idle and judged.in_full and now_s - judged.judged_at_s < IDLE_S:
                judged.rested += 1
                self._put_off(pid, judged, now_s)
                return
            judged.rested = 0
            if not judged.in_full:
                self._judge(pid, now_s)
                return
            program = hash(self._procfs.program(pid))
        except Vanished:
            self._forget(pid)
            return
        except (Malformed, RightsError):
            self._judge(pid, now_s)
            return
        if program != judged.program:
            self._judge(pid, now_s)
            return
        judged.in_full = False
        self._put_off(pid, judged, now_s)

    def _has_run(self, pid: int, judged: Judged) -> bool:
        """Say whether a process ran since it was last looked at, or is another one."""
        judged.stat_text, stat = self._procfs.stat_changed(pid, judged.stat_text)
        if stat is None:
            return False
        same = (stat.start_ticks, stat.comm) == (judged.start_ticks, judged.comm)
        before, judged.cpu_ticks = judged.cpu_ticks, stat.cpu_ticks
        return not same or stat.cpu_ticks != before

    def _judge(self, pid: int, now_s: float) -> None:
        """Read all that rules match on, and take down what they say."""
        before = self._known.get(pid)
        info: ProcessInfo | None = None
        try:
            info = self._procfs.process(pid)
        except Vanished:
            self._forget(pid)
            return
        except (Malformed, RightsError):
            unread = before is not None and before.start_ticks is None
            judged = Judged(None, before.since_s if before and unread else now_s)
        else:
            judged = self._verdict(info, now_s)
            if judged.found and judged.execed(before):
                self._execed.add(judged.found.id)
        judged.stirred = before is not None and before.stirred
        self._known.put(pid, judged)
        if info and info.stat.kernel_thread:
            self._known.agenda.drop(pid)
        elif not self._judge_all and (not before or before.start_ticks != judged.start_ticks):
            self._known.agenda.put(pid, now_s)
        else:
            self._put_off(pid, judged, now_s)

    def _put_off(self, pid: int, judged: Judged, now_s: float) -> None:
        """Look at a process again when its age has doubled, or sooner where it is old.

        Later where it has not run for some looks: it hardly will. At the next look where a child
        of it has just ended: it may need a moment for what it does then.
        """
        if judged.stirred:
            judged.stirred, judged.rested = False, 0
            self._known.agenda.put(pid, now_s)
            return
        longest_s = LARGE_SLOW_S if judged.passed_over or judged.found else SLOW_S
        age_s = (now_s - judged.since_s) * 2 ** min(judged.rested, MOST_RESTED)
        self._known.agenda.put(pid, now_s + self._pause_s(age_s, longest_s))

    def _verdict(self, info: ProcessInfo, now_s: float) -> Judged:
        stat = info.stat
        judged = Judged(
            stat.start_ticks,
            stat.start_ticks / self._procfs.clock_ticks,
            comm=stat.comm,
            program=hash(info.program),
            exe=hash(info.program.exe) if info.program.exe else None,
            cpu_ticks=stat.cpu_ticks,
            judged_at_s=now_s,
            parent=stat.ppid,
        )
        matched = Match(None) if stat.kernel_thread else self._match(subject_of(info))
        if matched.rule is not None:
            judged.found = Found(
                id=WorkerId(info.pid, stat.start_ticks),
                label="",
                rule=matched.rule.name,
                comm=stat.comm,
                user=info.user or str(info.uid),
                cgroup=info.cgroup,
                stat=stat,
            )
        elif (
            stat.resident_bytes >= self._policy.placement.min_remote_bytes
            and info.pid != self._own_pid
        ):
            command = " ".join(info.program.cmdline[:MOST_COMMAND])[:MOST_COMMAND]
            judged.passed_over = PassedOver(
                info.pid, stat.comm, stat.resident_bytes, matched.why_not, command
            )
        return judged

    def _match(self, subject: Subject) -> Match:
        """Ask the rules, unless they were asked the same already."""
        key = hash(subject)
        matched = self._matches.get(key)
        if matched is None:
            if len(self._matches) >= MOST_MATCHES:
                self._matches.clear()
            matched = self._matches[key] = match(self._policy, subject)
        return matched

    def _pause_s(self, age_s: float, longest_s: float) -> float:
        """Return for how long a process of this age is left alone, at most for its age again.

        Those that are judged together are drawn apart: after the first look over the whole pause,
        later over what is not kept in any case.
        """
        kept = 0.0 if self._judge_all else EARLIEST
        self._drawn = (self._drawn + _GOLDEN) % 1.0
        return max(0.0, min(age_s, longest_s)) * (1.0 - (1.0 - kept) * self._drawn)


@functools.lru_cache(MOST_CGROUPS)
def _parted(cgroup: str | None) -> tuple[str | None, str | None]:
    """Return unit and container, which the processes of a cgroup share."""
    return (unit_of(cgroup), container_of(cgroup)) if cgroup else (None, None)


def subject_of(info: ProcessInfo) -> Subject:
    """Return what rules look at of a process."""
    unit, container = _parted(info.cgroup)
    return Subject(
        comm=info.stat.comm,
        exe=info.program.exe or "",
        cmdline=info.program.cmdline,
        user=info.user or "",
        uid=info.uid,
        unit=unit,
        cgroup=info.cgroup,
        container=container,
    )
