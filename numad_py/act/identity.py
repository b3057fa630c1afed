"""Being sure that a pid is still the process that was decided about."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from numad_py.errors import NumadError, Vanished
from numad_py.kernel.held import HeldMemory
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.snapshot import WorkerId


class Alive:
    """A hold on one process."""

    def __init__(
        self,
        worker: WorkerId,
        descriptor: int,
        syscalls: Syscalls,
        memory: HeldMemory | None = None,
    ) -> None:
        """Hold by a pidfd, and its memory as well where that is given."""
        self._worker = worker
        self._descriptor = descriptor
        self._syscalls = syscalls
        self._memory = memory

    def check(self) -> None:
        """Raise Vanished when the process has ended, or its memory is held and is another's now.

        As long as it has not, its pid was not given to another one, so what was done to the pid
        before this call was done to it.
        """
        if not self._syscalls.pidfd_alive(self._descriptor):
            msg = f"process {self._worker.pid} ended"
            raise Vanished(msg)
        if self._memory is not None and not self._memory.there():
            msg = f"process {self._worker.pid} has become another program"
            raise Vanished(msg)


@contextlib.contextmanager
def alive(
    worker: WorkerId, procfs: ProcFs, syscalls: Syscalls, *, with_memory: bool = False
) -> Iterator[Alive]:
    """Hold a worker by a pidfd taken before its start time is compared.

    Args:
        worker: to be held.
        procfs: the machine's processes.
        syscalls: of this machine.
        with_memory: whether a program that it becomes by exec is no longer the worker.

    Raises:
        Vanished: it ended, or the pid belongs to another process by now.
        NumadError: that cannot be told; nothing may be done to it, nor may it be forgotten.
    """
    try:
        descriptor = syscalls.pidfd_open(worker.pid)
    except ProcessLookupError as error:
        msg = f"process {worker.pid} ended"
        raise Vanished(msg) from error
    except OSError as error:
        msg = f"process {worker.pid} cannot be held: pidfd_open: {error.strerror}"
        raise NumadError(msg) from error
    try:
        start_ticks = procfs.stat(worker.pid).start_ticks
        if start_ticks != worker.start_ticks:
            msg = f"pid {worker.pid} is another process by now"
            raise Vanished(msg)
        if not with_memory:
            yield Alive(worker, descriptor, syscalls)
            return
        with contextlib.closing(HeldMemory(procfs.root, worker.pid)) as memory:
            yield Alive(worker, descriptor, syscalls, memory)
    finally:
        os.close(descriptor)
