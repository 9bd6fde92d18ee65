"""Weights that suit processors which multiply bytes in pairs: exact, and found where they are."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leancnn.compiler.int8_kernel_depthwise import Depthwise
from leancnn.compiler.int8_kernel_tiled import Tiled
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_pairs import in_words, pairs_fit
from leancnn.compiler.int8_tiles import weight_words
from leancnn.compiler.integers import QConv
from leancnn.compiler.reference import IntegerNetwork
from tests.int8_nets import DepthwiseDrawn, Downsampled, Drawn, answers, drawn, written
from tests.test_int8 import BUILDS

WEIGHTS = st.integers(-128, 127)


@given(arrays(np.int8, (2, 4), elements=WEIGHTS))
def test_what_fits_saturates_with_no_bytes_and_what_does_not_with_some(words):
    worst = [
        first * pair[0] + second * pair[1]
        for pair in words.astype(int).reshape(-1, 2)
        for first, second in product((0, 255), repeat=2)
    ]
    assert pairs_fit(words) == all(-(2**15) <= total < 2**15 for total in worst)


@given(
    st.booleans(),
    st.tuples(*[st.integers(1, 9)] * 2, st.integers(1, 6), st.integers(1, 3)),
)
def test_words_hold_every_weight_of_an_output_once(depthwise, shape):
    weight = np.arange(1, np.prod(shape) + 1).reshape(shape)
    words = in_words(weight, depthwise=depthwise)
    for mine, all_ in zip(words, weight, strict=True):
        assert sorted(mine[mine > 0]) == sorted(all_.ravel())


def convolutions(network):
    return [node for node in network.nodes if isinstance(node, QConv)]


@pytest.mark.parametrize("kind", [Drawn, DepthwiseDrawn, Downsampled])
def test_the_quantizer_s_weights_fit_in_the_words_that_kernels_multiply(kind):
    fits = of = 0
    for seed in range(8):
        network = drawn(seed, images=2, kind=kind)[1]
        for node in convolutions(network):
            depthwise = node.weight.shape[1] == 1 and node.groups == len(node.weight)
            assert pairs_fit(in_words(node.weight, depthwise=depthwise))
        for kernel in lower(network).kernels:
            if isinstance(kernel, Tiled) and isinstance(kernel.node, QConv):
                words = [weight_words(kernel.node, kernel.places, cut) for cut in kernel.cuts]
                fits, of = fits + all(map(pairs_fit, words)), of + 1
            if isinstance(kernel, Depthwise):
                assert pairs_fit(kernel.words())
    assert fits >= 0.8 * of  # the others' channels lie as somebody else wants them


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("kind", [Drawn, DepthwiseDrawn])
def test_weights_that_do_not_fit_are_multiplied_otherwise_to_the_same_bits(kind, build):
    """As in files that others quantized: every weight the largest, of both signs."""
    _, network, _, pixels = drawn(5, images=2, kind=kind)
    random = np.random.default_rng(0)
    nodes = []
    for node in network.nodes:
        if isinstance(node, QConv) and node.weight.size < 2000:
            signs = random.choice([-127, 127], node.weight.shape, p=[0.45, 0.55])
            node = replace(node, weight=signs.astype(np.int8))
        nodes.append(node)
    network = replace(network, nodes=nodes)
    expected = IntegerNetwork(network).answer(pixels).numpy()
    source = written(network).source
    assert " * WORDS]" in source  # of two words where pairs are multiplied
    assert np.array_equal(answers(source, pixels, BUILDS[build]), expected)
