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
WORKER = '[[worker]]\nname = "x"\nsize = "1GiB"\n'


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


@pytest.mark.parametrize(
    ("duration", "interval", "times"),
    [
        ("12s", "5s", [0.0, 5.0, 10.0, 12.0]),
        ("300ms", "100ms", [0.0, 0.1, 0.2, 0.3]),
        ("10s", "5s", [0.0, 5.0, 10.0]),
        ("3s", "5s", [0.0, 3.0]),
        ("0s", "5s", [0.0]),
    ],
)
def test_it_is_looked_at_to_the_end(duration: str, interval: str, times: list[float]) -> None:
    """Also where that is no whole number of intervals."""
    text = f'duration = "{duration}"\ninterval = "{interval}"\n' + NODES
    scenes = list(machine(text).scenes())
    assert [scene.at_s - scenes[0].at_s for scene in scenes] == pytest.approx(times)
    assert [scene.cycle for scene in scenes] == list(range(1, len(times) + 1))


def test_workers_come_one_after_the_other_and_go() -> None:
    """Each stays as long as it is said, from its own arrival on."""
    text = 'duration = "20s"\n' + NODES
    text += '[[worker]]\nname = "x"\nsize = "1GiB"\ncount = 2\n'
    text += 'arrive = "5s"\nevery = "5s"\nstay = "10s"\n'
    found = [[w.label for w in scene.workers] for scene in machine(text).scenes()]
    assert found == [[], ["x/0"], ["x/0", "x/1"], ["x/1"], []]


@pytest.mark.parametrize(("end", "interval"), [("20s", "5s"), ("12s", "5s"), ("330ms", "30ms")])
def test_who_comes_at_the_very_end_is_seen(end: str, interval: str) -> None:
    """The last look is at the end itself: eleven times 30 ms is less than 330 ms in floats."""
    text = f'duration = "{end}"\ninterval = "{interval}"\n' + NODES + WORKER
    *_, before, last = machine(text + f'arrive = "{end}"\n').scenes()
    assert [len(scene.workers) for scene in (before, last)] == [0, 1]


def test_a_worker_is_as_described() -> None:
    """Its memory in equal parts on its nodes, its threads on theirs, within the pin."""
    text = (
        NODES + '[[worker]]\nname = "x"\nsize = "2GiB"\nnodes = [2, 4]\ncpus = 2.5\npin = "0-2"\n'
    )
    (scene, *_) = machine(text).scenes()
    (worker,) = scene.workers
    assert worker.residency is not None
    assert worker.residency.by_node() == {2: GIB, 4: GIB}
    assert [t.affinity for t in worker.threads] == [frozenset({0, 1, 2})] * 3
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
    text = (
        NODES
        + '[[worker]]\nname = "x"\nsize = "0B"\nrun = [4]\ngrow = "100MiB/s"\ngrow_to = "2GiB"\n'
    )
    _, second, *_ = machine(text).scenes()
    assert second.workers[0].residency is not None
    assert second.workers[0].residency.by_node() == {4: 500 << 20}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 1\n", "m.toml:1: nodes: no such key; known: interval, duration, node, worker"),
        (
            'interval = "0s"\n',
            "m.toml:1: interval: '0s' is no time at all; write one, as in \"5s\"",
        ),
        ("node = 1\n", "m.toml:1: node: is a list of tables; write [[node]] above each"),
        ("[[node]]\nid = 0\n", "m.toml:1: node: has no memory"),
        (
            '[[node]]\nid = -1\nmemory = "1GiB"\n',
            "m.toml:2: node.id: -1 is not the id of a node; write one from 0 to 1023",
        ),
        ("", "m.toml: no [[node]]: a machine has at least one"),
        (
            NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\nrun = [7]\n',
            "m.toml:13: worker.run: there is no node 7; there are: 2,4",
        ),
        (
            NODES + '[[worker]]\nname = "x"\nsize = "1GiB"\npin = "4-7"\n',
            "m.toml:13: worker.pin: no node has CPU 4-7; there are: 0-3",
        ),
        (
            NODES.replace('cpus = ""', 'cpus = "3-4"'),
            "m.toml:8: node.cpus: CPU 3 belongs to another node already; a CPU has one node",
        ),
        (
            NODES.replace("id = 2", "id = 4"),
            "m.toml:7: node.id: node 4 is there already; give it another id",
        ),
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
            (
                "m.toml:8: node.distances: 1 of them, but one to each of the 2 nodes is needed, in "
                "the order in which they stand here"
            ),
        ),
        (
            'duration = "300d"\ninterval = "1ms"\n' + NODES,
            "m.toml:1: duration: more than 1000000 intervals; shorten it or lengthen these",
        ),
        (
            NODES + '[[worker]]\nname = "x/1"\nsize = 5\ncpus = -1\n',
            (
                "m.toml:11: worker.name: 'x/1' is not a name without a slash\n"
                'm.toml:12: worker.size: 5 is not a size; write one with its unit, as in "512MiB"\n'
                "m.toml:13: worker.cpus: -1 is not a number of CPUs; write how many it keeps busy, "
                "as in 2.5"
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
    ("text", "said"),
    [
        # Memory
        (
            NODES.replace("1GiB", "9GiB"),
            "5: node.used: 9.0 GiB are more than its memory of 8.0 GiB; lower it",
        ),
        (
            NODES.replace("8GiB", "0B").replace("16GiB", "0B").replace('"1GiB"', '"0B"'),
            '4: node.memory: no node has any; write memory = "64GiB"',
        ),
        (
            NODES + WORKER.replace("1GiB", "24GiB"),
            "12: worker.size: 24.0 GiB are too much: the nodes have 23.0 GiB for it; lower it",
        ),
        (
            NODES + WORKER + 'grow = "1GiB/s"\n',
            (
                "13: worker.grow: it would have 601.0 GiB after 600 s: the nodes have 23.0 GiB "
                "for it; set a lower grow_to"
            ),
        ),
        (
            NODES + WORKER + 'grow = "1GiB/s"\ngrow_to = "24GiB"\n',
            (
                "14: worker.grow_to: it would have 24.0 GiB after 600 s: the nodes have 23.0 GiB "
                "for it; set a lower grow_to"
            ),
        ),
        (
            NODES + WORKER + 'count = 24\nevery = "1s"\n',
            (
                "12: worker.size: after 23 s all workers together have 24.0 GiB: the nodes have "
                "23.0 GiB for them; have fewer, smaller or shorter ones"
            ),
        ),
        (
            NODES + WORKER + 'count = 4\ngrow = "10MiB/s"\n',
            "12: worker.size: after 600 s all workers together have 27.4 GiB",
        ),
        (
            NODES + WORKER + 'grow_to = "2GiB"\n',
            (
                "13: worker.grow_to: 'x' would never grow: it has no grow; write how fast, as in "
                'grow = "10MiB/s", or leave grow_to out'
            ),
        ),
        # Time
        (
            NODES + WORKER.replace("1GiB", "99GiB") + 'arrive = "1h"\n',
            (
                "13: worker.arrive: 'x' would never come: 3600 s is after the end at 600 s; let it "
                "come earlier, or set a longer duration"
            ),
        ),
        (
            'duration = "0s"\n' + NODES + WORKER + 'arrive = "1ms"\n',
            "14: worker.arrive: 'x' would never come: 0.001 s is after the end at 0 s",
        ),
        (
            NODES + WORKER + 'count = 40\nevery = "1min"\n',
            "14: worker.every: the last of 40 'x' would never come: 2340 s is after the end at 600",
        ),
        # Nodes and CPUs
        (
            NODES + WORKER + "nodes = [0]\n",
            "13: worker.nodes: there is no node 0; there are: 2,4",
        ),
        (
            NODES + WORKER + "run = [2]\n",
            "13: worker.run: node 2 has no CPU; name one that has some",
        ),
        (
            NODES.replace("16GiB", "0B") + WORKER + "nodes = [2]\n",
            "13: worker.nodes: node 2 has no memory; name one that has some",
        ),
        (
            NODES + WORKER + 'pin = "2-5"\n',
            "13: worker.pin: no node has CPU 4-5; there are: 0-3",
        ),
        (
            NODES.replace('cpus = ""', 'cpus = "4-7"') + WORKER + 'run = [2]\npin = "0-1"\n',
            "14: worker.pin: it has no CPU of node 2, where its threads run; let pin and run agree",
        ),
        (
            NODES + WORKER + "cpus = 5\n",
            "13: worker.cpus: it cannot keep 5 CPUs busy where it may run on 4 (0-3); lower it",
        ),
        (
            NODES + WORKER + 'cpus = 2.5\npin = "1-2"\n',
            "13: worker.cpus: it cannot keep 2.5 CPUs busy where it may run on 2 (1-2); lower it",
        ),
        (
            NODES + WORKER + "cpus = 3\nthreads = 2\n",
            "14: worker.threads: 2 cannot keep 3 CPUs busy; one thread keeps one",
        ),
        # Distances
        (
            NODES.replace("id = 4", "id = 4\ndistances = [20, 20]"),
            "3: node.distances: 20 from node 4 to itself; the one in place 1 is to be 10",
        ),
        (
            NODES.replace("id = 4", "id = 4\ndistances = [10, 0]"),
            "3: node.distances: [10, 0] is not a list of distances from 10 to 255; write 10 for",
        ),
        (
            NODES.replace("id = 4", "id = 4\ndistances = [10, 21]").replace(
                "id = 2", "id = 2\ndistances = [31, 10]"
            ),
            "9: node.distances: 31 from node 2 to node 4, but 21 back; give both the same",
        ),
        # Below nothing
        (NODES.replace("8GiB", "-8GiB"), "4: node.memory: '-8GiB' is not a size; write one with"),
        (NODES + WORKER.replace("1GiB", "-1GiB"), "12: worker.size: '-1GiB' is not a size; write"),
        (NODES + WORKER + "cpus = false\n", "13: worker.cpus: false is not a number of CPUs"),
    ],
)
def test_what_no_machine_can_be_is_refused(text: str, said: str) -> None:
    """By line and key, with what to do; figures of it would mean nothing."""
    with pytest.raises(BadFile) as caught:
        machine(text)
    assert str(caught.value).startswith(f"m.toml:{said}")


@pytest.mark.parametrize(
    "more",
    [
        WORKER.replace("1GiB", "23GiB"),
        WORKER + "count = 23\n",
        WORKER + 'count = 600\nevery = "1s"\nstay = "23s"\n',
        WORKER + 'count = 40\nevery = "10s"\nstay = "10s"\ngrow = "1GiB/s"\ngrow_to = "23GiB"\n',
        WORKER + 'grow = "1GiB/s"\nstay = "22s"\n',
        WORKER + 'arrive = "599s"\ngrow = "22GiB/s"\n',
        WORKER + 'cpus = 4\nthreads = 4\npin = "0-3"\nrun = [4]\nnodes = [2]\n',
    ],
)
def test_a_machine_that_is_just_full_is_one(more: str) -> None:
    """To the last byte and CPU; who goes makes room for who comes."""
    assert machine(NODES + more).workers


def test_a_way_is_as_long_back() -> None:
    """Where only one of two nodes says how long."""
    made = machine(NODES.replace("id = 4", "id = 4\ndistances = [10, 31]"))
    assert made.topology.distance(2, 4) == made.topology.distance(4, 2) == 31


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
