"""Memory that is charged to cgroups, and traffic that resctrl measures for groups."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from numad_py.kernel.cgroupfs import MOST_CGROUPS, CgroupFs, MemoryNumaStat, parse_numa_stat
from numad_py.kernel.resctrl import ResctrlFs, Traffic
from tests.fake_tree import FakeCgroup, FakeMachine, FakeNode, FakeResctrlGroup, numa_stat, put

MIB = 1 << 20
V1 = (
    "total=100 N0=60 N1=40\nfile=10 N0=9 N1=1\nanon=5 N0=5 N1=0\nunevictable=0 N0=0 N1=0\n"
    "hierarchical_total=100 N0=60 N1=40\nhierarchical_file=30 N0=20 N1=10\n"
    "hierarchical_anon=70 N0=40 N1=30\nhierarchical_unevictable=0 N0=0 N1=0\n"
)
V2 = {
    "anon": {0: 40960, 3: 8192},
    "file": {0: 4096, 3: 0},
    "kernel_stack": {0: 16384, 3: 0},
    "shmem": {0: 0, 3: 0},
    "file_mapped": {0: 4096, 3: 0},
    "anon_thp": {0: 2 * MIB, 3: 0},
    "file_thp": {0: 0, 3: 0},
    "shmem_thp": {0: 0, 3: 2 * MIB},
    "workingset_refault_anon": {0: 3, 3: 0},
}


def test_a_cgroup_says_what_it_is_charged_for() -> None:
    """v2 counts bytes; lines that are not memory, or not known, are passed over."""
    keys = ("anon", "file", "shmem", "file_mapped", "anon_thp", "shmem_thp", "file_thp")
    assert parse_numa_stat(numa_stat(V2)) == MemoryNumaStat(**{key: V2[key] for key in keys})
    assert parse_numa_stat("anon N0=5\n") == MemoryNumaStat(anon={0: 5})


def test_cgroup_v1_counts_pages_and_has_less_to_say() -> None:
    """Of its two sets of lines the one counts that holds the cgroups below."""
    page = os.sysconf("SC_PAGE_SIZE")
    assert parse_numa_stat(V1) == MemoryNumaStat(
        anon={0: 40 * page, 1: 30 * page}, file={0: 20 * page, 1: 10 * page}
    )


@pytest.mark.parametrize("text", [V1, numa_stat(V2)])
def test_a_numa_stat_cut_anywhere_gives_its_whole_lines(text: str) -> None:
    """A line that was cut short would be memory that has gone."""
    for cut in range(len(text) + 1):
        whole = text[:cut].rpartition("\n")[0] + "\n"
        assert parse_numa_stat(text[:cut]) == parse_numa_stat(whole)


@pytest.mark.parametrize(
    "line",
    [
        "anon",
        "anon ",
        "anon 5",
        "anon N0=",
        "anon N0=1  N1=2",
        "anon N0=-1",
        "anon Nx=1",
        "anon=5",
        "anon=5 N0=5",
        "hierarchical_anon N0=5",
    ],
)
def test_an_odd_line_of_numa_stat_is_none(line: str) -> None:
    """Nothing is known of it, which is not zero."""
    assert parse_numa_stat(f"{line}\nfile N0=1\n") == MemoryNumaStat(file={0: 1})


@pytest.mark.parametrize("version", ["", "memory/"])
def test_memory_is_read_by_either_version(tmp_path: Path, version: str) -> None:
    """In v1 below the memory controller's own hierarchy; elsewhere there is nothing to say."""
    put(tmp_path / f"{version}a/b.service/memory.numa_stat", "anon N0=4096\n")
    put(tmp_path / f"{version}a/empty/memory.numa_stat", "")
    cgroupfs = CgroupFs(str(tmp_path))
    assert cgroupfs.memory_numa_stat("/a/b.service") == MemoryNumaStat(anon={0: 4096})
    for path in ("/a", "/a/empty", "/c", "/a/../a/b.service", "/a/b\0"):
        assert cgroupfs.memory_numa_stat(path) is None


@pytest.mark.parametrize("version", ["", "memory/"])
@pytest.mark.parametrize(
    ("pids", "alone"),
    [
        ("7\n", True),
        ("7\n7\n", True),
        ("", False),
        ("8\n", False),
        ("7\n8\n", False),
        ("0\n", False),
    ],
)
def test_a_cgroup_holds_one_process_or_others_too(
    tmp_path: Path, version: str, pids: str, *, alone: bool
) -> None:
    """A pid is listed twice at times (v1), and as 0 where its namespace is another."""
    put(tmp_path / f"{version}a/cgroup.procs", pids)
    assert CgroupFs(str(tmp_path)).holds_only("/a", 7) is alone


@pytest.mark.parametrize(("below", "alone"), [("", True), ("7\n", True), ("8\n", False)])
def test_cgroups_below_count(tmp_path: Path, below: str, *, alone: bool) -> None:
    """They are charged to it, at any depth."""
    made = FakeMachine(
        tmp_path, [FakeNode(0, [0])], cgroups=[FakeCgroup("/a", [7]), FakeCgroup("/a/b")]
    )
    cgroupfs = CgroupFs(f"{made.write().sysfs}/fs/cgroup")
    put(cgroupfs.root / "a/b/c/cgroup.procs", below)
    assert cgroupfs.holds_only("/a", 7) is alone
    assert cgroupfs.holds_only("/a/b", 7) is bool(below == "7\n")


def test_the_root_holds_more_than_a_process(tmp_path: Path) -> None:
    """Even where it names one alone; nor does a path that leads elsewhere."""
    put(tmp_path / "cgroup.procs", "7\n")
    put(tmp_path / "a/cgroup.procs", "7\n")
    cgroupfs = CgroupFs(str(tmp_path))
    assert cgroupfs.holds_only("/a", 7)
    for path in ("/", "", "//", "/.", "/a/..", "/a/../a", "/gone"):
        assert not cgroupfs.holds_only(path, 7)


def test_many_cgroups_below_are_not_looked_through(tmp_path: Path) -> None:
    """Whoever owns a cgroup may make any number in it; such a one holds others."""
    cgroupfs = CgroupFs(str(tmp_path))
    put(tmp_path / "a/cgroup.procs", "7\n")
    for i in range(1, MOST_CGROUPS):
        put(tmp_path / f"a/{i}/cgroup.procs", "")
    assert cgroupfs.holds_only("/a", 7)
    put(tmp_path / "a/more/cgroup.procs", "")
    assert not cgroupfs.holds_only("/a", 7)


class Threaded(CgroupFs):
    """One whose cgroups are all threaded."""

    def _open(self, full: str) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), full)


def test_a_threaded_cgroup_holds_no_process_alone(tmp_path: Path) -> None:
    """Its cgroup.procs cannot be read."""
    put(tmp_path / "a/cgroup.procs", "7\n")
    assert CgroupFs(str(tmp_path)).holds_only("/a", 7)
    assert not Threaded(str(tmp_path)).holds_only("/a", 7)


def groups(folder: Path, *made: FakeResctrlGroup) -> ResctrlFs:
    """Return a resctrl with these groups."""
    return ResctrlFs(
        FakeMachine(folder, [FakeNode(0, [0])], resctrl=made).write().sysfs / "fs/resctrl"
    )


def test_traffic_is_that_of_all_caches(tmp_path: Path) -> None:
    """By control group, the root among them, and by monitoring group; halves of a cache once."""
    resctrl = groups(
        tmp_path,
        FakeResctrlGroup(traffic=[(10, 100)]),
        FakeResctrlGroup("a", traffic=[(1, 3), (5, 7)]),
        FakeResctrlGroup("a", "m 1", traffic=[(1 << 60, 1 << 61), (1, 1)]),
    )
    put(resctrl.root / "a/mon_data/mon_L3_00/mon_sub_L3_00/mbm_local_bytes", "1\n")
    put(resctrl.root / "a/mon_data/mon_PERF_PKG_00/energy", "1\n")
    assert resctrl.traffic("/", "") == Traffic(10, 100)
    assert resctrl.traffic("a", "") == Traffic(6, 10)
    assert resctrl.traffic("a", "m 1") == Traffic((1 << 60) + 1, (1 << 61) + 1)
    assert resctrl.mounted


@pytest.mark.parametrize("figure", ["Unavailable", "Error", "Unassigned", "", "-1", "12x"])
@pytest.mark.parametrize("local", [True, False])
def test_a_cache_that_does_not_say_makes_traffic_none(
    tmp_path: Path, figure: str, *, local: bool
) -> None:
    """The sum of the others would be a drop that never was."""
    odd = (figure, 5) if local else (5, figure)
    resctrl = groups(tmp_path, FakeResctrlGroup("a", traffic=[(1, 2), odd]))
    assert resctrl.traffic("a", "") is None


def test_traffic_that_nobody_measures_is_none(tmp_path: Path) -> None:
    """No group, no caches, no file for one of the figures, a figure cut short, no resctrl."""
    resctrl = groups(tmp_path, FakeResctrlGroup("a", traffic=[(1, 2)]), FakeResctrlGroup("b"))
    (resctrl.root / "b/mon_data").mkdir()
    assert (resctrl.traffic("b", ""), resctrl.traffic("c", "")) == (None, None)
    put(resctrl.root / "a/mon_data/mon_L3_00/mbm_total_bytes", "2")
    assert resctrl.traffic("a", "") is None
    (resctrl.root / "a/mon_data/mon_L3_00/mbm_total_bytes").unlink()
    assert resctrl.traffic("a", "") is None
    absent = ResctrlFs(tmp_path / "none")
    assert (absent.mounted, absent.traffic("/", "")) == (False, None)
    assert not absent.holds_only("/", "", {1})


@pytest.mark.parametrize(
    ("tids", "cpus", "alone"),
    [
        ([7], "", False),
        ([7, 8], "", True),
        ([7, 8, 9], "", False),
        ([], "", False),
        ([7, 8], "0-3", False),
    ],
)
def test_a_group_is_a_workers_own_or_not(
    tmp_path: Path, tids: list[int], cpus: str, *, alone: bool
) -> None:
    """All of its threads and no other; whoever runs on CPUs that the group owns counts in it."""
    made = [FakeResctrlGroup(res, mon, tids, cpus=cpus) for res in ("a", "") for mon in ("", "m")]
    resctrl = groups(tmp_path, *made)
    for res in ("a", "/"):
        for mon in ("", "m"):
            assert resctrl.holds_only(res, mon, {7, 8}) is alone


def test_an_odd_list_of_threads_is_nobodys(tmp_path: Path) -> None:
    """Nothing of it is believed."""
    resctrl = groups(tmp_path, FakeResctrlGroup("a", tids=[7]))
    put(resctrl.root / "a/tasks", "7\nx\n")
    assert not resctrl.holds_only("a", "", {7})


@pytest.mark.parametrize(
    ("res", "mon"), [("..", ""), ("a", "../m"), ("a", ".."), ("a/b", ""), ("a\0", ""), ("/a", "")]
)
def test_a_group_name_leads_nowhere_else(tmp_path: Path, res: str, mon: str) -> None:
    """Names are one step of a path: /proc may be another machine's, or a copy."""
    resctrl = groups(tmp_path / "x", FakeResctrlGroup("a", "m", [7], [(1, 2)]))
    for path in (resctrl.root.parent, resctrl.root / "a", resctrl.root / "a/b"):
        put(path / "tasks", "7\n")
        put(path / "mon_data/mon_L3_00/mbm_local_bytes", "1\n")
        put(path / "mon_data/mon_L3_00/mbm_total_bytes", "2\n")
    assert resctrl.traffic("a", "") == Traffic(1, 2)
    assert resctrl.traffic(res, mon) is None
    assert not resctrl.holds_only(res, mon, {7})
