"""Being sure, just before shared memory is moved, that nobody maps it but who was decided about."""

from __future__ import annotations

from collections.abc import Iterable

from numad_py.errors import NumadError, Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.model.plan import Shared
from numad_py.model.residency import SegmentId
from numad_py.model.snapshot import WorkerId


def strangers(carried: Iterable[Shared], procfs: ProcFs) -> dict[SegmentId, str]:
    """Return the segments that a process maps that is none of their users, and who that is.

    How often a page is mapped tells of nobody who maps it in place of a user. A process whose maps
    cannot be read may map anything. Reads the maps of all processes: some 0.1 ms for each.

    Raises:
        NumadError: processes cannot be listed.
    """
    found: dict[SegmentId, str] = {}
    wanted = list(carried)
    users = {user for shared in wanted for user in shared.users if _lives(user, procfs)}
    for pid in procfs.entries():
        others = [
            shared
            for shared in wanted
            if shared.id not in found and not any(u.pid == pid for u in users & {*shared.users})
        ]
        if not others:
            continue
        try:
            text = procfs.maps(pid)
        except Vanished:
            continue
        except NumadError:
            found.update((s.id, f"perhaps by process {pid}, whose maps are closed") for s in others)
            continue
        for shared in others:
            # As a line of maps has it; a path that looks the same errs on the safe side.
            if f" {shared.id.device} {shared.id.inode} " in text:
                found[shared.id] = f"by process {pid}"
    return found


def _lives(worker: WorkerId, procfs: ProcFs) -> bool:
    """Say whether a pid is still the worker that was decided about."""
    try:
        return procfs.stat(worker.pid).start_ticks == worker.start_ticks
    except NumadError:
        return False
