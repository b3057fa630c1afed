"""What a guard has begun ends, whatever becomes of the worker: nobody waits for it for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.guard import Compared, GuardMemory
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Reason
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import Mode, Policy
from tests.unit import seen
from tests.unit.guarded import (
    STEP_S,
    Server,
    acted,
    alike,
    histogram,
    policy,
    seen_after,
    windows,
)
from tests.unit.test_stability import MIB, machine, worker

LONGEST_S = 4 * 30 + 2 * STEP_S
"""For so long a move is judged at most."""
FIRST_S = 1070.0
"""A window after the move of ``acted``."""
FELLOW = worker("x/1", {1: 1000}, age_s=3600.0)


def unreadable() -> Worker:
    """Return the moved worker, whose memory nobody may look at any more."""
    return replace(seen_after(1000), residency=None, problem="no right")


def homeless() -> Worker:
    """Return it with a cpuset that leaves its rule no node."""
    moved = seen_after(1000)
    return replace(moved, memory=replace(moved.memory, mems_allowed=frozenset({1})))


def bound() -> Worker:
    """Return it with its memory bound by its user."""
    sizes = {(0, Kind.ANON, Mobility.POLICY): 1000 * MIB}
    return replace(seen_after(1000), residency=seen.residency(sizes))


def on_one_node(snapshot: Snapshot) -> Snapshot:
    """Return a machine that has memory on node 0 alone."""
    first, *others = snapshot.topology.nodes
    left = (first, *(replace(node, memory_bytes=0) for node in others))
    return replace(snapshot, topology=replace(snapshot.topology, nodes=left))


@dataclass
class Cycles:
    """Cycles of 5 s that begin once a move has been watched for a window."""

    state: DecisionState
    at_s: float = FIRST_S
    policy: Policy = field(default_factory=policy)

    def step(self, *workers: Worker, changed: Callable[[Snapshot], Snapshot] | None = None) -> None:
        """Decide once."""
        snapshot = machine(*workers, at_s=self.at_s)
        snapshot = changed(snapshot) if changed else snapshot
        plan, self.state = decide(snapshot, self.policy, self.state)
        self.said = {d.label: d for d in plan.decisions}
        self.at_s += STEP_S

    def end(self, decision: Decision, end: End, moved_mib: int = 0) -> None:
        """Tell that acting has ended."""
        moved = {(0, 1): moved_mib * MIB} if moved_mib else {}
        outcome = Outcome(decision, end, self.at_s, 0.0, moved=moved)
        self.state = remember(self.state, [outcome], self.at_s - STEP_S + 1.0)

    @property
    def guard(self) -> GuardMemory:
        """What is remembered of the moved worker."""
        return self.state.of(seen_after(1000).id).guard

    @property
    def fellow_waits(self) -> bool:
        """Whether the other one is kept from moving by the moved one."""
        return "x/0, which has the same guard" in self.said["x/1"].why

    def until_free(self, moved: Worker) -> float:
        """Go on until the fellow is; return how long the moved worker was in the way."""
        began_s = self.at_s
        for _ in range(100):
            self.step(moved, FELLOW)
            if not self.fellow_waits:
                return self.at_s - STEP_S - began_s
        msg = f"{self.said['x/1'].why} after {self.at_s - began_s:.0f} s"
        raise AssertionError(msg)


def undoing(reason: Reason = Reason.GUARD_UNDO) -> Cycles:
    """Return cycles in the first of which a move is being taken back."""
    cycles = Cycles(acted(1000))
    cycles.step(seen_after(1000), FELLOW)
    assert cycles.said["x/0"].reason is reason
    return cycles


def better(state: DecisionState) -> DecisionState:
    """Return the state of ``acted`` with a latency that has stayed as it was."""
    server = Server(alike)
    key = seen_after(1000).id
    memory = state.of(key)
    guard = replace(memory.guard, readings=windows(server, 1035.0, 0))
    return replace(state, workers={key: replace(memory, guard=guard)})


# While a move is judged


@pytest.mark.parametrize(
    ("moved", "reason", "why"),
    [
        (unreadable(), Reason.UNREADABLE, "its memory could not be read"),
        (homeless(), Reason.NO_HOME, "there was no home for it"),
    ],
    ids=["unreadable", "no home"],
)
def test_a_harmful_move_that_cannot_be_taken_back_stays_in_the_end(
    moved: Worker, reason: Reason, why: str
) -> None:
    """After as long as a move is judged at most; that and why is said, once."""
    cycles = Cycles(acted(1000))
    assert cycles.until_free(moved) == LONGEST_S + STEP_S
    judgement = cycles.guard.judgement
    assert judgement is not None
    assert judgement.result is Compared.NOT_COMPARABLE
    assert "300% worse" in judgement.why
    assert judgement.why.endswith(f"it could not be taken back for 130 s: {why}; the move stays")
    assert (cycles.guard.before, cycles.guard.moved_at_s, cycles.guard.moved) == (None, None, {})
    assert cycles.guard.hindered_at_s is None
    said = cycles.said["x/0"]
    assert (said.reason, said.judgement) == (reason, judgement)
    cycles.step(moved, FELLOW)
    assert cycles.said["x/0"].judgement == judgement
    assert "the move stays" not in cycles.said["x/0"].why


def test_on_a_machine_of_one_node_it_ends_too() -> None:
    """All other nodes lost their memory."""
    cycles = Cycles(acted(1000))
    for _ in range(30):
        cycles.step(seen_after(1000), changed=on_one_node)
        assert cycles.said["x/0"].reason is Reason.ONE_NODE
    assert cycles.guard.moved_at_s is None
    assert cycles.guard.judgement is not None
    assert cycles.guard.judgement.result is Compared.NOT_COMPARABLE


def test_what_hinders_for_a_moment_only_does_not_end_it() -> None:
    """Two minutes unreadable, and it is taken back as soon as it can be; then it begins anew."""
    cycles = Cycles(acted(1000))
    for _ in range(24):
        cycles.step(unreadable(), FELLOW)
    cycles.step(replace(seen_after(1000), guard=None), FELLOW)
    assert cycles.said["x/0"].reason is Reason.GUARD_UNDO
    assert cycles.guard.undone == 1


def test_a_pause_does_not_count() -> None:
    """An hour of it between two cycles that could not read it."""
    cycles = Cycles(acted(1000))
    reasons = []
    for moved, paused, then_s in (
        (unreadable(), False, 0.0),
        (seen_after(1000), True, 3600.0),
        (unreadable(), False, 0.0),
        (seen_after(1000), False, 0.0),
    ):
        cycles.state = replace(cycles.state, paused=paused)
        cycles.step(moved, FELLOW)
        reasons.append(cycles.said["x/0"].reason)
        cycles.at_s += then_s
    assert reasons == [Reason.UNREADABLE, Reason.PAUSED, Reason.UNREADABLE, Reason.GUARD_UNDO]


def test_a_move_that_did_no_harm_needs_no_look_at_the_memory() -> None:
    """Its readings tell that it stays, though the memory cannot be read."""
    cycles = Cycles(better(acted(1000)))
    cycles.step(unreadable(), FELLOW)
    said = cycles.said["x/0"]
    assert said.reason is Reason.UNREADABLE
    assert said.judgement is not None
    assert said.judgement.result is Compared.KEPT
    assert said.why.startswith("no right; ")
    assert cycles.guard.moved_at_s is None


def test_without_readings_either_it_ends_as_unreadable() -> None:
    """After as long as a move is judged at most, counted from the move."""
    cycles = Cycles(acted(1000))
    key = seen_after(1000).id
    memory = cycles.state.of(key)
    silent = replace(memory, guard=replace(memory.guard, readings=()))
    cycles.state = replace(cycles.state, workers={key: silent})
    assert FIRST_S + cycles.until_free(unreadable()) == 1035.0 + LONGEST_S + STEP_S
    assert cycles.guard.judgement is not None
    assert cycles.guard.judgement.result is Compared.UNREADABLE


def test_a_worker_that_its_user_binds_is_judged_no_longer() -> None:
    """At once, before a window is full and whatever is measured; it is its user's now."""
    cycles = Cycles(acted(1000), at_s=1040.0)
    cycles.step(replace(bound(), guard=histogram(1040.0, [0, 0, 0, 9, 9, 9])), FELLOW)
    said = cycles.said["x/0"]
    assert said.reason is Reason.MEMPOLICY
    assert said.judgement is not None
    assert said.judgement.result is Compared.NOT_COMPARABLE
    assert said.judgement.why.endswith("its user has placed its memory since; the move stays")
    assert cycles.guard.moved_at_s is None
    cycles.step(bound(), FELLOW)
    assert not cycles.fellow_waits


def test_who_is_not_judged_has_nothing_to_end() -> None:
    """A guarded worker that cannot be read says that, and nothing of a guard."""
    cycles = Cycles(DecisionState())
    for _ in range(60):
        cycles.step(unreadable())
    assert cycles.said["x/0"].why == "no right"
    assert cycles.said["x/0"].judgement is None
    assert cycles.guard == GuardMemory()


# While a move is taken back


@pytest.mark.parametrize("moved", [unreadable(), homeless()], ids=["unreadable", "no home"])
def test_taking_back_that_cannot_go_on_is_given_up(moved: Worker) -> None:
    """Stopped in the middle, and then not possible for as long as a move is judged at most."""
    cycles = undoing()
    cycles.end(cycles.said["x/0"], End.STOPPED)
    judgement = cycles.guard.judgement
    assert cycles.until_free(moved) == LONGEST_S + STEP_S
    assert not cycles.guard.undoing
    assert cycles.guard.moved == {}
    assert cycles.guard.judgement == judgement
    assert cycles.guard.hindered_at_s is None


def test_that_it_is_given_up_is_said() -> None:
    """In the cycle that does, beside what hinders it."""
    cycles = undoing()
    cycles.end(cycles.said["x/0"], End.STOPPED)
    told = set()
    for _ in range(40):
        cycles.step(unreadable(), FELLOW)
        told.add(cycles.said["x/0"].why)
    given_up = "no right; taking its move back is given up after 130 s; the rest of it stays"
    assert told == {"no right", given_up}


def test_taking_back_from_whom_its_user_binds_is_given_up_at_once() -> None:
    """Its memory is where its user wants it by now."""
    cycles = undoing()
    cycles.end(cycles.said["x/0"], End.STOPPED)
    cycles.step(bound(), FELLOW)
    said = cycles.said["x/0"]
    assert said.reason is Reason.MEMPOLICY
    assert said.why.endswith("taking its move back is given up; the rest of it stays")
    assert not cycles.guard.undoing
    cycles.step(bound(), FELLOW)
    assert not cycles.fellow_waits


@pytest.mark.parametrize("moved_mib", [0, 10])
def test_memory_that_stays_short_does_not_keep_fellows_waiting(moved_mib: int) -> None:
    """Tried each window, it is given up where nothing goes back; a little each time is enough."""
    cycles = undoing()
    tries, free, ends = 1, False, not moved_mib
    cycles.end(cycles.said["x/0"], End.PRESSURE, moved_mib)
    for _ in range(60):
        cycles.step(seen_after(1000), FELLOW)
        said = cycles.said["x/0"]
        if said.give_back:
            tries += 1
            cycles.end(said, End.PRESSURE, moved_mib)
        free = free or not cycles.fellow_waits
    assert free is ends
    assert cycles.guard.undoing is not ends
    if ends:
        assert tries == 1 + LONGEST_S // (30 + STEP_S)
    assert cycles.guard.undone == 1


def test_what_only_advises_now_does_not_keep_fellows_waiting() -> None:
    """The mode was changed before it was taken back: nobody does that any more."""
    cycles = undoing()
    cycles.end(cycles.said["x/0"], End.STOPPED)
    cycles.policy = replace(policy(), daemon=replace(policy().daemon, mode=Mode.ADVISE))
    advised = 0
    for _ in range(60):
        cycles.step(seen_after(1000), FELLOW)
        said = cycles.said["x/0"]
        if said.give_back:
            advised += 1
            cycles.end(said, End.SIMULATED)
        elif "given up" in said.why:
            assert "the mode is not act" in said.why
        else:
            break
    assert advised == LONGEST_S // STEP_S
    assert not cycles.fellow_waits
    assert not cycles.guard.undoing


def test_what_is_being_taken_back_is_left_to_end_by_itself() -> None:
    """While it moves, time does not count."""
    cycles = undoing()
    for _ in range(100):
        cycles.step(seen_after(1000), FELLOW)
    assert cycles.said["x/0"].reason is Reason.MOVING
    assert cycles.guard.undoing
    assert cycles.fellow_waits
