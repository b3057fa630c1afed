"""Ground truth from inside a guest, with nothing of numad-py: runs alone, standard library only.

usage: probe.py residency PID...        {pid: {node: bytes}} of all resident pages
       probe.py masks PID...            {pid: {tid: [cpu, ...]}}
       probe.py wait LIMIT HOMES        until each worker has 99 % of its pages on one of its homes;
                                        HOMES is JSON, {pid: [[node, ...], ...]}
       probe.py watch LIMIT HOMES       the same, and where each is meanwhile, a line a second
       probe.py metrics                 what 127.0.0.1:10465/metrics serves
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

WANTED_SHARE = 0.99
_PAGES = re.compile(r" N(\d+)=(\d+)")
_PAGE_SIZE = re.compile(r" kernelpagesize_kB=(\d+)")


def residency(pid: str) -> dict[int, int]:
    """Return resident bytes by node, of every kind."""
    total: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        size = _PAGE_SIZE.search(line)
        for node, pages in _PAGES.findall(line):
            assert size is not None, line
            total[int(node)] = total.get(int(node), 0) + int(pages) * int(size[1]) * 1024
    return total


def masks(pid: str) -> dict[str, list[int]]:
    """Return the CPUs that each thread may use."""
    tids = sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    return {str(tid): sorted(os.sched_getaffinity(tid)) for tid in tids}


def watch(limit_s: float, homes: dict[str, list[list[int]]]) -> Iterator[dict[str, object]]:
    """Yield how many seconds each worker took to come home (null: not yet) and where it is."""
    began = time.monotonic()
    seconds: dict[str, float | None] = dict.fromkeys(homes)
    found: dict[str, dict[int, int]] = {}
    while True:
        for pid in [pid for pid, at in seconds.items() if at is None]:
            found[pid] = residency(pid)
            share = max(sum(found[pid].get(n, 0) for n in home) for home in homes[pid])
            if share >= WANTED_SHARE * sum(found[pid].values()):
                seconds[pid] = round(time.monotonic() - began, 1)
        yield {"seconds": seconds, "residency": found}
        if None not in seconds.values() or time.monotonic() - began >= limit_s:
            return
        time.sleep(0.5)


def metrics() -> str:
    """Return the exposition."""
    with urllib.request.urlopen("http://127.0.0.1:10465/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def main() -> None:
    """Do what the first word says."""
    verb, *words = sys.argv[1:]
    if verb == "metrics":
        sys.stdout.write(metrics())
    elif verb in {"wait", "watch"}:
        seen: dict[str, object] = {}
        for seen in watch(float(words[0]), json.loads(words[1])):
            if verb == "watch":
                print(json.dumps(seen), flush=True)
        if verb == "wait":
            print(json.dumps(seen))
    else:
        of = {"residency": residency, "masks": masks}[verb]
        print(json.dumps({pid: of(pid) for pid in words}))


if __name__ == "__main__":
    main()
