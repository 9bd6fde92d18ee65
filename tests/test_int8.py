"""Integer programs: the C equals its reference to the last bit, however it is built."""

import platform
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn.bench import untrained
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import Activation, Affine, Combine, Conv, Reduce, Softmax, empty, floats
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.integers import QConv, QFloat, QNorm, bound
from leancnn.compiler.integers_data import FORMAT_2, check, from_data, to_data
from leancnn.compiler.onnx_engine import EXACT_BYTES
from leancnn.compiler.qdq import to_qdq
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure, run, weight_noise
from leancnn.compiler.reference import IntegerNetwork, meaning
from leancnn.compiler.simplify import simplify
from leancnn.errors import DamagedError, MismatchError, UnsupportedError
from leancnn.toolchain import run_compiler
from tests.few import few
from tests.int8_nets import (
    MEAN,
    STD,
    DepthwiseDrawn,
    Downsampled,
    Drawn,
    NormDrawn,
    SmallPast,
    answers,
    drawn,
    spread,
    written,
)

ROOT = Path(__file__).parent.parent
INTEL = platform.machine() in ("x86_64", "AMD64")
PLAIN = {"plain loops": ["-DLANES=1"], "integers alone": ["-DLANES=1", "-DINTEGERS"]}
BUILDS = PLAIN | (
    {
        "SSE2": ["-mno-sse3"],
        "SSE4.1": ["-msse4.1"],
        "AVX2": ["-mavx2"],
        "this processor": ["-march=native"],
        "no VNNI": ["-march=native", "-mno-avx512vnni"],
    }
    if INTEL
    else {"this processor": ["-march=native"]}
)


@pytest.mark.parametrize("build", few(BUILDS))
@pytest.mark.parametrize("seed", few([15, 24]))
def test_the_c_is_its_reference_to_the_bit(seed, build):
    _, network, reference, pixels = drawn(seed)
    expected = reference.answer(pixels).numpy()
    found = answers(written(network).source, pixels, BUILDS[build])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("level", few(["-O0", "-O2", "-O3", "-Os"]))
@pytest.mark.parametrize("kind", few([Drawn, Downsampled]))
def test_every_level_of_optimisation_gives_the_same_bits(kind, level):
    """gcc 12.2 at -O2 takes the copy before a strided convolution for a call without effects."""
    for seed in (3, 8):
        _, network, reference, pixels = drawn(seed, kind=kind)
        found = answers(written(network).source, pixels, [level])
        assert np.array_equal(found, reference.answer(pixels).numpy())


@pytest.mark.parametrize("build", few(BUILDS))
def test_depthwise_windows_of_any_kind_give_the_same_bits(build):
    for seed in (1, 6):
        _, network, reference, pixels = drawn(seed, kind=DepthwiseDrawn)
        found = answers(written(network).source, pixels, BUILDS[build])
        assert np.array_equal(found, reference.answer(pixels).numpy())


@pytest.mark.parametrize(
    ("kind", "build"),
    few(
        [
            (NormDrawn, "integers alone"),
            (NormDrawn, "this processor"),
            (SmallPast, "this processor"),
        ],
        rows=True,
    ),
)
def test_vectors_divided_by_their_lengths_give_the_same_bits(kind, build):
    graph, network, reference, pixels = drawn(1, kind=kind)
    assert any(isinstance(node, QNorm) for node in network.nodes)
    found = answers(written(network).source, pixels, BUILDS[build])
    assert np.array_equal(found, reference.answer(pixels).numpy())
    expected = run(graph, meaning(network, network.image, pixels).float()).flatten(1)
    assert np.abs(found - expected.numpy()).max() < 0.1 * (expected.max() - expected.min())


@pytest.mark.parametrize(
    ("kind", "seed"), [*((Drawn, n) for n in range(12)), (NormDrawn, 1), (SmallPast, 1)]
)
def test_what_has_an_integer_form_stays_in_integers(kind, seed):
    """Views are made when somebody asks; that none asked yet leaves nothing in floats."""
    assert not drawn(seed, images=2, kind=kind)[1].mixed


TABLE = list(runpy.run_path(str(ROOT / "benchmarks" / "engines.py"))["BARS"])  # README's


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_networks_of_the_table_are_integers_alone(name):
    model = untrained(name)
    preprocessing = model.preprocessing
    graph = simplify(import_torch(model.body, (preprocessing.channels, *preprocessing.size)))
    image = torch.randn(1, *graph.shapes[graph.input])
    mean, std = spread(MEAN, image.shape[1]), spread(STD, image.shape[1])
    assert not quantize(graph, measure(graph, [image]), mean, std).mixed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 102))
def test_a_hundred_networks_are_equal_at_every_width_and_under_the_sanitizers(seed):
    _, network, reference, pixels = drawn(seed)
    expected, source = reference.answer(pixels).numpy(), written(network).source
    for build, flags in BUILDS.items():
        assert np.array_equal(answers(source, pixels, flags), expected), build
    checked = ["-DLANES=1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    assert np.array_equal(answers(source, pixels, checked), expected)


@pytest.mark.parametrize("seed", range(10, 14))
def test_integers_are_close_to_the_floats_they_came_from(seed):
    graph, network, reference, pixels = drawn(seed, images=48)
    pixels = pixels[:48]
    image = meaning(network, network.image, pixels).float()
    expected = run(graph, image).flatten(1)
    found = reference.answer(pixels)
    spread = (expected - expected.mean(0)).norm()
    assert (found - expected).norm() < 0.35 * spread + 0.02 * expected.norm()


@given(
    total=st.integers(-(2**31) + 1, 2**31 - 1),
    scale=st.floats(2.0**-30, 2.0**-1, width=32),
)
def test_requantization_is_three_roundings_half_to_even(total, scale):
    """In numpy, in torch and in whole numbers alone: the same integer."""
    product = np.float32(total) * np.float32(scale)
    expected = int(np.rint(product))
    tensor = torch.tensor(total, dtype=torch.int32).float() * torch.tensor(scale)
    assert int(tensor.round()) == expected
    assert in_integers(total, scale) == expected


def in_integers(total, scale):
    """docs/quantize.md: the rule without floats."""
    word = int(np.float32(scale).view(np.uint32))
    exponent, factor = word >> 23, (word & 0x7FFFFF) | 1 << 23

    def half_even(x, shift):
        return (x + (1 << shift - 1) - 1 + (x >> shift & 1)) >> shift if shift > 0 else x << -shift

    x = abs(total)
    first = max(x.bit_length() - 24, 0)
    x = half_even(x, first) * factor
    second = max(x.bit_length() - 24, 0)
    x = half_even(half_even(x, second), 150 - exponent - first - second)
    return -x if total < 0 else x


def test_the_reference_in_floats_is_that_in_whole_numbers():
    _, network, reference, pixels = drawn(4)
    values = reference.values(pixels, keep=True)
    node = next(n for n in network.nodes if isinstance(n, QConv) and not network.values[n.x].wide)
    x = values[node.x].numpy().astype(np.int64)
    zero = network.values[node.x].zero.reshape(1, -1, 1, 1)
    top, left, bottom, right = node.padding
    padded = np.pad(x - zero, ((0, 0), (0, 0), (top, bottom), (left, right)))
    sums = reference._conv(node, values[node.x]) + torch.from_numpy(node.bias).view(1, -1, 1, 1)
    n, o, h, w = sums.shape
    each, wide = node.weight.shape[1], o // node.groups
    for _ in range(20):
        rng = np.random.default_rng(_)
        i, c, y, col = (int(rng.integers(size)) for size in (n, o, h, w))
        rows = y * node.stride[0] + np.arange(node.weight.shape[2]) * node.dilation[0]
        columns = col * node.stride[1] + np.arange(node.weight.shape[3]) * node.dilation[1]
        group = c // wide * each
        seen = padded[i, group : group + each][:, rows][:, :, columns]
        lost = (node.weight[c].astype(np.int64) * zero[0, group : group + each]).sum()
        total = int((seen * node.weight[c]).sum() + node.bias[c] + lost)
        assert int(sums[i, c, y, col]) == total


def test_sums_never_leave_32_bits():
    for seed in range(20, 40):
        _, network, _, _ = drawn(seed, images=2)
        for node in network.nodes:
            if isinstance(node, QConv):
                assert bound(node, network.values).max() < 2**31
                assert np.abs(node.weight.astype(int)).max(initial=0) <= 127


def test_a_network_survives_being_written_down():
    _, network, reference, pixels = drawn(5)
    about, arrays = to_data(network)
    again = IntegerNetwork(from_data(about, arrays))
    assert torch.equal(again.answer(pixels), reference.answer(pixels))
    old = {new: old for old, new in FORMAT_2.items()}
    for node in about["nodes"]:
        node["kind"] = old.get(node["kind"], node["kind"])
        if "epilogue" in node:
            node["steps"] = node.pop("epilogue")
    assert torch.equal(
        IntegerNetwork(from_data(about, arrays)).answer(pixels), again.answer(pixels)
    )
    about["nodes"][0]["x"] = "nothing"
    with pytest.raises(DamagedError, match="read before it is made"):
        from_data(about, arrays)


def small(*, output="logits"):
    """One convolution and a mean over 8×8."""
    graph = empty((3, 8, 8))
    weight = floats(np.random.default_rng(0).normal(0, 0.2, (4, 3, 3, 3)))
    conv = Conv(weight, floats(np.zeros(4)), padding=(1, 1, 1, 1))
    value = graph.add(conv, graph.input, name="first")
    value = graph.add(Activation("clip"), value, name="relu")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name=output)
    return graph


def test_an_operator_without_integers_stays_in_floats():
    for op, inputs in ((Softmax(), 1), (Combine("div"), 2)):
        graph = small()
        graph.output = graph.add(op, *[graph.output] * inputs, name="odd")
        network = quantize(graph, measure(graph, [torch.randn(4, 3, 8, 8)]), MEAN, STD)
        assert [node.out for node in network.nodes if isinstance(node, QFloat)] == ["odd"]
        assert network.mixed


def test_values_that_are_no_numbers_are_refused():
    graph = small()
    with pytest.raises(UnsupportedError, match="not numbers"):
        measure(graph, [torch.full((2, 3, 8, 8), float("nan"))])


def test_as_many_class_names_as_answers():
    graph = small()
    network = quantize(graph, measure(graph, [torch.randn(4, 3, 8, 8)]), MEAN, STD)
    with pytest.raises(MismatchError, match="2 class names for a network of 4 answers"):
        emit_integers(network, Metadata(name="few", classes=("a", "b"), mean=MEAN, std=STD))


def test_the_c_needs_nothing_but_the_c_library(tmp_path):
    _, network, _, _ = drawn(1)
    path = tmp_path / "drawn.c"
    path.write_text(written(network).source)
    flags = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-DLEANCNN_MAIN", "-DLANES=1"]
    run_compiler([*flags, "-o", str(tmp_path / "a.out"), str(path), "-lm"])


@pytest.mark.parametrize(("seed", "kind"), [*((n, Drawn) for n in range(5)), (1, NormDrawn)])
def test_onnx_runtime_answers_like_the_integers(seed, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    _, network, reference, pixels = drawn(seed, images=6, kind=kind)
    c, h, w = network.values[network.image].shape
    model = to_qdq(network, (h, w), c).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT_BYTES)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    found = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    expected = reference.answer(pixels).numpy()
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


class GateDrawn(Drawn):
    """A gate, to whose products a shortcut is added, of usual size or far larger."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, 9, 10))
        x = self.conv(self.graph.input, 8, 3)
        y = self.add(Activation("clip"), self.conv(self.graph.input, 8, 3))
        if seed % 2:
            far = floats(np.full(8, 500.0))
            y = self.add(Affine(far, floats(np.zeros(8))), y)
        gate = self.add(
            Conv(floats(self.random.normal(0, 0.4, (8, 8, 1, 1))), self.numbers(8)),
            self.add(Reduce("mean", "pixels"), x),
        )
        x = self.add(Combine("mul"), x, self.add(Activation("sigmoid"), gate))
        x = self.add(Activation("clip"), self.add(Combine("add"), x, y))
        weight = floats(self.random.normal(0, 0.3, (4, 8, 9, 10)))
        self.graph.output = self.add(Conv(weight, self.numbers(4)), x)

    def conv(self, x, outputs, side):
        c = self.shape(x)[0]
        weight = floats(self.random.normal(0, 0.2, (outputs, c, side, side)))
        return self.add(Conv(weight, self.numbers(outputs), padding=(1, 1, 1, 1)), x)


@pytest.mark.parametrize("seed", few([2, 3]))
def test_a_shortcut_is_added_to_what_a_gate_has_multiplied(seed):
    graph, network, reference, pixels = drawn(seed, kind=GateDrawn)
    expected = run(graph, meaning(network, network.image, pixels).float()).flatten(1)
    found = reference.answer(pixels)
    error, spread_ = found - expected, expected - expected.mean(0)
    assert error[:-2].norm() < 0.1 * spread_.norm(), "but for the extremes, which set no range"
    in_c = answers(written(network).source, pixels, ["-DLANES=1", "-DINTEGERS"])
    assert np.array_equal(in_c, found.numpy())


def finer_of(seed, kind=Drawn):
    """A random network with weights of 8 bits and of 10, and the reference of each."""
    graph, plain, reference, pixels = drawn(seed, kind=kind)
    image = meaning(plain, plain.image, pixels).float()
    times = {node.output: 4 for node in graph.nodes if isinstance(node.op, Conv)}
    mean, std = spread(MEAN, image.shape[1]), spread(STD, image.shape[1])
    network = quantize(graph, measure(graph, [image]), mean, std, times)
    return run(graph, image).flatten(1), reference.answer(pixels), network, pixels


@pytest.mark.parametrize(("seed", "kind"), few([(15, Drawn), (6, DepthwiseDrawn)], rows=True))
def test_weights_of_ten_bits_give_the_same_bits_in_c_and_come_closer_to_the_floats(seed, kind):
    expected, eight, network, pixels = finer_of(seed, kind)
    ten = IntegerNetwork(network).answer(pixels)
    assert (ten - expected).norm() < (eight - expected).norm()
    found = answers(written(network).source, pixels, ["-DLANES=1", "-DINTEGERS"])
    assert np.array_equal(found, ten.numpy())
    found = answers(written(network).source, pixels, BUILDS["this processor"])
    assert np.array_equal(found, ten.numpy())


def test_the_noise_of_weights_is_that_of_their_rounding():
    graph = small()
    conv = graph.nodes[0].op
    whole = np.rint(np.random.default_rng(3).uniform(-63, 63, conv.weight.shape))
    whole[:, :2, 0, 0] = 127, 0  # the largest pair is 127 steps
    images = torch.randn(4, 3, 8, 8)
    assert weight_noise(graph, images)[0][1] > 1e-3
    conv.weight[:] = whole / 1024
    assert weight_noise(graph, images)[0][1] < 1e-6


def test_sums_that_would_leave_32_bits_once_they_are_scaled_are_refused_and_not_made():
    """Beyond 2^31 processors round to either end: no program may come there."""
    _, network, _, _ = drawn(5)
    about, arrays = to_data(network)
    names = [name for name, each in arrays.items() if "multiplier" in name and each.size]
    assert names
    for name in names:
        far = {**arrays, name: np.float32(1e6) * np.ones_like(arrays[name])}
        with pytest.raises(DamagedError, match="do not fit 32 bits"):
            from_data(about, far)
    graph = small()
    ranges = measure(graph, [torch.randn(4, 3, 8, 8)])
    ranges["relu"] = replace(
        ranges["relu"], high=1e-9, scale=1e-11
    )  # of a layer that is dead there
    made = quantize(graph, ranges, MEAN, STD)
    assert any(isinstance(node, QFloat) and node.out == "relu" for node in made.nodes)
    check(made)
