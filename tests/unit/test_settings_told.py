"""What people and machines are told of AutoNUMA and of settings that numad-py changes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.cli.doctor import _settings_asked_for
from numad_py.kernel.procfs import ProcFs
from numad_py.model.plan import Home, HomeSource, MemoryMove, Reason, Verdict
from numad_py.model.settings import SettingsTold
from numad_py.model.snapshot import Snapshot
from numad_py.observe.interference import interferences
from numad_py.policy.load import load
from numad_py.serve.explain import explain_document, render_explain
from numad_py.serve.metrics import make_registry, render
from numad_py.serve.render import render_plan, render_status
from numad_py.serve.report import Totals
from numad_py.serve.status import plan_document, status_document
from tests.fake_tree import put
from tests.unit.seen import GIB, anon, report, rests, snapshot, worker

ROOT = Path(__file__).parents[2]
NAMED_UNIT = re.compile(r"systemd/(numad-py[a-z-]*\.(?:conf|service))")
TOLD = SettingsTold(
    changed={"kernel.numa_balancing": "0, was 1"},
    problems={"huge pages of 2048 kB on node 0": "no right to set it"},
    failures={"huge_pages": 3},
)


def seen(folder: Path, balancing: int) -> Snapshot:
    """Return a look at a machine of one worker, with AutoNUMA on or off."""
    put(folder / "sys/kernel/numa_balancing", f"{balancing}\n")
    found = interferences(ProcFs(folder), {})
    return snapshot(worker("x/0", anon(GIB, 1)), interferences=found)


def story(look: Snapshot, *, bind: bool, source: HomeSource = HomeSource.PLANNER) -> str:
    """Return what explain says of a worker that is moved home."""
    (one,) = look.workers
    rest = rests(one)
    home = Home(frozenset({0}), source, "because")
    act = replace(
        rest,
        verdict=Verdict.ACT,
        reason=Reason.REMOTE_MEMORY,
        moves=(MemoryMove(1, 0, GIB),),
        bind_cpus=frozenset({0}) if bind else None,
        finding=replace(rest.finding, home=home),
    )
    status = status_document(report(look, act), source="daemon")
    return " ".join(render_explain(explain_document(status, "x/0")).split())


def test_plan_says_what_autonuma_will_do(tmp_path: Path) -> None:
    """Once below all decisions, where it is on; with the way to switch it off."""
    document = plan_document(report(seen(tmp_path, 1)), source="direct")
    (note,) = document["notes"]
    assert "free ones may draw them away" in note
    assert "the next move gets them" in note
    assert 'autonuma = "off"' in note
    assert render_plan(document).endswith(f"\nnote: {note}")
    off = plan_document(report(seen(tmp_path, 0)), source="direct")
    assert off["notes"] == []
    assert "note:" not in render_plan(off)


def test_explain_says_which_way_it_draws(tmp_path: Path) -> None:
    """Bound threads draw pages home, whoever bound them; free ones may draw them away."""
    on, off = seen(tmp_path / "on", 1), seen(tmp_path / "off", 0)
    assert "draws memory to the same node" in story(on, bind=True)
    assert "draws memory to the same node" in story(on, bind=False, source=HomeSource.PIN)
    assert "may draw memory away again" in story(on, bind=False)
    assert "AutoNUMA" not in story(off, bind=True)


def test_status_of_the_daemon_has_what_is_changed_and_what_could_not_be() -> None:
    """A look without a daemon has changed nothing, and says nothing of it."""
    made = replace(report(snapshot()), settings=TOLD)
    document = status_document(made, source="daemon")
    assert document["settings"] == {
        "changed": dict(TOLD.changed),
        "problems": dict(TOLD.problems),
    }
    lines = render_status(document).splitlines()
    assert "setting: kernel.numa_balancing is 0, was 1; given back later" in lines
    assert "setting: no right to set it" in lines
    assert "settings" not in status_document(made, source="direct")


def test_failures_are_counted_by_kind_from_the_start() -> None:
    """Each kind has its series at zero, so that its first rise is seen."""
    made = replace(report(snapshot()), settings=TOLD)
    text, _ = render(make_registry(lambda: (made, Totals()), 8), "text/plain")
    lines = text.decode().splitlines()
    assert 'numad_py_setting_failures_total{setting="numa_balancing"} 0.0' in lines
    assert 'numad_py_setting_failures_total{setting="huge_pages"} 3.0' in lines


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ('[migration]\nautonuma = "off"\n', ["warn"]),
        ('[migration]\nautonuma = "leave"\n', []),
        ('[daemon]\nmode = "advise"\n[migration]\nautonuma = "off"\n', []),
    ],
)
def test_doctor_warns_ahead_of_a_right_that_the_unit_has_not(
    tmp_path: Path, text: str, levels: list[str]
) -> None:
    """Only where the daemon would ask for it."""
    path = tmp_path / "p.toml"
    path.write_text(text)
    path.chmod(0o600)
    checks = list(_settings_asked_for(load(path)))
    assert [check.level for check in checks] == levels
    assert all("numad-py-settings.conf" in check.text for check in checks)


def test_every_unit_file_that_is_named_is_there() -> None:
    """Pages, policy and messages send nobody to a file that is not shipped."""
    files = [ROOT / "README.md", *ROOT.glob("packaging/man/*"), *ROOT.glob("config/*.toml")]
    files += [*ROOT.glob("systemd/*"), *(ROOT / "numad_py").rglob("*.py")]
    named = {name for path in files for name in NAMED_UNIT.findall(path.read_text())}
    assert named == {path.name for path in ROOT.glob("systemd/*")}
