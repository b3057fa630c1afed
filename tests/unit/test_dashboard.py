"""The dashboard and the alert rules, read as files and held against what the daemon exposes."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from numad_py.cli.direct import look
from numad_py.model.machine import HugePages, NumaStat, Pressure
from numad_py.model.snapshot import Bandwidth, Snapshot
from numad_py.policy.load import defaults
from numad_py.serve.metrics import make_registry, render
from numad_py.serve.report import Totals
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon
from tests.guest.expressions import (
    JOB,
    Matcher,
    alert_expressions,
    expressions,
    grouped_by,
    panels,
    raw_expressions,
    selectors,
)

CONFIG = Path(__file__).parents[2] / "config"
DASHBOARD_TEXT = (CONFIG / "grafana/numad-py.json").read_text()
DASHBOARD: dict[str, Any] = json.loads(DASHBOARD_TEXT)
PANELS = list(panels(DASHBOARD))
EXPRESSIONS = raw_expressions(DASHBOARD)
LEGENDS = {f"{p['title']}/{t['refId']}": t["legendFormat"] for p in PANELS for t in p["targets"]}
RULES = (CONFIG / "prometheus/numad-py.rules.yml").read_text()
ALERTS = alert_expressions(RULES)
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WANTED = (Matcher("job", "=~", "$job"), Matcher("instance", "=~", "$instance"))
UNITS = {"none", "short", "bytes", "binBps", "percentunit", "s", "cps", "cpm", "opm", "bool_yes_no"}
"""Those in use, as Grafana spells them: an unknown one is shown as text behind the number."""
WIDTH = 24
FINAL_CLASSIC_SCHEMA = 42
"""Grafana numbers its classic dashboards no further (DashboardMigrator.ts)."""
LLAMA = ("/opt/llama.cpp/llama-server", "-m", "model.gguf")
MIB = 1 << 20

Exposed = Mapping[str, Mapping[str, set[str]]]
"""Label values by metric and label."""


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    """Return what the daemon exposes of a machine with a worker at home and a remote one.

    With what made files do not tell, and what Prometheus adds: the target's labels, and ``up``.
    """
    made = FakeMachine(
        tmp_path_factory.mktemp("machine"),
        [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
        [
            FakeProcess(100, LLAMA, anon({0: 512 * MIB}), last_cpus=(0,)),
            FakeProcess(200, LLAMA, anon({1: 512 * MIB}), affinity=(0, 1), last_cpus=(0,)),
        ],
    ).write()
    report = look(argparse.Namespace(procfs=str(made.procfs), sysfs=str(made.sysfs), config=None))
    report = replace(report, snapshot=with_all(report.snapshot))
    registry = make_registry(lambda: (report, Totals()), 128)
    target = {"job": {JOB}, "instance": {"127.0.0.1:10465"}}
    found: dict[str, dict[str, set[str]]] = {"up": dict(target)}
    for line in render(registry, "")[0].decode().splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? ", line)
        if match is None or line.startswith("#"):
            continue
        labels = found.setdefault(match[1], dict(target))
        for label, value in re.findall(r'(\w+)="([^"]*)"', match[2] or ""):
            labels.setdefault(label, set()).add(value)
    return found


def with_all(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot as a second look at a machine with everything would make it."""
    states = (
        replace(
            state,
            huge_pages=(HugePages(2 * MIB, 0, 0),),
            numastat=NumaStat(1, 0, 0, 1, 0),
            busy_cpus=0.5,
        )
        for state in snapshot.node_states
    )
    workers = (
        replace(
            worker,
            memory=replace(worker.memory, pinned_bytes=0, swapped_bytes=0),
            bandwidth=Bandwidth(1.0, 2.0),
        )
        for worker in snapshot.workers
    )
    return replace(
        snapshot,
        node_states=tuple(states),
        workers=tuple(workers),
        pressure=Pressure(0.1, 0.0, 0.0),
    )


# The dashboard as a whole


def test_the_dashboard_can_be_imported_and_keeps_its_address() -> None:
    """No id of somebody's Grafana, a stable uid, and the last schema of classic dashboards."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "numad-py"
    assert DASHBOARD["schemaVersion"] == FINAL_CLASSIC_SCHEMA
    assert DASHBOARD["title"]
    assert DASHBOARD["description"]


def test_the_file_is_laid_out_one_way() -> None:
    """Two spaces and a newline at the end, so that a change shows as what it is."""
    assert json.dumps(DASHBOARD, indent=2, ensure_ascii=False) + "\n" == DASHBOARD_TEXT


def test_the_data_source_is_a_variable() -> None:
    """It comes first, since the others ask it, and every query names it."""
    variables = DASHBOARD["templating"]["list"]
    first = variables[0]
    assert (first["name"], first["type"], first["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert all(v["datasource"] == DATA_SOURCE for v in variables[1:])
    for panel in PANELS:
        assert panel["datasource"] == DATA_SOURCE, panel["title"]
        assert all(t["datasource"] == DATA_SOURCE for t in panel["targets"]), panel["title"]


def test_job_instance_and_worker_can_be_chosen_several_at_once() -> None:
    """Each is a list with All, read anew when the time range changes, within those before it."""
    variables = DASHBOARD["templating"]["list"][1:]
    assert [v["name"] for v in variables] == ["job", "instance", "worker"]
    for variable in variables:
        assert variable["type"] == "query"
        assert variable["label"] == variable["name"].title()
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        assert variable["refresh"] == 2
    assert [v["query"]["query"].count("=~") for v in variables] == [0, 1, 2]


# Panels


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: str(p["title"]))
def test_a_panel_says_what_it_shows(panel: Mapping[str, Any]) -> None:
    """Title, description as a sentence, a unit that Grafana knows, at least one query."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert all(t["legendFormat"] for t in panel["targets"])


def test_titles_and_ids_are_unique() -> None:
    """A link names a panel by its id, a person by its title."""
    everything = DASHBOARD["panels"]
    for key in ("id", "title"):
        assert max(Counter(p[key] for p in everything).values()) == 1
    for panel in PANELS:
        assert max(Counter(t["refId"] for t in panel["targets"]).values()) == 1, panel["title"]


def test_no_panel_lies_on_another_and_no_row_has_a_gap() -> None:
    """Every cell of the grid, from the top to the last panel, is covered by exactly one panel."""
    places = {p["title"]: p["gridPos"] for p in DASHBOARD["panels"]}
    cells: dict[tuple[int, int], str] = {}
    for title, at in places.items():
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert 0 <= x < WIDTH, title
                assert (x, y) not in cells, f"{title} lies on {cells[x, y]}"
                cells[x, y] = title
    assert len(cells) == WIDTH * (1 + max(y for _, y in cells))


def test_rows_are_open_headings_in_order() -> None:
    """Panels stand in the file from the top to the bottom, below the heading they belong to."""
    places = [(p["gridPos"]["y"], p["gridPos"]["x"]) for p in DASHBOARD["panels"]]
    assert places == sorted(places)
    rows = [p for p in DASHBOARD["panels"] if p["type"] == "row"]
    assert not any(row["collapsed"] or row["panels"] for row in rows)
    assert DASHBOARD["panels"][0] is rows[0]


# Expressions


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_selector_keeps_to_the_chosen_job_and_instance(name: str) -> None:
    """Otherwise a panel would show machines that were not chosen."""
    for selector in selectors(EXPRESSIONS[name]):
        assert set(WANTED) <= set(selector.matchers), selector


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name != "Lowest locality/A"])
def test_worker_series_keep_to_the_chosen_workers(name: str) -> None:
    """All of them do, less the one figure at the top that sums a machine up."""
    for selector in selectors(EXPRESSIONS[name]):
        if selector.metric.startswith("numad_py_worker_"):
            assert Matcher("worker", "=~", "$worker") in selector.matchers, selector


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_counters_are_shown_as_rates_over_the_rate_interval(name: str) -> None:
    """A counter alone says nothing; a fixed window fits one scrape interval only."""
    expression = EXPRESSIONS[name]
    assert set(re.findall(r"\[([^\]]*)\]", expression)) <= {"$__rate_interval"}
    in_rates = re.findall(r"\brate\((\w+)\{[^}]*\}\[", expression)
    ranges = expression.count("[")
    counters = [m for m in re.findall(r"(\w+)\{", expression) if m.endswith("_total")]
    assert sorted(in_rates) == sorted(counters)
    assert ranges == len(counters)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_variable_is_left_for_a_plain_prometheus(name: str) -> None:
    """What the guest asks holds neither a variable of Grafana nor one of the dashboard."""
    assert "$" in EXPRESSIONS[name]
    assert "$" not in expressions(DASHBOARD)[name]


def test_an_unknown_variable_is_named() -> None:
    """A variable that nobody defines is an error, not an empty string."""
    panel = {"title": "t", "type": "stat", "targets": [{"refId": "A", "expr": "up{job=~'$jop'}"}]}
    with pytest.raises(KeyError, match="jop"):
        expressions({"templating": {"list": []}, "panels": [panel]})


def test_a_metric_without_braces_is_a_selector_too() -> None:
    """Functions, keywords, grouping labels and numbers are none, a bare metric is one."""
    found = selectors('sum by (a) (rate(b{c="d"}[5m])) / on (e) group_left (f) (g or 2e3 * time())')
    assert [str(s) for s in found] == ['b{c="d"}', "g{}"]


# Against what the daemon exposes

EVERYTHING = {
    **EXPRESSIONS,
    **ALERTS,
    **{
        f"variable {v['name']}": re.sub(r"label_values\((.*), \w+\)", r"\1", v["query"]["query"])
        for v in DASHBOARD["templating"]["list"][1:]
    },
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_metric_label_and_value_is_one_that_the_daemon_exposes(
    name: str, exposed: Exposed
) -> None:
    """A misspelt metric, label or value would give an empty panel, or an alert that never fires."""
    found = selectors(EVERYTHING[name])
    assert found
    for selector in found:
        assert selector.metric in exposed
        for matcher in selector.matchers:
            assert matcher.label in exposed[selector.metric]
            if matcher.operator == "=":
                assert matcher.value in exposed[selector.metric][matcher.label]


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_label_that_is_grouped_by_is_one_of_the_metrics(name: str, exposed: Exposed) -> None:
    """Grouping by a misspelt label would fold all series into one without a word."""
    labels = [set(exposed[s.metric]) for s in selectors(EVERYTHING[name])]
    assert grouped_by(EVERYTHING[name]) <= set().union(*labels)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_label_in_a_legend_is_one_of_the_series(name: str, exposed: Exposed) -> None:
    """A legend shows nothing for a label that aggregation took away or that never was."""
    expression = EXPRESSIONS[name]
    legend = set(re.findall(r"\{\{(\w+)\}\}", LEGENDS[name]))
    kept = re.findall(r"\b(?:sum|min|max) by \(([^)]*)\)", expression)
    if kept:
        assert legend <= {label.strip() for label in kept[0].split(",")}
    else:
        assert legend <= set(exposed[selectors(expression)[0].metric])
    assert "instance" in legend


def test_the_daemons_own_metrics_are_all_shown(exposed: Exposed) -> None:
    """Each metric of numad-py is on the dashboard, or stands here with what is shown instead."""
    instead = {
        "numad_py_worker_movable_bytes": "locality and remote bytes",
        "numad_py_policy_loaded_timestamp_seconds": "whether the policy was refused",
        "numad_py_reload_failures_total": "whether the policy was refused",
        "numad_py_segments": "their bytes",
        "numad_py_chunks_total": "the longest of them",
        "numad_py_setting_failures_total": "in numad-py status and the log, with what to do",
        "numad_py_guard_judgements_total": "few rules have a guard; in the log, and in explain",
        "numad_py_deferred_processes": "only a storm of new processes makes them wait",
        # Few machines have resctrl, and a panel is to have something to show on each.
        "numad_py_worker_bandwidth_bytes_per_second": "in numad-py status, where it is known",
        "numad_py_worker_local_bandwidth_bytes_per_second": "in numad-py status, likewise",
    }
    shown = {s.metric for e in EVERYTHING.values() for s in selectors(e)}
    ours = {metric for metric in exposed if metric.startswith("numad_py_")}
    assert ours <= shown | set(instead)
    assert not shown & set(instead)


# Alerts


def test_there_are_three_alerts_that_say_what_to_do() -> None:
    """Each has a time to wait, a severity, a summary and a description."""
    assert list(ALERTS) == ["NumadPyWorkerStaysRemote", "NumadPyNotCycling", "NumadPyNumadRuns"]
    for key in ("for: ", "severity: ", "summary: ", "description: "):
        assert len(re.findall(rf"^ +{key}", RULES, flags=re.MULTILINE)) == len(ALERTS)


def test_alerts_look_at_the_job_of_the_scrape_example() -> None:
    """Every selector of an alert names the job that prometheus.yml gives."""
    text = (CONFIG / "prometheus/prometheus.yml").read_text()
    assert re.findall(r"job_name: (.*)", text) == [JOB]
    for expression in ALERTS.values():
        for selector in selectors(expression):
            assert Matcher("job", "=", JOB) in selector.matchers


def test_the_alert_on_remote_workers_has_the_thresholds_of_the_policy() -> None:
    """Where numad-py would not act by the shipped policy, it is no news that it does not."""
    placement = defaults().placement
    assert f"< {placement.min_locality} " in ALERTS["NumadPyWorkerStaysRemote"]
    size = f">= {placement.min_remote_bytes // MIB} * 1024 * 1024 "
    assert size in ALERTS["NumadPyWorkerStaysRemote"]


def test_every_alert_is_tested_both_ways() -> None:
    """The file for promtool expects each alert to fire and not to fire."""
    tests = (CONFIG / "prometheus/numad-py.rules.test.yml").read_text()
    cases = re.findall(r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:( \[\])?", tests)
    assert {(name, not empty) for name, empty in cases} == {
        (name, fires) for name in ALERTS for fires in (True, False)
    }
