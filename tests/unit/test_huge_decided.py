"""What is promised of huge pages: those that are free, and those that may be made."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from numad_py.decide.decisions import decide
from numad_py.model.machine import HugePages as Pool
from numad_py.model.machine import NodeState
from numad_py.model.plan import Decision, DecisionState, MemoryMove, Reason
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.policy.schema import HugeTlb, MigrationPolicy, PlacementPolicy, Policy
from tests.unit import seen
from tests.unit.fake_pools import AWAY, HOME, HUGE


def decided(hugetlb: HugeTlb, free_pages: int, room_pages: int) -> Decision:
    """Return what is decided about 8 huge pages on node 1 whose worker is pinned to node 0.

    Node 0 has so many free, and room for so many above its headroom.
    """
    sizes = {(AWAY, Kind.HUGETLB, Mobility.MOVABLE, HUGE): 8 * HUGE}
    look = seen.snapshot(
        seen.worker("x/0", Residency(entries_of(sizes), seen.NOW_S)),
        node_states=(
            NodeState(HOME, 0, room_pages * HUGE + 5, 0, (Pool(HUGE, 8, free_pages),)),
            NodeState(AWAY, 0, 0, 0, (Pool(HUGE, 8, 0),)),
        ),
    )
    policy = Policy(
        migration=MigrationPolicy(hugetlb=hugetlb), placement=PlacementPolicy(min_remote_bytes=1)
    )
    plan, _ = decide(look, policy, DecisionState())
    return plan.decisions[0]


@pytest.mark.parametrize(
    ("hugetlb", "free_pages", "room_pages", "goes"),
    [
        (HugeTlb.FREE, 8, 0, True),
        (HugeTlb.FREE, 7, 100, False),
        (HugeTlb.RESERVE, 7, 0, False),
        (HugeTlb.RESERVE, 7, 1, True),
        (HugeTlb.RESERVE, 0, 8, True),
        (HugeTlb.RESERVE, 0, 7, False),
    ],
)
def test_a_home_takes_what_is_free_and_what_may_be_made(
    hugetlb: HugeTlb,
    free_pages: int,
    room_pages: int,
    goes: bool,  # noqa: FBT001
) -> None:
    """With "reserve" its ordinary memory counts too; who does not fit is told how to have more."""
    decision = decided(hugetlb, free_pages, room_pages)
    if goes:
        assert decision.moves == (MemoryMove(AWAY, HOME, 8 * HUGE),)
    else:
        assert decision.reason is Reason.NO_ROOM
        how = 'add to nr_hugepages of that node, or set [migration] hugetlb = "reserve"'
        assert (how in decision.why) == (hugetlb is HugeTlb.FREE)


@dataclass(frozen=True)
class Want:
    """What a worker pinned to node 0 has on node 1, in huge pages' sizes."""

    huge: int = 0
    ordinary: int = 0


def planned(hugetlb: HugeTlb, free_pages: int, room_pages: int, *wants: Want) -> list[Decision]:
    """Return what is decided about several workers at once; see ``decided``."""
    workers = []
    for number, want in enumerate(wants):
        sizes = {
            (AWAY, Kind.HUGETLB, Mobility.MOVABLE, HUGE): want.huge * HUGE,
            (AWAY, Kind.ANON, Mobility.MOVABLE, 4096): want.ordinary * HUGE,
        }
        residency = Residency(entries_of(sizes), seen.NOW_S)
        workers.append(seen.worker(f"x/{number}", residency))
    look = seen.snapshot(
        *workers,
        node_states=(
            NodeState(HOME, 0, room_pages * HUGE + 5, 0, (Pool(HUGE, 20, free_pages),)),
            NodeState(AWAY, 0, 0, 0, (Pool(HUGE, 20, 0),)),
        ),
    )
    policy = Policy(
        migration=MigrationPolicy(hugetlb=hugetlb), placement=PlacementPolicy(min_remote_bytes=1)
    )
    plan, _ = decide(look, policy, DecisionState())
    return list(plan.decisions)


@pytest.mark.parametrize(
    ("free_pages", "room_pages", "wants", "go", "said"),
    [
        # Free pages go once, with either policy.
        (12, 0, (Want(8), Want(8)), 1, "has room for 8.0 MiB in 2.0 MiB huge pages"),
        (16, 0, (Want(8), Want(8)), 2, ""),
        # So does the memory that pages are made of.
        (0, 12, (Want(8), Want(8)), 1, "has room for 8.0 MiB in 2.0 MiB huge pages"),
        (4, 8, (Want(8), Want(8)), 1, "has room for 8.0 MiB in 2.0 MiB huge pages"),
        (4, 12, (Want(8), Want(8)), 2, ""),
        # Which is ordinary memory too: of two workers, or of one.
        (0, 12, (Want(8), Want(ordinary=8)), 1, "room for 8.0 MiB above its headroom"),
        (0, 12, (Want(8, ordinary=8),), 0, "room for 8.0 MiB above its headroom"),
        (8, 8, (Want(8, ordinary=8),), 1, ""),
    ],
)
def test_room_is_promised_once_whatever_pages_are_made_of_it(
    free_pages: int, room_pages: int, wants: tuple[Want, ...], go: int, said: str
) -> None:
    """Who comes too late is refused, and told what is left for it."""
    found = planned(HugeTlb.RESERVE, free_pages, room_pages, *wants)
    assert sum(bool(one.moves) for one in found) == go
    for one in found:
        if not one.moves:
            assert one.reason is Reason.NO_ROOM
            assert said in one.why


def test_free_pages_are_promised_once() -> None:
    """The second is told what is left, and how to have more."""
    found = planned(HugeTlb.FREE, 12, 100, Want(8), Want(8))
    assert [bool(one.moves) for one in found] == [True, False]
    assert "8.0 MiB free in its pool of 2.0 MiB huge pages" in found[1].why


def test_who_has_reserve_is_not_told_to_set_it() -> None:
    """What it lacks is memory, for free pages and for those that would be made."""
    why = decided(HugeTlb.RESERVE, 0, 7).why
    assert "add to nr_hugepages" not in why
    assert "reserve" not in why
    assert "14.0 MiB" in why
