"""Descriptions of machines: what they make, and every mistake named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from numad_py.replay import described
from numad_py.replay.described import load_machine, machine_of
from numad_py.replay.machine import Machine
from numad_py.replay.recording import BadFile

GIB = 1 << 30
NODES = """\
[[node]]
id = 4
cpus = "0-3"
memory = "8GiB"
used = "1GiB"
[[node]]
id = 2
cpus = ""
memory = "16GiB"
"""


def machine(text: str) -> Machine:
    """Return what a text describes."""
    return machine_of(tomli.loads(text), text, "m.toml")


def test_the_example_of_the_documentation_is_good() -> None:
    """What stands in the docstring can be copied."""
    text = str(described.__doc__).split("::\n")[1].split("Its memory lies")[0]
    text = "\n".join(line.strip() for line in text.splitlines())
    two = '[[node]]\nid = 1\ncpus = "16-31"\nmemory = "64GiB"\n'
    made = machine(text.replace("[[worker]]", f"{two}\n[[worker]]"))
    assert (made.duration_s, made.interval_s) == (1800.0, 5.0)
    assert made.topology.distance(0, 1) == 21
    assert [worker.count for worker in made.workers] == [3]


def test_nodes_are_as_described() -> None:
    """Ids may have holes, a node may have no CPUs, and distances are 10 and 20 unless given."""
    (scene, *_) = machine(NODES).scenes()
    assert scene.topology.node_ids == (2, 4)
    assert scene.topology.cpus_of({4}) == frozenset(range(4))
    assert [scene.topology.distance(4, other) for other in (2, 4)] == [20, 10]
    assert [state.free_bytes for state in scene.node_states] == [16 * GIB, 7 * GIB]


def test_a_node_that_names_no_cpus_has_none() -> None:
    """As the manual says, of a node only id and memory are needed."""
    made = machine(NODES.replace('cpus = ""\n', ""))
    assert made.topology == machine(NODES).topology
    assert made.topology.cpus_of({2}) == frozenset()


def test_workers_come_one_after_the_other_and_go() -> None:
    """Each stays as long as it is said, from its own arrival on."""
    text = 'duration = "20s"\n' + NODES
    text += '[[worker]]\nname = "x"\nsize = "1GiB"\ncount = 2\n'
    text += 'arrive = "5s"\nevery = "5s"\nstay = "10s"\n'
    found = [[w.label for w in scene.workers] for scene in machine(text).scenes()]
    assert found == [[], ["x/0"], ["x/0", "x/1"], ["x/1"], []]


def test_a_worker_is_as_described() -> None:
    """Its memory in equal parts on its nodes, its threads on theirs, within the pin."""
    text = (
        NODES + '[[worker]]\nname = "x"\nsize = "2GiB"\nnodes = [2, 4]\ncpus = 2.5\npin = "0-1"\n'
    )
    (scene, *_) = machine(text).scenes()
    (worker,) = scene.workers
    assert worker.residency is not None
    assert worker.residency.by_node() == {2: GIB, 4: GIB}
    assert [t.affinity for t in worker.threads] == [frozenset({0, 1})] * 3
    assert (worker.run_share, worker.demand_cpus) == ({4: 1.0}, 2.5)


def test_a_worker_that_does_not_grow_is_the_same_value_again() -> None:
    """Nothing is to be done for it; one that grows is made anew until it has grown."""
    text = NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\n'
    first, second, *_ = machine(text).scenes()
    assert first.workers[0] is second.workers[0]
    text += 'grow = "100MiB/s"\ngrow_to = "1.5GiB"\n'
    sizes = [
        scene.workers[0].residency.total_bytes()
        for scene in machine(text).scenes()
        if scene.workers[0].residency is not None
    ]
    assert sizes[:4] == [GIB, GIB + (500 << 20), GIB + (512 << 20), GIB + (512 << 20)]


def test_a_worker_may_begin_with_nothing() -> None:
    """And grow where it runs."""
    text = NODES + '[[worker]]\nname = "x"\nsize = "0B"\nrun = [4]\ngrow = "100MiB/s"\n'
    _, second, *_ = machine(text).scenes()
    assert second.workers[0].residency is not None
    assert second.workers[0].residency.by_node() == {4: 500 << 20}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 1\n", "m.toml:1: nodes: no such key; known: interval, duration, node, worker"),
        ('interval = "0s"\n', "m.toml:1: interval: '0s' is no time at all"),
        ("node = 1\n", "m.toml:1: node: is a list of tables; write [[node]] above each"),
        ("[[node]]\nid = 0\n", "m.toml:1: node: has no memory"),
        ('[[node]]\nid = -1\nmemory = "1GiB"\n', "m.toml:2: node.id: -1 is not the id of a node"),
        ("", "m.toml: no [[node]]: a machine has at least one"),
        (
            NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\nrun = [7]\n',
            "m.toml:13: worker.run: there is no node 7",
        ),
        (
            NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\npin = "4-7"\n',
            "m.toml:13: worker.pin: no node has any of these CPUs",
        ),
        (
            NODES.replace('cpus = ""', 'cpus = "3-4"'),
            "m.toml:8: node.cpus: CPU 3 belongs to another node already",
        ),
        (NODES.replace("id = 2", "id = 4"), "m.toml:7: node.id: node 4 is there already"),
        (NODES.replace('"0-3"', '""'), 'm.toml:1: node: no node has a CPU; write cpus = "0-15"'),
        (
            '[[node]]\nid = 0\nmemory = "1GiB"\n',
            'm.toml:1: node: no node has a CPU; write cpus = "0-15"',
        ),
        (
            NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\ngrow = "unlimited"\n',
            (
                "m.toml:13: worker.grow: 'unlimited' is no rate at which memory grows; "
                'write one, as in "10MiB/s"'
            ),
        ),
        (
            NODES.replace("id = 2", "id = 2\ndistances = [10]"),
            "m.toml:8: node.distances: one to each of the 2 nodes is needed",
        ),
        (
            'duration = "300d"\ninterval = "1ms"\n' + NODES,
            "m.toml:1: duration: more than 1000000 intervals",
        ),
        (
            NODES + '[[worker]]\nname = "x/1"\nsize = 5\ncpus = -1\n',
            (
                "m.toml:11: worker.name: 'x/1' is not a name without a slash\n"
                'm.toml:12: worker.size: 5 is not a size; write one with its unit, as in "512MiB"\n'
                "m.toml:13: worker.cpus: -1 is not a number of CPUs"
            ),
        ),
        (
            NODES + 2 * '[[worker]]\nname = "x"\nsize = "1GiB"\n',
            "m.toml:14: worker.name: 'x' is taken; count makes more of one",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    """All of it at once, as for a policy."""
    with pytest.raises(BadFile) as caught:
        machine(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"x = \n", r":1: neither a recording nor TOML"),
        (b"\xff\xfe", "neither a recording nor a text"),
        (b"#" * (2 << 20), "larger than 1 MiB"),
    ],
)
def test_what_is_no_description_is_said_to_be_none(tmp_path: Path, raw: bytes, said: str) -> None:
    """Whatever file somebody may name."""
    path = tmp_path / "m.toml"
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=said):
        load_machine(path)
