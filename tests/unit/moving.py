"""Decisions such as the planner makes, and carrying them out on made memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from numad_py.act.mover import Mover
from numad_py.act.tally import Tally
from numad_py.kernel.procfs import ProcFs
from numad_py.model.plan import Decision, Finding, MemoryMove, Reason, Verdict
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import MigrationPolicy
from tests.fake_tree import PAGE
from tests.unit.fake_kernel import FakeKernel, MadeProcFs


def decision(
    worker: WorkerId,
    moves: Iterable[MemoryMove] = (),
    *,
    bind_cpus: frozenset[int] | None = None,
    movable_bytes: int = 0,
    number: int = 1,
) -> Decision:
    """Return a decision to act, whose reasons do not matter here."""
    moves = tuple(moves)
    remote_bytes = sum(move.move_bytes for move in moves)
    return Decision(
        id=f"{number}:x/0",
        worker=worker,
        label="x/0",
        rule="x",
        verdict=Verdict.ACT,
        reason=Reason.REMOTE_MEMORY,
        why="",
        finding=Finding(
            worker, "x/0", None, movable_bytes or remote_bytes, remote_bytes, 0, None, None
        ),
        bind_cpus=bind_cpus,
        moves=moves,
    )


def this_process() -> WorkerId:
    """Return the process that runs the tests, as a worker that lives."""
    return WorkerId(os.getpid(), ProcFs().stat(os.getpid()).start_ticks)


UNPACED = MigrationPolicy(rate_bytes_per_s=None, duty=1.0, longest_chunk_s=60.0)


def move(
    kernel: FakeKernel,
    plan: Mapping[tuple[int, int], int],
    policy: MigrationPolicy = UNPACED,
    *,
    room: Callable[[int, int], int] = lambda _node, _page_bytes: 1 << 60,
    stop: threading.Event | None = None,
) -> Tally:
    """Carry out a plan, bytes by source and target, and return what the mover says of it."""
    moves = [MemoryMove(source, target, size) for (source, target), size in plan.items()]
    what = decision(this_process(), moves, movable_bytes=PAGE * len(kernel.folios))
    tally = Tally()
    Mover(MadeProcFs(kernel), kernel, room, stop or threading.Event()).move(what, policy, tally)
    return tally


def home(kernel: FakeKernel, policy: MigrationPolicy = UNPACED) -> Tally:
    """Bring all that lies on node 1 to node 0."""
    return move(kernel, {(1, 0): kernel.bytes_on(1)}, policy)


def chunked(size: int) -> MigrationPolicy:
    """Return a policy without pauses."""
    return replace(UNPACED, chunk_bytes=size)
