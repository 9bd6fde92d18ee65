"""Building a graph while following where each element comes from.

Exporters write one channel shuffle, split or flatten in many ways: view, transpose, reshape, slice,
squeeze, expand. Instead of matching patterns, a `View` carries the index of every element in the
value it came from; numpy moves the indices as the exporter would move the data, and only where an
operator needs the result do we look at what has become of them. Both importers build on this.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import UnsupportedError
from leancnn.native.graph import (
    Activate,
    Affine,
    Combine,
    Conv,
    Crop,
    Curve,
    Graph,
    Join,
    Pool,
    Reduce,
    Reshape,
    Shape,
    Sides,
    Take,
    empty,
    floats,
)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Elements of a graph's value under the exporter's own shape, batch included.

    `index` is None while they are all there in order.
    """

    value: str
    shape: tuple[int, ...]
    index: NDArray[np.int64] | None = None

    def elements(self) -> NDArray[np.int64]:
        """The place in the value of every element."""
        if self.index is not None:
            return self.index
        return np.arange(math.prod(self.shape)).reshape(self.shape)

    def moved(self, move: Callable[[NDArray[np.int64]], Any]) -> "View":
        """The view after a rearrangement, given as a function of an array."""
        index = np.asarray(move(self.elements()))
        plain = index.size == math.prod(self.shape) and self.index is None
        if plain and np.array_equal(index.ravel(), np.arange(index.size)):
            return View(self.value, index.shape)
        return View(self.value, index.shape, index)


def image_shape(shape: Sequence[int]) -> Shape:
    """(1, C, H, W), (1, C) or (C,) as (C, H, W). Raises `UnsupportedError` for anything else."""
    sizes = tuple(shape)
    if len(sizes) > 1:
        if sizes[0] != 1:
            raise UnsupportedError(f"a value of shape {sizes}; the compiler takes one image a time")
        sizes = sizes[1:]
    if len(sizes) > 3:
        raise UnsupportedError(f"a value of shape {tuple(shape)}; the compiler knows (1, C, H, W)")
    c, h, w = (*sizes, 1, 1, 1)[:3]
    return (c, h, w)


class Builder:
    """A graph under construction; its methods take and give views."""

    def __init__(self, shape: Shape) -> None:
        self.graph: Graph = empty(shape)
        self.name = "value"  # of the next operator, set by the importer

    def image(self) -> View:
        """The network's input."""
        return View(self.graph.input, (1, *self.graph.shapes[self.graph.input]))

    def add(self, op: Any, *inputs: str, like: Sequence[int] | None = None) -> View:
        """Append an operator; `like` is the exporter's shape of the result, if not (1, C, H, W)."""
        value = self.graph.add(op, *inputs, name=self.name)
        shape = self.graph.shapes[value]
        return View(value, tuple(like) if like is not None else (1, *shape))

    def settle(self, view: View) -> str:
        """The name of a value that holds what the view shows, as (C, H, W)."""
        shape = image_shape(view.shape)
        have = self.graph.shapes[view.value]
        if view.index is None:
            if shape == have:
                return view.value
            return self.graph.add(Reshape(shape), view.value, name=f"{view.value}_flat")
        index = view.index.reshape(shape)
        size = have[1] * have[2]
        if shape[1:] == have[1:]:
            channels = index[:, 0, 0] // size
            if np.array_equal(
                index.reshape(shape[0], -1), channels[:, None] * size + np.arange(size)
            ):
                return self._take(view.value, channels)
        if shape[1] <= have[1] and shape[2] <= have[2]:
            channels, first = index[:, 0, 0] // size, int(index[0, 0, 0] % size)
            window = Crop(first // have[2], first % have[2], shape[1], shape[2])
            inside = np.arange(shape[1])[:, None] * have[2] + np.arange(shape[2]) + first
            if np.array_equal(index, channels[:, None, None] * size + inside):
                value = self._take(view.value, channels)
                return self.graph.add(window, value, name=f"{view.value}_window")
        sampled = self._sampled(view.value, index, have)
        if sampled is not None:
            return sampled
        flat = index.ravel()
        if np.array_equal(flat, np.arange(math.prod(have))):
            return self.graph.add(Reshape(shape), view.value, name=f"{view.value}_flat")
        if have[1:] == (1, 1) and shape[1:] != (1, 1):
            spread = self._take(view.value, flat)
            return self.graph.add(Reshape(shape), spread, name=f"{view.value}_spread")
        if shape[1:] == (1, 1):
            whole = (math.prod(have), 1, 1)
            vector = self.graph.add(Reshape(whole), view.value, name=f"{view.value}_flat")
            return self._take(vector, flat)
        raise UnsupportedError(
            f"the rearrangement of {view.value} from {have} to {shape} moves single pixels; "
            "only channels, windows and whole flattenings can be moved"
        )

    def _sampled(self, value: str, index: NDArray[np.int64], have: Shape) -> str | None:
        """Every so many rows and columns of a window, when that is what the index says."""
        _, h, w = index.shape
        size = have[1] * have[2]
        channels, first = index[:, 0, 0] // size, int(index[0, 0, 0] % size)
        down = int(index[0, 1, 0] - index[0, 0, 0]) if h > 1 else have[2]
        right = int(index[0, 0, 1] - index[0, 0, 0]) if w > 1 else 1
        if down < have[2] or down % have[2] or right < 1:
            return None
        inside = np.arange(h)[:, None] * down + np.arange(w) * right + first
        if not np.array_equal(index, channels[:, None, None] * size + inside):
            return None
        step = (down // have[2], right)
        window = Crop(first // have[2], first % have[2], (h - 1) * step[0] + 1, (w - 1) * right + 1)
        taken = self._take(value, channels)
        if (window.top, window.left, window.height, window.width) != (0, 0, *have[1:]):
            taken = self.graph.add(window, taken, name=f"{value}_window")
        return self.graph.add(Pool("max", (1, 1), step), taken, name=f"{value}_sampled")

    def _take(self, value: str, channels: NDArray[np.int64]) -> str:
        if np.array_equal(channels, np.arange(self.graph.shapes[value][0])):
            return value
        chosen = Take(tuple(int(c) for c in channels))
        return self.graph.add(chosen, value, name=f"{value}_taken")

    def conv(
        self,
        x: View,
        weight: Any,
        bias: Any,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> View:
        """A convolution; `padding` is top, left, bottom, right."""
        kernel = floats(weight)
        if kernel.ndim != 4:
            raise UnsupportedError(f"a convolution with a kernel of shape {kernel.shape}; only 2-D")
        shift = np.zeros(len(kernel), np.float32) if bias is None else floats(bias)
        sides: Sides = tuple(int(side) for side in padding)  # type: ignore[assignment]
        op = Conv(kernel, shift, _pair(stride), sides, _pair(dilation), groups)
        return self.add(op, self.settle(x))

    def linear(self, x: View, weight: Any, bias: Any) -> View:
        """A matrix product with the last axis."""
        if math.prod(x.shape[:-1]) != 1:
            raise UnsupportedError(f"a linear layer on {x.shape}; the compiler knows (1, features)")
        kernel = floats(weight)[:, :, None, None]
        shift = np.zeros(len(kernel), np.float32) if bias is None else floats(bias)
        return self.add(Conv(kernel, shift), self.settle(x), like=(*x.shape[:-1], len(kernel)))

    def affine(self, x: View, scale: Any, shift: Any) -> View:
        """Channels times `scale` plus `shift`, each one number, or one per channel."""
        value = self.settle(x)
        c = self.graph.shapes[value][0]
        spread = [np.broadcast_to(floats(part).reshape(-1), (c,)) for part in (scale, shift)]
        return self.add(Affine(floats(spread[0]), floats(spread[1])), value, like=x.shape)

    def activate(self, x: View, curve: Curve, low: float = 0.0, high: float = math.inf) -> View:
        """A function of each element."""
        return self.add(Activate(curve, low, high), self.settle(x), like=x.shape)

    def combine(self, how: Any, x: View | Any, y: View | Any) -> View:
        """Two views, or a view and a constant, element by element with broadcasting."""
        if not isinstance(x, View):
            return self._constant_first(how, np.asarray(x, np.float32), y)
        if not isinstance(y, View):
            return self._constant_second(how, x, np.asarray(y, np.float32))
        shape = np.broadcast_shapes(x.shape, y.shape)
        if math.prod(x.shape) < math.prod(y.shape):
            if how in ("sub", "div"):
                second = self.affine(y, -1, 0) if how == "sub" else self.activate(y, "reciprocal")
                return self.combine("add" if how == "sub" else "mul", second, x)
            x, y = y, x
        if len(shape) == 3:  # a matrix of stacked vectors: as one long vector
            flat = [
                side.moved(lambda a: np.broadcast_to(a, shape).reshape(1, -1)) for side in (x, y)
            ]
            return self.add(Combine(how), *(self.settle(side) for side in flat), like=shape)
        return self.add(Combine(how), self.settle(x), self.settle(_narrow(y)), like=shape)

    def _constant_first(self, how: str, x: NDArray[np.float32], y: View) -> View:
        if how == "sub":
            return self._constant_second("add", self.affine(y, -1, 0), x)
        if how == "div":
            return self._constant_second("mul", self.activate(y, "reciprocal"), x)
        return self._constant_second(how, y, x)

    def _constant_second(self, how: str, x: View, y: NDArray[np.float32]) -> View:
        if y.size > 1:
            c = image_shape(x.shape)[0]
            axis = y.ndim - (len(x.shape) - 1)
            if y.size != c or axis < 0 or y.shape[axis] != c:
                raise UnsupportedError(f"a constant of shape {y.shape} against {x.shape}")
        match how:
            case "add":
                return self.affine(x, 1, y)
            case "sub":
                return self.affine(x, 1, -y)
            case "mul":
                return self.affine(x, y, 0)
            case "div":
                return self.affine(x, 1 / y, 0)
            case "max" if y.size == 1:
                return self.activate(x, "clip", float(y))
            case "min" if y.size == 1:
                return self.activate(x, "clip", -math.inf, float(y))
        raise UnsupportedError(f"{how} with a constant of shape {y.shape}")

    def join(self, parts: Sequence[View], axis: int) -> View:
        """Concatenation along the channels, or of vectors that become rows of one."""
        first = parts[0].shape
        axis %= len(first)
        rest = math.prod(first[:axis])
        if rest != 1:
            raise UnsupportedError(f"a concatenation of {first} along axis {axis}; only channels")
        shape = (*first[:axis], sum(part.shape[axis] for part in parts), *first[axis + 1 :])
        if axis == 1 and len(first) == 4:
            return self.add(Join(), *(self.settle(part) for part in parts))
        flat = [part.moved(lambda a: a.reshape(1, -1)) for part in parts]
        return self.add(Join(), *(self.settle(part) for part in flat), like=shape)

    def pool(self, x: View, op: Pool) -> View:
        """Sliding windows."""
        return self.add(op, self.settle(x))

    def reduce(self, x: View, how: Any, axes: Sequence[int], keep: bool) -> View:
        """Over rows and columns of an image, over channels of a vector, or along a matrix."""
        axes = sorted(axis % len(x.shape) for axis in axes)
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        if not keep:
            shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
        real = [axis for axis in axes if x.shape[axis] > 1]
        if not real and how != "norm":
            return x.moved(lambda a: a.reshape(shape))
        have = self.graph.shapes[x.value]
        if len(x.shape) == 3 and have[1:] != (1, 1):  # (N, C, pixels) of an image
            spread = x.moved(lambda a: a.reshape(1, x.shape[1], 1, x.shape[2]))
            return self.reduce(spread, how, [2, 3], keep).moved(lambda a: a.reshape(shape))
        if len(x.shape) == 4 and set(real) <= {2, 3}:
            return self._over_pixels(x, how, real, shape)
        if len(x.shape) == 3 and real in ([1], [2]):
            return self._over_matrix(x, how, real[0], shape)
        value = self.settle(x)
        if real in ([1], []) and self.graph.shapes[value][1:] == (1, 1):
            return self.add(Reduce(how, "channels"), value, like=shape)
        raise UnsupportedError(f"{how} of {x.shape} over axes {axes}; pixels or channels only")

    def _over_pixels(self, x: View, how: Any, real: list[int], shape: list[int]) -> View:
        """Over rows, columns, or both, of (1, C, H, W)."""
        value = self.settle(x)
        _, h, w = self.graph.shapes[value]
        if len(real) == 2 or 1 in (h, w):
            return self.add(Reduce(how, "pixels"), value, like=shape)
        if how not in ("max", "mean"):
            raise UnsupportedError(f"{how} of {x.shape} over axis {real[0]} alone")
        kernel = (h, 1) if real == [2] else (1, w)
        return self.add(Pool(how, kernel, (1, 1)), value, like=shape)

    def _over_matrix(self, x: View, how: str, axis: int, shape: list[int]) -> View:
        """(1, R, C) over R or C: its rows taken apart, each a vector."""
        flat = self.settle(x.moved(lambda a: a.reshape(1, -1)))
        rows, width = x.shape[1:]
        part = [
            View(flat, (1, width), np.arange(r * width, (r + 1) * width)[None]) for r in range(rows)
        ]
        if axis == 2:
            parts = [self.reduce(row, how, [1], keep=True) for row in part]
            return self.join(parts, 1).moved(lambda a: a.reshape(shape))
        if how not in ("sum", "max"):
            raise UnsupportedError(f"{how} of {x.shape} over axis {axis}")
        total = part[0]
        for row in part[1:]:
            total = self.combine("add" if how == "sum" else "max", total, row)
        return total.moved(lambda a: a.reshape(shape))

    def pad(self, x: View, sides: Sequence[int]) -> View:
        """Zeros around an image; `sides` are channels before and after, then rows, then columns."""
        front, back, top, bottom, left, right = sides
        if top or bottom or left or right:
            c = x.shape[1]
            one = np.ones((c, 1, 1, 1), np.float32)
            x = self.conv(x, one, None, padding=(top, left, bottom, right), groups=c)
        parts = [x]
        for count, at in ((front, 0), (back, 1)):
            if count:
                chosen = np.arange(count) % x.shape[1]
                zeros = x.moved(partial(np.take, indices=chosen, axis=1))
                parts.insert(at * len(parts), self.affine(zeros, 0, 0))
        return self.join(parts, 1) if len(parts) > 1 else x


def _narrow(view: View) -> View:
    """A view without the axes along which it only repeats itself: an expanded gate, a norm."""
    if view.index is None or len(view.shape) < 2:
        return view
    index = view.index
    for axis in range(1, index.ndim):
        first = np.take(index, [0], axis)
        if index.shape[axis] > 1 and np.array_equal(index, np.broadcast_to(first, index.shape)):
            index = first
    return View(view.value, index.shape, index)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    rows, columns = (*values, *values)[:2]
    return int(rows), int(columns)


def sides(padding: Sequence[int]) -> Sides:
    """(rows, columns) of padding on both sides as top, left, bottom, right."""
    rows, columns = _pair(padding)
    return rows, columns, rows, columns


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
