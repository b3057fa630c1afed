"""What is found to interfere, from a machine's settings and who runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from numad_py.kernel.procfs import ProcFs
from numad_py.model.machine import Interference
from numad_py.observe.interference import NAMED, interferences
from tests.fake_tree import put

BALANCING, RECLAIM = "sys/kernel/numa_balancing", "sys/vm/zone_reclaim_mode"


def found(
    folder: Path, files: Mapping[str, str] | None = None, named: Mapping[str, int] | None = None
) -> dict[str, Interference]:
    """Return what interferes by name, on a machine of these files and processes."""
    for path, text in (files or {}).items():
        put(folder / path, text)
    return {i.name: i for i in interferences(ProcFs(folder), named or {})}


def swap(total_kib: int, free_kib: int) -> dict[str, str]:
    """Return a meminfo with so much swap."""
    return {"meminfo": f"SwapTotal: {total_kib:>8} kB\nSwapFree:  {free_kib:>8} kB\n"}


def test_each_is_named_once_in_order_whether_it_is_there_or_not(tmp_path: Path) -> None:
    """The names are label values of a metric: each has its series at all times."""
    assert list(found(tmp_path)) == ["autonuma", "irqbalance", "numad", "swap", "zone_reclaim"]
    full = {BALANCING: "1\n", RECLAIM: "1\n", **swap(100, 0)}
    there = found(tmp_path, full, {"numad": 7, "irqbalance": 8})
    assert list(there) == ["autonuma", "irqbalance", "numad", "swap", "zone_reclaim"]
    assert all(i.present for i in there.values())


def test_a_machine_in_order_has_none(tmp_path: Path) -> None:
    """Each says ok, and what was found."""
    seen = found(tmp_path, {BALANCING: "0\n", RECLAIM: "0\n", **swap(0, 0)})
    assert {(i.present, i.level) for i in seen.values()} == {(False, "ok")}
    assert all(i.text for i in seen.values())


@pytest.mark.parametrize(
    ("setting", "present", "level"),
    [("0", False, "ok"), ("1", True, "warn"), ("2", False, "ok"), ("3", True, "warn")],
)
def test_autonuma_is_the_first_bit(tmp_path: Path, setting: str, present: bool, level: str) -> None:  # noqa: FBT001
    """The second only demotes to slower tiers (NUMA_BALANCING_MEMORY_TIERING)."""
    autonuma = found(tmp_path, {BALANCING: f"{setting}\n"})["autonuma"]
    assert (autonuma.present, autonuma.level) == (present, level)


def test_a_kernel_without_autonuma_is_noted(tmp_path: Path) -> None:
    """It is not there, and nobody can switch it on."""
    autonuma = found(tmp_path)["autonuma"]
    assert (autonuma.present, autonuma.level) == (False, "note")


def test_numad_fails_and_irqbalance_is_noted(tmp_path: Path) -> None:
    """Both with their pid; numad with how to end it."""
    seen = found(tmp_path, named={"numad": 7, "irqbalance": 8})
    assert (seen["numad"].level, seen["irqbalance"].level) == ("fail", "note")
    assert "(pid 7)" in seen["numad"].text
    assert "systemctl disable --now numad" in seen["numad"].text
    assert "(pid 8)" in seen["irqbalance"].text


def test_the_processes_to_look_for_are_those_that_are_judged(tmp_path: Path) -> None:
    """Discovery notices these names; each of them makes its interference present."""
    seen = found(tmp_path, named=dict.fromkeys(NAMED, 9))
    assert {name for name, i in seen.items() if i.present} == set(NAMED)


def test_zone_reclaim_says_what_it_is_set_to(tmp_path: Path) -> None:
    """And how to set it to what inference wants."""
    reclaim = found(tmp_path, {RECLAIM: "3\n"})["zone_reclaim"]
    assert (reclaim.present, reclaim.level) == (True, "warn")
    assert "zone_reclaim_mode is 3" in reclaim.text
    assert "sysctl vm.zone_reclaim_mode=0" in reclaim.text


def test_swap_in_use_warns_and_unused_swap_is_noted(tmp_path: Path) -> None:
    """With how much of it; without any all is well."""
    used = found(tmp_path, swap(4096, 1024))["swap"]
    assert (used.present, used.level) == (True, "warn")
    assert used.text.startswith("3.0 MiB of 4.0 MiB swap in use")
    unused = found(tmp_path, swap(4096, 4096))["swap"]
    assert (unused.present, unused.level) == (True, "note")
    none = found(tmp_path, swap(0, 0))["swap"]
    assert (none.present, none.level) == (False, "ok")


def test_swap_of_which_nothing_is_known_is_noted(tmp_path: Path) -> None:
    """A meminfo that does not say is no machine without swap."""
    unknown = found(tmp_path, {"meminfo": "MemTotal: 1 kB\n"})["swap"]
    assert (unknown.present, unknown.level) == (False, "note")
