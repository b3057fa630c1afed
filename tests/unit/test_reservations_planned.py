"""Workers keep off what is promised to processes to come, for as long as it is."""

from __future__ import annotations

from typing import Any

import pytest

from numad_py.advisor import Advisor
from numad_py.decide.decisions import decide
from numad_py.decide.reservations import Reservations, still_to_come
from numad_py.model.advice import Reservation
from numad_py.model.machine import HugePages, NodeState
from numad_py.model.plan import Decision, DecisionState, Home, HomeSource, Reason, WorkerMemory
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.model.topology import Topology
from numad_py.policy.schema import HugeTlb, MigrationPolicy, Policy
from tests.unit import seen
from tests.unit.advised import N, advised
from tests.unit.advised import machine as idle
from tests.unit.test_stability_cpus import FIRST, SECOND, machine, nodes, one, threads, worker

GIB = 1 << 30
PAGE = 2 << 20
HEADROOM_GIB = 0.05 * 512
UNTIL_S = seen.NOW_S + 60


def promised(gib: float = 0.0, cpus: float = 1.0, node: int = 0, **more: Any) -> DecisionState:
    """Return a state in which so much is promised on a node."""
    values = {"until_s": UNTIL_S, "made_at_s": seen.NOW_S - 10} | more
    return DecisionState(
        reserved=(Reservation(1, None, {node: int(gib * GIB)}, {node: cpus}, **values),)
    )


def tight(*workers: Worker, gib: float = 10.0, **more: Any) -> Snapshot:
    """Return a machine whose first node has room for so many GiB, the second for much more."""
    free = int((HEADROOM_GIB + gib) * GIB)
    states = (
        NodeState(0, 512 * GIB, free, 0, (HugePages(PAGE, 0, 0),), busy_cpus=0.0),
        NodeState(1, 512 * GIB, 300 * GIB, 0, (HugePages(PAGE, 0, 0),), busy_cpus=0.0),
    )
    return machine(*workers, node_states=states, **more)


def decided(look: Snapshot, state: DecisionState, policy: Policy | None = None) -> Decision:
    """Return what is decided about the only worker."""
    return one(decide(look, policy or Policy(), state)[0])


def pinned(gib: dict[int, float], **more: Any) -> Worker:
    """Return a worker that its user pinned to the first node."""
    return worker("x/0", gib, threads=threads(FIRST), **more)


def test_no_home_is_planned_into_room_that_is_promised() -> None:
    """The next best node is taken, and it is said why; when the promise ends it is as before."""
    look = tight(worker("x/0", {0: 5, 1: 4}))
    assert nodes(decided(look, DecisionState())) == {0}
    found = decided(look, promised(8))
    assert nodes(found) == {1}
    assert "8.0 GiB of node 0 is reserved for processes to come" in found.constraints
    assert nodes(decided(look, promised(5))) == {0}
    assert nodes(decided(look, promised(8, until_s=seen.NOW_S))) == {0}


def test_nothing_is_moved_into_room_that_is_promised_whoever_gave_the_home() -> None:
    """A pinned worker waits for its room as anybody does."""
    look = tight(pinned({1: 4}))
    assert decided(look, promised(5)).reason is Reason.REMOTE_MEMORY
    assert decided(look, promised(8)).reason is Reason.NO_ROOM
    assert decided(look, promised(8, until_s=seen.NOW_S)).reason is Reason.REMOTE_MEMORY


def test_no_huge_pages_are_made_of_room_that_is_promised() -> None:
    """Memory is promised once, whatever is made of it."""
    sizes = {(1, Kind.HUGETLB, Mobility.MOVABLE, PAGE): 4 * GIB}
    found = pinned({1: 4})
    found = seen.worker(
        "x/0",
        Residency(entries_of(sizes), seen.NOW_S),
        threads=found.threads,
        run_share={0: 1.0},
        age_s=36000.0,
    )
    makes = Policy(migration=MigrationPolicy(hugetlb=HugeTlb.RESERVE))
    assert decided(tight(found), promised(5), makes).reason is Reason.REMOTE_MEMORY
    assert decided(tight(found), promised(8), makes).reason is Reason.NO_ROOM


def test_no_home_is_planned_onto_cpus_that_are_promised() -> None:
    """Half of its memory is on either node: it goes where its CPUs are free."""
    look = machine(worker("x/0", {0: 5, 1: 4}, cpus=8.0))
    assert nodes(decided(look, DecisionState())) == {0}
    assert nodes(decided(look, promised(cpus=8))) == {0}
    assert nodes(decided(look, promised(cpus=14))) == {1}


def test_nobody_is_moved_on_for_a_promise() -> None:
    """Who lives on a node stays there, though all its CPUs and memory were promised since."""
    look = tight(worker("x/0", {0: 5}, cpus=12.0), gib=1.0)
    home = Home(frozenset({0}), HomeSource.PLANNER, "because")
    workers = {look.workers[0].id: WorkerMemory(home=home)}
    for reserved in (promised(300, 16).reserved, ()):
        found = decided(look, DecisionState(workers, reserved=reserved))
        assert (nodes(found), found.moves) == ({0}, ())


@pytest.mark.parametrize(
    ("mask", "age_s", "execed", "reason"),
    [
        (FIRST, 5.0, False, Reason.REMOTE_MEMORY),
        (frozenset({0, 1}), 5.0, False, Reason.REMOTE_MEMORY),
        (FIRST, 11.0, False, Reason.REMOTE_MEMORY),
        (FIRST, 36000.0, False, Reason.NO_ROOM),
        (FIRST, 5.0, True, Reason.NO_ROOM),
    ],
    ids=["began", "fewer CPUs", "asked and became it", "before", "before and exec"],
)
def test_room_is_kept_from_others_and_not_from_whom_it_is_kept_for(
    mask: frozenset[int], age_s: float, reason: Reason, *, execed: bool
) -> None:
    """Who began since on these nodes' CPUs, as advise --run starts it; not who was there before."""
    execed_at_s = seen.NOW_S - age_s if execed else None
    its = threads(mask)
    look = tight(worker("x/0", {1: 8}, threads=its, age_s=age_s, execed_at_s=execed_at_s))
    found = decided(look, promised(8))
    assert found.reason is reason
    assert ("8.0 GiB of it is reserved" in found.why) is (reason is Reason.NO_ROOM)


def test_what_has_come_is_no_longer_to_come() -> None:
    """By node where it lies as promised; one reservation may be for several workers."""
    first = worker("x/0", {0: 3, 1: 1}, cpus=1.0, threads=threads(FIRST), age_s=5.0)
    second = worker("x/1", {0: 2}, cpus=1.0, threads=threads(FIRST), age_s=5.0)
    apart = worker("x/2", {1: 9}, cpus=1.0, threads=threads(SECOND), age_s=5.0)
    for workers, left in (((first,), 4), ((first, second), 2), ((first, apart), 4), ((), 8)):
        told = still_to_come(promised(8, 4).reserved, machine(*workers))
        assert told.taken_bytes() == {0: left * GIB}
    told = still_to_come(promised(8, 4).reserved, machine(first, second))
    assert told.taken_cpus()[0] == pytest.approx(2.0)


def test_the_next_caller_is_told_of_what_has_come_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process has by now is no longer promised as well."""
    monkeypatch.setattr("numad_py.kernel.clock.boottime_s", lambda: seen.NOW_S)
    advisor = Advisor()

    def asks(gib: int, look: Snapshot) -> bool:
        asked = {"cpus": 1, "bytes": gib * GIB, "within_nodes": "0"}
        return bool(advisor.answer(asked, seen.report(look), Policy())["fits"])

    assert asks(40, tight(gib=60.0))
    assert not asks(30, tight(gib=60.0))
    assert not asks(30, tight(gib=20.0))
    assert asks(15, tight(pinned({0: 40}, age_s=5.0), gib=20.0))
    assert not asks(10, tight(pinned({0: 40}, age_s=5.0), gib=20.0))


def test_promised_cpus_are_promised_once() -> None:
    """That busy CPUs waver by a tenth makes no more of them to promise."""
    look = idle(N(0, range(20)))
    for asked in (18, 19, 20):
        reserved = Reservations().add(advised(look, asked), None, 1120.0)
        for more in range(1, 4):
            found = advised(look, more, reserved=reserved)
            assert found.crowded is (asked + more > 20)


def test_many_reservations_are_not_gone_through_for_their_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a set of nodes has is worked out once, whatever is promised there and to how many."""
    asked: list[frozenset[int]] = []
    cpus_of = Topology.cpus_of

    def counted(self: Topology, ids: frozenset[int]) -> frozenset[int]:
        asked.append(ids)
        return cpus_of(self, ids)

    monkeypatch.setattr(Topology, "cpus_of", counted)
    look = tight(pinned({1: 4}, age_s=20.0))
    made_at_s = {100: seen.NOW_S - 10, 102: seen.NOW_S - 9}
    reserved = tuple(
        Reservation(
            i, None, {i % 2: 8 * GIB}, {i % 2: 1.0}, UNTIL_S, made_at_s.get(i, seen.NOW_S - 1)
        )
        for i in range(1024)
    )
    left = still_to_come(reserved, look)
    assert len(set(asked)) == len(asked)
    assert len(asked) <= 3
    # It was begun for the first that is old enough.
    assert [i for i, one in enumerate(left.alive) if one != reserved[i]] == [100]
