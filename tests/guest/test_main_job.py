"""The main job: workers on the wrong nodes come home under the shipped unit, on a real kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.scenario import strays
from tests.guest.workers import Workers

SIZE = "1GiB"
HOME_WITHIN_S = 30
CASES = [
    ("bookworm-n4c8", "never"),
    ("bookworm-n4c8", "always"),
    ("bookworm-n2c4", "always"),
    ("trixie-n2c4", "never"),
    ("trixie-n4c8", "always"),
]
"""Each release with each number of nodes, each of them with and without huge pages."""
if os.environ.get("NUMAD_PY_FULL"):
    CASES += [("bookworm-n2c4", "never"), ("trixie-n2c4", "always"), ("trixie-n4c8", "never")]
NAMES = ("a", "b", "c", "d", "e")
MIB = 1 << 20


def check_metrics(metrics: Mapping[str, float], label: str, resident: Mapping[int, int]) -> None:
    """Hold a worker's resident bytes by node in the metrics against numa_maps."""
    for node, size in resident.items():
        shown = sum(
            value
            for series, value in metrics.items()
            if series.startswith("numad_py_worker_resident_bytes{")
            and f'worker="{label}"' in series
            and f'node="{node}"' in series
        )
        # The worker maps and unmaps a MiB in each pass: that much may differ on any node.
        assert shown == pytest.approx(size, rel=0.01, abs=MIB), (label, node)


@pytest.mark.guest
@pytest.mark.parametrize(("guest", "thp"), CASES, indirect=["guest"])
def test_strays_come_home_and_all_is_given_back(guest: Machine, workers: Workers, thp: str) -> None:
    """Within 30 s A, B and C are home; pins stand, D and E are untouched and it is said why.

    The metrics agree with numa_maps, and stopping the service gives every mask back.
    """
    scenario = strays(len(guest.topology.nodes), SIZE, thp)
    workers.start_all(scenario)
    before, lay = workers.masks(*NAMES), workers.residencies(*NAMES)
    service = Service(guest)
    service.start()
    homes = {stray.name: stray.homes for stray in scenario if stray.homes}
    seconds = workers.wait_home(homes, HOME_WITHIN_S)
    print(f"{guest.name} thp={thp}: seconds until home {seconds}")
    assert all(at is not None and at <= HOME_WITHIN_S for at in seconds.values()), seconds

    metrics, masks, lie = workers.metrics(), workers.masks(*NAMES), workers.residencies(*NAMES)
    assert masks["a"] == before["a"]
    for name in ("d", "e"):
        assert masks[name] == before[name]
        assert lie[name][1] == pytest.approx(lay[name][1], abs=2 * MIB)

    status = service.status()
    said = {str(worker["pid"]): worker for worker in status["workers"]}
    assert said[workers.pids["a"]]["home"]["source"] == "pin"
    passed_over = {str(p["pid"]): p["why"] for p in status["passed_over"]}
    assert passed_over[workers.pids["d"]] == "no rule matches"
    assert said[workers.pids["e"]]["decision"]["reason"] == "mempolicy"
    assert "bind" in said[workers.pids["e"]]["decision"]["why"]

    for name in ("a", "b", "c", "e"):
        check_metrics(metrics, said[workers.pids[name]]["worker"], lie[name])

    service.stop()
    assert workers.masks(*NAMES) == before
