"""The verbs that look, on made machines, from the command line down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from numad_py.cli import main
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon

MIB = 1 << 20
LLAMA = ("/opt/llama.cpp/llama-server", "-m", "model.gguf")
POLICY = "[log]\nlevel = 'error'\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Return a policy file that says nothing of importance."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def machine(folder: Path, ids: tuple[int, int, int, int]) -> FakeMachine:
    """Return four nodes with workers A to E as in the guest's main test, by these node ids."""
    _, b, c, d = ids
    nodes = [FakeNode(ids[i], (2 * i, 2 * i + 1)) for i in range(4)]
    return FakeMachine(
        folder,
        sorted(nodes, key=lambda n: n.id),
        [
            FakeProcess(100, LLAMA, anon({b: 512 * MIB}), affinity=(0, 1), last_cpus=(0,)),
            FakeProcess(200, LLAMA, anon({d: 512 * MIB}), last_cpus=(2,)),
            FakeProcess(300, LLAMA, anon({c: 300 * MIB, d: 200 * MIB}), last_cpus=(4, 6)),
            FakeProcess(400, ("/usr/bin/postgres",), anon({b: 512 * MIB})),
            FakeProcess(500, LLAMA, anon({b: 512 * MIB}, f"bind:{b}"), last_cpus=(0,)),
        ],
    ).write()


def ask(verb: str, made: FakeMachine, policy: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON document of a verb."""
    arguments = [verb, "--json", "--procfs", str(made.procfs), "--sysfs", str(made.sysfs)]
    assert main([*arguments, "--config", str(policy)]) == 0
    return json.loads(capsys.readouterr().out)


def decisions(plan: Any) -> dict[int, Any]:
    """Return decisions by pid."""
    return {d["pid"]: d for d in plan["decisions"]}


def test_plan_brings_pinned_free_and_split_workers_home(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory follows a pin, threads follow memory where free, the smaller part joins the larger."""
    plan = decisions(ask("plan", machine(tmp_path, (0, 1, 2, 3)), policy, capsys))
    assert plan[100]["home"] == [0]
    assert plan[100]["home_source"] == "pin"
    assert plan[100]["bind_cpus"] is None
    assert plan[100]["moves"] == [{"source": 1, "target": 0, "bytes": 512 * MIB}]
    assert plan[200]["home"] == [3]
    assert plan[200]["moves"] == []
    assert plan[200]["bind_cpus"] == "6-7"
    assert plan[300]["home"] == [2]
    assert plan[300]["moves"] == [{"source": 3, "target": 2, "bytes": 200 * MIB}]
    assert plan[300]["commands"] == [
        "taskset --all-tasks --cpu-list --pid 4-5 300",
        "migratepages 300 3 2",
    ]


def test_unmatched_and_bound_workers_are_left_alone_and_it_is_said_why(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that no rule matches has no decision; one under --membind is refused by name."""
    plan = decisions(ask("plan", machine(tmp_path, (0, 1, 2, 3)), policy, capsys))
    assert 400 not in plan
    assert (plan[500]["verdict"], plan[500]["reason"]) == ("refuse", "mempolicy")
    assert "bind:1" in plan[500]["why"]
    assert plan[500]["moves"] == []


def test_renumbered_nodes_give_the_renumbered_plan(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Node ids are names: with holes and in another order the same bytes go the same way."""
    ids = (7, 3, 12, 5)
    name = dict(enumerate(ids))
    plain = decisions(ask("plan", machine(tmp_path / "a", (0, 1, 2, 3)), policy, capsys))
    other = decisions(ask("plan", machine(tmp_path / "b", ids), policy, capsys))
    for pid, decision in plain.items():
        home = decision["home"]
        assert other[pid]["home"] == (None if home is None else sorted(name[n] for n in home))
        assert other[pid]["bind_cpus"] == decision["bind_cpus"]
        assert other[pid]["moves"] == [
            {"source": name[m["source"]], "target": name[m["target"]], "bytes": m["bytes"]}
            for m in decision["moves"]
        ]


def test_status_is_the_same_each_time(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A direct look holds nothing that depends on the clock."""
    made = machine(tmp_path, (0, 1, 2, 3))
    first = ask("status", made, policy, capsys)
    assert first == ask("status", made, policy, capsys)
    by_pid = {w["pid"]: w for w in first["workers"]}
    assert by_pid[100]["locality"] == 0.0
    assert by_pid[100]["resident_bytes"] == {"1": {"anon": 512 * MIB}}


def test_one_node_has_nothing_to_move(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one node every worker rests, and the reason says so."""
    made = FakeMachine(
        tmp_path, [FakeNode(0, (0, 1))], [FakeProcess(100, LLAMA, anon({0: 64 * MIB}))]
    ).write()
    plan = decisions(ask("plan", made, policy, capsys))
    assert (plan[100]["verdict"], plan[100]["reason"]) == ("rest", "one-node")


@pytest.mark.parametrize("text", ["", "7f0000000000 def", "%%%\n\n", "7f00 default anon=1 N0=\n"])
def test_odd_numa_maps_is_a_problem_of_that_worker_only(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Empty, cut short or odd: that worker waits as unreadable, its neighbour is planned."""
    made = FakeMachine(
        tmp_path,
        [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
        [
            FakeProcess(100, LLAMA, text),
            FakeProcess(200, LLAMA, anon({1: 512 * MIB}), affinity=(0, 1)),
        ],
    ).write()
    plan = decisions(ask("plan", made, policy, capsys))
    assert plan[100]["reason"] == "unreadable"
    assert plan[200]["verdict"] == "act"


@pytest.mark.parametrize(
    "file", ["stat", "status", "cgroup", "numa_maps", "cmdline", "task/100/stat", "task/100/status"]
)
def test_a_file_that_vanishes_between_two_reads_ends_nothing(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """Whichever file is gone, the other worker is still planned."""
    made = machine(tmp_path, (0, 1, 2, 3))
    (made.procfs / "100" / file).unlink()
    assert decisions(ask("plan", made, policy, capsys))[200]["verdict"] == "act"


def test_comm_with_spaces_and_parentheses(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comm may be ``a) R (b``: fields are counted from the last parenthesis."""
    made = FakeMachine(
        tmp_path,
        [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
        [FakeProcess(100, LLAMA, anon({1: 64 * MIB}), comm="a) R (b", last_cpus=(3,))],
    ).write()
    status = ask("status", made, policy, capsys)
    assert status["workers"][0]["comm"] == "a) R (b"
    assert status["workers"][0]["run_share"] == {"1": 1.0}
