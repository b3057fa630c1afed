"""File systems whose server has gone: looking at model files does not wait for them for ever."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.observe import stray_cache
from numad_py.observe.in_time import in_time
from numad_py.observe.model_files import ModelFile
from numad_py.observe.stray_cache import stray_caches
from tests.unit.test_stray_cache import FAR, MIB, READS, SIZE, as_root, at_home, process

MNT_DETACH = 2


@contextlib.contextmanager
def silent(folder: Path) -> Iterator[None]:
    """Mount a file system (FUSE) of which nobody answers a call."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"silent", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"FUSE cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        # Whoever waits for an answer is let go by that.
        os.close(device)
        libc.umount2(os.fsencode(folder), MNT_DETACH)


@as_root
@pytest.mark.parametrize("what", ["model_files", "_glimpse"])
def test_a_file_system_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One whose server has gone: the look ends there, and judges no file by half of its workers."""
    monkeypatch.setattr(stray_cache, "in_time", partial(in_time, limit_s=5.0))
    folder = tmp_path / "gone"
    folder.mkdir()
    model = tmp_path / "model.gguf"
    model.write_bytes(b"x" * SIZE)
    names = str(folder / "model.gguf")
    with silent(folder), process(READS, str(model)) as pid, process("", names) as hangs:
        workers = at_home(pid, FAR)
        if what == "model_files":
            workers += at_home(hangs, FAR)
        else:
            gone = ModelFile(folder / "model.gguf", None, (1, 2), SIZE)
            monkeypatch.setattr(stray_cache, "model_files", lambda *_: (gone,))
        found = stray_caches(workers, ProcFs(), Syscalls(), MIB)
        assert (found.strays, found.looked_at, found.problems) == ([], 0, [])
        assert found.unanswered is not None
        assert found.unanswered.endswith(": no answer within 5 s")


def test_what_comes_back_in_time_is_handed_on() -> None:
    """A value as well as an error; who takes longer is left behind."""
    assert in_time(lambda: 7) == 7
    with pytest.raises(NumadError, match="no"):
        in_time(_fails)
    go = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        in_time(go.wait, 0.01)
    go.set()


def _fails() -> None:
    msg = "no"
    raise NumadError(msg)
