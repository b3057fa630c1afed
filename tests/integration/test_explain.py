"""``explain`` as it is typed: from the daemon, from a look, and for what is no worker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from numad_py.cli import main
from numad_py.policy.schema import LogFormat
from numad_py.serve.logs import configure
from tests.fake_tree import PF_KTHREAD, FakeProcess, anon
from tests.integration.program import MIB, machine, policy, roots
from tests.integration.running import running


def test_the_daemon_is_asked_where_one_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its story is that of a look, but for what is done now and by whom."""
    configure("error", LogFormat.JSON)  # the daemon runs in this process, and logs to its output
    made, path = machine(tmp_path), policy(tmp_path)
    with running(made, path):
        assert main(["explain", "100", "--json", "--config", str(path)]) == 0
        asked = json.loads(capsys.readouterr().out)
    assert (asked["schema"], asked["source"], asked["mode"]) == (1, "daemon", "act")
    assert asked["dry_run"]
    assert main(["explain", "100", "--json", *roots(made), "--config", str(path)]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["source"] == "direct"
    assert seen.keys() == asked.keys()
    for key in ("worker", "pid", "comm", "home", "resident_bytes", "allowed_cpus"):
        assert seen["worker"][key] == asked["worker"][key]
    assert seen["decision"].keys() == asked["decision"].keys()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama.cpp/7", "no worker 'llama.cpp/7' among 1 worker; did you mean llama.cpp/0?"),
        ("900", "pid 900 (postgres) is no worker: no rule matches"),
        ("901", "pid 901 (less) is no worker: no rule matches"),
        ("902", "no worker '902' among 1 worker"),
    ],
)
def test_what_is_no_worker_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    """Exit code 2, nothing on standard output, and what was perhaps meant."""
    made = machine(
        tmp_path,
        FakeProcess(900, ("/usr/bin/postgres",), anon({1: MIB}), "postgres", resident_kib=1 << 20),
        FakeProcess(901, ("/usr/bin/less",), anon({1: MIB}), "less", resident_kib=1024),
    )
    assert main(["explain", name, *roots(made), "--config", str(policy(tmp_path))]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert not printed.out


RULES = """\
[[rule]]
name = "wide"
comm = "^serve"
user = ["alice", "4711"]
[[rule]]
name = "other"
comm = "^else$"
[[rule]]
name = "unit"
exe = "^/srv/"
unit = "llm@*.service"
cmdline = "serve"
[[exclude]]
name = "canary"
cmdline = "--canary"
"""


@pytest.mark.parametrize("resident_kib", [1024, 1 << 20])
@pytest.mark.parametrize(
    ("process", "said"),
    [
        (("serve", None, "/srv/serve", "--canary"), "excluded by canary ({path}:18)"),
        (
            ("serve", None, "x"),
            "no rule matches; wide ({path}:6) would, but its user is 'root'",
        ),
        (
            ("worker", "/srv/a", "serve"),
            "no rule matches; unit ({path}:13) would, but its unit is 'server.service'",
        ),
        (("worker", None, "serve"), "no rule matches"),
        (("x", "/srv/a", "x"), "no rule matches"),
    ],
)
def test_a_process_that_is_no_worker_is_told_which_rule_or_exclude_is_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    process: tuple[Any, ...],
    said: str,
    resident_kib: int,
) -> None:
    """The exclude, or the own rules of which all but one key match; large or small."""
    comm, exe, *cmdline = process
    memory = anon({1: MIB})
    other = FakeProcess(901, cmdline, memory, comm, exe=exe, resident_kib=resident_kib)
    made, path = machine(tmp_path, other), policy(tmp_path, RULES)
    assert main(["explain", "901", *roots(made), "--config", str(path)]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    told = f"pid 901 ({comm}) is no worker: {said.format(path=path)}"
    assert told in printed
    see = f"; numad-py check-config --config {path} lists the rules"
    assert (see in printed) is ("no rule" in said)


def test_a_kernel_thread_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rule is asked about it."""
    thread = FakeProcess(2, (), "", "kthreadd", flags=PF_KTHREAD)
    made = machine(tmp_path, thread)
    assert main(["explain", "2", *roots(made), "--config", str(policy(tmp_path))]) == 2
    assert "pid 2 (kthreadd) is no worker: a thread of the kernel" in capsys.readouterr().err


def test_the_rules_of_the_daemon_are_those_that_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the file it runs by, as that reads now."""
    configure("error", LogFormat.JSON)
    made = machine(tmp_path)
    path = policy(tmp_path, "[[exclude]]\nname = 'all'\ncmdline = '.'\n")
    with running(made, path):
        assert main(["explain", str(os.getpid()), "--config", str(path)]) == 2
        assert f"is no worker: excluded by all ({path}:6)" in capsys.readouterr().err
        policy(tmp_path, "[[rule]]\nname = 'all'\ncmdline = '.'\n")
        assert main(["explain", str(os.getpid()), "--config", str(path)]) == 2
        again = f"numad-py reload --config {path} makes the daemon look again"
        said = f"by now a rule of the policy's files matches it; {again}"
        assert said in capsys.readouterr().err
