"""How fast move_pages(2) is while the worker whose pages move runs, and while it does not.

usage: python3 -m tests.guest.shootdowns --load FILE [options]        a JSON object a move

Starts workers as measure_moves.py does, and moves the first one's memory to and fro while all are
stopped (SIGSTOP), while only it is, while only the others are, and while all run. A page that moves
is unmapped first, and each CPU on which a thread of its process runs is interrupted to forget where
it was, and waited for: page by page on Linux 6.1, and once for many pages on 6.12
(try_to_migrate_one, mm/rmap.c; try_to_unmap_flush in migrate_pages_batch, mm/migrate.c).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numad_py.act.pages import THP_BASE_BYTES, THP_BYTES, Pages
from numad_py.kernel.syscalls import Syscalls
from tests.guest import measure_moves
from tests.guest.measure_moves import Worker, nodes_of, scene, start_workers

CALL_BYTES = 16 << 20
"""Moved by one call."""
LIMIT_S = 15.0
"""So long one move is tried."""
REST_S = 0.5
WHOLE = 0.99
"""Of its memory is to be on one node before the next move."""
STOPPED = ("all", "it", "the others", "none")


def shootdowns() -> int:
    """Return how many CPUs have been interrupted for one so far, whoever's the pages were.

    As /proc/interrupts counts them (arch_show_interrupts, arch/x86/kernel/irq.c).

    Raises:
        SystemExit: this machine does not count them: it is no x86 one.
    """
    for line in Path("/proc/interrupts").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "TLB":
            return sum(int(word) for word in counts.split() if word.isdigit())
    sys.exit("/proc/interrupts has no line TLB: TLB shootdowns are not counted here")


def stopped_of(who: str, workers: Sequence[Worker]) -> list[Worker]:
    """Return the workers that one of STOPPED means."""
    first, *others = workers
    return {"all": [first, *others], "it": [first], "the others": others, "none": []}[who]


def move(worker: Worker, target: int, thp: str) -> dict[str, Any]:
    """Move its memory, call by call, and return how that went."""
    pages = worker.pages
    if thp == "always":
        pages = Pages(pages, array("i"), THP_BASE_BYTES).block_heads()
    at, longest_s, syscalls = 0, 0.0, Syscalls()
    step = CALL_BYTES // (THP_BYTES if thp == "always" else THP_BASE_BYTES)
    there, before, began_s = on(target, worker), shootdowns(), time.monotonic()
    while at < len(pages) and time.monotonic() - began_s < LIMIT_S:
        some = pages[at : at + step]
        call_s = time.monotonic()
        syscalls.move_pages(worker.pid, some, array("i", [target]) * len(some))
        longest_s = max(longest_s, time.monotonic() - call_s)
        at += step
    ended_s, after = time.monotonic(), shootdowns()
    return {
        "seconds": ended_s - began_s,
        "moved_bytes": (on(target, worker) - there) * THP_BASE_BYTES,
        "shootdowns": after - before,
        "longest_call_s": longest_s,
    }


def on(node: int, worker: Worker) -> int:
    """Return how many of its pages are there."""
    return nodes_of(worker.pid, worker.pages).count(node)


def moves(workers: Sequence[Worker], thp: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield each move as it has ended; the next one begins where all of it is on one node."""
    worker = workers[0]
    there = worker.home
    for _ in range(rounds):
        for who in STOPPED:
            stopped = stopped_of(who, workers)
            for each in stopped:
                os.kill(each.pid, signal.SIGSTOP)
            time.sleep(REST_S)
            found = move(worker, there, thp)
            for each in workers:
                os.kill(each.pid, signal.SIGSTOP)
            move(worker, there, "never")
            if on(there, worker) < WHOLE * len(worker.pages):
                sys.exit(f"not all of it could be moved to node {there}")
            for each in workers:
                os.kill(each.pid, signal.SIGCONT)
            time.sleep(REST_S)
            yield {"stopped": who, **found}
            there = worker.away if there == worker.home else worker.home


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--load", type=Path, required=True)
    parser.add_argument("--size", action="append", required=True, help="of one worker")
    parser.add_argument("--thp", choices=["never", "always"], default="never")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause-ms", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    measure_moves.BALANCING.write_text("0")
    with scene() as (workers, folder):
        start_workers(options, folder, workers)
        for found in moves(workers, options.thp, options.rounds):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
