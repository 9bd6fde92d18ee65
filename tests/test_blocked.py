"""Channels in blocks in the lanes: the same answers, where the cost model wants them."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from leancnn import models
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.compiler.blocked import BlockedKernel
from leancnn.compiler.graph import Conv, Reduce, empty, floats
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.kernel_layout import LayoutKernel
from leancnn.compiler.kernel_pointwise import PointwiseKernel
from leancnn.compiler.kernel_reduce import ReduceKernel
from leancnn.compiler.layout import _Price
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import Schedule, schedule, set_pitches
from leancnn.compiler.planar import PlanarKernel
from leancnn.compiler.simplify import simplify
from leancnn.compiler.winograd import in_vectors
from leancnn.layers import AverageVector, conv_bn
from leancnn.preprocess import Preprocessing
from leancnn.prune.latency import channel_multiples
from tests.compiler_nets import (
    WAYS,
    DenseKernel,
    Gate,
    Inverted,
    Itself,
    Residual,
    compiled,
    laid,
    max_error,
    random_network,
    settled,
)
from tests.few import few

WITHIN = 1e-5


def noise(shape):
    return np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)


def lowered(module, shape):
    return lower(simplify(import_torch(module, shape)))


def small():
    """Odd sizes, kernels, strides, dilations and channel counts; wide rows in several tiles."""
    return nn.Sequential(
        nn.Conv2d(3, 9, 3, padding=1),
        Inverted(9, 9, 17),
        Inverted(9, 20, 33, kernel=5, stride=2, act=nn.SiLU()),
        nn.BatchNorm2d(20),
        nn.Hardswish(),
        Inverted(20, 20, 21, dilation=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 5),
    )


@pytest.mark.parametrize("lanes", few([1, 4, 8, 16]))
def test_every_vector_width_answers_as_torch_does(lanes):
    body, shape = settled(small()), (3, 12, 21)
    registers = 32 if lanes == 16 else 16
    flags = ("-std=c11", "-O1", "-march=native", f"-DLANES={lanes}", f"-DREGISTERS={registers}")
    native = laid(body, shape, "blocked", (*flags, "-Wall", "-Wextra", "-Werror"))
    assert max_error(body, native, noise(shape)) < WITHIN


@pytest.mark.parametrize("layout", ["planes", "blocked"])
@pytest.mark.parametrize("lanes", [1, 4])
def test_tiles_for_few_registers_answer_as_torch_does(lanes, layout):
    gated = nn.Sequential(nn.Conv2d(20, 24, 1), nn.BatchNorm2d(24), Gate(24, torch.relu))
    gated.append(Residual(nn.Conv2d(24, 24, 1), nn.Hardswish()))
    body = nn.Sequential(*small()[:6], gated, *small()[6:8], nn.Linear(24, 5))
    body, shape = settled(body), (3, 12, 21)
    flags = ("-std=c11", "-O1", "-march=native", f"-DLANES={lanes}", "-DREGISTERS=16")
    native = laid(body, shape, layout, (*flags, "-Wall", "-Wextra", "-Werror"), narrow=True)
    assert max_error(body, native, noise(shape)) < WITHIN


@pytest.mark.parametrize("seed", few(range(3)))
def test_random_networks_answer_as_torch_does_in_both_layouts(seed):
    choice = random.Random(100 + seed).choice
    shape = (choice((1, 2, 3, 6)), choice(range(5, 20)), choice(range(5, 20)))
    body = settled(random_network(lambda options: choice(list(options)), shape), seed)
    for layout in ("planes", "blocked"):
        assert max_error(body, laid(body, shape, layout), noise(shape)) < WITHIN


@pytest.mark.parametrize("way", few(WAYS))
@pytest.mark.parametrize("layout", few(["planes", "blocked", None]))
def test_a_step_reads_what_its_own_kernel_wrote(way, layout):
    layers = [nn.Conv2d(3, 16, 1), Itself(way), nn.Conv2d(16, 16, 3, padding=1, groups=16)]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    body, shape = settled(body), (3, 8, 8)
    native = compiled(body, shape) if layout is None else laid(body, shape, layout)
    assert max_error(body, native, noise(shape)) < WITHIN


def test_a_join_of_both_layouts_is_turned():
    body = nn.Sequential(
        DenseKernel(6), nn.MaxPool2d(2), DenseKernel(12), nn.Flatten(), nn.Linear(24 * 9, 3)
    )
    body, shape = settled(body), (6, 6, 6)
    assert max_error(body, laid(body, shape, "blocked"), noise(shape)) < WITHIN


def test_pruning_for_speed_likes_whole_vectors_of_channels_where_they_lie_in_blocks():
    network = untrained("resnet8")
    network.preprocessing = Preprocessing(size=(8, 8))
    network.body = settled(
        nn.Sequential(
            conv_bn(3, 12, 3),
            conv_bn(12, 12, 3, stride=2),
            conv_bn(12, 40, 1),
            conv_bn(40, 40, 3, groups=40),
            conv_bn(40, 20, 1),
            AverageVector(),
            nn.Linear(20, 5),
        )
    ).eval()
    assert channel_multiples(network, find_dependencies(network.body, 3)) == {
        "0.0": 4,
        "1.0": 4,
        "2.0": 16,
        "4.0": 16,
    }


@pytest.fixture(scope="module")
def mobile():
    """MobileNetV2's graph."""
    return simplify(import_torch(models.create_model("mobilenetv2"), (3, 32, 32)))


@pytest.fixture(scope="module")
def blocked():
    """The kernels and buffers of a small network, all blocked that can."""
    program = lowered(settled(small()), (3, 12, 21))
    schedule(program, layout="blocked")
    return program


@pytest.mark.long
def test_a_network_of_small_maps_turns_once(mobile):
    program = lower(mobile)
    schedule(program)
    kinds = [type(kernel) for kernel in program.kernels]
    assert kinds.count(LayoutKernel) == 1
    after = kinds[kinds.index(LayoutKernel) + 1 :]
    assert PlanarKernel not in after
    assert sum(issubclass(kind, BlockedKernel) for kind in after) > 40


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    few(
        [
            ("squeezenet1_1", {}, (3, 224, 224)),
            pytest.param("rsenet", {"stem": "cifar"}, (3, 64, 64), marks=pytest.mark.slow),
        ],
        rows=True,
    ),
)
def test_no_change_of_one_kernel_makes_a_program_cheaper(name, arguments, shape):
    body = models.create_model(name, **arguments)
    graph = simplify(import_torch(body.eval(), shape))
    planned = lower(graph)
    schedule(planned)
    laid_blocked = {k.name for k in planned.kernels if isinstance(k, BlockedKernel)}
    program = lower(graph)
    set_pitches(Schedule(program))
    able = {k: other for k in program.kernels if (other := k.blocked()) is not None}
    chosen = {kernel for kernel in able if kernel.name in laid_blocked}
    price = _Price(program, able)
    assert len(chosen) == len(laid_blocked)
    assert all(price(chosen ^ {kernel}) >= price(chosen) for kernel in able)


def test_what_reads_channels_in_blocks_finds_them(blocked):
    for kernel in blocked.kernels:
        if isinstance(kernel, PlanarKernel):
            assert not any(buffer.blocked for buffer in kernel.x.buffers)
        if isinstance(kernel, BlockedKernel):
            assert all(buffer.blocked for buffer in [*kernel.x.buffers, *kernel.writes()])
            assert isinstance(kernel, PointwiseKernel) or in_vectors(kernel.x)
        if isinstance(kernel, ReduceKernel) and any(buffer.blocked for buffer in kernel.x.buffers):
            assert kernel.x.whole is not None


def test_every_number_of_a_blocked_buffer_has_a_place_of_its_own(blocked):
    for buffer in (b for b in blocked.buffers if b.blocked):
        rows, columns = np.indices((buffer.height, buffer.width))
        places = [
            buffer.plane(c) + rows * buffer.pitch + columns * buffer.step
            for c in range(buffer.channels)
        ]
        found = np.unique(np.stack(places))
        assert len(found) == buffer.channels * buffer.height * buffer.width
        assert buffer.origin == found[0]
        assert found[-1] < buffer.origin + buffer.size


@pytest.mark.parametrize("channels", [5, 16, 24, 96, 112])
def test_weights_lie_in_the_order_in_which_they_are_read(channels):
    draw = np.random.default_rng(0).standard_normal
    conv = Conv(floats(draw((channels, 7, 1, 1))), floats(draw(channels)))
    graph = empty((7, 4, 4))
    value = graph.add(conv, graph.input, name="layer")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
    program = lower(graph)
    schedule(program, layout="blocked")
    kernel = next(kernel for kernel in program.kernels if isinstance(kernel, BlockedKernel))
    vectors = kernel.plan().vectors
    blocks = kernel.weights(kernel.plan())
    back = blocks.transpose(1, 0, 2).reshape(8, -1)
    assert blocks.shape[2] == 16 * vectors
    assert np.array_equal(back[0, :channels], kernel.op.bias)
    assert np.array_equal(back[1:, :channels], kernel.op.weight[:, :, 0, 0].T)
    assert not back[:, channels:].any()


def test_tiles_fit_the_registers(mobile):
    program = lower(mobile)
    schedule(program, layout="blocked")
    for kernel in program.kernels:
        if isinstance(kernel, PointwiseKernel):
            for given in kernel.tiles(8):
                found = kernel.plan(given)
                blocks = -(-kernel.channels // 16)
                assert blocks % found.vectors == 0
                for pixels, registers in ((found.pixels, 32), (found.few, 16)):
                    assert pixels * found.vectors + found.vectors + 1 <= registers


def test_strided_and_grouped_convolutions_stay_in_planes():
    body = nn.Sequential(
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 8, 5, padding=2),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(16 * 9, 2),
    )
    kernels = lowered(body, (8, 6, 6)).kernels
    assert not any(kernel.blocked() for kernel in kernels)


@pytest.mark.long
def test_gates_are_as_exact_as_floats_allow():
    body = nn.Sequential(nn.Sigmoid(), nn.Flatten(), nn.Linear(400, 400, bias=False)).eval()
    with torch.no_grad():
        body[2].weight.copy_(torch.eye(400))
    x = np.linspace(-100, 100, 400, dtype=np.float32).reshape(1, 1, 20, 20)
    expected = 1 / (1 + np.exp(-x.astype(np.float64).ravel()))
    for layout in ("planes", "blocked"):
        answer = laid(body, (1, 20, 20), layout).logits(x)[0]
        assert np.abs(answer - expected).max() < 3e-7
        assert np.allclose(answer[200:], expected[200:], rtol=1e-6)
