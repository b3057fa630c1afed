"""What status says: the document, and the text that is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from numad_py.model.machine import HugePages, Interference, NodeState, NumaStat, Pressure
from numad_py.model.residency import (
    Confirmation,
    Kind,
    Mobility,
    Residency,
    ResidencyEntry,
    Source,
)
from numad_py.model.snapshot import Bandwidth, MemoryStatus, Snapshot, Worker
from numad_py.model.topology import Node, Performance, Topology
from numad_py.serve.render import figures, render_status
from numad_py.serve.status import status_document
from tests.unit.seen import (
    GIB,
    MIB,
    NOW_S,
    anon,
    maps_file,
    report,
    residency,
    rests,
    segment,
    snapshot,
    worker,
)

NUMAD = Interference("numad", present=True, level="fail", text="numad runs (pid 7)")
NO_SWAP = Interference("swap", present=False, level="ok", text="no swap")


def document(seen: Snapshot, **more: Any) -> dict[str, Any]:
    """Return the document of a look."""
    return status_document(report(seen), source="direct", **more)


def said_of(seen: Worker) -> dict[str, Any]:
    """Return what the document says of the only worker."""
    (entry,) = document(snapshot(seen))["workers"]
    return dict(entry)


def text(seen: Snapshot) -> str:
    """Return the text of a look."""
    return render_status(document(seen))


def sampled(age_s: float = 0.0, pages: int = 1000) -> Residency:
    """Return a sample of memory that lies half on each node."""
    halves = {(node, Kind.ANON, Mobility.MOVABLE): GIB for node in (0, 1)}
    return residency(halves, age_s=age_s, source=Source.SAMPLE, sampled_pages=pages)


def confirmed(source: Source, age_s: float, error_share: float) -> Residency:
    """Return a full reading of 40 s ago that has been confirmed since."""
    later = Confirmation(source, NOW_S - age_s, error_share)
    return anon(GIB, age_s=40, confirmed=later)


# Where figures come from


def test_a_full_reading_is_as_old_as_it_is_and_sure() -> None:
    """All pages were counted: its error is 0, and nothing has confirmed it since."""
    assert said_of(worker(found=anon(GIB, age_s=12)))["figures"] == {
        "source": "numa_maps",
        "age_seconds": 12.0,
        "error": 0.0,
        "mobility_known": True,
        "confirmed": None,
        "no_full_reading": None,
    }


def test_a_sample_states_its_error() -> None:
    """Half the interval of a node's share, as a share of 1."""
    found = sampled(age_s=3)
    said = said_of(worker(found=found))["figures"]
    assert (said["source"], said["age_seconds"]) == ("sample", 3.0)
    assert said["error"] == round(found.error_share, 4) > 0.02


def test_how_wrong_a_cgroups_charges_are_is_not_known() -> None:
    """They are no sample: None, and not 0."""
    said = said_of(worker(found=anon(GIB, source=Source.NUMA_STAT, mobility_known=False)))
    assert said["figures"]["error"] is None
    assert not said["figures"]["mobility_known"]


def test_a_confirmation_has_its_own_source_age_and_error() -> None:
    """The figures stay as old as they are."""
    said = said_of(worker(found=confirmed(Source.SAMPLE, 2, 0.009)))["figures"]
    assert said["age_seconds"] == 40.0
    assert said["confirmed"] == {"source": "sample", "age_seconds": 2.0, "error": 0.009}


def test_why_there_is_no_full_reading_stands_in_document_and_text() -> None:
    """A decision hangs on it, and it would take too long."""
    seen = worker(found=anon(GIB, no_full_reading="it would take 3.0 s"))
    assert said_of(seen)["figures"]["no_full_reading"] == "it would take 3.0 s"
    assert "x/0: it would take 3.0 s" in text(snapshot(seen))


def test_a_worker_that_could_not_be_read_has_no_figures() -> None:
    """None, wherever it says something of its pages, and a dash in the text."""
    said = said_of(worker(problem="it is starting"))
    for key in (
        "figures",
        "resident_bytes",
        "resident_bytes_by_page_size",
        "shared_bytes",
        "policy_bytes",
        "refused_bytes",
        "residency_age_seconds",
    ):
        assert said[key] is None, key
    shown = text(snapshot(worker(problem="starting")))
    assert " ?                 -        rest home" in shown
    assert "x/0: starting" in shown


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (anon(GIB, age_s=12), "numa_maps 12s"),
        (sampled(3), "sample 3s ±3.1%"),
        (confirmed(Source.SAMPLE, 2, 0.009), "numa_maps 40s, sample 2s ±0.9%"),
        (confirmed(Source.NUMA_STAT, 1, 0.01), "numa_maps 40s, cgroup 1s ±1.0%"),
        (anon(GIB, age_s=4, source=Source.NUMA_STAT), "cgroup 4s"),
        (anon(GIB, age_s=600), "numa_maps 10min"),
        (anon(GIB, age_s=900 * 60), "numa_maps 15h"),
    ],
)
def test_the_text_tells_the_figures_in_few_words(found: Residency, words: str) -> None:
    """Which look, how long ago, give or take how much; then what has confirmed it."""
    seen = worker(found=found)
    assert figures(said_of(seen)["figures"]) == words
    assert f"  {words}  rest home" in text(snapshot(seen))


def test_what_was_read_after_the_cycle_began_is_new() -> None:
    """A measurement after a move takes its own time; no age is negative."""
    said = said_of(worker(found=anon(GIB, age_s=-1)))
    assert (said["figures"]["age_seconds"], said["residency_age_seconds"]) == (0.0, 0.0)


def test_ages_count_to_the_moment_of_the_question() -> None:
    """They are those of the look, and the time that has gone by since; no less where it is 0."""
    seen = worker(found=confirmed(Source.SAMPLE, 2, 0.009))
    asked = replace(report(snapshot(seen)), began_at_s=500.0).aged(507.0)
    (said,) = status_document(asked, source="daemon")["workers"]
    assert said["figures"]["age_seconds"] == 47.0
    assert said["figures"]["confirmed"]["age_seconds"] == 9.0
    assert said["residency_age_seconds"] == 47.0
    assert said["age_seconds"] == round(seen.age_s + 7)
    assert said_of(seen)["figures"]["age_seconds"] == 40.0


# What can be moved


def test_what_may_be_moved_is_none_while_nobody_knows() -> None:
    """A sample tells nodes and no more: a 0, or all of it, would be a guess."""
    said = said_of(worker(found=anon(GIB, source=Source.SAMPLE, mobility_known=False)))
    assert not said["figures"]["mobility_known"]
    keys = ("movable", "immovable", "shared", "policy", "refused")
    assert {said[f"{key}_bytes"] for key in keys} == {None}
    assert said["remote_bytes"] == 0


def test_what_cannot_be_moved_is_told_apart() -> None:
    """Immovable is what is shared, what its user placed, and what refused; no byte counts twice."""
    seen = worker(
        found=residency(
            {
                (0, Kind.ANON, Mobility.MOVABLE): 10 * MIB,
                (0, Kind.FILE, Mobility.SHARED): 4 * MIB,
                (1, Kind.ANON, Mobility.POLICY): 2 * MIB,
            }
        )
    )
    made = report(snapshot(seen), rests(seen, refused=3 * MIB))
    (said,) = status_document(made, source="direct")["workers"]
    assert (said["movable_bytes"], said["immovable_bytes"]) == (7 * MIB, 9 * MIB)
    parts = (said["shared_bytes"], said["policy_bytes"], said["refused_bytes"])
    assert parts == (4 * MIB, 2 * MIB, 3 * MIB)


def test_pinned_locked_and_swapped_are_those_of_its_status() -> None:
    """And None where the kernel does not say."""
    memory = MemoryStatus(pinned_bytes=1, locked_bytes=2, swapped_bytes=3)
    said = said_of(worker(memory=memory))
    assert (said["pinned_bytes"], said["locked_bytes"], said["swapped_bytes"]) == (1, 2, 3)
    said = said_of(worker())
    assert (said["pinned_bytes"], said["locked_bytes"], said["swapped_bytes"]) == (None, None, None)


def test_resident_bytes_are_told_by_page_size() -> None:
    """Huge pages of hugetlb stand beside base pages."""
    huge = ResidencyEntry(0, Kind.HUGETLB, Mobility.MOVABLE, GIB, 2 * MIB)
    base = ResidencyEntry(0, Kind.ANON, Mobility.MOVABLE, MIB)
    said = said_of(worker(found=Residency((base, huge), NOW_S), thp_bytes=MIB))
    assert said["resident_bytes_by_page_size"] == {"4096": MIB, str(2 * MIB): GIB}
    assert said["thp_bytes"] == MIB


def test_the_text_names_what_is_much_of_a_worker_only() -> None:
    """A hundredth of its memory at least: every process shares its libraries."""
    mostly = {(0, Kind.ANON, Mobility.MOVABLE): GIB, (0, Kind.FILE, Mobility.SHARED): 5 * MIB}
    memory = MemoryStatus(swapped_bytes=512 * MIB, pinned_bytes=0)
    shown = text(snapshot(worker(found=residency(mostly), memory=memory)))
    assert "x/0: 512.0 MiB swapped out\n" in f"{shown}\n"
    assert "shared" not in shown


def test_traffic_is_told_where_it_is_measured() -> None:
    """Bytes in a second; the text says how much of it is remote."""
    seen = worker(found=anon(GIB), bandwidth=Bandwidth(3.0 * GIB, 4.0 * GIB))
    assert said_of(seen)["bandwidth"] == {
        "local_bytes_per_s": 3 * GIB,
        "total_bytes_per_s": 4 * GIB,
    }
    assert "x/0: 1.0 GiB/s of its 4.0 GiB/s of memory traffic is remote" in text(snapshot(seen))
    assert said_of(worker())["bandwidth"] is None


# The machine


def test_nodes_tell_their_state() -> None:
    """Huge pages by size, numastat by event, busy CPUs; None where nobody knows."""
    state = NodeState(
        0,
        4 * GIB,
        GIB,
        0,
        huge_pages=(HugePages(2 * MIB, 512, 100),),
        numastat=NumaStat(9, 1, 2, 8, 2),
        busy_cpus=0.512,
    )
    first, second = document(snapshot(node_states=(state,)))["nodes"]
    assert first["huge_pages"] == [{"page_bytes": 2 * MIB, "total": 512, "free": 100}]
    assert first["numastat_pages"] == {"hit": 9, "miss": 1, "foreign": 2, "local": 8, "other": 2}
    assert first["busy_cpus"] == 0.51
    assert (second["huge_pages"], second["numastat_pages"], second["busy_cpus"]) == ([], None, None)
    shown = text(snapshot(node_states=(state,)))
    assert shown.splitlines()[2].split() == [
        *("NODE", "CPUS", "BUSY", "MEMORY", "FREE", "WORKERS", "FREE", "HUGE", "PAGES", "DISTANCES")
    ]
    assert "100/512 x 2.0 MiB" in shown


def test_nodes_tell_tier_and_rated_performance() -> None:
    """In the text a column of its own for each, where the nodes differ or the firmware says it."""
    rated = Performance(read_bandwidth_mib_s=128 * 1024, read_latency_ns=90)
    fast = Node(0, frozenset({0}), GIB, {0: 10, 1: 20}, memory_tier=4, performance=rated)
    slow = Node(1, frozenset(), GIB, {0: 20, 1: 10}, memory_tier=22)
    seen = snapshot(topology=Topology((fast, slow)))
    first, second = document(seen)["nodes"]
    assert first["performance"] == {
        "read_bandwidth_mib_s": 128 * 1024,
        "write_bandwidth_mib_s": None,
        "read_latency_ns": 90,
        "write_latency_ns": None,
    }
    assert (second["memory_tier"], second["performance"]) == (22, None)
    lines = text(seen).splitlines()
    assert "  4     128.0 GiB/s, 90 ns  " in lines[3]
    assert "  22    -  " in lines[4]


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    """A machine of one tier without huge pages gets no columns of dashes."""
    head = text(snapshot()).splitlines()[2]
    assert head.split() == ["NODE", "CPUS", "MEMORY", "FREE", "WORKERS", "DISTANCES"]


def test_pressure_is_told_where_somebody_waits() -> None:
    """All of it in the document; the text leaves out what is nothing or not known."""
    seen = snapshot(pressure=Pressure(cpu_some=0.12345, memory_some=0.0))
    assert document(seen)["pressure"] == {
        "cpu_some": 0.1235,
        "memory_some": 0.0,
        "memory_full": None,
    }
    said = "pressure over the last 10 s: some task waited for a CPU 12.3% of the time"
    assert text(seen).splitlines()[1] == said


def test_all_interferences_are_in_the_document_and_those_present_in_the_text() -> None:
    """What is not there needs no line."""
    seen = snapshot(interferences=(NUMAD, NO_SWAP))
    found = document(seen)["interferences"]
    assert [(i["name"], i["present"]) for i in found] == [("numad", True), ("swap", False)]
    assert "\nnumad       fail   numad runs (pid 7)\n" in text(seen)
    assert "no swap" not in text(seen)


# Files and shared segments


def test_a_file_that_five_workers_map_counts_once() -> None:
    """Each has all 40 GiB resident: the nodes hold 40 GiB of workers' memory, not 200."""
    by_node = {0: 30 * GIB, 1: 10 * GIB}
    workers = [worker(f"x/{i}", maps_file(by_node)) for i in range(5)]
    users = (w.label for w in workers)
    seen = snapshot(*workers, segments=(segment(by_node, *users),))
    assert seen.resident_by_node() == by_node
    assert [node["workers_bytes"] for node in document(seen)["nodes"]] == [30 * GIB, 10 * GIB]


def test_what_workers_have_for_themselves_comes_on_top_of_what_they_share() -> None:
    """A segment counts with the most that any has of it, all else with what each has."""
    one, other = worker("x/0", maps_file({0: GIB})), worker("x/1", maps_file({0: 3 * GIB}))
    alone = worker("x/2", anon(2 * GIB, 1))
    seen = snapshot(one, other, alone, segments=(segment({0: 3 * GIB}, "x/0", "x/1"),))
    assert seen.resident_by_node() == {0: 3 * GIB, 1: 2 * GIB}


def test_what_nobody_has_merged_is_not_taken_away() -> None:
    """A part of which the snapshot names no segment counts as the worker's own."""
    assert snapshot(worker(found=maps_file({0: GIB}))).resident_by_node() == {0: GIB}


def test_segments_tell_who_uses_them() -> None:
    """Path, identity, kind, bytes by node and users."""
    seen = snapshot(segments=(segment({1: 2 * MIB, 0: MIB}, "x/0", "x/1"),))
    assert document(seen)["segments"] == [
        {
            "path": "/model.gguf",
            "device": "08:01",
            "inode": 42,
            "kind": "file",
            "resident_bytes": 3 * MIB,
            "bytes_by_node": {"0": MIB, "1": 2 * MIB},
            "users": ["x/0", "x/1"],
        }
    ]
    assert "\n/model.gguf             file  0:1.0 MiB 1:2.0 MiB  x/0 x/1" in text(seen)


def test_of_many_segments_the_largest_are_told_and_all_are_counted() -> None:
    """64 in the document, 10 in the text, in the order in which they come: the largest first."""
    many = tuple(segment({0: MIB * (100 - i)}, path=f"/{i:02}", number=i) for i in range(70))
    found = document(snapshot(segments=many))
    assert [s["path"] for s in found["segments"]] == [f"/{i:02}" for i in range(64)]
    in_all = sum(s.resident_bytes for s in many)
    assert found["segments_in_all"] == {"count": 70, "resident_bytes": in_all}
    shown = render_status(found)
    assert "\n/09 " in shown
    assert "\n/10 " not in shown
    assert "and 60 more: 4.5 GiB in all" in shown


def test_of_many_users_the_text_names_a_few() -> None:
    """The document has them all."""
    users = [f"x/{i}" for i in range(7)]
    seen = snapshot(segments=(segment({0: MIB}, *users),))
    assert document(seen)["segments"][0]["users"] == users
    assert text(seen).endswith("x/0 x/1 x/2 x/3 and 3 more")


# The document as a whole


def test_a_document_goes_through_json_and_gives_the_same_text() -> None:
    """The client of a daemon renders what came over the socket."""
    state = NodeState(0, GIB, GIB, 0, numastat=NumaStat(1, 2, 3, 4, 5), busy_cpus=1.0)
    seen = snapshot(
        worker(found=sampled(), bandwidth=Bandwidth(1.0, 2.0)),
        node_states=(state,),
        interferences=(NUMAD,),
        segments=(segment({0: MIB}, "x/0"),),
        pressure=Pressure(0.5, 0.5, 0.5),
    )
    made = document(seen)
    assert json.loads(json.dumps(made)) == made
    assert render_status(json.loads(json.dumps(made))) == render_status(made)


def test_a_direct_look_holds_nothing_that_depends_on_the_clock() -> None:
    """Two looks at one machine at different times say the same."""
    looks = []
    for at_s in (NOW_S, NOW_S + 1234.5):
        found = Residency(anon(GIB).entries, at_s)
        looks.append(snapshot(worker(found=found), at_s=at_s))
    first, second = (document(seen) for seen in looks)
    assert first == second
