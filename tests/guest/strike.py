"""Waits until a move is in its middle and strikes; runs alone in a guest, standard library only.

usage: strike.py PID NODE MIB COMMAND    as soon as so much of the process lies on the node, but not
                                         all of it, the shell runs the command; prints what it says
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.guest.probe import residency

LIMIT_S = 60
LOOK_S = 0.02
LEFT_BYTES = 16 << 20
"""So much at least is to come yet, else it was no middle."""


def main() -> int:
    """Wait, strike, and end as the command did."""
    pid, node, mib, command = sys.argv[1:]
    wanted = int(mib) << 20
    end = time.monotonic() + LIMIT_S
    while (there := (found := residency(pid)).get(int(node), 0)) < wanted:
        if time.monotonic() > end:
            sys.exit(f"only {there >> 20} MiB of process {pid} came to node {node}: {found}")
        time.sleep(LOOK_S)
    left = sum(found.values()) - there
    if left < LEFT_BYTES:
        sys.exit(f"that was no middle: only {left >> 20} MiB of process {pid} are to come")
    return subprocess.run(["/bin/sh", "-c", command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
