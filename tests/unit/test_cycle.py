"""Looking cheaply first, then closely at those on which a decision hangs."""

from __future__ import annotations

from array import array
from pathlib import Path

from numad_py.cycle import look_and_decide
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import DecisionState, Reason
from numad_py.model.residency import Source
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from tests.fake_tree import FakeCgroup, FakeMachine, FakeNode, FakeProcess, anon

GIB = 1 << 30
SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")
UNIT = "/system.slice/server.service"


class Asked:
    """A kernel whose pages are all on one node, and who asked for them."""

    def __init__(self, node: int) -> None:
        """Have everything on a node."""
        self.node = node
        self.pids: list[int] = []

    def nodes_of(self, pid: int, addresses: array[int]) -> array[int]:
        """Answer."""
        self.pids.append(pid)
        return array("i", [self.node]) * len(addresses)


def observer_of(
    folder: Path, asked: Asked, numa_maps: str, cgroups: tuple[FakeCgroup, ...] = ()
) -> Observer:
    """Return the observer of a machine with one worker of a GiB, pinned to node 0."""
    made = FakeMachine(
        folder,
        [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
        [FakeProcess(100, SERVER, numa_maps, affinity=(0, 1), resident_kib=GIB // 1024)],
        cgroups=cgroups,
    ).write()
    cgroupfs = CgroupFs(f"{made.sysfs}/fs/cgroup")
    return Observer(
        ProcFs(made.procfs), SysFs(made.sysfs), cgroupfs, defaults(), nodes_of=asked.nodes_of
    )


def test_a_worker_at_home_is_sampled_and_left(tmp_path: Path) -> None:
    """No full reading: its numa_maps, which says otherwise here, is not even opened."""
    asked = Asked(0)
    observer = observer_of(tmp_path, asked, anon({1: GIB}))
    snapshot, plan, _ = look_and_decide(observer, defaults(), lambda _: DecisionState())
    (worker,), (decision,) = snapshot.workers, plan.decisions
    assert asked.pids
    assert worker.residency is not None
    assert worker.residency.source is Source.SAMPLE
    assert decision.reason is Reason.HOME


def test_a_worker_that_seems_remote_is_read_in_full_in_the_same_cycle(tmp_path: Path) -> None:
    """And acted on by what the full reading says."""
    observer = observer_of(tmp_path, Asked(1), anon({1: GIB}))
    snapshot, plan, _ = look_and_decide(observer, defaults(), lambda _: DecisionState())
    (worker,), (decision,) = snapshot.workers, plan.decisions
    assert worker.residency is not None
    assert worker.residency.source is Source.NUMA_MAPS
    assert decision.reason is Reason.REMOTE_MEMORY


def test_what_its_user_has_bound_shows_in_the_full_reading(tmp_path: Path) -> None:
    """A sample cannot tell: it is refused, not moved."""
    observer = observer_of(tmp_path, Asked(1), anon({1: GIB}, "bind:1"))
    _, plan, _ = look_and_decide(observer, defaults(), lambda _: DecisionState())
    assert plan.decisions[0].reason is Reason.MEMPOLICY


def test_its_own_cgroup_tells_where_pages_may_not_be_asked_for(tmp_path: Path) -> None:
    """As for somebody without the right of ptrace; what it cannot tell is not acted on."""
    charges = {"anon": {0: GIB}, "file": {0: 0}, "shmem": {0: 0}, "file_mapped": {0: 0}}
    cgroup = FakeCgroup(UNIT, (100,), {**charges, "anon_thp": {0: GIB // 2}})
    observer = observer_of(tmp_path, Asked(0), anon({0: GIB}), (cgroup,))
    snapshot, _, _ = look_and_decide(observer, defaults(), lambda _: DecisionState())
    assert snapshot.workers[0].thp_bytes == GIB // 2
    assert observer.scanner.counts[Source.NUMA_STAT] == 1
