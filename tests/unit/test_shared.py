"""Who moves a file that several workers map, and what the others say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Part, Reason, Verdict
from numad_py.model.residency import Kind, Source
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import PlacementPolicy, Policy, SharedPages
from numad_py.replay.simulate import Simulation
from numad_py.serve.decision_status import not_by_hand
from numad_py.serve.explain import explain_document, render_explain
from numad_py.serve.status import status_document
from tests.unit import seen
from tests.unit.seen import MIB, NOW_S
from tests.unit.sharing import WEIGHTS, machine, policy, worker

EMPTY = DecisionState()
ON_1 = policy({"x": 1})


def three(weights: dict[int, int] | None = None, *, mapmax: int = 3) -> list[Worker]:
    """Return three workers at home on node 1 that map 512 MiB of a file on node 0."""
    return [worker(f"x/{i}", {1: 100}, weights or {0: 512}, mapmax=mapmax) for i in range(3)]


def decided(
    snapshot: Snapshot, rules: Policy = ON_1, state: DecisionState = EMPTY
) -> tuple[list[Decision], DecisionState]:
    """Return the decisions of a cycle, and the state after it."""
    plan, state = decide(snapshot, rules, state)
    return list(plan.decisions), state


def moved_bytes(decisions: list[Decision]) -> int:
    """Return what is to be moved in all."""
    return sum(decision.move_bytes for decision in decisions)


def test_one_of_its_users_moves_a_file_once_for_all() -> None:
    """The first by label carries all of its bytes; the others say who does, and move nothing."""
    first, *others = decided(machine(*three()))[0]
    assert (first.verdict, first.reason) == (Verdict.ACT, Reason.REMOTE_MEMORY)
    assert [(m.source, m.target, m.move_bytes) for m in first.moves] == [(0, 1, 512 * MIB)]
    assert "512.0 MiB of /m.gguf is moved once, for x/1 and x/2 too" in first.why
    assert [shared.id for shared in first.carried] == [WEIGHTS]
    assert first.other_users == {decision.worker for decision in others}
    for other in others:
        assert not other.moves
        assert not other.carried
        assert "512.0 MiB of /m.gguf is left to x/0, which moves it for all" in other.why
        assert (other.finding.left_bytes, other.finding.shared_bytes) == (512 * MIB, 0)


def test_shared_memory_stays_by_default() -> None:
    """A rule that does not say otherwise leaves it, and nothing is said of who shares it."""
    leave = policy({"x": 1}, shared=SharedPages.LEAVE)
    for decision in decided(machine(*three()), leave)[0]:
        assert (decision.moves, decision.shared) == ((), ())
        assert decision.finding.shared_bytes == 512 * MIB


def test_two_homes_keep_a_file_where_it_is() -> None:
    """Each says with whom it shares the file, and where that one belongs."""
    workers = [
        worker("x/0", {1: 100}, {0: 512}, mapmax=2),
        worker("y/5", {0: 100}, {0: 512}, mapmax=2),
    ]
    first, second = decided(machine(*workers), policy({"x": 1, "y": 0}))[0]
    assert not first.moves
    assert first.reason is Reason.IMMOVABLE
    assert "of /m.gguf stays: it is shared with y/5, whose home is node 0" in first.why
    # To the other it is at home.
    assert second.shared == ()


@pytest.mark.parametrize(
    ("workers", "rules", "why"),
    [
        (three(mapmax=4), ON_1, "up to 4 processes map a page of it"),
        (three()[:1], ON_1, "none of them is a known worker"),
        (
            [*three(mapmax=4), worker("y/5", {1: 100}, {0: 512}, mapmax=4)],
            replace(ON_1, rules=(*ON_1.rules, *policy({"y": 1}, shared=SharedPages.LEAVE).rules)),
            'it is shared with y/5, whose rule does not say shared = "users"',
        ),
        (
            [*three(mapmax=4), worker("y/5", {1: 100}, {0: 512}, mapmax=4)],
            replace(ON_1, rules=(*ON_1.rules, *policy({"y": 1}, files=False).rules)),
            "it is shared with y/5, whose rule leaves files alone",
        ),
        (
            [*three(mapmax=4), worker("x/3", {}, {0: 512}, mapmax=4, bound=1024)],
            ON_1,
            "it is shared with x/3, whose user placed its memory",
        ),
        (
            [*three(mapmax=4), worker("y/5", {1: 100}, {0: 512}, mapmax=4)],
            policy({"x": 1, "y": 7}),
            "it is shared with y/5, which has no home",
        ),
    ],
    ids=["a stranger", "alone among strangers", "another rule", "files", "bound", "no home"],
)
def test_a_user_that_is_unknown_or_unwilling_keeps_it(
    workers: list[Worker], rules: Policy, why: str
) -> None:
    """All who map it must be known, willing, and have a home; who is not is named."""
    for decision in decided(machine(*workers), rules)[0]:
        assert not decision.carried
        assert all(move.move_bytes < 512 * MIB for move in decision.moves)
    assert why in decided(machine(*workers), rules)[0][0].why


def test_nobody_else_moves_it_while_it_is_on_its_way() -> None:
    """The carrier stays the same until its move has ended; another that moves makes it wait."""
    workers = three()
    _, state = decided(machine(*workers))
    again, _ = decided(machine(*workers), state=state)
    assert [d.reason for d in again] == [Reason.MOVING, Reason.HOME, Reason.HOME]
    # The first has nothing away any more, but its move has not ended.
    workers[0] = worker("x/0", {1: 100}, {1: 512}, mapmax=3)
    later, _ = decided(machine(*workers), state=state)
    assert moved_bytes(later) == 0
    assert {s.part for d in later for s in d.shared} == {Part.WAITS}
    assert "waits until x/0 has been moved" in later[1].why


def test_what_only_another_maps_is_moved_by_that_one_then() -> None:
    """A worker moves what it maps itself: the rest is carried by one who maps it, in its turn."""
    workers = [
        worker("x/0", {1: 100}, {1: 200}, mapmax=2),
        worker("x/1", {1: 100}, {1: 200, 0: 300}, mapmax=2),
    ]
    first, second = decided(machine(*workers))[0]
    assert (first.shared, first.move_bytes) == ((), 0)
    assert second.move_bytes == 300 * MIB


def test_its_room_is_taken_once() -> None:
    """A file of 2 GiB goes to a node with room for 3, though four map it."""
    snapshot = machine(
        *(worker(f"x/{i}", {1: 100}, {0: 2048}, mapmax=4) for i in range(4)), free_gib=3
    )
    decisions, _ = decided(snapshot)
    assert moved_bytes(decisions) == 2048 * MIB
    assert [d.reason for d in decisions] == [Reason.REMOTE_MEMORY, *[Reason.HOME] * 3]


def test_without_room_it_stays() -> None:
    """Headroom counts it like memory of the carrier's own."""
    workers = [worker(f"x/{i}", {1: 100}, {0: 3072}, mapmax=2) for i in range(2)]
    first, _ = decided(machine(*workers, free_gib=3))[0]
    assert (first.reason, first.move_bytes) == (Reason.NO_ROOM, 0)


def read_at(snapshot: Snapshot, at_s: float) -> Snapshot:
    """Return the same, found by a later look."""
    workers = tuple(
        replace(
            w,
            age_s=w.age_s + at_s - snapshot.at_s,
            residency=w.residency and replace(w.residency, read_at_s=at_s),
        )
        for w in snapshot.workers
    )
    return replace(snapshot, at_s=at_s, workers=workers)


def carried_out(state: DecisionState, decision: Decision, *, left: int) -> DecisionState:
    """Return the state after a carrier's move that left so many MiB on node 0."""
    after = worker("x/0", {1: 100}, {0: left, 1: 512 - left}, mapmax=3).residency
    moved = {(0, 1): (512 - left) * MIB}
    end = End.PARTIAL if left else End.DONE
    return remember(state, [Outcome(decision, end, NOW_S, 1.0, moved=moved, after=after)], NOW_S)


def test_what_would_not_move_is_left_alone_by_all_its_users() -> None:
    """None of them tries in place of the one that did, until it is tried again after a while."""
    snapshot = machine(*three())
    decisions, state = decided(snapshot)
    state = carried_out(state, decisions[0], left=512)
    calm, _ = decided(read_at(snapshot, NOW_S + 300), state=state)
    assert moved_bytes(calm) == 0
    for decision in calm:
        assert "stays: it would not move when x/0 was to move it" in decision.why
    late, _ = decided(read_at(snapshot, NOW_S + 1000), state=state)
    assert late[0].move_bytes == 512 * MIB
    assert late[0].retry_refused


def test_what_has_moved_is_nobodys_any_more() -> None:
    """Once it is at home nothing is said of it, and nothing counts as stuck."""
    snapshot = machine(*three())
    decisions, state = decided(snapshot)
    state = carried_out(state, decisions[0], left=0)
    assert state.of(decisions[0].worker).stuck == ()
    later = read_at(machine(*three({1: 512})), NOW_S + 300)
    assert [(d.shared, d.move_bytes) for d in decided(later, state=state)[0]] == [((), 0)] * 3


def test_before_it_is_moved_its_carrier_is_read_in_full() -> None:
    """A sample does not tell how often a page is mapped."""
    workers = three()
    for i, one in enumerate(workers):
        assert one.residency is not None
        parts = tuple(replace(p, shared_by_node=(), mapmax=0) for p in one.residency.segments)
        sampled = replace(one.residency, segments=parts, sampled_pages=4000, source=Source.SAMPLE)
        workers[i] = replace(one, residency=sampled)
    first, *_ = decided(machine(*workers))[0]
    assert (first.reason, first.move_bytes) == (Reason.MEASURING, 0)


def test_shared_memory_without_a_file_is_moved_where_files_are_left() -> None:
    """``files = false`` is about files on disks; a segment in /dev/shm is memory."""
    workers = [worker(f"x/{i}", {1: 100}, {0: 512}, mapmax=2, kind=Kind.SHMEM) for i in range(2)]
    first, _ = decided(machine(*workers), policy({"x": 1}, files=False))[0]
    assert first.move_bytes == 512 * MIB


@pytest.mark.parametrize(("files", "moved"), [(True, 512), (False, 0)])
def test_weights_that_it_alone_maps_move_unless_its_rule_leaves_files_alone(
    *, files: bool, moved: int
) -> None:
    """By default they count as its memory; left alone, they neither move nor count as remote."""
    one = worker("x/0", {1: 100}, {0: 512}, mapmax=1)
    rules = policy({"x": 1}, files=files, shared=SharedPages.LEAVE)
    (decision,) = decided(machine(one), rules)[0]
    assert decision.move_bytes == moved * MIB
    assert decision.leave_files is not files
    assert decision.finding.left_bytes == (512 - moved) * MIB
    assert (decision.finding.locality == 1.0) is not files


def test_small_shares_are_not_worth_a_word() -> None:
    """Libraries that strangers use too would be named with each worker."""
    workers = three({0: 20}, mapmax=200)
    decisions, _ = decided(machine(*workers))
    assert PlacementPolicy().min_remote_bytes > 20 * MIB
    for decision in decisions:
        assert decision.shared
        assert "/m.gguf" not in decision.why


def test_what_is_on_its_way_keeps_its_room() -> None:
    """While the carrier moves, nobody else is promised the room that the file still needs."""
    workers = [worker(f"x/{i}", {1: 100}, {0: 2048}, mapmax=2) for i in range(2)]
    rules = policy({"x": 1, "z": 1})
    _, state = decided(machine(*workers, free_gib=3), rules)
    late = worker("z/9", {0: 1500}, {}, mapmax=1)
    *_, last = decided(machine(*workers, late, free_gib=3), rules, state)[0]
    assert (last.reason, last.move_bytes) == (Reason.NO_ROOM, 0)
    *_, only = decided(machine(late, free_gib=3), rules)[0]
    assert only.move_bytes == 1500 * MIB


def test_a_replay_moves_it_once_for_all_too() -> None:
    """On the simulated machine all its users find it at home, and nothing is done again."""
    simulation = Simulation(ON_1)
    seen = [simulation.step(read_at(machine(*three()), NOW_S + wait_s)) for wait_s in (0, 60, 200)]
    moved = [sum(outcome.moved_bytes for outcome in cycle.outcomes) for cycle in seen]
    assert moved == [0, 512 * MIB, 0]
    for worker_ in seen[2].snapshot.workers:
        assert worker_.residency is not None
        assert worker_.residency.by_node() == {1: 612 * MIB}
    assert [said.moves for said in seen[2].said] == [()] * 3


def story(snapshot: Snapshot, rules: Policy, label: str) -> str:
    """Return what ``explain`` says of a worker, in one line."""
    made = seen.report(snapshot, *decided(snapshot, rules)[0])
    document = explain_document(status_document(made, source="daemon"), label)
    return " ".join(render_explain(document).split())


def test_explain_tells_who_moves_it_or_who_keeps_it() -> None:
    """In the story of each of its users, once, and with what cannot be moved by that one."""
    moved = "512.0 MiB of /m.gguf is moved once, for x/1 and x/2 too."
    left = "512.0 MiB of /m.gguf is left to x/0, which moves it for all"
    assert story(machine(*three()), ON_1, "x/0").count(moved) == 1
    told = story(machine(*three()), ON_1, "x/2")
    assert told.count(left) == 1
    assert "512.0 MiB cannot: its rule leaves files alone, or another worker moves it" in told
    two = [worker("x/0", {1: 9}, {0: 512}, mapmax=2), worker("y/5", {0: 9}, {0: 512}, mapmax=2)]
    told = story(machine(*two), policy({"x": 1, "y": 0}), "x/0")
    assert told.count("of /m.gguf stays: it is shared with y/5, whose home is node 0") == 1
    assert "512.0 MiB cannot: other processes use it too." in told


def test_no_command_leaves_files_where_they_are() -> None:
    """Whoever would do by hand what is planned is told what else migratepages does."""
    one = worker("x/0", {0: 100}, {0: 512}, mapmax=1)
    for files, told in ((True, []), (False, ["migratepages takes mapped files along"])):
        (decision,) = decided(machine(one), policy({"x": 1}, files=files))[0]
        assert decision.moves
        assert [text.partition(",")[0] for text in not_by_hand(decision)] == told
