"""Properties of the kernel's list format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from numad_py.model.cpulist import format_list, parse_list


@given(st.frozensets(st.integers(0, 4096), max_size=64))
def test_parsing_what_was_formatted_gives_the_same_ids(ids: frozenset[int]) -> None:
    """parse_list is the inverse of format_list."""
    assert parse_list(format_list(ids)) == ids
