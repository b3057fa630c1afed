"""A file's pages in the page cache: where they lie, without reading the file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from numad_py.errors import NumadError, RightsError
from numad_py.kernel.in_root import InRoot

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WINDOW_BYTES = 64 << 20
"""So much of a file is mapped at a time."""
_MADV_POPULATE_READ = 22
"""Since Linux 5.14 (include/uapi/asm-generic/mman-common.h)."""
_HUGETLBFS_MAGIC = 0x958458F6
"""include/uapi/linux/magic.h. To map such a file would reserve huge pages for it."""
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Window:
    """A part of a file, mapped into this process."""

    address: int
    runs: tuple[tuple[int, int], ...]
    """Start and end addresses of stretches of pages that are cached, and mapped here."""
    size_bytes: int


class CachedFile:
    """A regular file whose cached pages can be asked for as pages of this process.

    Only pages that ``mincore`` calls resident are mapped (MADV_POPULATE_READ), which reads nothing
    from the disk; one that is dropped in between is read again.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        """Open it.

        Args:
            path: of the file.
            root: where the path begins, such as another process's; None: where it does here.

        Raises:
            RightsError: it may not be read, or neither owned nor written: ``mincore`` then calls
                every page resident (``can_do_mincore``, mm/mincore.c).
            NumadError: it is absent, or no regular file.
        """
        self.path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            if root is None:
                self._descriptor = os.open(path, flags)
            else:
                with InRoot(root) as rooted:
                    self._descriptor = rooted.open(path, flags)
        except PermissionError:
            msg = f"no right to read {path}; run it as root"
            raise RightsError(msg) from None
        except OSError as error:
            msg = f"{path} cannot be opened: {error.strerror}"
            raise NumadError(msg) from None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._descriptor)
            msg = f"{path} is no regular file"
            raise NumadError(msg)
        if self._file_system() == _HUGETLBFS_MAGIC:
            os.close(self._descriptor)
            msg = f"{path} is in hugetlbfs: its pages are huge pages, and not cached"
            raise NumadError(msg)
        if os.geteuid() not in {0, found.st_uid} and not os.access(self._itself, os.W_OK):
            os.close(self._descriptor)
            msg = f"{path} is another user's: the kernel does not tell what of it is cached; "
            raise RightsError(msg + "run it as root")
        self.size_bytes = found.st_size

    def _file_system(self) -> int:
        """Return the magic number of its file system (fstatfs(2)), 0 where it is not told."""
        told = (ctypes.c_long * 32)()  # f_type comes first; struct statfs has 15 words or fewer
        return told[0] if not self._libc.fstatfs(self._descriptor, told) else 0

    @property
    def _itself(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> CachedFile:  # noqa: PYI034 - Self is newer than Python 3.10
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._descriptor)

    def windows(self) -> Iterator[Window]:
        """Yield the file part by part, each with what of it is cached; it is unmapped afterwards.

        Holes of a sparse file are passed over where whole parts lie in them.

        Raises:
            NumadError: a call failed; on a kernel before 5.14 it is the one that maps cached pages.
        """
        offset = self._data_from(0)
        while offset < self.size_bytes:
            with self.window(offset, WINDOW_BYTES) as window:
                yield window
            offset = self._data_from(offset + WINDOW_BYTES)

    def _data_from(self, offset: int) -> int:
        """Return where the window begins in which there is data next, at or behind an offset."""
        try:
            found = os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: there is none; else the file system cannot tell.
            return self.size_bytes if error.errno == errno.ENXIO else offset
        return max(offset, found // WINDOW_BYTES * WINDOW_BYTES)

    @contextlib.contextmanager
    def window(self, offset: int, most_bytes: int) -> Iterator[Window]:
        """Map a part of the file, of whole pages, for the time of a block.

        Args:
            offset: of its first page, in bytes.
            most_bytes: its length, where the file does not end before.

        Raises:
            NumadError: as of ``windows``.
        """
        size = min(most_bytes, self.size_bytes - offset)
        address = self._map(offset, size)
        try:
            yield Window(address, tuple(self._cached(address, size)), size)
        finally:
            self._libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))

    def _map(self, offset: int, size: int) -> int:
        address = self._libc.mmap(
            ctypes.c_void_p(None),
            ctypes.c_size_t(size),
            ctypes.c_int(mmap.PROT_READ),
            ctypes.c_int(mmap.MAP_SHARED),
            ctypes.c_int(self._descriptor),
            ctypes.c_long(offset),
        )
        if address in {None, _MAP_FAILED}:
            self._fail("mmap")
        # No page counts as used because it was looked at (``vma_has_recency``, since Linux 6.3),
        # and none is read ahead.
        self._libc.madvise(
            ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(mmap.MADV_RANDOM)
        )
        return int(address)

    def _cached(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """Map what is cached, and yield its stretches."""
        pages = -(-size // PAGE_BYTES)
        resident = (ctypes.c_ubyte * pages)()
        if self._libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), resident):
            self._fail("mincore")
        for first, last in _runs(bytes(resident)):
            start, end = address + first * PAGE_BYTES, address + last * PAGE_BYTES
            length = ctypes.c_size_t(end - start)
            advice = ctypes.c_int(_MADV_POPULATE_READ)
            if self._libc.madvise(ctypes.c_void_p(start), length, advice):
                if ctypes.get_errno() in {errno.EFAULT, errno.ENOMEM}:
                    continue  # the file was cut short in between, or memory is: leave it out
                self._fail("madvise")
            yield start, end

    def _fail(self, call: str) -> NoReturn:
        number = ctypes.get_errno()
        why = os.strerror(number)
        if call == "madvise" and number == errno.EINVAL:
            why = "this needs Linux 5.14 or later (MADV_POPULATE_READ)"
        msg = f"{self.path}: {call}: {why}"
        raise NumadError(msg)


def _runs(resident: bytes) -> Iterator[tuple[int, int]]:
    """Yield the first page of each stretch that is resident, and the one behind its last."""
    at = resident.find(1)
    while at >= 0:
        end = resident.find(0, at)
        if end < 0:
            end = len(resident)
        yield at, end
        at = resident.find(1, end)
