"""A worker with one huge page of 1 GiB; runs alone inside a guest, standard library only.

usage: gigantic.py CPUS READY        it is touched from these CPUs, "2,3", and may run on all later
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

MAP_HUGETLB = 0x40000
MAP_HUGE_1GB = 30 << 26
"""Both from include/uapi/asm-generic/hugetlb_encode.h and mman-common.h."""
SIZE = 1 << 30


def main() -> None:
    """Touch it, say so, and stay."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB
    memory = mmap.mmap(-1, SIZE, flags=flags)
    memory[0] = 1
    os.sched_setaffinity(0, everywhere)
    Path(sys.argv[2]).write_text(f"{os.getpid()}\n")
    while True:
        time.sleep(1)
        memory[0] ^= 1


if __name__ == "__main__":
    main()
