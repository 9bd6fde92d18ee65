"""Intervals of a measured share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn.evaluate import wilson


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(correct, images):
    correct = min(correct, images)
    low, high = wilson(correct, images)
    assert 0 <= low <= correct / images <= high <= 1


def test_the_interval_is_wilsons():
    # Both ends solve |p - share| = z·sqrt(p(1 - p)/n), which is how Wilson defined them.
    for correct, images in ((81, 100), (1, 10), (8_612, 10_000)):
        for end in wilson(correct, images):
            z = abs(correct / images - end) / (end * (1 - end) / images) ** 0.5
            assert z == pytest.approx(1.959964, rel=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
