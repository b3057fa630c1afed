"""What is said where a process's memory cannot be held."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from numad_py.errors import Malformed, NumadError, RightsError, Vanished
from numad_py.kernel.held import HeldMemory
from numad_py.kernel.procfs import ProcFs


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, Vanished),
        (errno.ESRCH, Vanished),
        (errno.EACCES, RightsError),
        (errno.EPERM, RightsError),
        (errno.EMFILE, Malformed),
    ],
)
def test_it_is_said_as_of_any_file_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[NumadError]
) -> None:
    """Word for word what reading the same file says, and what to do about it."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as held:
        HeldMemory(tmp_path, 7)
    with pytest.raises(kind) as read:
        ProcFs(tmp_path).maps(7)
    assert str(held.value) == str(read.value)
