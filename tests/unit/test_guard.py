"""What guards lead to, cycle by cycle on a simulated machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.decide.guard.guards import LONGEST_PAUSE_S
from numad_py.model.guard import Compared, GuardMemory
from numad_py.model.plan import Reason
from tests.unit.guarded import (
    GUARD,
    STEP_S,
    UNDONE_AT,
    Run,
    Server,
    alike,
    better_on_0,
    policy,
    state_of,
    worse_on_0,
)
from tests.unit.test_stability import CPUS, MIB


def judged(run: Run) -> list[tuple[int, Compared]]:
    """Return in which cycles what was found."""
    judgement = state_of(run).judgement
    return [] if judgement is None else [(judgement.cycle, judgement.result)]


# The main story


def test_a_move_that_makes_latency_worse_is_taken_back() -> None:
    """Memory is where it was, threads have the masks they had, and it is left alone."""
    run = Run(Server(worse_on_0))
    said = run.step(UNDONE_AT + 2)
    assert said == [
        *[Reason.GUARDING] * 6,
        Reason.REMOTE_MEMORY,
        *[Reason.GUARDING] * 6,
        Reason.GUARD_UNDO,
        Reason.GUARD_PAUSE,
    ]
    moved = run.cycles[8].snapshot.workers[0]
    assert moved.residency is not None
    assert moved.residency.by_node() == {0: 1000 * MIB}
    assert moved.allowed_cpus == frozenset(range(4))
    back = run.worker()
    assert back.residency is not None
    assert back.residency.by_node() == {1: 1000 * MIB}
    assert back.allowed_cpus == CPUS
    assert back.first_masks == {}
    assert run.cycles[-1].outcomes[0].threads_given_back == 1


def test_the_numbers_are_told() -> None:
    """Before and after, over how long, from how many, and how much worse."""
    run = Run(Server(worse_on_0))
    run.step(UNDONE_AT + 1)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.UNDONE
    assert judgement.why == (
        "p95 of latency_seconds was 0.195 over 30 s (60 observations) before the move and is 0.78 "
        "over 30 s (60 observations) after it: 300% worse, where 20% worse is too much"
    )


def test_the_pause_doubles_each_time_up_to_a_day() -> None:
    """After an hour it is tried again, and taken back again; then after two, and so on."""
    run = Run(Server(worse_on_0))
    pauses = []
    for _ in range(7):
        run.until(Reason.GUARD_UNDO)
        ended_s = run.at_s
        run.step()
        until_s = state_of(run).until_s
        assert until_s is not None
        pauses.append(until_s - ended_s + STEP_S)
        run.at_s = until_s - STEP_S
        assert run.step() == [Reason.GUARD_PAUSE]
    hour = 3600.0
    expected = [hour, 2 * hour, 4 * hour, 8 * hour, 16 * hour, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert pauses == pytest.approx(expected)


def test_a_move_that_helps_stays() -> None:
    """It is at home, that is said once with the numbers, and counted once."""
    run = Run(Server(better_on_0))
    run.until(Reason.HOME)
    assert judged(run) == [(len(run.cycles), Compared.KEPT)]
    judgement = state_of(run).judgement
    assert judgement is not None
    assert "75% better" in judgement.why
    assert judgement.why.endswith("the move stays")
    found = judged(run)
    assert run.step(10) == [Reason.HOME] * 10
    assert judged(run) == found
    assert run.node_of() == 0


@pytest.mark.parametrize(
    ("after_s", "result"), [(0.15, Compared.KEPT), (0.3, Compared.UNDONE), (0.05, Compared.KEPT)]
)
def test_what_is_allowed_decides(after_s: float, result: Compared) -> None:
    """The same is not worse, nor is a little; the next bucket is."""
    run = Run(Server(lambda node: after_s if node == 0 else 0.15))
    run.step(UNDONE_AT + 1)
    assert judged(run) == [(UNDONE_AT + 1, result)]


def test_a_rule_may_allow_more() -> None:
    """100 % worse stays where as much is allowed."""
    lenient = policy(replace(GUARD, worse=1.0))
    run = Run(Server(lambda node: 0.19 if node else 0.3), policy=lenient)
    run.step(UNDONE_AT + 1)
    # From 0.195 to 0.39: twice as much, not more.
    assert judged(run) == [(UNDONE_AT + 1, Compared.KEPT)]


def test_without_a_guard_nothing_waits() -> None:
    """A rule that names none is acted on at once, and nothing of a guard is remembered."""
    run = Run(Server(worse_on_0), policy=policy(None))
    assert run.step(2) == [Reason.REMOTE_MEMORY, Reason.HOME]
    assert state_of(run) == GuardMemory()


# Where nothing can be told


@pytest.mark.parametrize(
    ("server", "result", "said"),
    [
        (Server(alike, silent=True), Compared.UNREADABLE, "cannot be read: it does not answer"),
        (Server(alike, requests=0), Compared.NOT_COMPARABLE, "without any observation over 60 s"),
        (Server(alike, requests=1), Compared.NOT_COMPARABLE, "0.195 over 60 s (12 observations)"),
    ],
    ids=["silent", "idle", "few"],
)
def test_a_move_waits_for_two_windows_at_most(server: Server, result: Compared, said: str) -> None:
    """Then it goes ahead without, says so, and is not judged afterwards."""
    run = Run(server)
    assert run.until(Reason.REMOTE_MEMORY) == 1 + 60 / STEP_S
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is result
    assert said in judgement.why
    assert run.step(2) == [Reason.HOME] * 2
    assert state_of(run).judgement == judgement


def test_few_requests_after_a_move_are_waited_for_and_then_let_be() -> None:
    """Four windows, and the move stays."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.requests = 0
    cycles = run.until(Reason.HOME)
    assert cycles == pytest.approx((4 * 30 + 2 * 5) / STEP_S, abs=1)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.NOT_COMPARABLE
    assert "too few observations to compare; the move stays" in judgement.why
    assert run.node_of() == 0


def test_slow_traffic_after_a_move_extends_the_window() -> None:
    """Two requests in a step make 20 after 50 s; then it is judged."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.requests = 2
    assert run.until(Reason.GUARD_UNDO) == 1 + 50 / STEP_S


def test_an_endpoint_that_falls_silent_after_a_move_leaves_it() -> None:
    """Nothing can be told, and that is what is said."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.silent = True
    run.until(Reason.HOME)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.UNREADABLE
    assert "could not be read after it: it does not answer" in judgement.why


def test_a_restart_of_the_server_begins_the_window_anew() -> None:
    """Its counters went back 10 s after the move: 30 s from then on are compared."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    run.step(2)
    server.counts = [0.0] * 6
    assert run.until(Reason.GUARD_UNDO) == 1 + 30 / STEP_S
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.after is not None
    assert (judgement.after.seconds, judgement.after.observations) == (30.0, 60)


def test_what_lies_beyond_the_buckets_is_not_compared() -> None:
    """Whether it is worse than "above 1.6" nobody knows."""
    run = Run(Server(lambda _node: 5.0))
    run.step(UNDONE_AT + 1)
    assert judged(run) == [(UNDONE_AT + 1, Compared.NOT_COMPARABLE)]
