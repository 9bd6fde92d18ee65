"""From stored values to what a network computes on: the same numbers whoever computes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn.normalisation import planes, scale_and_shift
from tests.compiler_saved import network, on_shelf

MEANS, STDS = st.floats(0, 1), st.floats(1 / 255, 1)


@given(MEANS, STDS, st.integers(0, 255), st.sampled_from([1.0, 255.0]))
def test_a_value_is_taken_as_a_share_of_full_less_mean_by_std(mean, std, value, full):
    scale, shift = scale_and_shift([mean], [std], full)
    assert value * scale[0] + shift[0] == pytest.approx((value / full - mean) / std, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 9))
def test_planes_keep_every_value_in_its_place(channels, seed):
    images = np.random.default_rng(seed).integers(0, 256, (2, 3, 5, channels), np.uint8)
    found = planes(images, [0.0] * channels, [1 / 255] * channels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images.transpose(0, 3, 1, 2), rtol=1e-6)


def test_torch_and_numpy_make_the_same_planes_of_a_network():
    off = on_shelf()
    net = network()
    off()
    images = np.random.default_rng(0).integers(0, 256, (2, *net.preprocessing.shape), np.uint8)
    import torch

    np.testing.assert_allclose(
        net.normalise(torch.from_numpy(images)).numpy(),
        planes(images, net.mean, net.std),
        rtol=1e-6,
        atol=1e-6,
    )
