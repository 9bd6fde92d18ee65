"""Gemm and MatMul in every form: the constant side, turned or not, one row, batch axes, bias."""

from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from leancnn.compiler.import_onnx import import_onnx
from leancnn.errors import UnsupportedError
from tests.onnx_files import answers
from tests.test_import_onnx import agrees, noise, saved

pytest.importorskip("onnxruntime")


def one_node(kind, shape, constants, first, **attributes):
    """A model that reads a row of numbers as `shape`; constants stand behind it, or before."""
    weights = [numpy_helper.from_array(np.array(shape, np.int64), "shape")]
    names = []
    for place, array in enumerate(constants):
        names.append(f"w{place}")
        weights.append(numpy_helper.from_array(array.astype(np.float32), names[-1]))
    inputs = ["x", *names] if first else [names[0], "x", *names[1:]]
    nodes = [
        helper.make_node("Reshape", ["row", "shape"], ["x"]),
        helper.make_node(kind, inputs, ["made"], **attributes),
        helper.make_node("Flatten", ["made"], ["y"], axis=0),
    ]
    start = helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, int(np.prod(shape))])
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "one", [start], [end], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def computes_the_same(made, count, folder):
    path = saved(made, folder)
    rows = noise(2, count)
    return agrees(import_onnx(path).graph, rows[:, :, None, None], answers(path, rows))


FORMS = list(product((1, 3), (0, 1), (0, 1), (True, False)))
BIASES = [None, (), (1,), (5,), (1, 5), ("m", 1), ("m", 5)]


@pytest.mark.parametrize(("rows", "turn_a", "turn_b", "first"), FORMS)
def test_a_gemm_of_any_form(rows, turn_a, turn_b, first, tmp_path):
    """A (rows, 4) by (4, 5), the image's values on either side."""
    left, right = (rows, 4)[:: -1 if turn_a else 1], (4, 5)[:: -1 if turn_b else 1]
    shape, other = (left, right) if first else (right, left)
    for bias, (alpha, beta) in product(BIASES, ((1.0, 1.0), (0.5, -2.0))):
        size = None if bias is None else [rows if n == "m" else n for n in bias]
        constants = [noise(*other, seed=1)] + ([] if size is None else [noise(*size, seed=2)])
        made = one_node("Gemm", shape, constants, first, transA=turn_a, transB=turn_b,
                        alpha=alpha, beta=beta)  # fmt: skip
        assert computes_the_same(made, int(np.prod(shape)), tmp_path)


PRODUCTS = [
    ((1, 4), (4, 5), True), ((3, 4), (4, 5), True), ((1, 3, 4), (4, 5), True),
    ((1, 3, 4), (1, 4, 5), True), ((1, 2, 3, 4), (1, 4, 5), True), ((3, 4), (1, 4, 5), True),
    ((3, 4), (1, 1, 4, 5), True), ((4,), (4, 5), True), ((4,), (1, 4, 5), True),
    ((3, 4), (4,), True), ((1, 3, 4), (4,), True), ((4,), (4,), True), ((4, 1), (3, 4), False),
    ((4, 2), (3, 4), False), ((1, 4, 2), (3, 4), False), ((4, 2), (1, 3, 4), False),
    ((4,), (3, 4), False), ((4,), (1, 3, 4), False), ((4, 2), (4,), False),
    ((1, 4, 2), (4,), False), ((1, 4, 2), (1, 1, 3, 4), False), ((2, 3, 4), (4, 5), True),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "other", "first"), PRODUCTS)
def test_a_matrix_product_of_any_form(shape, other, first, tmp_path):
    made = one_node("MatMul", shape, [noise(*other, seed=1)], first)
    assert computes_the_same(made, int(np.prod(shape)), tmp_path)


def test_a_matrix_for_each_of_several_is_refused_by_name(tmp_path):
    made = one_node("MatMul", (1, 3, 4), [noise(2, 4, 5)], True)
    with pytest.raises(UnsupportedError, match=r"MatMul .*shape \(2, 4, 5\); only one for all"):
        import_onnx(saved(made, tmp_path))
