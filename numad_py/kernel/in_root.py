"""Opening files as another process has them: below its root, with its symbolic links."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from numad_py.kernel.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, Syscalls


class InRoot:
    """A folder that is taken for the root: no link and no ``..`` leads out of it.

    By path alone, ``/proc/PID/root/model`` would follow a link to ``/srv/x`` into this process's
    own root: to another file, or to one that the other process may not see.
    """

    def __init__(self, root: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be; of /proc/PID/root without CAP_SYS_PTRACE.
            NumadError: on an architecture that ``Syscalls`` does not know.
        """
        self._syscalls = Syscalls()
        self._root = root
        self._descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> InRoot:  # noqa: PYI034 - Self is newer than Python 3.10
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._descriptor)

    def open(self, path: str | Path, flags: int) -> int:
        """Return a descriptor of what a path names there; close it.

        Raises:
            OSError: as of open(2); ENOSYS on a kernel before 5.6.
        """
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        return self._syscalls.openat2(self._descriptor, path, flags | os.O_CLOEXEC, resolve)

    def stat(self, path: str | Path) -> os.stat_result:
        """Return the status of what a path names there.

        Raises:
            OSError: as of ``open``.
        """
        with self._opened(path, os.O_PATH) as descriptor:
            return os.fstat(descriptor)

    def listing(self, path: str | Path) -> list[str]:
        """Return the names in a folder there.

        Raises:
            OSError: as of ``open``; it is no folder.
        """
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK) as descriptor:
            return os.listdir(descriptor)

    def path_here(self, path: str | Path, file: tuple[int, int]) -> Path | None:
        """Return a path without links by which this process reaches a file.

        In a container with mounts of its own the kernel tells it below that one's root.

        Args:
            path: that it has there.
            file: its device and inode, as stat has them: another one may have taken its name.

        Returns:
            None: this process has no path to it, or it is gone.
        """
        with contextlib.suppress(OSError):
            with self._opened(path, os.O_PATH) as descriptor:
                real = Path(f"/proc/self/fd/{descriptor}").readlink()
            for here in (real, self._root / str(real).lstrip("/")):
                with contextlib.suppress(OSError):
                    found = here.stat()
                    if (found.st_dev, found.st_ino) == file:
                        return here
        return None

    @contextlib.contextmanager
    def _opened(self, path: str | Path, flags: int) -> Iterator[int]:
        descriptor = self.open(path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
