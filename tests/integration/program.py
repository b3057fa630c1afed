"""Runs the program on made machines, with a policy that touches no real daemon's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numad_py.cli import main
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon

if TYPE_CHECKING:
    import pytest

MIB = 1 << 20
LLAMA = ("/opt/llama.cpp/llama-server", "-m", "model.gguf")
NONE_AT_ALL = ("--bounding-set=-all", "--inh-caps=-all")
"""Root without capabilities reads only what its mode bits let it, as any user does."""


def policy(folder: Path, text: str = "") -> Path:
    """Write a policy whose state and socket lie in this folder, so that no real one is touched."""
    path = folder / "policy.toml"
    path.write_text(
        f'[daemon]\nstate_dir = "{folder}/state"\nruntime_dir = "{folder}/run"\n'
        f'[log]\nlevel = "error"\n{text}'
    )
    return path


def machine(folder: Path, *others: FakeProcess) -> FakeMachine:
    """Return two nodes with a worker that is to be brought home."""
    worker = FakeProcess(100, LLAMA, anon({1: 512 * MIB}), affinity=(0, 1))
    nodes = [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))]
    return FakeMachine(folder / "tree", nodes, [worker, *others]).write()


def roots(made: FakeMachine) -> list[str]:
    """Return the options that look at a made machine."""
    return ["--procfs", str(made.procfs), "--sysfs", str(made.sysfs)]


def numad_py(*arguments: str, drop: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the program, less some capabilities where we have any."""
    prefix = ["setpriv", *drop] if drop and os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "numad_py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """Return the JSON document that a verb prints."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)
