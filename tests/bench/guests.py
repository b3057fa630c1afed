"""The guests of a subject, or why there are none here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.bench.table import NotHere
from tests.guest.fleet import Fleet
from tests.guest.image import GuestError, check_tools
from tests.guest.machine import Machine

LEFT_BYTES = 256 << 20
"""Of a node's free memory so much is not touched: what warms it up needs some."""


@contextlib.contextmanager
def guests() -> Iterator[Fleet]:
    """Hand out guests by name, one at a time; they end with the block.

    Raises:
        NotHere: there are to be none, or a tool that makes them is missing.
    """
    if os.environ.get("NUMAD_PY_NO_GUEST"):
        why = "NUMAD_PY_NO_GUEST is set"
        raise NotHere(why)
    try:
        check_tools()
    except GuestError as error:
        raise NotHere(str(error)) from None
    with contextlib.closing(Fleet()) as fleet:
        yield fleet


def warm_up(guest: Machine) -> None:
    """Touch each node's free memory once.

    What the host has not handed out yet costs it a fault at the first touch, and some hosts much
    more; else whoever moves first into a node pays for that, and not the one after.
    """
    folder = "/run/warm"
    for node in range(len(guest.topology.nodes)):
        meminfo = guest.out(f"cat /sys/devices/system/node/node{node}/meminfo")
        free = int(meminfo.partition("MemFree:")[2].split()[0]) * 1024 - LEFT_BYTES
        if free > 0:
            guest.run(
                f"mkdir -p {folder} && mount -t tmpfs -o mpol=bind:{node},size={free} warm {folder}"
                f" && head -c {free} /dev/zero >{folder}/touched; umount {folder}",
                timeout=120,
            )
