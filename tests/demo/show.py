"""What the demo shows: workers on their way home, decisions, metrics."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numad_py.model.quantity import format_bytes

BAR = 24
SHOWN = re.compile(
    r"numad_py_(?:worker_locality_ratio|worker_home|worker_decision|moved_bytes_total|"
    r"threads_bound_total|cycle_cpu_seconds_total|scan_seconds_total)\b"
)


@dataclass(frozen=True)
class Shown:
    """A worker as the demo speaks of it."""

    name: str
    pid: str
    story: str
    homes: Sequence[Sequence[int]]


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


class Live:
    """Workers with a bar each; drawn over itself on a terminal, else now and then."""

    def __init__(self, workers: Sequence[Shown]) -> None:
        """Show nothing yet."""
        self._workers = workers
        self._drawn = 0
        self._last = ""

    def draw(self, seen: Mapping[str, Any]) -> None:
        """Draw one look of the probe (``probe.py watch``)."""
        lines = [
            line(worker, seen["residency"][worker.pid], seen["seconds"][worker.pid])
            for worker in self._workers
        ]
        text = "\n".join(lines)
        if sys.stdout.isatty():
            print(f"\033[{self._drawn}A\033[J" if self._drawn else "", end="")
            self._drawn = len(lines)
        elif text == self._last:
            return
        self._last = text
        print(text, flush=True)
        if not sys.stdout.isatty():
            print(flush=True)


def line(worker: Shown, residency: Mapping[str, int], home_after_s: float | None) -> str:
    """Return one worker's line: how much of it is home, and on which nodes it lies."""
    total = sum(residency.values())
    homes = [sum(residency.get(str(n), 0) for n in home) for home in worker.homes]
    share = max(homes) / total if total else 0.0
    full = round(BAR * share)
    nodes = "  ".join(
        f"{node}: {format_bytes(size)}"
        for node, size in sorted(residency.items(), key=lambda item: int(item[0]))
        if size >= 1 << 20
    )
    done = f"home after {home_after_s} s" if home_after_s is not None else "away"
    bar = "#" * full + "." * (BAR - full)
    return f"{worker.name}  [{bar}] {share:6.1%} local  {done:<18} nodes {nodes}"


def labels(pids: Mapping[str, str], status: Mapping[str, Any]) -> str:
    """Return which of the demo's names is which of numad-py's, by a status document."""
    watched = {str(worker["pid"]): worker["worker"] for worker in status["workers"]}
    told = (f"{name} is {watched.get(pid, 'not watched')}" for name, pid in pids.items())
    return ", ".join(told)


def decisions(log: Iterable[str]) -> None:
    """Print what the daemon's log says of decisions and moves."""
    for text in log:
        if not text.startswith("{"):
            continue
        event = json.loads(text)
        if "why" in event and "worker" in event:
            print(f"{event['decision']:<16} {event['event']:<7} {event['reason']}: {event['why']}")
        elif str(event.get("event", "")).startswith("move "):
            pages = ", ".join(f"{n} {status}" for status, n in event.get("pages", {}).items())
            print(
                f"{event['decision']:<16} {event['event']}: {event['moved']} in "
                f"{event['seconds']} s, {event['threads_bound']} threads bound"
                + (f", all but {event['but_for']}" if "but_for" in event else "")
                + (f" (pages: {pages})" if pages else "")
            )


def metrics(exposition: str) -> None:
    """Print some of the metrics as scraped; those that are zero are left out."""
    for text in exposition.splitlines():
        if SHOWN.match(text) and not text.endswith(" 0.0"):
            print(text)
