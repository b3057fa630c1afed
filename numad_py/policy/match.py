"""Whether a rule matches a process. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fnmatch import fnmatchcase

from numad_py.policy.schema import Policy, Rule

LONGEST_CMDLINE = 16 * 1024


@dataclass(frozen=True)
class Subject:
    """What rules look at."""

    comm: str
    exe: str
    cmdline: tuple[str, ...]
    user: str
    uid: int
    unit: str | None
    cgroup: str | None
    container: str | None

    @functools.cached_property
    def arguments(self) -> str:
        """The command line joined by blanks, cut where no server is named any more.

        Anybody may run a program with a command line of megabytes, and a pattern may take long on
        it; Java's class paths are the longest that make sense.
        """
        return " ".join(self.cmdline)[:LONGEST_CMDLINE]


@dataclass(frozen=True)
class Match:
    """The first rule that matches, or the exclude that stands before all rules."""

    rule: Rule | None
    excluded_by: Rule | None = None

    @property
    def why_not(self) -> str:
        """Say why a process without a rule has none."""
        if self.excluded_by is not None:
            return f"excluded by {self.excluded_by.name} ({self.excluded_by.origin})"
        return "no rule matches"


def match(policy: Policy, subject: Subject) -> Match:
    """Return the rule for a process; excludes win over every rule."""
    for rule in policy.excludes:
        if matches(rule, subject):
            return Match(None, excluded_by=rule)
    return Match(next((rule for rule in policy.rules if matches(rule, subject)), None))


def matches(rule: Rule, subject: Subject) -> bool:
    """Say whether every key that the rule gives matches; any pattern of a key will do."""
    for patterns, text in (
        (rule.comm, subject.comm),
        (rule.exe, subject.exe),
        (rule.cmdline, subject.arguments),
    ):
        if patterns and not any(pattern.search(text) for pattern in patterns):
            return False
    if rule.user and not {subject.user, str(subject.uid)} & set(rule.user):
        return False
    for globs, value in (
        (rule.unit, subject.unit),
        (rule.cgroup, subject.cgroup),
        (rule.container, subject.container),
    ):
        if globs and not any(value is not None and fnmatchcase(value, glob) for glob in globs):
            return False
    return True
