"""The demo in a four-node guest, under systemd with the shipped unit."""

from __future__ import annotations

import json
import shlex

from numad_py.model.cpulist import format_list
from tests.demo import show
from tests.demo.show import Live, Shown, title
from tests.guest.machine import Machine
from tests.guest.project import install
from tests.guest.scenario import strays
from tests.guest.workers import Workers

TOPOLOGY = "n4c8"
SIZE = "512MiB"
LIMIT_S = 120


def demo(release: str) -> int:
    """Boot, show, end; return the exit code: 0 when all came home."""
    title(f"Booting a machine of four nodes ({release}); nothing of this host is touched")
    with Machine(release, TOPOLOGY) as guest:
        title("Installing numad-py in it, as its README says")
        install(guest)
        # What comes home shall be numad-py's doing.
        guest.run("sysctl -q kernel.numa_balancing=0")
        workers = Workers(guest)
        scenario = strays(len(guest.topology.nodes), SIZE, "never")
        title(f"Starting five workers of up to {SIZE}, three of them to be brought home")
        workers.start_all(scenario)
        for stray in scenario:
            print(f"{stray.name} (pid {workers.pids[stray.name]}): {stray.story}")
        title("systemctl start numad-py")
        guest.run("systemctl start numad-py")
        home = _watch(
            guest,
            [Shown(s.name, workers.pids[s.name], s.story, s.homes) for s in scenario if s.homes],
        )
        title("numad-py status")
        print(show.labels(workers.pids, json.loads(guest.out("numad-py status --json"))))
        print(guest.out("numad-py status"))
        title("Its decisions (journalctl -u numad-py)")
        show.decisions(guest.out("journalctl -u numad-py -o cat --no-pager").splitlines())
        title("Some of what Prometheus scrapes (127.0.0.1:10465/metrics)")
        show.metrics(guest.out("python3 /opt/load/probe.py metrics"))
        title("systemctl stop numad-py: every affinity mask is given back")
        guest.run("systemctl stop numad-py")
        for name, masks in workers.masks(*workers.pids).items():
            cpus = sorted({cpu for mask in masks.values() for cpu in mask})
            print(f"{name}: its {len(masks)} thread(s) may use CPUs {format_list(cpus)}")
    if home:
        print("\na, b and c came home; d and e were left alone, as they should be")
    else:
        print(f"\nnot all of a, b and c are home after {LIMIT_S} s")
    return 0 if home else 1


def _watch(guest: Machine, workers: list[Shown]) -> bool:
    """Show the workers until all are home; say whether they are."""
    homes = shlex.quote(json.dumps({w.pid: w.homes for w in workers}))
    live, seen = Live(workers), {}
    command = f"python3 /opt/load/probe.py watch {LIMIT_S} {homes}"
    for text in guest.lines(command, timeout=LIMIT_S + 60):
        seen = json.loads(text)
        live.draw(seen)
    return bool(seen) and None not in seen["seconds"].values()
