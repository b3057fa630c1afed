"""The one way data flows, read from the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import numad_py

ROOT = Path(numad_py.__file__).parent
MAY = {
    "model": {"model", "errors"},
    "policy": {"model", "policy", "errors"},
    "kernel": {"model", "kernel", "errors"},
    "observe": {"model", "policy", "kernel", "observe", "errors"},
    "decide": {"model", "policy", "decide"},
    "act": {"model", "policy", "kernel", "act", "errors"},
    "serve": {"model", "policy", "serve", "errors"},
    "replay": {"model", "policy", "decide", "replay", "errors"},
}
IMPURE = {"os", "time", "pathlib", "logging", "structlog", "psutil", "pyudev", "socket", "ctypes"}


def imports(path: Path) -> Iterator[str]:
    """Return the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (alias.name for alias in node.names)
            yield from (f"{node.module}.{name}" for name in names if name != "__version__")


@pytest.mark.parametrize("room", sorted(MAY))
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    """Data goes kernel, observe, decide, act, serve; nobody imports against it."""
    for path in (ROOT / room).rglob("*.py"):
        used = {m.split(".")[1] for m in imports(path) if m.startswith("numad_py.")}
        assert used <= MAY[room], path


@pytest.mark.parametrize("room", ["model", "decide"])
def test_deciding_is_pure(room: str) -> None:
    """Neither model nor decide imports a clock, a file system, a log or a system call."""
    for path in (ROOT / room).rglob("*.py"):
        assert not {m.split(".")[0] for m in imports(path)} & IMPURE, path


@pytest.mark.parametrize("library", ["ctypes", "pwd", "psutil", "pyudev"])
def test_only_the_kernel_room_asks_the_system(library: str) -> None:
    """System calls, users, devices: what other rooms know of the machine they have from there."""
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "kernel":
            assert library not in {m.partition(".")[0] for m in imports(path)}, path


def test_nobody_builds_on_the_command_line() -> None:
    """Verbs parse, call and print: what another module needs of them is in the wrong room."""
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "cli" and path.name != "__main__.py":
            assert not [m for m in imports(path) if m.startswith("numad_py.cli")], path
