"""ONNX's QuantizeLinear and DequantizeLinear of what is computed from the image."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Conv, Graph, floats
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.onnx_call import Call, handles
from leancnn.compiler.onnx_constants import computed
from leancnn.errors import UnsupportedError

KINDS = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
TYPES = {0: "", 2: "uint8", 3: "int8"}  # of ONNX, for `output_dtype`; 0: none is said


@handles(
    "QuantizeLinear",
    sets=(10, 13, 19, 21, 23, 24, 25, 28),
    reads="axis output_dtype",
    only={"block_size": 0, "precision": 0},
    hints="saturate",
)
def _quantize(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    scale, zero, kind = numbers_of(call, x.shape)
    named = TYPES.get(call.get("output_dtype", 0), "another type")
    if call.constant(2, "zero point") is None:
        kind = named or kind
    if kind not in KINDS or named not in ("", kind):
        raise UnsupportedError(f"it makes {named or kind}; only uint8 and int8 are supported")
    return b.quantize(x, scale, zero, *KINDS[kind])


@handles(
    "DequantizeLinear",
    sets=(10, 13, 19, 21, 23, 24, 25, 28),
    reads="axis",
    only={"block_size": 0, "output_dtype": 0},
)
def _dequantize(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    scale, zero, _ = numbers_of(call, x.shape)
    return b.affine(x, scale, -zero * scale)


def numbers_of(call: Call, shape: tuple[int, ...]) -> tuple[Any, Any, str]:
    """Scale and zero point, so that numpy broadcasts them against a value of this shape, and the
    type of the whole numbers. Raises `UnsupportedError` for a scale that is no positive number."""
    scale, zero = call.constant(1, "scale"), call.constant(2, "zero point")
    scale = np.asarray(scale, np.float64)
    kind = "uint8" if zero is None else str(np.asarray(zero).dtype)
    zero = np.zeros_like(scale) if zero is None else np.asarray(zero, np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise UnsupportedError("its scale is no positive number")
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(()), kind
    axis = call.get("axis", 1) % len(shape)
    if scale.shape != (shape[axis],):
        raise UnsupportedError(f"{scale.size} scales for axis {axis} of {shape}")
    along = (-1, *[1] * (len(shape) - 1 - axis))
    return scale.reshape(along), zero.reshape(along), kind


MOVES = frozenset(("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"))
"""Operators that move a constant's numbers and leave each as it is."""


class WeightScales:
    """The scale of every number of a constant that a file keeps in integers, by name."""

    def __init__(self, opsets: dict[str, int]) -> None:
        self.opsets = opsets
        self.known: dict[str, NDArray[Any]] = {}

    def constant(self, node: Any, values: list[Any]) -> None:
        """See a node whose inputs are all constants."""
        first = node.input[0] if node.input else ""
        if node.op_type == "DequantizeLinear":
            shape, scale = np.shape(values[0]), np.asarray(values[1], np.float64)
            if scale.size > 1 and scale.ndim == 1:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % len(shape)
                scale = scale.reshape(-1, *[1] * (len(shape) - 1 - axis))
            if np.shape(np.broadcast_to(scale, shape)) == shape:
                self.known[node.output[0]] = np.broadcast_to(scale, shape)
        elif node.op_type in MOVES and first in self.known:
            moved = computed(node, [self.known[first].astype(np.float32), *values[1:]], self.opsets)
            self.known[node.output[0]] = moved[0]

    def weighted(self, node: Any, attributes: dict[str, Any], graph: Graph, before: int) -> None:
        """Tell the convolution that a node has become the scale of each output's weights."""
        made = [place for place in range(before, len(graph.nodes)) if _is_conv(graph, place)]
        given = next((name for name in node.input if name in self.known), None)
        if given is None or len(made) != 1 or node.op_type not in ("Conv", "Gemm", "MatMul"):
            return
        scales = self.known[given]
        if node.op_type == "MatMul" and given == node.input[1]:
            scales = np.swapaxes(scales, -1, -2) if scales.ndim > 1 else scales[None]
        if node.op_type == "Gemm":
            if attributes.get("alpha", 1.0) != 1 or given != node.input[1]:
                return
            scales = scales if attributes.get("transB", 0) else scales.T
        conv = graph.nodes[made[0]]
        assert isinstance(conv.op, Conv)
        flat = scales.reshape(scales.shape[-2] if node.op_type == "MatMul" else len(scales), -1)
        if len(flat) == len(conv.op.weight) and (flat == flat[:, :1]).all():
            op = replace(conv.op, weight_scale=floats(flat[:, 0]))
            graph.nodes[made[0]] = replace(conv, op=op)


def _is_conv(graph: Graph, place: int) -> bool:
    return isinstance(graph.nodes[place].op, Conv)
