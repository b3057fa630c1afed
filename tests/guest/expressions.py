"""The PromQL of the dashboard and of the alerts, for use against a plain Prometheus.

Imports nothing of the project, so that it runs in a guest too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BUILT_IN = {"__rate_interval": "30s", "__interval": "5s", "__range": "5m"}
"""What Grafana itself puts in; the rate interval is for a scrape every second or two."""
JOB = "numad-py"
"""The job's name in config/prometheus/prometheus.yml."""
ALL = ".+"
"""What Grafana puts in for a variable of which everything is chosen."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(\s*\()?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


@dataclass(frozen=True)
class Matcher:
    """One ``label="value"`` of a selector."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True)
class Selector:
    """One metric in an expression."""

    metric: str
    matchers: tuple[Matcher, ...]

    def __str__(self) -> str:
        """Return it as PromQL."""
        inner = ",".join(f'{m.label}{m.operator}"{m.value}"' for m in self.matchers)
        return f"{self.metric}{{{inner}}}"


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return every panel that shows something: rows are headings."""
    for panel in dashboard["panels"]:
        yield from (p for p in (panel, *panel.get("panels", ())) if p["type"] != "row")


def raw_expressions(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands in the dashboard by ``panel title/refId``, with Grafana's variables."""
    return {
        f"{panel['title']}/{target['refId']}": target["expr"]
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


def expressions(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Return PromQL by ``panel title/refId``.

    Raises:
        KeyError: a variable that neither Grafana nor the dashboard has.
    """
    values = {variable["name"]: ALL for variable in dashboard["templating"]["list"]}
    values |= {**BUILT_IN, "job": JOB}

    def value(match: re.Match[str]) -> str:
        return values[match[1] or match[2]]

    return {name: _VARIABLE.sub(value, e) for name, e in raw_expressions(dashboard).items()}


def alert_expressions(rules: str) -> dict[str, str]:
    """Return PromQL by the alert's name, from the text of the rules file.

    It knows the one form that the file keeps to, ``expr: |`` with an indented block, which spares
    the guest a YAML parser that Debian does not install with Python.
    """
    found = {}
    for entry in re.split(r"^ *- alert: *", rules, flags=re.MULTILINE)[1:]:
        name, _, rest = entry.partition("\n")
        block = re.search(r"^( *)expr: \|\n((?:\1 +.*\n)+)", rest, flags=re.MULTILINE)
        if block is None:
            msg = f"alert {name}: no 'expr: |' with a block below it"
            raise ValueError(msg)
        found[name.strip()] = " ".join(block[2].split())
    return found


def selectors(expression: str) -> list[Selector]:
    """Return every metric of an expression with its matchers, in order, each once."""
    text = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", expression))
    found = [
        Selector(name, tuple(Matcher(*m) for m in _MATCHER.findall(matchers)))
        for name, matchers, call in _SELECTOR.findall(text)
        if not call and name not in _WORDS
    ]
    return list(dict.fromkeys(found))


def grouped_by(expression: str) -> set[str]:
    """Return every label that an expression groups by or matches series on."""
    return {
        label.strip()
        for inner in _GROUPING.findall(expression)
        for label in inner.split(",")
        if label.strip()
    }
