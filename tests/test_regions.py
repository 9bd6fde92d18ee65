"""Where R-MAC looks: windows by the rule of each mode, all of them inside."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn.layers import (
    RMAC_MODES,
)
from leancnn.regions import rmac_windows


def test_an_unsquared_map_gets_the_windows_of_the_original_rule() -> None:
    windows = rmac_windows(15, 20, "rule")
    assert len(windows) == 2 + 6 + 12 + 1
    assert windows[-1] == (0, 0, 15, 20)
    assert {window[2:] for window in windows[:-1]} == {(15, 15), (10, 10), (7, 7)}
    turned = {(left, top, columns, rows) for top, left, rows, columns in windows}
    assert turned == set(rmac_windows(20, 15, "rule"))


@pytest.mark.parametrize(
    ("mode", "windows", "distinct"), [("paper21", 21, 19), ("rule", 14, 14), ("pyramid21", 21, 21)]
)
@pytest.mark.parametrize("size", [57, 29, 15, 8])
def test_a_square_map_gets_as_many_windows_as_each_mode_says(
    mode: str, windows: int, distinct: int, size: int
) -> None:
    found = rmac_windows(size, size, mode)
    assert (len(found), len(set(found))) == (windows, distinct)


@pytest.mark.parametrize(
    ("size", "sides"),
    [(57, (57, 38, 28)), (29, (29, 19, 14)), (15, (15, 10, 7)), (8, (8, 5, 4)), (7, (7, 4, 3))],
)
def test_window_sides_are_those_of_the_rule(size: int, sides: tuple[int, ...]) -> None:
    assert {window[2] for window in rmac_windows(size, size, "rule")} == set(sides)


def test_windows_on_eight_pixels_stand_where_the_specification_puts_them() -> None:
    found = rmac_windows(8, 8, "paper21")
    assert {w[:2] for w in found if w[2] == 5} == set(product((0, 3), (0, 1, 3)))
    assert {w[:2] for w in found if w[2] == 4} == set(product((0, 2, 4), (0, 1, 2, 4)))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(RMAC_MODES))
def test_every_window_lies_inside_its_map(height: int, width: int, mode: str) -> None:
    for top, left, rows, columns in rmac_windows(height, width, mode):
        assert min(top, left) >= 0
        assert min(rows, columns) >= 1
        assert top + rows <= height
        assert left + columns <= width
