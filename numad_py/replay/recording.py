"""Recordings: a header, then one cycle a line, as JSON; packed by gzip where the name ends in .gz.

Every line is whole in the file before the next is begun, so that a recording that was broken off
can be read up to where it ends.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from numad_py.errors import Malformed, NumadError
from numad_py.model.codec import decode, encode
from numad_py.model.cycle import Cycle
from numad_py.policy.schema import Policy
from numad_py.replay.possible import Seen

MARK = "numad-py recording"
"""The first key of a header; its value is the schema."""
SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""
_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_LINE = 64 << 20
"""No cycle is longer: 256 workers of 48 threads take 1.4 MB."""


class BadFile(NumadError):  # noqa: N818 - names what is wrong
    """A file to be replayed is neither a recording nor the description of a machine, or odd."""


@dataclass(frozen=True)
class Header:
    """What is said once of a recording."""

    version: str
    """Of the numad-py that wrote it."""
    source: str
    """``daemon``: its cycles; ``direct``: looks without one, nothing was done."""
    policy: Policy
    """In force when it began."""
    boot_id: str | None = None


class Recorder:
    """Writes a recording, a cycle at a time."""

    def __init__(self, path: Path, header: Header, *, force: bool = False) -> None:
        """Make the file, for its owner alone, and write the header.

        Raises:
            NumadError: it exists already and is not to be replaced, or cannot be made or written.
        """
        self.path = path
        self.cycles = 0
        self.written_bytes = 0
        self._pack = zlib.compressobj(wbits=31) if path.suffix == ".gz" else None
        self._fd = _create(path, force=force)
        try:
            self._line({MARK: SCHEMA, **encode(header)})
        except NumadError:
            self.close()
            raise

    def write(self, cycle: object) -> None:
        """Write an encoded cycle.

        Raises:
            NumadError: it could not be written whole; what was written before is left as it was.
        """
        self._line(cycle)
        self.cycles += 1

    def close(self) -> None:
        """End the file; one that could not be ended can be read all the same."""
        if self._fd < 0:
            return
        with contextlib.suppress(NumadError):
            if self._pack is not None:
                self._append(self._pack.flush(zlib.Z_FINISH))
        os.close(self._fd)
        self._fd = -1

    def _line(self, document: object) -> None:
        data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        if self._pack is not None:
            data = self._pack.compress(data) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        self._append(data)

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.written_bytes)
            # What the packer has taken in is lost: nothing may follow.
            os.close(self._fd)
            self._fd = -1
            msg = (
                f"{self.path}: {error.strerror}; what was written before can be replayed "
                f"(cycles: {self.cycles})"
            )
            raise NumadError(msg) from None
        self.written_bytes += len(data)


def _create(path: Path, *, force: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        if force and stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    except OSError:
        # Not there, or not ours: making it will say which.
        pass
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        what = "not a regular file" if force else "exists already; --force replaces it"
        msg = f"{path}: {what}"
        raise NumadError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be made: {error.strerror}"
        raise NumadError(msg) from None


class Recording:
    """A recording that is read as it is gone through, once."""

    def __init__(self, path: Path) -> None:
        """Open it and read the header.

        Raises:
            BadFile: there is no such file, or it is no recording that this version can read.
        """
        self.path = path
        self.torn = False
        """Whether its last line was cut off, once that has been reached."""
        self._number = 0
        self._file = open_packed(path)
        try:
            self.header = self._header()
        except NumadError:
            self._file.close()
            raise

    def _header(self) -> Header:
        line = self._next()
        try:
            document = _document(line or b"")
        except Malformed:
            document = None
        if not isinstance(document, dict) or MARK not in document:
            msg = f"{self.path}:1: not the header of a recording"
            raise BadFile(msg)
        if document[MARK] != SCHEMA:
            by = document.get("version")
            msg = f"{self.path}:1: written by a newer numad-py ({by}); update this one"
            raise BadFile(msg)
        try:
            return decode(Header, document)
        except Malformed as error:
            msg = f"{self.path}:1: {error}"
            raise BadFile(msg) from None

    def __iter__(self) -> Iterator[Cycle]:
        """Yield the cycles; the last line may be cut off, and is left out then.

        Raises:
            BadFile: another line is odd, or says what no machine can have shown.
        """
        seen = Seen()
        with self._file:
            while (line := self._next()) is not None:
                try:
                    cycle = decode(Cycle, _document(line))
                except Malformed as error:
                    if not line.endswith(b"\n"):
                        self.torn = True
                        return
                    msg = f"{self.path}:{self._number}: {error}"
                    raise BadFile(msg) from None
                if (said := next(seen.problems(cycle.snapshot), None)) is not None:
                    msg = (
                        f"{self.path}:{self._number}: snapshot.{said}; no machine can have shown "
                        "this. Record anew, or undo what was changed in the file"
                    )
                    raise BadFile(msg)
                yield cycle

    def _next(self) -> bytes | None:
        """Return the next line, its newline included if it has one; None at the end."""
        self._number += 1
        try:
            line = self._file.readline(_LONGEST_LINE)
        except EOFError:
            self.torn = True
            return None
        except (OSError, zlib.error) as error:
            msg = f"{self.path}:{self._number}: cannot be read: {error}"
            raise BadFile(msg) from None
        return line or None


def open_packed(path: Path) -> IO[bytes]:
    """Open a file that may be packed by gzip, whatever its name.

    Raises:
        BadFile: it cannot be opened, or is no file.
    """
    try:
        # Not blocking: a FIFO would be waited for until somebody writes to it.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            msg = f"{path}: not a file"
            raise BadFile(msg)
        packed = file.peek(2)[:2] == _GZIP_MAGIC
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise BadFile(msg) from None
    if not packed:
        return file
    unpacking = gzip.GzipFile(fileobj=file)
    # An attribute of its own: whoever closes it closes the file, too.
    setattr(unpacking, "myfileobj", file)  # noqa: B010 - typed as what it opens itself
    return cast("IO[bytes]", unpacking)


def is_recording(path: Path) -> bool:
    """Say whether a file begins as a recording does; JSON is what its maker will say is odd.

    Raises:
        BadFile: it cannot be read.
    """
    with open_packed(path) as file:
        try:
            return file.read(1) == b"{"
        except (OSError, EOFError, zlib.error) as error:
            msg = f"{path}: cannot be read: {error}"
            raise BadFile(msg) from None


def count_cycles(path: Path) -> int:
    """Return how many cycles a recording holds, without a look at what they say.

    What was cut off at its end, or cannot be read, does not count: who reads it says what is wrong.

    Raises:
        BadFile: it cannot be opened.
    """
    lines = 0
    with open_packed(path) as file, contextlib.suppress(OSError, EOFError, zlib.error):
        while line := file.readline(_LONGEST_LINE):
            lines += line.endswith(b"\n")
    return max(0, lines - 1)


def _document(line: bytes) -> Any:
    """Return what a line says.

    Raises:
        Malformed: it is not JSON.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise Malformed(msg) from None
