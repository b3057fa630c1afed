"""What was measured, as lines of a table and as JSON."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

WIDTHS = (10, 36, 23, 23, 5, 6, 14)
HEAD = ("subject", "case", "ours", "theirs", "unit", "ratio", "target")
NOTE_WIDTH = 110


class NotHere(Exception):  # noqa: N818 - no error: there is nothing to measure here
    """A subject cannot run on this machine; the message says what it lacks."""


class State(Enum):
    """What became of a measurement."""

    MEASURED = "measured"
    NOT_HERE = "not here"
    FAILED = "failed"


@dataclass(frozen=True)
class Figure:
    """One thing measured several times, in the row's unit."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """Take the values in the order in which they were measured; at least one."""
        found = tuple(values)
        if not found:
            msg = "nothing was measured"
            raise ValueError(msg)
        return cls(found)

    @property
    def median(self) -> float:
        """The figure to go by."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Return the median, and from what to what the values go where there are several."""
        if len(self.values) == 1:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(min(self.values))}-{_short(max(self.values))})"


@dataclass(frozen=True)
class Row:
    """One comparison, or why there is none."""

    subject: str
    case: str
    ours: Figure | None = None
    theirs: Figure | None = None
    """Of what we are compared with; the note names it."""
    unit: str = ""
    target: str | None = None
    met: bool | None = None
    """Whether the target was met; None: there is none, or nothing was measured."""
    note: str = ""
    where: str = ""
    """The guest in which it was measured; empty: on this machine."""
    state: State = State.MEASURED

    @property
    def ratio(self) -> float | None:
        """Ours by theirs; None where one of them is missing or theirs is nothing."""
        if self.ours is None or self.theirs is None or not self.theirs.median:
            return None
        return self.ours.median / self.theirs.median

    def at_most(self, limit: float) -> Row:
        """Return it with the target of a ratio."""
        met = None if self.ratio is None else self.ratio <= limit
        return replace(self, target=f"ratio <= {limit:g}", met=met)

    def below(self, limit: float) -> Row:
        """Return it with a target for our own figure, in its unit."""
        met = None if self.ours is None else self.ours.median <= limit
        return replace(self, target=f"<= {limit:g} {self.unit}", met=met)

    def lines(self) -> str:
        """Return it as a line of the table, and its note below."""
        target = self.target or ""
        if self.met is not None:
            target += " met" if self.met else " MISSED"
        if self.state is not State.MEASURED:
            target = self.state.value
        ratio = "" if self.ratio is None else _short(self.ratio)
        cells = (self.subject, self.case, self.ours, self.theirs, self.unit, ratio, target)
        words = f"{self.note} [{self.where}]" if self.where else self.note
        note = textwrap.wrap(words, NOTE_WIDTH, initial_indent="  ", subsequent_indent="  ")
        return "\n".join([_line(cells), *note])

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "subject": self.subject,
            "case": self.case,
            "state": self.state.value,
            "ours": _document(self.ours),
            "theirs": _document(self.theirs),
            "unit": self.unit,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
            "note": self.note,
            "where": self.where or None,
        }


def head() -> str:
    """Return the head of the table, and how to read it."""
    legend = "figures: median (lowest-highest); ratio: ours / theirs; what theirs is: in the note"
    return f"{legend}\n{_line(HEAD)}\n{_line(tuple('-' * width for width in WIDTHS))}"


def _line(cells: Iterable[object]) -> str:
    padded = ("" if cell is None else str(cell) for cell in cells)
    return " ".join(f"{text:<{width}}" for text, width in zip(padded, WIDTHS, strict=True)).rstrip()


def _short(value: float) -> str:
    """Return three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _document(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "median": figure.median,
        "low": min(figure.values),
        "high": max(figure.values),
        "values": list(figure.values),
    }
