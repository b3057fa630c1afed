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
    executed; so are shared segments.

    Raises:
        Vanished: it ended.
        RightsError: its maps may not be read, or its root not be opened.
    """
    areas = [area for area in parse_maps(procfs.maps(pid)) if area.segment is not None]
    code = {area.path for area in areas if "x" in area.permissions}
    weights = [area.path for area in areas if file_kind(area.path) is Kind.FILE]
    mapped = [path for path in dict.fromkeys(weights) if path not in code]
    root = procfs.root / str(pid) / "root"
    files: dict[tuple[int, int], ModelFile] = {}
    try:
        with InRoot(root) as inside:
            named = [each for path in _named(procfs, pid) for each in _files(inside, path)]
            for path in (*mapped, *named):
                found = _stat(inside, path)
                if found and stat.S_ISREG(found.st_mode) and found.st_size >= LEAST_BYTES:
                    key = found.st_dev, found.st_ino
                    file = ModelFile(Path(path), root, key, found.st_size, path in mapped)
                    files.setdefault(key, file)
    except PermissionError:
        msg = f"no right to open the root of process {pid}; run it as root"
        raise RightsError(msg) from None
    except OSError:
        # It ends just now: procfs says so of the next file that is read.
        procfs.maps(pid)
    return tuple(files.values())


def _named(procfs: ProcFs, pid: int) -> Iterator[str]:
    """Yield what may be a path of its arguments: a word, or what stands behind a ``=``."""
    folder = "/"
    with contextlib.suppress(OSError):
        folder = str((procfs.root / str(pid) / "cwd").readlink())
    for word in procfs.program(pid).cmdline[1:]:
        for text in {word, word.partition("=")[2]}:
            if "/" in text or "." in text:
                yield os.path.normpath(os.path.join(folder, text))  # noqa: PTH118 - of another root


def _files(inside: InRoot, path: str) -> Iterator[str]:
    """Yield a file, or the weights of a folder."""
    found = _stat(inside, path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        yield path
        return
    with contextlib.suppress(OSError), _opened(inside, path, os.O_RDONLY) as folder:
        listed = os.listdir(folder)  # noqa: PTH208 - by descriptor
        names = sorted(name for name in listed if Path(name).suffix in SUFFIXES)
        yield from (f"{path}/{name}" for name in names)


def _stat(inside: InRoot, path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError), _opened(inside, path, os.O_PATH) as descriptor:
        return os.fstat(descriptor)
    return None


@contextlib.contextmanager
def _opened(inside: InRoot, path: str, flags: int) -> Iterator[int]:
    descriptor = inside.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
