"""Readers of /sys: what a node is, and the state that it is in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from numad_py.errors import NumadError
from numad_py.kernel.sysfs import SysFs
from numad_py.model.machine import HugePages, NodeState, NumaStat
from numad_py.model.topology import Performance
from tests.fake_tree import FakeMachine, FakeNode, put

MIB = 1 << 20
DRAM = FakeNode(
    0,
    [0, 1, 2, 3],
    active_file_mib=100,
    inactive_file_mib=50,
    dirty_mib=10,
    huge_pages={1048576: (0, 0), 2048: (512, 100)},
    numastat=(1000, 20, 30, 4, 900, 120),
    initiators={
        "read_bandwidth": 131072,
        "write_bandwidth": 65536,
        "read_latency": 90,
        "write_latency": 95,
    },
    memory_tier=4,
)
CXL = FakeNode(5, [], memory_mib=4096, initiators={"read_latency": 250}, memory_tier=22)
COMPUTE = FakeNode(9, [8, 9], memory_mib=0, free_mib=0, dirty_mib=1)
NODES = [DRAM, CXL, COMPUTE]


@pytest.fixture
def made(tmp_path: Path) -> FakeMachine:
    """Return a machine with holes in its ids, a CPU-less and a memoryless node."""
    return FakeMachine(tmp_path, NODES).write()


def test_nodes_keep_their_ids_and_say_what_they_lack(made: FakeMachine) -> None:
    """Distances are found by id across holes; no CPUs and no memory are not the same."""
    sysfs = SysFs(made.sysfs)
    topology = sysfs.topology()
    assert topology.node_ids == sysfs.online() == (0, 5, 9)
    assert [(n.has_cpu, n.has_memory) for n in topology.nodes] == [
        *((True, True), (False, True), (True, False))
    ]
    assert topology.nodes[2].distances == {0: 20, 5: 20, 9: 10}
    assert (topology.node_of_cpu(9), topology.node_of_cpu(7)) == (9, None)


@pytest.mark.parametrize("setting", ["always", "madvise", "never", None])
def test_the_setting_of_transparent_huge_pages_is_the_word_in_brackets(
    tmp_path: Path, setting: str | None
) -> None:
    """None where the kernel has no such file."""
    if setting is not None:
        text = "always madvise never\n".replace(setting, f"[{setting}]")
        put(tmp_path / "kernel/mm/transparent_hugepage/enabled", text)
    assert SysFs(tmp_path).transparent_huge_pages() == setting


def test_nodes_have_the_tier_and_the_figures_that_are_given(made: FakeMachine) -> None:
    """What the firmware leaves out is None, in part or in whole."""
    dram, cxl, compute = SysFs(made.sysfs).topology().nodes
    assert (dram.memory_tier, dram.performance) == (4, Performance(131072, 65536, 90, 95))
    assert (cxl.memory_tier, cxl.performance) == (22, Performance(read_latency_ns=250))
    assert (compute.memory_tier, compute.performance) == (None, None)


@pytest.mark.parametrize("text", ["", "0\n", "90", "fast\n", "-1\n"])
def test_a_figure_of_no_use_is_none(made: FakeMachine, text: str) -> None:
    """The kernel prints 0 for what HMAT leaves out."""
    for node in (0, 5):
        put(made.sysfs / f"devices/system/node/node{node}/access0/initiators/read_latency", text)
    dram, cxl, _ = SysFs(made.sysfs).topology().nodes
    assert dram.performance == Performance(131072, 65536, None, 95)
    assert cxl.performance is None


@pytest.mark.parametrize("text", ["", "\n", "5-", "nodes\n"])
def test_an_odd_list_of_a_tier_ranks_no_node(made: FakeMachine, text: str) -> None:
    """The other tiers stand, and other folders there are none."""
    tiers = made.sysfs / "devices/virtual/memory_tiering"
    put(tiers / "memory_tier22/nodelist", text)
    put(tiers / "memory_tiers/nodelist", "5\n")
    put(tiers / "power/nodelist", "5\n")
    assert [n.memory_tier for n in SysFs(made.sysfs).topology().nodes] == [4, None, None]


def test_the_state_of_a_node_is_read_whole(made: FakeMachine) -> None:
    """Memory, pools by size of page, allocations; interleaved ones are not told apart."""
    sysfs = SysFs(made.sysfs)
    dram, cxl, compute = map(sysfs.node_state, sysfs.online())
    assert dram == NodeState(
        node=0,
        total_bytes=2048 * MIB,
        free_bytes=1536 * MIB,
        reclaimable_bytes=140 * MIB,
        huge_pages=(HugePages(2 * MIB, 512, 100), HugePages(1024 * MIB, 0, 0)),
        numastat=NumaStat(hit=1000, miss=20, foreign=30, local=900, other=120),
    )
    assert (cxl.total_bytes, cxl.huge_pages, cxl.numastat) == (4096 * MIB, (), None)
    assert (compute.total_bytes, compute.free_bytes, compute.reclaimable_bytes) == (0, 0, 0)


def test_a_node_that_is_offline_has_no_state(made: FakeMachine) -> None:
    """Nothing of it is known, and nothing raised."""
    assert SysFs(made.sysfs).node_state(7) == NodeState(7, 0, 0, 0)


def test_a_meminfo_cut_anywhere_gives_whole_figures_or_none(made: FakeMachine) -> None:
    """1536 MiB cut short would be a node that is nearly full."""
    path = made.sysfs / "devices/system/node/node0/meminfo"
    text = path.read_text()
    sysfs = SysFs(made.sysfs)
    for cut in range(len(text) + 1):
        path.write_text(text[:cut])
        state = sysfs.node_state(0)
        assert state.total_bytes in {0, 2048 * MIB}
        assert state.free_bytes in {0, 1536 * MIB}


@pytest.mark.parametrize("text", ["", "numa_hit 1\n", "numa_hit\nnuma_miss x\n", "{hit}\n"])
def test_an_odd_numastat_is_none(made: FakeMachine, text: str) -> None:
    """Some of its figures alone would make rates that are wrong."""
    path = made.sysfs / "devices/system/node/node0/numastat"
    path.write_text(text)
    assert SysFs(made.sysfs).node_state(0).numastat is None


def test_a_numastat_cut_anywhere_is_none_or_whole(made: FakeMachine) -> None:
    """Its last figure counts for a cut, too."""
    path = made.sysfs / "devices/system/node/node0/numastat"
    text = path.read_text()
    for cut in range(len(text) + 1):
        path.write_text(text[:cut])
        assert (SysFs(made.sysfs).node_state(0).numastat is None) == (cut < len(text))


def test_a_pool_that_cannot_be_read_is_left_out(made: FakeMachine) -> None:
    """Of an empty one only its size is asked for; of another both figures are needed."""
    pools = made.sysfs / "devices/system/node/node0/hugepages"
    (pools / "hugepages-1048576kB/free_hugepages").unlink()
    (pools / "hugepages-2048kB/free_hugepages").write_text("many\n")
    assert SysFs(made.sysfs).node_state(0).huge_pages == (HugePages(1024 * MIB, 0, 0),)


def test_sizes_of_huge_pages_are_listed_once(
    made: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until one of them is gone, or the topology is read anew; memory comes with its sizes."""
    listed: list[str] = []
    listdir = os.listdir

    def listing(path: str) -> list[str]:
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listing)
    sysfs = SysFs(made.sysfs)
    first = sysfs.node_state(0)
    assert sysfs.node_state(0) == first
    assert len(listed) == 1
    pools = made.sysfs / "devices/system/node/node0/hugepages"
    put(pools / "hugepages-64kB/nr_hugepages", "0\n")
    assert sysfs.node_state(0) == first
    sysfs.topology()
    assert [p.page_bytes for p in sysfs.node_state(0).huge_pages] == [65536, 2 * MIB, 1024 * MIB]
    (pools / "hugepages-64kB/nr_hugepages").unlink()
    (pools / "hugepages-64kB").rmdir()
    put(pools / "hugepages-32768kB/nr_hugepages", "0\n")
    assert sysfs.node_state(0) == first
    assert [p.page_bytes for p in sysfs.node_state(0).huge_pages] == [2 * MIB, 32 * MIB, 1024 * MIB]
    assert sysfs.node_state(5).huge_pages == ()
    put(made.sysfs / "devices/system/node/node5/hugepages/hugepages-2048kB/nr_hugepages", "0\n")
    assert sysfs.node_state(5).huge_pages == (HugePages(2 * MIB, 0, 0),)


@pytest.mark.parametrize("text", [None, "0-", "all\n"])
def test_without_a_list_of_nodes_it_is_no_sysfs(made: FakeMachine, text: str | None) -> None:
    """The message asks for CONFIG_NUMA; a node that comes or goes shows in the list."""
    path = made.sysfs / "devices/system/node/online"
    sysfs = SysFs(made.sysfs)
    path.write_text("0,9\n")
    assert sysfs.online() == (0, 9)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(NumadError, match="CONFIG_NUMA"):
        sysfs.online()


def test_the_running_kernels_nodes_are_read() -> None:
    """Its totals are no smaller than what is free, and its figures add up."""
    sysfs = SysFs()
    if not Path("/sys/devices/system/node/online").exists():
        pytest.skip("a kernel without CONFIG_NUMA")
    for state in map(sysfs.node_state, sysfs.online()):
        assert 0 <= state.free_bytes <= state.total_bytes
        assert all(pool.free <= pool.total for pool in state.huge_pages)
        assert state.numastat is not None
        assert state.numastat.local + state.numastat.other > 0 or not state.total_bytes
