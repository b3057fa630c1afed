"""Decisions that wait for their turn: each holds for its policy, and not for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from numad_py.act.real import LATELY_S
from numad_py.model.outcome import End
from numad_py.policy.schema import Policy
from tests.unit.test_actuator import Bench, bench

__all__ = ["bench"]


class Held:
    """A first decision that is in the middle of its first chunk until it is let go."""

    def __init__(self, bench: Bench) -> None:
        """Submit it and wait until it is there."""
        self.inside, self.go = threading.Event(), threading.Event()
        bench.kernel.on_call = self._call
        bench.actuator.submit(bench.decision(1))
        assert self.inside.wait(5)

    def _call(self, calls: int) -> None:
        if calls == 1:
            self.inside.set()
            assert self.go.wait(5)


@pytest.fixture
def held(bench: Bench) -> Iterator[Held]:
    """Hold one."""
    holding = Held(bench)
    yield holding
    holding.go.set()


def test_two_reloads_within_one_chunk_stop_what_was_decided_between(
    bench: Bench, held: Held
) -> None:
    """A decision of the second policy does not go on because the first reload has been served."""
    bench.actuator.use(Policy())
    bench.actuator.submit(bench.decision(2))
    bench.actuator.use(Policy())
    held.go.set()
    assert [(o.decision.id, o.end) for o in bench.outcomes(2)] == [
        ("1:x/0", End.STOPPED),
        ("2:x/0", End.STOPPED),
    ]


def test_what_is_submitted_after_a_resume_is_carried_out(bench: Bench, held: Held) -> None:
    """However many pauses there were within the chunk before it."""
    for _ in range(3):
        bench.actuator.pause()
        bench.actuator.resume()
    bench.actuator.submit(bench.decision(2))
    held.go.set()
    assert [o.end for o in bench.outcomes(2)] == [End.STOPPED, End.DONE]


def test_a_decision_that_waited_long_is_made_anew(
    bench: Bench, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures are old, and its worker may be another program: nothing is done by it."""
    from numad_py.kernel import clock  # noqa: PLC0415 - after the first one has its time

    bench.actuator.submit(bench.decision(2, bind_cpus=frozenset({0})))
    now_s = clock.monotonic_s
    monkeypatch.setattr("numad_py.kernel.clock.monotonic_s", lambda: now_s() + LATELY_S + 1)
    masks, calls = bench.masks(), len(bench.kernel.calls)
    held.go.set()
    first, second = bench.outcomes(2)
    assert second.end is End.STOPPED
    assert bench.masks() == masks
    assert all(call.target == 0 for call in bench.kernel.calls[calls:])
    assert first.decision.id == "1:x/0"
