"""What a policy names and a machine has not, as check-config and doctor say it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from numad_py.cli import main
from numad_py.kernel import users
from numad_py.model.topology import Node, Topology
from numad_py.policy.absent import absent
from numad_py.policy.load import load
from tests.integration.program import ask, machine, policy, roots

NODES = (Node(0, frozenset({0, 1}), 1 << 30, {}), Node(2, frozenset({4, 5}), 1 << 30, {}))


def told(folder: Path, text: str, known: Callable[[str], bool] = "root".__eq__) -> list[str]:
    """Return what is absent from a machine with nodes 0 and 2 and CPUs 0-1 and 4-5."""
    path = policy(folder, text)
    return [said.replace(f"{folder}/", "") for said in absent(load(path), Topology(NODES), known)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[placement]\nreserved_cpus = "0-3"\n',
            (
                "placement.reserved_cpus: names CPUs 2-3, which are not online here "
                "(CPUs 0-1,4-5 are)"
            ),
        ),
        (
            "[placement]\nreserved_cpus = [7]\n",
            "placement.reserved_cpus: names CPU 7, which is not online here (CPUs 0-1,4-5 are)",
        ),
        (
            "[[rule]]\nname = 'a'\ncomm = 'a'\nnodes = [0, 1]\n",
            (
                "policy.toml:6: rule.nodes: a names node 1, which is not online here "
                "(nodes 0,2 are); it gives no home here"
            ),
        ),
        (
            "[[rule]]\nname = 'a'\nuser = ['root', 'rot', '77']\n",
            "policy.toml:6: rule.user: a names user 'rot', who is not known here",
        ),
        (
            "[[exclude]]\nname = 'a'\nuser = 'rot'\n",
            "policy.toml:6: exclude.user: a names user 'rot', who is not known here",
        ),
    ],
)
def test_what_is_absent_is_told_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    """By rule and line where a rule names it, and with what there is; ids of users are known."""
    assert told(tmp_path, text) == [said]


def test_a_policy_whose_things_are_all_there_is_told_nothing(tmp_path: Path) -> None:
    """Neither are the built-in rules, whoever is known."""
    text = "[placement]\nreserved_cpus = '0,5'\n[[rule]]\nname = 'a'\nuser = 'root'\nnodes = [2]\n"
    assert told(tmp_path, text) == []
    assert told(tmp_path, "", known=lambda _: False) == []


# As it is typed

NOBODY = "no-such-user-here"
ASKS = f"""\
[placement]
reserved_cpus = "0,4096-4099"
[[rule]]
name = "mine"
comm = "^x$"
nodes = [0, 900]
user = ["root", "{NOBODY}"]
[[exclude]]
name = "theirs"
user = "{NOBODY}"
"""
KEYS = ("placement.reserved_cpus", "rule.nodes", "rule.user", "exclude.user")


def test_check_config_notes_what_is_absent_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, a line for each: the policy may be for another machine."""
    path = str(policy(tmp_path, ASKS))
    assert main(["check-config", path]) == 0
    printed = capsys.readouterr()
    notes = printed.err.splitlines()
    assert len(notes) == len(KEYS)
    for note, key in zip(notes, KEYS, strict=True):
        assert note.startswith("note: ")
        assert f"{key}: " in note
    assert "names CPUs 4096-4099, which are not online here (CPU" in notes[0]
    assert notes[2].startswith(f"note: {path}:8: rule.user: mine names user '{NOBODY}'")
    assert printed.out.startswith(f"ok: {path}\n")
    document = ask(capsys, "check-config", path)
    assert [f"note: {text}" for text in document["notes"]] == notes


def test_check_config_without_nodes_to_compare_with_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build container may have no sysfs; the policy is good all the same."""
    nowhere = ["--sysfs", str(tmp_path)]
    assert main(["check-config", str(policy(tmp_path, ASKS)), *nowhere]) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: not compared with this machine: ")
    assert main(["check-config", str(policy(tmp_path)), *nowhere]) == 0
    assert not capsys.readouterr().err


def test_doctor_warns_of_what_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check for each, of the machine that is looked at; none where all is there."""
    looks = [*roots(machine(tmp_path)), "--config", str(policy(tmp_path, ASKS))]
    checks = [c for c in ask(capsys, "doctor", *looks)["checks"] if c["name"] == "policy"]
    assert [c["level"] for c in checks] == ["ok", "warn", "warn", "warn", "warn"]
    assert all(key in c["text"] for key, c in zip(KEYS, checks[1:], strict=True))
    assert "(CPUs 0-3 are)" in checks[1]["text"]
    policy(tmp_path, '[placement]\nreserved_cpus = "3"\n')
    checks = [c for c in ask(capsys, "doctor", *looks)["checks"] if c["name"] == "policy"]
    assert [c["level"] for c in checks] == ["ok"]


@pytest.mark.parametrize(
    ("name", "known"), [("root", True), (NOBODY, False), ("a\0b", False), ("", False)]
)
def test_users_are_asked_for_by_name(name: str, known: bool) -> None:  # noqa: FBT001
    """Odd names are those of nobody."""
    assert users.exists(name) is known
