"""How much a node can still take while something is moved to it."""

from __future__ import annotations

from numad_py.model.machine import NodeState

STOP_SHARE = 0.5
"""A move begins with the policy's headroom left, and stops where this share of it is left: a node
that is near the mark would else stop each move after its first chunk."""


def room_bytes(state: NodeState, huge_bytes: int, headroom: float, *, made_bytes: int = 0) -> int:
    """Return what a node can still take, in huge pages of a size or in ordinary ones.

    Of huge pages (hugetlb) that is what its pool has free; and what its memory has room for, where
    the kernel may make them: a move takes free ones first, and then makes one for each
    (``alloc_hugetlb_folio_nodemask``, mm/hugetlb.c).

    Args:
        state: of the node, as it is now.
        huge_bytes: size of the huge pages that are to come; 0: ordinary ones are, whatever size
            this kernel's have.
        headroom: share of its memory that the policy keeps free when a move begins.
        made_bytes: the largest huge pages that the kernel is to make.
    """
    ordinary = state.room_bytes(STOP_SHARE * headroom)
    if not huge_bytes:
        return ordinary
    free = sum(p.free * p.page_bytes for p in state.huge_pages if p.page_bytes == huge_bytes)
    return free + max(0, ordinary) if huge_bytes <= made_bytes else free
