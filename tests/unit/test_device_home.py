"""A worker belongs where its accelerators are, if nothing else says where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numad_py.decide.decisions import decide
from numad_py.decide.home import Given, given_home
from numad_py.model.machine import NodeState
from numad_py.model.plan import DecisionState, Home, HomeSource, Reason, Verdict
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker
from numad_py.model.topology import Node, PciDevice, Topology
from numad_py.policy.load import defaults
from numad_py.policy.schema import Policy, Rule
from numad_py.serve.render import render_status
from numad_py.serve.status import status_document
from tests.unit.seen import GIB, MIB, NOW_S, anon, report, snapshot, worker

A, B, C, D = (f"0000:{bus}:00.0" for bus in ("3b", "5e", "86", "af"))
CPUS = {0: (0, 1), 1: (2, 3), 2: (4, 5), 8: ()}
"""Node 8 has memory alone; node 2 is nearest to it."""
EVERY = frozenset(range(6))


def distance(a: int, b: int) -> int:
    """Return the distance between two nodes."""
    if a == b:
        return 10
    return 15 if {a, b} == {2, 8} else 20


def node(number: int) -> Node:
    """Return a node."""
    cpus = frozenset(CPUS[number])
    return Node(number, cpus, 4 * GIB, {other: distance(number, other) for other in CPUS})


def device(address: str, at: int | None, kind: str = "display", name: str | None = None) -> Any:
    """Return a device."""
    return PciDevice(address, kind, "0x10de", "0x2330", at, "nvidia", name)


def machine(*devices: PciDevice) -> Topology:
    """Return three full nodes and the one without CPUs."""
    return Topology(tuple(map(node, CPUS)), devices)


def using(*addresses: str, **more: Any) -> Worker:
    """Return a worker that may run anywhere and uses these devices; its memory is on node 0."""
    free = {"threads": (Thread(10, 5, EVERY, 0, 100),), "devices": addresses} | more
    return worker("x/0", anon(GIB), **free)


def home(seen: Worker, *devices: PciDevice) -> Home | None:
    """Return the home that is given to a worker."""
    return given_home(seen, None, machine(*devices)).home


def nodes(seen: Worker, *devices: PciDevice) -> set[int] | None:
    """Return the nodes of that."""
    found = home(seen, *devices)
    return None if found is None else set(found.nodes)


def test_a_worker_belongs_where_its_accelerator_is() -> None:
    """And is told why in one sentence."""
    gpu = device(B, 1, name="NVIDIA H100")
    found = home(using(B), device(A, 0), gpu)
    why = "it uses the GPU 0000:5e:00.0 (NVIDIA H100) of node 1"
    assert found == Home(frozenset({1}), HomeSource.DEVICE, why)


def test_two_devices_on_two_nodes_make_one_home_of_both() -> None:
    """Which of them a thread serves cannot be seen from outside."""
    found = home(using(A, B), device(A, 0), device(B, 2, "accelerator"))
    assert found is not None
    assert found.nodes == {0, 2}
    assert found.why == "it uses the accelerators 0000:3b:00.0 and 0000:5e:00.0 of node 0,2"


def test_many_devices_are_counted() -> None:
    """A sentence with eight addresses is none."""
    found = home(using(A, B, C), device(A, 1), device(B, 1), device(C, 1))
    assert found is not None
    assert found.why == "it uses 3 GPUs of node 1"


def test_network_cards_and_drives_give_no_home() -> None:
    """Every process talks to the network."""
    cards = device(A, 1, "infiniband"), device(B, 1, "nvme"), device(C, 1, "ethernet")
    assert home(using(A, B, C), *cards) is None


def test_a_node_that_is_not_known_says_nothing() -> None:
    """-1 is not node 0, and a node that is offline is none; what is known of another holds."""
    assert home(using(A), device(A, None)) is None
    assert home(using(A), device(A, 5)) is None
    assert nodes(using(A, B), device(A, None), device(B, 1)) == {1}


def test_a_node_without_cpus_means_the_nearest_with_cpus_and_memory() -> None:
    """Threads cannot run on a GPU's own memory."""
    found = home(using(A), device(A, 8))
    assert found is not None
    assert found.nodes == {2}
    assert found.why == (
        "it uses the GPU 0000:3b:00.0 of node 8; the nearest with CPUs and memory: node 2"
    )


def test_a_full_node_is_its_own_nearest_whatever_the_distances_say() -> None:
    """Hypervisors tell of the same distance everywhere."""
    flat = tuple(replace(node(n), distances=dict.fromkeys(CPUS, 10)) for n in CPUS)
    found = given_home(using(A), None, Topology(flat, (device(A, 1),))).home
    assert found is not None
    assert found.nodes == {1}


def test_where_it_is_not_sure_which_device_is_used_only_one_node_counts() -> None:
    """Open files of all GPUs are no wish for all nodes; one of unknown node may be the one used."""
    unsure = using(A, B, devices_unsure=True)
    assert home(unsure, device(A, 0), device(B, 1)) is None
    assert home(unsure, device(A, 0), device(B, None)) is None
    assert nodes(unsure, device(A, 1), device(B, 1)) == {1}


def test_rule_pin_and_cpuset_come_before_devices() -> None:
    """What somebody has said stands above what can be guessed."""
    gpu = device(A, 1)
    rule = Rule("x", "built-in", nodes=frozenset({2}))
    by_rule = given_home(using(A), rule, machine(gpu)).home
    pinned = home(using(A, threads=(Thread(10, 5, frozenset({0}), 0, 100),)), gpu)
    granted = home(using(A, cpuset_cpus=frozenset({4, 5})), gpu)
    found = [(h.source, set(h.nodes)) for h in (by_rule, pinned, granted) if h is not None]
    assert found == [(HomeSource.RULE, {2}), (HomeSource.PIN, {0}), (HomeSource.CPUSET, {2})]


def test_a_rule_without_nodes_leaves_it_to_the_device() -> None:
    """Most rules say only which processes are workers."""
    found = given_home(using(A), Rule("x", "built-in"), machine(device(A, 1))).home
    assert found is not None
    assert found.source is HomeSource.DEVICE


def test_nodes_without_the_right_to_memory_are_no_home() -> None:
    """Half of them would not be where its accelerators are: the planner chooses."""
    granted = MemoryStatus(mems_allowed=frozenset({0, 2}))
    assert home(using(A, B, memory=granted), device(A, 0), device(B, 1)) is None
    assert nodes(using(A, memory=granted), device(A, 2)) == {2}


def test_the_policy_can_leave_devices_out_of_it() -> None:
    """The planner chooses then."""
    topology = machine(device(A, 1))
    assert given_home(using(A), None, topology, follow_devices=False) == Given()


def look(seen: Worker, *devices: PciDevice, free_bytes: int = 3 * GIB) -> Snapshot:
    """Return a look at the machine, on node 1 of which so much is free."""
    free = {0: 3 * GIB, 1: free_bytes, 2: 3 * GIB, 8: 3 * GIB}
    states = tuple(NodeState(n, 4 * GIB, size, 0) for n, size in free.items())
    return snapshot(seen, topology=machine(*devices), node_states=states)


def test_memory_and_threads_come_to_the_device() -> None:
    """Unlike with a pin of the user's, the affinity is set, too."""
    seen = look(using(A), device(A, 1))
    (decision,) = decide(seen, defaults(), DecisionState())[0].decisions
    assert (decision.verdict, decision.reason) == (Verdict.ACT, Reason.REMOTE_MEMORY)
    assert decision.bind_cpus == frozenset({2, 3})
    assert [(m.source, m.target, m.move_bytes) for m in decision.moves] == [(0, 1, GIB)]
    assert "home is node 1: it uses the GPU 0000:3b:00.0 of node 1" in decision.why


def test_the_switch_is_read_by_the_decision() -> None:
    """Without it the worker stays where the planner finds it best: where its memory is."""
    placement = replace(defaults().placement, follow_devices=False)
    off: Policy = replace(defaults(), placement=placement)
    (decision,) = decide(look(using(A), device(A, 1)), off, DecisionState())[0].decisions
    assert decision.finding.home is not None
    assert decision.finding.home.source is HomeSource.PLANNER


def test_without_room_at_the_device_it_is_refused() -> None:
    """As with any home: nothing is squeezed in."""
    seen = look(using(A), device(A, 1), free_bytes=300 * MIB)
    (decision,) = decide(seen, defaults(), DecisionState())[0].decisions
    assert (decision.verdict, decision.reason) == (Verdict.REFUSE, Reason.NO_ROOM)


def test_status_names_the_devices_of_a_worker_and_their_nodes() -> None:
    """As data, and in one line."""
    seen = look(using(A, B), device(A, 1), device(B, None, "accelerator"), device(C, 0))
    document = status_document(report(seen), source="direct")
    (entry,) = document["workers"]
    assert entry["devices"] == [
        {"address": A, "kind": "display", "node": 1},
        {"address": B, "kind": "accelerator", "node": None},
    ]
    assert not entry["devices_unsure"]
    line = f"x/0: uses GPU {A} (node 1), accelerator {B} (node not known)"
    assert line in render_status(document).splitlines()
    assert seen.at_s == NOW_S


def test_status_says_where_it_is_not_sure() -> None:
    """Open is not used."""
    seen = look(using(A, D, devices_unsure=True), device(A, 1), device(D, 0))
    text = render_status(status_document(report(seen), source="direct"))
    assert f"x/0: has open, and may use: GPU {A} (node 1), GPU {D} (node 0)" in text
