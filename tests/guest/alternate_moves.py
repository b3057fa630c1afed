"""Moving one worker to and fro, now by numad-py's mover, now by migrate_pages; in a guest, as root.

usage: python3 -m tests.guest.alternate_moves WAYS --load FILE [options]      a JSON object a move

WAYS is a JSON list of ways that take turns, round by round: null is migrate_pages(2), which is all
that the command migratepages does; an object has fields of MigrationPolicy other than its defaults.
Only moving is timed: no daemon, no start of a program, no look for a home. What is measured of the
worker are its passes while it moves, and in a quiet window before each move.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numad_py.act.mover import Mover
from numad_py.act.tally import Tally
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.plan import Decision, Finding, MemoryMove, Reason, Verdict
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import MigrationPolicy
from tests.guest import measure_moves
from tests.guest.measure_moves import Worker, scene, start_workers
from tests.guest.passes import parse_passes, within
from tests.guest.probe import residency

REST_S = 0.5
"""After each move: what was under way is logged."""


class Timed(Syscalls):
    """The kernel's calls, and how long move_pages(2) itself takes."""

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.moving_s = 0.0

    def move_pages(
        self, pid: int, addresses: array[int], targets: array[int], *, shared: bool = False
    ) -> tuple[int, array[int]]:
        """Move pages, and add how long that took."""
        began_s = time.monotonic()
        try:
            return super().move_pages(pid, addresses, targets, shared=shared)
        finally:
            self.moving_s += time.monotonic() - began_s


def decision(worker: WorkerId, source: int, target: int, size: int) -> Decision:
    """Return what a planner would have decided."""
    finding = Finding(worker, "x/0", None, size, size, 0, None, None)
    return Decision(
        id="1:x/0",
        worker=worker,
        label="x/0",
        rule="x",
        verdict=Verdict.ACT,
        reason=Reason.REMOTE_MEMORY,
        why="",
        finding=finding,
        moves=(MemoryMove(source, target, size),),
    )


def move(
    worker: WorkerId, way: dict[str, Any] | None, source: int, target: int, size: int
) -> dict[str, Any]:
    """Move it, and return how that went."""
    if way is None:
        Syscalls().migrate_pages(worker.pid, {source}, {target})
        return {}
    tally, syscalls = Tally(), Timed()
    mover = Mover(ProcFs(), syscalls, lambda _node, _page_bytes: 1 << 60, threading.Event())
    policy = replace(MigrationPolicy(), **way)
    mover.move(decision(worker, source, target, size), policy, tally)
    return {
        "end": tally.end.value,
        "chunks": tally.chunks,
        "longest_chunk_s": tally.longest_chunk_s,
        "move_pages_s": syscalls.moving_s,
    }


def moves(
    worker: Worker, ways: list[dict[str, Any] | None], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield each move as it has ended. An odd number of moves in a round goes both ways in turn."""
    identity = WorkerId(worker.pid, ProcFs().stat(worker.pid).start_ticks)
    here, there = worker.away, worker.home
    for number in range(options.rounds):
        for way in ways if len(ways) % 2 or number % 2 == 0 else [*ways[1:], ways[0]]:
            quiet_s = time.monotonic()
            time.sleep(options.quiet_s)
            before = residency(str(worker.pid)).get(here, 0)
            own = os.times()
            began_s = time.monotonic()
            said = move(identity, way, here, there, before)
            ended_s = time.monotonic()
            user_s, kernel_s = (now - then for now, then in zip(os.times()[:2], own, strict=False))
            time.sleep(REST_S)
            passes = parse_passes(worker.log.read_text())
            yield {
                "way": way,
                "seconds": ended_s - began_s,
                "user_s": user_s,
                "kernel_s": kernel_s,
                "moved_bytes": before - residency(str(worker.pid)).get(here, 0),
                "quiet": within(passes, quiet_s, began_s),
                "moving": within(passes, began_s, ended_s),
                **said,
            }
            here, there = there, here


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("ways", type=json.loads)
    parser.add_argument("--load", type=Path, required=True)
    parser.add_argument("--size", default="512MiB")
    parser.add_argument("--thp", choices=["never", "always"], default="never")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause-ms", type=int, default=3_600_000, help="an hour: it is idle")
    parser.add_argument("--quiet-s", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.size = [options.size]
    measure_moves.BALANCING.write_text("0")
    with scene() as (workers, folder):
        start_workers(options, folder, workers)
        time.sleep(1)
        for found in moves(workers[0], options.ways, options):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
