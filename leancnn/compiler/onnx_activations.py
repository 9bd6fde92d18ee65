"""ONNX operators on each element: activations, sums and products."""

import math
from functools import partial
from typing import Any

import numpy as np

from leancnn.compiler import activations
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import View
from leancnn.compiler.onnx_ops import Call, handles
from leancnn.errors import UnsupportedError


@handles("Relu")
def _relu(b: Builder, call: Call) -> View:
    return b.activate(call.view(), "clip")


@handles("Clip")
def _clip(b: Builder, call: Call) -> View:
    low, high = call.either("min", 1), call.either("max", 2)
    low = -math.inf if low is None else float(np.ravel(low)[0])
    high = math.inf if high is None else float(np.ravel(high)[0])
    return b.activate(call.view(), "clip", low, high)


@handles("LeakyRelu")
def _leaky(b: Builder, call: Call) -> View:
    return b.activate(call.view(), "leaky", call.get("alpha", 0.01))


@handles("PRelu")
def _prelu(b: Builder, call: Call) -> View:
    return activations.prelu(b, call.view(), call.constant(1, "slope"))


@handles("HardSigmoid")
def _hard_sigmoid(b: Builder, call: Call) -> View:
    line = b.affine(call.view(), call.get("alpha", 0.2), call.get("beta", 0.5))
    return b.activate(line, "clip", 0, 1)


@handles("Elu")
def _elu(b: Builder, call: Call) -> View:
    return activations.elu(b, call.view(), call.get("alpha", 1.0))


@handles("Selu")
def _selu(b: Builder, call: Call) -> View:
    alpha, gamma = call.get("alpha", 1.6732632), call.get("gamma", 1.0507010)
    return activations.elu(b, call.view(), alpha, gamma)


@handles("Celu")
def _celu(b: Builder, call: Call) -> View:
    alpha = call.get("alpha", 1.0)
    return activations.elu(b, call.view(), alpha, 1.0, alpha)


@handles("Gelu")
def _gelu(b: Builder, call: Call) -> View:
    return activations.gelu(b, call.view(), by_tanh=call.get("approximate", "none") == "tanh")


@handles("Swish")
def _swish(b: Builder, call: Call) -> View:
    x = call.view()
    return b.combine("mul", x, b.activate(b.affine(x, call.get("alpha", 1.0), 0), "sigmoid"))


@handles("Neg")
def _negative(b: Builder, call: Call) -> View:
    return b.affine(call.view(), -1, 0)


@handles("Pow")
def _power(b: Builder, call: Call) -> View:
    return activations.power(b, call.view(), call.constant(1, "exponent"))


for _name, _curve in (
    ("Sigmoid", "sigmoid"),
    ("HardSwish", "hardswish"),
    ("Exp", "exp"),
    ("Erf", "erf"),
    ("Sqrt", "sqrt"),
    ("Reciprocal", "reciprocal"),
):

    def _curved(b: Builder, call: Call, curve: Any = _curve) -> View:
        return b.activate(call.view(), curve)

    handles(_name)(_curved)
for _name, _function in (
    ("Abs", activations.absolute),
    ("Mish", activations.mish),
    ("Softsign", activations.softsign),
    ("Tanh", activations.tanh),
):

    def _composed(b: Builder, call: Call, function: Any = _function) -> View:
        made: View = function(b, call.view())
        return made

    handles(_name)(_composed)


def _combined(how: Any, b: Builder, call: Call) -> Any:
    """Any number of values, one after the other."""
    total, *others = _aligned(call)
    if how in ("sub", "div") and len(others) != 1:
        raise UnsupportedError(f"it has {len(call.values)} inputs, not two")
    for value in others:
        both = not isinstance(total, View) and not isinstance(value, View)
        total = CONSTANTS[how](total, value) if both else b.combine(how, total, value)
    return total


def _aligned(call: Call) -> list[Any]:
    """The operands; before operator set 7 an axis says where the second's first one stands."""
    if call.get("axis") is None or len(call.values) != 2:
        return call.values
    first, second = call.values
    after = len(first.shape) - int(call.get("axis")) % len(first.shape) - len(second.shape)
    shape = (*second.shape, *(1,) * after)
    moved = isinstance(second, View)
    return [first, second.moved(lambda a: a.reshape(shape)) if moved else second.reshape(shape)]


CONSTANTS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
for _name, _how in (
    ("Add", "add"),
    ("Sum", "add"),
    ("Sub", "sub"),
    ("Mul", "mul"),
    ("Div", "div"),
    ("Max", "max"),
    ("Min", "min"),
):
    handles(_name)(partial(_combined, _how))


@handles("Mean")
def _mean(b: Builder, call: Call) -> View:
    return b.affine(_combined("add", b, call), 1 / len(call.values), 0)
