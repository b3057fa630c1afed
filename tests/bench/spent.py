"""CPU time of a process over windows that begin and end while it rests; runs alone in a guest.

usage: spent.py PID SECONDS WINDOWS COUNT      a JSON object a window: {cpu_s, seconds, cycles}

COUNT is a shell command that prints how often the process has cycled so far. A window lasts SECONDS
and until the next rest, so that whole cycles are counted. The process's own work for COUNT is done
while nothing is measured; a thread that began for it and ended in the window counts nothing.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

REST_S = 1.0
"""A main thread that has not run for so long rests."""
LOOK_S = 0.1
LIMIT_S = 60.0


def cpu_ns(pid: str) -> dict[str, int]:
    """Return the CPU time of each thread that lives (proc_pid_schedstat, fs/proc/base.c)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found[task.name] = int((task / "schedstat").read_text().split()[0])
    return found


def rest(pid: str) -> None:
    """Wait until the main thread rests; there it has most of its interval before it."""
    path = Path(f"/proc/{pid}/schedstat")
    end = time.monotonic() + LIMIT_S
    before, since, seen_running = path.read_text(), time.monotonic(), False
    while not seen_running or time.monotonic() - since < REST_S:
        if time.monotonic() > end:
            sys.exit(f"process {pid} did not come to rest within {LIMIT_S:.0f} s")
        time.sleep(LOOK_S)
        now = path.read_text()
        if now != before:
            before, since, seen_running = now, time.monotonic(), True


def count(command: str) -> float:
    """Return how often it has cycled."""
    text = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout  # noqa: S602
    return float(text.split()[-1])


def main() -> None:
    """Measure one window after the other."""
    pid, seconds, windows, command = sys.argv[1:]
    rest(pid)
    cycles = count(command)
    for _ in range(int(windows)):
        began_s, before = time.monotonic(), cpu_ns(pid)
        time.sleep(float(seconds))
        rest(pid)
        spent_s = sum(ns - before.get(tid, 0) for tid, ns in cpu_ns(pid).items()) / 1e9
        took_s = time.monotonic() - began_s
        begun_with, cycles = cycles, count(command)
        window = {"cpu_s": spent_s, "seconds": took_s, "cycles": cycles - begun_with}
        print(json.dumps(window), flush=True)


if __name__ == "__main__":
    main()
