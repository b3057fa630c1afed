"""All workers of a machine together: spread over CPUs, replicas apart, larger than a node."""

from __future__ import annotations

from typing import Any

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
MIB = 1 << 20
SETTLED_WITHIN_S = 90


def homes(service: Service, workers: Workers) -> dict[str, list[int]]:
    """Return the home nodes of each worker, as the daemon says."""
    said: dict[str, Any] = service.workers()
    return {name: said[pid]["home"]["nodes"] for name, pid in workers.pids.items()}


def settled(service: Service, workers: Workers) -> dict[str, list[int]]:
    """Wait until each worker is where the plan says; return the homes."""
    planned = homes(service, workers)
    seconds = workers.wait_home({n: [nodes] for n, nodes in planned.items()}, SETTLED_WITHIN_S)
    print(f"homes {planned}, seconds {seconds}")
    assert None not in seconds.values(), (seconds, workers.residencies(*workers.pids))
    assert homes(service, workers) == planned
    return planned


@on_guest(GUEST)
def test_eight_workers_too_large_for_one_node_are_spread(guest: Machine, workers: Workers) -> None:
    """Each lies on two nodes, and one node cannot hold all: each gets one, none is overfull."""
    for i in range(8):
        options = "--size 360MiB --memory-nodes 0,1 --thp never --pause-ms 5000"
        workers.start(f"w{i}", options)
    workers.wait_ready()
    service = Service(guest)
    service.start()
    planned = settled(service, workers)
    assert {len(nodes) for nodes in planned.values()} == {1}
    assert len({nodes[0] for nodes in planned.values()}) > 1
    for name, masks in workers.masks(*workers.pids).items():
        (node,) = planned[name]
        assert {cpu // 2 for cpus in masks.values() for cpu in cpus} == {node}
    for node in service.status()["nodes"]:
        assert node["free_bytes"] + node["reclaimable_bytes"] / 2 > 0.04 * node["memory_bytes"]


@on_guest(GUEST)
def test_replicas_are_kept_apart(guest: Machine, workers: Workers) -> None:
    """Two of a rule with spread = true that lie on one node end on two."""
    service = Service(guest)
    service.configure('[[rule]]\nname = "replica"\ncmdline = "/run/load/r"\nspread = true\n')
    for name in ("r0", "r1"):
        workers.start(name, "--size 256MiB --memory-nodes 1 --thp never --pause-ms 1000")
    workers.wait_ready()
    service.start()
    planned = settled(service, workers)
    assert sorted(len(nodes) for nodes in planned.values()) == [1, 1]
    assert planned["r0"] != planned["r1"]


@on_guest(GUEST)
def test_a_worker_larger_than_a_node_gets_two_close_ones(guest: Machine, workers: Workers) -> None:
    """3 GiB on two far nodes of 2.5 GiB come to two near ones, and none of it anywhere else."""
    service = Service(guest)
    workers.start("big", "--size 3GiB --memory-nodes 0,2 --thp never --threads 2 --pause-ms 5000")
    workers.wait_ready()
    service.start()
    planned = settled(service, workers)
    assert planned["big"] in ([0, 1], [2, 3])
    lies = workers.residency("big")
    # Libraries, which others map too, may lie elsewhere.
    much = {node for node, size in lies.items() if size > 0.01 * sum(lies.values())}
    assert much == set(planned["big"])
