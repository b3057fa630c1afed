"""Why a process has no rule: the exclude, or the one key by which rules fail to match."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from numad_py.policy.match import MOST_NEAR, Subject, why_not
from numad_py.policy.schema import Policy, Rule

SUBJECT = Subject("serve", "", ("serve", "-m"), "", 1000, None, None, None)
MINE = Rule("mine", "p.toml:1", comm=(re.compile("^serve$"),))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (replace(MINE, user=("llm",)), "mine (p.toml:1) would, but its user is '1000'"),
        (replace(MINE, unit=("a*",)), "mine (p.toml:1) would, but no unit of it is known"),
        (replace(MINE, exe=(re.compile("a"),)), "mine (p.toml:1) would, but no exe of it is known"),
        (
            replace(MINE, cmdline=(re.compile("--port"),)),
            "mine (p.toml:1) would, but its cmdline is 'serve -m'",
        ),
        (replace(MINE, comm=(re.compile("x"),)), None),
        (replace(MINE, user=("llm",), unit=("a*",)), None),
        (replace(MINE, user=("llm",), origin="built-in"), None),
    ],
)
def test_a_rule_that_one_key_alone_keeps_off_is_named(rule: Rule, said: str | None) -> None:
    """Not one that has no other key, that two keep off, or that the user has not written."""
    told = why_not(Policy(rules=(rule,)), SUBJECT)
    assert told == ("no rule matches" if said is None else f"no rule matches; {said}")


def test_the_first_of_many_such_rules_are_named() -> None:
    """In the order in which they are tried."""
    rules = [replace(MINE, name=f"r{i}", user=("llm",)) for i in range(MOST_NEAR + 2)]
    told = why_not(Policy(rules=tuple(rules)), SUBJECT)
    assert told is not None
    assert re.findall(r"r\d", told) == [f"r{i}" for i in range(MOST_NEAR)]


def test_a_long_command_line_is_cut() -> None:
    """Those of Java are pages long."""
    rule = replace(MINE, cmdline=(re.compile("--port"),))
    told = why_not(Policy(rules=(rule,)), replace(SUBJECT, cmdline=("x" * 5000,)))
    assert told is not None
    assert told.endswith("xxx...'")
    assert len(told) < 150


def test_an_exclude_is_named_and_a_match_is_none() -> None:
    """An exclude wins over rules; where a rule matches there is nothing to say."""
    exclude = replace(MINE, name="not-me", origin="p.toml:9")
    policy = Policy(rules=(MINE,))
    assert why_not(policy, SUBJECT) is None
    assert why_not(replace(policy, excludes=(exclude,)), SUBJECT) == (
        "excluded by not-me (p.toml:9)"
    )
