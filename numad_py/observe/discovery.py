"""Which processes are workers.

A process is judged when it is first seen, again for a while after that (a launcher execs into the
server), and slowly in any case. Between two judgements nothing of it is read, save that a worker's
identity is checked in each cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel.cgroupfs import container_of, unit_of
from numad_py.kernel.procfs import ProcessInfo, ProcFs
from numad_py.model.snapshot import PassedOver, WorkerId
from numad_py.policy.match import Match, Subject, match
from numad_py.policy.schema import Policy

YOUNG_S = 30.0
"""So long after its start a process is judged in every cycle: exec keeps pid and start time."""
MOST_NAMED = 20
"""Of so many that are no workers it is said by name why."""
REJUDGE_S = 30.0
"""So often an older process that is no worker is judged again."""


@dataclass(frozen=True)
class Found:
    """A process that a rule matches."""

    id: WorkerId
    label: str
    rule: str
    comm: str
    user: str | None
    cgroup: str | None


@dataclass(frozen=True)
class _Judged:
    """What was last thought of a pid."""

    at_s: float
    start_s: float
    found: Found | None
    passed_over: PassedOver | None = None


@dataclass(frozen=True)
class Census:
    """All processes, as far as they matter."""

    workers: tuple[Found, ...]
    """Sorted by label."""
    unmatched: int
    passed_over: tuple[PassedOver, ...]
    """Those of MOST_NAMED that would be worth moving, largest first."""


class Discovery:
    """Remembers what was judged, and hands out labels that last as long as the worker."""

    def __init__(self, procfs: ProcFs, policy: Policy) -> None:
        """Start with nothing known."""
        self._procfs = procfs
        self._policy = policy
        self._judged: dict[int, _Judged] = {}

    def use(self, policy: Policy) -> None:
        """Judge everything again by another policy; labels of workers that stay are kept."""
        self._policy = policy
        self._judged = {
            pid: _Judged(at_s=float("-inf"), start_s=j.start_s, found=j.found)
            for pid, j in self._judged.items()
        }

    def look(self, now_s: float, between: Callable[[], None] = lambda: None) -> Census:
        """Return who is a worker and who is not.

        Args:
            now_s: time since boot.
            between: called before each process; what it raises ends the look.
        """
        pids = sorted(self._procfs.entries())
        present = set(pids)
        for pid in [p for p in self._judged if p not in present]:
            del self._judged[pid]
        for pid in pids:
            between()
            if self._due(pid, now_s):
                self._judge(pid, now_s)
        found = [j.found for j in self._judged.values() if j.found is not None]
        passed = [j.passed_over for j in self._judged.values() if j.passed_over is not None]
        passed.sort(key=lambda p: (-p.resident_bytes, p.pid))
        return Census(
            workers=tuple(sorted(found, key=_by_label)),
            unmatched=len(self._judged) - len(found),
            passed_over=tuple(passed[:MOST_NAMED]),
        )

    def _due(self, pid: int, now_s: float) -> bool:
        judged = self._judged.get(pid)
        if judged is None:
            return True
        if judged.found is None:
            young = now_s - judged.start_s < YOUNG_S
            return young or now_s - judged.at_s >= REJUDGE_S
        if judged.at_s == float("-inf"):
            return True
        try:
            stat = self._procfs.stat(pid)
        except (Vanished, Malformed, RightsError):
            return True
        changed = stat.start_ticks != judged.found.id.start_ticks or stat.comm != judged.found.comm
        return changed or now_s - judged.at_s >= REJUDGE_S

    def _judge(self, pid: int, now_s: float) -> None:
        before = self._judged.pop(pid, None)
        try:
            info = self._procfs.process(pid)
        except Vanished:
            return
        except (Malformed, RightsError):
            info = None
        if info is None:
            self._judged[pid] = _Judged(at_s=now_s, start_s=now_s, found=None)
            return
        start_s = info.start_ticks / self._procfs.clock_ticks
        matched = Match(None) if info.kernel_thread else match(self._policy, _subject(info))
        rule, found, passed_over = matched.rule, None, None
        if rule is None and info.resident_bytes >= self._policy.placement.min_remote_bytes:
            passed_over = PassedOver(pid, info.comm, info.resident_bytes, matched.why_not)
        if rule is not None:
            worker_id = WorkerId(pid, info.start_ticks)
            kept = before.found if before is not None else None
            same = kept is not None and kept.id == worker_id and kept.rule == rule.name
            found = Found(
                id=worker_id,
                label=kept.label if same and kept is not None else self._next_label(rule.name),
                rule=rule.name,
                comm=info.comm,
                user=info.user or str(info.uid),
                cgroup=info.cgroup,
            )
        self._judged[pid] = _Judged(now_s, start_s, found, passed_over)

    def _next_label(self, rule: str) -> str:
        taken = {j.found.label for j in self._judged.values() if j.found is not None}
        ordinal = 0
        while f"{rule}/{ordinal}" in taken:
            ordinal += 1
        return f"{rule}/{ordinal}"


def _by_label(found: Found) -> tuple[str, int]:
    rule, _, ordinal = found.label.rpartition("/")
    return rule, int(ordinal)


def _subject(info: ProcessInfo) -> Subject:
    return Subject(
        comm=info.comm,
        exe=info.exe or "",
        cmdline=info.cmdline,
        user=info.user or "",
        uid=info.uid,
        unit=unit_of(info.cgroup) if info.cgroup else None,
        cgroup=info.cgroup,
        container=container_of(info.cgroup) if info.cgroup else None,
    )
