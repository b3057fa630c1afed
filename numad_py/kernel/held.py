"""The memory that a process has now, and whether it still has that one later."""

from __future__ import annotations

import os

from numad_py.kernel.files import Files


class HeldMemory(Files):
    """Tells whether a process still has the memory that it had when this was opened.

    exec(2) gives it another one under the same pid and start time. A descriptor of its maps belongs
    to the memory, not to the pid (``proc_mem_open``, fs/proc/base.c): once that is given up, by
    exec or by the process's end, it reads empty, or fails with ESRCH when the process has been
    reaped (``m_start``, fs/proc/task_mmu.c). It keeps none of it from being freed.
    """

    def __init__(self, root: str | os.PathLike[str], pid: int) -> None:
        """Open it.

        Raises:
            Vanished: the process has ended.
            RightsError: CAP_SYS_PTRACE is missing.
            Malformed: it cannot be opened for another reason.
        """
        super().__init__(root)
        with self._translated(self.root / str(pid) / "maps") as path:
            self._descriptor = self._open(str(path))

    def there(self) -> bool:
        """Say whether it is still the memory of that process; takes some microseconds."""
        try:
            return bool(os.pread(self._descriptor, 1, 0))
        except OSError:
            return False

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)
