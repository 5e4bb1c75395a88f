"""Sizes for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.units import size, sizes_apart


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 bytes"), (1023, "1023 bytes"), (98_362_432, "93.8 MiB"), (2.5e9, "2.3 GiB")),
        *((150 << 30, "150 GiB"), (3 << 40, "3.0 TiB"), (-5 << 20, "-5.0 MiB")),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_unequal_numbers_look_unequal_and_have_one_unit(first: int, second: int) -> None:
    one, other = sizes_apart(first, second)
    assert (one == other) == (first == second)
    assert one.split()[1] == other.split()[1]


def test_digits_are_added_only_where_they_are_needed() -> None:
    assert sizes_apart(6 << 30, 2 << 30) == ("6.0 GiB", "2.0 GiB")
    assert sizes_apart(107_374_182, 106_300_440) == ("102 MiB", "101 MiB")
    assert sizes_apart((1 << 30) + (1 << 20), 1 << 30) == ("1.001 GiB", "1.000 GiB")
