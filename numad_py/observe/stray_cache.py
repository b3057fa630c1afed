"""Model files that are cached far from the workers that use them.

Weights that were read into a GPU, or first by a process of another node, lie in the page cache of
the node where they were read: they take its room, and who reads them next has them far away. A file
that a worker maps is left out: there it is that worker's memory, told of and moved with it; and
whoever maps it as well, be it to ask where it lies, makes it look shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from numad_py.errors import NumadError, RightsError
from numad_py.kernel.pagecache import CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.observe.in_time import in_time
from numad_py.observe.model_files import ModelFile, model_files
from numad_py.observe.page_cache import Lies, glimpse

MOST_FILES = 64
"""So many are looked at, the largest: some seconds."""


@dataclass(frozen=True)
class Resident:
    """A worker, and where it is at home."""

    label: str
    pid: int
    home: frozenset[int]
    """Nodes; empty: it has none."""


@dataclass(frozen=True)
class Stray:
    """A file with page cache on nodes where none of its workers is at home."""

    file: ModelFile
    workers: tuple[str, ...]
    """Labels of those that name it."""
    homes: frozenset[int]
    """Their home nodes."""
    away_bytes: Mapping[int, int]
    """By node."""
    error_bytes: int
    """How far off that may be in all, 95 times in 100; 0: every page was asked for."""


@dataclass
class StraysSeen:
    """What a look found."""

    strays: list[Stray] = field(default_factory=list)
    """Most bytes first."""
    looked_at: int = 0
    """Files."""
    left_out: int = 0
    """Files beyond MOST_FILES."""
    barred: bool = False
    """Whether something could not be looked at for want of a right."""
    problems: list[str] = field(default_factory=list)
    """Why other files could not be."""
    unanswered: str | None = None
    """At what the look ended because no answer came."""


@dataclass
class _Used:
    """A file, and who works with it."""

    file: ModelFile
    mapped: bool = False
    workers: list[str] = field(default_factory=list)
    homes: set[int] = field(default_factory=set)


def stray_caches(
    workers: Iterable[Resident], procfs: ProcFs, syscalls: Syscalls, least_bytes: int
) -> StraysSeen:
    """Return the model files that are cached away from home by so much, as far as that is sure.

    Args:
        workers: all of them: a file is left out where one of them maps it, or has no home.
        procfs: their processes.
        syscalls: ask where pages are.
        least_bytes: less is not worth a word.
    """
    seen = StraysSeen()
    used = _used(workers, procfs, seen)
    used.sort(key=lambda one: one.file.size_bytes, reverse=True)
    seen.left_out = len(used[MOST_FILES:])
    for one in used[:MOST_FILES]:
        try:
            lies = in_time(partial(_glimpse, one.file, syscalls))
        except RightsError:
            seen.barred = True
            continue
        except TimeoutError as error:
            seen.unanswered = f"{one.file.path}: {error}"
            break
        except (NumadError, OSError) as error:
            seen.problems.append(str(error))
            continue
        seen.looked_at += 1
        away = {node: size for node, size in lies.by_node.items() if node not in one.homes and size}
        error_bytes = lies.error_bytes(away)
        if sum(away.values()) - error_bytes >= least_bytes:
            homes = frozenset(one.homes)
            seen.strays.append(Stray(one.file, tuple(one.workers), homes, away, error_bytes))
    seen.strays.sort(key=lambda stray: -sum(stray.away_bytes.values()))
    return seen


def _glimpse(file: ModelFile, syscalls: Syscalls) -> Lies:
    with CachedFile(file.path, file.root) as opened:
        return glimpse(opened, syscalls)


def _used(workers: Iterable[Resident], procfs: ProcFs, seen: StraysSeen) -> list[_Used]:
    """Return the files that workers name and none maps, each once.

    None where those of a worker are not told: it may map any of them, or be at home where they are.
    """
    files: dict[tuple[int, int], _Used] = {}
    homeless: set[tuple[int, int]] = set()
    for worker in workers:
        try:
            of_worker = in_time(partial(model_files, procfs, worker.pid))
        except RightsError:
            seen.barred = True
            return []
        except TimeoutError as error:
            seen.unanswered = f"what {worker.label} maps and names: {error}"
            return []
        except NumadError:
            # It has ended.
            continue
        for file in of_worker:
            used = files.setdefault(file.id, _Used(file))
            used.mapped |= file.mapped
            used.workers.append(worker.label)
            used.homes |= worker.home
            if not worker.home:
                homeless.add(file.id)
    return [one for key, one in files.items() if not one.mapped and key not in homeless]
