"""Reading the kernel's files: in one system call or two, with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from numad_py.errors import Malformed, RightsError, Vanished

_AT_ONCE = 64 * 1024
"""Bytes asked for in one read; the kernel's small files fit."""
MOST_KEPT = 256
"""So many files stay open at most, of a service that may have 1,024 (LimitNOFILE)."""


class _Counted:
    """Counts what goes wrong; a class, since a generator's frame costs as much as a small read."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        self._files.vanished += issubclass(kind, Vanished)
        self._files.malformed += issubclass(kind, Malformed)


class Files:
    """Files below a root. One may go between any two reads: Vanished.

    ``vanished`` and ``malformed`` count what went wrong since the reader was made.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Read below ``root``."""
        self.root = Path(root)
        self._prefix = f"{os.fspath(root)}/"
        self.vanished = 0
        self.malformed = 0
        self._counted = _Counted(self)
        self._kept: dict[str, int] | None = None
        """Descriptors that stay open, by path; None: none does."""
        self._lock = threading.Lock()
        """Guards them: closed by one thread while another reads, a descriptor's number would go to
        the next file that is opened, which were read in its place."""

    def keep_open(self) -> None:
        """Let the files that are read in each look stay open from now on.

        Opening and closing one takes longer than reading it. Read at offset 0 the kernel makes its
        text anew (``seq_read_iter``, fs/seq_file.c); of a process that has ended it answers ESRCH,
        also where the pid is another's by then. For the kernel's own files only: an ordinary file
        may be replaced by another of its name.
        """
        self._kept = {}

    def _read_often(self, path: str) -> str:
        """Return the text of a file that is read in each look; raises what ``_read`` does."""
        if self._kept is None:
            return self._read(path)
        full = self._prefix + path
        try:
            with self._lock:
                descriptor = self._kept.get(path)
                if descriptor is None:
                    if len(self._kept) >= MOST_KEPT:
                        return self._read(path)
                    descriptor = self._kept[path] = self._open(full)
                text = os.pread(descriptor, _AT_ONCE, 0)
                while len(text) >= _AT_ONCE and (more := os.pread(descriptor, _AT_ONCE, len(text))):
                    text += more
        except OSError as error:
            self._close(path)
            raise self._translate(error, full) from None
        return text.decode("utf-8", "surrogateescape")

    def _close(self, path: str) -> None:
        """Let a file stay open no longer."""
        if self._kept is None:
            return
        with self._lock:
            if (descriptor := self._kept.pop(path, None)) is not None:
                os.close(descriptor)

    def _read(self, path: str) -> str:
        """Return a file's text.

        Raises:
            Vanished: it is gone (ENOENT, ESRCH).
            RightsError: it may not be read (hidepid, or ptrace's check).
            Malformed: reading failed in another way (EIO, ENOMEM).
        """
        return self._read_bytes(path).decode("utf-8", "surrogateescape")

    def _read_bytes(
        self, path: str, most: int | None = None, between: Callable[[], None] | None = None
    ) -> bytes:
        """Return a file's bytes, as far as ``most`` goes.

        ``between`` is called between two pieces of it; what it raises ends the reading.

        Without pathlib and io, which take longer than the kernel does for a small file.
        """
        full = self._prefix + path
        try:
            descriptor = self._open(full)
            try:
                first = os.read(descriptor, min(_AT_ONCE, most or _AT_ONCE))
                if len(first) == most or not first:
                    return first
                parts = [first]
                got = len(first)
                # The kernel may hand out less than was asked for: only an empty read is the end.
                while most is None or got < most:
                    if between is not None:
                        between()
                    part = os.read(descriptor, min(_AT_ONCE, (most or _AT_ONCE + got) - got))
                    if not part:
                        break
                    parts.append(part)
                    got += len(part)
                return b"".join(parts)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._translate(error, full) from None

    def _open(self, full: str) -> int:
        return os.open(full, os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def _translated(self, path: Path) -> Iterator[Path]:
        """Turn what the kernel answers on using a path into our errors."""
        try:
            yield path
        except OSError as error:
            raise self._translate(error, path) from None

    @staticmethod
    def _translate(error: OSError, path: str | Path) -> Vanished | RightsError | Malformed:
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            return Vanished(f"{path} is gone")
        if error.errno in {errno.EACCES, errno.EPERM}:
            return RightsError(
                f"no right to read {path}: CAP_SYS_PTRACE is missing; run it as root, "
                "or ask the running daemon as a member of the group numad-py"
            )
        return Malformed(f"{path} cannot be read: {error.strerror}")
