"""Recordings: what is written can be read, also where writing was broken off."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
from pathlib import Path

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
    with pytest.raises(NumadError, match="No space left on device; the 1 cycles"):
        recorder.write(encode(CYCLES[1]))
    recorder.close()
    monkeypatch.undo()
    assert list(Recording(path)) == CYCLES[:1]


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    """Other programs can read it, too."""
    lines = write(tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["policy"]["rules"][0]["name"] == defaults().rules[0].name
    assert json.loads(lines[1])["snapshot"]["workers"][0]["label"] == "x/0"
