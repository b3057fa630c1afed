"""/proc/PID/numa_maps: the whole grammar, and residency out of it.

Grammar (``show_numa_map``, fs/proc/task_mmu.c; ``mpol_to_str``, mm/mempolicy.c)::

    ADDRESS POLICY[ file=PATH| heap| stack][ huge][ anon=N][ dirty=N][ mapped=N][ mapmax=N]
        [ swapcache=N][ active=N][ writeback=N]( N<node>=PAGES)*[ kernelpagesize_kB=K]

Two policy names hold a blank, and the list behind a policy can be cut, since the kernel's buffer is
64 bytes: the policy is matched by name, not split off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from numad_py.errors import Malformed
from numad_py.model.snapshot import Kind, Mobility, Residency, ResidencyEntry

_LINE = re.compile(
    r"^(?P<start>[0-9a-f]+) "
    r"(?P<policy>(?:default|local|prefer \(many\)|prefer|bind|weighted interleave|interleave)"
    r"(?:=[a-z|]+)?(?::[0-9,\-]*)?)"
    r"(?P<rest>(?: .*)?)$"
)
_ESCAPE = re.compile(r"\\(040|011|012|075)")
_SHMEM = re.compile(
    r"^(?:/dev/shm/|/memfd:|/SYSV|/dev/zero|/anon_hugepage|/dmabuf|/i915)", re.ASCII
)
DEFAULT_POLICIES = frozenset({"default", "local"})
"""Policies that leave pages where the thread that touches them first runs."""


@dataclass(frozen=True)
class Vma:
    """One line: a virtual memory area with its resident pages by node."""

    start: int
    policy: str
    file: str | None
    huge: bool
    """A hugetlb area; transparent huge pages do not show here."""
    pages: Mapping[int, int]
    """Resident pages by node, of ``page_bytes`` each."""
    page_bytes: int
    """0 where nothing is resident."""
    anon_pages: int
    mapmax: int
    """Largest number of mappings of one page in the area."""

    @property
    def resident_bytes(self) -> int:
        """Resident bytes on all nodes."""
        return sum(self.pages.values()) * self.page_bytes

    @property
    def mobility(self) -> Mobility:
        """Whether these pages may be moved.

        An anonymous area with ``mapmax`` above 1 stays movable: one page that is still shared with
        a parent since fork would otherwise condemn a whole heap. What is truly shared answers
        EACCES when it is tried, and is remembered then.
        """
        if self.policy not in DEFAULT_POLICIES:
            return Mobility.POLICY
        if self.mapmax > 1 and self.kind is not Kind.ANON:
            return Mobility.SHARED
        return Mobility.MOVABLE

    @property
    def kind(self) -> Kind:
        """What most of its pages are; copied pages of a private file mapping are anonymous."""
        if self.huge:
            return Kind.HUGETLB
        if self.file is None:
            return Kind.ANON
        if _SHMEM.match(self.file):
            return Kind.SHMEM
        return Kind.ANON if 2 * self.anon_pages > sum(self.pages.values()) else Kind.FILE


def parse_line(line: str) -> Vma:
    """Return one area.

    Raises:
        Malformed: the line does not follow the grammar.
    """
    match = _LINE.match(line)
    if match is None:
        msg = f"not a line of numa_maps: {line[:120]!r}"
        raise Malformed(msg)
    file = None
    huge = False
    pages: dict[int, int] = {}
    figures: dict[str, int] = {}
    for word in match["rest"].split():
        key, equals, value = word.partition("=")
        if not equals:
            huge = huge or key == "huge"
        elif key == "file":
            file = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), value)
        elif not value.isascii() or not value.isdigit():
            msg = f"{word!r} is not a count in numa_maps: {line[:120]!r}"
            raise Malformed(msg)
        elif key[:1] == "N" and key[1:].isdigit():
            pages[int(key[1:])] = int(value)
        else:
            figures[key] = int(value)
    page_bytes = figures.get("kernelpagesize_kB", 0) * 1024
    if pages and not page_bytes:
        msg = f"pages without a page size, the line is cut short: {line[:120]!r}"
        raise Malformed(msg)
    return Vma(
        start=int(match["start"], 16),
        policy=match["policy"],
        file=file,
        huge=huge,
        pages=pages,
        page_bytes=page_bytes,
        anon_pages=figures.get("anon", 0),
        mapmax=figures.get("mapmax", 1),
    )


def parse(text: str) -> tuple[list[Vma], int]:
    """Return all areas, and how many lines do not follow the grammar and are left out."""
    vmas: list[Vma] = []
    odd = 0
    for line in text.splitlines():
        try:
            vmas.append(parse_line(line))
        except Malformed:
            odd += 1
    return vmas, odd


def residency(vmas: Iterable[Vma], odd: int, *, read_at_s: float, cost_s: float) -> Residency:
    """Return resident bytes by node, kind and mobility."""
    total: dict[tuple[int, Kind, Mobility], int] = {}
    policies: set[str] = set()
    for vma in vmas:
        if vma.policy not in DEFAULT_POLICIES:
            policies.add(vma.policy)
        for node, pages in vma.pages.items():
            key = (node, vma.kind, vma.mobility)
            total[key] = total.get(key, 0) + pages * vma.page_bytes
    return Residency(
        entries=tuple(
            ResidencyEntry(node, kind, mobility, size)
            for (node, kind, mobility), size in sorted(
                total.items(), key=lambda i: (i[0][0], i[0][1].value, i[0][2].value)
            )
            if size
        ),
        read_at_s=read_at_s,
        cost_s=cost_s,
        odd_lines=odd,
        policies=tuple(sorted(policies)),
    )
