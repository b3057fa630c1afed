"""The demo on this machine itself, with a worker of its own and a policy that knows no other."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from numad_py.kernel.sysfs import SysFs
from numad_py.model.topology import Node, Topology
from tests.demo import show
from tests.demo.show import Live, Shown, title
from tests.guest import probe

SIZE = "512MiB"
LIMIT_S = 90
PORT = 10466
"""Beside the service's own, which may be running."""
POLICY = """\
[daemon]
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
interval = "1s"
[metrics]
listen = "127.0.0.1:{port}"
[log]
format = "json"
[discovery]
known_servers = false
[[rule]]
name = "demo"
exe = '^{load}$'
"""


def possible() -> Topology | None:
    """Return the topology where there are two nodes with CPUs and memory, else None."""
    topology = SysFs().topology()
    return topology if len(usable(topology)) > 1 else None


def usable(topology: Topology) -> list[Node]:
    """Return the nodes on which a worker can be."""
    allowed = os.sched_getaffinity(0)
    return [node for node in topology.nodes if node.has_memory and node.cpus & allowed]


def demo(topology: Topology, load: Path) -> int:
    """Start a stray worker, bring it home, show it; return the exit code: 0 when it came home."""
    home, away = usable(topology)[:2]
    if os.geteuid() != 0:
        print("the daemon needs root on this machine: sudo make demo", file=sys.stderr)
        return 77
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="numad-py-demo-")))
        story = f"pinned by its user to node {home.id}, memory on node {away.id}"
        title(f"Starting a worker of {SIZE}: {story}")
        options = {
            "--size": SIZE,
            "--memory-nodes": str(away.id),
            "--cpus": str(min(home.cpus & os.sched_getaffinity(0))),
            "--ready": str(folder / "ready"),
        }
        words = [word for option in options.items() for word in option]
        worker = stack.enter_context(_running([str(load), *words]))
        ready = folder / "ready"
        if not _wait_until(lambda: ready.exists() and bool(ready.read_text()), 120):
            print("the worker does not get ready: is there room on the node?", file=sys.stderr)
            return 1
        policy = folder / "policy.toml"
        policy.write_text(POLICY.format(folder=folder, port=PORT, load=load.resolve()))
        title(f"{sys.executable} -m numad_py run --config {policy}")
        print(policy.read_text())
        log = stack.enter_context((folder / "log").open("wb"))
        stack.enter_context(
            _running([sys.executable, "-m", "numad_py", "run", "--config", str(policy)], log)
        )
        came_home = _watch(Shown("demo", str(worker.pid), story, [[home.id]]))
        _wait_until(lambda: '"event": "move ' in (folder / "log").read_text(), 20)
        title("Its decisions")
        show.decisions((folder / "log").read_text().splitlines())
        title(f"Some of what Prometheus scrapes (127.0.0.1:{PORT}/metrics)")
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=20) as answer:
            show.metrics(answer.read().decode())
    print("\nthe worker is home" if came_home else f"\nit is not home after {LIMIT_S} s")
    return 0 if came_home else 1


def _watch(worker: Shown) -> bool:
    """Show the worker until it is home; say whether it is."""
    live, home = Live([worker]), False
    homes = {worker.pid: [list(nodes) for nodes in worker.homes]}
    for seen in probe.watch(LIMIT_S, homes):
        document = json.loads(json.dumps(seen))
        live.draw(document)
        home = document["seconds"][worker.pid] is not None
    return home


@contextlib.contextmanager
def _running(command: list[str], log: object = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the time of a block; it ends with the block, however that ends."""
    errors = log if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _wait_until(done: Callable[[], bool], limit_s: float) -> bool:
    """Wait until something is so, or time is up; say which."""
    end = time.monotonic() + limit_s
    while not done() and time.monotonic() < end:
        time.sleep(0.2)
    return done()
