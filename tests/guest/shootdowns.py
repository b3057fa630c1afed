"""How fast move_pages(2) is while the worker whose pages move runs, and while it does not.

usage: python3 -m tests.guest.shootdowns --load FILE [options]        a JSON object a move

Starts workers as measure_moves.py does, and moves the first one's memory to and fro while all are
stopped (SIGSTOP), while only it is, while only the others are, and while all run. A page that moves
is first unmapped, and each CPU on which a thread of its process runs is interrupted to forget where
it was (try_to_migrate_one, mm/rmap.c; a TLB shootdown), and waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numad_py.act.pages import THP_BYTES
from numad_py.kernel.syscalls import Syscalls
from tests.guest import measure_moves
from tests.guest.measure_moves import Worker, start_workers

PAGE_BYTES = 4096
CALL_BYTES = 16 << 20
"""Moved by one call."""
LIMIT_S = 15.0
"""So long one move is tried."""
REST_S = 0.5
STOPPED = ("all", "it", "the others", "none")


def shootdowns() -> int:
    """Return how many there have been, on all CPUs (arch_show_interrupts, arch/x86/kernel/irq.c).

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
    """Move what is its own, call by call, and return how that went."""
    syscalls, each = Syscalls(), THP_BYTES if thp == "always" else PAGE_BYTES
    pages = worker.pages[:: each // PAGE_BYTES]
    at, step, longest_s = 0, CALL_BYTES // each, 0.0
    before, began_s = shootdowns(), time.monotonic()
    while at < len(pages) and time.monotonic() - began_s < LIMIT_S:
        some = pages[at : at + step]
        call_s = time.monotonic()
        syscalls.move_pages(worker.pid, some, array("i", [target]) * len(some))
        longest_s = max(longest_s, time.monotonic() - call_s)
        at += len(some)
    return {
        "seconds": time.monotonic() - began_s,
        "moved_bytes": at * each,
        "shootdowns": shootdowns() - before,
        "longest_call_s": longest_s,
    }


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
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="moves-") as folder:
        try:
            workers += start_workers(options, Path(folder))
            for found in moves(workers, options.thp, options.rounds):
                print(json.dumps(found), flush=True)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


if __name__ == "__main__":
    main()
