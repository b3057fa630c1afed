"""The undo journal: which affinity each thread had before numad-py narrowed it.

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from numad_py.errors import NumadError
from numad_py.model.cpulist import format_list, parse_list
from numad_py.model.snapshot import WorkerId

log = structlog.get_logger(__name__)

NAME = "journal.jsonl"
_MOST_PIDS = 1 << 22
"""PID_MAX_LIMIT (include/linux/threads.h)."""
_COMPACT_ABOVE = 1000
"""Records after which the file is written anew with what still holds."""


@dataclass(frozen=True)
class ThreadMasks:
    """One thread's mask before, and the mask that numad-py set."""

    start_ticks: int
    before: frozenset[int]
    ours: frozenset[int]


@dataclass(frozen=True)
class Entry:
    """All that is to be undone for one worker."""

    worker: WorkerId
    label: str
    decision: str
    threads: Mapping[int, ThreadMasks] = field(default_factory=dict)
    earlier: frozenset[frozenset[int]] = frozenset()
    """Masks set before these; a thread may still have one where binding anew was cut short."""

    @property
    def set_masks(self) -> frozenset[frozenset[int]]:
        """Every mask that numad-py has set on a thread of this worker."""
        return self.earlier | {masks.ours for masks in self.threads.values()}

    @property
    def first_mask(self) -> frozenset[int]:
        """The worker's own mask: that of the main thread, else of all together."""
        main = self.threads.get(self.worker.pid)
        if main is not None:
            return main.before
        return frozenset().union(*(masks.before for masks in self.threads.values()))

    def inherited(self, mask: frozenset[int]) -> frozenset[int]:
        """Return the first mask for a thread born since, which has one of ours from its creator.

        Its creator's, where all that have this mask had the same one before; else the worker's.
        """
        before = {masks.before for masks in self.threads.values() if masks.ours == mask}
        return before.pop() if len(before) == 1 else self.first_mask


class Journal:
    """The journal of one state directory; one process may hold it at a time."""

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
            self._entries = read(self._path, boot_id, keep_bad=True)
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
        return tuple(self._entries[worker] for worker in sorted(self._entries))

    def entry(self, worker: WorkerId) -> Entry | None:
        """Return a worker's entry."""
        return self._entries.get(worker)

    def put(self, entry: Entry) -> None:
        """Write an entry and sync it; what the worker has already is kept where it is older.

        Raises:
            NumadError: it could not be written; then nothing may be changed.
        """
        known = self._entries.get(entry.worker)
        if known is not None:
            # The first mask is the user's, unless it has set another since; a look that does not
            # know the journal would see ours.
            threads = {
                tid: replace(masks, before=old.before)
                if (old := known.threads.get(tid))
                and old.start_ticks == masks.start_ticks
                and masks.before in known.set_masks
                else masks
                for tid, masks in entry.threads.items()
            }
            entry = replace(
                entry, threads={**known.threads, **threads}, earlier=known.set_masks | entry.earlier
            )
        self._append(_record(entry, self._boot_id))
        self._entries[entry.worker] = entry

    def forget(self, worker: WorkerId) -> None:
        """Drop a worker's entry: it is undone, or the worker ended."""
        if worker not in self._entries:
            return
        self._append({"v": 1, "forget": [worker.pid, worker.start_ticks]})
        del self._entries[worker]

    def forget_all(self, workers: Iterable[WorkerId]) -> None:
        """Drop entries and write the journal anew, once for all of them.

        Raises:
            NumadError: it could not be written; it then still holds what is undone already, and
                undoing that again does no harm.
        """
        for worker in workers:
            self._entries.pop(worker, None)
        with _explained(self._path):
            self._compact()

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._records >= max(_COMPACT_ABOVE, 2 * len(self._entries)):
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

    def _compact(self) -> None:
        """Write what holds to a new file and put it in the old one's place."""
        lines = [
            json.dumps(_record(entry, self._boot_id), separators=(",", ":"))
            for entry in self.entries()
        ]
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(_open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            _hand_over(file.fileno(), self._folder)
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._records = len(lines)


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
    """Return what a journal holds for this boot.

    A last line without its newline is a write that was cut off, before its change was made. Any
    other line that cannot be parsed is left out; whoever goes on to write the journal anew keeps it
    aside in ``journal.bad``, since it may name a mask.
    """
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, errors="replace") as file:
        text = file.read()
    entries: dict[WorkerId, Entry] = {}
    lines = text.split("\n")
    if lines[-1]:
        log.warning("journal: last record cut short, its change was not made", file=str(path))
    for line in lines[:-1]:
        try:
            record = json.loads(line)
            if "forget" in record:
                entries.pop(WorkerId(*record["forget"]), None)
            elif record["boot_id"] == boot_id:
                entry = _entry(record)
                entries[entry.worker] = entry
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            log.warning("journal: a record cannot be parsed", record=line[:200])
            if keep_bad:
                _keep_aside(path.with_suffix(".bad"), line)
    return entries


def _keep_aside(path: Path, line: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(descriptor, "a") as bad:
            _hand_over(descriptor, path.parent)
            bad.write(line + "\n")


def _record(entry: Entry, boot_id: str) -> dict[str, Any]:
    return {
        "v": 1,
        "boot_id": boot_id,
        "pid": entry.worker.pid,
        "start_ticks": entry.worker.start_ticks,
        "label": entry.label,
        "decision": entry.decision,
        "threads": {
            str(tid): [masks.start_ticks, format_list(masks.before), format_list(masks.ours)]
            for tid, masks in entry.threads.items()
        },
        "earlier": sorted(format_list(mask) for mask in entry.earlier),
    }


def _entry(record: Mapping[str, Any]) -> Entry:
    if record["v"] != 1 or not 0 < record["pid"] <= _MOST_PIDS:
        msg = "not a record of this version"
        raise ValueError(msg)
    return Entry(
        worker=WorkerId(int(record["pid"]), int(record["start_ticks"])),
        label=str(record["label"]),
        decision=str(record["decision"]),
        threads={
            int(tid): ThreadMasks(int(start), parse_list(before), parse_list(ours))
            for tid, (start, before, ours) in record["threads"].items()
        },
        earlier=frozenset(parse_list(mask) for mask in record.get("earlier", ())),
    )


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
