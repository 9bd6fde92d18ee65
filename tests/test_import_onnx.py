"""ONNX files of others: what can be compiled computes what ONNX Runtime does; the rest is named."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import leancnn
from leancnn import cli
from leancnn.compiler.graph import Softmax
from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.onnx_call import operators
from leancnn.errors import ParityError, UnsupportedError
from tests.onnx_files import agrees, answers, classifier, model, noise, saved
from tests.onnx_styles import CHANNELS, OLDER, STYLES

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("style", STYLES)
def test_a_style_computes_what_onnx_runtime_computes(style, tmp_path):
    made = classifier(STYLES[style], channels=CHANNELS.get(style, 4))
    path, images = saved(made, tmp_path), noise(2, 3, 8, 8)
    assert agrees(import_onnx(path).graph, images, answers(path, images))


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-9, 0.0])
def test_a_normalisation_adds_its_small_number_to_the_deviation_as_onnx_defines(scale, tmp_path):
    """ONNX Runtime leaves it out, and gives NaN for an image of one grey."""
    text = "a = MeanVarianceNormalization(x)\nh = Flatten(a)\ny = Gemm(h, k_48_3)"
    path = saved(model(text, shape=(1, 3, 4, 4)), tmp_path)
    images = np.float32(scale) * noise(2, 3, 4, 4)
    wide = images.astype(np.float64)
    centred = wide - wide.mean((2, 3), keepdims=True)  # and over the batch, which is one image
    deviation = np.sqrt((centred**2).mean((2, 3), keepdims=True))
    made = (centred / (deviation + 1e-9)).reshape(2, -1)
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert agrees(import_onnx(path).graph, images, made @ weights)


SWITCHES = [(c, s, p) for c in (0, 1) for s in (2, 3) for p in ("0,0,0,0", "1,1,1,1", "0,1,2,0")]


@pytest.mark.parametrize("ceil", [0, 1])
def test_means_count_padding_as_onnx_runtime_does(ceil, tmp_path):
    for counted, stride, pads in SWITCHES:
        text = f"""h = AveragePool<kernel_shape = [3, 3], strides = [{stride}, {stride}],
            pads = [{pads}], ceil_mode = {ceil}, count_include_pad = {counted}>(f)"""
        path, images = saved(classifier(text, opset=19), tmp_path), noise(1, 3, 8, 8)
        assert agrees(import_onnx(path).graph, images, answers(path, images)), (counted, pads)


@pytest.mark.parametrize("name", OLDER)
def test_operators_of_other_versions_are_read(name, tmp_path):
    opset, text = OLDER[name]
    made = classifier(text, opset=opset)
    path, images = saved(made, tmp_path), noise(2, 3, 8, 8)
    assert agrees(import_onnx(path).graph, images, answers(path, images))


def test_a_vector_lies_along_the_last_axis_as_numpy_has_it(tmp_path):
    """Four channels, and four columns: a gate would fit both."""
    made = classifier("p = GlobalAveragePool(f)\nv = Flatten(p)\nh = Mul(f, v)", shape=(1, 3, 8, 4))
    path, images = saved(made, tmp_path), noise(2, 3, 8, 4)
    assert agrees(import_onnx(path).graph, images, answers(path, images))


PIXELS = """
    c = Cast<to = 1>(x)
    t = Transpose<perm = [0, 3, 1, 2]>(c)
    a = Div(t, k_1)
    f = Conv<strides = [2, 2]>(a, k_4_3_3_3)
    r = Transpose<perm = [0, 2, 3, 1]>(f)
    b = Add(r, k_4)
    e = Relu(b)
    v = Reshape(e, i_1_m1)
    l = MatMul(v, k_48_3)
    """


@pytest.mark.parametrize("end", ["Softmax<axis = -1>", "Sigmoid"])
def test_probabilities_are_the_files_own(end, tmp_path):
    """uint8 pixels, channels last, to what ONNX Runtime answers."""
    made = model(f"{PIXELS} y = {end}(l)", shape=(1, 8, 9, 3), kind="uint8")
    path = saved(made, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3)).astype(np.uint8)
    assert np.allclose(leancnn.compile(path)(images), answers(path, images), atol=1e-5)


def test_the_page_lists_every_operator():
    page = Path(__file__).parent.parent / "docs" / "compiler.md"
    assert ", ".join(sorted(operators)) in " ".join(page.read_text(encoding="utf-8").split())


ENDS = {"LogSoftmax": "log softmax", "Softmax<axis = 1>": "softmax", "Identity": "", "Relu": ""}


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_what_stands_before_a_softmax(end, tmp_path):
    made = classifier("h = Relu(f)")
    made.graph.node[-1].output[0] = "l"
    made.graph.node.extend(model(f"y = {end}(x)").graph.node)
    made.graph.node[-1].input[0] = "l"
    found = import_onnx(saved(made, tmp_path))
    assert found.final == ENDS[end]
    assert not any(isinstance(node.op, Softmax) for node in found.graph.nodes)


def test_one_answer_is_no_class_among_others(tmp_path):
    text = "f = Conv(x, k_1_3_8_8)\ny = Flatten(f)"
    path = saved(model(text), tmp_path)
    pixels, flat = np.full((1, 8, 8, 3), 51, np.uint8), np.full((1, 3, 8, 8), 0.2, np.float32)
    assert np.allclose(leancnn.compile(path)(pixels), answers(path, flat), atol=1e-5)


REFUSED = {
    "an operator": ("h = Round(f)", "net.onnx: operator Round (at h) is not supported"),
    "one of others": ("h = acme.Gate(f)", "operator acme.Gate (at h) is not supported"),
    "integers": ("a = Cast<to = 7>(f)\nh = Cast<to = 1>(a)", "Cast (at a): it makes other numbers"),
    "half precision": ("a = Cast<to = 10>(f)\nh = Cast<to = 1>(a)", "the network in float32"),
    "two by two": ("a = Reshape(f, i_1_4_64)\nb = Transpose<perm = [0, 2, 1]>(a)\n"
                   "h = MatMul(a, b)", "its second matrix is computed from"),
    "computed weights": ("w = ReduceMean<axes = [2, 3]>(f)\nh = Conv(f, w)", "its weight is"),
    "wrong channels": ("h = Conv(f, k_4_5_1_1)", "(4, 5, 1, 1) in 1 groups for 4 channels"),
    "a large window": ("h = Conv(f, k_4_4_9_9)", "a 9×9 window does not fit"),
    "a mode of padding": ('h = Pad<mode = "mirror">(f, i_0_0_1_1_0_0_1_1)', "mode mirror"),
    "dilated pooling": ("h = MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(f)", "are dilated"),
    "places of maxima": ("a, h = MaxPool<kernel_shape = [2, 2]>(f)", "'h', which g_ reads"),
    "an unknown value": ("h = Relu(nothing)", "'nothing', which h reads, is made by nothing"),
    "a wrong shape": ("h = Reshape(f, i_1_5_8_8)", "Reshape (at h) cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_named_in_one_line(name, tmp_path):
    text, reason = REFUSED[name]
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(saved(classifier(text), tmp_path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


SHAPES = [
    ((2, 3, 8, 8), "float", "the shape 2×3×8×8; only one image"),
    ((1, 3, 8, 8, 8), "float", "the shape 1×3×8×8×8"),
    (
        ("N", 3, "H", "W"),
        "float",
        "1×3×?×?; only one image (1, C, H, W) of a fixed size; say which",
    ),
    ((1, 3, 8, 8), "int64", "its input is int64; the compiler takes float or uint8"),
]


@pytest.mark.parametrize(("shape", "kind", "reason"), SHAPES)
def test_an_input_that_is_no_image_is_refused(shape, kind, reason, tmp_path, capsys):
    path = saved(model("y = Flatten(x)", shape=shape, kind=kind), tmp_path)
    assert cli.main(["compile", str(path), "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1


INPUTS = {
    "any batch": (("N", 3, 8, 8), "v = Flatten(x)\ny = MatMul(v, k_192_3)", None),
    "a gray image without channels": ((1, 8, 9), "a = Unsqueeze(x, i_1)\nb = Conv(a, k_2_1_8_9)\n"
                                      "y = Flatten(b)", None),
    "a vector": ((1, 20), "y = Gemm(x, k_20_3)", None),
    "a size that is said": ((1, 3, "H", "W"), "p = GlobalMaxPool(x)\ny = Flatten(p)", (7, 9)),
    "channels last and a size": (("N", "H", "W", 3), "t = Transpose<perm = [0, 3, 1, 2]>(x)\n"
                                 "p = GlobalMaxPool(t)\ny = Flatten(p)", (7, 9)),
    "a matrix on the left": ((1, 4), "t = Transpose(x)\nm = MatMul(k_3_4, t)\n"
                             "y = Transpose(m)", None),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_other_forms_are_taken(name, tmp_path):
    shape, text, size = INPUTS[name]
    path = saved(model(text, shape=shape), tmp_path)
    found = import_onnx(path, size)
    c, h, w = found.graph.shapes[found.graph.input]
    images = noise(2, c, h, w)
    given = images.transpose(0, 2, 3, 1) if found.channels_last else images
    expected = answers(path, given if len(shape) == 4 else given.reshape(2, *shape[1:]))
    assert agrees(found.graph, images, expected)


def test_weights_as_inputs_and_several_outputs(tmp_path):
    from onnx import helper

    old = classifier("h = Relu(f)", opset=8, ir=3)
    old.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in old.graph.initializer
    )
    path, images = saved(old, tmp_path), noise(1, 3, 8, 8)
    assert agrees(import_onnx(path).graph, images, answers(path, images))
    old.graph.output.append(helper.make_tensor_value_info("h", 1, None))
    with pytest.raises(UnsupportedError, match=r"2 outputs \(y, h\); choose one with --output"):
        import_onnx(saved(old, tmp_path))


def test_another_size_than_the_fixed_one_is_refused(tmp_path):
    path = saved(classifier("h = Relu(f)"), tmp_path)
    assert import_onnx(path, (8, 8)).graph.shapes
    with pytest.raises(UnsupportedError, match="its input is fixed, 1×3×8×8"):
        import_onnx(path, (16, 8))
    open_ = saved(classifier("h = Relu(f)", shape=(1, 3, "H", "W")), tmp_path, "open")
    with pytest.raises(UnsupportedError, match="too large"):
        import_onnx(open_, (100_000, 100_000))


@pytest.mark.parametrize("second", ["k_4", "v"])
def test_an_axis_says_where_older_operators_begin(second, tmp_path):
    before = "a = GlobalAveragePool(f)\nv = Reshape(a, i_4)\n"
    old = f"{before}h = Mul<axis = 1, broadcast = 1>(f, {second})"
    new = f"{before}w = Reshape({second}, i_4_1_1)\nh = Mul(f, w)"
    images = noise(2, 3, 8, 8)
    expected = answers(saved(classifier(new), tmp_path), images)
    path = saved(classifier(old, opset=6), tmp_path, "old")
    assert agrees(import_onnx(path).graph, images, expected)


def test_dropout_in_training_is_refused(tmp_path):
    import onnx

    made = classifier("h = Dropout(f, k_, t_)")
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "t_"))
    with pytest.raises(UnsupportedError, match="training mode"):
        import_onnx(saved(made, tmp_path))


def test_answers_that_differ_from_onnx_runtimes_are_not_kept(tmp_path, monkeypatch):
    path = saved(classifier("h = Relu(f)"), tmp_path)
    other = import_onnx(saved(classifier("h = Abs(f)"), tmp_path, "other"))
    wrong = replace(import_onnx(path), graph=other.graph)
    monkeypatch.setattr(sys.modules["leancnn.compile"], "import_onnx", lambda *_, **__: wrong)
    with pytest.raises(ParityError, match="of their scale from those of ONNX Runtime"):
        leancnn.compile(path, out=tmp_path / "build")
    assert not (tmp_path / "build").exists()


NAMES = [
    "stem_conv_x1",
    "stem_conv_x2",
    "stem_conv_deal",
    "stem_conv",
    "div",
    "load",
    "s",
    "for",
    "main",
    "int",
    "CLASSES",
    "y0",
    "size_t",
    "clear_gaps",
    "net_run",
]


def test_operators_may_have_any_name(tmp_path):
    """Those of C, its library and our own helpers too."""
    lines = [f"v{i + 1} = Conv<pads = [1, 1, 1, 1]>(v{i}, k_4_4_3_3)" for i in range(len(NAMES))]
    made = classifier("\n".join(["v0 = Relu(f)", *lines, f"h = Sigmoid(v{len(NAMES)})"]))
    for node, name in zip(made.graph.node[2:], [*NAMES, "a-b/c:0", "9"], strict=False):
        node.name = name
    assert leancnn.compile(saved(made, tmp_path)).name == "net"
