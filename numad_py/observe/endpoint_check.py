"""Trying the endpoint of each guard once, before anything hangs on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from numad_py.kernel.procfs import ProcFs
from numad_py.model.guard import GuardReading
from numad_py.observe.discovery import Discovery
from numad_py.observe.endpoint import look
from numad_py.policy.guard import is_local
from numad_py.policy.schema import GuardPolicy, Policy


class Found(Enum):
    """What a try has brought."""

    NO_WORKER = "no worker"
    """Nothing was tried: until a worker of the rule is there, nobody need listen."""
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    """A histogram without an observation: it can be read, and would judge no move."""
    READ = "read"


@dataclass(frozen=True)
class EndpointCheck:
    """What became of the endpoint of one guarded rule."""

    rule: str
    guard: GuardPolicy
    workers: int
    """Of the rule, as they are seen now."""
    found: Found
    reading: GuardReading | None = None
    """Where it is EMPTY or READ."""
    problem: str | None = None
    """Where it is UNREADABLE: why, in words."""

    @property
    def elsewhere(self) -> bool:
        """Say whether its address may be another machine's."""
        return not is_local(urlsplit(self.guard.url).hostname or "")


def endpoint_checks(procfs: ProcFs, policy: Policy) -> Iterator[EndpointCheck]:
    """Read the endpoint of each rule with a guard, once, as the daemon would.

    That is while a worker of the rule is there. Only for the /proc of this machine: 127.0.0.1 is
    not another's own.
    """
    guards = {rule.name: rule.guard for rule in policy.rules if rule.guard is not None}
    workers = Discovery(procfs, policy).look(procfs.uptime_s()).workers if guards else ()
    counts = Counter(worker.rule for worker in workers)
    for rule, guard in guards.items():
        if counts[rule]:
            yield _tried(rule, guard, counts[rule], procfs)
        else:
            yield EndpointCheck(rule, guard, 0, Found.NO_WORKER)


def _tried(rule: str, guard: GuardPolicy, workers: int, procfs: ProcFs) -> EndpointCheck:
    seen = look(guard, procfs.uptime_s)
    if seen.reading is None:
        return EndpointCheck(rule, guard, workers, Found.UNREADABLE, problem=seen.problem)
    found = Found.EMPTY if seen.reading.count == 0 else Found.READ
    return EndpointCheck(rule, guard, workers, found, seen.reading)
