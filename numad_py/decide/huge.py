"""Pools of huge pages as placing is to count them."""

from __future__ import annotations

from dataclasses import replace

from numad_py.model.machine import NodeState
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import HugeTlb, Policy


def makes_pages(policy: Policy) -> bool:
    """Say whether huge pages are made for a move, where a node has too few free ones."""
    return policy.migration.hugetlb is HugeTlb.RESERVE


def with_made_pages(snapshot: Snapshot, policy: Policy) -> Snapshot:
    """Return a snapshot in which pages count as free that a move may have made on a node.

    They are made from its memory, as far as that has room above its headroom. It says what each
    could have if no other took any; that it is promised once is kept account of in ``Room``.
    """
    if not makes_pages(policy):
        return snapshot
    headroom = policy.placement.headroom
    states = tuple(_with_made_pages(state, headroom) for state in snapshot.node_states)
    return replace(snapshot, node_states=states)


def _with_made_pages(state: NodeState, headroom: float) -> NodeState:
    room_bytes = max(0, state.room_bytes(headroom))
    pools = (
        replace(pool, free=pool.free + room_bytes // pool.page_bytes) for pool in state.huge_pages
    )
    return replace(state, huge_pages=tuple(pools))
