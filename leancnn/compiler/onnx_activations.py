"""ONNX operators on each element: activations, sums and products."""

import math
from functools import partial
from typing import Any

import numpy as np

from leancnn.compiler import activations
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.onnx_call import Call, handles
from leancnn.errors import UnsupportedError

OLD = "consumed_inputs"  # a hint of the first operator sets
ELEMENTS = (1, 6, 13)


@handles("Relu", sets=(1, 6, 13, 14), hints=OLD)
def _relu(b: Builder, call: Call) -> IndexMap:
    return b.activate(call.view(), "clip")


@handles("Clip", sets=(1, 6, 11, 12, 13), reads="min max", hints=OLD)
def _clip(b: Builder, call: Call) -> IndexMap:
    low, high = call.either("min", 1), call.either("max", 2)
    low = -math.inf if low is None else float(np.ravel(low)[0])
    high = math.inf if high is None else float(np.ravel(high)[0])
    return b.activate(call.view(), "clip", low, high)


@handles("LeakyRelu", sets=(1, 6, 16), reads="alpha", hints=OLD)
def _leaky(b: Builder, call: Call) -> IndexMap:
    return b.activate(call.view(), "leaky", call.get("alpha", 0.01))


@handles("PRelu", sets=(7, 9, 16))
def _prelu(b: Builder, call: Call) -> IndexMap:
    return activations.prelu(b, call.view(), call.constant(1, "slope"))


@handles("HardSigmoid", sets=(1, 6, 22), reads="alpha beta", hints=OLD)
def _hard_sigmoid(b: Builder, call: Call) -> IndexMap:
    line = b.affine(call.view(), call.get("alpha", 0.2), call.get("beta", 0.5))
    return b.activate(line, "clip", 0, 1)


@handles("Elu", sets=(1, 6, 22), reads="alpha", hints=OLD)
def _elu(b: Builder, call: Call) -> IndexMap:
    return activations.elu(b, call.view(), call.get("alpha", 1.0))


@handles("Selu", sets=(1, 6, 22), reads="alpha gamma", hints=OLD)
def _selu(b: Builder, call: Call) -> IndexMap:
    alpha, gamma = call.get("alpha", 1.6732632), call.get("gamma", 1.0507010)
    return activations.elu(b, call.view(), alpha, gamma)


@handles("Celu", sets=(12, 28), reads="alpha")
def _celu(b: Builder, call: Call) -> IndexMap:
    alpha = call.get("alpha", 1.0)
    return activations.elu(b, call.view(), alpha, 1.0, alpha)


@handles("Gelu", sets=(20,), reads="approximate")
def _gelu(b: Builder, call: Call) -> IndexMap:
    approximate = call.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise UnsupportedError(f"its attribute approximate is {approximate}; known are none, tanh")
    return activations.gelu(b, call.view(), by_tanh=approximate == "tanh")


@handles("Swish", sets=(24,), reads="alpha")
def _swish(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    return b.combine("mul", x, b.activate(b.affine(x, call.get("alpha", 1.0), 0), "sigmoid"))


@handles("Neg", sets=(1, 6, 13), hints=OLD)
def _negative(b: Builder, call: Call) -> IndexMap:
    return b.affine(call.view(), -1, 0)


@handles("Pow", sets=(7, 12, 13, 15))
def _power(b: Builder, call: Call) -> IndexMap:
    base = call.value(0)
    if isinstance(base, IndexMap):
        return activations.power(b, base, call.constant(1, "exponent"))
    return activations.power_of(b, np.asarray(base), call.view(1))


for _name, _kind, _sets in (
    ("Sigmoid", "sigmoid", ELEMENTS),
    ("HardSwish", "hardswish", (14, 22)),
    ("Exp", "exp", ELEMENTS),
    ("Log", "log", ELEMENTS),
    ("Softplus", "softplus", (1, 22)),
    ("Erf", "erf", (9, 13)),
    ("Sqrt", "sqrt", ELEMENTS),
    ("Reciprocal", "reciprocal", ELEMENTS),
):

    def _activated(b: Builder, call: Call, kind: Any = _kind) -> IndexMap:
        return b.activate(call.view(), kind)

    handles(_name, sets=_sets, hints=OLD)(_activated)
for _name, _function, _sets in (
    ("Abs", activations.absolute, ELEMENTS),
    ("Mish", activations.mish, (18, 22)),
    ("Softsign", activations.softsign, (1, 22)),
    ("Tanh", activations.tanh, ELEMENTS),
):

    def _composed(b: Builder, call: Call, function: Any = _function) -> IndexMap:
        made: IndexMap = function(b, call.view())
        return made

    handles(_name, sets=_sets, hints=OLD)(_composed)


def _combined(how: Any, b: Builder, call: Call) -> Any:
    """Any number of values, one after the other."""
    total, *others = _aligned(call)
    if how in ("sub", "div") and len(others) != 1:
        raise UnsupportedError(f"it has {len(call.values)} inputs, not two")
    for value in others:
        both = not isinstance(total, IndexMap) and not isinstance(value, IndexMap)
        total = CONSTANTS[how](total, value) if both else b.combine(how, total, value)
    return total


def _aligned(call: Call) -> list[Any]:
    """The operands; before operator set 7 an axis says where the second's first one stands."""
    if "axis" not in call.known or call.get("axis") is None or len(call.values) != 2:
        return call.values
    first, second = call.values
    after = len(first.shape) - int(call.get("axis")) % len(first.shape) - len(second.shape)
    shape = (*second.shape, *(1,) * after)
    moved = isinstance(second, IndexMap)
    return [first, second.moved(lambda a: a.reshape(shape)) if moved else second.reshape(shape)]


CONSTANTS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
for _name, _how in (("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("Div", "div")):
    handles(_name, sets=(1, 6, 7, 13, 14), reads="axis", hints=f"broadcast {OLD}")(
        partial(_combined, _how)
    )
handles("Sum", sets=(1, 6, 8, 13), hints=OLD)(partial(_combined, "add"))
for _name, _how in (("Max", "max"), ("Min", "min")):
    handles(_name, sets=(1, 6, 8, 12, 13), hints=OLD)(partial(_combined, _how))


@handles("Mean", sets=(1, 6, 8, 13), hints=OLD)
def _mean(b: Builder, call: Call) -> IndexMap:
    return b.affine(_combined("add", b, call), 1 / len(call.values), 0)
