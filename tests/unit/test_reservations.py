"""What is kept for processes to come: callers one after another, expiry, workers' moves."""

from __future__ import annotations

from numad_py.advisor import Advisor
from numad_py.decide.advise import advise, coming_bytes
from numad_py.decide.reservations import MOST, Reservations
from numad_py.model.advice import Advice, NoAdvice, Request
from numad_py.model.plan import (
    Decision,
    Finding,
    Home,
    HomeSource,
    MemoryMove,
    Plan,
    Reason,
    Verdict,
)
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.policy.schema import DaemonPolicy, Policy
from tests.unit.advised import GIB, POLICY, N, advised, machine, sockets
from tests.unit.seen import report


def reserve(
    reserved: Reservations, seen: Snapshot, cpus: int, gib: float, until_s: float = 1120.0
) -> tuple[frozenset[int], Reservations]:
    """Return what a caller is told, and the reservations after it."""
    found = advised(seen, cpus, gib, reserved=reserved)
    return found.nodes, reserved.add(found, None, until_s)


def test_callers_one_after_another_get_rooms_of_their_own() -> None:
    """Four of 12 GiB get four nodes, the fifth is told how much is reserved."""
    seen, reserved, told = sockets(16, 16, 16, 16), Reservations(), []
    for _ in range(4):
        nodes, reserved = reserve(reserved, seen, 3, 12)
        told.append(nodes)
    assert sorted(map(sorted, told)) == [[0], [1], [4], [5]]
    nothing = advise(seen, POLICY, Request(1, 17 * GIB), reserved)
    assert isinstance(nothing, NoAdvice)
    assert nothing.why.endswith("and 48.0 GiB reserved for others")
    assert nothing.most_bytes == 16 * GIB


def test_callers_that_ask_for_cpus_alone_are_kept_apart_too() -> None:
    """And where all is promised, the least promised is advised, crowded."""
    seen, reserved = machine(N(0, range(4)), N(1, range(4, 8))), Reservations()
    first, reserved = reserve(reserved, seen, 4, 0)
    second, reserved = reserve(reserved, seen, 3, 0)
    assert first == {0}
    assert second == {1}
    third = advised(seen, 4, 0, reserved=reserved)
    assert third.nodes == {1}
    assert third.crowded
    assert any("reserved is left out: 7 CPUs on node 0-1" in said for said in third.reasons)


def test_an_expired_reservation_holds_nothing() -> None:
    """Alive until its time, gone at it."""
    seen = machine(N(0, (0, 1)), N(1, (2, 3)))
    nodes, reserved = reserve(Reservations(), seen, 2, 12, until_s=1060.0)
    assert advised(seen, 2, 12, reserved=reserved.at(1059.9)).nodes != nodes
    assert advised(seen, 2, 12, reserved=reserved.at(1060.0)).nodes == nodes
    assert reserved.at(1060.0).alive == ()


def test_a_reservation_of_the_same_name_is_replaced() -> None:
    """Its own earlier room is free to whoever asks again; those without a name stay."""
    advice = advised(machine(N(0, (0, 1))), 2, 12)
    reserved = Reservations().add(advice, "vm", 1120.0).add(advice, None, 1120.0)
    assert reserved.without("vm").taken_bytes() == {0: 12 * GIB}
    again = reserved.add(advice, "vm", 1130.0)
    assert [(one.id, one.name, one.until_s) for one in again.alive] == [
        (2, None, 1120.0),
        (3, "vm", 1130.0),
    ]
    assert again.without(None) == again


def test_there_are_so_many_reservations_at_most() -> None:
    """Full at the last, and not before."""
    advice = advised(machine(N(0, (0, 1))), 1)
    reserved = Reservations()
    for _ in range(MOST):
        assert not reserved.full
        reserved = reserved.add(advice, None, 1120.0)
    assert reserved.full


def test_a_reservation_lasts_until_the_next_look_at_least() -> None:
    """With hours between looks, what was started on it two minutes ago is not seen yet."""
    seen = report(machine(N(0, (0, 1)), N(1, (2, 3))))
    for interval_s, lasts_s in ((5.0, 120.0), (3600.0, 3600.0)):
        policy = Policy(daemon=DaemonPolicy(interval_s=interval_s))
        told = Advisor().answer({"cpus": 1}, seen, policy)
        assert told["reservation"]["expires_in_seconds"] == lasts_s


def test_what_workers_are_about_to_bring_is_no_room() -> None:
    """Moves decided upon by their target, moves under way by what is still remote."""

    def decision(reason: Reason, remote: int, *moves: MemoryMove) -> Decision:
        worker = WorkerId(10, 5)
        home = Home(frozenset({0, 1}), HomeSource.PLANNER, "because")
        finding = Finding(worker, "x/0", home, remote, remote, 0, 0.0, 1.0)
        verdict = Verdict.ACT if moves else Verdict.WAIT
        return Decision("3:x/0", worker, "x/0", "x", verdict, reason, "", finding, moves=moves)

    coming = coming_bytes(
        Plan(
            3,
            (
                decision(Reason.REMOTE_MEMORY, 3 * GIB, MemoryMove(2, 0, 3 * GIB)),
                decision(Reason.MOVING, 4 * GIB),
                decision(Reason.COOLDOWN, 5 * GIB),
            ),
        )
    )
    assert coming == {0: 5 * GIB, 1: 2 * GIB}
    found = advise(
        machine(N(0, (0, 1), 8), N(2, (2, 3), 6)), POLICY, Request(1, 4 * GIB), None, coming
    )
    assert isinstance(found, Advice)
    assert found.nodes == {2}
