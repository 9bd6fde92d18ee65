"""Features of a window of signal: the second kind of a network's input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn.errors import MismatchError, UsageError
from leancnn.signal_window import SignalWindow

SIZES = st.integers(1, 99)


@given(SIZES, SIZES, SIZES)
def test_a_window_survives_json(rows, columns, planes):
    window = SignalWindow(size=(rows, columns), channels=planes)
    assert SignalWindow.from_json(window.to_json()) == window
    assert window.shape == (rows, columns, planes)


@pytest.mark.parametrize("sizes", [((0, 1), 1), ((1, -1), 1), ((1, 1), 0)])
def test_a_window_of_nothing_is_refused(sizes):
    with pytest.raises(MismatchError, match="sizes of 1 or more"):
        SignalWindow(size=sizes[0], channels=sizes[1])


@pytest.mark.parametrize("values", [{}, {"size": 3, "channels": 1}, {"size": [1, 2]}])
def test_what_is_no_window_is_refused(values):
    with pytest.raises(MismatchError, match="not a window of signal"):
        SignalWindow.from_json(values)


def test_a_picture_is_refused_with_where_signals_are_read():
    with pytest.raises(UsageError, match=r"a\.png: this network decodes signals"):
        SignalWindow(size=(3, 9), channels=2).read("a.png")


def test_made_windows_hold_what_is_all_zero_and_all_one_and_are_the_same_each_time():
    window = SignalWindow(size=(3, 9), channels=2)
    made = window.made(4)
    assert made.dtype == np.float32
    assert not made[0].any()
    assert (made[-1] == 1).all()
    np.testing.assert_array_equal(made, window.made(4))
