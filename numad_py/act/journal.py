"""The undo journal: which affinity each thread had before numad-py narrowed it, and settings.

One JSON object a line, appended and synced before the change is made. What follows a kill -9 or a
power cut is at worst a last line that is cut short, and that line's change was not made yet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from numad_py.act.journal_records import (
    Change,
    Entry,
    Growth,
    MaskReader,
    ThreadMasks,
    entry_of,
    record_of,
    setting_of,
    setting_record,
)
from numad_py.errors import NumadError
from numad_py.model.snapshot import WorkerId

__all__ = ["NAME", "Change", "Entry", "Growth", "Journal", "ThreadMasks", "read"]

log = structlog.get_logger(__name__)

NAME = "journal.jsonl"
_COMPACT_ABOVE = 1000
"""Records after which the file is written anew with what still holds."""
_COMPACT_ABOVE_BYTES = 1 << 20
_COMPACT_AT_TIMES = 4
"""It is written anew as well where it is so large, and so many times what it was when it was last
written anew: a record may have thousands of threads."""


@dataclass
class Contents:
    """What a journal holds."""

    entries: dict[WorkerId, Entry] = field(default_factory=dict)
    settings: dict[str, Change | Growth] = field(default_factory=dict)
    """By name."""


class Journal:
    """The journal of one state directory; one process may hold it at a time.

    Any thread may write to it.
    """

    def __init__(self, folder: Path, boot_id: str, *, to_undo: bool = False) -> None:
        """Open it, take up what an earlier run left, and write it anew.

        Entries of another boot are dropped: those processes are gone. Who only wants to undo needs
        no room to write: it is done on a full or read-only disk as well.

        Raises:
            NumadError: it cannot be read or written, or another numad-py holds it.
        """
        self._folder = folder
        self._path = folder / NAME
        self._boot_id = boot_id
        self._records = 0
        self._bytes = self._fresh_bytes = 0
        """Size of the file, now and when it was last written anew."""
        self._writing = threading.Lock()
        with _explained(self._path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open_lock(folder, to_undo=to_undo)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            msg = f"another numad-py holds {folder}: is the service running? (numad-py status)"
            raise NumadError(msg) from None
        with _explained(self._path):
            found = read_all(self._path, boot_id, keep_bad=True)
        self._entries, self._settings = found.entries, found.settings
        try:
            with _explained(self._path):
                self._compact()
        except NumadError as error:
            if not to_undo:
                os.close(self._lock)
                raise
            log.warning("journal not written", error=str(error))

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, by worker."""
        # A copy: the mover's thread may forget one in between.
        return tuple(entry for _, entry in sorted(self._entries.copy().items()))

    def entry(self, worker: WorkerId) -> Entry | None:
        """Return a worker's entry."""
        return self._entries.get(worker)

    def put(self, entry: Entry, living: Collection[int] | None = None) -> None:
        """Write an entry and sync it; what the worker has already is kept where it is older.

        Args:
            entry: what is about to be done.
            living: ids of the worker's threads; what is known of others is dropped, unless newer
                threads may have inherited it. None: not known.

        Raises:
            NumadError: it could not be written; then nothing may be changed.
        """
        known = self._entries.get(entry.worker)
        if known is not None:
            entry = known.followed_by(entry, living)
        with self._writing:
            self._append(record_of(entry, self._boot_id))
            self._entries[entry.worker] = entry

    def forget(self, worker: WorkerId) -> None:
        """Drop a worker's entry: it is undone, or the worker ended."""
        with self._writing:
            if worker in self._entries:
                self._append({"v": 1, "forget": [worker.pid, worker.start_ticks]})
                del self._entries[worker]

    def forget_all(self, workers: Iterable[WorkerId]) -> None:
        """Drop entries and write the journal anew, once for all of them.

        Raises:
            NumadError: it could not be written; it then still holds what is undone already, and
                undoing that again does no harm.
        """
        with self._writing:
            for worker in workers:
                self._entries.pop(worker, None)
            with _explained(self._path):
                self._compact()

    def settings(self) -> tuple[Change | Growth, ...]:
        """Return the kernel settings that are to be given back, by name."""
        with self._writing:
            return tuple(self._settings[name] for name in sorted(self._settings))

    def setting(self, name: str) -> Change | Growth | None:
        """Return one of them."""
        return self._settings.get(name)

    def put_setting(self, setting: Change | Growth) -> None:
        """Write a setting and sync it, before it is changed.

        Raises:
            NumadError: it could not be written; then nothing may be changed.
        """
        with self._writing:
            self._append(setting_record(setting, self._boot_id))
            self._settings[setting.name] = setting

    def forget_setting(self, name: str) -> None:
        """Drop a setting: it is given back, or is somebody else's by now.

        Raises:
            NumadError: it could not be written; it is held still, and giving it back once more does
                no harm.
        """
        with self._writing:
            if name in self._settings:
                self._append({"v": 1, "forget_setting": name})
                del self._settings[name]

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)

    def _append(self, record: Mapping[str, Any]) -> None:
        held = len(self._entries) + len(self._settings)
        large = max(_COMPACT_ABOVE_BYTES, _COMPACT_AT_TIMES * self._fresh_bytes)
        if self._records >= max(_COMPACT_ABOVE, 2 * held) or self._bytes >= large:
            with _explained(self._path):
                self._compact()
        data = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        with _explained(self._path):
            descriptor = _open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    if os.write(descriptor, data) != len(data):
                        raise OSError(28, "no space left on device")  # noqa: TRY301
                    os.fsync(descriptor)
                except OSError:
                    # Half a record would swallow the next one.
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
        self._records += 1
        self._bytes += len(data)

    def _compact(self) -> None:
        """Write what holds to a new file and put it in the old one's place."""
        lines = [
            json.dumps(record, separators=(",", ":"))
            for record in (
                *(record_of(entry, self._boot_id) for entry in self.entries()),
                *(setting_record(each, self._boot_id) for each in self._settings.values()),
            )
        ]
        text = "".join(f"{line}\n" for line in lines)
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(_open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            _hand_over(file.fileno(), self._folder)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._records = len(lines)
        self._bytes = self._fresh_bytes = len(text)


def _open(path: Path, flags: int) -> int:
    """Open a file of the state directory.

    The directory belongs to the service, and root works in it too (``numad-py restore``): a link
    that a broken-into service has put there must not lead root to another file.

    Raises:
        OSError: it cannot be opened, or is a link, or no plain file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a link, or no plain file")
    return descriptor


def _open_lock(folder: Path, *, to_undo: bool) -> int:
    try:
        descriptor = _open(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if not to_undo or error.errno not in {errno.EROFS, errno.ENOSPC}:
            raise
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _hand_over(descriptor, folder)
    return descriptor


def _hand_over(descriptor: int, folder: Path) -> None:
    """Give a file that root makes to the owner of its folder.

    Else ``sudo numad-py run --once`` would leave a journal that the service cannot open.
    """
    owner = folder.stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def read(path: Path, boot_id: str, *, keep_bad: bool = False) -> dict[WorkerId, Entry]:
    """Return the workers of which a journal holds something for this boot; see ``read_all``."""
    return read_all(path, boot_id, keep_bad=keep_bad).entries


def read_all(path: Path, boot_id: str, *, keep_bad: bool = False) -> Contents:
    """Return what a journal holds for this boot.

    A last line without its newline is a write that was cut off, before its change was made. Any
    other line that cannot be parsed is left out; whoever goes on to write the journal anew keeps it
    aside in ``journal.bad``, since it may name a mask.

    Raises:
        OSError: it cannot be read.
    """
    found = Contents()
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return found
    with os.fdopen(descriptor, errors="replace") as file:
        text = file.read()
    lines = text.split("\n")
    masks = MaskReader()
    if lines[-1]:
        log.warning("journal: last record cut short, its change was not made", file=str(path))
    for line in lines[:-1]:
        try:
            _take_in(json.loads(line), boot_id, found, masks)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            log.warning("journal: a record cannot be parsed", record=line[:200])
            if keep_bad:
                _keep_aside(path.with_suffix(".bad"), line)
    return found


def _take_in(record: Mapping[str, Any], boot_id: str, found: Contents, masks: MaskReader) -> None:
    """Add one record to what was found before it."""
    if "forget" in record:
        found.entries.pop(WorkerId(*record["forget"]), None)
    elif "forget_setting" in record:
        found.settings.pop(record["forget_setting"], None)
    elif record["boot_id"] == boot_id and "setting" in record:
        setting = setting_of(record)
        found.settings[setting.name] = setting
    elif record["boot_id"] == boot_id:
        entry = entry_of(record, masks)
        found.entries[entry.worker] = entry


def _keep_aside(path: Path, line: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(descriptor, "a") as bad:
            _hand_over(descriptor, path.parent)
            bad.write(line + "\n")


@contextlib.contextmanager
def _explained(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        msg = (
            f"the undo journal {path} cannot be kept: {error.strerror}; nothing is changed without "
            "it. Make room, or set daemon.state_dir to a directory the service may write"
        )
        raise NumadError(msg) from error
