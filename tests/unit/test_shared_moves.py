"""Moving what several processes map, on made memory: for its users alone, and with the right."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from numad_py.act.mover import Mover
from numad_py.act.tally import Tally
from numad_py.errors import RightsError
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import Decision, MemoryMove, Part, Shared
from numad_py.model.residency import SegmentId
from numad_py.policy.schema import Method, MigrationPolicy
from tests.unit.fake_kernel import BASE, MIB, Area, Bar, FakeKernel, MadeProcFs, maps_line
from tests.unit.moving import UNPACED, decision, this_process

WEIGHTS = SegmentId("08:01", 42)
FILE = Area(BASE, BASE + 8 * MIB, file="/m.gguf", inode=42, mapmax=3)
OTHER = Area(BASE + 64 * MIB, BASE + 68 * MIB, file="/usr/lib/libc.so.6", inode=7)
OWN = BASE + 128 * MIB


def kernel() -> FakeKernel:
    """Return 8 MiB of weights and 4 MiB of a library that others map, and 2 MiB of its own."""
    made = FakeKernel()
    made.areas += [FILE, OTHER]
    made.fill(FILE.start, 8 * MIB, 0, bar=Bar.SHARED)
    made.fill(OTHER.start, 4 * MIB, 0, bar=Bar.SHARED)
    made.area(OWN, 2 * MIB)
    made.fill(OWN, 2 * MIB, 0)
    return made


def carrying(*others: int) -> Decision:
    """Return the decision to move 2 MiB of its own and the weights, for these processes too."""
    me = this_process()
    users = (me, *(me._replace(pid=pid) for pid in others))
    shared = Shared(WEIGHTS, "/m.gguf", 8 * MIB, users, Part.CARRIES, "is moved once")
    return replace(decision(me, [MemoryMove(0, 1, 10 * MIB)]), shared=(shared,))


def carry_out(
    made: FakeKernel, what: Decision, policy: MigrationPolicy = UNPACED
) -> tuple[Tally, dict[str, int]]:
    """Carry a decision out; return the tally, and the bytes that are on node 1 by area."""
    tally = Tally()
    Mover(MadeProcFs(made), made, lambda *_: 1 << 60, threading.Event()).move(what, policy, tally)
    areas = {"weights": FILE.start, "library": OTHER.start, "own": OWN}
    there = {
        name: 4096 * sum(f.node for at, f in made.folios.items() if start <= at < start + 32 * MIB)
        for name, start in areas.items()
    }
    return tally, there


def test_the_carrier_moves_what_its_users_share_and_nothing_else_that_is_shared() -> None:
    """Pages of the weights move whoever maps them; of a library that is not named, none does."""
    made = kernel()
    tally, there = carry_out(made, carrying(os.getpid(), os.getpid()))
    assert there == {"weights": 8 * MIB, "library": 0, "own": 2 * MIB}
    assert (tally.end, tally.moved[0, 1]) == (End.DONE, 10 * MIB)
    # Its own goes first, and by the flag that spares what others map.
    assert [call.shared for call in made.calls] == sorted(call.shared for call in made.calls)
    assert all(a >= OWN for call in made.calls if not call.shared for a in call.addresses)


def test_without_a_decision_to_carry_nothing_shared_moves() -> None:
    """A decision without shared memory never uses the flag that moves it."""
    made = kernel()
    _, there = carry_out(made, replace(carrying(), shared=()))
    assert there == {"weights": 0, "library": 0, "own": 2 * MIB}
    assert not any(call.shared for call in made.calls)


@pytest.mark.parametrize("part", [Part.WAITS, Part.STAYS])
def test_who_does_not_carry_does_not_move_it(part: Part) -> None:
    """What another is to move, or nobody, is told in a decision and left alone."""
    what = carrying(os.getpid(), os.getpid())
    (shared,) = what.shared
    _, there = carry_out(kernel(), replace(what, shared=(replace(shared, part=part),)))
    assert there["weights"] == 0


def test_a_process_that_maps_it_and_is_no_user_keeps_it_where_it_is() -> None:
    """One more than was decided about is found by its maps, and named; the rest moves."""
    made = kernel()
    made.processes[4711] = maps_line(replace(FILE, start=FILE.start + 64 * MIB, end=FILE.end))
    tally, there = carry_out(made, carrying(os.getpid(), os.getpid()))
    assert there == {"weights": 0, "library": 0, "own": 2 * MIB}
    assert tally.end is End.PARTIAL
    assert tally.error == "/m.gguf is mapped by process 4711 too: it stays where it is"


def test_a_process_that_maps_other_files_stands_in_nobodys_way() -> None:
    """Another inode is another file, though its number begins alike."""
    made = kernel()
    made.processes[4711] = maps_line(replace(FILE, inode=421)) + maps_line(OTHER)
    _, there = carry_out(made, carrying(os.getpid(), os.getpid()))
    assert there["weights"] == 8 * MIB


def test_a_page_that_more_map_than_are_known_keeps_its_area() -> None:
    """The mappings are counted again just before: a container's files have other inodes."""
    _, there = carry_out(kernel(), carrying(os.getpid()))
    assert there == {"weights": 0, "library": 0, "own": 2 * MIB}


def test_without_the_right_it_says_which_is_missing() -> None:
    """The kernel refuses the whole call; own memory has moved by then."""
    made = kernel()
    made.may_move_all = False
    with pytest.raises(RightsError, match="CAP_SYS_NICE is missing"):
        carry_out(made, carrying(os.getpid(), os.getpid()))
    assert made.bytes_on(1) == 2 * MIB


def test_migrate_pages_is_not_used_for_what_is_told_apart() -> None:
    """That call would take the library along, or files that are to be left."""
    policy = replace(UNPACED, method=Method.MIGRATE_PAGES)
    made = kernel()
    carry_out(made, carrying(os.getpid(), os.getpid()), policy)
    carry_out(made, replace(carrying(), shared=(), leave_files=True), policy)
    assert not made.migrations


def test_files_that_are_to_be_left_stay() -> None:
    """Weights that it alone maps move with the rest, or stay where its rule says so."""
    for leave_files in (False, True):
        made = FakeKernel()
        made.areas += [FILE, Area(OWN, OWN + 2 * MIB)]
        made.fill(FILE.start, 8 * MIB, 0)
        made.fill(OWN, 2 * MIB, 0)
        what = decision(this_process(), [MemoryMove(0, 1, 10 * MIB)])
        tally, there = carry_out(made, replace(what, leave_files=leave_files))
        assert there == {"weights": 0 if leave_files else 8 * MIB, "library": 0, "own": 2 * MIB}
        assert tally.pages[PageStatus.MOVED] == (512 if leave_files else 2560)
