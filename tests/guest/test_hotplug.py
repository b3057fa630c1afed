"""CPUs and memory that go offline and come back while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
MIB = 1 << 20
NODE = 3
CPUS = (6, 7)
BLOCKS = f"/sys/devices/system/node/node{NODE}/memory[0-9]*"
TAKE_OFFLINE = (
    f"for b in $(ls -rd {BLOCKS}); do "
    "echo offline > $b/state 2>/dev/null && echo $b && break; done; sleep 2"
)
"""The first block from the end that holds nothing unmovable."""


@contextmanager
def offline(guest: Machine, *cpus: int) -> Iterator[None]:
    """Take CPUs offline for a while."""
    files = " ".join(f"/sys/devices/system/cpu/cpu{cpu}/online" for cpu in cpus)
    guest.run(f"for f in {files}; do echo 0 > $f; done; sleep 2")
    try:
        yield
    finally:
        guest.run(f"for f in {files}; do echo 1 > $f; done; sleep 2")


@on_guest(GUEST)
def test_cpus_that_go_offline_are_no_home(guest: Machine, workers: Workers) -> None:
    """The kernel's event makes it read them again; a node without CPUs is nobody's home."""
    service = Service(guest)
    service.start()

    def cpus() -> str:
        return str(service.status()["nodes"][NODE]["cpus"])

    assert cpus() == "6-7"
    with offline(guest, CPUS[1]):
        assert cpus() == "6"
    with offline(guest, *CPUS):
        assert not cpus()
        # Free to run anywhere, all of its memory on the node that has no CPUs now.
        workers.start("a", f"--size 128MiB --memory-nodes {NODE} --pause-ms 500")
        workers.wait_ready()
        seconds = workers.wait_home({"a": [[0], [1], [2]]}, 60)
        assert seconds["a"] is not None, workers.residency("a")
    assert cpus() == "6-7"
    assert workers.alive("a")


@on_guest(GUEST)
def test_memory_that_goes_offline_is_no_longer_counted(guest: Machine, workers: Workers) -> None:
    """A block of memory less shows in the node's size and its free memory, and comes back."""
    del workers
    service = Service(guest)
    service.start()

    def sizes() -> tuple[int, int]:
        node = service.status()["nodes"][NODE]
        return node["memory_bytes"], node["free_bytes"]

    before, free_before = sizes()
    block = guest.out(TAKE_OFFLINE).strip()
    assert block, f"no block of node {NODE} could be taken offline"
    size = int(guest.out("cat /sys/devices/system/memory/block_size_bytes"), 16)
    try:
        after, free_after = sizes()
        assert before - after == size
        assert free_before - free_after > size // 2
    finally:
        guest.run(f"echo online > {block}/state; sleep 2")
    assert sizes()[0] == before
