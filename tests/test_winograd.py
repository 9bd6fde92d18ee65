"""Winograd's convolution: the filters, where they are chosen, the same answers."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from leancnn import models
from leancnn.compiler import winograd
from leancnn.compiler.blocked import BlockedKernel
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import Conv, Reduce, empty, floats
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.kernel_layout import LayoutKernel
from leancnn.compiler.kernel_winograd import WinogradKernel
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.planar import PlanarKernel
from leancnn.compiler.simplify import simplify
from tests.compiler_nets import FLAGS, DenseKernel, Gate, Residual, laid, max_error, settled
from tests.few import few

WITHIN = 1e-5
R = sqrt(2)
INTO = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
    4: [
        [1, 0, -5 / 2, 0, 1, 0],
        [0, -R, -2, R / 2, 1, 0],
        [0, R, -2, -R / 2, 1, 0],
        [0, -R / 2, -1 / 2, R, 1, 0],
        [0, R / 2, -1 / 2, -R, 1, 0],
        [0, 1, 0, -5 / 2, 0, 1],
    ],
}
BACK = {
    2: [[1, 1, 1, 0], [0, 1, -1, 1]],
    4: [
        [1, 1, 1, 1, 1, 0],
        [0, R / 2, -R / 2, R, -R, 0],
        [0, 1 / 2, 1 / 2, 2, 2, 0],
        [0, R / 4, -R / 4, 2 * R, -2 * R, 1],
    ],
}


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)


def layer(inputs, outputs, height, width, padding=(1, 1, 1, 1)):
    """The kernel of a network of one convolution, with channels in blocks, and its schedule."""
    draw = np.random.default_rng(0).standard_normal
    graph = empty((inputs, height, width))
    weight = floats(draw((outputs, inputs, 3, 3)))
    conv = Conv(weight, floats(draw(outputs)), padding=padding)
    value = graph.add(conv, graph.input, name="layer")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
    return graph


@pytest.mark.parametrize("size", [2, 4])
def test_points_of_weights_and_pixels_multiply_to_a_convolution(size):
    draw = np.random.default_rng(0).standard_normal
    taps, pixels = draw(3), draw(size + 2)
    into, back = np.array(INTO[size]), np.array(BACK[size])
    expected = np.correlate(pixels, taps)
    assert np.allclose(back @ ((winograd.WEIGHTS[size] @ taps) * (into @ pixels)), expected)
    conv = Conv(floats(draw((5, 4, 3, 3))), floats(draw(5)))
    points = winograd.transformed(conv, size).reshape(size + 2, size + 2, 4, 5)
    x = draw((4, size + 2, size + 2))
    at = np.einsum("ay,iyx,bx->abi", into, x, into)
    found = np.einsum("ra,abo,cb->orc", back, np.einsum("abi,abio->abo", at, points), back)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    assert np.allclose(found, np.einsum("oikl,irckl->orc", conv.weight, windows), atol=1e-5)


def steps():
    """Odd sizes and channels, uneven padding, and every kind of step behind the convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        Residual(nn.Conv2d(20, 20, 3, padding=1), nn.SiLU()),
        Gate(20, nn.ReLU()),
        nn.ZeroPad2d((2, 0, 1, 2)),
        nn.Conv2d(20, 33, 3),
        nn.Hardswish(),
        nn.BatchNorm2d(33),
        DenseKernel(33),
        nn.Conv2d(66, 40, 3, padding=(0, 2)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


@pytest.mark.parametrize(("size", "lanes"), few([(2, 1), (4, 4), (2, 16), (4, 16)], rows=True))
def test_each_filter_answers_as_torch_does_in_each_vector_width(size, lanes, monkeypatch):
    monkeypatch.setattr(winograd, "SIZES", (size,))
    shape, registers = (3, 7, 10), 32 if lanes == 16 else 16
    body = steps()
    body(torch.from_numpy(noise(shape)))
    body = settled(body)
    native = laid(body, shape, "blocked", (*FLAGS, f"-DLANES={lanes}", f"-DREGISTERS={registers}"))
    assert max_error(body, native, noise(shape)) < WITHIN
    for value in (np.nan, np.inf, 3.4e38):
        assert native.logits(np.full((1, *shape), value, np.float32)).shape == (1, 5)


def walked(planned):
    """The kernels of a schedule that are short filters."""
    return [kernel for kernel in planned.program.kernels if isinstance(kernel, WinogradKernel)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 40), st.integers(4, 40), st.data())
def test_ways_fit_the_shape_and_the_registers(inputs, outputs, height, width, data):
    assume((inputs, outputs) != (1, 1))  # which is a depthwise one, too, and cheaper so
    padding = tuple(data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)))
    program = lower(layer(inputs, outputs, height, width, padding))
    planned = schedule(program, layout="blocked")
    (kernel,) = walked(planned)
    results = height + padding[0] + padding[2] - 2, width + padding[1] + padding[3] - 2
    assert (kernel.height, kernel.width) == results
    for _, way in winograd.ways(kernel):
        down = -(-kernel.height // way.size)
        assert down % way.rows == 0
        assert (way.across - 1) * way.size < kernel.width <= way.across * way.size
        assert way.columns >= max(padding[1] + width, way.across * way.size + 2)
        vectors = way.tile.vectors
        assert -(-outputs // 16) % vectors == 0
        for tiles, registers in ((way.tile.pixels, 32), (way.tile.few, 16)):
            assert tiles * vectors + vectors + 1 <= registers
    way = planned.plans[kernel]
    end = way.place + sum(way.parts(-(-outputs // 16)))
    assert end <= program.arena
    for buffer in {*kernel.x.buffers, kernel.epilogue[-1].buffer}:
        low = buffer.origin - buffer.below
        assert low + buffer.size <= way.place or end <= low


def test_a_filter_that_is_given_is_the_one_that_is_written():
    metadata = Metadata(name="net", classes=("a",) * 32, mean=(0.5,) * 16, std=(0.25,) * 16)
    graph = layer(16, 32, 8, 8)
    (kernel,) = walked(schedule(lower(graph), layout="blocked"))
    given = kernel.tiles(9)
    assert set(given) == {(2, 1), (2, 2), (4, 1), (4, 2)}
    tiles = [{kernel.tile_key: pair} for pair in given]
    texts = [emit(schedule(lower(graph), tile, "blocked"), metadata).source for tile in tiles]
    assert len(set(texts)) == 4
    for (size, vectors), text in zip(given, texts, strict=True):
        assert f"by F({size}, 3)" in text
        assert f"tiles x {vectors} vectors */" in text


def test_dense_windows_are_short_filters_and_others_stay_in_planes():
    program = lower(simplify(import_torch(models.create_model("resnet8"), (3, 32, 32))))
    planned = schedule(program)
    windows = [kernel for kernel in program.kernels if kernel.tile_key]
    assert [kernel for kernel in windows if kernel.lays_blocked] == walked(planned)
    assert [planned.plans[kernel].size for kernel in walked(planned)] == [4, 4, 4, 2]
    lines = [kernel.op for kernel in windows if isinstance(kernel, PlanarKernel)]
    assert all(len(op.weight[0]) == 3 or op.stride == (2, 2) for op in lines)
    grouped = nn.Sequential(
        nn.Conv2d(24, 24, 3, padding=1, groups=4), nn.Flatten(), nn.LazyLinear(2)
    )
    grouped(torch.zeros(1, 24, 15, 15))
    program = lower(simplify(import_torch(grouped.eval(), (24, 15, 15))))
    schedule(program)
    assert not any(isinstance(kernel, BlockedKernel | LayoutKernel) for kernel in program.kernels)
