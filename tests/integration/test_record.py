"""``record`` and ``replay``: from a look at a made machine to the figures of another policy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.cli import main
from numad_py.replay.recording import BadFile, Recording
from tests.integration.program import ask, machine, policy, roots

MACHINE = """
duration = "60s"
[[node]]
id = 0
cpus = "0-3"
memory = "16GiB"
[[node]]
id = 1
cpus = "4-7"
memory = "16GiB"
[[worker]]
name = "far"
size = "4GiB"
nodes = [1]
run = [0]
pin = "0-3"
"""


def often(folder: Path) -> Path:
    """Write a policy that looks once a second."""
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "often.toml").write_text('[daemon]\ninterval = "1s"\n')
    return policy(folder)


def looks(folder: Path) -> list[str]:
    """Return the options that look at a made machine with a remote worker."""
    return [*roots(machine(folder)), "--config", str(often(folder))]


def a_clock_that_goes(text: str) -> Iterator[str]:
    """Return the lines with 5 s from one to the next: that of a made machine stands still."""
    header, *lines = text.splitlines(keepends=True)
    yield header
    for number, line in enumerate(lines):
        cycle = json.loads(line)
        cycle["snapshot"]["at_s"] += 5 * number
        yield json.dumps(cycle) + "\n"


def test_what_is_recorded_can_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker is remote as recorded, and comes home under the policy it was recorded under."""
    path = tmp_path / "seen.jsonl"
    told = ask(capsys, "record", str(path), "--cycles", "3", *looks(tmp_path))
    assert (told["cycles"], told["source"], told["missed_cycles"]) == (3, "direct", 0)
    assert told["bytes"] == path.stat().st_size
    path.write_text("".join(a_clock_that_goes(path.read_text())))
    document = ask(capsys, "replay", str(path))
    assert (document["schema"], document["kind"], document["torn"]) == (1, "recording", False)
    runs = {run["name"]: run for run in document["runs"]}
    assert list(runs) == ["recorded", "untouched", "policy"]
    ends = {name: (run["locality_end"], run["moved_bytes"]) for name, run in runs.items()}
    assert ends == {"recorded": (0.0, 0), "untouched": (0.0, 0), "policy": (1.0, 512 << 20)}
    assert runs["recorded"]["decisions"] == {"act remote-memory": 3}


def test_another_policy_is_tried_beside_the_present_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that moves a twentieth as fast is not done by the end."""
    described = tmp_path / "machine.toml"
    described.write_text(MACHINE)
    slow = policy(tmp_path, '[migration]\nrate = "50MiB/s"\n')
    document = ask(capsys, "replay", str(described), "--config", str(slow))
    assert document["kind"] == "machine"
    untouched, present, new = document["runs"]
    assert [run["name"] for run in document["runs"]] == ["untouched", "policy", "new"]
    assert (untouched["locality_end"], present["locality_end"]) == (0.0, 1.0)
    assert new["locality_end"] == pytest.approx(60 * 50 / 4096, abs=0.001)
    assert (new["local_after_s"], present["local_after_s"]) == (None, 5.0)
    assert main(["replay", str(described), "--config", str(slow)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"machine {described}: 13 cycles over 60 s, 1 worker\n")
    rows = [re.split(r"  +", line) for line in text.splitlines()]
    assert ["", "UNTOUCHED", "POLICY", "NEW"] in rows
    assert ["99 % at home after", "never", "5 s", "never"] in rows
    assert ["act remote-memory", "-", "1", "1"] in rows
    assert ["would act remote-memory", "13", "-", "-"] in rows
    assert ["60 s", "0.0%", "100.0%", "73.2%"] in rows


def holds_a_cycle(path: Path) -> bool:
    """Say whether a recording has come that far; its header may be on its way yet."""
    try:
        return bool(list(Recording(path)))
    except BadFile:
        return False


def test_interrupting_is_how_a_recording_ends(tmp_path: Path) -> None:
    """SIGTERM, too: the file is whole, and the exit code 0."""
    path = tmp_path / "seen.jsonl.gz"
    running = subprocess.Popen(
        [sys.executable, "-m", "numad_py", "record", str(path), *looks(tmp_path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not holds_a_cycle(path):
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 0, err
    recording = Recording(path)
    assert len(list(recording)) == json.loads(out)["cycles"] >= 1
    assert not recording.torn


def test_a_time_limit_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After so long, whatever the interval."""
    path = tmp_path / "seen.jsonl"
    began = time.monotonic()
    assert ask(capsys, "record", str(path), "--for", "500ms", *looks(tmp_path))["cycles"] == 1
    assert time.monotonic() - began < 5


def test_a_file_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless --force replaces it."""
    path = tmp_path / "seen.jsonl"
    path.write_text("mine")
    options = ["record", str(path), "--cycles", "1", *looks(tmp_path)]
    assert main(options) == 1
    assert "exists already; --force replaces it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*options, "--force"]) == 0
    assert capsys.readouterr().out.startswith("1 cycle, ")


@pytest.mark.parametrize("option", [["--cycles", "0"], ["--cycles", "x"], ["--for", "5"]])
def test_a_limit_that_is_none_is_usage(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to write instead, and no file made."""
    with pytest.raises(SystemExit) as ended:
        main(["record", str(tmp_path / "x"), *option])
    assert ended.value.code == 2
    assert " is not a " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_recording_that_was_broken_off_is_replayed_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its last cycle."""
    path = tmp_path / "seen.jsonl"
    assert main(["record", str(path), "--cycles", "2", *looks(tmp_path)]) == 0
    path.write_bytes(path.read_bytes()[:-10])
    capsys.readouterr()
    assert main(["replay", str(path)]) == 0
    text = capsys.readouterr().out
    assert "1 cycle over 0 s, 1 worker\nit was broken off while it was written" in text


def test_what_cannot_be_replayed_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such file and no such kind of file: 1; a bad policy: 78."""
    path = tmp_path / "x"
    assert main(["replay", str(path)]) == 1
    assert (
        capsys.readouterr().err == f"numad-py: {path}: cannot be read: No such file or directory\n"
    )
    path.write_text("[[nodes]]\n")
    assert main(["replay", str(path)]) == 1
    assert f"{path}:1: nodes: no such key" in capsys.readouterr().err
    path.write_text(MACHINE)
    bad = policy(tmp_path, "[placement]\nheadrom = 1\n")
    assert main(["replay", str(path), "--config", str(bad)]) == 78
    assert "did you mean headroom?" in capsys.readouterr().err


def test_a_recording_of_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to compare."""
    path = tmp_path / "seen.jsonl"
    assert main(["record", str(path), "--cycles", "1", *looks(tmp_path)]) == 0
    path.write_text(path.read_text().split("\n", maxsplit=1)[0] + "\n")
    capsys.readouterr()
    assert main(["replay", str(path)]) == 1
    assert capsys.readouterr().err == f"numad-py: {path}: holds no cycle\n"
