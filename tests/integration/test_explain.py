"""``explain`` as it is typed: from the daemon, from a look, and for what is no worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from numad_py.cli import main
from numad_py.policy.schema import LogFormat
from numad_py.serve.logs import configure
from tests.fake_tree import FakeProcess, anon
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
        ("901", "pid 901 (less) is a process, but no worker"),
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
