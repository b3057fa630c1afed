"""A file that three workers map: moved once for all of them, or left where it is, and why."""

from __future__ import annotations

from typing import Any

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import in_full, on_guest
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
MIB = 1 << 20
SIZE_MIB = 200
SETTLED_WITHIN_S = 120
NAMES = ("s0", "s1", "s2")
BASE = '[daemon]\ninterval = "2s"\n[scan]\ninterval = "4s"\n'


def rule(name: str, workers: str, node: int, more: str = "") -> str:
    """Return a rule for some of the workers, and their home."""
    match = f"cmdline = '/run/load/{workers}$'"
    return f'[[rule]]\nname = "{name}"\n{match}\nnodes = [{node}]\n{more}\n'


def start_three(guest: Machine, workers: Workers, file: str) -> None:
    """Start workers that map a file of which all pages lie on node 0."""
    guest.run(f"rm -f {file}")
    options = f"--kind file --file {file} --size {SIZE_MIB}MiB --memory-nodes 0 --pause-ms 3000"
    for name in NAMES:
        workers.start(name, options)
        workers.wait_ready()
    for name, by_node in workers.residencies(*NAMES).items():
        assert by_node[0] >= SIZE_MIB * MIB, name


def on_node(workers: Workers, node: int) -> list[int]:
    """Return how many MiB of each worker lie on a node."""
    found = workers.residencies(*NAMES)
    return [found[name].get(node, 0) // MIB for name in NAMES]


def told(service: Service, *events: str) -> list[dict[str, Any]]:
    """Return what was logged of these events."""
    return [line for line in service.log() if line["event"] in events]


@on_guest(GUEST)
def test_a_file_is_moved_once_for_all_who_map_it(guest: Machine, workers: Workers) -> None:
    """All of its pages end on the one home of its users; one of these moved them, and says so."""
    service = Service(guest)
    service.configure(BASE + rule("shared", "s[0-9]", 1, 'shared = "users"'))
    start_three(guest, workers, "/var/tmp/shared")
    guest.run("journalctl --rotate --vacuum-time=1s")
    service.start()
    seconds = workers.wait_home({name: [[1]] for name in NAMES}, SETTLED_WITHIN_S)
    print(f"seconds {seconds}, on node 1: {on_node(workers, 1)} MiB")
    assert None not in seconds.values(), workers.residencies(*NAMES)
    assert min(on_node(workers, 1)) >= SIZE_MIB
    # Long enough for another of its users to move it again, if any would.
    guest.run("sleep 20")
    acts = [line for line in told(service, "act") if line["reason"] == "remote-memory"]
    (carrier,) = acts
    print(carrier["why"])
    assert "MiB of /var/tmp/shared is moved once, for shared/" in carrier["why"]
    moves = [line for line in told(service, "move done") if "of_that_shared" in line]
    (move,) = moves
    assert move["worker"] == carrier["worker"]
    assert move["of_that_shared"] == f"{SIZE_MIB}.0 MiB"
    assert all(not worker["decision"]["shared"] for worker in service.workers().values())
    assert workers.alive(*NAMES)


@on_guest(GUEST)
def test_two_homes_keep_it_where_it_is(guest: Machine, workers: Workers) -> None:
    """Each user that has it away from its home says with whom it is shared, and where that is."""
    service = Service(guest)
    users = 'shared = "users"'
    service.configure(BASE + rule("near", "s[01]", 1, users) + rule("far", "s2", 2, users))
    start_three(guest, workers, "/var/tmp/two-homes")
    service.start()
    guest.run("sleep 30")
    assert min(on_node(workers, 0)) >= SIZE_MIB
    said = {pid: w["decision"] for pid, w in service.workers().items()}
    for name, other in (("s0", "far/0, whose home is node 2"), ("s2", "whose home is node 1")):
        (shared,) = said[workers.pids[name]]["shared"]
        print(shared["why"])
        assert shared["part"] == "stays"
        assert other in shared["why"]
        assert shared["why"] in said[workers.pids[name]]["why"]
        told_ = guest.out(f"numad-py explain {workers.pids[name]}")
        assert "stays: it is shared with" in " ".join(told_.split())


@in_full
@on_guest(GUEST)
def test_a_stranger_keeps_it_where_it_is(guest: Machine, workers: Workers) -> None:
    """A process that no rule matches maps it too: nobody moves it from under that one."""
    service = Service(guest)
    service.configure(BASE + rule("shared", "s[01]", 1, 'shared = "users"'))
    # Not by the rules for well-known servers either.
    start_three(guest, workers, "/var/tmp/stranger")
    workers_of_rule = [workers.pids[name] for name in ("s0", "s1")]
    guest.run(
        'printf \'[[exclude]]\\nname = "odd"\\ncmdline = "/run/load/s2$"\\n\' '
        "> /etc/numad-py/conf.d/60-odd.toml"
    )
    service.start()
    guest.run("sleep 30")
    assert min(on_node(workers, 0)) >= SIZE_MIB
    said = service.workers()
    assert set(workers_of_rule) <= set(said)
    for pid in workers_of_rule:
        assert "up to 3 processes map a page of it" in said[pid]["decision"]["why"]


@in_full
@on_guest(GUEST)
def test_by_default_it_stays(guest: Machine, workers: Workers) -> None:
    """Without the key, shared pages are nobody's to move."""
    service = Service(guest)
    service.configure(BASE + rule("shared", "s[0-9]", 1, 'shared = "leave"'))
    start_three(guest, workers, "/var/tmp/left")
    service.start()
    guest.run("sleep 30")
    assert min(on_node(workers, 0)) >= SIZE_MIB
    for worker in service.workers().values():
        assert worker["decision"]["shared"] == []
        assert not worker["decision"]["moves"]


@in_full
@on_guest(GUEST)
def test_weights_of_one_worker_move_unless_files_are_left(guest: Machine, workers: Workers) -> None:
    """What it alone maps moves as other memory does; with files = false it stays."""
    service = Service(guest)
    leave = rule("left", "s1", 1, "files = false")
    service.configure(BASE + rule("moved", "s0", 1) + leave)
    for name in NAMES[:2]:
        options = f"--size {SIZE_MIB}MiB --memory-nodes 0 --pause-ms 3000"
        workers.start(name, f"--kind file --file /var/tmp/alone-{name} {options}")
    workers.wait_ready()
    service.start()
    seconds = workers.wait_home({"s0": [[1]]}, SETTLED_WITHIN_S)
    assert seconds["s0"] is not None
    assert workers.residency("s1")[0] >= SIZE_MIB * MIB
    assert service.workers()[workers.pids["s1"]]["left_bytes"] >= SIZE_MIB * MIB
