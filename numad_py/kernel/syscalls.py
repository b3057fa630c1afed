"""System calls that Python's os module lacks, through ctypes on libc."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
from array import array
from collections.abc import Iterable

from numad_py.errors import Malformed, NumadError, RightsError, Vanished

UNWRITTEN = -(1 << 31)
"""Put into status entries before the call: the kernel leaves those it did not get to unwritten."""
MPOL_MF_MOVE = 1 << 1
"""Move pages mapped by this process alone (include/uapi/linux/mempolicy.h)."""
MPOL_MF_MOVE_ALL = 1 << 2
"""Move pages whoever maps them; needs CAP_SYS_NICE."""
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
"""Of openat2 (include/uapi/linux/openat2.h)."""
_NUMBERS = {
    "x86_64": {"move_pages": 279, "migrate_pages": 256, "openat2": 437},
    "aarch64": {"move_pages": 239, "migrate_pages": 238, "openat2": 437},
}


class _OpenHow(ctypes.Structure):
    """``struct open_how`` (include/uapi/linux/openat2.h)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Syscalls:
    """The calls themselves; no judgement, no pacing.

    OSError carries errno, and the name of the call or the path that it was to open.
    """

    def __init__(self) -> None:
        """Bind ``syscall`` of libc.

        Raises:
            NumadError: on an architecture whose call numbers are not known here.
        """
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None:
            msg = f"no system call numbers for {platform.machine()}; known: {', '.join(_NUMBERS)}"
            raise NumadError(msg)
        self._numbers = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        # Without a restype of long, results and pointers are cut to 32 bits.
        self._syscall.restype = ctypes.c_long

    def move_pages_query(self, pid: int, addresses: array[int]) -> array[int]:
        """Return the node of the page at each address, or a negative errno.

        -ENOENT: not present; -EFAULT: not mapped, or the zero page. Needs CAP_SYS_PTRACE across
        users (mm/migrate.c, find_mm_struct).
        """
        status = array("i", [UNWRITTEN]) * len(addresses)
        self._move_pages(pid, addresses, None, status, 0)
        return status

    def nodes_of(self, pid: int, addresses: array[int]) -> array[int]:
        """Return the same as ``move_pages_query``, with our errors in place of OSError.

        Raises:
            Vanished: the process ended, or has no memory any more (ESRCH; EINVAL for a zombie).
            RightsError: CAP_SYS_PTRACE is missing.
            Malformed: the call failed in another way.
        """
        try:
            return self.move_pages_query(pid, addresses)
        except OSError as error:
            if error.errno in {errno.ESRCH, errno.EINVAL}:
                msg = f"process {pid} is gone"
                raise Vanished(msg) from None
            if error.errno in {errno.EPERM, errno.EACCES}:
                msg = (
                    f"no right to ask for the pages of process {pid}: CAP_SYS_PTRACE is missing; "
                    "run it as root, or ask the running daemon as a member of the group numad-py"
                )
                raise RightsError(msg) from None
            msg = f"the pages of process {pid} cannot be asked for: {error}"
            raise Malformed(msg) from None

    def move_pages(
        self, pid: int, addresses: array[int], targets: array[int], *, shared: bool = False
    ) -> tuple[int, array[int]]:
        """Move pages, mapped by this process alone, each to its target node.

        With ``shared`` those too that others map: EPERM without CAP_SYS_NICE
        (``kernel_move_pages``, mm/migrate.c).

        Returns:
            How many pages a failed batch left over (the rest was not attempted), and each page's
            node or negative errno; UNWRITTEN where the kernel did not get to it.
        """
        status = array("i", [UNWRITTEN]) * len(addresses)
        flags = MPOL_MF_MOVE_ALL if shared else MPOL_MF_MOVE
        left = self._move_pages(pid, addresses, targets, status, flags)
        return left, status

    def _move_pages(
        self,
        pid: int,
        addresses: array[int],
        targets: array[int] | None,
        status: array[int],
        flags: int,
    ) -> int:
        return self._call(
            "move_pages",
            ctypes.c_int(pid),
            ctypes.c_ulong(len(addresses)),
            ctypes.c_void_p(addresses.buffer_info()[0]),
            ctypes.c_void_p(targets.buffer_info()[0] if targets is not None else None),
            ctypes.c_void_p(status.buffer_info()[0]),
            ctypes.c_int(flags),
        )

    def migrate_pages(self, pid: int, sources: Iterable[int], targets: Iterable[int]) -> int:
        """Move a whole process's pages; cannot be interrupted.

        With CAP_SYS_NICE the kernel moves shared pages too (MPOL_MF_MOVE_ALL).

        Returns:
            How many folios were not moved; not a full account on Linux 6.1.
        """
        old, new = sorted(set(sources)), sorted(set(targets))
        bits = max(old + new) + 1
        words = (bits + 63) // 64
        old_mask, new_mask = _mask(old, words), _mask(new, words)
        # The kernel uses one bit less than it is told (get_nodes, mm/mempolicy.c).
        return self._call(
            "migrate_pages",
            ctypes.c_int(pid),
            ctypes.c_ulong(words * 64 + 1),
            ctypes.byref(old_mask),
            ctypes.byref(new_mask),
        )

    def openat2(self, folder: int, path: str | os.PathLike[str], flags: int, resolve: int) -> int:
        """Return a descriptor of what a path names, resolved in a restricted way; close it.

        Args:
            folder: descriptor of the folder where the path begins.
            path: of the file.
            flags: as of open(2).
            resolve: ``RESOLVE_`` flags.

        Raises:
            OSError: as of open(2); ENOSYS on a kernel before 5.6.
        """
        how = _OpenHow(flags, 0, resolve)
        try:
            return self._call(
                "openat2",
                ctypes.c_int(folder),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        except OSError as error:
            number = error.errno or 0
            late = number == errno.ENOSYS
            why = "this needs Linux 5.6 or later (openat2)" if late else os.strerror(number)
            raise OSError(number, why, os.fspath(path)) from None

    def _call(self, name: str, *arguments: object) -> int:
        result = int(self._syscall(ctypes.c_long(self._numbers[name]), *arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return result

    @staticmethod
    def sched_setaffinity(tid: int, cpus: Iterable[int]) -> frozenset[int]:
        """Set a thread's mask and read it back: the kernel intersects it with the cpuset."""
        os.sched_setaffinity(tid, cpus)
        return frozenset(os.sched_getaffinity(tid))

    @staticmethod
    def pidfd_open(pid: int) -> int:
        """Return a descriptor that stands for this very process; close it."""
        return os.pidfd_open(pid)

    @staticmethod
    def pidfd_alive(descriptor: int) -> bool:
        """Say whether the process has not ended: a pidfd turns readable when it does."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return not poll.poll(0)


def _mask(nodes: list[int], words: int) -> ctypes.Array[ctypes.c_uint64]:
    mask = (ctypes.c_uint64 * words)()
    for node in nodes:
        mask[node // 64] |= 1 << (node % 64)
    return mask
