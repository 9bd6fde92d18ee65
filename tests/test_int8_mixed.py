"""Float layers among integers: one program, its borders rounded by the one rule."""

import numpy as np
import pytest
import torch

from leancnn.compiler.graph import Activation, Combine, Pool, Reduce, Softmax
from leancnn.compiler.integers import QConv, QDequantize, QFloat
from leancnn.compiler.integers_data import from_data, to_data
from leancnn.compiler.qdq import to_qdq
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure, run
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.errors import DamagedError
from tests.few import few
from tests.int8_nets import MEAN, STD, Drawn, answers, spread, written
from tests.test_int8 import BUILDS

APART = 0.02  # of the logits' scale: a byte at a border may be one step away, seldom more of them


class MixedDrawn(Drawn):
    """Among the usual layers some that have no integer form."""

    def step(self):
        super().step()
        if self.random.random() < 0.6:
            self.odd()

    def odd(self):
        x, (c, h, w) = self.value, self.shape(self.value)
        kind = self.random.choice(["tanh", "softplus", "attention", "largest", "mean", "product"])
        if kind in ("tanh", "softplus"):
            self.value = self.add(Activation(kind), x)
        elif kind == "attention":
            share = self.add(Softmax(), self.add(Reduce("mean", "pixels"), x))
            self.value = self.add(Combine("mul"), x, share)
        elif kind in ("largest", "product"):
            y = self.conv(x, c, 1)
            if self.shape(y) == (c, h, w):
                how = "max" if kind == "largest" else "mul"
                self.value = self.add(Combine(how), x, y)
        elif min(h, w) > 3:
            op = Pool("mean", (3, 3), (2, 2), (1, 1, 1, 1), count_padding=False)
            self.value = self.add(op, x)


def mixed(seed, kept=0.3):
    """A random network, some convolutions of which stay in floats too; images as floats, bytes."""
    graph = simplify(MixedDrawn(seed).graph)
    random = np.random.default_rng(seed)
    shape = graph.shapes[graph.input]
    pixels = torch.from_numpy(random.integers(0, 256, (8, *shape)).astype(np.int32))
    mean, std = spread(MEAN, shape[0]), spread(STD, shape[0])
    middle, width = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (mean, std))
    image = (pixels.float() / 255 - middle) / width
    stay = [node.output for node in graph.convolutions() if random.random() < kept]
    network = quantize(graph, measure(graph, [image]), mean, std, floats=stay)
    return graph, network, image, pixels


def kinds(network):
    return {type(node) for node in network.nodes}


@pytest.mark.parametrize("build", few(["plain loops", "this processor"]))
@pytest.mark.parametrize("seed", few([1, 2]))
def test_the_c_of_a_mixed_network_is_its_reference_but_for_float_sums(seed, build):
    _, network, _, pixels = mixed(seed)
    assert {QConv, QFloat, QDequantize} <= kinds(network)
    expected = IntegerNetwork(network).answer(pixels).numpy()
    found = answers(written(network).source, pixels, BUILDS[build])
    assert np.abs(found - expected).max() <= APART * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 43))
def test_forty_mixed_networks_at_every_width(seed):
    _, network, _, pixels = mixed(seed, kept=[0.0, 0.3, 0.9][seed % 3])
    expected = IntegerNetwork(network).answer(pixels).numpy()
    source = written(network).source
    checked = ["-DLANES=1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    for flags in (*BUILDS.values(), checked):
        error = np.abs(answers(source, pixels, flags) - expected).max()
        assert error <= APART * np.abs(expected).max(), flags


@pytest.mark.long
def test_what_is_all_floats_is_the_graph_itself():
    """No border but the image: the answer is that of the floats, and no byte on the way."""
    graph, _, image, pixels = mixed(5, kept=1.0)
    stay = [node.output for node in graph.nodes]
    mean, std = spread(MEAN, image.shape[1]), spread(STD, image.shape[1])
    network = quantize(graph, measure(graph, [image]), mean, std, floats=stay)
    assert kinds(network) == {QDequantize, QFloat}
    expected = run(graph, image).flatten(1).numpy()
    found = answers(written(network).source, pixels, ["-march=native"])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_onnx_runtime_answers_like_a_mixed_network(seed):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    _, network, _, pixels = mixed(seed)
    c, h, w = network.values[network.image].shape
    model = to_qdq(network, (h, w), c).SerializeToString()
    options = onnxruntime.SessionOptions()  # fused, products of bytes saturate without VNNI
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    found = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    expected = IntegerNetwork(network).answer(pixels).numpy()
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


def test_a_mixed_network_survives_being_written_down_and_refuses_unknown_words():
    _, network, _, pixels = mixed(2)
    about, arrays = to_data(network)
    again = IntegerNetwork(from_data(about, arrays))
    assert torch.equal(again.answer(pixels), IntegerNetwork(network).answer(pixels))
    node = next(node for node in about["nodes"] if node["kind"] == "QFloat")
    node["op"] = {"op": "Activation", "kind": "load"}
    with pytest.raises(DamagedError):
        from_data(about, arrays)
    node["op"] = {"op": "Combine", "how": "load"}
    with pytest.raises(DamagedError, match="Combine has no how 'load'"):
        from_data(about, arrays)
