"""Kernel settings that numad-py may change: the only writes to /proc/sys and /sys."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from numad_py.errors import Malformed, NumadError, RightsError, Vanished
from numad_py.kernel.files import Files

AUTONUMA = "kernel.numa_balancing"
BALANCES = 1
"""The bit of kernel.numa_balancing that samples and moves pages (NUMA_BALANCING_NORMAL,
include/linux/sched/sysctl.h); the next one only demotes to slower tiers of memory."""
_NODES = "devices/system/node"
_NUMBER = "nr_hugepages"
_ADVICE = (
    "or let the service do it: see systemd/numad-py-settings.conf (numad-py(8), KERNEL SETTINGS)"
)


@dataclass(frozen=True)
class PoolCounts:
    """The pool of hugetlb pages of one size on one node, in pages."""

    total: int
    """Persistent and surplus ones (``nr_hugepages_show_common``, mm/hugetlb.c)."""
    free: int
    surplus: int
    """Those that go back to the node's memory as soon as they are free."""

    @property
    def persistent(self) -> int:
        """What writing to ``nr_hugepages`` sets (``set_max_huge_pages``, mm/hugetlb.c)."""
        return self.total - self.surplus


class Settings:
    """Reads and writes the settings of one machine; what is absent reads as None."""

    def __init__(self, procfs: str | Path = "/proc", sysfs: str | Path = "/sys") -> None:
        """Work below these roots."""
        self._procfs = _Tree(procfs)
        self._sysctl = _Tree(Path(procfs, "sys"))
        self._sysfs = _Tree(sysfs)
        self._largest_block_bytes: int | None = None

    def autonuma(self) -> int | None:
        """Return kernel.numa_balancing; None where this kernel has none.

        Raises:
            Malformed: it holds no number.
        """
        return self._sysctl.number(AUTONUMA.replace(".", "/"))

    def set_autonuma(self, value: int) -> None:
        """Set kernel.numa_balancing.

        That takes root, whatever the capabilities (``test_perm``, fs/proc/proc_sysctl.c), and
        CAP_SYS_ADMIN (``sysctl_numa_balancing``, kernel/sched/core.c).

        Raises:
            RightsError: one of them is missing, or the service sees /proc/sys read-only.
            NumadError: it cannot be set for another reason.
        """
        self._sysctl.put(
            AUTONUMA.replace(".", "/"),
            value,
            what=f"{AUTONUMA} to {value}: that takes root and CAP_SYS_ADMIN",
            by_hand=f"sysctl {AUTONUMA}={value}",
        )

    def largest_block_bytes(self) -> int:
        """Return the largest block of free memory that the kernel keeps; 0 where it is not known.

        Huge pages up to that size it can make for a move (``hstate_is_gigantic``,
        include/linux/hugetlb.h). /proc/buddyinfo has a column for each power of two pages
        (``frag_show_print``, mm/vmstat.c).
        """
        if self._largest_block_bytes is None:
            _, _, counts = self._procfs.text("buddyinfo").partition("\n")[0].partition(" zone ")
            orders = len(counts.split()) - 1
            largest = os.sysconf("SC_PAGE_SIZE") << (orders - 1) if orders > 0 else 0
            self._largest_block_bytes = largest
        return self._largest_block_bytes

    def pool_file(self, node: int, page_bytes: int) -> Path:
        """Return the file that says how many huge pages of a size a node has."""
        return self._sysfs.root / _pool(node, page_bytes) / _NUMBER

    def pool(self, node: int, page_bytes: int) -> PoolCounts | None:
        """Return the pool of huge pages of a size on a node; None where there is none."""
        folder = _pool(node, page_bytes)
        files = (_NUMBER, "free_hugepages", "surplus_hugepages")
        try:
            counts = [self._sysfs.number(f"{folder}/{name}") for name in files]
        except Malformed:
            return None
        total, free, surplus = counts
        return None if total is None or free is None else PoolCounts(total, free, surplus or 0)

    def set_pool(self, node: int, page_bytes: int, pages: int) -> None:
        """Set how many persistent pages a pool has; the kernel makes as many of them as it can.

        Where it is to have fewer, free ones go, and as many of the others as it takes become
        surplus: they go when they are free. That takes no capability but the right to write the
        file, which is root's (``nr_hugepages_store``, mm/hugetlb.c).

        Raises:
            RightsError: the file may not be written.
            NumadError: it cannot be set for another reason.
        """
        self._sysfs.put(
            f"{_pool(node, page_bytes)}/{_NUMBER}",
            pages,
            what=f"how many huge pages of {page_bytes >> 10} kB node {node} has: that takes root",
            by_hand=f"echo {pages} > {self.pool_file(node, page_bytes)}",
        )


class _Tree(Files):
    """Files that are small."""

    def text(self, path: str) -> str:
        try:
            return self._read(path)
        except NumadError:
            return ""

    def number(self, path: str) -> int | None:
        try:
            text = self._read(path).strip()
        except Vanished:
            return None
        if not text.isdecimal():
            msg = f"{self.root / path} holds no number: {text[:40]!r}"
            raise Malformed(msg)
        return int(text)

    def put(self, path: str, value: int, *, what: str, by_hand: str) -> None:
        full = self.root / path
        try:
            # Without O_CREAT and O_TRUNC: an absent file is not to be made.
            descriptor = os.open(full, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{value}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                read_only = error.errno == errno.EROFS
                why = f" ({full} is read-only for this service)" if read_only else ""
                msg = f"no right to set {what}{why}. By hand: {by_hand}; {_ADVICE}"
                raise RightsError(msg) from None
            if error.errno == errno.ENOENT:
                msg = f"{full} is gone"
                raise Vanished(msg) from None
            msg = f"{full} cannot be set to {value}: {error.strerror}"
            raise NumadError(msg) from None


def _pool(node: int, page_bytes: int) -> str:
    return f"{_NODES}/node{node}/hugepages/hugepages-{page_bytes >> 10}kB"
