"""Which large files a worker works with: those that it maps, and those that its arguments name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from numad_py.errors import RightsError
from numad_py.kernel.in_root import InRoot
from numad_py.kernel.maps import parse_maps
from numad_py.kernel.numa_maps import file_kind
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import Kind

LEAST_BYTES = 16 << 20
"""Smaller files are no weights."""
MOST_NAMED = 4096
"""So many paths are looked at of one worker; a model has some hundred files at most."""
SUFFIXES = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".npz"})
"""Of the weights in a folder that is named."""


@dataclass(frozen=True)
class ModelFile:
    """A file as a worker has it."""

    path: Path
    """As the worker itself calls it: below its own root."""
    root: Path | None = None
    """That root, ``/proc/PID/root``; None: this process's own."""
    id: tuple[int, int] = (0, 0)
    """Device and inode, as stat has them."""
    size_bytes: int = 0
    mapped: bool = False
    """Whether the worker maps it, and does not only name it."""


def model_files(procfs: ProcFs, pid: int) -> tuple[ModelFile, ...]:
    """Return the files that a worker maps or names.

    Each once, whatever its names. Programs and libraries are left out: what has an area that may be
    executed; so are shared segments, unless they are named.

    Raises:
        Vanished: it ended.
        RightsError: its maps may not be read, or its root not be opened.
    """
    areas = [area for area in parse_maps(procfs.maps(pid)) if area.segment is not None]
    code = {area.path for area in areas if "x" in area.permissions}
    weights = [area for area in areas if area.path not in code]
    files: dict[tuple[int, int], ModelFile] = {}
    root = procfs.root_of(pid)
    try:
        # Of each file one area is asked.
        one_each = {area.segment: (area.start, area.end) for area in weights}
        mapped = procfs.mapped_files(pid, one_each.values())
        paths = [area.path for area in weights if file_kind(area.path) is Kind.FILE]
        with InRoot(root) as inside:
            for path in dict.fromkeys((*paths, *_named(procfs, pid, inside))):
                found = _stat(inside, path)
                if found and stat.S_ISREG(found.st_mode) and found.st_size >= LEAST_BYTES:
                    key = found.st_dev, found.st_ino
                    is_mapped = path in paths if mapped is None else key in mapped
                    file = ModelFile(Path(path), root, key, found.st_size, is_mapped)
                    files.setdefault(key, file)
    except PermissionError:
        msg = f"no right to open the root of process {pid}; run it as root"
        raise RightsError(msg) from None
    except OSError:
        # It ends just now: procfs says so of the next file that is read.
        procfs.maps(pid)
    return tuple(files.values())


def _named(procfs: ProcFs, pid: int, inside: InRoot) -> Iterator[str]:
    """Yield what may be a path of its arguments: a word, or what stands behind a ``=``.

    A folder is one for the weights in it.
    """
    folder = procfs.working_folder(pid)
    words = procfs.program(pid).cmdline[1:]
    texts = dict.fromkeys(text for word in words for text in (word, word.partition("=")[2]))
    left = MOST_NAMED
    for path in dict.fromkeys(_absolute(folder, text) for text in texts if {*text} & {*"/."}):
        for each in _files(inside, path):
            if (left := left - 1) < 0:
                return
            yield each


def _absolute(folder: str, text: str) -> str:
    # normpath keeps two slashes at the beginning.
    return "/" + os.path.normpath(os.path.join(folder, text)).lstrip("/")  # noqa: PTH118 - of another root


def _files(inside: InRoot, path: str) -> Iterator[str]:
    """Yield a file, or the weights of a folder."""
    found = _stat(inside, path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        yield path
        return
    with contextlib.suppress(OSError):
        names = sorted(name for name in inside.listing(path) if Path(name).suffix in SUFFIXES)
        yield from (f"{path}/{name}" for name in names)


def _stat(inside: InRoot, path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return inside.stat(path)
    return None


def path_here(file: ModelFile) -> Path | None:
    """Return a path without links by which this process reaches a file; None: there is none."""
    if file.root is None:
        return file.path
    with contextlib.suppress(OSError), InRoot(file.root) as inside:
        return inside.path_here(file.path, file.id)
    return None
