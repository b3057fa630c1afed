"""How values look as JSON, and what is said of JSON that is no value."""

from __future__ import annotations

import pytest

from numad_py.errors import Malformed
from numad_py.model.codec import decode, encode
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from tests.unit import seen


def test_masks_are_written_as_the_kernel_writes_them() -> None:
    """And a field that has its default is not written at all."""
    thread = Thread(7, 5, frozenset({0, 1, 2, 8}), 0, 100)
    encoded = {"tid": 7, "start_ticks": 5, "affinity": "0-2,8", "last_cpu": 0, "cpu_ticks": 100}
    assert encode(thread) == encoded
    assert encode(MemoryStatus(anon_bytes=4096)) == {"anon_bytes": 4096}


def test_keys_of_mappings_are_texts() -> None:
    """Pairs of nodes joined by a comma, members of an enumeration by their value."""
    decision = seen.rests(seen.worker())
    moved = {(1, 0): 4096}
    outcome = Outcome(decision, End.DONE, 1.0, 2.0, moved=moved, pages={PageStatus.MOVED: 1})
    encoded = encode(outcome)
    assert (encoded["moved"], encoded["pages"]) == ({"1,0": 4096}, {"moved": 1})
    assert decode(Outcome, encoded) == outcome


def test_what_a_newer_version_adds_is_left_alone() -> None:
    """An unknown key does no harm, and a key that is missing takes the field's default."""
    state = NodeState(0, 100, 50, 10)
    assert decode(NodeState, {**encode(state), "from_the_future": [1]}) == state


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cycle": None}, "cycle: None is not a whole number"),
        ({"cycle": True}, "cycle: True is not a whole number"),
        ({"at_s": "1"}, "at_s: '1' is not a number"),
        ({"workers": {}}, "workers: {} is not an array"),
        ({"workers": [{"id": [1]}]}, "workers.0.id: [1] is not an array of 2"),
        ({"workers": [{"id": [1, "x"]}]}, "workers.0.id: 'x' is not a whole number"),
        ({"workers": [{"id": [1, 2]}]}, "workers.0.label: is missing"),
        ({"pressure": 3}, "pressure: 3 is not an object, a Pressure"),
        (
            {"segments": [{"id": {"device": "0:1", "inode": 1}, "path": "", "kind": "x"}]},
            "segments.0.kind: 'x' is not one of anon, file, shmem, hugetlb",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(changed: dict[str, object], said: str) -> None:
    """Whoever has a broken recording is told where it is broken."""
    with pytest.raises(Malformed) as caught:
        decode(Snapshot, {**encode(seen.snapshot()), **changed})
    assert str(caught.value) == said


def test_a_key_that_has_no_default_must_be_there() -> None:
    """It is not made up."""
    encoded = encode(seen.snapshot())
    del encoded["cycle"]
    with pytest.raises(Malformed, match=r"^cycle: is missing$"):
        decode(Snapshot, encoded)


def test_a_list_of_ids_must_be_one() -> None:
    """What is no kernel list is no mask."""
    encoded = encode(seen.worker())
    encoded["threads"][0]["affinity"] = "0-x"
    with pytest.raises(Malformed, match=r"^threads\.0\.affinity: '0-x' is not a range"):
        decode(Worker, encoded)


def test_a_key_of_a_mapping_must_fit() -> None:
    """A worker is a pid and a start time, a node a number."""
    encoded = encode(seen.worker())
    with pytest.raises(Malformed, match=r"^run_share\.x: 'x' is not a whole number"):
        decode(Worker, {**encoded, "run_share": {"x": 1.0}})
    assert decode(WorkerId, encoded["id"]) == WorkerId(10, 5)
