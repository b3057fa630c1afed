"""Properties of the kernel's list format."""

from __future__ import annotations

from hypothesis import given

from numad_py.model.cpulist import format_list, parse_list
from tests.property.strategies import any_texts, ids, list_texts


@given(ids)
def test_parsing_what_was_formatted_gives_the_same_ids(numbers: frozenset[int]) -> None:
    """parse_list is the inverse of format_list."""
    assert parse_list(format_list(numbers)) == numbers


@given(ids)
def test_a_formatted_list_is_the_only_shortest_one(numbers: frozenset[int]) -> None:
    """Formatting what was parsed gives the text back: ranges are neither split nor overlap."""
    text = format_list(numbers)
    assert format_list(parse_list(f" {text}\n")) == text
    assert text.count(",") + 1 == max(1, sum(1 for n in numbers if n - 1 not in numbers))


@given(list_texts | any_texts)
def test_any_text_is_a_list_or_a_value_error(text: str) -> None:
    """What is no list raises ValueError and nothing else; what is one names no negative id."""
    try:
        numbers = parse_list(text)
    except ValueError:
        return
    assert all(number >= 0 for number in numbers)
    assert parse_list(format_list(numbers)) == numbers
