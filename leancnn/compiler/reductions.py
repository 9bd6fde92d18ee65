"""Many elements to fewer: sliding windows, means and maxima over any axes, norms, softmax.

The kernels know all pixels of a channel, all channels of a vector and sliding windows; everything
else that exporters write is composed of these here. Both importers build on it.
"""

import math
from collections.abc import Sequence
from itertools import product
from operator import itemgetter
from typing import Literal

import numpy as np

from leancnn.compiler.graph import Pool, Reduce, Sides, Softmax
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.errors import UnsupportedError

How = Literal["mean", "sum", "max", "norm"]
ROWS = 64  # vectors that are taken apart one by one, at most


def reduce(b: Builder, x: IndexMap, how: How, axes: Sequence[int], keep: bool) -> IndexMap:
    """One number of all elements along some axes. Raises `UnsupportedError`."""
    chosen = sorted({axis % len(x.shape) for axis in axes})
    shape = [1 if axis in chosen else size for axis, size in enumerate(x.shape)]
    if not keep:
        shape = [size for axis, size in enumerate(x.shape) if axis not in chosen]
    real = [axis for axis in chosen if x.shape[axis] > 1]
    if real:
        made = _reduced(b, x, how, real)
    else:
        made = b.activate(x, "leaky", -1.0) if how == "norm" else x
    return made.moved(lambda a: a.reshape(shape))


def _reduced(b: Builder, x: IndexMap, how: How, real: list[int]) -> IndexMap:
    """`reduce` over axes longer than one; the elements of the result in order."""
    last = len(x.shape) - 1
    rest = [axis for axis in range(last + 1) if axis not in real]
    rows = math.prod(x.shape[axis] for axis in rest)
    flat = x.moved(lambda a: a.transpose(*rest, *real).reshape(1, rows, -1))
    whole = _pixels(b, x, flat, how, real)
    if whole is not None:
        return whole
    if last > 2 and real == [last - 2, last - 1, last]:  # of images: their channels, then those
        each = reduce(b, x, how, real[1:], keep=True)
        return reduce(b, each, how, real[:1], keep=True)
    if rows == 1:
        return b.add(
            Reduce(how, "channels"), b.materialise(flat.moved(lambda a: a[0])), like=(1, 1)
        )
    if last == 3:
        if real == [1]:
            return _over_channels(b, x, how)
        if real == [3] and not _is_image(b, x):  # channels last
            return _over_channels(b, x.moved(lambda a: a.transpose(0, 3, 1, 2)), how)
        if real in ([2], [3]):
            return _over_lines(b, x, how, real[0])
    return _over_rows(b, flat, how)


def _pixels(b: Builder, x: IndexMap, flat: IndexMap, how: How, real: list[int]) -> IndexMap | None:
    """Over all pixels of some window of channels, if that is what the axes are."""
    _, *have = b.graph.shapes[x.value]
    if math.prod(have) == 1:
        return None
    count = flat.shape[2]
    sizes = [[x.shape[axis] for axis in real]] if len(real) == 2 else []
    if len(real) == 1 and len(x.shape) == 4 and real[0] > 1 and 1 in x.shape[2:]:
        sizes += [list(x.shape[2:])]
    sizes += [have] if math.prod(have) == count else []
    sizes += [[1, count], [count, 1]] if len(real) == 1 else []  # a part of each row or column
    for height, width in sizes:
        image = _shaped(flat, 1, -1, height, width)
        try:
            value = b.materialise(image, by_pixel=False)
        except UnsupportedError:
            continue
        return b.add(Reduce(how, "pixels"), value, like=(1, flat.shape[1]))
    return None


def _part(x: IndexMap, axis: int, places: int | slice) -> IndexMap:
    """Some places along an axis; one alone leaves the axis out."""
    return x.moved(itemgetter((slice(None),) * axis + (places,)))


def _shaped(x: IndexMap, *shape: int) -> IndexMap:
    return x.moved(lambda a: a.reshape(shape))


def _is_image(b: Builder, x: IndexMap) -> bool:
    """Whether a view can be held as (1, C, H, W), as it is."""
    try:
        b.materialise(x, by_pixel=False)
    except UnsupportedError:
        return False
    return True


def _over_channels(b: Builder, x: IndexMap, how: How) -> IndexMap:
    """All channels of each pixel of (1, C, H, W), as (1, 1, H, W)."""
    count = x.shape[1]
    if how in ("mean", "sum"):
        share = 1.0 / count if how == "mean" else 1.0
        return b.conv(x, np.full((1, count, 1, 1), share, np.float32), None)
    if how == "norm":
        return b.activate(_over_channels(b, b.combine("mul", x, x), "sum"), "sqrt")
    while count > 1:  # halves against each other
        half = (count + 1) // 2
        first, second = (_part(x, 1, places) for places in (slice(half), slice(-half, None)))
        x, count = b.combine("max", first, second), half
    return x


def _over_lines(b: Builder, x: IndexMap, how: How, axis: int) -> IndexMap:
    """All rows (axis 2) or columns (3) of (1, C, H, W)."""
    _, _, h, w = x.shape
    if how == "norm":
        return b.activate(_over_lines(b, b.combine("mul", x, x), "sum", axis), "sqrt")
    kernel = (h, 1) if axis == 2 else (1, w)
    made = b.pool(x, Pool("max" if how == "max" else "mean", kernel, (1, 1)))
    return b.affine(made, math.prod(kernel), 0) if how == "sum" else made


def _over_rows(b: Builder, flat: IndexMap, how: How) -> IndexMap:
    """(1, K, R) over R: vector by vector, or vectors against each other, whichever are fewer."""
    _, rows, count = flat.shape
    if min(rows, count) > ROWS:
        turned = flat.moved(lambda a: a.transpose(0, 2, 1)[..., None])
        return _shaped(_over_channels(b, turned, how), 1, rows)
    value = b.materialise(flat.moved(lambda a: a.reshape(1, -1)))
    whole = IndexMap(value, flat.shape)
    if rows <= count:
        each = [_part(whole, 1, row) for row in range(rows)]
        made = [b.add(Reduce(how, "channels"), b.materialise(part), like=(1, 1)) for part in each]
        return b.concat(made, 1)
    parts = [_part(whole, 2, place) for place in range(count)]
    if how == "norm":
        parts = [b.combine("mul", part, part) for part in parts]
    total = parts[0]
    for part in parts[1:]:
        total = b.combine("max" if how == "max" else "add", total, part)
    if how == "mean":
        return b.affine(total, 1.0 / count, 0)
    return b.activate(total, "sqrt") if how == "norm" else total


def softmax(b: Builder, x: IndexMap, axis: int, *, log: bool = False) -> IndexMap:
    """exp over its sum along an axis; or the logarithm of that."""
    axis %= len(x.shape)
    count = x.shape[axis]
    if count == math.prod(x.shape):
        value = b.materialise(x.moved(lambda a: a.reshape(1, -1)))
        return b.add(Softmax(log), value, like=x.shape)
    flat = x.moved(lambda a: np.moveaxis(a, axis, 0).reshape(1, count, *_rest(x.shape, axis)))
    flat = flat.moved(lambda a: a.reshape(1, count, -1, a.shape[-1]))
    most = reduce(b, flat, "max", [1], keep=True)
    less = b.combine("sub", flat, most)
    shares = b.activate(less, "exp")
    total = reduce(b, shares, "sum", [1], keep=True)
    if log:
        made = b.combine("sub", less, b.activate(total, "log"))
    else:
        made = b.combine("div", shares, total)
    return made.moved(lambda a: np.moveaxis(a.reshape(count, *_rest(x.shape, axis)), 0, axis))


def _rest(shape: Sequence[int], axis: int) -> list[int]:
    return [size for place, size in enumerate(shape) if place != axis]


def normalised(
    b: Builder, x: IndexMap, axes: Sequence[int], epsilon: float, *, of: str = "variance"
) -> IndexMap:
    """Elements less their mean, over their deviation, both along some axes.

    `of` says what epsilon is added to: the variance, or its root, the deviation.
    """
    centred = b.combine("sub", x, reduce(b, x, "mean", axes, keep=True))
    variance = reduce(b, b.combine("mul", centred, centred), "mean", axes, keep=True)
    if of == "deviation":
        return b.combine("div", centred, b.affine(b.activate(variance, "sqrt"), 1, epsilon))
    return b.combine("div", centred, b.activate(b.affine(variance, 1, epsilon), "sqrt"))


def adaptive(b: Builder, x: IndexMap, size: Sequence[int], how: Literal["mean", "max"]) -> IndexMap:
    """Pooling of (1, C, H, W) to so many rows and columns, whose windows may overlap."""
    (_, c, h, w), (rows, columns) = x.shape, size
    sizes = ((h, rows), (w, columns))
    if (rows, columns) == (1, 1):
        return reduce(b, x, how, (2, 3), keep=True)
    if (rows, columns) == (h, w):
        return x
    if h % rows == 0 and w % columns == 0:
        step = (h // rows, w // columns)
        return b.pool(x, Pool(how, step, step))
    if rows * columns > ROWS:
        raise UnsupportedError(f"adaptive pooling of {h}×{w} to {rows}×{columns}: uneven windows")
    spans = [[(i * n // k, -(-(i + 1) * n // k)) for i in range(k)] for n, k in sizes]
    parts = [
        reduce(b, _part(_part(x, 2, slice(*p)), 3, slice(*q)), how, (2, 3), True)
        for p, q in product(*spans)
    ]
    joined = b.concat(parts, 1)
    return joined.moved(lambda a: a.reshape(rows, columns, c).transpose(2, 0, 1)[None])


def windows(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sides, ceil: bool
) -> tuple[Sides, tuple[int, int]]:
    """The padding that makes ceil mode plain, and how much of it was added at bottom and right."""
    if not ceil:
        return pad, (0, 0)
    beyond = []
    for axis in (0, 1):
        size, k, s = shape[axis - 2], kernel[axis], stride[axis]
        room = size + pad[axis] + pad[axis + 2]
        places = -(-(room - k) // s) + 1
        if (places - 1) * s >= size + pad[axis]:  # a window must begin inside image or left padding
            places -= 1
        beyond.append(max((places - 1) * s + k - room, 0))
    return (pad[0], pad[1], pad[2] + beyond[0], pad[3] + beyond[1]), (beyond[0], beyond[1])
