"""Files that stay open, read by two threads at once."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from numad_py.errors import Vanished
from numad_py.kernel.files import Files
from numad_py.kernel.procfs import ProcFs
from numad_py.observe.discovery import Discovery
from numad_py.policy.schema import Policy, Rule


def test_a_file_is_not_closed_while_another_thread_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number would go to the next file that is opened, whose text were read in its place."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("the right one")
    (tmp_path / "other").write_text("the wrong one")
    files = ProcFs(tmp_path)
    files.keep_open()
    files._read_often("7/stat")
    opened: list[int] = []

    def close_and_open() -> None:
        files.forget(7)
        opened.append(os.open(tmp_path / "other", os.O_RDONLY))

    other = threading.Thread(target=close_and_open)
    pread = os.pread

    def slowly(descriptor: int, size: int, offset: int) -> bytes:
        if other.ident is None:
            other.start()
            other.join(0.3)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", slowly)
    assert files._read_often("7/stat") == "the right one"
    other.join()
    os.close(opened[0])


def test_a_file_is_opened_once_by_two_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two descriptors one would never be closed."""
    (tmp_path / "stat").write_text("x")
    files = Files(tmp_path)
    files.keep_open()
    opened: list[object] = []
    other = threading.Thread(target=lambda: files._read_often("stat"))
    really = os.open

    def slowly(path: str, flags: int) -> int:
        opened.append(path)
        if other.ident is None:
            other.start()
            other.join(0.3)
        return really(path, flags)

    monkeypatch.setattr(os, "open", slowly)
    files._read_often("stat")
    other.join()
    assert len(opened) == 1


def test_a_file_that_cannot_be_read_is_closed_and_does_not_hang_the_next(tmp_path: Path) -> None:
    """Closing takes the same lock as reading."""
    files = Files(tmp_path)
    files.keep_open()
    (tmp_path / "folder").mkdir()
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(2):
        with pytest.raises(Exception, match="cannot be read"):
            files._read_often("folder")
    with pytest.raises(Vanished):
        files._read_often("absent")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_nothing_stays_open_of_a_worker_that_ends_in_the_middle_of_a_look() -> None:
    """It was read at first and is gone when it is judged again: no later look asks for it."""
    policy = Policy(rules=(Rule("s", "test:1", cmdline=(re.compile(r"^sleep 1000\.0317$"),)),))
    procfs = ProcFs()
    procfs.keep_open()
    discovery = Discovery(procfs, policy)
    with subprocess.Popen(["sleep", "1000.0317"]) as worker:
        stat = Path(f"/proc/{worker.pid}/stat")
        discovery.look(1.0)
        discovery.look(2.0)
        assert stat in open_files()
        discovery.use(policy)
        calls = 0

        def between() -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                worker.kill()
                worker.wait()

        assert discovery.look(3.0, between=between).workers == ()
        assert stat not in open_files()


def open_files() -> set[Path]:
    """Return what this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(descriptor.readlink())
    return found
