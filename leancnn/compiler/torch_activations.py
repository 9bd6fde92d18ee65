"""Aten operators on each element: activations, sums and products."""

import math
from typing import Any

from torch import Tensor

from leancnn.compiler import activations
from leancnn.compiler.handlers import Handler
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.torch_ops import channelwise, handles
from leancnn.errors import UnsupportedError


@handles("relu")
def _relu(b: Builder, x: IndexMap) -> IndexMap:
    return b.activate(x, "clip")


@handles("relu6")
def _relu6(b: Builder, x: IndexMap) -> IndexMap:
    return b.activate(x, "clip", 0, 6)


@handles("clamp")
def _clamp(
    b: Builder, x: IndexMap, low: float | None = None, high: float | None = None
) -> IndexMap:
    return b.activate(
        x, "clip", -math.inf if low is None else low, math.inf if high is None else high
    )


@handles("clamp_min")
def _clamp_min(b: Builder, x: IndexMap, low: float) -> IndexMap:
    made: IndexMap = _clamp(b, x, low)
    return made


@handles("clamp_max")
def _clamp_max(b: Builder, x: IndexMap, high: float) -> IndexMap:
    made: IndexMap = _clamp(b, x, None, high)
    return made


@handles("hardtanh")
def _hardtanh(b: Builder, x: IndexMap, low: float = -1, high: float = 1) -> IndexMap:
    made: IndexMap = _clamp(b, x, low, high)
    return made


@handles("leaky_relu")
def _leaky(b: Builder, x: IndexMap, slope: float = 0.01) -> IndexMap:
    return b.activate(x, "leaky", slope)


LINEAR = 14  # log(1 + exp x) less x is below a unit in the last place of x from there on
KINDS = (
    "sigmoid",
    "hardsigmoid",
    "silu",
    "hardswish",
    "exp",
    "expm1",
    "tanh",
    "erf",
    "sqrt",
    "reciprocal",
    "log",
)
for _kind in KINDS:
    handles(_kind)(lambda b, x, kind=_kind: b.activate(x, kind))


@handles("softplus")
def _softplus(b: Builder, x: IndexMap, beta: float = 1, threshold: float = 20) -> IndexMap:
    if threshold < LINEAR:  # from there on it is a line, which does not meet the activation
        raise UnsupportedError(f"a threshold of {threshold:g}; only of {LINEAR} or more")
    if beta == 1:
        return b.activate(x, "softplus")
    return b.affine(b.activate(b.affine(x, beta, 0), "softplus"), 1 / beta, 0)


def _combiner(how: str) -> Handler:
    def combine(b: Builder, x: Any, y: Any, *, alpha: float = 1) -> IndexMap:
        if alpha != 1:
            y = b.affine(y, alpha, 0) if isinstance(y, IndexMap) else y * alpha
        return b.combine(how, x, y)

    return combine


for _name, _how in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("div", "div")):
    handles(_name)(_combiner(_how))
handles("maximum")(_combiner("max"))
handles("minimum")(_combiner("min"))


@handles("rsub")
def _rsub(b: Builder, x: IndexMap, y: Any, alpha: float = 1) -> IndexMap:
    return b.combine("sub", y, x if alpha == 1 else b.affine(x, alpha, 0))


@handles("pow")
def _pow(b: Builder, x: Any, exponent: Any) -> IndexMap:
    if not isinstance(x, IndexMap) or isinstance(exponent, IndexMap):
        raise UnsupportedError("a power whose exponent is computed from the image")
    return activations.power(b, x, exponent)


@handles("rsqrt")
def _rsqrt(b: Builder, x: IndexMap) -> IndexMap:
    return b.activate(b.activate(x, "sqrt"), "reciprocal")


@handles("neg")
def _negative(b: Builder, x: IndexMap) -> IndexMap:
    return b.affine(x, -1, 0)


@handles("elu")
def _elu(b: Builder, x: IndexMap, alpha: float = 1, scale: float = 1, wide: float = 1) -> IndexMap:
    return activations.elu(b, x, alpha, scale, 1 / wide)


@handles("selu")
def _selu(b: Builder, x: IndexMap) -> IndexMap:
    return activations.elu(b, x, 1.6732632423543772, 1.0507009873554805)


@handles("celu")
def _celu(b: Builder, x: IndexMap, alpha: float = 1) -> IndexMap:
    return activations.elu(b, x, alpha, 1.0, alpha)


@handles("gelu")
def _gelu(b: Builder, x: IndexMap, *, approximate: str = "none") -> IndexMap:
    return activations.gelu(b, x, by_tanh=approximate == "tanh")


@handles("prelu", "_prelu_kernel")
def _prelu(b: Builder, x: IndexMap, slope: Tensor) -> IndexMap:
    return activations.prelu(b, x, slope if slope.dim() > 1 else channelwise(x, slope))


for _name, _function in (
    ("abs", activations.absolute),
    ("mish", activations.mish),
):
    handles(_name)(lambda b, x, function=_function: function(b, x))
