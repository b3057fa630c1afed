"""What is said of a worker's memory against what the kernel says, on real nodes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.project import ROOT
from tests.guest.workers import Workers

GUESTS = ["bookworm-n4c8"]
if os.environ.get("NUMAD_PY_FULL"):
    GUESTS += ["trixie-n4c8"]
MIB = 1 << 20
OBSERVE = '[daemon]\nmode = "observe"\ninterval = "1s"\n'
AT_REST = "--pause-ms 600000 --threads 2"
"""It passes over its memory once, and then sleeps for as long as the test lasts."""
KINDS = {
    "small": ("--thp never", "anon"),
    "thp": ("--thp always", "anon"),
    "hugetlb": ("--kind hugetlb", "hugetlb"),
    "shmem": ("--kind shmem --thp never", "shmem"),
    "file": ("--kind file --file /var/tmp/weights --write-share 0", "file"),
    "swapped": ("--thp never --pageout", "anon"),
}
SIZE_MIB = 96
SWAP = (
    "[ -e /var/tmp/swap ] || { fallocate -l 256M /var/tmp/swap && chmod 600 /var/tmp/swap && "
    "mkswap -q /var/tmp/swap; } && swapon /var/tmp/swap"
)
NO_SWAP = "swapoff -a; rm -f /var/tmp/swap /var/tmp/weights; sysctl -q vm.nr_hugepages=0"


def by_node(worker: dict[str, Any]) -> dict[int, int]:
    """Return a worker's resident bytes by node, of all kinds."""
    return {int(n): sum(kinds.values()) for n, kinds in worker["resident_bytes"].items()}


@on_guest(*GUESTS)
def test_a_full_reading_is_right_to_the_page(guest: Machine, workers: Workers) -> None:
    """Whatever its kind, remote memory at rest stands in status as in numa_maps, byte for byte.

    4 KiB pages, transparent huge pages, hugetlb, shmem, a mapped file, and a worker of which a
    third is swapped out.
    """
    service = Service(guest)
    service.configure(OBSERVE)
    guest.run(f"sysctl -q vm.nr_hugepages={SIZE_MIB * 2}; {SWAP}")
    try:
        for name, (options, _) in KINDS.items():
            place = "--memory-nodes 1 --cpus 0"
            workers.start(name, f"--size {SIZE_MIB}MiB {place} {options} {AT_REST}")
        workers.wait_ready()
        service.start()
        said = service.workers()
        truth = workers.residencies(*KINDS)
        swapped = guest.out(f"grep VmSwap /proc/{workers.pids['swapped']}/status").split()
        for name, (_, kind) in KINDS.items():
            worker = said[workers.pids[name]]
            assert worker["figures"]["source"] == "numa_maps", name
            assert by_node(worker) == truth[name], name
            assert worker["resident_bytes"]["1"][kind] >= 0.6 * SIZE_MIB * MIB, name
        assert said[workers.pids["swapped"]]["swapped_bytes"] == int(swapped[1]) * 1024
        assert int(swapped[1]) * 1024 >= SIZE_MIB * MIB // 4
    finally:
        service.stop()
        workers.stop()
        guest.run(NO_SWAP, check=False)


@on_guest(*GUESTS)
def test_a_sample_is_within_its_error(guest: Machine, workers: Workers) -> None:
    """Workers at home are never read in full; what a sample says is within what it states."""
    service = Service(guest)
    service.configure(OBSERVE)
    for name, options in {"small": "--thp never", "thp": "--thp always"}.items():
        workers.start(name, f"--size 512MiB --memory-nodes 0 --cpus 0 {options} {AT_REST}")
    workers.wait_ready()
    service.start()
    said, truth = service.workers(), workers.residencies("small", "thp")
    for name in ("small", "thp"):
        worker = said[workers.pids[name]]
        assert worker["figures"]["source"] == "sample", name
        error = worker["figures"]["error"]
        assert 0 < error < 0.02
        total, shown = sum(truth[name].values()), by_node(worker)
        assert sum(shown.values()) == pytest.approx(total, rel=0.01)
        for node, size in truth[name].items():
            share = shown.get(node, 0) / sum(shown.values())
            assert share == pytest.approx(size / total, abs=1.5 * error), (name, node)
    metrics = workers.metrics()
    assert metrics['numad_py_readings_total{source="sample"}'] >= 2
    assert metrics['numad_py_readings_total{source="numa_maps"}'] == 0


@on_guest(*GUESTS)
def test_a_bound_worker_with_free_threads_is_not_touched(guest: Machine, workers: Workers) -> None:
    """A sample cannot see a mempolicy: it is read in full before a thread is bound or a page moved.

    numactl --membind binds memory alone; its threads may run anywhere.
    """
    service = Service(guest)
    service.configure('[daemon]\ninterval = "1s"\n')
    options = f"--size 512MiB --start-cpus 1 --thp never {AT_REST}"
    workers.start("bound", options, before="numactl --membind=1")
    workers.wait_ready()
    before, lay = workers.masks("bound"), workers.residency("bound")
    service.start()
    guest.run("sleep 5")
    said = service.workers()[workers.pids["bound"]]
    assert said["decision"]["reason"] == "mempolicy"
    assert said["figures"]["source"] == "numa_maps"
    assert workers.masks("bound") == before
    assert workers.residency("bound") == lay


@on_guest(*GUESTS)
def test_samples_of_real_layouts_hold(guest: Machine, workers: Workers) -> None:
    """Of the nodes' shares in 14 layouts of real pages nearly all lie within what is stated."""
    del workers
    guest.put(ROOT / "tests/guest/sampled.py", "/opt/load/sampled.py")
    lines = guest.out("python3 /opt/load/sampled.py 1 14 16", timeout=300).splitlines()
    cases = [json.loads(line) for line in lines]
    assert len({case["layout"] for case in cases}) == 14
    assert sum(case["held"] for case in cases) >= 0.85 * len(cases)
    assert max(case["error"] for case in cases) < 0.05
