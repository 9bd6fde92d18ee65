"""Large strided convolutions as two: the same bits in less room."""

import numpy as np
import pytest

from leancnn.compiler import int8_halves
from leancnn.compiler.graph import Activation, Conv, Reduce, empty, floats
from leancnn.compiler.int8_halves import in_halves
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.integers import QConv
from leancnn.compiler.reference import IntegerNetwork
from tests.int8_nets import Drawn, answers, drawn, written


class Strided(Drawn):
    """A strided convolution in groups, and a classifier."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, 15, 14))
        value = self.conv(self.graph.input, 32, 3)
        value = self.add(Activation("clip"), value)
        value = self.conv(value, 24, 3, groups=2, stride=2)
        value = self.add(Activation("clip", 0.0, 2.0), value)
        value = self.add(Reduce("mean", "pixels"), self.conv(value, 8, 1, groups=2))
        weight = self.random.normal(0, 0.3, (4, 8, 1, 1))
        self.graph.output = self.add(Conv(floats(weight), self.numbers(4)), value)


@pytest.fixture
def strided(monkeypatch):
    """A network whose strided convolution counts as large."""
    monkeypatch.setattr(int8_halves, "LARGE", 1000)
    _, network, reference, pixels = drawn(3, kind=Strided)
    return network, reference, pixels


def test_two_halves_give_the_bits_of_the_whole_in_python_and_in_c(strided):
    network, reference, pixels = strided
    halves = in_halves(network)
    count = sum(isinstance(node, QConv) for node in halves.nodes)
    assert count == 1 + sum(isinstance(node, QConv) for node in network.nodes)
    expected = reference.answer(pixels)
    assert np.array_equal(IntegerNetwork(halves).answer(pixels).numpy(), expected.numpy())
    found = answers(written(network).source, pixels, ["-DLANES=1"])
    assert np.array_equal(found, expected.numpy())


def test_two_halves_take_less_room(strided):
    network, _, _ = strided
    assert lower(in_halves(network)).arena.words < lower(network).arena.words
