"""The project inside a guest: built as a wheel, installed by its own installer."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.guest.image import GuestError, say
from tests.guest.machine import Machine

ROOT = Path(__file__).parents[2]


@functools.cache
def _scratch() -> Path:
    """Return a folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="numad-py-build-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def build_wheel() -> Path:
    """Return the wheel, built once a session."""
    _say("building the wheel")
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation"], "--outdir", _scratch(), ROOT)
    (wheel,) = _scratch().glob("*.whl")
    return wheel


@functools.cache
def build_load() -> Path:
    """Return the load generator, built once a session: static, so that any release runs it."""
    return _compile("numaload")


@functools.cache
def build_crowd() -> Path:
    """Return the program that makes idle processes, built in the same way."""
    return _compile("crowd")


def _compile(name: str) -> Path:
    program = _scratch() / name
    _say(f"building {name}")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    _run(["gcc", *flags, "-o"], program, ROOT / f"tests/load/{name}.c")
    return program


def _say(text: str) -> None:
    """Show progress of what is built here, and not in a guest."""
    print(text, file=sys.stderr, flush=True)


def _run(command: list[str], *more: str | Path) -> None:
    words = [*command, *map(str, more)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        msg = f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}"
        raise GuestError(msg)


def install(guest: Machine) -> None:
    """Install the wheel, the unit and the policy, and put the load generator under three names.

    ``llama-server`` is a name that the shipped policy knows, ``otherd`` is none.
    """
    wheel, load = build_wheel(), build_load()
    say(f"installing numad-py in {guest.name} (half a minute)")
    for name in ("systemd", "config", "packaging"):
        guest.put(ROOT / name, f"/opt/numad-py/{name}")
    guest.put(wheel, f"/opt/numad-py/{wheel.name}")
    guest.put(load, "/opt/load/numaload")
    guest.put(ROOT / "tests/guest/probe.py", "/opt/load/probe.py")
    guest.run(
        f"cd /opt/numad-py && sh packaging/install.sh ./{wheel.name} && cd /opt/load && "
        "ln -f numaload llama-server && ln -f numaload otherd && chmod 755 /opt/load/*",
        timeout=180,
    )
