"""What trying the endpoints of guards brings, as values: the words are doctor's."""

from __future__ import annotations

from pathlib import Path

from numad_py.kernel.procfs import ProcFs
from numad_py.observe.endpoint_check import EndpointCheck, Found, endpoint_checks
from numad_py.policy.load import load
from tests.fake_tree import FakeProcess, anon
from tests.integration.program import MIB, machine, policy
from tests.unit.test_endpoint import HISTOGRAM, Server, server

__all__ = ["server"]


def checked(folder: Path, *urls: str, workers: int = 2) -> list[EndpointCheck]:
    """Return the checks of a rule for each URL; only the last one has workers."""
    last = f"/srv/{len(urls) - 1}"
    made = machine(folder, *(FakeProcess(300 + i, (last,), anon({0: MIB})) for i in range(workers)))
    rules = "".join(
        f"[[rule]]\nname = \"r{i}\"\ncmdline = '^/srv/{i}'\n"
        f'[rule.guard]\nurl = "{url}"\nmetric = "latency_seconds"\nallow_remote = true\n'
        for i, url in enumerate(urls)
    )
    return list(endpoint_checks(ProcFs(str(made.procfs)), load(policy(folder, rules))))


def test_only_rules_with_workers_are_tried(tmp_path: Path, server: Server) -> None:
    """By order of rules; each with its workers, and what was read."""
    url = server.guard().url
    idle, read = checked(tmp_path, "http://127.0.0.1:1/metrics", url)
    assert (idle.rule, idle.workers, idle.found) == ("r0", 0, Found.NO_WORKER)
    assert (idle.reading, idle.problem) == (None, None)
    assert (read.rule, read.workers, read.found) == ("r1", 2, Found.READ)
    assert read.reading is not None
    assert read.reading.count == 16
    assert len(server.asked) == 1


def test_an_empty_histogram_is_not_taken_for_a_reading(tmp_path: Path, server: Server) -> None:
    """Nor for one that cannot be read; a gauge of 0 is a reading."""
    empty = "\n".join(
        line if line.startswith("#") else f"{line.rpartition(' ')[0]} 0"
        for line in HISTOGRAM.splitlines()
    )
    server.answers["/metrics"] = lambda to: to.text(f"{empty}\n")
    (check,) = checked(tmp_path, server.guard().url)
    assert (check.found, check.problem) == (Found.EMPTY, None)
    server.answers["/metrics"] = lambda to: to.text("latency_seconds 0\n")
    (check,) = checked(tmp_path, server.guard().url)
    assert check.found is Found.READ


def test_what_cannot_be_read_has_its_problem(tmp_path: Path, server: Server) -> None:
    """And no reading."""
    server.answers["/metrics"] = lambda to: to.text("other 1\n")
    (check,) = checked(tmp_path, server.guard().url)
    assert (check.found, check.reading) == (Found.UNREADABLE, None)
    assert "there is no latency_seconds" in (check.problem or "")


def test_an_address_of_another_machine_is_known_by_its_name(tmp_path: Path) -> None:
    """Without asking it."""
    urls = ("http://127.0.0.1:1/", "http://192.0.2.7:1/")
    checks = checked(tmp_path, *urls, workers=0)
    assert [check.elsewhere for check in checks] == [False, True]
