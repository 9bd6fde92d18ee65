"""What users of a program call gives what the file or the network means, softmax included."""

import numpy as np
import pytest
import torch

import leancnn
from leancnn.bench import bench
from leancnn.compiler import emit
from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.probabilities import sum_to_one
from leancnn.errors import ParityError
from tests.compiler_saved import network, on_shelf
from tests.few import few
from tests.onnx_files import answers, model

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", autouse=True)
def speck():
    off = on_shelf()
    yield
    off()


LOGITS = "f = Conv(x, k_4_3_8_8, k_4)\nl = Flatten(f)\n"
BY_HAND = """a = Exp(l)
    t = ReduceSum<keepdims = 1>(a, i_1)
    y = Div(a, t)"""
PROBABILITIES = {
    "softmax": "y = Softmax(l)",
    "softmax under another shape": "s = Softmax(l)\ny = Reshape(s, i_4)",
    "softmax, then clipped": "s = Softmax(l)\ny = Clip(s, low, high)",
    "softmax, then some of them": "s = Softmax(l)\ny = Slice(s, i_1, i_4, i_1)",
    "softmax, then in another order": "s = Softmax(l)\no = Constant<value_ints = [2, 0, 1]>()\n"
                                      "y = Gather<axis = 1>(s, o)",
    "softmax as a percentage": "s = Softmax(l)\nh = Constant<value_float = 100.0>()\ny = Mul(s, h)",
    "softmax less what is even": "s = Softmax(l)\nq = Constant<value_float = 0.25>()\n"
                                 "y = Sub(s, q)",
    "the mean of two": "s = Softmax(l)\nn = Neg(l)\nt = Softmax(n)\ny = Mean(s, t)",
    "softmax beside a sigmoid": "s = Softmax(l)\nn = Sigmoid(l)\ny = Concat<axis = 1>(s, n)",
    "softmax, and zeros beside": "s = Softmax(l)\ny = Concat<axis = 1>(s, p_1_2)",
    "softmax to a power": "s = Softmax(l)\nt = Constant<value_float = 1.7>()\ny = Pow(s, t)",
    "a sigmoid by tanh": """t = Tanh(l)
        o = Constant<value_float = 1.0>()
        a = Add(t, o)
        h = Constant<value_float = 0.5>()
        y = Mul(a, h)""",
    "both classes of a sigmoid": """s = Sigmoid(l)
        o = Constant<value_float = 1.0>()
        n = Sub(o, s)
        y = Concat<axis = 1>(n, s)""",
    "exp of log softmax": "s = LogSoftmax(l)\ny = Exp(s)",
    "softmax spelt out": BY_HAND,
    "softmax spelt out, its largest taken off": """m = ReduceMax<axes = [1], keepdims = 1>(l)
        d = Sub(l, m)
        """ + BY_HAND.replace("Exp(l)", "Exp(d)"),
    "a softmax for each of two heads": """r = Reshape(l, i_1_2_2)
        s = Softmax<axis = -1>(r)
        y = Flatten(s)""",
    "softmax, classes taken together": "s = Softmax(l)\ny = MatMul(s, p_4_3)",
    "softmax, classes added up": """s = Softmax(l)
        r = Reshape(s, i_1_2_2)
        y = ReduceSum<keepdims = 0>(r, i_1)""",
    "softmax of each pixel, the largest": """m = Conv(x, k_4_3_3_3)
        s = Softmax<axis = 1>(m)
        g = GlobalMaxPool(s)
        y = Flatten(g)""",
    "softmax of each pixel, windows": """m = Conv(x, k_4_3_3_3)
        s = Softmax<axis = 1>(m)
        g = MaxPool<kernel_shape = [5, 5], strides = [2, 2]>(s)
        h = GlobalAveragePool(g)
        y = Flatten(h)""",
    "sigmoid of each pixel, their mean": """m = Conv(x, k_4_3_3_3)
        s = Sigmoid(m)
        g = GlobalAveragePool(s)
        y = Flatten(g)""",
    "sigmoid": "y = Sigmoid(l)",
    "hard sigmoid": "y = HardSigmoid(l)",
    "one less a sigmoid": "s = Sigmoid(l)\no = Constant<value_float = 1.0>()\ny = Sub(o, s)",
    "sigmoid spelt out": """n = Neg(l)
        e = Exp(n)
        o = Constant<value_float = 1.0>()
        d = Add(e, o)
        y = Div(o, d)""",
    "a vote that no operator tells": """r = Relu(l)
        o = Constant<value_float = 0.001>()
        p = Add(r, o)
        t = ReduceSum<keepdims = 1>(p, i_1)
        y = Div(p, t)""",
}  # fmt: skip
SCORES = {
    "logits": "y = Identity(l)",
    "ReLU": "y = Relu(l)",
    "a matrix after a softmax": "s = Softmax(l)\ny = Gemm(s, k_4_3, k_3)",
    "a matrix after sigmoids": "s = Sigmoid(l)\ny = MatMul(s, p_4_3)",
    "attention over pixels": """m = Conv(x, k_4_3_3_3)
        r = Reshape(m, i_1_4_36)
        s = Softmax<axis = -1>(r)
        p = Mul(s, r)
        y = ReduceSum<keepdims = 0>(p, i_2)""",
    "tanh": "y = Tanh(l)",
    "swish": "s = Sigmoid(l)\ny = Mul(l, s)",
    "log softmax": "y = LogSoftmax(l)",
    "ELU": "y = Elu(l)",
    "log of a softmax": "s = Softmax(l)\ny = Log(s)",
    "tanh of a softmax's logarithm": "s = Softmax(l)\nt = Log(s)\ny = Tanh(t)",
}


def file(text, folder):
    from onnx import numpy_helper

    made = model(LOGITS + text)
    for name, value in (("low", 1e-7), ("high", 1 - 1e-7)):
        made.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    path = folder / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def entry_and_file(path):
    """What `_run` makes of made pixels, and what the file makes of the same."""
    pixels = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    planes = (pixels / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2)
    return leancnn.compile(path)(pixels), answers(path, planes)


def some(names, few):
    """All in a slow test, a few in any."""
    return [n if n in few else pytest.param(n, marks=pytest.mark.slow) for n in names]


FEW = (
    "softmax, then clipped",
    "a softmax for each of two heads",
    "softmax spelt out",
    "a vote that no operator tells",
    "logits",
)


@pytest.mark.parametrize("name", few(some(PROBABILITIES, FEW)))
def test_probabilities_pass_no_second_softmax(name, tmp_path):
    found, expected = entry_and_file(file(PROBABILITIES[name], tmp_path))
    assert np.allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", some(SCORES, FEW))
def test_scores_become_probabilities(name, tmp_path):
    found, expected = entry_and_file(file(SCORES[name], tmp_path))
    assert np.allclose(found, torch.from_numpy(expected).softmax(1), atol=1e-5)


def test_what_sums_to_one_is_seen():
    assert sum_to_one(np.array([[0.25, 0.75], [1.0, 0.0]]))
    for odd in ([[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1.0]], [[0.5, 0.5], [0.5, 0.4]]):
        assert not sum_to_one(np.array(odd))


@pytest.fixture
def doubled(monkeypatch):
    """The emitted scale and shift of the pixels are twice what they are to be."""
    plain = emit._numbers
    monkeypatch.setattr(emit, "_numbers", lambda values: plain([2 * v for v in values]))


@pytest.mark.parametrize("way", few(["compile", "export", "onnx", "bench"]))
def test_a_wrong_normalisation_is_not_kept(way, doubled, tmp_path):
    if way == "bench":
        rows, missing = bench([network()], engines=["c"], rounds=1, seconds=0.01)
        assert not rows
        assert "differ by" in str(missing[0])
        return
    made = {
        "compile": lambda: leancnn.compile(network()),
        "export": lambda: leancnn.export(network(), to="c", out=tmp_path),
        "onnx": lambda: leancnn.compile(file("y = Identity(l)", tmp_path)),
    }
    with pytest.raises(ParityError):
        made[way]()


def test_the_end_of_a_file_is_known_by_what_stands_before_it(tmp_path):
    by_operators = [n for n in PROBABILITIES if not n.startswith(("a vote", "softmax under"))][1:]
    for name in by_operators:
        assert import_onnx(file(PROBABILITIES[name], tmp_path)).final == "probabilities", name
    for name, text in SCORES.items():
        expected = "log softmax" if name == "log softmax" else ""
        assert import_onnx(file(text, tmp_path)).final == expected, name


def test_the_logarithm_of_a_sum_of_exponentials_is_infinite_where_that_sum_is(tmp_path):
    path = tmp_path / "net.onnx"
    made = model("y = ReduceLogSumExp<axes = [2, 3], keepdims = 0>(x)", shape=(1, 3, 2, 2))
    path.write_bytes(made.SerializeToString())
    rows = [[0, 1, 2, np.inf], [-np.inf] * 4, [-np.inf, 90, 91, -90]]
    found = leancnn.compile(path).logits(np.float32([rows]).reshape(1, 3, 2, 2))
    assert np.allclose(found, [[np.inf, -np.inf, 91.31326]], rtol=1e-6)
