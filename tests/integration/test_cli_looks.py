"""The verbs that look, and restore: what they print, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from numad_py.cli import direct, main
from numad_py.kernel.procfs import ProcFs
from numad_py.observe.interference import interferences
from numad_py.policy import load as load_module
from numad_py.serve.control import ControlServer
from tests.fake_tree import FakeMachine, FakeProcess, anon, put
from tests.integration.program import LLAMA, MIB, NONE_AT_ALL, ask, machine, numad_py, policy, roots

# Looking


def contents(folder: Path) -> Mapping[str, bytes]:
    """Return every file of a folder, links by where they lead."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(tmp_path: Path) -> None:
    """The plan and the status in one document; no journal, no socket, no file touched."""
    made = machine(tmp_path)
    path = policy(tmp_path)
    before = contents(tmp_path)
    ended = numad_py("run", "--once", "--dry-run", "--json", *roots(made), "--config", str(path))
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    (decision,) = document["plan"]["decisions"]
    assert (decision["verdict"], decision["moves"][0]["target"]) == ("act", 0)
    assert document["status"]["workers"][0]["decision"]["id"] == decision["id"]
    assert not ended.stderr
    assert contents(tmp_path) == before
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "run").exists()


def test_a_dry_run_without_a_policy_file_uses_the_built_in_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As plan does, and says so; a run that could act needs a file."""
    monkeypatch.setattr(direct, "DEFAULT_PATH", str(tmp_path / "none.toml"))
    monkeypatch.setattr(load_module, "DEFAULT_PATH", str(tmp_path / "none.toml"))
    made = machine(tmp_path)
    assert main(["run", "--once", "--dry-run", "--json", *roots(made)]) == 0
    captured = capsys.readouterr()
    assert "using the built-in policy" in captured.err
    assert json.loads(captured.out)["plan"]["decisions"][0]["verdict"] == "act"
    assert main(["run", "--once", "--json", *roots(made)]) == 78


def test_a_dry_run_that_may_see_no_worker_ends_with_77(tmp_path: Path) -> None:
    """As status does: nothing to report is not the same as nothing to see."""
    made = machine(tmp_path)
    (made.procfs / "100/numa_maps").chmod(0)
    config = ["--config", str(policy(tmp_path))]
    ended = numad_py("run", "--once", "--dry-run", *roots(made), *config, drop=NONE_AT_ALL)
    assert ended.returncode == 77
    assert not ended.stdout


def test_a_name_that_no_encoding_has_can_be_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process may call itself anything; status shows it, and does not fail for all the others."""
    odd = "\udcff\N{GREEK SMALL LETTER PI}\x1b[2J"
    other = FakeProcess(310, ("/x",), anon({0: MIB}), comm=odd, resident_kib=1 << 20)
    made = machine(tmp_path, FakeProcess(300, LLAMA, anon({0: MIB}), comm=odd), other)
    looks = ["status", *roots(made), "--config", str(policy(tmp_path))]
    assert ask(capsys, *looks)["workers"][1]["comm"] == odd
    assert main(looks) == 0
    said = capsys.readouterr().out
    assert "\n\\udcff\N{GREEK SMALL LETTER PI}\\x1b[2J " in said
    said.encode()


@pytest.mark.parametrize("arguments", [["check-config"], ["status", "--json", "--config"]])
def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    """Into head or less: nothing on standard error, and 0, be the output short or long."""
    more = [FakeProcess(pid, LLAMA, anon({0: MIB})) for pid in range(300, 330)]
    made = machine(tmp_path, *more)
    read, write = os.pipe()
    os.close(read)
    looks = roots(made) if "status" in arguments else []
    with os.fdopen(write, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "numad_py", *arguments, str(policy(tmp_path)), *looks],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
            timeout=30,
            # Unbuffered output fails where it is printed, buffered only when all is done.
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        )
    assert (ended.returncode, ended.stderr) == (0, b"")


# doctor


def checks(
    capsys: pytest.CaptureFixture[str], made: FakeMachine, path: Path, code: int = 0
) -> list[tuple[str, str, str]]:
    """Return doctor's checks as name, level and text."""
    document = ask(capsys, "doctor", *roots(made), "--config", str(path), code=code)
    assert document["schema"] == 1
    return [(c["name"], c["level"], c["text"]) for c in document["checks"]]


def test_doctor_finds_a_machine_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes, rights, policy, what could interfere and does not, and the daemon, each once; and 0.

    What could interfere has the names that it has in status and in the metrics.
    """
    made = machine(tmp_path)
    put(made.procfs / "sys/kernel/numa_balancing", "0\n")
    put(made.sysfs / "kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    found = checks(capsys, made, policy(tmp_path))
    names = [name for name, _, _ in found]
    interfering = [i.name for i in interferences(ProcFs(made.procfs), {})]
    assert names == ["nodes", "rights", "rights", "policy", *interfering, "thp", "daemon"]
    assert found[0][1:] == ("ok", "node 0: CPUs 0-1, 2048 MiB, node 1: CPUs 2-3, 2048 MiB")
    assert found[3][1] == "ok"
    assert found[4][1:] == ("ok", "AutoNUMA is off")
    assert ("numad", "ok", "numad does not run") in found
    assert found[-2][2].startswith("transparent huge pages: programs that ask for them get them")
    assert f"{tmp_path}/run/control.sock" in found[-1][2]


def test_doctor_finds_what_works_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A running numad fails, AutoNUMA and zone reclaim warn, and each says what to do."""
    numad = FakeProcess(300, ("/usr/bin/numad",), anon({0: MIB}), comm="numad")
    irqbalance = FakeProcess(310, ("/usr/sbin/irqbalance",), anon({0: MIB}), comm="irqbalance")
    made = machine(tmp_path, numad, irqbalance)
    put(made.procfs / "sys/kernel/numa_balancing", "1\n")
    put(made.procfs / "sys/vm/zone_reclaim_mode", "1\n")
    found = {(name, level): text for name, level, text in checks(capsys, made, policy(tmp_path), 1)}
    assert "systemctl disable --now numad" in found["numad", "fail"]
    assert found["numad", "fail"].endswith("if no unit started it: kill 300")
    assert "irqbalance runs (pid 310)" in found["irqbalance", "note"]
    assert "sysctl kernel.numa_balancing=0" in found["autonuma", "warn"]
    assert "sysctl vm.zone_reclaim_mode=0" in found["zone_reclaim", "warn"]


def test_doctor_fails_on_a_bad_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The problem is one of its checks, with file and line."""
    path = policy(tmp_path, "x = 1\n")
    found = checks(capsys, machine(tmp_path), path, 1)
    assert ("policy", "fail") in {(name, level) for name, level, _ in found}
    assert any(f"{path}:6: log.x: no such key" in text for _, _, text in found)
    daemon = ("daemon", "note", "not asked: the policy does not say where it listens")
    assert daemon in found


# restore


def test_restore_without_a_journal_gives_nothing_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to undo, which is no error."""
    document = ask(capsys, "restore", "--config", str(policy(tmp_path)))
    assert document == {"schema": 1, "restored": 0, "settings": [], "by": "journal"}


def test_restore_asks_the_daemon_of_the_policy_that_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --config it is that file's daemon that gives masks back, not the machine's usual one."""
    asked: list[str] = []

    def answer(verb: str, _arguments: Mapping[str, object]) -> object:
        asked.append(verb)
        if verb == "status":
            return {"policy": {"files": [str(tmp_path / "policy.toml")]}}
        return {"paused": True, "restored": 3}

    server = ControlServer(tmp_path / "run/control.sock", answer)
    server.start()
    try:
        document = ask(capsys, "restore", "--config", str(policy(tmp_path)))
    finally:
        server.stop()
    assert asked == ["status", "restore"]
    assert document == {"schema": 1, "restored": 3, "settings": [], "by": "daemon"}
