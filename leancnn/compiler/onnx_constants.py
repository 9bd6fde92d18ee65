"""What ONNX operators make of constants, by ONNX's own reference, within bounds."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from leancnn.compiler.materialise import IndexMap
from leancnn.errors import UnsupportedError

MOST = 2**27  # numbers of a constant: the widest layer of VGG has 102,760,448
SMALL = 2**12  # numbers of an input that say a shape
SLOW = 2**16  # numbers that an operator may read and make which the reference computes one by one
PRODUCT = 2**34  # multiplications of matrices
NUMPY = """Abs Add And BitShift Cast CastLike Ceil Clip Concat Constant ConstantOfShape CumSum
    DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm
    Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg
    Not Or Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round ScatterND Shape Sigmoid Sign Size Slice
    Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where Xor"""
FAST = frozenset(NUMPY.split())
"""Operators that the reference computes by one call of numpy."""
ENDLESS = """Loop Scan SequenceMap RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Bernoulli Multinomial"""
UNBOUNDED = frozenset(ENDLESS.split())
"""Operators that may run for ever, or that chance decides."""
AS_LATER = {"DequantizeLinear": 19, "QuantizeLinear": 19}
"""Operators whose older definitions mean the same as one that the reference has."""


def shapes(node: Any, values: Iterable[Any], opsets: dict[str, int]) -> list[Any]:
    """The shape of each result as ONNX's inference has it; None where that does not know."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    infos, weights = [], []
    for name, value in zip(node.input, values, strict=True):
        if not name:
            continue
        if isinstance(value, IndexMap):
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
            continue
        value = np.asarray(value)
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        infos.append(helper.make_tensor_value_info(name, kind, value.shape))
        if value.size <= SMALL:
            weights.append(numpy_helper.from_array(value, name))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    infos = list({info.name: info for info in infos}.values())
    weights = list({tensor.name: tensor for tensor in weights}.values())
    graph = helper.make_graph([node], "one", infos, outputs, weights)
    versions = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        made = shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=versions), data_prop=True
        )
    except Exception:  # whatever it dislikes, the handler names
        return [None] * len(node.output)
    known = {value.name: value.type for value in (*made.graph.value_info, *made.graph.output)}
    return [_shape(known.get(name)) for name in node.output]


def _shape(kind: Any) -> tuple[int, ...] | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def computed(node: Any, values: list[Any], opsets: dict[str, int]) -> list[Any]:
    """What an operator makes of constants. Raises `UnsupportedError`, before it is computed for
    what would take very long or more memory than a network's value has."""
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: np.asarray(v) for name, v in zip(node.input, values, strict=True) if name}
    _check(node, list(feeds.values()), shapes(node, values, opsets))
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(name, kinds[name], list(value.shape))
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "constants", inputs, outputs)
    opsets = {**opsets, "": max(opsets.get("", 1), AS_LATER.get(node.op_type, 1))}
    versions = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        made = ReferenceEvaluator(helper.make_model(graph, opset_imports=versions)).run(None, feeds)
    except Exception as error:  # the reference's errors share no class of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnsupportedError(f"cannot be computed from constants ({reason[:120]})") from error
    found = iter(made)
    return [next(found) if name else None for name in node.output]


def _check(node: Any, inputs: list[Any], outputs: list[Any]) -> None:
    """Raises `UnsupportedError` for what is not to be computed here."""
    if node.op_type in UNBOUNDED:
        raise UnsupportedError("it is not computed here: it could run for ever, or differ")
    made = sum(math.prod(shape) for shape in outputs if shape is not None)
    read = sum(value.size for value in inputs)
    fast = node.op_type in FAST and node.domain in ("", "ai.onnx")
    if made > MOST or (None in outputs and read > SLOW):
        shown = "more" if None in outputs else f"{made:,}"
        raise UnsupportedError(
            f"it makes a constant of {shown} numbers; at most {MOST:,} are taken"
        )
    if node.op_type in ("MatMul", "Gemm") and made * max(v.shape[-1] for v in inputs) > PRODUCT:
        raise UnsupportedError("it multiplies constant matrices that are too large")
    if not fast and made + read > SLOW:
        raise UnsupportedError(
            f"it computes {made + read:,} constant numbers; at most {SLOW:,} for this operator"
        )
