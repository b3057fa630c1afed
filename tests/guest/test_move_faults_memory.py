"""Faults in the middle of a move, of the memory it comes from and goes to; see test_move_faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest.machine import Machine
from tests.guest.marks import in_full, on_guest
from tests.guest.midway import MIB, SLOW, Midway, rule, wait_for
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
FREE = "--memory-nodes 1 --start-cpus 2"
SYSFS = "/sys/devices/system/node/node"
HEADROOM = 0.05
STOP_MARK = 0.025
"""Half of the headroom stays free when a move stops."""
ROOM = (
    'awk -v share={share} \'{{v[$3] = $4}} END {{print int((v["MemFree:"] + (v["Active(file):"] + '
    'v["Inactive(file):"] - v["Dirty:"]) / 2 - share * v["MemTotal:"]) / 1024) {more}}}\' '
    "/sys/devices/system/node/node0/meminfo"
)
"""Prints the MiB that node 0 can take above a share of its memory."""
SWAP = (
    "fallocate -l 256M /var/tmp/swap && chmod 600 /var/tmp/swap && mkswap -q /var/tmp/swap && "
    "swapon /var/tmp/swap"
)
POOL = f"{SYSFS}{{}}/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def midway(guest: Machine, workers: Workers) -> Midway:
    """Return a run of the service that is to have a fault."""
    return Midway(guest, workers)


def room_mib(guest: Machine, share: float) -> int:
    """Return what node 0 can take above a share of its memory."""
    return int(guest.out(ROOM.format(share=share, more="")))


def fill(size: str) -> str:
    """Return options of a process that takes so much of node 0, and is no worker."""
    return f"--size {size} --memory-nodes 0 --thp always --pause-ms 600000"


@in_full
@on_guest(GUEST)
def test_a_target_that_others_fill_keeps_its_mark(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """The move ends where half of the headroom is left, though others take the rest."""
    free_mib = room_mib(guest, HEADROOM)
    workers.start("fill", fill(f"{free_mib - 256}MiB"), program="/opt/load/otherd")
    midway.start("w", f"--size 192MiB {FREE}")
    midway.begin(SLOW + rule("w", 0))
    kills = guest.out("grep oom_kill /proc/vmstat")
    size = f"$({ROOM.format(share=STOP_MARK, more='- 48')})MiB"
    more = f"/opt/load/otherd {fill(size)} --ready /run/load/more"
    midway.strike("w", 0, f"systemd-run --quiet --collect --unit=load-more {more}")
    midway.ended("w", "no-room")
    left_mib = room_mib(guest, STOP_MARK)
    print(f"above its mark, node 0 has {left_mib} MiB")
    assert -8 < left_mib < 48
    assert 16 * MIB < midway.on_node("w", 0) < 160 * MIB

    def reason() -> bool:
        found = midway.service.workers()[workers.pids["w"]]["decision"]
        return bool(found["reason"] == "no-room")

    wait_for(reason)
    assert guest.out("grep oom_kill /proc/vmstat") == kills
    assert workers.alive("fill", "w")
    midway.finish("w")


@in_full
@on_guest(GUEST)
def test_memory_of_the_target_that_goes_offline_is_done_without(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """What the kernel drives out of it comes home again, into what is left of the node."""
    midway.start("o", f"--size 192MiB {FREE}")
    midway.begin(SLOW + rule("o", 3))
    before = guest.out(f"grep MemTotal {SYSFS}3/meminfo")
    take = (
        f"for b in $(ls -rd {SYSFS}3/memory[0-9]*); do "
        'timeout 5 sh -c "echo offline > $b/state" 2>/dev/null && echo $b && i=x$i; '
        "[ x$i = xxxx ] && break; done"
    )
    blocks = midway.strike("o", 3, take).split()
    try:
        print(f"offline: {blocks}")
        if not blocks:
            pytest.skip("this kernel can take no block of node 3 offline: something pins them all")
        midway.home("o", 3)
        midway.ended("o", "done")
        assert sum(workers.residency("o").values()) >= 192 * MIB
        assert guest.out(f"grep MemTotal {SYSFS}3/meminfo") != before
    finally:
        guest.run("; ".join(f"echo online > {block}/state" for block in blocks) or "true")
    assert guest.out(f"grep MemTotal {SYSFS}3/meminfo") == before
    midway.finish("o")


@pytest.fixture
def pools(guest: Machine) -> Iterator[Machine]:
    """Leave no huge pages behind."""
    yield guest
    guest.run("systemctl stop numad-py 'load-*'; sysctl -q vm.nr_hugepages=0")


@in_full
@on_guest(GUEST)
def test_a_pool_that_shrinks_ends_it(midway: Midway, pools: Machine) -> None:
    """Huge pages that were free when it began are not when it gets there: no-room, and why."""
    pools.run(f"echo 64 > {POOL.format(1)}; echo 64 > {POOL.format(0)}")
    midway.start("h", f"--size 128MiB --kind hugetlb {FREE}")
    midway.begin(SLOW + rule("h", 0))
    midway.strike("h", 0, f"echo 20 > {POOL.format(0)}", after_mib=24)
    ended = midway.ended("h", "no-room")
    assert "node 0 had 64 free huge pages of 2048 kB for it" in ended["error"]
    lies = midway.workers.residency("h")
    assert 24 * MIB <= lies[0] < 64 * MIB
    assert lies[0] + lies[1] >= 128 * MIB
    midway.finish("h")


@pytest.fixture
def swap(guest: Machine) -> Iterator[Machine]:
    """Swap on a file."""
    guest.run(SWAP)
    yield guest
    guest.run("systemctl stop numad-py 'load-*'; swapoff /var/tmp/swap; rm /var/tmp/swap")


@in_full
@on_guest(GUEST)
def test_locked_memory_moves_and_swapped_memory_comes_home_when_it_is_used(
    midway: Midway, swap: Machine, workers: Workers
) -> None:
    """Locked pages move. Of what is swapped out nothing is to move: it is read in at home.

    The worker is stopped meanwhile, so that it does not read it in too soon.
    """
    midway.start("l", f"--size 96MiB --lock {FREE}")
    midway.start("s", f"--size 96MiB --pageout --pause-ms 6000 {FREE}")
    swap.run("until [ -s /run/load/s ]; do sleep 0.1; done; kill -STOP $(cat /run/load/s)")
    midway.begin(SLOW + rule("l", 0) + rule("s", 0))
    swapped = midway.strike("s", 0, f"grep VmSwap /proc/{workers.pids['s']}/status")
    assert int(swapped.split()[1]) >= 24 * 1024
    assert swap.out(f"grep VmLck /proc/{workers.pids['l']}/status").split()[1] == str(96 * 1024)
    midway.home("l", 0)
    for name in ("l", "s"):
        midway.ended(name, "done")
    swap.run(f"kill -CONT {workers.pids['s']}")
    # Linux 6.1 counts late: up to 63 pages of each thread (SPLIT_RSS_COUNTING, mm/memory.c).
    read_in = f"awk '/VmSwap/ {{exit $2 > 1024}}' /proc/{workers.pids['s']}/status"
    wait_for(lambda: swap.run(read_in, check=False).returncode == 0, 30)
    midway.home("s", 0)
    assert midway.on_node("s", 0) >= 96 * MIB
    midway.stop("l", "s")
    assert workers.alive("s")
    midway.goes_on("l")
    assert midway.journal() == []
