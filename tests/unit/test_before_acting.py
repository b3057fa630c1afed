"""Nothing is done by what an earlier look has read: its user may have placed the worker since."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.cycle import look_and_decide
from numad_py.decide.decisions import decide
from numad_py.decide.verdicts import LATELY_S
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import Decision, DecisionState, Reason, Verdict
from numad_py.model.residency import Confirmation, Source
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.observe import scan
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from numad_py.policy.schema import Mode, Policy
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon, put
from tests.unit.test_unfinished import GIB, seen

SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")
NODE_0, NODE_1 = (0, 1), (2, 3)
OURS = frozenset(NODE_0)
EVERY = frozenset((*NODE_0, *NODE_1))


def narrowed(_worker: WorkerId, threads: tuple[Thread, ...]) -> Mapping[int, frozenset[int]]:
    """Tell that masks of node 0 are numad-py's, and that the threads could run anywhere before."""
    return {t.tid: EVERY for t in threads if t.affinity == OURS}


class Machine:
    """Two nodes with workers, and the cycle over them."""

    def __init__(self, folder: Path, policy: Policy, *pids: int) -> None:
        """Have the workers at rest on node 0, bound to it by numad-py."""
        self.policy = policy
        self.at_s = 1000.0
        self.node = 0
        self.state = DecisionState()
        self.made = FakeMachine(folder, [FakeNode(0, NODE_0, 8192), FakeNode(1, NODE_1, 8192)])
        self.pids = pids
        self.lies(NODE_0, 0)
        self.observer = Observer(
            ProcFs(self.made.procfs),
            SysFs(self.made.sysfs),
            CgroupFs(f"{self.made.sysfs}/fs/cgroup"),
            policy,
            narrowed,
            nodes_of=lambda _pid, addresses: array("i", [self.node]) * len(addresses),
        )

    def lies(
        self, cpus: tuple[int, ...], node: int, size: int = GIB, policy: str = "default"
    ) -> None:
        """Let each worker have its threads and its memory there."""
        self.node = node
        maps = anon({node: size}, policy)
        self.made.processes = [
            FakeProcess(pid, SERVER, maps, affinity=cpus, resident_kib=size // 1024)
            for pid in self.pids
        ]
        self.made.write()

    def cycle(self, after_s: float = 5.0) -> tuple[Decision, ...]:
        """Let so much time pass and return what is decided then."""
        self.at_s += after_s
        put(self.made.procfs / "uptime", f"{self.at_s:.2f} 0.00\n")
        _, plan, self.state = look_and_decide(self.observer, self.policy, lambda _: self.state)
        return plan.decisions


def test_a_pin_that_its_user_set_since_the_last_look_at_masks_is_honoured(tmp_path: Path) -> None:
    """Masks at rest are read once a minute: before memory is moved against one, they are read."""
    machine = Machine(tmp_path, defaults(), 100)
    while machine.at_s < 1200:
        (decision,) = machine.cycle()
        assert decision.verdict is Verdict.REST
    machine.lies(NODE_1, 1, 2 * GIB)
    (decision,) = machine.cycle()
    assert decision.verdict is Verdict.REST, decision.why
    assert decision.finding.home is not None
    assert decision.finding.home.nodes == {1}


def test_who_gets_a_turn_by_a_closer_look_at_another_is_looked_at_too(tmp_path: Path) -> None:
    """The first rests under its new pin; the second does not move in its place by old masks."""
    policy = defaults()
    placement = replace(policy.placement, moved_per_cycle_bytes=2 * GIB)
    machine = Machine(tmp_path, replace(policy, placement=placement), 100, 200)
    while machine.at_s < 1200:
        machine.cycle()
    machine.lies(NODE_1, 1, 2 * GIB)
    assert {d.verdict for d in machine.cycle()} == {Verdict.REST}


def test_a_worker_that_ends_before_the_closer_look_is_left_out(tmp_path: Path) -> None:
    """There is nobody to act on."""
    machine = Machine(tmp_path, defaults(), 100)
    machine.cycle()
    machine.lies(NODE_0, 1, 2 * GIB)
    status = machine.made.procfs / "100/task/100/status"
    machine.cycle(0.0)
    machine.state = DecisionState()
    for file in machine.made.procfs.glob("100/task/*/*"):
        file.unlink()
    status.parent.rmdir()
    status.parent.parent.rmdir()
    assert machine.cycle(1.0) == ()


def test_memory_that_was_bound_since_it_was_read_in_full_is_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample says the same as before: only a full reading shows the mempolicy."""
    monkeypatch.setattr(scan, "CHEAP_S", 1e-9)
    machine = Machine(tmp_path, defaults(), 100)
    machine.lies(NODE_0, 1)
    (decision,) = machine.cycle()
    assert decision.reason is Reason.REMOTE_MEMORY
    # Nothing came of it: as if a pause had stopped it.
    machine.state = DecisionState()
    machine.lies(NODE_0, 1, policy="bind:1")
    (decision,) = machine.cycle(LATELY_S + 1)
    assert decision.reason is Reason.MEMPOLICY


@pytest.mark.parametrize(
    ("age_s", "mode", "reason"),
    [
        (LATELY_S, Mode.ACT, Reason.REMOTE_MEMORY),
        (LATELY_S + 1, Mode.ACT, Reason.MEASURING),
        (LATELY_S + 1, Mode.ADVISE, Reason.REMOTE_MEMORY),
    ],
)
def test_an_old_full_reading_is_not_acted_on(age_s: float, mode: Mode, reason: Reason) -> None:
    """Nor does a sample that confirms it help; where nothing is done, nothing is read for it."""
    snapshot = seen(GIB // 2)
    (worker,) = snapshot.workers
    assert worker.residency is not None
    at_s = worker.residency.read_at_s + age_s
    confirmed = replace(worker.residency, confirmed=Confirmation(Source.SAMPLE, at_s, 0.01))
    snapshot = replace(snapshot, at_s=at_s, workers=(replace(worker, residency=confirmed),))
    policy = Policy()
    policy = replace(policy, daemon=replace(policy.daemon, mode=mode))
    plan, _ = decide(snapshot, policy, DecisionState())
    assert plan.decisions[0].reason is reason
    assert bool(plan.to_measure) is (reason is Reason.MEASURING)
