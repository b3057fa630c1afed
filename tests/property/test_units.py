"""Properties of the policy's quoted units."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given

from numad_py.policy.units import parse_bytes, parse_duration, parse_rate, parse_share
from tests.property.strategies import blanks, byte_units, numbers, percents, quantities, time_units


@given(numbers, byte_units, blanks)
def test_a_size_is_its_number_times_its_unit(number: int, unit: tuple[str, int], gap: str) -> None:
    """Whole numbers of any unit are exact, with or without a blank before the unit."""
    name, size = unit
    assert parse_bytes(f"{number}{gap}{name}") == number * size
    assert parse_rate(f"{number + 1}{gap}{name}/s") == (number + 1) * size


@given(numbers, time_units, blanks)
def test_a_duration_is_its_number_times_its_unit(
    number: int, unit: tuple[str, float], gap: str
) -> None:
    """So are durations."""
    name, seconds = unit
    assert parse_duration(f"{number}{gap}{name}") == pytest.approx(number * seconds)


@given(percents)
def test_a_share_is_a_hundredth_of_its_percentage(percent: int) -> None:
    """Shares run from 0 to 1, and over 100 % there is none."""
    assert parse_share(f"{percent}%") == percent / 100
    with pytest.raises(ValueError, match="not a share"):
        parse_share(f"{percent + 101}%")


@pytest.mark.parametrize("parse", [parse_bytes, parse_duration, parse_share, parse_rate])
@given(quantities)
@example("9" * 400 + "TiB")
@example("9" * 400 + "TiB/s")
def test_any_value_is_a_quantity_or_a_value_error_that_says_what_to_write(
    parse: Callable[[object], float | None], value: object
) -> None:
    """Whatever TOML hands in: a quantity not below zero, or a ValueError with an example."""
    try:
        result = parse(value)
    except ValueError as error:
        assert '"' in str(error)  # noqa: PT017 - a sample stands in quotes
        return
    assert result is None or 0 <= result < float("inf")
