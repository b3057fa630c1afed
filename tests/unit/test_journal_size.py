"""The journal stays small while a worker's threads come and go, and opens soon whatever it has."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from numad_py.act.journal import Entry, Journal, ThreadMasks
from numad_py.act.journal_records import MaskReader, record_of
from numad_py.model.cpulist import parse_list
from numad_py.model.snapshot import WorkerId

WORKER = WorkerId(10, 5)
FIRST, OTHER, OURS = frozenset({0, 1}), frozenset({0, 2}), frozenset({0})


def entry(*tids: int, first: frozenset[int] = FIRST, ours: frozenset[int] = OURS) -> Entry:
    """Return an entry of these threads."""
    return Entry(WORKER, "x/0", "1:x/0", {tid: ThreadMasks(5, first, ours) for tid in tids})


def test_threads_that_are_no_more_are_dropped(tmp_path: Path) -> None:
    """Only the living are written again, with what is new."""
    journal = Journal(tmp_path, "boot")
    journal.put(entry(10, *range(100, 200)))
    journal.put(entry(300), living={10, 150, 300})
    assert set(journal.entries()[0].threads) == {10, 150, 300}


def test_what_a_living_thread_may_have_inherited_is_kept(tmp_path: Path) -> None:
    """One of each pair of masks, also where all that had it have ended: a child may have ours."""
    journal = Journal(tmp_path, "boot")
    journal.put(entry(10, ours=frozenset({1})))
    journal.put(entry(100, 101, first=OTHER), living={10, 100, 101})
    journal.put(entry(300, ours=frozenset({1})), living={10, 300})
    (kept,) = journal.entries()
    assert kept.inherited(OURS) == OTHER
    assert len(kept.threads) == 3


def test_the_file_is_written_anew_by_its_size(tmp_path: Path) -> None:
    """Long before there are so many records, where each has thousands of threads."""
    journal = Journal(tmp_path, "boot")
    for _ in range(60):
        journal.put(entry(*range(10, 2010)))
    assert len(json.dumps(entry_record())) > 30_000
    assert (tmp_path / "journal.jsonl").stat().st_size < 1.2 * (1 << 20)


def entry_record() -> dict[str, object]:
    """Return a record of 2000 threads."""
    return record_of(entry(*range(10, 2010)), "boot")


def hostile(number: int) -> str:
    """Return a record whose mask has that many long ranges."""
    ranges = ",".join(f"{i * 70000}-{i * 70000 + 65535}" for i in range(number))
    threads = {"10": [5, ranges, "0"]}
    return json.dumps({**entry_record(), "threads": threads}) + "\n"


def test_a_record_with_too_many_cpus_is_put_aside_soon(tmp_path: Path) -> None:
    """The file lies in a folder of the service, and root opens it."""
    (tmp_path / "journal.jsonl").write_text(hostile(300))
    began_s = time.monotonic()
    assert Journal(tmp_path, "boot").entries() == ()
    assert time.monotonic() - began_s < 1
    assert (tmp_path / "journal.bad").exists()


def test_all_masks_of_a_journal_together_are_bounded() -> None:
    """Each may be as long as a list may be; a mask that was read before costs nothing."""
    read = MaskReader()
    assert len(read("0-65536")) == 65537
    with pytest.raises(ValueError, match="more CPUs than any"):
        [read(f"{i}-{i + 65536}") for i in range(100)]
    assert len(read("0-65536")) == 65537


def test_a_list_is_bounded_as_a_whole() -> None:
    """65,537 ids, in however many ranges; each id twice counts twice."""
    assert len(parse_list("0-65535,70000")) == 65537
    with pytest.raises(ValueError, match="more ids than any machine has"):
        parse_list("0-65535,70000,70001")
    with pytest.raises(ValueError, match="more ids than any machine has"):
        parse_list("0-65535,0-65535")
