"""Several workers placed by numad-py and by numad, one after the other in the same guest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from tests.bench.guests import guests, warm_up
from tests.bench.table import Figure, Row
from tests.guest.daemon import DROP_IN, Service
from tests.guest.machine import Machine
from tests.guest.numad import COMMAND, Numad
from tests.guest.topology import REMOTE_DISTANCE
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
LOCAL_DISTANCE = 10
WITHIN_S = 90
"""A case is over when all are settled, or after this."""
SETTLED_SHARE = 0.99
SPREAD = '[[rule]]\nname = "replica"\ncmdline = "/run/load/r"\nspread = true\n'
BUSY = "--thp never --write-share 0 --pause-ms 100"
"""numad looks at processes of 300 MB and half a CPU and more."""


@dataclass(frozen=True)
class Case:
    """Workers that stray, and how many nodes each needs."""

    title: str
    workers: Mapping[str, str]
    """Options of the load generator, by name."""
    nodes: int = 1
    policy: str = ""
    apart: bool = False
    """Whether they are replicas that are to be on distinct nodes."""


CASES = (
    Case(
        "eight workers, too large for one node",
        {f"w{i}": f"--size 360MiB --memory-nodes 0,1 {BUSY}" for i in range(8)},
    ),
    Case(
        "two replicas on one node, to be apart",
        {f"r{i}": f"--size 360MiB --memory-nodes 1 {BUSY}" for i in range(2)},
        policy=SPREAD,
        apart=True,
    ),
    Case(
        "3 GiB on two far nodes of 2.5 GiB",
        {"big": f"--size 3GiB --memory-nodes 0,2 --threads 2 {BUSY}"},
        nodes=2,
    ),
)


@dataclass(frozen=True)
class Settled:
    """How a case ended."""

    seconds: float | None
    """Until each worker's threads were bound to its memory's nodes; None: not in time."""
    distance: float
    """Mean over the workers: how far it is from where a worker may run to where its memory is."""
    nodes: Mapping[str, frozenset[int]]
    """Where each may run."""

    def words(self, case: Case) -> str:
        """Say it in a note."""
        told = f"not within {WITHIN_S} s" if self.seconds is None else f"{self.seconds:.0f} s"
        if case.apart:
            told += ", apart" if len(set(self.nodes.values())) == len(self.nodes) else ", together"
        return told


def rows() -> Iterator[Row]:
    """Let each settle each case."""
    with guests() as fleet:
        guest = fleet.get(GUEST)
        warm_up(guest)
        where = f"{GUEST}, Linux {guest.out('uname -r').strip()}"
        for case in CASES:
            ours = settled(guest, case, _numad_py)
            theirs = settled(guest, case, _numad)
            note = (
                f"mean distance from where they may run to where their memory is, at the end; 10 is"
                f" local; settled: ours {ours.words(case)}; theirs, {COMMAND}: {theirs.words(case)}"
            )
            figures = (Figure.of([ours.distance]), Figure.of([theirs.distance]))
            yield Row("settling", case.title, *figures, note=note, where=where)


Placer = Callable[[Machine, Case], Callable[[], None]]
"""Starts what places the workers; returns what ends it."""


def settled(guest: Machine, case: Case, placer: Placer) -> Settled:
    """Start a case's workers and what places them; wait until they are settled."""
    workers = Workers(guest)
    try:
        for name, options in case.workers.items():
            workers.start(name, options)
        workers.wait_ready()
        end_it = placer(guest, case)
        try:
            return _watched(guest, workers, case)
        finally:
            end_it()
    finally:
        workers.stop()


def _watched(guest: Machine, workers: Workers, case: Case) -> Settled:
    began, seconds = time.monotonic(), None
    while True:
        bytes_on = workers.residencies(*workers.pids)
        cpus_of = workers.masks(*workers.pids)
        share_on = {name: _run_shares(guest, masks.values()) for name, masks in cpus_of.items()}
        now_s = time.monotonic() - began
        if all(_is_settled(share_on[name], bytes_on[name], case) for name in workers.pids):
            seconds = now_s
        if seconds is not None or now_s > WITHIN_S:
            break
        time.sleep(1)
    distances = [_distance(guest, share_on[name], bytes_on[name]) for name in workers.pids]
    nodes = {name: frozenset(shares) for name, shares in share_on.items()}
    return Settled(seconds, statistics.mean(distances), nodes)


def _run_shares(guest: Machine, masks: Collection[list[int]]) -> dict[int, float]:
    """Return the share of a worker's time by node, were each thread to use its CPUs alike."""
    per_node = guest.topology.cpus // len(guest.topology.nodes)
    shares: dict[int, float] = {}
    for mask in masks:
        for cpu in mask:
            node = cpu // per_node
            shares[node] = shares.get(node, 0.0) + 1 / len(mask) / len(masks)
    return shares


def _is_settled(runs_on: Mapping[int, float], bytes_on: Mapping[int, int], case: Case) -> bool:
    at_home = sum(bytes_on.get(node, 0) for node in runs_on)
    return len(runs_on) <= case.nodes and at_home >= SETTLED_SHARE * sum(bytes_on.values())


def _distance(guest: Machine, runs_on: Mapping[int, float], bytes_on: Mapping[int, int]) -> float:
    known = guest.topology.distances
    total = sum(bytes_on.values())
    return sum(
        share
        * (size / total)
        * (
            LOCAL_DISTANCE
            if here == there
            else known.get((min(here, there), max(here, there)), REMOTE_DISTANCE)
        )
        for here, share in runs_on.items()
        for there, size in bytes_on.items()
    )


def _numad_py(guest: Machine, case: Case) -> Callable[[], None]:
    service = Service(guest)
    if case.policy:
        service.configure(case.policy)
    service.start()

    def end() -> None:
        service.stop()
        guest.run(f"rm -f {DROP_IN}")

    return end


def _numad(guest: Machine, _case: Case) -> Callable[[], None]:
    return Numad(guest).stop
