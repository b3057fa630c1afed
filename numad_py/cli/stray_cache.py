"""Which workers' model files have page cache far from home, that no worker maps; for ``doctor``.

Weights that were read into a GPU, or by a process of another node, lie in the page cache of the
node where they were read first: they take its room, and who reads or maps them next has them far
away. What a worker maps is its memory, and is told of and moved with it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numad_py.act.cached import look
from numad_py.errors import NumadError, RightsError
from numad_py.kernel.pagecache import CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.observe.model_files import ModelFile, model_files

MOST_WINDOWS = 16
"""Parts of 64 MiB that are looked at of a file: a tenth of a second, however large it is."""


@dataclass(frozen=True)
class Stray:
    """A file with page cache on nodes where none of its workers is at home."""

    path: str
    workers: tuple[str, ...]
    """Labels of those that map or name it."""
    homes: frozenset[int]
    """Their home nodes."""
    away_bytes: Mapping[int, int]
    """By node, as far as no worker maps it; of a large file estimated."""


@dataclass
class _Used:
    """A file, and who works with it."""

    file: ModelFile
    key: tuple[str, int]
    """Device and inode, as status has them."""
    workers: list[str] = field(default_factory=list)
    homes: set[int] = field(default_factory=set)


def stray_caches(
    status: Mapping[str, Any], procfs: ProcFs, syscalls: Syscalls, least_bytes: int
) -> tuple[list[Stray], bool]:
    """Return the files with so much page cache away from home, largest first.

    Args:
        status: a daemon's; it knows the workers, their homes, and what they have mapped.
        procfs: the machine's processes.
        syscalls: ask where pages are.
        least_bytes: less is not worth a word.

    Returns:
        The files, and whether some could not be looked at for want of a right.
    """
    files, barred = _used(status["workers"], procfs)
    found = []
    for used in files:
        try:
            with CachedFile(used.file.reached_at) as file:
                cached = Counter(look(file, syscalls, MOST_WINDOWS).by_node)
        except RightsError:
            barred = True
            continue
        except (NumadError, OSError):
            continue
        cached.subtract(_mapped(status["segments"], used))
        away = {n: size for n, size in sorted(cached.items()) if n not in used.homes and size > 0}
        if sum(away.values()) >= least_bytes:
            path = str(used.file.path)
            found.append(Stray(path, tuple(used.workers), frozenset(used.homes), away))
    return sorted(found, key=lambda stray: -sum(stray.away_bytes.values())), barred


def _used(workers: Iterable[Mapping[str, Any]], procfs: ProcFs) -> tuple[Iterable[_Used], bool]:
    """Return the files of all workers with a home, each once; and whether a right is missing."""
    files: dict[tuple[str, int], _Used] = {}
    barred = False
    for worker in workers:
        if not worker["home"]:
            continue
        try:
            of_worker = model_files(procfs, worker["pid"])
        except RightsError:
            barred = True
            continue
        except NumadError:
            continue
        for file in of_worker:
            with contextlib.suppress(OSError):
                stat = file.reached_at.stat()
                key = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}", stat.st_ino
                used = files.setdefault(key, _Used(file, key))
                used.workers.append(worker["worker"])
                used.homes.update(worker["home"]["nodes"])
    return files.values(), barred


def _mapped(segments: Iterable[Mapping[str, Any]], used: _Used) -> dict[int, int]:
    """Return what workers have mapped of a file, by node.

    By path where the numbers differ: file systems may show maps another device than stat.
    """
    for segment in segments:
        same = (segment["device"], segment["inode"]) == used.key
        if same or (segment["path"] == str(used.file.path) and _shared(segment, used)):
            return {int(node): size for node, size in segment["bytes_by_node"].items()}
    return {}


def _shared(segment: Mapping[str, Any], used: _Used) -> bool:
    return not set(used.workers).isdisjoint(segment["users"])
