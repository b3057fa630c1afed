"""When a sample is enough to decide on, and when it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.model.plan import Decision, DecisionState, Reason, Verdict
from numad_py.model.residency import Kind, Mobility, Residency, ResidencyEntry, Source
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy
from tests.unit.test_unfinished import GIB, seen

DRAWN = 1024


def sampled(remote_share: float, *, why_no_more: str | None = None) -> Snapshot:
    """Return the worker of one GiB with so much of it remote, as a sample tells."""
    snapshot = seen(int(GIB * remote_share))
    (worker,) = snapshot.workers
    assert worker.residency is not None
    residency = replace(
        worker.residency,
        source=Source.SAMPLE,
        sampled_pages=DRAWN,
        mobility_known=False,
        no_full_reading=why_no_more,
    )
    return replace(snapshot, workers=(replace(worker, residency=residency),))


def decision_on(snapshot: Snapshot, state: DecisionState | None = None) -> Decision:
    """Return what is decided about the one worker."""
    (decision,) = decide(snapshot, Policy(), state or DecisionState())[0].decisions
    return decision


def residency_of(snapshot: Snapshot) -> Residency:
    """Return the one worker's residency."""
    (worker,) = snapshot.workers
    assert worker.residency is not None
    return worker.residency


def test_a_worker_clearly_at_home_is_not_measured() -> None:
    """A sample is enough to leave it alone."""
    decision = decision_on(sampled(0.01))
    assert decision.verdict is Verdict.REST
    assert not decide(sampled(0.01), Policy(), DecisionState())[0].to_measure


def test_a_remote_worker_is_measured_before_it_is_moved() -> None:
    """The decision names the error, and asks for a full reading."""
    snapshot = sampled(0.5)
    plan, state = decide(snapshot, Policy(), DecisionState())
    (decision,) = plan.decisions
    assert (decision.verdict, decision.reason) == (Verdict.WAIT, Reason.MEASURING)
    assert "give or take 3.1 points" in decision.why
    assert plan.to_measure == {snapshot.workers[0].id}
    assert not state.of(snapshot.workers[0].id).moving


@pytest.mark.parametrize(
    ("remote_share", "reason"),
    [(0.030, Reason.BELOW_THRESHOLD), (0.045, Reason.MEASURING), (0.06, Reason.MEASURING)],
)
def test_what_the_error_leaves_open_is_measured(remote_share: float, reason: Reason) -> None:
    """Within its error of the threshold (5 % remote) a sample does not decide."""
    assert 0.005 < residency_of(sampled(remote_share)).error_share < 0.02
    assert decision_on(sampled(remote_share)).reason is reason


def test_a_full_reading_decides_by_itself() -> None:
    """The same figures, every page counted: the worker is moved."""
    decision = decision_on(seen(GIB // 2))
    assert (decision.verdict, decision.reason) == (Verdict.ACT, Reason.REMOTE_MEMORY)


def test_nothing_is_done_without_a_full_reading() -> None:
    """A sample cannot see what its user has bound: it waits, and says which key would help."""
    why = "reading it in full would take 9 s; [scan] longest_hold is 3 s"
    decision = decision_on(sampled(0.5, why_no_more=why))
    assert (decision.verdict, decision.reason) == (Verdict.WAIT, Reason.MEASURING)
    assert why in decision.why


def test_threads_are_not_bound_without_a_full_reading() -> None:
    """Who bound the memory placed the threads as well: they are none of our business then."""
    snapshot = sampled(0.0)
    (worker,) = snapshot.workers
    threads = (replace(worker.threads[0], affinity=frozenset(range(4))),)
    free = replace(worker, threads=threads)
    decision = decision_on(replace(snapshot, workers=(free,)))
    assert (decision.verdict, decision.reason) == (Verdict.WAIT, Reason.MEASURING)
    assert "its threads are free to leave" in decision.why


@pytest.mark.parametrize(("drawn", "reason"), [(DRAWN, Reason.HOME), (20, Reason.MEASURING)])
def test_the_error_is_that_of_what_can_be_moved(drawn: int, reason: Reason) -> None:
    """Few draws of little movable memory leave its locality open, whatever lies beside it."""
    snapshot = sampled(0.0)
    (worker,) = snapshot.workers
    residency = residency_of(snapshot)
    file = ResidencyEntry(0, Kind.FILE, Mobility.SHARED, 200 * GIB)
    beside = replace(residency, entries=(*residency.entries, file), sampled_pages=drawn)
    decision = decision_on(replace(snapshot, workers=(replace(worker, residency=beside),)))
    assert decision.reason is reason


def test_what_waits_anyway_is_not_measured() -> None:
    """While paused nothing hangs on the figures."""
    assert decision_on(sampled(0.5), DecisionState(paused=True)).reason is Reason.PAUSED
