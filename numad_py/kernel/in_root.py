"""Opening files as another process has them: below its root, with its symbolic links."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType

_OPENAT2 = 437
"""On every architecture (include/uapi/asm-generic/unistd.h); since Linux 5.6."""
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    """``struct open_how`` (include/uapi/linux/openat2.h)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class InRoot:
    """A folder that is taken for the root: no link and no ``..`` leads out of it.

    By path alone, ``/proc/PID/root/model`` would follow a link to ``/srv/x`` into this process's
    own root: to another file, or to one that the other process may not see.
    """

    def __init__(self, root: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be; of /proc/PID/root without CAP_SYS_PTRACE.
        """
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> InRoot:  # noqa: PYI034 - Self is newer than Python 3.10
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._root)

    def open(self, path: str | Path, flags: int) -> int:
        """Return a descriptor of what a path names there; close it.

        Raises:
            OSError: as of open(2); ENOSYS on a kernel before 5.6.
        """
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        descriptor = int(
            self._syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(self._root),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            why = os.strerror(number)
            if number == errno.ENOSYS:
                why = "this needs Linux 5.6 or later (openat2)"
            raise OSError(number, why, str(path))
        return descriptor
