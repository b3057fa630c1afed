"""Words for people: one is not many, and next to nothing is not told as nothing."""

from __future__ import annotations

from numad_py.model.advice import Request
from numad_py.serve.render_head import percent, waits
from numad_py.serve.summary import summary
from tests.unit.advised import GIB, N, advised, machine, refused, sockets
from tests.unit.seen import anon, report, snapshot, worker


def test_one_cpu_is_not_one_cpus() -> None:
    """In reasons and in what speaks against other nodes."""
    look = machine(N(0, range(4)), N(1, range(4, 5)))
    assert [other.why for other in advised(look, 2).alternatives] == ["1 CPU only"]
    assert "1 CPU asked" not in refused(sockets(1, 1, 1, 1), Request(17, GIB)).why
    pair = machine(N(0, range(1)), N(1, range(1, 2)))
    assert any("one node would have 1 CPU at most" in said for said in advised(pair, 2).reasons)


def test_one_worker_is_not_one_workers() -> None:
    """In the line that systemctl status shows."""
    assert "1 of 1 worker at home" in summary(report(snapshot(worker("x/0", anon(GIB)))), 0)
    two = snapshot(worker("x/0", anon(GIB)), worker("x/1", anon(GIB)))
    assert "2 of 2 workers at home" in summary(report(two), 0)


def test_who_hardly_waits_is_not_told_to_wait_for_none_of_the_time() -> None:
    """No "0.0% of the time": below a thousandth nothing is said."""
    assert not waits({"cpu_some": 0.0004, "memory_some": 0.0, "memory_full": 0.0009})
    said = waits({"cpu_some": 0.001, "memory_some": None, "memory_full": None})
    assert said == "pressure over the last 10 s: some task waited for a CPU 0.1% of the time"


def test_nearly_all_is_not_all() -> None:
    """Nor is a trifle nothing."""
    assert [percent(share) for share in (0.9996, 1.0, 0.0003, 0.0)] == [
        ">99.9%",
        "100.0%",
        "<0.1%",
        "0.0%",
    ]
