"""Whether a rule matches a process. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from numad_py.policy.keys import MATCH_KEYS
from numad_py.policy.schema import Policy, Rule
from numad_py.policy.spelled import spelled

LONGEST_CMDLINE = 16 * 1024
NO_RULE = "no rule matches"
MOST_NEAR = 3
"""So many rules that nearly match are named."""
BUILT_IN = "built-in"
"""Origin of the rules that stand in no file of the user's."""
_FIELDS = tuple(key.field for key in MATCH_KEYS.values())
_LONGEST_TOLD = 60
"""So many characters of what a process has are told."""


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
        return NO_RULE


def match(policy: Policy, subject: Subject) -> Match:
    """Return the rule for a process; excludes win over every rule."""
    for rule in policy.excludes:
        if matches(rule, subject):
            return Match(None, excluded_by=rule)
    return Match(next((rule for rule in policy.rules if matches(rule, subject)), None))


def matches(rule: Rule, subject: Subject) -> bool:
    """Say whether every key that the rule gives matches; any pattern of a key will do."""
    return next(_unmet(rule, subject), None) is None


def why_not(policy: Policy, subject: Subject) -> str | None:
    """Say why a process has no rule: the exclude, or the one key by which rules fail to match.

    A rule is named where all of its keys but one match, and at least one does: of the file's own,
    the first of MOST_NEAR. None where a rule matches.
    """
    found = match(policy, subject)
    if found.rule is not None:
        return None
    if found.excluded_by is not None:
        return found.why_not
    near = [said for rule in policy.rules if (said := _near(rule, subject)) is not None]
    return "; ".join((found.why_not, *near[:MOST_NEAR]))


def _near(rule: Rule, subject: Subject) -> str | None:
    unmet = list(_unmet(rule, subject))
    given = sum(bool(getattr(rule, key)) for key in _FIELDS)
    if len(unmet) != 1 or given == 1 or rule.origin == BUILT_IN:
        return None
    return f"{rule.name} ({rule.origin}) would, but {_has(unmet[0], subject)}"


def _has(key: str, subject: Subject) -> str:
    """Return what a process has for a key, cut where it is long."""
    value = subject.arguments if key == "cmdline" else getattr(subject, key)
    if key == "user":
        value = value or str(subject.uid)
    if not value:
        return f"no {key} of it is known"
    text = str(value)
    more = "..." if len(text) > _LONGEST_TOLD else ""
    return f"its {key} is {spelled(text[:_LONGEST_TOLD] + more)}"


def _unmet(rule: Rule, subject: Subject) -> Iterator[str]:
    """Yield the keys that a rule gives and that do not match."""
    for key, patterns, text in (
        ("comm", rule.comm, subject.comm),
        ("exe", rule.exe, subject.exe),
        ("cmdline", rule.cmdline, subject.arguments),
    ):
        if patterns and not any(pattern.search(text) for pattern in patterns):
            yield key
    if rule.user and not {subject.user, str(subject.uid)} & set(rule.user):
        yield "user"
    for key, globs, value in (
        ("unit", rule.unit, subject.unit),
        ("cgroup", rule.cgroup, subject.cgroup),
        ("container", rule.container, subject.container),
    ):
        if globs and not any(value is not None and fnmatchcase(value, glob) for glob in globs):
            yield key
