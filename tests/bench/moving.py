"""Bringing workers' memory home: numad-py against all that does it today, in guests of four nodes.

Each contender has the same scenario: three workers that are bound to one node by their user while
their memory is on another, with threads that write, map and unmap. As a subject of the bench it
measures all, in two hours; ``python -m tests.bench.moving --short`` a part, in some 5
minutes, and its other options pick parts.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import stalls
from tests.bench.__main__ import ROOT, write
from tests.bench.chunks import chunk_rows, lines, raw_row, sweep
from tests.bench.guests import guests, warm_up
from tests.bench.movers import (
    CALM,
    CONTENDERS,
    FULL,
    Contender,
    Run,
    Scenario,
    loads,
    put,
    run,
    shipped_nice,
)
from tests.bench.plot import svg
from tests.bench.shootdowns import shootdown_rows
from tests.bench.table import NotHere, Row, head
from tests.guest.image import RELEASES
from tests.guest.machine import Machine
from tests.guest.topology import TOPOLOGIES

TOPOLOGIES_BY_CPUS = ("n4c8", "n4c2")
"""Of four nodes, the one with the most CPUs first."""
PARTS = ("homes", "shootdowns", "raw", "chunks")
"""Bringing workers home; what it costs that they run; raw speed; the size of chunks."""
NOT_OVERSUBSCRIBED = ("raw", "chunks")
"""Speed by itself is measured where the host has a CPU for each of the guest's."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    releases: tuple[str, ...] = RELEASES
    topologies: tuple[str, ...] = ()
    """Empty: those that this host is for."""
    thps: tuple[str, ...] = ("never", "always")
    loads: tuple[str, ...] = (CALM, FULL)
    contenders: tuple[Contender, ...] = CONTENDERS
    parts: tuple[str, ...] = PARTS
    sizes: tuple[str, ...] = ("512MiB", "768MiB", "1GiB")
    quiet_s: float = 15.0
    limit_s: float = 90.0
    rounds: int = 5


SHORT = Extent(
    releases=("bookworm",),
    topologies=TOPOLOGIES_BY_CPUS[-1:],
    thps=("never",),
    loads=(CALM,),
    parts=("homes", "raw"),
    sizes=("512MiB", "512MiB", "512MiB"),
    quiet_s=8.0,
    limit_s=25.0,
    rounds=2,
)


def rows(extent: Extent | None = None) -> Iterator[Row]:
    """Measure in one guest after the other."""
    extent = extent or Extent()
    parts = parts_by_topology(extent, os.cpu_count() or 1)
    with guests() as fleet:
        for release in extent.releases:
            for topology in filter(parts.get, parts):
                guest = fleet.get(f"{release}-{topology}")
                warm_up(guest)
                put(guest)
                yield from in_guest(guest, replace(extent, parts=parts[topology]))


def parts_by_topology(extent: Extent, host_cpus: int) -> dict[str, tuple[str, ...]]:
    """Return what is measured on which machine; on those that are asked for: all."""
    if extent.topologies:
        return dict.fromkeys(extent.topologies, extent.parts)
    first, *others = topologies_for(host_cpus)
    everywhere = tuple(part for part in extent.parts if part not in NOT_OVERSUBSCRIBED)
    return {first: extent.parts, **dict.fromkeys(others, everywhere)}


def topologies_for(host_cpus: int) -> tuple[str, ...]:
    """Return the machine that has no more CPUs than this host, and then one that has more."""
    most, fewest = TOPOLOGIES_BY_CPUS[0], TOPOLOGIES_BY_CPUS[-1]
    fitting = [name for name in TOPOLOGIES_BY_CPUS if TOPOLOGIES[name].cpus <= host_cpus]
    first = fitting[0] if fitting else fewest
    return (first,) if first == most else (first, most)


def in_guest(guest: Machine, extent: Extent) -> Iterator[Row]:
    """Measure what is to be measured in one guest."""
    where = f"{guest.name}, Linux {guest.out('uname -r').strip()}, {os.cpu_count()} host CPUs"
    busy = loads(os.cpu_count() or 1, guest.topology.cpus)
    for thp in extent.thps:
        for name in extent.loads if "homes" in extent.parts else ():
            scenario = Scenario(thp, busy[name], extent.sizes, extent.quiet_s, extent.limit_s)
            runs = {who: _told(guest, who, scenario) for who in extent.contenders}
            cpus = max(found.busy_cpus for found in runs.values())
            there = (
                f"{where}, of which {cpus:.1f} busy before anything moves; nice value of numad-py "
                f"{shipped_nice()}, of the others 0, all in one session"
            )
            case = f"{guest.topology.cpus} CPUs, {scenario.title}"
            yield from stalls.rows(stalls.Setting(guest.release, case, there), runs)
        if "shootdowns" in extent.parts:
            yield from shootdown_rows(guest, Scenario(thp, busy[FULL], extent.sizes), 2, where)
        scenario = Scenario(thp, busy[CALM], extent.sizes[:1], 2.0)
        if "raw" in extent.parts:
            yield raw_row(guest, scenario, extent.rounds, where)
        if "chunks" in extent.parts:
            yield from _chunks(guest, scenario, extent.rounds, where)


def _told(guest: Machine, contender: Contender, scenario: Scenario) -> Run:
    """Measure a run, and say at once how it went: the rows come when all have run."""
    found = run(guest, contender, scenario)
    print(f"  {scenario.title}: {contender.title}: {found.words()}", file=sys.stderr, flush=True)
    return found


def _chunks(guest: Machine, scenario: Scenario, rounds: int, where: str) -> Iterator[Row]:
    found = sweep(guest, scenario, rounds)
    yield from chunk_rows(found, scenario, where)
    began = time.strftime("%Y-%m-%dT%H%M%S")
    path = ROOT / "bench" / f"{began}-chunks-{guest.release}-thp-{scenario.thp}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(f"Chunks, {where}, {scenario.title}", "longest_chunk, ms", lines(found)))
    print(f"  drawn: {path}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure a part, print and write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.moving", description=__doc__)
    parser.add_argument("--short", action="store_true", help="some 5 minutes")
    parser.add_argument("--release", action="append", choices=RELEASES)
    parser.add_argument("--topology", action="append", choices=TOPOLOGIES_BY_CPUS)
    parser.add_argument("--thp", action="append", choices=["never", "always"])
    parser.add_argument("--load", action="append", choices=[CALM, FULL])
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--size", action="append", help="of a worker, as 512MiB; several times")
    parser.add_argument("--quiet-s", type=float, help="seconds of the quiet window")
    parser.add_argument("--limit-s", type=float, help="seconds that a contender is given")
    parser.add_argument("--rounds", type=int, help="of the raw speed and of the chunks")
    parser.add_argument(
        "--json", type=Path, help="where to write (default: bench/moving-DATE.json)"
    )
    options = parser.parse_args()
    extent = chosen(options)
    began = time.strftime("%Y-%m-%dT%H%M%S")
    found: list[Row] = []
    complete = False
    print(head(), flush=True)
    # A time limit from outside ends it as Ctrl-C does: with what there is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for row in rows(extent):
            found.append(row)
            print(row.lines(), flush=True)
        complete = True
    except NotHere as why:
        print(f"not measured: {why}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        path = options.json or ROOT / "bench" / f"moving-{began}.json"
        write(path, began, found, complete=complete)
    return 0 if complete else 1


def chosen(options: argparse.Namespace) -> Extent:
    """Return what the options ask for; what they leave open is as in the whole or the short one."""
    base = SHORT if options.short else Extent()

    named = {
        "releases": options.release,
        "topologies": options.topology,
        "thps": options.thp,
        "loads": options.load,
        "parts": options.part,
        "sizes": options.size,
        "quiet_s": options.quiet_s,
        "limit_s": options.limit_s,
        "rounds": options.rounds,
    }
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in named.items()
        if value is not None
    }
    return replace(base, **given)


if __name__ == "__main__":
    sys.exit(main())
