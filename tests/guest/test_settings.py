"""Kernel settings that the service changes and gives back: real kernels, the real unit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import in_full, on_guest
from tests.guest.project import ROOT
from tests.guest.workers import Workers

GUESTS = ["bookworm-n4c8"]
if os.environ.get("NUMAD_PY_FULL"):
    GUESTS += ["trixie-n4c8"]
MIB = 1 << 20
SOON = '[daemon]\ninterval = "1s"\n[placement]\ncooldown = "1s"\nsettle = "1s"\n'
OFF = f'{SOON}[migration]\nautonuma = "off"\n'
POOLS = "/sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB/nr_hugepages"
PAGES = 48


def drop_in(guest: Machine, name: str) -> None:
    """Have the unit run with one of the shipped drop-ins; what a test leaves is taken away."""
    guest.run(
        f"install -D -m 0644 /opt/numad-py/systemd/numad-py-{name}.conf "
        f"/run/systemd/system/numad-py.service.d/{name}.conf && systemctl daemon-reload"
    )


def balancing(guest: Machine) -> int:
    """Return kernel.numa_balancing."""
    return int(guest.out("cat /proc/sys/kernel/numa_balancing"))


def pools(guest: Machine, kib: int = 2048) -> list[int]:
    """Return the size of the pool of each node."""
    files = " ".join(POOLS.format(node=node, kib=kib) for node in range(4))
    return [int(line) for line in guest.out(f"cat {files}").split()]


def set_pool(guest: Machine, node: int, pages: int, kib: int = 2048) -> None:
    """Set the pool of a node."""
    guest.run(f"echo {pages} > {POOLS.format(node=node, kib=kib)}")


def wait_for(what: Callable[[], bool], limit_s: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def refused(service: Service, workers: Workers, name: str) -> str:
    """Wait until a worker is refused for want of room; return why."""

    def decision() -> dict[str, str]:
        found: dict[str, str] = service.workers()[workers.pids[name]]["decision"]
        return found

    wait_for(lambda: decision()["reason"] == "no-room", 90)
    return decision()["why"]


@pytest.fixture
def balanced(guest: Machine) -> Iterator[Machine]:
    """Switch AutoNUMA on for a test; in these guests it is off."""
    guest.run("sysctl -q kernel.numa_balancing=1")
    yield guest
    guest.run("systemctl stop numad-py; sysctl -q kernel.numa_balancing=0", check=False)


@pytest.fixture
def empty_pools(guest: Machine) -> Iterator[Machine]:
    """Leave no huge pages behind."""
    yield guest
    guest.run("systemctl stop numad-py 'load-*'", check=False)
    for node in range(4):
        for kib in (2048, 1048576):
            set_pool(guest, node, 0, kib)


@on_guest(*GUESTS)
def test_autonuma_is_off_while_it_acts(balanced: Machine, workers: Workers) -> None:
    """From the start to the stop, by mode and policy, in a unit with three capabilities."""
    service = Service(balanced)
    drop_in(balanced, "settings")
    service.configure(OFF)
    service.start()
    assert balancing(balanced) == 0
    assert service.status()["settings"] == {
        "changed": {"kernel.numa_balancing": "0, was 1"},
        "problems": {},
    }
    pid = service.show("MainPID")
    # CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_SYS_NICE.
    assert balanced.out(f"grep CapEff /proc/{pid}/status").split()[1] == "0000000000a80000"
    member = "setpriv --reuid=65534 --regid=65534 --groups=numad-py"
    assert "kernel.numa_balancing is 0" in balanced.out(f"{member} numad-py status")
    # It does its work all the same.
    workers.start("a", "--size 64MiB --memory-nodes 1 --cpus 0 --pause-ms 500")
    workers.wait_ready()
    assert workers.wait_home({"a": [[0]]}, 60)["a"] is not None

    service.configure(SOON)
    balanced.run("systemctl reload numad-py")
    assert balancing(balanced) == 1
    service.configure(OFF)
    balanced.run("systemctl reload numad-py")
    assert balancing(balanced) == 0
    assert "kernel.numa_balancing is 1 again" in balanced.out("numad-py restore")
    assert balancing(balanced) == 1
    balanced.run("numad-py resume")
    assert balancing(balanced) == 0
    service.stop()
    assert balancing(balanced) == 1
    assert balanced.out("cat /var/lib/numad-py/journal.jsonl") == ""
    balanced.run("numad-py run --once --json >/dev/null")
    assert balancing(balanced) == 1
    assert "AutoNUMA given back" in balanced.run("numad-py run --once --json").stderr


@in_full
@on_guest(*GUESTS)
def test_a_kill_is_made_good_by_the_next_start_or_by_restore(
    balanced: Machine, workers: Workers
) -> None:
    """Kill -9 leaves it off; who comes next knows what it was, and leaves what others set."""
    del workers
    service = Service(balanced)
    drop_in(balanced, "settings")
    service.configure(OFF)
    service.start()
    balanced.run("systemctl kill --kill-whom=main --signal=KILL numad-py")
    wait_for(lambda: service.show("NRestarts") == "1" and service.show("ActiveState") == "active")
    assert balancing(balanced) == 0
    service.stop()
    assert balancing(balanced) == 1

    kill = "systemctl kill --kill-whom=main --signal=KILL numad-py; systemctl stop numad-py"
    service.start()
    balanced.run(kill)
    assert balancing(balanced) == 0
    assert "kernel.numa_balancing is 1 again" in balanced.out("numad-py restore")
    assert balancing(balanced) == 1

    service.start()
    balanced.run(kill)
    service.configure(SOON)
    service.start()
    assert balancing(balanced) == 1

    service.configure(OFF)
    balanced.run("systemctl reload numad-py; sysctl -q kernel.numa_balancing=2")
    service.stop()
    assert balancing(balanced) == 2
    assert "which somebody else has set" in str(service.log())

    # Without the drop-in it is its own user again, and can still write its journal.
    balanced.run("rm -r /run/systemd/system/numad-py.service.d; systemctl daemon-reload")
    service.configure(SOON)
    service.start()
    assert balanced.out("stat -c %U /var/lib/numad-py/journal.jsonl").strip() == "numad-py"


@in_full
@on_guest(*GUESTS)
def test_without_the_right_it_says_so_once_and_goes_on(balanced: Machine, workers: Workers) -> None:
    """The shipped unit: the log, status, doctor and a metric name what is missing."""
    service = Service(balanced)
    service.configure(OFF)
    assert "CAP_SYS_ADMIN, which the shipped unit has not" in balanced.out("numad-py doctor")
    service.start()
    workers.start("a", "--size 64MiB --memory-nodes 1 --cpus 0 --pause-ms 500")
    workers.wait_ready()
    assert workers.wait_home({"a": [[0]]}, 60)["a"] is not None
    assert balancing(balanced) == 1
    events = [line["event"] for line in service.log()]
    assert events.count("kernel setting not changed") >= 1
    started = len(events) - 1 - events[::-1].index("started")
    assert events[started - 1 :].count("kernel setting not changed") == 1
    (problem,) = service.status()["settings"]["problems"].values()
    assert "systemd/numad-py-settings.conf" in problem
    assert problem in balanced.out("numad-py doctor")
    metric = 'numad_py_setting_failures_total{setting="numa_balancing"}'
    assert workers.metrics()[metric] == 1


@in_full
@on_guest(*GUESTS)
def test_huge_pages_come_home_where_none_are_free(empty_pools: Machine, workers: Workers) -> None:
    """With "free" they stay, and it is said why; with "reserve" the pool comes along, no right."""
    service = Service(empty_pools)
    set_pool(empty_pools, 1, PAGES)
    options = f"--size {2 * PAGES}MiB --kind hugetlb --memory-nodes 1 --cpus 0 --pause-ms 500"
    workers.start("a", options)
    workers.wait_ready()
    service.configure(SOON)
    service.start()
    said = refused(service, workers, "a")
    assert "node 0 has 0 B free in its pool of 2.0 MiB huge pages" in said
    assert 'hugetlb = "reserve"' in said
    assert workers.residency("a")[1] >= 2 * PAGES * MIB
    assert pools(empty_pools) == [0, PAGES, 0, 0]

    service.configure(f'{SOON}[migration]\nhugetlb = "reserve"\n')
    empty_pools.run("systemctl reload numad-py")
    assert workers.wait_home({"a": [[0]]}, 90)["a"] is not None
    assert pools(empty_pools) == [PAGES, 0, 0, 0]
    assert service.status()["settings"] == {"changed": {}, "problems": {}}


@on_guest(*GUESTS)
def test_a_pool_of_the_largest_pages_grows_for_a_move(
    empty_pools: Machine, workers: Workers
) -> None:
    """1 GiB, which the kernel makes none of: by the drop-in, and with no more capability."""
    set_pool(empty_pools, 1, 1, 1048576)
    if pools(empty_pools, 1048576) != [0, 1, 0, 0]:
        pytest.skip("this guest has no 1 GiB in one piece")
    service = Service(empty_pools)
    drop_in(empty_pools, "hugetlb")
    rule = '[[rule]]\nname = "gigantic"\ncmdline = "gigantic[.]py"\nnodes = [2]\n'
    reserve = f'{SOON}[migration]\nhugetlb = "reserve"\n{rule}'
    empty_pools.put(ROOT / "tests/guest/gigantic.py", "/opt/load/gigantic.py")
    workers.start_program("g", "python3 /opt/load/gigantic.py 2,3 /run/load/g")
    workers.wait_ready()
    service.configure(f"{SOON}{rule}")
    service.start()
    assert "node 2 has 0 B free in its pool of 1.0 GiB huge pages" in refused(service, workers, "g")
    assert pools(empty_pools, 1048576) == [0, 1, 0, 0]

    service.configure(reserve)
    empty_pools.run("systemctl reload numad-py")
    wait_for(lambda: workers.residency("g").get(2, 0) >= 1 << 30, 120)
    wait_for(lambda: not service.workers()[workers.pids["g"]]["moved_so_far_bytes"])
    wait_for(lambda: pools(empty_pools, 1048576) == [0, 0, 1, 0])
    pid = service.show("MainPID")
    # CAP_SYS_PTRACE and CAP_SYS_NICE.
    assert empty_pools.out(f"grep CapEff /proc/{pid}/status").split()[1] == "0000000000880000"
    service.stop()
    assert empty_pools.out("cat /var/lib/numad-py/journal.jsonl") == ""
    owner = empty_pools.out(f"stat -c %U {POOLS.format(node=2, kib=1048576)}").strip()
    assert owner == "root"
