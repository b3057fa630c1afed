"""Properties of spelling values: TOML reads what is written as the value that it was."""

from __future__ import annotations

import math
from datetime import date, datetime, time

import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from numad_py.policy.spelled import in_words_of_the_file, spelled

texts = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.dates(date(1, 1, 1))
    | st.datetimes(datetime(1, 1, 1))  # noqa: DTZ001 - TOML has times without a zone
    | st.times()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def read_back(value: object) -> object:
    """Return what TOML reads where the value is spelled."""
    return tomli.loads("x = " + spelled(value))["x"]


@given(values)
@example('it\'s a \\d "quote"\r\n\t\x7f\x00')
@example("'''")
@example('"\\')
@example({"": {"a.b": [1e16, 1e-7, -0.0, math.inf]}, "a'b": [True, time(1, 2, 3)]})
def test_what_is_spelled_is_read_back(value: object) -> None:
    """The same value, of the same type."""
    back = read_back(value)
    assert back == value
    assert spelled(back) == spelled(value)


def test_what_is_no_number_is_read_back() -> None:
    """It equals nothing, not even itself."""
    back = read_back([math.nan])
    assert isinstance(back, list)
    assert math.isnan(back[0])


@given(texts, st.lists(scalars, max_size=3))
@example("", ["\\", "\\\\", True])
def test_what_is_said_of_a_value_holds_it_as_the_file_has_it(
    text: str, several: list[object]
) -> None:
    """Whole, alone and as one of a list; what was put in is not taken for another part."""
    assert in_words_of_the_file(f"{text!r} is bad", text) == f"{spelled(text)} is bad"
    assert in_words_of_the_file(f"{several!r}!", several) == f"{spelled(several)}!"
