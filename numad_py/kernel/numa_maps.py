"""/proc/PID/numa_maps: the whole grammar, and residency out of it.

Grammar (``show_numa_map``, fs/proc/task_mmu.c; ``mpol_to_str``, mm/mempolicy.c)::

    ADDRESS POLICY[ file=PATH| heap| stack][ huge][ anon=N][ dirty=N][ mapped=N][ mapmax=N]
        [ swapcache=N][ active=N][ writeback=N]( N<node>=PAGES)*[ kernelpagesize_kB=K]

Two policy names hold a blank, and the list behind a policy can be cut, since the kernel's buffer is
64 bytes: the policy is matched by name, not split off. Words are parted by blanks alone: the kernel
escapes blank, tab, newline and ``=`` in a path, no other white space, so that a file name could
forge words or lines for ``str.split()`` and ``str.splitlines()``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from numad_py.errors import Malformed
from numad_py.kernel.maps import maps_device
from numad_py.model.residency import Kind, Mobility, Residency, SegmentPart, entries_of

_LINE = re.compile(
    r"^(?P<start>[0-9a-f]+) "
    r"(?P<policy>(?:default|local|prefer \(many\)|prefer|bind|weighted interleave|interleave)"
    r"(?:=[a-z|]+)?(?::[0-9,\-]*)?)"
    r"(?P<rest>(?: .*)?)\Z",
    re.DOTALL,
)
_COUNT = re.compile(r"[0-9]{1,20}\Z")
"""An unsigned long has 20 digits at most."""
_NODE = re.compile(r"N([0-9]{1,9})\Z")
_ESCAPE = re.compile(r"\\(040|011|012|075)")
_SHMEM = re.compile(r"^(?:/dev/shm/|/memfd:|/SYSV|/dev/zero|/anon_hugepage|/dmabuf|/i915)")
"""Files of tmpfs that the kernel makes itself, and /dev/shm; other mounts have any name."""
DEFAULT_POLICIES = frozenset({"default", "local"})
"""Policies that leave pages where the thread that touches them first runs."""


def file_kind(path: str) -> Kind:
    """Return the kind of the pages of a mapped file that are the file's own."""
    return Kind.SHMEM if _SHMEM.match(path) else Kind.FILE


@dataclass(frozen=True)
class Part:
    """Pages of one area that are of one kind and mobility."""

    kind: Kind
    mobility: Mobility
    pages: Mapping[int, int]
    """By node."""


@dataclass(frozen=True)
class Vma:
    """One line: a virtual memory area with its resident pages by node."""

    start: int
    policy: str
    file: str | None
    huge: bool
    """A hugetlb area; transparent huge pages do not show here."""
    heap: bool
    stack: bool
    pages: Mapping[int, int]
    """Resident pages by node, of ``page_bytes`` each."""
    page_bytes: int
    """0 where nothing is resident."""
    mapmax: int = 1
    """Largest number of mappings of one page in the area."""
    anon_pages: int = 0
    """Of ``pages``: anonymous, in a file's mapping those copied on write."""
    dirty_pages: int = 0

    @property
    def resident_bytes(self) -> int:
        """Resident bytes on all nodes."""
        return sum(self.pages.values()) * self.page_bytes

    @property
    def parts(self) -> tuple[Part, ...]:
        """The resident pages by kind and mobility: one part, or two where a file's are mixed.

        ======================  ============================================
        kind                    pages
        ======================  ============================================
        hugetlb                 all of an area with ``huge``
        anon                    of no file; copied on write from a file's
        shmem                   of tmpfs, memfd, System V or shared /dev/zero
        file                    of any other file
        ======================  ============================================

        ``anon=`` is one number for the area; it is spread over the nodes in proportion.

        A policy other than default or local was set by the user: all of its pages are POLICY. With
        ``mapmax`` above 1 pages of files are SHARED, but anonymous ones stay MOVABLE: one page that
        is still shared with a parent since fork would otherwise condemn a whole heap. What is truly
        shared answers EACCES when it is tried, and is remembered then.
        """
        total = sum(self.pages.values())
        if not total:
            return ()
        backed_kind = file_kind(self.file or "")
        anon = total if self.file is None and not self.huge else min(self.anon_pages, total)
        copied = _spread(anon, self.pages)
        backed = {node: count - copied[node] for node, count in self.pages.items()}
        own, shared = Mobility.MOVABLE, Mobility.SHARED if self.mapmax > 1 else Mobility.MOVABLE
        if self.policy not in DEFAULT_POLICIES:
            own = shared = Mobility.POLICY
        parts = (
            Part(Kind.HUGETLB if self.huge else Kind.ANON, own, copied),
            Part(Kind.HUGETLB if self.huge else backed_kind, shared, backed),
        )
        return tuple(part for part in parts if any(part.pages.values()))

    @property
    def mobility(self) -> Mobility:
        """Mobility of most of its pages; MOVABLE where nothing is resident.

        Whoever moves whole areas goes by this: trying a shared file for the sake of a few copied
        pages would count the file's pages as refused.
        """
        largest = self._largest
        return largest.mobility if largest else Mobility.MOVABLE

    @property
    def kind(self) -> Kind:
        """Kind of most of its pages; ANON where nothing is resident."""
        largest = self._largest
        return largest.kind if largest else Kind.ANON

    @property
    def _largest(self) -> Part | None:
        return max(self.parts, key=lambda part: sum(part.pages.values()), default=None)


def _spread(count: int, pages: Mapping[int, int]) -> dict[int, int]:
    """Return ``count`` spread over nodes in proportion to their pages; sums exactly to it.

    What rounding down leaves over goes where the fraction lost was largest, then to the lower id.
    """
    total = sum(pages.values())
    shares = {node: count * size // total for node, size in pages.items()}
    by_loss = sorted(pages, key=lambda node: (-(count * pages[node] % total), node))
    for node in by_loss[: count - sum(shares.values())]:
        shares[node] += 1
    return shares


def parse_line(line: str) -> Vma:
    """Return one area from a line without its newline.

    A word without ``=`` that is not known, and a figure that is not known, are passed over: later
    kernels may add some.

    Raises:
        Malformed: the line does not follow the grammar.
    """
    match = _LINE.match(line)
    if match is None:
        msg = f"not a line of numa_maps: {line[:120]!r}"
        raise Malformed(msg)
    file = None
    flags: set[str] = set()
    pages: dict[int, int] = {}
    figures: dict[str, int] = {}
    for word in match["rest"].split(" ")[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            flags.add(key)
        elif key == "file":
            file = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), value)
        elif _COUNT.match(value) is None:
            msg = f"{word!r} is not a count in numa_maps: {line[:120]!r}"
            raise Malformed(msg)
        elif node := _NODE.match(key):
            pages[int(node[1])] = int(value)
        else:
            figures[key] = int(value)
    page_bytes = figures.get("kernelpagesize_kB", 0) * 1024
    if pages and not page_bytes:
        msg = f"pages without a page size: {line[:120]!r}"
        raise Malformed(msg)
    return Vma(
        start=int(match["start"], 16),
        policy=match["policy"],
        file=file,
        huge="huge" in flags,
        heap="heap" in flags,
        stack="stack" in flags,
        pages=pages,
        page_bytes=page_bytes,
        mapmax=figures.get("mapmax", 1),
        anon_pages=figures.get("anon", 0),
        dirty_pages=figures.get("dirty", 0),
    )


def parse(text: str) -> tuple[list[Vma], int]:
    """Return all areas but those of devices, and how many lines are left out as odd.

    Odd is a line that does not follow the grammar. What a device has mapped is no memory to place.
    The kernel ends every line with a newline; a last line without one was cut short. It counts as
    odd even where it parses, since ``kernelpagesize_kB=2048`` cut to ``kernelpagesize_kB=2`` would.
    """
    *lines, tail = text.split("\n")
    vmas: list[Vma] = []
    odd = 1 if tail else 0
    for line in lines:
        try:
            vma = parse_line(line)
        except Malformed:
            odd += 1
            continue
        if vma.huge or vma.file is None or not maps_device(vma.file):
            vmas.append(vma)
    return vmas, odd


def residency(
    vmas: Iterable[Vma],
    odd: int,
    *,
    read_at_s: float,
    cost_s: float,
    segments: tuple[SegmentPart, ...] = (),
) -> Residency:
    """Return resident bytes by node, kind, mobility and size of page.

    Args:
        vmas: areas, as from ``parse``.
        odd: lines left out.
        read_at_s: time since boot at which the text was read.
        cost_s: how long reading took.
        segments: the files and shared segments among them.
    """
    total: dict[tuple[int, Kind, Mobility, int], int] = {}
    policies: set[str] = set()
    for vma in vmas:
        if vma.policy not in DEFAULT_POLICIES:
            policies.add(vma.policy)
        for part in vma.parts:
            for node, pages in part.pages.items():
                key = (node, part.kind, part.mobility, vma.page_bytes)
                total[key] = total.get(key, 0) + pages * vma.page_bytes
    return Residency(
        entries=entries_of(total),
        read_at_s=read_at_s,
        cost_s=cost_s,
        odd_lines=odd,
        policies=tuple(sorted(policies)),
        segments=segments,
    )
