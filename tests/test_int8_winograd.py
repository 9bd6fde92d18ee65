"""3×3 convolutions of bytes at the points of tiles: the bits of the window's own products."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leancnn.compiler import int8_winograd
from leancnn.compiler.graph import Activation, Combine, Conv, Reduce, empty, floats
from leancnn.compiler.int8_kernel_winograd import Winograd
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_winograd import exact, points
from leancnn.compiler.integers import QConv, Quantized, QValue, Store
from leancnn.compiler.reference import IntegerNetwork
from tests.few import few
from tests.int8_nets import Drawn, answers, drawn, written
from tests.test_int8 import BUILDS, INTEL

INTO = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
BACK = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
OVER = 2**32
OTHERS = ("integers alone", "this processor", "SSE4.1", "no VNNI")  # in the slow test
SANITIZED = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]


class Windows(Drawn):
    """Convolutions of 3×3 that keep the size, shortcuts and gates, on planes of any size."""

    def sides(self):
        return [int(side) for side in self.random.integers(2, 22, 2)]

    def step(self):
        x, random = self.value, self.random
        if len(self.graph.nodes) > 12:
            return
        c = self.shape(x)[0]
        y = self.window(x, int(random.integers(1, 18)))
        if random.random() < 0.5:
            y = self.window(y, c)
            y = self.add(Combine("add"), *((x, y) if random.random() < 0.5 else (y, x)))
        self.value = self.add(Activation("clip"), y)
        if random.random() < 0.2:
            super().step()

    def window(self, x, outputs):
        c = self.shape(x)[0]
        weight = self.random.normal(0, (9 * c) ** -0.5, (outputs, c, 3, 3))
        op = Conv(floats(weight), self.numbers(outputs), padding=(1, 1, 1, 1))
        return self.add(Activation("leaky", 0.1), self.add(op, x))


@pytest.fixture
def always(monkeypatch):
    """Every convolution that can is done at points."""
    monkeypatch.setattr(int8_winograd, "pays", lambda x, out: True)


@given(arrays(np.uint8, (4, 4)), arrays(np.int8, (1, 1, 3, 3)))
def test_the_sums_of_a_tile_are_four_times_the_window_s(pixels, weight):
    wide = pixels.astype(np.int64)
    at_points = INTO @ wide @ INTO.T
    assert np.abs(at_points).max() < 2**15
    assert np.abs(points(weight)).max() < 2**15
    found = BACK @ (at_points * points(weight).reshape(4, 4)) @ BACK.T
    for y, x in product(range(2), repeat=2):
        assert found[y, x] == 4 * (wide[y : y + 3, x : x + 3] * weight[0, 0]).sum()


@given(st.integers(-(2**29), 2**29 - 1), st.integers(-(2**40), 2**40))
def test_a_shift_gives_the_sum_whatever_was_lost_beyond_32_bits(total, lost):
    kept = np.uint32((4 * total + OVER * lost) % OVER).view(np.int32)
    assert kept >> 2 == total


@pytest.mark.parametrize("build", few([name for name in BUILDS if name not in OTHERS]))
@pytest.mark.parametrize("seed", few([1, 5]))
def test_planes_of_any_size_give_the_same_bits(seed, build, always):
    _, network, reference, pixels = drawn(seed, images=2, kind=Windows)
    source = written(network).source
    assert "#if WINOGRAD" in source
    found = answers(source, pixels, BUILDS[build])
    assert np.array_equal(found, reference.answer(pixels).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 60))
def test_many_networks_give_the_same_bits_under_the_sanitizer(seed, always):
    _, network, reference, pixels = drawn(seed, images=2, kind=Windows)
    source, expected = written(network).source, reference.answer(pixels).numpy()
    for flags in BUILDS.values():
        assert np.array_equal(answers(source, pixels, flags), expected)
    for more in (["-march=native", "-mno-avx512vnni"], ["-mno-sse3"], ["-DLANES=1"]):
        assert np.array_equal(answers(source, pixels, [*SANITIZED, *more]), expected)


def alone(channels, size, weight, seed=0):
    """A network of one convolution of 3×3 of an image, and the mean of what it gives."""
    random = np.random.default_rng(seed)
    outputs = len(weight)
    image = QValue((channels, *size), np.ones(channels), random.integers(0, 256, channels))
    made = QValue((outputs, *size), np.ones(outputs), np.full(outputs, 128))
    reals = QValue((outputs, 1, 1), np.ones(outputs), np.full(outputs, 100))
    zeros = (weight.astype(np.int64).sum((2, 3)) * image.zero).sum(1).astype(np.int32)
    scale = np.full(outputs, 100 / (255 * 127 * 9 * channels), np.float32)
    conv = QConv("image", weight, -zeros, (Store("made", scale),), padding=(1, 1, 1, 1))
    window = random.integers(-127, 128, (outputs, outputs, *size)).astype(np.int8)
    bias = np.zeros(outputs, np.int32)
    last = QConv("made", window, bias, (Store("out", np.full(outputs, 1e-4, np.float32)),))
    values = {"image": image, "made": made, "out": reals}
    return Quantized("image", "out", values, [conv, last], np.zeros(channels))


LARGEST = 1836  # channels of which four times a sum of the largest bytes has room in 32 bits


@pytest.mark.parametrize("channels", few([5, LARGEST]))
@pytest.mark.parametrize("flags", few([["-mavx2"], ["-mno-sse3"]] if INTEL else [[]]))
def test_the_largest_bytes_and_weights_leave_no_sum_wrong(channels, flags, always):
    """At the points, sums of these leave 32 bits, and come back."""
    random = np.random.default_rng(1)
    weight = np.full((4, channels, 3, 3), 127, np.int8)
    weight[1] = -127
    weight[2] = random.choice([-127, 127], weight[2].shape)
    weight[3, :, 1] *= -1
    assert exact(weight)
    network = alone(channels, (5, 6), weight)
    assert any(isinstance(kernel, Winograd) for kernel in lower(network).kernels)
    shape = (channels, 5, 6)
    checks = random.integers(0, 2, shape) * 255
    pixels = np.stack(
        [np.zeros(shape), np.full(shape, 255), checks, random.integers(0, 256, shape)]
    )
    pixels = torch.from_numpy(pixels).to(torch.int32)
    expected = IntegerNetwork(network).answer(pixels).numpy()
    assert len(np.unique(expected)) > 4
    assert np.array_equal(answers(written(network).source, pixels, flags), expected)


def test_where_a_sum_could_leave_32_bits_the_window_is_multiplied(always):
    weight = np.full((4, LARGEST + 10, 3, 3), 127, np.int8)
    assert not exact(weight)
    network = alone(LARGEST + 10, (5, 6), weight)
    assert not any(isinstance(kernel, Winograd) for kernel in lower(network).kernels)


def test_other_windows_are_left_alone(always):
    weight = np.ones((8, 8, 3, 3), np.int8)
    node = alone(8, (9, 9), weight).nodes[0]
    assert int8_winograd.suits(node, (8, 9, 9), (8, 9, 9))
    for other in (
        replace(node, stride=(2, 2)),
        replace(node, dilation=(2, 2)),
        replace(node, padding=(0, 0, 0, 0)),
        replace(node, groups=2, weight=weight[:, :4]),
        replace(node, weight=weight[..., :1]),
    ):
        assert not int8_winograd.suits(other, (8, 9, 9), (8, 9, 9))


def test_it_is_taken_where_there_are_many_channels_and_pixels():
    assert int8_winograd.pays((64, 8, 8), (64, 8, 8))
    assert int8_winograd.pays((16, 32, 32), (16, 32, 32))
    assert not int8_winograd.pays((3, 32, 32), (16, 32, 32))
    assert not int8_winograd.pays((64, 2, 2), (64, 2, 2))


def test_less_memory_and_less_c_are_had_without_it(always):
    _, network, reference, pixels = drawn(2, images=2, kind=Windows)
    small, usual = lower(network, small=True), lower(network)
    for program in (small, lower(network, narrow=True)):
        assert not any(isinstance(kernel, Winograd) for kernel in program.kernels)
    assert any(isinstance(kernel, Winograd) for kernel in usual.kernels)
    assert small.arena.words <= usual.arena.words
    flags = ["-DNO_WINOGRAD", "-march=native"]
    expected = reference.answer(pixels).numpy()
    assert np.array_equal(answers(written(network).source, pixels, flags), expected)


class Ragged(Drawn):
    """26 channels, whose clamps a sum follows: the last quad of outputs is not full."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, 16, 16))
        x = self.relu(self.weighted(self.graph.input, 26, 1))
        both = self.add(Combine("add"), x, self.relu(self.weighted(x, 26, 3)))
        self.graph.output = self.weighted(self.add(Reduce("mean", "pixels"), both), 4, 1)

    def relu(self, x):
        return self.add(Activation("clip"), x)

    def weighted(self, x, outputs, side):
        c = self.shape(x)[0]
        weight = self.random.normal(0, (c * side * side) ** -0.5, (outputs, c, side, side))
        op = Conv(floats(weight), self.numbers(outputs), padding=(side // 2,) * 4)
        return self.add(op, x)


@pytest.mark.parametrize("flags", few([["-DLANES=1"], ["-DNO_WINOGRAD"], []]))
def test_outputs_that_fill_no_quad_have_the_parameters_of_all_the_others(flags):
    _, network, reference, pixels = drawn(0, images=2, kind=Ragged)
    assert any(isinstance(kernel, Winograd) for kernel in lower(network).kernels)
    found = answers(written(network).source, pixels, flags)
    assert np.array_equal(found, reference.answer(pixels).numpy())
