"""Recordings: what is written can be read, also where writing was broken off."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from numad_py.errors import NumadError
from numad_py.model.codec import encode
from numad_py.model.cycle import Cycle
from numad_py.policy.load import defaults
from numad_py.replay.recording import BadFile, Header, Recorder, Recording, is_recording
from tests.unit import seen

HEADER = Header("1.0", "direct", defaults(), "boot")
CYCLES = [Cycle(seen.snapshot(seen.worker(f"x/{i}", seen.anon(seen.GIB)))) for i in range(3)]


def write(path: Path, cycles: list[Cycle] = CYCLES) -> Path:
    """Write a recording."""
    recorder = Recorder(path, HEADER)
    for cycle in cycles:
        recorder.write(encode(cycle))
    recorder.close()
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    """The header and every cycle, packed or not; the file is its owner's alone."""
    path = write(tmp_path / name)
    recording = Recording(path)
    assert recording.header == HEADER
    assert list(recording) == CYCLES
    assert not recording.torn
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_recording(path)


def test_it_is_packed_where_the_name_says_so_and_read_by_what_it_is(tmp_path: Path) -> None:
    """A packed recording that was given another name is still one."""
    packed = write(tmp_path / "a.gz")
    assert gzip.decompress(packed.read_bytes()).startswith(b'{"numad-py recording":1,')
    assert list(Recording(packed.rename(tmp_path / "b.jsonl"))) == CYCLES


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_last_line_that_was_cut_off_is_left_out_and_told(tmp_path: Path, name: str) -> None:
    """Wherever a power cut or a kill has ended the file, what came before is there."""
    path = write(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    recording = Recording(path)
    assert list(recording) == CYCLES[:2]
    assert recording.torn


def test_a_recorder_that_was_killed_leaves_every_cycle_it_wrote(tmp_path: Path) -> None:
    """A packed file without its end can be read, since each line is flushed."""
    path = tmp_path / "a.gz"
    recorder = Recorder(path, HEADER)
    recorder.write(encode(CYCLES[0]))
    recording = Recording(path)
    assert list(recording) == CYCLES[:1]
    assert recording.torn
    recorder.close()


@pytest.mark.parametrize(
    ("odd", "said"), [("{", "not JSON"), ('{"said": []}', "snapshot: is missing"), ("[]", "object")]
)
def test_an_odd_line_in_the_middle_is_an_error(tmp_path: Path, odd: str, said: str) -> None:
    """With file, line and what is wrong: nobody is to trust what comes of such a file."""
    path = write(tmp_path / "a.jsonl")
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], odd, *lines[2:]]))
    with pytest.raises(BadFile, match=rf"^{path}:3: .*{said}"):
        list(Recording(path))


def test_what_is_no_recording_is_not_taken_for_one(tmp_path: Path) -> None:
    """JSON without the mark, and a recording of a schema that this version does not know."""
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with pytest.raises(BadFile, match=":1: not the header of a recording"):
        Recording(path)
    path.write_text('{"numad-py recording": 99, "version": "7.0"}\n')
    with pytest.raises(BadFile, match=r"newer numad-py \(7\.0\)"):
        Recording(path)
    path.write_text("[[node]]\n")
    assert not is_recording(path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO, a directory and nothing at all end with an error at once."""
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (tmp_path / "fifo", "not a file"),
        (tmp_path, "cannot be read|not a file"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(BadFile, match=said):
            is_recording(path)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Unless asked to, and then anew: its old mode does not open it to others."""
    path = tmp_path / "a.jsonl"
    path.write_text("mine")
    path.chmod(0o644)
    with pytest.raises(NumadError, match="--force"):
        Recorder(path, HEADER)
    assert path.read_text() == "mine"
    Recorder(path, HEADER, force=True).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_force_replaces_files_only(tmp_path: Path) -> None:
    """A device or a link that stands there is not removed."""
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    with pytest.raises(NumadError, match="not a regular file"):
        Recorder(link, HEADER, force=True)
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_full_disk_leaves_what_was_written_whole(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half of a line that still went in is taken back, and the error says how much there is."""
    path = tmp_path / name
    recorder = Recorder(path, HEADER)
    recorder.write(encode(CYCLES[0]))
    really, room = os.write, [10]

    def write_some(fd: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(fd, data[: room.pop()])

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(NumadError, match=r"No space left on device; .*cycles: 1"):
        recorder.write(encode(CYCLES[1]))
    recorder.close()
    monkeypatch.undo()
    assert list(Recording(path)) == CYCLES[:1]


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    """Other programs can read it, too."""
    lines = write(tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["policy"]["rules"][0]["name"] == defaults().rules[0].name
    assert json.loads(lines[1])["snapshot"]["workers"][0]["label"] == "x/0"


def changed(change: Callable[[dict[str, Any]], object], number: int = 2) -> list[Any]:
    """Return the cycles, encoded, one of them changed."""
    cycles: list[Any] = [encode(cycle) for cycle in CYCLES]
    change(cycles[number]["snapshot"])
    return cycles


def write_encoded(path: Path, cycles: list[Any]) -> Path:
    """Write a recording of cycles that are encoded already."""
    recorder = Recorder(path, HEADER)
    for cycle in cycles:
        recorder.write(cycle)
    recorder.close()
    return path


def _node(shot: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", shot["topology"]["nodes"][0])


def _entry(shot: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", shot["workers"][0]["residency"]["entries"][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: _node(s)["distances"].update({"1": 0}), "topology.nodes[0].distances: 0 from"),
        (lambda s: _node(s)["distances"].update({"0": 20}), "topology.nodes[0].distances: 20 from"),
        (lambda s: _node(s).update(memory_bytes=-1), "topology.nodes[0].memory_bytes: -1 is less"),
        (lambda s: _node(s).update(id=1), "topology.nodes[1].id: 1 is there twice"),
        (lambda s: _node(s).update(cpus="0-1"), "topology.nodes[1].cpus: 1 of node 1 belong to"),
        (lambda s: s.update(at_s=1.0), "at_s: 1 s is before the look above it"),
        (
            lambda s: _entry(s).update(resident_bytes=-1),
            "workers[0].residency: x/2 has less than no memory on a node",
        ),
        (
            lambda s: _entry(s).update(resident_bytes=99 << 30),
            "workers[0].residency: x/2 has 99.0 GiB, more than the machine",
        ),
        (
            lambda s: _entry(s).update(node=7),
            "workers[0].residency: x/2 has memory on node 7, which the machine has not had",
        ),
        (
            lambda s: s["workers"][0].update(run_share={"7": 1.0}),
            "workers[0].run_share: x/2 ran on node 7, which the machine has not had",
        ),
        (
            lambda s: s["workers"][0].update(run_share={"0": 2.0}),
            "workers[0].run_share: x/2 ran on the nodes for shares that do not add up to 1",
        ),
        (
            lambda s: s["workers"][0].update(demand_cpus=-1.0),
            "workers[0].demand_cpus: x/2 keeps -1 CPUs busy, less than none",
        ),
        (
            lambda s: s["workers"][0].update(demand_cpus=1e308),
            "workers[0].demand_cpus: x/2 has 1e+308 there, no figure of a machine",
        ),
        (
            lambda s: s["workers"][0].update(demand_cpus=float("inf")),
            "workers[0].demand_cpus: x/2 has inf there, no figure of a machine",
        ),
        (
            lambda s: s["workers"][0].update(run_share={"0": float("nan")}),
            "workers[0].run_share: x/2 has nan there, no figure of a machine",
        ),
        (
            lambda s: s["workers"][0].update(age_s=float("-inf")),
            "workers[0].age_s: x/2 has -inf there, no figure of a machine",
        ),
        (lambda s: s.update(at_s=float("nan")), "at_s: nan is no time"),
        (lambda s: s["workers"].append(s["workers"][0]), "workers[1].id: 12 is there twice"),
        (
            lambda s: s.update(
                node_states=[
                    {"node": 0, "total_bytes": 1, "free_bytes": -1, "reclaimable_bytes": 0}
                ]
            ),
            "node_states[0].free_bytes: -1 is less than 0",
        ),
    ],
)
def test_what_no_machine_can_have_shown_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    """By line and key, with what to do; figures of it would mean nothing."""
    path = write_encoded(tmp_path / "a.jsonl", changed(change))
    with pytest.raises(BadFile) as caught:
        list(Recording(path))
    assert str(caught.value).startswith(f"{path}:4: snapshot.{said}")
    assert str(caught.value).endswith("Record anew, or undo what was changed in the file")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["topology"]["nodes"].pop(0),
        lambda s: _node(s)["distances"].update({"1": 31}),
        lambda s: s["workers"][0]["threads"][0].update(affinity="0-63"),
        lambda s: s["workers"][0].update(run_share={}),
    ],
)
def test_what_real_machines_show_is_not_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Nodes that have gone while figures are older, ways longer back, masks of offline CPUs."""
    path = write_encoded(tmp_path / "a.jsonl", changed(change))
    assert len(list(Recording(path))) == 3
