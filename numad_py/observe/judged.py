"""What discovery remembers of the processes that live: verdicts, labels, and when to look again."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from numad_py.kernel.stat import Stat
from numad_py.model.snapshot import PassedOver, WorkerId

MOST_NAMED = 20
"""Of so many that are no workers it is said by name why."""


@dataclass(frozen=True)
class Found:
    """A process that a rule matches."""

    id: WorkerId
    label: str
    rule: str
    comm: str
    user: str | None
    cgroup: str | None
    stat: Stat
    """/proc/PID/stat as read in this look."""

    def now(self, stat: Stat) -> Found:
        """Return the same with a later stat; ``replace`` takes thrice as long, in each look."""
        return Found(self.id, self.label, self.rule, self.comm, self.user, self.cgroup, stat)


@dataclass(slots=True)
class Judged:
    """What was last thought of a process."""

    start_ticks: int | None
    """With the pid its identity; None where it could not be read."""
    since_s: float
    """When it started, time since boot; where that could not be read: when it was first seen."""
    comm: str | None = None
    program: int | None = None
    """Hash of the program that was judged; None where it could not be read."""
    exe: int | None = None
    """Hash of its executable; None where that may not be seen."""
    found: Found | None = None
    passed_over: PassedOver | None = None
    in_full: bool = True
    """Whether all of it was read when its program was last looked at."""
    cpu_ticks: int | None = None
    """CPU time that it had spent by then."""
    stat_text: int | None = None
    """Hash of its stat when it was last looked at again."""
    judged_at_s: float = 0.0
    """When all of it was read."""
    parent: int | None = None
    rested: int = 0
    """Looks in a row before which it had not run."""
    stirred: bool = False
    """Whether a child of it ended since it was last looked at."""

    def execed(self, before: Judged | None) -> bool:
        """Say whether a process runs another executable than when it was judged before.

        Arguments and name tell nothing: servers write over theirs, some with each request
        (setproctitle). That a program starts itself anew is not seen.
        """
        return (
            before is not None
            and before.start_ticks == self.start_ticks
            and None not in {before.exe, self.exe}
            and before.exe != self.exe
        )


class Labels:
    """Hands out ``rule/ordinal``, the lowest ordinal that is free."""

    def __init__(self) -> None:
        """Start with none taken."""
        self._next: dict[str, int] = {}
        self._freed: dict[str, list[int]] = {}

    def take(self, rule: str) -> str:
        """Return a label that nobody has."""
        freed = self._freed.get(rule)
        if freed:
            return f"{rule}/{heapq.heappop(freed)}"
        ordinal = self._next.get(rule, 0)
        self._next[rule] = ordinal + 1
        return f"{rule}/{ordinal}"

    def free(self, label: str) -> None:
        """Take a label back."""
        rule, ordinal = parted(label)
        freed = self._freed.setdefault(rule, [])
        heapq.heappush(freed, ordinal)
        if len(freed) == self._next[rule]:
            del self._freed[rule], self._next[rule]


def parted(label: str) -> tuple[str, int]:
    """Return rule and ordinal of a label: the order in which they are listed."""
    rule, _, ordinal = label.rpartition("/")
    return rule, int(ordinal)


class Agenda:
    """When each pid is looked at again: a heap, whose outdated entries are left until they weigh.

    Finding that nothing is due costs nothing, however many wait.
    """

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._due_s: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    @property
    def pids(self) -> Iterable[int]:
        """All of them."""
        return self._due_s.keys()

    def put(self, pid: int, due_s: float) -> None:
        """Look at a pid at the first look after ``due_s``, and not before."""
        self._due_s[pid] = due_s
        heapq.heappush(self._heap, (due_s, pid))
        if len(self._heap) > 2 * len(self._due_s) + 64:
            self._heap = [(due_s, pid) for pid, due_s in self._due_s.items()]
            heapq.heapify(self._heap)

    def waits(self, pid: int) -> bool:
        """Say whether a pid is to be looked at again at all."""
        return pid in self._due_s

    def drop(self, pid: int) -> None:
        """Never look at a pid again."""
        self._due_s.pop(pid, None)

    def first_due(self, now_s: float) -> int | None:
        """Return the pid that has been due for longest; it stays until it is put or dropped."""
        heap = self._heap
        while heap and heap[0][0] < now_s:
            due_s, pid = heap[0]
            if self._due_s.get(pid) == due_s:
                return pid
            heapq.heappop(heap)
        return None


class Register:
    """The verdicts on all that live, and what follows from them, ready to be read.

    What was asked for once is kept until a verdict changes it.
    """

    def __init__(self, named: frozenset[str]) -> None:
        """Start empty; ``named`` are the command names to be noticed."""
        self.agenda = Agenda()
        self._names = named
        self._labels = Labels()
        self._judged: dict[int, Judged] = {}
        self._workers: dict[int, str] = {}
        self._unlabelled: set[int] = set()
        self._passed_over: dict[int, PassedOver] = {}
        self._named: dict[int, str] = {}
        self._order: tuple[int, ...] | None = None
        self._largest: tuple[PassedOver, ...] | None = None

    def __len__(self) -> int:
        """Return how many processes there is a verdict on."""
        return len(self._judged)

    def get(self, pid: int) -> Judged | None:
        """Return the last verdict on a pid."""
        return self._judged.get(pid)

    def put(self, pid: int, judged: Judged) -> None:
        """Take a verdict down; a worker keeps its label as long as its id and its rule."""
        before, found = self._worker(pid), judged.found
        if found and before and (found.id, found.rule) == (before.id, before.rule):
            judged.found = replace(found, label=before.label)
        else:
            self._unlist(pid)
            if found:
                self._unlabelled.add(pid)
        self._judged[pid] = judged
        if self._passed_over.get(pid) != judged.passed_over:
            self._largest = None
            self._passed_over.pop(pid, None)
            if judged.passed_over:
                self._passed_over[pid] = judged.passed_over
        self._named.pop(pid, None)
        if judged.comm in self._names:
            self._named[pid] = judged.comm or ""

    def forget(self, pid: int) -> int | None:
        """Drop what is known of a pid, whose process has ended; return its parent, if known."""
        self._unlist(pid)
        judged = self._judged.pop(pid, None)
        self._named.pop(pid, None)
        if self._passed_over.pop(pid, None):
            self._largest = None
        self.agenda.drop(pid)
        return judged.parent if judged else None

    def ended(self, present: Mapping[int, int]) -> list[int]:
        """Return the pids there is a verdict on and that are not present."""
        return list(self._judged.keys() - present.keys())

    def stir(self, pid: int | None, now_s: float) -> None:
        """Look at a process at once: a child of it has ended, for which it may have waited."""
        if pid is not None and pid in self._judged and self.agenda.waits(pid):
            self._judged[pid].stirred = True
            self.agenda.put(pid, now_s - 1)

    def label(self) -> None:
        """Hand out labels to the new workers, by pid."""
        for pid in sorted(self._unlabelled):
            judged = self._judged[pid]
            if judged.found:
                self._workers[pid] = self._labels.take(judged.found.rule)
                judged.found = replace(judged.found, label=self._workers[pid])
        if self._unlabelled:
            self._order = None
            self._unlabelled.clear()

    def workers(self) -> tuple[int, ...]:
        """Return the pids of the workers that have a label, sorted by it."""
        if self._order is None:
            self._order = tuple(sorted(self._workers, key=lambda pid: parted(self._workers[pid])))
        return self._order

    def largest_passed_over(self) -> tuple[PassedOver, ...]:
        """Return those of MOST_NAMED that would be worth moving, largest first."""
        if self._largest is None:
            self._largest = tuple(
                heapq.nsmallest(
                    MOST_NAMED,
                    self._passed_over.values(),
                    key=lambda p: (-p.resident_bytes, p.pid),
                )
            )
        return self._largest

    def named(self) -> Mapping[str, int]:
        """Return the lowest pid by command name, of those to be noticed."""
        return {self._named[pid]: pid for pid in sorted(self._named, reverse=True)}

    def _worker(self, pid: int) -> Found | None:
        judged = self._judged.get(pid)
        return judged.found if judged else None

    def _unlist(self, pid: int) -> None:
        """Make a worker none, and free its label."""
        self._unlabelled.discard(pid)
        label = self._workers.pop(pid, None)
        if label is not None:
            self._labels.free(label)
            self._order = None
