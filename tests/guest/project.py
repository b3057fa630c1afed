"""The project inside a guest: built as a wheel, installed by its own installer."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.guest.image import GuestError, say
from tests.guest.machine import Machine

ROOT = Path(__file__).parents[2]


@functools.cache
def build() -> tuple[Path, Path]:
    """Return the wheel and the load generator, built once a session."""
    out = Path(tempfile.mkdtemp(prefix="numad-py-build-"))
    say("building the wheel and the load generator")
    for command in (
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT),
        ],
        [
            *("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o"),
            *(str(out / "numaload"), str(ROOT / "tests/load/numaload.c")),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            msg = f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
            raise GuestError(msg)
    (wheel,) = out.glob("*.whl")
    return wheel, out / "numaload"


def install(guest: Machine) -> None:
    """Install the wheel, the unit and the policy, and put the load generator under three names.

    ``llama-server`` is a name that the shipped policy knows, ``otherd`` is none.
    """
    wheel, load = build()
    for name in ("systemd", "config", "packaging"):
        guest.put(ROOT / name, f"/opt/numad-py/{name}")
    guest.put(wheel, f"/opt/numad-py/{wheel.name}")
    guest.put(load, "/opt/load/numaload")
    guest.run(
        f"cd /opt/numad-py && sh packaging/install.sh ./{wheel.name} && cd /opt/load && "
        "ln -f numaload llama-server && ln -f numaload otherd && chmod 755 /opt/load/*",
        timeout=180,
    )
