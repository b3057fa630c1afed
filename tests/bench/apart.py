"""The inner part of ``native``: runs in mount and PID namespaces of its own.

usage: python -m tests.bench.apart LOAD NUMAD      what both took, as JSON

LOAD is a native.Load as JSON, NUMAD the program. Files are made below $TMPDIR.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numad_py.model.cpulist import parse_list
from numad_py.serve.control import call
from tests.bench.load import crowd, workers
from tests.bench.native import SIZE, Load
from tests.fake_tree import FakeMachine, FakeNode
from tests.guest.numad import COMMAND, INTERVAL_S

NODES = 4
NODE_MIB = 65_536
FREE_MIB = 61_440
READY_WITHIN_S = 60.0
LOG = Path("/var/log/numad.log")
PID_FILE = Path("/var/run/numad.pid")
SOCKET = Path("/var/run/numad-py/control.sock")
CYCLE = (
    "from pathlib import Path; from numad_py.serve.control import call; "
    f"print(call(Path('{SOCKET}'), 'status')['cycle'])"
)
"""Program that prints how often numad-py has cycled."""
POLICY = """\
[daemon]
mode = "observe"
interval = "{interval_s}s"
state_dir = "{folder}/state"
runtime_dir = "{runtime_dir}"
[log]
level = "error"
[metrics]
listen = "127.0.0.1:{port}"
[discovery]
known_servers = {known}
"""


def main() -> None:
    """Measure and print."""
    load, numad = Load(**json.loads(sys.argv[1])), sys.argv[2]
    folder = Path(tempfile.mkdtemp())
    _hide(folder)
    with crowd(load.idle), workers(load.workers, f"--size {SIZE}"), _daemon(folder, load) as daemon:
        subprocess.run([numad, *COMMAND.split()[1:]], check=True, timeout=READY_WITHIN_S)
        time.sleep(load.settle_s)
        ours = _spent(load, str(daemon.pid), f'{sys.executable} -c "{CYCLE}"')
        theirs = _spent(load, PID_FILE.read_text().strip(), f"grep -c 'Processes: ' {LOG}")
        answer = {
            "ours": _windows(load, ours),
            "theirs": _windows(load, theirs),
            "status": call(SOCKET, "status"),
            "seen": [int(count) for count in re.findall(r"Processes: (\d+)", LOG.read_text())],
            "moved": LOG.read_text().count("Advising pid"),
        }
    print(json.dumps(answer))


def _hide(folder: Path) -> None:
    """Lay made nodes over the kernel's, and empty folders over those that numad writes into."""
    cpus = parse_list(Path("/sys/devices/system/cpu/online").read_text())
    nodes = [FakeNode(i, sorted(cpus), NODE_MIB, FREE_MIB) for i in range(NODES)]
    machine = FakeMachine(folder / "made", nodes).write()
    for name in ("log", "run"):
        (folder / name).mkdir()
    for made, place in (
        (machine.sysfs / "devices/system/node", "/sys/devices/system/node"),
        (folder / "log", LOG.parent),
        (folder / "run", PID_FILE.parent),
    ):
        subprocess.run(["mount", "--bind", str(made), str(place)], check=True)


@contextlib.contextmanager
def _daemon(folder: Path, load: Load) -> Iterator[subprocess.Popen[bytes]]:
    """Run numad-py once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    policy = folder / "policy.toml"
    policy.write_text(
        POLICY.format(
            interval_s=INTERVAL_S,
            folder=folder,
            runtime_dir=SOCKET.parent,
            port=port,
            known="true" if load.workers else "false",
        )
    )
    with subprocess.Popen(
        [sys.executable, "-m", "numad_py", "run", "--config", str(policy)]
    ) as daemon:
        try:
            end = time.monotonic() + READY_WITHIN_S
            while not SOCKET.exists():
                if time.monotonic() > end or daemon.poll() is not None:
                    sys.exit("numad-py did not start; see above")
                time.sleep(0.1)
            yield daemon
        finally:
            daemon.kill()


def _spent(load: Load, pid: str, cycles: str) -> subprocess.Popen[str]:
    script = Path(__file__).parent / "spent.py"
    words = [str(script), pid, str(load.window_s), str(load.windows), cycles]
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)


def _windows(load: Load, spent: subprocess.Popen[str]) -> list[dict[str, Any]]:
    text, _ = spent.communicate()
    windows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    if len(windows) != load.windows:
        sys.exit(f"{len(windows)} of {load.windows} windows were measured")
    return windows


if __name__ == "__main__":
    main()
