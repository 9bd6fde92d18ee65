"""Operators of the float graph as nodes of ONNX, where a layer stays in float32."""

from collections.abc import Callable
from typing import Any

import numpy as np

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Op,
    Pool,
    Reduce,
    Reshape,
    Shape,
    Softmax,
)
from leancnn.errors import UnsupportedError

Add = Callable[..., str]
"""Append a node of a kind with inputs, and its output's name; attributes by keyword."""
Constant = Callable[[Any], str]

PLAIN = {
    "sigmoid": "Sigmoid",
    "hardswish": "HardSwish",
    "exp": "Exp",
    "tanh": "Tanh",
    "erf": "Erf",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "log": "Log",
    "softplus": "Softplus",
    "round": "Round",
}
COMBINED = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"}
REDUCED = {"mean": "ReduceMean", "max": "ReduceMax", "norm": "ReduceL2"}


def add_layer(op: Op, xs: list[str], shape: Shape, out: str, add: Add, constant: Constant) -> None:
    """Append the nodes of an operator whose result has this shape. Raises `UnsupportedError`."""
    match op:
        case Conv():
            sides = {"strides": list(op.stride), "pads": list(op.padding), "group": op.groups}
            given = [xs[0], constant(op.weight), constant(op.bias)]
            add("Conv", given, out, dilations=list(op.dilation), **sides)
        case Affine():
            scaled = add("Mul", [xs[0], constant(_channels(op.scale))], f"{out}_scaled")
            add("Add", [scaled, constant(_channels(op.shift))], out)
        case Activation():
            _activation(op, xs[0], out, add, constant)
        case Combine(how):
            add(COMBINED[how], xs, out)
        case Gather(channels):
            add("Gather", [xs[0], constant(np.array(channels))], out, axis=1)
        case Concat():
            add("Concat", xs, out, axis=1)
        case Crop(top, left, height, width):
            ends = [[top, left], [top + height, left + width], [2, 3]]
            add("Slice", [xs[0], *(constant(np.array(end)) for end in ends)], out)
        case Pool():
            _pool(op, xs[0], out, add)
        case Reduce(how, over):
            axes = [2, 3] if over == "pixels" else [1]
            if how == "sum":
                add("ReduceSum", [xs[0], constant(np.array(axes))], out, keepdims=1)
            else:
                add(REDUCED[how], xs, out, axes=axes, keepdims=1)
        case Reshape():
            add("Reshape", [xs[0], constant(np.array([1, *shape]))], out)
        case Softmax():
            add("LogSoftmax" if op.log else "Softmax", xs, out, axis=1)
        case _:
            raise UnsupportedError(f"{type(op).__name__.lower()} (at {out}) is not written as ONNX")


def _activation(op: Activation, x: str, out: str, add: Add, constant: Constant) -> None:
    match op.kind:
        case "clip":
            low, high = (constant(np.array(end, np.float32)) for end in (op.low, op.high))
            add("Clip", [x, low, high], out)
        case "leaky":
            add("LeakyRelu", [x], out, alpha=op.low)
        case "hardsigmoid":
            add("HardSigmoid", [x], out, alpha=1 / 6, beta=0.5)
        case "silu":
            add("Mul", [x, add("Sigmoid", [x], f"{out}_gate")], out)
        case "expm1":
            one = constant(np.ones((), np.float32))
            add("Sub", [add("Exp", [x], f"{out}_exp"), one], out)
        case "power":
            add("Pow", [x, constant(np.array(op.low, np.float32))], out)
        case _:
            add(PLAIN[op.kind], [x], out)


def _pool(op: Pool, x: str, out: str, add: Add) -> None:
    sides = {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": list(op.padding)}
    if op.how == "max":
        add("MaxPool", [x], out, **sides)
    elif op.beyond != (0, 0):
        raise UnsupportedError(f"a mean that rounds up (at {out}) is not written as ONNX")
    else:
        add("AveragePool", [x], out, count_include_pad=int(op.count_padding), **sides)


def _channels(numbers: Any) -> Any:
    return numbers.reshape(1, -1, 1, 1)
