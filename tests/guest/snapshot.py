"""Booted guests kept on disk, so that a guest boots once for each image, topology and QEMU.

A snapshot is a qcow2 overlay of the image's disk that holds the guest's memory as well (savevm).
Each run works on a copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.guest.image import Image, say

NAME = "booted"
_PROMPT = b"(qemu) "


def path_of(image: Image, name: str, command: Sequence[str]) -> Path:
    """Return where the snapshot of a guest started with this command is kept.

    Paths and ports of a run must not be part of the command, else it is never found again.
    """
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    digest = hashlib.sha256(json.dumps([version, *command]).encode()).hexdigest()[:16]
    return image.folder / f"{name}-{digest}.qcow2"


def new_overlay(image: Image, overlay: Path) -> None:
    """Make an empty overlay of an image's disk."""
    _qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(overlay))


def copy(snapshot: Path, overlay: Path) -> None:
    """Make an overlay of a snapshot's content."""
    shutil.copyfile(snapshot, overlay)


def keep(monitor: Path, qemu: subprocess.Popen[bytes], overlay: Path, snapshot: Path) -> None:
    """Keep a running guest as it is now, and end it: only then is its disk whole.

    What cannot be kept is done without: the next run boots again.
    """
    for old in snapshot.parent.glob(f"{snapshot.name.rpartition('-')[0]}-*"):
        old.unlink(missing_ok=True)
    new = snapshot.with_suffix(".new")
    try:
        tell(monitor, "stop")
        tell(monitor, f"savevm {NAME}", timeout_s=300)
        tell(monitor, "quit")
        qemu.wait(timeout=60)
        copy(overlay, new)
        if NAME in _qemu_img("snapshot", "-l", str(new)):
            new.rename(snapshot)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"it could not be kept, the next run boots again: {error}")
        new.unlink(missing_ok=True)
    finally:
        qemu.kill()
        qemu.wait(timeout=30)


def tell(monitor: Path, command: str, timeout_s: float = 30) -> str:
    """Give QEMU's monitor a command and return what it says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(monitor))
        _read_prompt(connection)
        connection.sendall(command.encode() + b"\n")
        if command != "quit":
            return _read_prompt(connection)
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):
                pass
        return ""


def _read_prompt(connection: socket.socket) -> str:
    seen = b""
    while not seen.endswith(_PROMPT):
        part = connection.recv(4096)
        if not part:
            msg = "QEMU's monitor hung up"
            raise OSError(msg)
        seen += part
    return seen.decode(errors="replace")


def _qemu_img(*words: str) -> str:
    if shutil.which("qemu-img") is None:
        msg = "qemu-img is missing"
        raise OSError(msg)
    return subprocess.run(
        ["qemu-img", *words], capture_output=True, text=True, check=True, timeout=300
    ).stdout
