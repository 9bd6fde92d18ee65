"""Weights that suit processors which multiply bytes in pairs, such as those with AVX2 and no VNNI.

Their instruction adds two products of an unsigned and a signed byte to 16 bits, and saturates: it
is exact where two neighbouring weights of one sign add up to no more than 128. The quantizer
chooses scales for that, and C of layers where it holds takes three instructions for four, on half
the words of weights, and gives the same bits.
"""

import numpy as np

from leancnn.compiler.integers import Array

MOST = 128  # 255 · 128 is less than 2^15


def rows_in_words(rows: range) -> tuple[int, ...]:
    """Up to four rows of a depthwise window in the order of a word: no two next to each other are
    a pair where there are more than two.

    >>> rows_in_words(range(3))
    (0, 2, 1)
    """
    order = (0, 2, 1, 3) if len(rows) > 2 else (0, 1)
    return tuple(rows[at] for at in order if at < len(rows))


def in_words(weight: Array, *, depthwise: bool) -> Array:
    """(c_out, c_in / groups, rows, columns) as (c_out, …, 4), as words of four hold them: four
    inputs of a tap or, depthwise, four rows of a column."""
    lined = np.moveaxis(weight, 2 if depthwise else 1, 3)
    if depthwise:
        chunks = [rows_in_words(range(at, min(at + 4, lined.shape[3])))
                  for at in range(0, lined.shape[3], 4)]  # fmt: skip
        lined = lined[..., [row for chunk in chunks for row in chunk]]
    many = lined.shape[3]
    lined = np.pad(lined, ((0, 0), (0, 0), (0, 0), (0, -many % 4)))
    return lined.reshape(len(weight), -1, 4)


def largest_pairs(words: Array) -> Array:
    """Of each output the most, in magnitude, that a pair's weights of one sign add up to:
    (c_out, words, 4) to (c_out,).

    >>> largest_pairs(np.array([[[3.0, 2.0, 4.0, -4.0]]]))
    array([5.])
    """
    pairs = words.reshape(len(words), -1, 2)
    one, other = (np.maximum(sign * pairs, 0).sum(2).max(1, initial=0) for sign in (1, -1))
    return np.asarray(np.maximum(one, other))


def pairs_fit(words: Array) -> bool:
    """Whether weights (…, 4) may be multiplied in pairs of bytes, whatever the bytes are."""
    return bool(largest_pairs(words.reshape(1, -1, 4).astype(np.int32))[0] <= MOST)
