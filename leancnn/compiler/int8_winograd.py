"""Winograd's F(2×2, 3×3) in integers: where it gives the same sums, and where it takes less time.

A tile of 2 × 2 outputs reads 4 × 4 pixels. Both are taken to 16 points (Winograd 1980; Lavin and
Gray 2016), where 16 products do what 36 did. Pixels only add up: at a point stand up to four bytes,
±1020, in 16 bits. Weights are taken with twice the matrix in both directions, integers of up to
9 · 128, so that sums are four times the window's, exactly, and a shift by 2 gives these. Sums at
the points and what they add up to are modulo 2³²; the last, four times the window's, is right if it
has room in 32 bits. So the bits are those of any other way.

It pays where bytes are multiplied in pairs (int8_pairs.py), or not at all; one instruction that
adds up four products is faster than it. That is known where the C is compiled, and the C has both.
"""

import numpy as np

from leancnn.compiler.graph import Shape
from leancnn.compiler.integers import Array, QConv

TWICE = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
"""What takes three taps to four points, times two."""
LANES = 8  # where it matters most
# What it takes, where a product of a vector of quads takes 1 (the unit of int8_tiles): measured by
# `python benchmarks/int8_costs.py winograd`.
INTO = 60.0  # a quad of a vector of tiles to its points
PRODUCT = 1.25  # of a vector of quads at a point
BACK = 22.0  # a vector of sums at the points to its pixels
GAIN = 1.1  # times faster, from which on it is taken


def suits(node: QConv, x: Shape, out: Shape) -> bool:
    """Whether a convolution of these shapes (C, H, W) is done at points."""
    window = (node.weight.shape[2:], node.stride, node.dilation, node.padding)
    dense = node.groups == 1 and node.weight.shape[:2] != (1, 1)  # which is depthwise as well
    plain = window == ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    return dense and plain and out[1:] != (1, 1) and exact(node.weight) and pays(x, out)


def exact(weight: Array) -> bool:
    """Whether four times any sum of bytes by weights (c_out, c_in, 3, 3) has room in 32 bits.

    >>> exact(np.full((1, 1837, 3, 3), 127)), exact(np.full((1, 1843, 3, 3), 127))
    (True, False)
    """
    wide = weight.astype(np.int64)
    most = (np.maximum(sign * wide, 0).sum((1, 2, 3)).max(initial=0) for sign in (1, -1))
    return bool(4 * 255 * max(most) < 2**31)


def pays(x: Shape, out: Shape) -> bool:
    """Whether it takes clearly less time than the window's products."""
    return gain(x, out) > GAIN


def gain(x: Shape, out: Shape) -> float:
    """How many times faster it is, about, on vectors of eight."""
    inputs, outputs = -(-x[0] // 4), 4 * -(-out[0] // 4)
    high, wide = out[1:]
    window = -(-high * wide // LANES) * inputs * outputs * 9
    each = inputs * INTO + outputs * BACK + inputs * outputs * 16 * PRODUCT
    return window / (vectors(high, wide) * each)


def vectors(high: int, wide: int) -> int:
    """Vectors of tiles: along pairs of rows, or two pairs of short rows in one."""
    if wide <= LANES:
        return -(-high // 4)
    return -(-high // 2) * -(-wide // (2 * LANES))


def points(weight: Array) -> Array:
    """Weights (c_out, c_in, 3, 3) at the points, times four: (c_out, c_in, 16), int32."""
    found = np.einsum("ir,ocrs,js->ocij", TWICE, weight.astype(np.int32), TWICE)
    return np.asarray(found.reshape(*weight.shape[:2], 16).astype(np.int32))


def point_words(words: Array) -> Array:
    """Weights as a quad at a time takes them, (outputs / 4, quads, 9, 4, 4), for each four outputs,
    point, quad and output as two pairs of 16 bits: int32, in that order.
    """
    tiles, quads = words.shape[:2]
    windows = words.transpose(0, 3, 1, 4, 2).reshape(tiles * 4, quads * 4, 3, 3)
    at = points(windows).reshape(tiles, 4, quads, 4, 16).transpose(0, 4, 2, 1, 3)
    at = at.astype(np.int16).view(np.uint16).astype(np.uint32)
    pairs = at[..., :2] | at[..., 2:] << 16  # channels 0 and 2, 1 and 3: see int8_prelude.h
    return np.ascontiguousarray(pairs.astype(np.uint32).view(np.int32).ravel())
