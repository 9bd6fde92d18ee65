"""Sums of bytes up to where a file rounds them, or to the answer."""

from dataclasses import replace

import numpy as np

from leancnn.compiler.graph import Activation, Combine, Conv, Node, Pool, Reduce, floats
from leancnn.compiler.int8_weights import (
    FACTOR,
    LEVELS,
    as_conv,
    clamp,
    factors,
    no_integers,
    repeated,
    to_bytes,
)
from leancnn.compiler.integers import (
    ROOM,
    Add,
    Array,
    Clamp,
    Gate,
    QConv,
    QElementwise,
    QEpilogueOp,
    QGlobalSum,
    QValue,
    Store,
    overflows,
)
from leancnn.compiler.qdq_values import NEAR, Values
from leancnn.errors import UnsupportedError

MOST = 255  # of a weight: bytes less a zero point; beyond 127 it is taken in parts, 255 in three

ROUGH = 0.03  # by so much may a factor of what is added differ from the ratio of the scales


def sums(v: Values, value: str, store: Store, stored: QValue | None, high: float = MOST) -> None:
    """Append what computes a value from bytes up to its rounding, or to the answer.

    Bytes end at `high`: sums at that which is rounded to it.
    """
    node = v.producers.get(value)
    later: list[Node] = []
    while node is not None and not _begins(v, node):
        later.append(node)
        inner = [name for name in node.inputs if name not in v.known]
        if len(inner) != 1 or not isinstance(node.op, Activation | Combine):
            raise no_integers(node)
        node = v.producers.get(inner[0])
    if node is None:
        raise UnsupportedError(f"{value} is computed from what the file has not rounded")
    made, scale = _begun(v, node)
    epilogue = [op for each in reversed(later) for op in _later(v, each, scale)]
    if stored is not None:
        multiplier = floats(floats(scale) / floats(stored.scale))
        store = replace(store, multiplier=multiplier)
        if high < MOST:
            last = np.rint((high - stored.zero) / multiplier.astype(np.float64))
            ends = np.full(len(scale), -(2**31) + 1), np.minimum(last, 2**31 - 1)
            epilogue.append(Clamp(*(end.astype(np.int32) for end in ends)))
    else:
        none = np.zeros(len(scale), np.int32)
        shape = v.graph.shapes[value]
        stored = QValue(shape, scale, none, wide=True, most=2**31 - 1)
    made = replace(made, epilogue=(*made.epilogue, *epilogue, store))
    v.append(made, store.value, stored)
    if overflows(made, v.network.values):
        raise UnsupportedError(
            f"the sums of {value} do not fit 32 bits, or its scale is too small for them"
        )


def _begins(v: Values, node: Node) -> bool:
    """Whether a node makes sums of bytes."""
    match node.op:
        case Conv() | Pool("mean") | Reduce("mean" | "sum", "pixels"):
            return True
        case Combine("add" | "sub" | "mul"):
            return all(name in v.known for name in node.inputs)
    return False


def _begun(v: Values, node: Node) -> tuple[QConv | QElementwise, Array]:
    """A node's sums and their scale."""
    shape = v.graph.shapes[node.inputs[0]]
    match node.op:
        case Conv():
            return _conv(v, node, node.op)
        case Pool():
            op = as_conv(node, node.op, shape, v.graph.shapes[node.output])
            return _conv(v, node, replace(op, weight_scale=op.weight[:, 0, 0, 0]))
        case Reduce():
            share = shape[1] * shape[2] if node.op.how == "mean" else 1
            ones = np.full((shape[0], 1, *shape[1:]), 1 / share, np.float32)
            none = np.zeros(shape[0], np.float32)
            return _conv(v, node, Conv(ones, none, groups=shape[0], weight_scale=ones[:, 0, 0, 0]))
    return _combined(v, node)


def _combined(v: Values, node: Node) -> tuple[QElementwise, Array]:
    assert isinstance(node.op, Combine)
    names = [v.operand(name) for name in node.inputs]
    x, y = (v.network.values[name] for name in names)
    none = np.zeros(x.shape[0], np.int32)
    if node.op.how == "mul":
        if y.shape != (x.shape[0], 1, 1):
            raise no_integers(node)
        return QElementwise(none, (Gate(*names),)), x.scale * y.scale
    if x.shape != y.shape:
        raise no_integers(node)
    scale = shared_scale(x.scale, y.scale)
    sign = 1 if node.op.how == "add" else -1
    first = Add(names[0], factors(x.scale / scale))
    return QElementwise(none, (first, Add(names[1], sign * factors(y.scale / scale)))), scale


def _later(v: Values, node: Node, scale: Array) -> list[QEpilogueOp]:
    """What is done to sums of this scale before they are rounded."""
    if isinstance(node.op, Activation) and node.op.kind == "clip":
        return [clamp(node.op, scale)]
    if isinstance(node.op, Combine) and node.op.how == "add":
        other = next((name for name in node.inputs if name in v.known), None)
        if other is not None:
            name = v.operand(other)
            y = v.network.values[name]
            ratio = y.scale / scale
            rough = np.abs(np.rint(ratio) - ratio) > ROUGH * ratio
            if y.shape == v.graph.shapes[node.output] and not (rough | (ratio > FACTOR)).any():
                return [Add(name, factors(ratio))]
    raise no_integers(node)


def _conv(v: Values, node: Node, op: Conv) -> tuple[QConv, Array]:
    source = _summed(v, node)
    x = v.network.values[source]
    weight, bias, scale = _whole(node, op, x)
    times = int(
        max(-(-weight.max(initial=0) // LEVELS), -(weight.min(initial=0) // (LEVELS + 1)), 1)
    )
    source, weight = repeated(v.network, source, weight, op.groups, times)
    made = QConv(
        source,
        weight,
        bias.astype(np.int32),
        (),
        op.stride,
        op.padding,
        op.dilation,
        op.groups,
    )
    return made, scale


def _whole(node: Node, op: Conv, x: QValue) -> tuple[Array, Array, Array]:
    """Weights, bias and scale of a convolution's sums, as the file has them.

    Where it keeps weights in floats, or channels of different scales meet in one sum, they are
    made as in our own quantizing, on half the scale: the weights take up the scales.
    """
    outputs, each = op.weight.shape[:2]
    inputs = np.arange(outputs)[:, None] // (outputs // op.groups) * each + np.arange(each)
    scales = x.scale[inputs]
    if op.weight_scale is None or (scales != scales[:, :1]).any():
        found = to_bytes(op, x, [], levels=2 * LEVELS, paired=False)
        return found.weight, found.bias, found.scale
    own = np.where(op.weight_scale > 0, op.weight_scale, 1).astype(np.float64)
    real = op.weight.astype(np.float64) / own[:, None, None, None]
    weight = np.rint(real)
    if np.abs(real - weight).max(initial=0) > NEAR * MOST or np.abs(weight).max() > MOST:
        raise UnsupportedError(f"the weights of {node.output} are no whole numbers of 8 bits")
    scale = floats(floats(scales[:, 0]) * floats(own)).astype(np.float64)
    zeros = (weight.sum((2, 3)) * x.zero[inputs]).sum(1)
    bias = np.rint(op.bias.astype(np.float64) / scale) - zeros
    if np.abs(bias).max(initial=0) > ROOM:
        raise UnsupportedError(f"the bias of {node.output} does not fit 32 bits")
    return weight, bias, scale


def _summed(v: Values, node: Node) -> str:
    """What a convolution reads: bytes, or all pixels of each channel as one sum."""
    source = node.inputs[0]
    if source in v.known:
        return v.operand(source)
    before = v.producers.get(source)
    inside = before is not None and before.inputs[0] in v.known
    if before is None or not inside or not isinstance(before.op, Reduce):
        raise UnsupportedError(f"{node.output} reads what the file has not rounded")
    if before.op.over != "pixels" or before.op.how not in ("mean", "sum"):
        raise no_integers(before)
    if source not in v.network.values:
        name = v.operand(before.inputs[0])
        x = v.network.values[name]
        c, h, w = x.shape
        share = h * w if before.op.how == "mean" else 1
        none = np.zeros(c, np.int32)
        sums = QValue((c, 1, 1), x.scale / share, none, wide=True, most=255 * h * w)
        v.append(QGlobalSum(name, source), source, sums)
    return source


def shared_scale(x: Array, y: Array) -> Array:
    """A scale of sums of which both of these are whole multiples, as nearly as can be."""
    larger = np.maximum(x, y)
    ratio = np.minimum(x, y) / larger
    tried = np.arange(FACTOR // 4, FACTOR + 1)[:, None]
    rounding = np.abs(tried * ratio - np.rint(tried * ratio)) / tried
    return np.asarray(larger / tried[rounding.argmin(0), 0])
