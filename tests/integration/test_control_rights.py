"""Who may ask over the control socket: real peers with other users' ids."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from numad_py.serve import control
from numad_py.serve.control import ControlServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

NOBODY = 65534
STRANGER = 54321
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or "python3"
"""The system's: a virtual environment may lie where others cannot go."""
CLIENT = """\
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
try:
    client.sendall(b'{"verb": "status"}\\n')
except BrokenPipeError:
    pass  # refused before it was read
print(client.makefile().readline())
"""


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """Listen where anybody may connect, so that it is the peer's ids that decide."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = ControlServer(Path(folder) / "control.sock", lambda verb, _arguments: verb)
        server.start()
        server.path.chmod(0o666)
        yield server.path
        server.stop()


def reply_to(path: Path, uid: int, gid: int, groups: list[int]) -> dict[str, Any]:
    """Ask as another user and return the reply."""
    asked = subprocess.run(
        [PYTHON, "-I", "-c", CLIENT, str(path)],
        user=uid,
        group=gid,
        extra_groups=groups,
        cwd="/",
        capture_output=True,
        check=True,
        timeout=30,
    )
    reply: dict[str, Any] = json.loads(asked.stdout)
    return reply


def test_a_stranger_is_refused_with_what_would_help(path: Path) -> None:
    """Neither root nor in the group: 77, and how to get into the group."""
    reply = reply_to(path, NOBODY, STRANGER, [])
    assert (reply["ok"], reply["kind"], reply["exit"]) == (False, "RightsError", 77)
    assert "as root: usermod -aG numad-py NAME" in reply["error"]


@pytest.mark.parametrize(("gid", "groups"), [(NOBODY, []), (STRANGER, [1, NOBODY, 2])])
def test_members_of_the_group_may_ask(
    path: Path, monkeypatch: pytest.MonkeyPatch, gid: int, groups: list[int]
) -> None:
    """By their own group or by a supplementary one; the group here is one that every host has."""
    monkeypatch.setattr(control, "GROUP", grp.getgrgid(NOBODY).gr_name)
    assert reply_to(path, NOBODY, gid, groups) == {"ok": True, "result": "status"}


def test_who_is_in_other_groups_only_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's own id is what counts, not being in some group."""
    monkeypatch.setattr(control, "GROUP", grp.getgrgid(NOBODY).gr_name)
    assert reply_to(path, NOBODY, STRANGER, [1, 2])["kind"] == "RightsError"


def test_root_may_ask(path: Path) -> None:
    """Whatever its groups."""
    assert reply_to(path, 0, STRANGER, [])["ok"] is True
