"""Which large files a worker works with: those that it maps, and those that its arguments name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from numad_py.kernel.maps import parse_maps
from numad_py.kernel.procfs import ProcFs

LEAST_BYTES = 16 << 20
"""Smaller files are no weights."""
SUFFIXES = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".npz"})
"""Of the weights in a folder that is named."""


@dataclass(frozen=True)
class ModelFile:
    """A file, by the two names that it has."""

    path: Path
    """As the worker itself calls it: below its own root."""
    reached_at: Path
    """Where this process reaches it: ``/proc/PID/root/...``."""


def model_files(procfs: ProcFs, pid: int) -> tuple[ModelFile, ...]:
    """Return the files that a worker maps or names.

    Each once, whatever its names. Programs and libraries are left out: what has an area that may be
    executed.

    Raises:
        Vanished: it ended.
        RightsError: its maps may not be read.
    """
    root = procfs.root / str(pid) / "root"
    areas = [area for area in parse_maps(procfs.maps(pid)) if area.segment is not None]
    code = {area.path for area in areas if "x" in area.permissions}
    paths = [area.path for area in areas if area.path not in code]
    paths += _named(procfs, pid)
    files: dict[tuple[int, int], ModelFile] = {}
    for path in paths:
        for file in _files(root / path.lstrip("/")):
            with contextlib.suppress(OSError):
                found = file.stat()
                if file.is_file() and found.st_size >= LEAST_BYTES:
                    own = Path("/") / file.relative_to(root)
                    files.setdefault((found.st_dev, found.st_ino), ModelFile(own, file))
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


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the weights of a folder."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        else:
            yield path
