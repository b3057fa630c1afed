"""Made memory behind the calls that query and move pages, and the two files that show it.

Follows ``do_pages_move`` and ``migrate_pages`` (mm/migrate.c, alike in Linux 5.10 to 6.18):

- A folio moves whole, with any one of its addresses; a second address of a folio that is queued
  already answers -EBUSY.
- Pages are queued as long as they have one target; whatever is not queued (local already, absent,
  shared, busy) has its status written at once and flushes the queue.
- A flush in which a folio fails still moves the others, yet leaves the status of the whole batch
  unwritten, and the call ends there: what comes behind it is not attempted.
- On a full target the call itself fails with ENOMEM; no status says so.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from numad_py.errors import Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.stat import Stat
from numad_py.kernel.syscalls import UNWRITTEN, Syscalls
from tests.fake_tree import PAGE, area

MIB = 1 << 20
THP = 2 * MIB
BASE = 0x7F0000000000
"""Address of the first area of most tests; a multiple of every size of page."""


class Bar(Enum):
    """What keeps a folio on its node."""

    SHARED = "shared"
    """Mapped by another process too; MPOL_MF_MOVE_ALL moves it all the same."""
    ISOLATED = "isolated"
    """Taken off its list by somebody else just now."""
    PINNED = "pinned"
    """Somebody holds a reference: found out only when its batch is moved."""


class Life(Enum):
    """How far a process has ended."""

    RUNS = "runs"
    ZOMBIE = "zombie"
    """Without memory: its files are empty, the calls answer EINVAL (find_mm_struct)."""
    REAPED = "reaped"


@dataclass(eq=False)
class Folio:
    """Pages that move together."""

    node: int
    size: int
    bar: Bar | None = None
    failures: int = 0
    """How often a batch with it in it failed for its sake: it is unmapped ten times at each."""


@dataclass(frozen=True)
class Area:
    """A virtual memory area."""

    start: int
    end: int
    page_kib: int = 4
    file: str | None = None
    policy: str = "default"
    inode: int = 0
    """Of the file."""
    mapmax: int = 2
    """How often a page of it is mapped, where one is shared."""


@dataclass(frozen=True)
class Call:
    """One call of move_pages that was to move something."""

    addresses: array[int]
    target: int
    local: int
    """How many of the pages were on their target when the call began."""
    shared: bool = False
    """MPOL_MF_MOVE_ALL: pages were to be moved whoever maps them."""


class FakeKernel(Syscalls):
    """The memory of one process; affinity and pidfds are those of the real kernel."""

    def __init__(self) -> None:
        """Start without memory, on nodes that take all there is."""
        self.areas: list[Area] = []
        self.folios: dict[int, Folio] = {}
        """By the address of each base page."""
        self.free: dict[int, int] = {}
        """Bytes that a node can still take; one that is not named here takes any."""
        self.life = Life.RUNS
        self.calls: list[Call] = []
        self.queried = 0
        """Addresses that were asked about."""
        self.queries = 0
        """Calls that asked."""
        self.strays = 0
        """Calls with the pid of a process that has ended: it may be another's by then."""
        self.migrations: list[tuple[int, int]] = []
        self.moved: Counter[tuple[int, int]] = Counter()
        """Bytes that truly changed their node, by source and target."""
        self.on_call: Callable[[int], None] = _nothing
        """Called before pages are moved, with the number of calls made before."""
        self.may_move_all = True
        """Whether the caller has CAP_SYS_NICE."""
        self.processes: dict[int, str] = {}
        """What other processes map, by pid, as their maps have it."""
        self._moves_all = False

    # Making memory

    def area(self, start: int, size: int, page_kib: int = 4) -> None:
        """Map an anonymous area; nothing is resident yet."""
        self.areas.append(Area(start, start + size, page_kib))

    def fill(
        self, start: int, size: int, node: int, *, folio: int = PAGE, bar: Bar | None = None
    ) -> None:
        """Make a stretch of an area resident on a node, in folios of a size."""
        for head in range(start, start + size, folio):
            made = Folio(node, folio, bar)
            self.folios.update(dict.fromkeys(range(head, head + folio, PAGE), made))

    def bytes_on(self, node: int) -> int:
        """Return what lies on a node."""
        return PAGE * sum(folio.node == node for folio in self.folios.values())

    def tries(self) -> Counter[int]:
        """Return how often each address was handed in to be moved."""
        return Counter(address for call in self.calls for address in call.addresses)

    # The calls

    def move_pages_query(self, pid: int, addresses: array[int]) -> array[int]:
        """Return the node of each page, -ENOENT or -EFAULT."""
        self._enter(pid)
        self.queried += len(addresses)
        self.queries += 1
        return array("i", map(self._look, addresses))

    def move_pages(
        self, pid: int, addresses: array[int], targets: array[int], *, shared: bool = False
    ) -> tuple[int, array[int]]:
        """Move pages of this process alone, or whoever maps them."""
        self.on_call(len(self.calls))
        if shared and not self.may_move_all:
            raise PermissionError(errno.EPERM, "move_pages: Operation not permitted")
        self._enter(pid)
        self._moves_all = shared
        pairs = list(zip(addresses, targets, strict=True))
        local = sum(self._look(address) == target for address, target in pairs)
        self.calls.append(Call(addresses[:], targets[0], local, shared))
        status = array("i", [UNWRITTEN]) * len(addresses)
        return self._do_pages_move(pairs, status), status

    def migrate_pages(self, pid: int, sources: Iterable[int], targets: Iterable[int]) -> int:
        """Move all from the sources, what is shared too, as CAP_SYS_NICE has it."""
        self._enter(pid)
        (target,), wanted = targets, set(sources)
        self.migrations += [(source, target) for source in wanted]
        queue = [f for f in dict.fromkeys(self.folios.values()) if f.node in wanted]
        return self._migrate(queue, target)

    def pidfd_alive(self, descriptor: int) -> bool:  # type: ignore[override]
        """Say whether the process runs."""
        return self.life is Life.RUNS and Syscalls.pidfd_alive(descriptor)

    def _enter(self, _pid: int) -> None:
        self.strays += self.life is not Life.RUNS
        if self.life is Life.REAPED:
            raise ProcessLookupError(errno.ESRCH, "move_pages: No such process")
        if self.life is Life.ZOMBIE:
            raise OSError(errno.EINVAL, "move_pages: Invalid argument")

    def _look(self, address: int) -> int:
        folio = self.folios.get(address - address % PAGE)
        if folio is not None:
            return folio.node
        mapped = any(a.start <= address < a.end for a in self.areas)
        return -errno.ENOENT if mapped else -errno.EFAULT

    def _do_pages_move(self, pairs: Sequence[tuple[int, int]], status: array[int]) -> int:
        queue: list[Folio] = []
        current: int | None = None
        start = 0
        for i, (address, target) in enumerate(pairs):
            if current != target:
                if current is not None and (left := self._flush(queue, current, status, start, i)):
                    return left + len(pairs) - i
                current, start = target, i
            if (answer := self._isolate(address, target, queue)) is None:
                continue
            status[i] = answer
            if left := self._flush(queue, target, status, start, i):
                return left + len(pairs) - i - 1
            current = None
        return self._flush(queue, current or 0, status, start, len(pairs))

    def _isolate(self, address: int, target: int, queue: list[Folio]) -> int | None:
        """Queue a page's folio and return None, or return what is to be said of it at once."""
        node = self._look(address)
        if node < 0 or node == target:
            return node
        folio = self.folios[address]
        if folio.bar is Bar.SHARED and not self._moves_all:
            return -errno.EACCES
        # Folios are queued in order of address, so one that is there already stands last.
        if folio.bar is Bar.ISOLATED or (queue and queue[-1] is folio):
            return -errno.EBUSY
        queue.append(folio)
        return None

    def _flush(
        self, queue: list[Folio], target: int, status: array[int], start: int, end: int
    ) -> int:
        if not queue:
            return 0
        failed = self._migrate(queue, target)
        queue.clear()
        if not failed:
            status[start:end] = array("i", [target]) * (end - start)
        return failed

    def _migrate(self, queue: Iterable[Folio], target: int) -> int:
        failed = 0
        for folio in queue:
            if folio.bar is Bar.PINNED:
                folio.failures += 1
                failed += 1
                continue
            if target in self.free:
                if self.free[target] < folio.size:
                    raise OSError(errno.ENOMEM, "move_pages: Cannot allocate memory")
                self.free[target] -= folio.size
            self.moved[folio.node, target] += folio.size
            folio.node = target
        return failed


class MadeProcFs(ProcFs):
    """The real /proc, save for the two files about made memory, and for who else there is."""

    def __init__(self, kernel: FakeKernel) -> None:
        """Show a kernel's memory as that of every process."""
        super().__init__()
        self._kernel = kernel

    def stat(self, pid: int) -> Stat:
        """Return the real one, until the process has been reaped."""
        if self._kernel.life is Life.REAPED:
            msg = f"/proc/{pid} is gone"
            raise Vanished(msg)
        return super().stat(pid)

    def numa_maps(self, pid: int, _between: Callable[[], None] | None = None) -> str:
        """Return the areas with their pages by node."""
        return self._shown(pid, _numa_maps_line)

    def entries(self) -> dict[int, int]:
        """Return this process and the made ones."""
        return dict.fromkeys([os.getpid(), *self._kernel.processes], 0)

    def maps(self, pid: int) -> str:
        """Return the areas with their ends."""
        if pid in self._kernel.processes:
            return self._kernel.processes[pid]
        return self._shown(pid, lambda a, _: maps_line(a))

    def _shown(self, pid: int, line: Callable[[Area, dict[int, Folio]], str]) -> str:
        if self._kernel.life is Life.REAPED:
            msg = f"/proc/{pid} is gone"
            raise Vanished(msg)
        if self._kernel.life is Life.ZOMBIE:
            return ""
        return "".join(line(a, self._kernel.folios) for a in self._kernel.areas)


def maps_line(found: Area) -> str:
    """Return a line of maps."""
    where = f"{found.start:x}-{found.end:x}"
    if found.file is None:
        return f"{where} rw-p 00000000 00:00 0\n"
    return f"{where} rw-s 00000000 08:01 {found.inode} {found.file}\n"


def _numa_maps_line(found: Area, folios: dict[int, Folio]) -> str:
    inside = [f for address, f in folios.items() if found.start <= address < found.end]
    scale = found.page_kib * 1024 // PAGE
    pages = {n: count // scale for n, count in Counter(f.node for f in inside).items()}
    figures = {"mapped" if found.file else "anon": len(inside) // scale}
    if any(f.bar is Bar.SHARED for f in inside):
        figures["mapmax"] = found.mapmax
    return area(
        pages,
        start=found.start,
        policy=found.policy,
        file=found.file,
        words=["huge"] if found.page_kib > 4 else (),
        figures=figures,
        page_kib=found.page_kib,
    )


def _nothing(_calls: int) -> None:
    """Let the call be made."""
