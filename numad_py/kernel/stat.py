"""/proc/PID/stat and /proc/PID/task/TID/stat (proc(5))."""

from __future__ import annotations

import os
from typing import NamedTuple

from numad_py.errors import Malformed

PF_KTHREAD = 0x00200000
"""Flag of kernel threads in field 9 of stat (include/linux/sched.h)."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
"""Unit of RSS in field 24."""
_FIELDS_AFTER_COMM = 37
"""A stat line has at least field 39, the last CPU; comm is field 2."""


class Stat(NamedTuple):
    """What /proc/PID/stat says (proc(5)); a tuple takes less than half of a dataclass's time."""

    comm: str
    state: str
    ppid: int
    flags: int
    start_ticks: int
    """Clock ticks since boot."""
    utime_ticks: int
    stime_ticks: int
    num_threads: int
    last_cpu: int
    resident_bytes: int
    """RSS, without hugetlb."""

    @property
    def kernel_thread(self) -> bool:
        """Whether it is one: it runs no program, and never will.

        Helpers that an older kernel starts have the flag, too, for the moment until they exec
        (begin_new_exec, fs/exec.c).
        """
        return bool(self.flags & PF_KTHREAD)

    @property
    def cpu_ticks(self) -> int:
        """CPU time since it began, user and system, in clock ticks."""
        return self.utime_ticks + self.stime_ticks


def parse_stat(text: str) -> Stat:
    """Return the fields of a stat line; comm may hold blanks and parentheses.

    Raises:
        Malformed: the line is cut short or not a stat line.
    """
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 1 :].split()
    if opening < 0 or closing < opening or len(fields) < _FIELDS_AFTER_COMM:
        msg = f"not a stat line: {text[:80]!r}"
        raise Malformed(msg)
    try:
        return Stat(
            comm=text[opening + 1 : closing],
            state=fields[0],
            ppid=int(fields[1]),
            flags=int(fields[6]),
            start_ticks=int(fields[19]),
            utime_ticks=int(fields[11]),
            stime_ticks=int(fields[12]),
            num_threads=int(fields[17]),
            last_cpu=int(fields[36]),
            resident_bytes=int(fields[21]) * PAGE_BYTES,
        )
    except ValueError as error:
        msg = f"not a number in a stat line: {error}"
        raise Malformed(msg) from None
