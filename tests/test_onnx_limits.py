"""Small ONNX files that ask for much: each ends soon, with a line that says why.

The limits are lowered here, so that a file which passes one is harmless to whatever else reads it.
"""

import time

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser

from leancnn.compiled import CompiledNetwork
from leancnn.compiler import import_onnx as importer
from leancnn.compiler import lower, onnx_constants, onnx_file, onnx_moves
from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.simplify import simplify
from leancnn.compiler.values import Store
from leancnn.errors import UnsupportedError
from tests.onnx_files import answers, classifier, model
from tests.random_graphs import native
from tests.test_import_onnx import saved

LARGE = {
    "a constant of a shape": "a = ConstantOfShape(i_64_64)\nb = ReduceSum(a)\nh = Mul(f, b)",
    "an expansion": "a = Expand(k_, i_64_64)\nb = ReduceSum(a)\nh = Mul(f, b)",
    "tiles": "a = Tile(k_1_1, i_64_64)\nb = ReduceSum(a)\nh = Mul(f, b)",
    "a range": """z = Constant<value_float = 0.0>()
        n = Constant<value_float = 4096.0>()
        o = Constant<value_float = 1.0>()
        a = Range(z, n, o)
        b = ReduceSum(a)
        h = Mul(f, b)""",
    "what broadcasts": "a = Add(k_64_1, k_1_64)\nb = ReduceSum(a)\nh = Mul(f, b)",
    "a product": "a = MatMul(k_64_1, k_1_64)\nb = ReduceSum(a)\nh = Mul(f, b)",
    "padding": "a = Pad(k_1, i_0_4096)\nb = ReduceSum(a)\nh = Mul(f, b)",
}


@pytest.mark.parametrize("name", LARGE)
def test_constants_are_refused_before_they_are_made(name, tmp_path, monkeypatch):
    path = saved(classifier(LARGE[name]), tmp_path)
    assert import_onnx(path).graph.nodes
    monkeypatch.setattr(onnx_constants, "MOST", 1000)
    with pytest.raises(UnsupportedError, match=r"it makes a constant of [\d,]+ numbers; at most"):
        import_onnx(path)


GROWN = {
    "expanded": "a = Expand(f, i_9_4_8_8)\nh = Slice(a, i_0, i_1, i_0)",
    "tiled": "a = Tile(f, i_1_9_1_1)\nh = Slice(a, i_0, i_4, i_1)",
    "padded": "a = Pad(f, i_0_0_9_9_0_0_9_9)\nh = Slice(a, i_0_0, i_8_8, i_2_3)",
}


@pytest.mark.parametrize("text", GROWN.values(), ids=GROWN)
def test_values_of_the_image_are_refused_before_they_are_made(text, tmp_path, monkeypatch):
    path = saved(classifier(text), tmp_path)
    assert import_onnx(path).graph.nodes
    monkeypatch.setattr(importer, "MOST", 1000)
    monkeypatch.setattr(onnx_moves, "MOST", 1000)
    with pytest.raises(UnsupportedError, match="too large to compile"):
        import_onnx(path)


def test_all_constants_together_have_a_limit(tmp_path, monkeypatch):
    text = """a = Exp(k_10_1)
        b = Abs(k_10_1)
        c = Neg(k_10_1)
        s = Sum(a, b, c)
        t = ReduceSum(s)
        h = Mul(f, t)"""
    path = saved(classifier(text), tmp_path)
    assert import_onnx(path).graph.nodes
    monkeypatch.setattr(importer, "CONSTANTS", 25)
    with pytest.raises(UnsupportedError, match="its constants are more than 25 numbers"):
        import_onnx(path)


def test_slow_operators_take_few_numbers(tmp_path, monkeypatch):
    text = "w = Conv<pads = [1, 1, 1, 1]>(k_4_4_3_3, k_4_4_3_3)\nh = Conv(f, w)"
    path = saved(classifier(text), tmp_path)
    assert import_onnx(path).graph.nodes
    monkeypatch.setattr(onnx_constants, "SLOW", 100)
    with pytest.raises(UnsupportedError, match=r"Conv \(at w\): it computes .* for this operator"):
        import_onnx(path)


def test_what_may_run_for_ever_is_not_computed(tmp_path):
    text = "n = RandomNormal<shape = [4, 1, 1]>()\nh = Add(f, n)"
    with pytest.raises(UnsupportedError, match=r"RandomNormal \(at n\): it is not computed here"):
        import_onnx(saved(classifier(text), tmp_path))


NESTED = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[1, 3, 8, 8] x) => (float[A, B] y) {{ h = own.f{top}(x)
    y = Flatten(h) }}
<domain: "own", opset_import: ["" : 17, "own" : 1]> f0 (x) => (y) {{ y = Relu(x) }}
{functions}"""


def nested(levels, calls=2):
    """Functions that each call the one before them twice."""
    functions = ""
    for level in range(levels):
        names = ["x", *(f"a{call}" for call in range(calls - 1)), "y"]
        pairs = zip(names[1:], names, strict=False)
        body = "\n".join(f"{after} = own.f{level}({before})" for after, before in pairs)
        functions += '<domain: "own", opset_import: ["" : 17, "own" : 1]> '
        functions += f"f{level + 1} (x) => (y) {{ {body} }}\n"
    return parser.parse_model(NESTED.format(top=levels, functions=functions))


def test_operators_are_counted_before_functions_are_written_out(tmp_path, monkeypatch):
    path = saved(nested(4), tmp_path)
    assert len(import_onnx(path).graph.nodes) == 17
    monkeypatch.setattr(onnx_file, "NODES", 16)
    with pytest.raises(UnsupportedError, match="it has 17 operators, functions written out"):
        import_onnx(path)


def test_functions_in_a_circle_or_too_deep_are_refused(tmp_path, monkeypatch):
    made = nested(2, calls=1)
    made.functions[0].node[0].op_type, made.functions[0].node[0].domain = "f2", "own"
    with pytest.raises(UnsupportedError, match="its functions call each other"):
        import_onnx(saved(made, tmp_path))
    monkeypatch.setattr(onnx_file, "DEEP", 3)
    with pytest.raises(UnsupportedError, match="its functions call each other"):
        import_onnx(saved(nested(5, calls=1), tmp_path, "deep"))


def test_a_walk_over_a_file_has_its_time(tmp_path, monkeypatch):
    path = saved(classifier("h = Relu(f)"), tmp_path)
    monkeypatch.setattr(importer, "BUDGET_S", -1)
    with pytest.raises(UnsupportedError, match="it is not read within -1 seconds"):
        import_onnx(path)


def test_a_long_chain_becomes_kernels_of_a_bounded_length(tmp_path):
    lines = [f"v{i + 1} = Sigmoid(v{i})" for i in range(500)]
    path = saved(classifier("\n".join(["v0 = Relu(f)", *lines, "h = Relu(v500)"])), tmp_path)
    started = time.monotonic()
    program = lower.lower(simplify(import_onnx(path).graph))
    longest = max(len(kernel.epilogue) for kernel in program.kernels if hasattr(kernel, "epilogue"))
    assert longest <= lower.LONGEST + 1
    assert (
        sum(isinstance(s, Store) for k in program.kernels for s in getattr(k, "epilogue", ())) < 20
    )
    assert time.monotonic() - started < 60  # hours, when a kernel had them all


def test_a_chain_that_is_cut_computes_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(lower, "LONGEST", 3)
    text = "a = Sigmoid(f)\nb = Mul(a, f)\nc = Relu(b)\nd = Add(c, a)\ne = Neg(d)\nh = Mul(e, f)"
    path = saved(classifier(text), tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    made: CompiledNetwork = native(import_onnx(path).graph, "best", 8)
    assert np.allclose(made.logits(images), answers(path, images), atol=1e-5)


@pytest.mark.parametrize("text", ["h = Conv(f, w)", "h = Mul(f, w)", "a = Exp(w)\nh = Conv(f, a)"])
def test_weights_that_are_not_numbers_are_named(text, tmp_path):
    made = classifier(text)
    weights = np.ones((4, 4, 1, 1) if "Conv" in text else (4, 1, 1), np.float32)
    weights.flat[2] = np.nan
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    with pytest.raises(
        UnsupportedError, match=r"weights '[aw]' hold NaN, 1 of \d+ numbers"
    ) as caught:
        import_onnx(saved(made, tmp_path))
    assert "\n" not in str(caught.value)
    weights.flat[2] = np.inf
    made.graph.initializer.pop()
    made.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    path = saved(made, tmp_path, "infinite")
    if "Conv" in text:
        with pytest.raises(UnsupportedError, match=r"weights '[aw]' are infinite in 1 of 16"):
            import_onnx(path)
    else:
        assert import_onnx(path).graph.nodes


def several():
    made = model("a = Conv(x, k_3_3_8_8)\ny = Flatten(a)\nb = Conv(z, k_2_3_8_8)\nw = Flatten(b)")
    made.graph.input.append(helper.make_tensor_value_info("z", 1, [1, 3, 8, 8]))
    made.graph.output.append(helper.make_tensor_value_info("w", 1, None))
    return made


def test_one_of_several_outputs_is_chosen_with_the_input_that_it_needs(tmp_path):
    path = saved(several(), tmp_path)
    for output, count, given in (("y", 3, "x"), ("w", 2, "z")):
        found = import_onnx(path, output=output)
        assert found.graph.shapes[found.graph.output][0] == count
        assert found.name == given
        assert [value.name for value in found.model.graph.input] == [given]
    with pytest.raises(UnsupportedError, match=r"2 outputs \(y, w\); choose one with --output"):
        import_onnx(path)
    with pytest.raises(UnsupportedError, match=r"no output 'v'; there are: y, w"):
        import_onnx(path, output="v")
    with pytest.raises(UnsupportedError, match=r"no input 'z'; there are: x"):
        import_onnx(path, output="y", input="z")


def test_an_output_that_needs_two_inputs_is_refused(tmp_path):
    made = model("a = Add(x, z)\ny = Flatten(a)")
    made.graph.input.append(helper.make_tensor_value_info("z", 1, [1, 3, 8, 8]))
    path = saved(made, tmp_path)
    with pytest.raises(UnsupportedError, match=r"2 inputs \(x, z\); choose one with --input"):
        import_onnx(path)
    with pytest.raises(UnsupportedError, match="needs 2 inputs, 'x' and 'z'; the compiler"):
        import_onnx(path, input="x")
