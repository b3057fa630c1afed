"""Faults in the middle of a move, of the worker and of what holds it: real kernels, the real unit.

After each of them no mask is lost, no worker is dead or stuck, the journal is empty or exact, and
what happened stands in the log and in a counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.guest.machine import Machine
from tests.guest.marks import in_full, on_guest
from tests.guest.midway import MIB, SLOW, UNPACED, Midway, rule, wait_for
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
FREE = "--memory-nodes 1 --start-cpus 2"
"""Away from node 0, and free to run anywhere: threads are bound before memory moves."""
HOME = [0, 1]
"""CPUs of node 0."""
EVERYWHERE = list(range(8))


@pytest.fixture
def midway(guest: Machine, workers: Workers) -> Midway:
    """Return a run of the service that is to have a fault."""
    return Midway(guest, workers)


def bound(workers: Workers, name: str) -> bool:
    """Say whether all threads of a worker run on node 0 only."""
    return all(cpus == HOME for cpus in workers.masks(name)[name].values())


@in_full
@on_guest(GUEST)
def test_a_worker_killed_in_the_middle_of_a_chunk_is_gone(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """Its move ends, it is forgotten, and the next worker is moved by the same thread."""
    midway.start("k", f"--size 256MiB --threads 2 {FREE}")
    midway.begin(UNPACED + rule("k", 0) + rule("next", 0))
    midway.strike("k", 0, f"kill -KILL {workers.pids['k']}", after_mib=48)
    gone = midway.ended("k", "gone")
    assert gone["threads_bound"] == 2
    assert float(gone["moved"].split()[0]) < 256
    wait_for(lambda: workers.pids["k"] not in midway.service.workers())
    assert midway.journal()[-1]["forget"][0] == int(workers.pids["k"])
    assert guest.out("ps -o stat= -C llama-server || true") == ""
    del workers.pids["k"]
    midway.start("next", f"--size 64MiB {FREE}")
    workers.wait_ready()
    midway.masks["next"] = dict.fromkeys(map(int, workers.masks("next")["next"]), EVERYWHERE)
    midway.home("next", 0)
    midway.ended("next", "done")
    midway.finish("next")


@in_full
@on_guest(GUEST)
def test_a_stopped_worker_is_moved_and_stays_stopped(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """SIGSTOP in the middle: its memory comes home all the same, and nobody lets it go on."""
    midway.start("p", f"--size 128MiB --threads 2 {FREE}")
    midway.begin(SLOW + rule("p", 0))
    pid = workers.pids["p"]
    midway.strike("p", 0, f"kill -STOP {pid}")
    midway.ended("p", "done")
    midway.home("p", 0, 1)
    assert bound(workers, "p")
    midway.stop("p")
    assert guest.out(f"ps -L -o state= -p {pid}").split() == ["T", "T"]
    guest.run(f"kill -CONT {pid}")
    midway.goes_on("p")
    assert midway.journal() == []


@in_full
@on_guest(GUEST)
def test_a_worker_that_becomes_another_program_is_let_alone(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """Exec in the middle keeps pid and mask; nothing of the new program is moved.

    Both have their memory at the same addresses: without randomisation, as under a debugger.
    """
    options = f"--size 192MiB {FREE} --become /opt/load/otherd"
    midway.start("e", options, before="setarch --addr-no-randomize")
    midway.begin(SLOW + rule("e", 0))
    pid = workers.pids["e"]
    midway.strike("e", 0, f"rm /run/load/e; kill -USR2 {pid}")
    workers.pids["e"] = ""
    workers.wait_ready()
    assert workers.pids["e"] == pid
    assert guest.out(f"readlink /proc/{pid}/exe").strip() == "/opt/load/otherd"
    midway.ended("e", "gone")
    wait_for(lambda: pid not in midway.service.workers())
    assert midway.on_node("e", 1) >= 192 * MIB
    # Its mask is still ours, and known to be.
    (entry,) = (each for each in midway.journal() if "forget" not in each)
    assert entry["pid"] == int(pid)
    assert bound(workers, "e")
    midway.finish("e")


@in_full
@on_guest(GUEST)
def test_every_thread_of_a_storm_ends_inside_the_mask(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """1,000 threads, each made by the newest one, while threads are bound; all get masks back."""
    midway.start("t", f"--size 64MiB --storm 1000 --pause-ms 50 {FREE}")
    workers.wait_ready()
    pid = workers.pids["t"]
    guest.run(f"kill -USR1 {pid}")
    midway.begin(SLOW + rule("t", 0))
    assert len(workers.masks("t")["t"]) < 1001, "the storm was over too soon"
    wait_for(lambda: len(workers.masks("t")["t"]) == 1001)
    wait_for(lambda: bound(workers, "t"))
    midway.home("t", 0)
    assert sum(line["threads_bound"] for line in wait_for(lambda: midway.moves("t"))) > 1
    midway.masks["t"] = dict.fromkeys(workers.masks("t")["t"], EVERYWHERE)
    midway.finish("t")


@in_full
@on_guest(GUEST)
def test_a_cpuset_that_changes_is_followed(
    midway: Midway, guest: Machine, workers: Workers
) -> None:
    """Its memory goes on to where its cpuset lets it run; its mask is then the cpuset's matter."""
    # Most of it is on node 1: that is its first home.
    mostly = "--size 420MiB --memory-nodes 1,1,2 --start-cpus 2"
    midway.start("c", mostly, before="--property=AllowedCPUs=0-7")
    midway.begin(SLOW)
    property_of = "systemctl set-property --runtime load-c.service"
    midway.strike("c", 1, f"{property_of} AllowedCPUs=0-1", after_mib=296)
    midway.home("c", 0)
    said = midway.service.workers()[workers.pids["c"]]
    assert said["home"] == {**said["home"], "nodes": [0], "source": "cpuset"}
    assert bound(workers, "c")
    guest.run(f"{property_of} AllowedCPUs=0-7")
    midway.finish("c")


@in_full
@on_guest(GUEST)
def test_a_node_that_its_cpuset_forbids_is_pushed_into_no_more(
    midway: Midway, workers: Workers
) -> None:
    """The kernel takes its memory back itself; the move fails, and it is said why."""
    midway.start("m", f"--size 192MiB {FREE}", before="--property=AllowedMemoryNodes=0-3")
    midway.begin(SLOW + rule("m", 0))
    allow = "systemctl set-property --runtime load-m.service AllowedMemoryNodes=1"
    midway.strike("m", 0, allow)
    failed = midway.ended("m", "failed")
    assert "its cpuset no longer grants it memory on node 0" in failed["error"]

    def decision() -> dict[str, str]:
        found: dict[str, str] = midway.service.workers()[workers.pids["m"]]["decision"]
        return found

    wait_for(lambda: decision()["reason"] == "no-home")
    assert "its cpuset grants memory on node 1 only" in decision()["why"]
    midway.home("m", 1)
    midway.finish("m")


@in_full
@on_guest(GUEST)
def test_workers_in_namespaces_come_home(midway: Midway, guest: Machine, workers: Workers) -> None:
    """One is root of a user namespace of nobody's, one is process 1 of its own."""
    guest.run("install -d -m 1777 /run/load")
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    midway.start("u", f"--size 96MiB {FREE}", before=f"{nobody} unshare --user --map-root-user")
    midway.start("n", f"--size 96MiB {FREE}", before="unshare --pid --fork --mount-proc")
    workers.wait_ready()
    assert workers.pids["n"] == "1"
    own = "pgrep -f '^/opt/load/llama-server .*/run/load/n( |$)'"
    workers.pids["n"] = guest.out(own).strip()
    midway.begin(SLOW + rule("u", 0) + rule("n", 0))
    for name in ("u", "n"):
        midway.home(name, 0)
        midway.ended(name, "done")
        assert bound(workers, name)
    midway.finish("u", "n")


@dataclass(frozen=True)
class Trouble:
    """A state directory that fails, by shell commands."""

    mount: str
    strike: str
    mend: str
    says: str
    undone_is_noted: bool
    """Whether an emptied journal can be written all the same."""


FULL = Trouble(
    mount="mount -t tmpfs -o size=64k,mode=700 tmpfs /var/lib/numad-py",
    strike="head -c 1M /dev/zero > /var/lib/numad-py/full 2>/dev/null; true",
    mend="rm /var/lib/numad-py/full",
    says="no space left on device",
    undone_is_noted=True,
)
BROKEN = Trouble(
    mount="truncate -s 8M /run/state.img && mkfs.ext4 -q /run/state.img && "
    "mount -o loop,errors=remount-ro /run/state.img /var/lib/numad-py",
    strike="echo 1 > /sys/fs/ext4/loop0/trigger_fs_error",
    mend="umount /var/lib/numad-py; fsck.ext4 -fy /run/state.img >/dev/null; "
    "mount -o loop /run/state.img /var/lib/numad-py",
    says="read-only file system",
    undone_is_noted=False,
)
"""A disk error, after which the kernel lets nobody write (errors=remount-ro, ext4(5))."""


@pytest.fixture
def state_dir(guest: Machine) -> Iterator[Machine]:
    """Take away what was mounted on the state directory."""
    yield guest
    guest.run("systemctl stop numad-py; umount /var/lib/numad-py; rm -f /run/state.img")


@in_full
@on_guest(GUEST)
@pytest.mark.parametrize("trouble", [FULL, BROKEN], ids=["full", "read-only"])
def test_without_its_journal_nothing_more_is_bound_and_all_is_given_back(
    midway: Midway, state_dir: Machine, workers: Workers, trouble: Trouble
) -> None:
    """The move under way goes on; who comes then is let alone, and each try says why."""
    state_dir.run(trouble.mount)
    midway.start("f", f"--size 128MiB {FREE}")
    midway.begin(SLOW + rule("f", 0) + rule("late", 0))
    midway.strike("f", 0, trouble.strike)
    # More threads than the rest of the journal's last page would hold.
    midway.start("late", f"--size 64MiB --threads 200 {FREE} --pause-ms 2000")
    midway.home("f", 0)
    midway.ended("f", "done")
    workers.wait_ready()
    failed = midway.ended("late", "failed")
    assert trouble.says in failed["error"].lower()
    assert "nothing is changed without it" in failed["error"]
    assert set(map(tuple, workers.masks("late")["late"].values())) == {tuple(EVERYWHERE)}
    assert midway.on_node("late", 1) >= 60 * MIB
    midway.stop("f")
    midway.goes_on("f", "late")
    state_dir.run(trouble.mend)
    # What is undone and could not be noted is undone again, which does no harm.
    left = [] if trouble.undone_is_noted else [int(workers.pids["f"])]
    assert [each["pid"] for each in midway.journal()] == left
    state_dir.run("numad-py restore")
    assert workers.masks("f")["f"] == midway.masks["f"]
    assert midway.journal() == []
