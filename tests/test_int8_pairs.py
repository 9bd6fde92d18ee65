"""Weights that suit processors which multiply bytes in pairs: exact, and found where they are."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leancnn.compiler.graph import Node, Pool
from leancnn.compiler.int8_kernel_depthwise import Depthwise
from leancnn.compiler.int8_kernel_tiled import Tiled
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_pairs import in_words, pairs_fit
from leancnn.compiler.int8_tiles import weight_words
from leancnn.compiler.int8_weights import as_conv, to_bytes
from leancnn.compiler.integers import QConv, QValue, conv_shape, stores
from leancnn.compiler.integers_data import from_data, to_data
from leancnn.compiler.reference import IntegerNetwork
from tests.few import few
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


@pytest.mark.parametrize("kind", few([Drawn, DepthwiseDrawn, Downsampled]))
def test_the_quantizer_s_weights_fit_in_the_words_that_kernels_multiply(kind):
    fits = of = 0
    for seed in range(8):
        network = drawn(seed, images=2, kind=kind)[1]
        for node in convolutions(network):
            depthwise = node.weight.shape[1] == 1 and node.groups == len(node.weight)
            if conv_shape(node, network.values[node.x].shape)[1:] == (1, 1):
                continue  # no vectors
            assert pairs_fit(in_words(node.weight, depthwise=depthwise))
        for kernel in lower(network).kernels:
            if isinstance(kernel, Tiled) and isinstance(kernel.node, QConv):
                words = [
                    weight_words(kernel.node, kernel.inputs.places, cut) for cut in kernel.cuts
                ]
                fits, of = fits + all(map(pairs_fit, words)), of + 1
            if isinstance(kernel, Depthwise):
                assert pairs_fit(kernel.words())
    assert fits >= 0.8 * of  # the others' channels lie as somebody else wants them


@pytest.mark.parametrize("side", range(1, 8))
def test_a_mean_of_windows_is_neither_more_nor_less(side):
    node = Node(Pool("mean", (side, side), (1, 1)), ("x",), "y")
    conv = as_conv(node, node.op, (2, 9, 9), (2, 10 - side, 10 - side))
    found = to_bytes(conv, QValue((2, 9, 9), np.ones(2), np.zeros(2, np.int32)), [], levels=126)
    gain = found.weight.sum((1, 2, 3)) * found.scale
    assert np.allclose(gain, 1, rtol=1e-6)


def test_a_matrix_by_a_vector_keeps_all_of_its_steps():
    for seed in range(4):
        network = drawn(seed, images=2)[1]
        last = convolutions(network)[-1]
        assert conv_shape(last, network.values[last.x].shape)[1:] == (1, 1)
        assert (np.abs(last.weight.astype(int)).max((1, 2, 3)) == 127).all()


def test_layers_may_be_called_as_helpers_are():
    """A value's weights are named after it: `bytes_weights` is a function already."""
    _, network, reference, pixels = drawn(5, images=2, kind=DepthwiseDrawn)
    names = {"bytes", "four", "bytes_four", "line"}
    stored = [store for node in convolutions(network) for store in stores(node)][: len(names)]
    new = dict(zip((store.value for store in stored), sorted(names), strict=False))
    data, arrays = to_data(network)
    text = json.dumps(data)
    for old, name in new.items():
        text = text.replace(f'"{old}"', f'"{name}"')
        arrays = {key.replace(f"{old}.", f"{name}."): value for key, value in arrays.items()}
    renamed = from_data(json.loads(text), arrays)
    assert names & set(renamed.values)
    found = answers(written(renamed).source, pixels, [])
    assert np.array_equal(found, reference.answer(pixels).numpy())


@pytest.mark.parametrize("build", few(BUILDS))
@pytest.mark.parametrize("kind", few([Drawn, DepthwiseDrawn]))
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
