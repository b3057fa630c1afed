"""Which capabilities this process has (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from numad_py.errors import RightsError

BITS = {"CAP_SYS_PTRACE": 19, "CAP_SYS_NICE": 23}
"""Bit numbers in CapEff of /proc/self/status (include/uapi/linux/capability.h)."""
USES = {
    "CAP_SYS_PTRACE": "to read numa_maps and move pages of other users' processes",
    "CAP_SYS_NICE": "to set the affinity of other users' threads and move pages that several map",
}


def effective_capabilities() -> frozenset[str]:
    """Return those of the capabilities we care for that are in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            bits = int(value, 16)
            return frozenset(name for name, bit in BITS.items() if bits >> bit & 1)
    return frozenset()


def require(needed: Iterable[str]) -> None:
    """Raise RightsError that names what is missing, what for, and how to get it."""
    missing = [name for name in needed if name not in effective_capabilities()]
    if missing:
        wants = "; ".join(f"{name} is missing, needed {USES[name]}" for name in missing)
        msg = f"{wants}. Start numad-py.service, which has just these, or run as root"
        raise RightsError(msg)
