"""Channels that nobody needs, dropped with what computes them.

A channel is needed when some reader gives it a weight other than zero. One that is the same number
in every pixel, as a kernel of zeros and its bias make it, needs no pixels: its share of each sum
becomes part of the reader's bias, unless padding would stand beside it.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Floats,
    Gather,
    Graph,
    Node,
    Op,
    Pool,
    Reduce,
    Shape,
    empty,
    floats,
)

Mask = NDArray[np.bool_]
"""Some of a value's channels: (c,)."""


def eliminate_dead(graph: Graph) -> Graph:
    """The same function without dead channels; a graph that has none is returned as it is."""
    graph = fold_constants(graph)
    needed = needs(graph)
    return graph if all(mask.all() for mask in needed.values()) else _without(graph, needed)


def fold_constants(graph: Graph) -> Graph:
    """Constant channels as shares of their readers' biases, which then read them with weight 0."""
    known = {graph.input: np.full(graph.shapes[graph.input][0], np.nan)}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = [known[value] for value in node.inputs]
        if isinstance(node.op, Conv):
            node = replace(node, op=absorbed(node.op, inputs[0]))
        known[node.output] = constants(node.op, graph.shapes[node.output], *inputs)
        nodes.append(node)
    return replace(graph, nodes=nodes)


def absorbed(op: Conv, x: NDArray[np.float64]) -> Conv:
    """The convolution with the constants among its input channels in its bias; NaN: no constant."""
    if any(op.padding):
        x = np.where(x == 0, x, np.nan)
    if np.isnan(x).all():
        return op
    each = np.repeat(x.reshape(op.groups, -1), len(op.weight) // op.groups, 0)[..., None, None]
    share = np.nansum(op.weight * each, (1, 2, 3))
    weight = np.where(np.isnan(each), op.weight, 0)
    return replace(op, weight=floats(weight), bias=floats(op.bias + share))


def constants(op: Op, shape: Shape, *inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number in every pixel of each channel that `op` makes, NaN where pixels differ.

    `inputs` says the same of what it reads; a convolution has absorbed it.
    """
    x = inputs[0]
    match op:
        case Conv():
            return np.where(op.weight.any((1, 2, 3)), np.nan, op.bias)
        case Affine():
            return np.where(op.scale == 0, op.shift, x * op.scale + op.shift)
        case Activation():
            return _activation(op, x)
        case Combine():
            return _combined(op, *inputs)
        case Gather():
            return x[list(op.channels)]
        case Concat():
            return np.concatenate(inputs)
        case Pool() if op.how == "mean" and op.count_padding and any(op.padding):
            return np.where(x == 0, x, np.nan)
        case Crop() | Pool() | Reduce("mean" | "max", "pixels"):
            return x
    return np.full(shape[0], np.nan)


def _activation(op: Activation, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A function of each element, computed here."""
    with np.errstate(all="ignore"):
        match op.kind:
            case "clip":
                return np.clip(x, op.low, op.high)
            case "leaky":
                return np.where(x > 0, x, x * op.low)
            case "sigmoid" | "silu":
                return (x if op.kind == "silu" else 1.0) / (1 + np.exp(-x))
            case "hardsigmoid" | "hardswish":
                return (x if op.kind == "hardswish" else 1.0) * np.clip(x / 6 + 0.5, 0, 1)
            case "exp":
                return np.exp(x)
            case "expm1":
                return np.expm1(x)
            case "tanh":
                return np.tanh(x)
            case "erf":
                return np.array([math.erf(number) for number in x])
            case "sqrt":
                return np.sqrt(x)
            case "reciprocal":
                return 1 / x
            case "log":
                return np.log(x)
            case "softplus":
                return np.logaddexp(0, x)
            case "power":
                return np.power(x, op.low)
            case "round":
                return np.rint(x)


def _combined(op: Combine, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two values element by element; nothing times zero is zero."""
    with np.errstate(all="ignore"):
        match op.how:
            case "add":
                return x + y
            case "sub":
                return x - y
            case "mul":
                return np.where((x == 0) | (y == 0), 0, x * y)
            case "div":
                return x / y
            case "max":
                return np.maximum(x, y)
            case "min":
                return np.minimum(x, y)


def needs(graph: Graph) -> dict[str, Mask]:
    """The channels of each value from which the output is computed."""
    needed = {value: np.zeros(shape[0], np.bool_) for value, shape in graph.shapes.items()}
    needed[graph.output][:] = True
    for node in reversed(graph.nodes):
        if needed[node.output].any():
            widths = [graph.shapes[value][0] for value in node.inputs]
            for value, mask in zip(
                node.inputs, reads(node.op, needed[node.output], widths), strict=True
            ):
                needed[value] |= mask
    return needed


def reads(op: Op, needed: Mask, widths: list[int]) -> list[Mask]:
    """For each input of `op`, as wide as told, the channels behind those needed of its result."""
    if _by_channel(op):
        return [needed]
    match op:
        case Conv():
            return [kept(op, needed)[1]]
        case Combine():
            return [needed, needed if widths[1] == len(needed) else np.ones(1, np.bool_)]
        case Gather():
            mask = np.zeros(widths[0], np.bool_)
            mask[np.array(op.channels)[needed]] = True
            return [mask]
        case Concat():
            return np.split(needed, np.cumsum(widths[:-1]))
    return [np.ones(width, np.bool_) for width in widths]


def kept(op: Conv, needed: Mask) -> tuple[Mask, Mask]:
    """Output and input channels of a convolution that stay: what is needed, in groups alike."""
    outputs = needed.reshape(op.groups, -1)
    read: Mask = np.any(op.weight, (2, 3)).reshape(*outputs.shape, -1)
    alive: Mask = np.any(outputs, 1, keepdims=True)
    inputs: Mask = np.any(read & outputs[:, :, None], 1)
    return _even(outputs, alive).ravel(), _even(inputs, alive).ravel()


def _even(channels: Mask, alive: Mask) -> Mask:
    """As many channels in each group that is alive as the fullest one needs, and at least one."""
    count = max(channels.sum(1).max(), 1)
    first = np.argsort(~channels, axis=1, kind="stable")[:, :count]
    full = np.zeros_like(channels)
    np.put_along_axis(full, first, True, 1)
    return full & alive


def _without(graph: Graph, needed: dict[str, Mask]) -> Graph:
    """The graph with what is needed of each value, or a little more."""
    new = empty(graph.shapes[graph.input])
    names = {graph.input: new.input}
    have = {graph.input: np.ones_like(needed[graph.input])}

    def part(value: str, mask: Mask) -> str:
        """The name of these channels of an old value."""
        if np.array_equal(have[value], mask):
            return names[value]
        places = np.flatnonzero(mask[have[value]])
        return new.add(Gather(tuple(places.tolist())), names[value], name=f"{value}_needed")

    for node in graph.nodes:
        mask = needed[node.output]
        if not mask.any():
            continue
        read = reads(node.op, mask, [graph.shapes[value][0] for value in node.inputs])
        if _by_channel(node.op):
            mask = have[node.inputs[0]]
            read = [mask]
        op, have[node.output] = _narrow(node.op, mask, read)
        parts = [part(v, m) for v, m in zip(node.inputs, read, strict=True) if m.any()]
        alone = isinstance(op, Concat) and len(parts) == 1
        names[node.output] = parts[0] if alone else new.add(op, *parts, name=node.output)
    new.output = names[graph.output]
    return new


def _by_channel(op: Op) -> bool:
    """Whether each channel of the result comes from the same one of the only input."""
    pixels = isinstance(op, Reduce) and op.over == "pixels"
    return pixels or isinstance(op, Affine | Activation | Crop | Pool)


def _narrow(op: Op, mask: Mask, read: list[Mask]) -> tuple[Op, Mask]:
    """The operator for some channels of its result and of what it reads; those it makes."""
    match op:
        case Conv():
            outputs = kept(op, mask)[0]
            return _cut(op, outputs, read[0]), outputs
        case Affine():
            return Affine(op.scale[mask], op.shift[mask]), mask
        case Gather():
            places = np.searchsorted(np.flatnonzero(read[0]), np.array(op.channels)[mask])
            return Gather(tuple(places.tolist())), mask
    if _by_channel(op) or isinstance(op, Combine | Concat):
        return op, mask
    return op, np.ones_like(mask)  # others make all of their result, whatever is needed of it


def _cut(op: Conv, outputs: Mask, inputs: Mask) -> Conv:
    """A convolution of some of its channels, as many in each group that stays."""
    group = np.repeat(inputs.reshape(op.groups, -1), len(op.weight) // op.groups, 0)[outputs]
    weight: Floats = op.weight[outputs][group].reshape(len(group), -1, *op.weight.shape[2:])
    groups = int(inputs.reshape(op.groups, -1).any(1).sum())
    weight_scale = None if op.weight_scale is None else op.weight_scale[outputs]
    return replace(
        op, weight=floats(weight), bias=op.bias[outputs], groups=groups, weight_scale=weight_scale
    )
