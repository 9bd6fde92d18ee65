"""Views of a quantized network made of others: nothing is copied, only places are named."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from leancnn.compiler.graph import Node, Shape
from leancnn.compiler.int8_weights import no_integers
from leancnn.compiler.integers import QConcat, QCrop, QGather, QValue


def flattened(
    node: Node, source: str, x: QValue, to: Shape
) -> Iterator[tuple[QCrop | QConcat | QGather, QValue]]:
    """All pixels of `x` as channels, those of one channel together: a crop a pixel, joined and put
    in order; each view with what its numbers mean. Raises `UnsupportedError` for another shape."""
    c, h, w = x.shape
    name, pixels = node.output, []
    if to != (c * h * w, 1, 1):
        raise no_integers(node)
    for top, left in np.ndindex(h, w):
        pixels.append(f"{name}_{top}_{left}")
        yield QCrop(source, pixels[-1], top, left), replace(x, shape=(c, 1, 1))
    joined = f"{name}_joined"
    scale, zero = np.tile(x.scale, h * w), np.tile(x.zero, h * w)
    yield QConcat(tuple(pixels), joined), replace(x, shape=to, scale=scale, zero=zero)
    order = np.arange(c * h * w).reshape(h * w, c).T.ravel()
    value = replace(x, shape=to, scale=scale[order], zero=zero[order])
    yield QGather(joined, name, tuple(order.tolist())), value
