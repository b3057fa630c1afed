"""Page cache of model files far from their workers: what of it is told of, and whose it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from numad_py.act.cached import look
from numad_py.cli import stray_cache
from numad_py.cli.stray_cache import Stray, stray_caches
from numad_py.kernel.pagecache import WINDOW_BYTES, CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls

MIB = 1 << 20
SIZE = 24 * MIB
"""Of the file, all of it cached, on this machine's nodes."""
FAR = 1 << 9
"""A node that holds nothing of it."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a file that is cached."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * SIZE)
    return path


@pytest.fixture
def pid(model: Path) -> Iterator[int]:
    """Run a process that names the file, and has read it rather than mapped."""
    code = "import sys; open(sys.argv[1], 'rb').read(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def lies(model: Path) -> dict[int, int]:
    """Return where the file is cached."""
    with CachedFile(model) as file:
        return dict(look(file, Syscalls()).by_node)


def status(pid: int, *homes: int | None, segments: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return what a daemon says of workers with these homes, all of them this process."""
    workers = [
        {"worker": f"w/{i}", "pid": pid, "home": None if home is None else {"nodes": [home]}}
        for i, home in enumerate(homes)
    ]
    return {"workers": workers, "segments": list(segments)}


def strays(status_: dict[str, Any], least_bytes: int = MIB) -> list[Stray]:
    """Return what is found; nothing may be barred."""
    found, barred = stray_caches(status_, ProcFs(), Syscalls(), least_bytes)
    assert not barred
    return found


def test_a_file_that_was_read_elsewhere_is_told_of_with_its_workers(model: Path, pid: int) -> None:
    """Each file once, by the name that its worker gives it."""
    found = strays(status(pid, FAR, FAR))
    assert found == [Stray(str(model), ("w/0", "w/1"), frozenset({FAR}), lies(model))]


def test_a_file_is_at_home_with_any_of_its_workers(model: Path, pid: int) -> None:
    """Two workers of two nodes share one copy: it cannot be with both. No home, no word."""
    (node,) = lies(model)
    assert strays(status(pid, node)) == []
    assert strays(status(pid, FAR, node)) == []
    assert strays(status(pid, None)) == []
    assert strays(status(pid, FAR), SIZE + MIB) == []


def test_what_a_worker_maps_is_its_memory(model: Path, pid: int) -> None:
    """It is told of, and moved, with the worker; found by number, or by path among its users."""
    (node,) = lies(model)
    found = model.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    mapped = {"path": "x", "device": device, "inode": found.st_ino, "users": []}
    by_path = {"path": str(model), "device": "00:2b", "inode": 7, "users": ["w/0"]}
    others = {**by_path, "users": ["v/0"]}
    for segment, left in ((mapped, 4 * MIB), (by_path, 4 * MIB), (others, SIZE)):
        shown = {**segment, "bytes_by_node": {str(node): SIZE - 4 * MIB}}
        (stray,) = strays(status(pid, FAR, segments=(shown,)))
        assert stray.away_bytes == {node: left}


def test_a_large_file_is_looked_at_in_parts(
    model: Path, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the parts hold stands for the whole: the same answer for a tenth of the time."""
    with model.open("ab") as file:
        for _ in range(7):
            file.write(b"x" * (WINDOW_BYTES // 2))
    monkeypatch.setattr(stray_cache, "MOST_WINDOWS", 2)
    with CachedFile(model) as opened:
        assert len(list(opened.windows(2))) == 2
    (stray,) = strays(status(pid, FAR))
    assert sum(stray.away_bytes.values()) == pytest.approx(model.stat().st_size, rel=0.01)


def test_who_has_ended_is_left_out(model: Path, pid: int) -> None:
    """And so is a file that is gone by now."""
    assert strays(status((1 << 22) + 1, FAR)) == []
    model.unlink()
    assert strays(status(pid, FAR)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_without_the_right_nothing_is_told_but_that(model: Path, pid: int) -> None:
    """Another user's file would look as if all of it were cached."""
    model.chmod(0o600)
    os.seteuid(65534)
    try:
        found = stray_caches(status(pid, FAR), ProcFs(), Syscalls(), MIB)
    finally:
        os.seteuid(0)
    assert found == ([], True)
