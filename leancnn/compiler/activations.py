"""Functions of each element that are composed of the kernels' own. Both importers build on it."""

import math
from typing import Any

import numpy as np

from leancnn.compiler.graph import floats
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.errors import UnsupportedError


def tanh(b: Builder, x: IndexMap) -> IndexMap:
    """The hyperbolic tangent."""
    return b.activate(x, "tanh")


def elu(
    b: Builder, x: IndexMap, alpha: float = 1.0, scale: float = 1.0, wide: float = 1.0
) -> IndexMap:
    """x where it is positive, else α(exp(x / wide) − 1); all times `scale`."""
    low = b.affine(b.activate(x, "clip", -math.inf, 0.0), 1 / wide, 0)
    bent = b.affine(b.activate(low, "expm1"), alpha * scale, 0)
    return b.combine("add", b.affine(b.activate(x, "clip"), scale, 0), bent)


def prelu(b: Builder, x: IndexMap, slope: Any) -> IndexMap:
    """x where it is positive, else x times a slope, a number or what numpy would broadcast."""
    slope = floats(slope)
    if slope.size == 1:
        return b.activate(x, "leaky", slope.item())
    low = b.affine(b.activate(x, "clip", -math.inf, 0.0), slope, 0)
    return b.combine("add", b.activate(x, "clip"), low)


def gelu(b: Builder, x: IndexMap, *, by_tanh: bool = False) -> IndexMap:
    """x times the normal distribution's share below x, or its usual approximation."""
    if by_tanh:
        cube = b.affine(power(b, x, 3), 0.044715, 0)
        inner = b.affine(b.combine("add", cube, x), 2 * math.sqrt(2 / math.pi), 0)
        return b.combine("mul", x, b.activate(inner, "sigmoid"))
    share = b.affine(b.activate(b.affine(x, math.sqrt(0.5), 0), "erf"), 0.5, 0.5)
    return b.combine("mul", x, share)


def mish(b: Builder, x: IndexMap) -> IndexMap:
    """x times tanh of log(1 + exp x), by n = exp x: n(n + 2) over n(n + 2) + 2; from 20 on x."""
    n = b.activate(b.activate(x, "clip", -math.inf, 20.0), "exp")
    above = b.combine("mul", n, b.affine(n, 1, 2))
    return b.combine("mul", x, b.combine("div", above, b.affine(above, 1, 2)))


def softsign(b: Builder, x: IndexMap) -> IndexMap:
    """x over 1 + |x|."""
    return b.combine("div", x, b.affine(absolute(b, x), 1, 1))


def absolute(b: Builder, x: IndexMap) -> IndexMap:
    """A leaky ReLU that turns what is negative over."""
    return b.activate(x, "leaky", -1.0)


def power(b: Builder, x: IndexMap, exponent: Any) -> IndexMap:
    """x to constant powers, one for all or one for each channel."""
    exponents = np.asarray(exponent, np.float64)
    kinds = np.unique(exponents)
    if len(kinds) == 1:
        return _power(b, x, kinds.item())
    shape = np.broadcast_shapes(x.shape, exponents.shape)
    each = np.broadcast_to(exponents, shape)
    x = x.moved(lambda a: np.broadcast_to(a, shape))
    made = _power(b, x, float(kinds[0]))
    for number in kinds[1:]:
        made = b.select(each == number, _power(b, x, float(number)), made)
    return made


def _power(b: Builder, x: IndexMap, number: float) -> IndexMap:
    """Products for whole numbers up to 4, roots and reciprocals by functions of their own."""
    if number in (-0.5, -1.0, -2.0):
        return b.activate(_power(b, x, -number), "reciprocal")
    if number == 0.5:
        return b.activate(x, "sqrt")
    if number not in (1.0, 2.0, 3.0, 4.0):
        return b.activate(x, "power", number)
    made = x
    for _ in range(int(number) - 1):
        made = b.combine("mul", made, x)
    return made


def power_of(b: Builder, base: Any, x: IndexMap) -> IndexMap:
    """Positive constants to the power of x, by exp(x · log(base)). Raises `UnsupportedError`."""
    base = np.asarray(base, np.float64)
    if not (base > 0).all():
        raise UnsupportedError(
            f"a power of {base.min():g} with a computed exponent; only of positive numbers"
        )
    return b.activate(b.affine(x, np.log(base), 0), "exp")
