"""ONNX files that others have quantized: integers as the file says them, like ONNX Runtime."""

import numpy as np
import pytest
import torch

import leancnn
from leancnn.bench import untrained
from leancnn.compiler.from_qdq import from_qdq
from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.integers import QConv, QLookup
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.errors import UnsupportedError
from leancnn.parity import trial_images
from leancnn.targets.onnx import to_onnx
from tests.few import few
from tests.int8_nets import answers, written

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE = (8, 9)


class Written:
    """A file under construction, quantized as others do it."""

    def __init__(self, *, signed=False, weights=np.int8, per_channel=True, pixels=False):
        self.random = np.random.default_rng(7)
        self.kind, self.weights = (np.int8 if signed else np.uint8), weights
        self.per_channel, self.pixels = per_channel, pixels
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def rounded(self, x, scale, zero):
        zero -= 128 if self.kind == np.int8 else 0
        numbers = [self.constant(np.float32(scale)), self.constant(self.kind(zero))]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *numbers), *numbers)

    def weight(self, *shape):
        if self.weights == np.uint8:
            whole, zero = self.random.integers(0, 256, shape), 131
        else:
            whole, zero = self.random.integers(-128, 128, shape), 0
        count = shape[0] if self.per_channel else 1
        scale = self.random.uniform(0.5, 2, count).astype(np.float32) / np.float32(
            128 * np.prod(shape[1:]) ** 0.5
        )
        zeros = np.full(count, zero, self.weights)
        scale, zeros = (scale, zeros) if self.per_channel else (scale[0], zeros[0])
        given = [self.constant(a) for a in (whole.astype(self.weights), scale, zeros)]
        axis = {"axis": 0} if self.per_channel else {}
        return self.add("DequantizeLinear", *given, **axis), scale

    def conv(self, x, scale, shape, **attributes):
        weight, steps = self.weight(*shape)
        steps = np.broadcast_to(np.float32(scale) * steps, (shape[0],)).astype(np.float32)
        bias = self.random.integers(-3000, 3000, shape[0]).astype(np.int32)
        zeros = self.constant(np.zeros(shape[0], np.int32))
        given = [self.constant(bias), self.constant(steps), zeros]
        moved = self.add("DequantizeLinear", *given, axis=0)
        return self.add("Conv", x, weight, moved, **attributes)

    def model(self, answer):
        kind, shape = (TensorProto.FLOAT, [1, 3, *SIZE])
        if self.pixels:
            kind = TensorProto.UINT8
        graph = helper.make_graph(
            self.nodes,
            "others",
            [helper.make_tensor_value_info("image", kind, shape)],
            [helper.make_tensor_value_info(answer, TensorProto.FLOAT, [1, 4])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def foreign(path, **settings):
    """Convolutions, a shortcut, a depthwise one, a shuffle, a gate, pooling, a matrix."""
    w = Written(**settings)
    x = w.add("Cast", "image", to=1) if w.pixels else "image"
    x = w.rounded(x, 1.0, 0) if w.pixels else w.rounded(x, 2 / 255, 128)
    first = 1.0 if w.pixels else 2 / 255
    x = w.conv(x, first, (8, 3, 3, 3), pads=[1, 1, 1, 1])
    scale = 0.03 * first * 127
    x = w.rounded(w.add("Relu", x), scale, 0)
    y = w.rounded(w.conv(x, scale, (8, 4, 3, 3), pads=[1, 1, 1, 1], group=2), 0.021 * scale, 128)
    x = w.rounded(w.add("Relu", w.add("Add", x, y)), 1.01 * scale, 3)
    shape = [w.constant(np.array(s)) for s in ([1, 2, 4, *SIZE], [1, 8, *SIZE])]
    x = w.add("Transpose", w.add("Reshape", x, shape[0]), perm=[0, 2, 1, 3, 4])
    x = w.add("Reshape", x, shape[1])
    x = w.conv(x, 1.01 * scale, (8, 1, 3, 3), pads=[0, 0, 0, 0], strides=[2, 2], group=8)
    x = w.rounded(x, scale, 100)
    g = w.rounded(w.add("HardSigmoid", x), 1 / 255, 0)
    x = w.rounded(w.add("Mul", x, g), scale, 90)
    x = w.rounded(w.add("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1]), scale, 90)
    x = w.rounded(w.add("GlobalAveragePool", x), 0.7 * scale, 90)
    x = w.add("Flatten", x)
    matrix, _ = w.weight(4, 8)
    answer = w.rounded(w.add("Gemm", x, matrix, transB=1), 0.5 * scale, 120)
    path.write_bytes(w.model(answer).SerializeToString())
    return path


def literal(path, images):
    """What ONNX Runtime answers without its fusions, which round elsewhere, and whose products of
    bytes saturate on processors without VNNI."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def integers_of(path):
    """A file as the reference arithmetic of its integers, and how its image is rounded."""
    found = import_onnx(path)
    network, grid, _ = from_qdq(simplify(found.graph), found.integers)
    return network, grid, found


KINDS = {
    "uint8 by int8 per channel": {},
    "int8 by uint8 per tensor": {"signed": True, "weights": np.uint8, "per_channel": False},
}
MORE = {
    "int8 by int8 per tensor": {"signed": True, "per_channel": False},
    "uint8 by uint8 with a zero point": {"weights": np.uint8, "per_channel": False},
    "pixels of bytes": {"pixels": True},
}


@pytest.mark.parametrize(
    "kind", few([*KINDS, *(pytest.param(k, marks=pytest.mark.slow) for k in MORE)])
)
def test_a_file_of_others_is_compiled_to_integers_that_answer_like_onnx_runtime(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    path = foreign(tmp_path / "others.onnx", **(KINDS | MORE)[kind])
    native = leancnn.compile(path, out=tmp_path / "out")  # compares, and raises where they differ
    assert native.metadata["precision"] == "int8"
    network, grid, found = integers_of(path)
    assert sum(isinstance(node, QConv) for node in network.nodes) == 5
    assert sum(isinstance(node, QLookup) for node in network.nodes) <= 3
    assert (grid is None) == found.integers


def test_its_c_is_the_reference_of_its_integers_to_the_bit(tmp_path):
    network, _, _ = integers_of(foreign(tmp_path / "a.onnx", pixels=True))
    pixels = np.random.default_rng(1).integers(0, 256, (6, 3, *SIZE)).astype(np.int32)
    expected = IntegerNetwork(network).answer(torch.from_numpy(pixels)).numpy()
    found = answers(written(network).source, torch.from_numpy(pixels), ["-DLANES=1", "-DINTEGERS"])
    assert np.array_equal(found, expected)


def test_floats_that_lie_between_two_steps_are_rounded_as_the_engine_rounds_them(tmp_path):
    """x = pixel / 127.5 − 1 on a grid of 2 / 255 lies on ties everywhere."""
    pytest.importorskip("onnxruntime")
    path = foreign(tmp_path / "ties.onnx")
    native = leancnn.compile(path)
    pixels = np.random.default_rng(2).integers(0, 256, (16, 3, *SIZE)).astype(np.float32)
    images = pixels / np.float32(127.5) - np.float32(1)
    expected = literal(path, images)
    assert (native.logits(images) == expected).mean() > 0.9


def partly(path, kind):
    """A file of which one part has no integer form: in the middle, at the beginning, at the end."""
    w = Written()
    image = w.add("Mul", "image", w.constant(np.float32(1.5))) if kind == "image" else "image"
    plain = w.constant(w.random.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32))
    if kind == "image":
        x = w.rounded(w.add("Relu", w.add("Conv", image, plain, pads=[1, 1, 1, 1])), 0.01, 0)
    else:
        first = w.conv(w.rounded(image, 2 / 255, 128), 2 / 255, (8, 3, 3, 3), pads=[1, 1, 1, 1])
        x = w.rounded(w.add("Relu", first), 0.01, 0)
    if kind == "middle":
        more = w.constant(w.random.normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32))
        y = w.add("Tanh", w.add("Conv", x, more, pads=[1, 1, 1, 1]))
        x = w.rounded(w.add("Add", x, y), 0.012, 40)
    x = w.rounded(w.conv(x, 0.01, (8, 8, 3, 3), strides=[2, 2]), 0.02, 120)
    if kind == "shortcut":
        y = w.add("Softmax", x, axis=1)
        x = w.rounded(w.add("Mul", x, y), 0.01, 100)
    x = w.add("Flatten", w.add("GlobalAveragePool", x))
    if kind == "answer":
        x = w.add("Gemm", x, w.constant(w.random.normal(0, 1, (8, 4)).astype(np.float32)))
        path.write_bytes(w.model(w.add("Tanh", x)).SerializeToString())
        return path
    matrix, _ = w.weight(4, 8)
    path.write_bytes(w.model(w.add("Gemm", x, matrix, transB=1)).SerializeToString())
    return path


@pytest.mark.parametrize("kind", few(["middle", "image", "shortcut", "answer"]))
def test_parts_without_an_integer_form_are_floats_and_the_rest_integers(kind, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path = partly(tmp_path / "partly.onnx", kind)
    native = leancnn.compile(path)
    assert native.metadata["precision"] == "int8 and float32"
    assert "this part is computed in floats" in capsys.readouterr().err
    network, _, _ = integers_of(path)
    assert any(isinstance(node, QConv) for node in network.nodes)
    images = trial_pixels()
    expected = literal(path, images)
    assert np.abs(native.logits(images) - expected).max() < 0.01 * np.abs(expected).max()


def test_what_has_no_integer_form_is_computed_in_floats_and_said(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    w = Written()
    x = w.rounded("image", 2 / 255, 128)
    x = w.conv(x, 2 / 255, (4, 3, 3, 3))
    x = w.rounded(w.add("Softmax", x, axis=1), 1 / 255, 0)
    answer = w.add("Flatten", w.add("GlobalAveragePool", x))
    path = tmp_path / "floats.onnx"
    path.write_bytes(w.model(answer).SerializeToString())
    native = leancnn.compile(path)
    assert native.metadata["precision"] == "int8 and float32"
    assert "has no integer form; this part is computed in floats" in capsys.readouterr().err


def test_what_has_no_convolution_of_integers_is_all_floats(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    w = Written()
    plain = w.constant(w.random.normal(0, 0.3, (4, 3, *SIZE)).astype(np.float32))
    x = w.add("Tanh", w.add("Conv", w.rounded("image", 2 / 255, 128), plain))
    path = tmp_path / "floats.onnx"
    path.write_bytes(w.model(w.add("Flatten", x)).SerializeToString())
    assert leancnn.compile(path).metadata.get("precision") is None
    assert "all of it is computed in floats, rounded where" in capsys.readouterr().err


def test_whole_numbers_of_other_widths_are_refused_by_name(tmp_path):
    w = Written()
    numbers = [w.constant(np.float32(0.01)), w.constant(np.uint16(9))]
    x = w.add("DequantizeLinear", w.add("QuantizeLinear", "image", *numbers), *numbers)
    model = w.model(w.add("Flatten", w.add("GlobalAveragePool", x)))
    model.opset_import[0].version, model.ir_version = 21, 10
    (tmp_path / "wide.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match="it makes uint16; only uint8 and int8"):
        leancnn.compile(tmp_path / "wide.onnx")


@pytest.mark.parametrize(
    ("kind", "zero"), few([(np.uint8, 0), (np.int8, -128), (np.uint8, 255)], rows=True)
)
def test_weights_that_lie_255_steps_from_their_zero_keep_their_sign(kind, zero, tmp_path):
    pytest.importorskip("onnxruntime")
    w = Written()
    x = w.rounded("image", 2 / 255, 128)
    low, high = (0, 255) if kind == np.uint8 else (-128, 127)
    whole = w.random.choice([low, high, high - 1], (4, 3, 3, 3)).astype(kind)
    given = [w.constant(a) for a in (whole, np.float32(1e-4), kind(zero))]
    y = w.add("Conv", x, w.add("DequantizeLinear", *given))
    y = w.rounded(y, 0.002, 128)
    path = tmp_path / "far.onnx"
    path.write_bytes(w.model(w.add("Flatten", w.add("GlobalAveragePool", y))).SerializeToString())
    images = trial_pixels()
    expected = literal(path, images)
    found = leancnn.compile(path).logits(images)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_a_sum_whose_scales_are_far_apart_is_no_sum_of_integers(tmp_path):
    """A shortcut of ten million steps of the sums, beside a convolution."""
    pytest.importorskip("onnxruntime")
    w = Written()
    x = w.rounded("image", 2 / 255, 128)
    whole = w.random.integers(-128, 128, (3, 3, 1, 1)).astype(np.int8)
    given = [w.constant(a) for a in (whole, np.float32(1e-7), np.int8(0))]
    past = w.rounded("image", 2 / 255, 128)
    y = w.add("Add", w.add("Conv", x, w.add("DequantizeLinear", *given)), past)
    y = w.rounded(y, 2 / 255, 128)
    path = tmp_path / "apart.onnx"
    path.write_bytes(w.model(w.add("Flatten", w.add("GlobalAveragePool", y))).SerializeToString())
    native = leancnn.compile(path)
    assert native.metadata.get("precision") != "int8"
    images = trial_pixels()
    expected = literal(path, images)
    assert np.abs(native.logits(images) - expected).max() < 0.02 * np.abs(expected).max()


def trial_pixels():
    return np.random.default_rng(4).uniform(-1, 1, (4, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("said", [TensorProto.INT8, TensorProto.UINT8])
def test_a_type_that_is_said_without_a_zero_point_is_taken(said, tmp_path):
    pytest.importorskip("onnxruntime")
    w = Written()
    scale = w.constant(np.float32(0.02))
    whole = w.add("QuantizeLinear", "image", scale, output_dtype=said)
    x = w.add("DequantizeLinear", whole, scale)
    model = w.model(w.add("Flatten", w.add("GlobalAveragePool", x)))
    model.opset_import[0].version, model.ir_version = 21, 10
    path = tmp_path / "said.onnx"
    path.write_bytes(model.SerializeToString())
    images = np.random.default_rng(4).normal(0, 2, (4, 3, *SIZE)).astype(np.float32)
    expected = literal(path, images)
    assert np.allclose(leancnn.compile(path).logits(images), expected, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "henet_r3", "shufflenet_r3"])
@pytest.mark.parametrize("way", ["per channel", "signed and symmetric", "uint8 weights"])
def test_what_onnx_runtime_quantizes_is_compiled_to_integers(name, way, tmp_path):
    q = pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = untrained(name)
    images = trial_images(network, 24)
    plain, ready, out = (tmp_path / f"{n}.onnx" for n in ("plain", "ready", "int8"))
    plain.write_bytes(to_onnx(network))
    quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"image": image[None]} for image in images])

        def get_next(self):
            return next(self.left, None)

    settings = {
        "per channel": {"per_channel": True},
        "signed and symmetric": {
            "activation_type": q.QuantType.QInt8,
            "extra_options": {"ActivationSymmetric": True},
        },
        "uint8 weights": {"weight_type": q.QuantType.QUInt8},
    }[way]
    given = {"activation_type": q.QuantType.QUInt8, **settings}
    q.quantize_static(str(ready), str(out), Reader(), quant_format=q.QuantFormat.QDQ, **given)
    assert leancnn.compile(out).metadata["precision"] == "int8"


def test_a_scale_that_is_too_small_for_its_sums_is_one_line(tmp_path):
    """Of bytes they would all be full, and processors differ in what they make of such a float."""
    w = Written()
    x = w.rounded("image", 2 / 255, 128)
    x = w.rounded(w.conv(x, 2 / 255, (4, 3, *SIZE)), 1e-12, 100)
    (tmp_path / "fine.onnx").write_bytes(w.model(w.add("Flatten", x)).SerializeToString())
    with pytest.raises(UnsupportedError, match="its scale is too small for them"):
        integers_of(tmp_path / "fine.onnx")
