"""/proc/stat: how busy each CPU was, and how many processes were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numad_py.errors import Malformed

_BUSY = (1, 2, 3, 6, 7, 8)
"""Words of a line ``cpuN`` that count as busy: user, nice, system, irq, softirq and steal. The
others are idle and iowait, and guest and guest_nice, which user and nice hold already."""


@dataclass(frozen=True)
class MachineStat:
    """What all processes together did since boot."""

    forks: int
    """Processes and threads made since boot (``total_forks``, kernel/fork.c)."""
    busy_ticks: Mapping[int, int]
    """Clock ticks in which a CPU was not idle, by its id; offline ones are absent."""


def parse_machine_stat(text: str) -> MachineStat:
    """Return the figures of a /proc/stat (``show_stat``, fs/proc/stat.c).

    Lines ``cpuN`` of another form are left out.

    Raises:
        Malformed: it does not say how many processes were made.
    """
    busy_ticks = {}
    # The CPUs come first; the line of the interrupts may be longer than all others together.
    for line in text.partition("\nintr ")[0].split("\n"):
        if line.startswith("cpu"):
            words = line.split()
            try:
                busy_ticks[int(words[0][3:])] = sum([int(words[i]) for i in _BUSY])
            except (ValueError, IndexError):
                continue
    forks, newline, _ = text.partition("\nprocesses ")[2].partition("\n")
    if not newline or not forks.isdecimal():
        msg = f"stat does not say how many processes were made: {text[:80]!r}"
        raise Malformed(msg)
    return MachineStat(int(forks), busy_ticks)
