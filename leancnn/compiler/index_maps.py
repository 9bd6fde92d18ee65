"""Building a graph from views: operators, with broadcasting and shapes as numpy has them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import (
    Activation,
    ActivationKind,
    Affine,
    Combine,
    Concat,
    Conv,
    Floats,
    Graph,
    Pool,
    Quantize,
    Reduce,
    Shape,
    Sides,
    empty,
    floats,
)
from leancnn.compiler.materialise import MOVED, IndexMap, materialise
from leancnn.errors import UnsupportedError


class Builder:
    """A graph under construction; its methods take and give views."""

    def __init__(self, shape: Shape) -> None:
        self.graph: Graph = empty(shape)
        self.name = "value"  # of the next operator, set by the importer

    def image(self, shape: Sequence[int] | None = None, *, channels_last: bool = False) -> IndexMap:
        """The network's input, under the exporter's own shape."""
        c, h, w = self.graph.shapes[self.graph.input]
        whole = IndexMap(self.graph.input, (1, c, h, w))
        if channels_last:
            return whole.moved(lambda a: a.transpose(0, 2, 3, 1))
        return whole if shape is None else whole.moved(lambda a: a.reshape(tuple(shape)))

    def add(self, op: Any, *inputs: str, like: Sequence[int] | None = None) -> IndexMap:
        """Append an operator; `like` is the exporter's shape of the result, if not (1, C, H, W)."""
        value = self.graph.add(op, *inputs, name=self.name)
        shape = self.graph.shapes[value]
        if like is not None and math.prod(like) != math.prod(shape):
            raise UnsupportedError(f"a value of shape {tuple(like)}, computed as {shape}")
        return IndexMap(value, tuple(like) if like is not None else (1, *shape))

    def materialise(self, view: IndexMap, *, by_pixel: bool = True) -> str:
        """The name of a value that holds what the view shows, as (C, H, W)."""
        return materialise(self.graph, view, by_pixel=by_pixel)

    def conv(
        self,
        x: IndexMap,
        weight: Any,
        bias: Any,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> IndexMap:
        """A convolution; `padding` is top, left, bottom, right."""
        kernel = floats(weight)
        if kernel.ndim == 3 and len(x.shape) == 3:  # along one axis
            line = x.moved(lambda a: a.reshape(1, x.shape[1], 1, x.shape[2]))
            sizes = {"stride": (1, stride[0]), "dilation": (1, dilation[0])}
            around = (0, padding[0], 0, padding[-1])
            made = self.conv(line, kernel[:, :, None], bias, padding=around, groups=groups, **sizes)
            return made.moved(lambda a: a.reshape(1, len(kernel), -1))
        if kernel.ndim != 4 or len(x.shape) != 4:
            raise UnsupportedError(
                f"a kernel of shape {kernel.shape} over {x.shape}; only 1-D and 2-D convolutions"
            )
        if x.shape[1] != groups * kernel.shape[1] or len(kernel) % groups:
            raise UnsupportedError(
                f"a kernel of shape {kernel.shape} in {groups} groups for {x.shape[1]} channels"
            )
        shift = _shift(bias, len(kernel))
        sides: Sides = tuple(int(side) for side in padding)  # type: ignore[assignment]
        op = Conv(kernel, shift, _pair(stride), sides, _pair(dilation), groups)
        return self.add(op, self.materialise(x))

    def linear(self, x: IndexMap, weight: Any, bias: Any) -> IndexMap:
        """A matrix (outputs, inputs) by every vector along the last axis."""
        kernel = floats(weight)
        if kernel.ndim != 2 or not x.shape or x.shape[-1] != kernel.shape[1]:
            raise UnsupportedError(f"a matrix of shape {kernel.shape} by values of shape {x.shape}")
        shift = _shift(bias, len(kernel))
        points, rest = kernel[:, :, None, None], x.shape[:-1]
        count = math.prod(rest)
        if count == 1:
            vector = self.materialise(x.moved(lambda a: a.reshape(1, -1)))
            return self.add(Conv(points, shift), vector, like=(*rest, len(kernel)))
        _, *have = self.graph.shapes[x.value]
        room = (rest[1], rest[2]) if len(rest) == 3 and rest[0] == 1 else (count, 1)
        room = (have[0], have[1]) if math.prod(have) == count else room
        image = x.moved(lambda a: np.moveaxis(a, -1, 0).reshape(1, x.shape[-1], *room))
        made = self.conv(image, points, shift)
        return made.moved(lambda a: np.moveaxis(a.reshape(len(kernel), *rest), 0, -1))

    def affine(self, x: IndexMap, scale: Any, shift: Any) -> IndexMap:
        """Elements times `scale` plus `shift`, numbers or arrays that numpy would broadcast."""
        scale, shift = floats(scale), floats(shift)
        shape = _broadcast(x.shape, scale.shape, shift.shape)
        x = self._whole(x.moved(lambda a: np.broadcast_to(a, shape)))
        factors, terms = self._by_channel(x, scale), self._by_channel(x, shift)
        if factors is None or terms is None:  # a number for each pixel
            if math.prod(shape) > MOVED:
                raise UnsupportedError(
                    f"a constant that differs from pixel to pixel, for {math.prod(shape):,} of "
                    f"them; only for {MOVED:,}"
                )
            x = IndexMap(self.materialise(x.moved(lambda a: a.reshape(1, -1))), shape)
            factors, terms = (
                floats(np.broadcast_to(numbers, shape).ravel()) for numbers in (scale, shift)
            )
        made = self.graph.add(Affine(factors, terms), x.value, name=self.name)
        return IndexMap(made, x.shape, x.index)

    def activate(
        self, x: IndexMap, kind: ActivationKind, low: float = 0.0, high: float = math.inf
    ) -> IndexMap:
        """A function of each element."""
        x = self._whole(x)
        op = Activation(kind, low, high)
        return IndexMap(self.graph.add(op, x.value, name=self.name), x.shape, x.index)

    def quantize(self, x: IndexMap, scale: Any, zero: Any, low: float, high: float) -> IndexMap:
        """Whole numbers; scale and zero are numbers or arrays that numpy would broadcast."""
        x = self._whole(x)
        scales, zeros = self._by_channel(x, floats(scale)), self._by_channel(x, floats(zero))
        if scales is None or zeros is None:
            raise UnsupportedError("its scales differ from pixel to pixel")
        made = self.graph.add(Quantize(scales, zeros, low, high), x.value, name=self.name)
        return IndexMap(made, x.shape, x.index)

    def combine(self, how: Any, x: IndexMap | Any, y: IndexMap | Any) -> IndexMap:
        """Two views, or a view and a constant, element by element with broadcasting."""
        if not isinstance(x, IndexMap):
            return self._constant_first(how, floats(x), y)
        if not isinstance(y, IndexMap):
            return self._constant_second(how, x, floats(y))
        shape = _broadcast(x.shape, y.shape)
        if math.prod(x.shape) < math.prod(y.shape):
            if how in ("sub", "div"):
                second = self.affine(y, -1, 0) if how == "sub" else self.activate(y, "reciprocal")
                return self.combine("add" if how == "sub" else "mul", second, x)
            x, y = y, x
        x = self._whole(x.moved(lambda a: np.broadcast_to(a, shape)))
        have = self.graph.shapes[x.value]
        if x.index is None and y.index is None and self.graph.shapes[y.value] == have:
            other = y.value
        else:  # the second's elements in the order in which the first's value holds its own
            order = np.empty(math.prod(have), np.int64)
            order[x.elements().ravel()] = np.broadcast_to(y.elements(), shape).ravel()
            other = self._operand(IndexMap(y.value, (1, *have), order.reshape(1, *have)), have)
        return IndexMap(
            self.graph.add(Combine(how), x.value, other, name=self.name), shape, x.index
        )

    def _whole(self, x: IndexMap) -> IndexMap:
        """A view that shows each element of its value once, in any order."""
        if x.index is None:
            return x
        size = math.prod(self.graph.shapes[x.value])
        if x.index.size == size and (np.bincount(x.index.ravel(), minlength=size) == 1).all():
            return x
        return IndexMap(self.materialise(x), x.shape)

    def _operand(self, y: IndexMap, have: Shape) -> str:
        """A value of `have` rows and columns, or of one pixel, for a combination."""
        value = self.materialise(_narrow(y))
        _, h, w = self.graph.shapes[value]
        if (h, w) in ((1, 1), have[1:]):
            return value
        kernel = (have[1] if h == 1 else 1, have[2] if w == 1 else 1)  # one row or column for all
        sides = (kernel[0] - 1, kernel[1] - 1) * 2
        return self.graph.add(Pool("max", kernel, (1, 1), sides), value, name=f"{value}_spread")

    def _by_channel(self, x: IndexMap, numbers: Floats) -> Floats | None:
        """A constant as one number for each channel of the value that a view shows; None where
        pixels of a channel get different ones."""
        have = self.graph.shapes[x.value]
        if numbers.size == 1:
            return np.full(have[0], numbers.ravel()[0])
        order = np.empty(math.prod(have), np.float32)
        order[x.elements().ravel()] = np.broadcast_to(numbers, x.shape).ravel()
        table = order.reshape(have[0], -1)
        if not np.array_equal(table, np.broadcast_to(table[:, :1], table.shape), equal_nan=True):
            return None
        return floats(table[:, 0])

    def _constant_first(self, how: str, x: Floats, y: IndexMap) -> IndexMap:
        if how == "sub":
            return self._constant_second("add", self.affine(y, -1, 0), x)
        if how == "div":
            return self._constant_second("mul", self.activate(y, "reciprocal"), x)
        return self._constant_second(how, y, x)

    def _constant_second(self, how: str, x: IndexMap, y: Floats) -> IndexMap:
        match how:
            case "add":
                return self.affine(x, 1, y)
            case "sub":
                return self.affine(x, 1, -y)
            case "mul":
                return self.affine(x, y, 0)
            case "div":
                return self.affine(x, 1 / y.astype(np.float64), 0)
        if (y == y.ravel()[0]).all() and _broadcast(x.shape, y.shape) == x.shape:
            low, high = (y.item(0), math.inf) if how == "max" else (-math.inf, y.item(0))
            return self.activate(x, "clip", low, high)
        return self.combine(how, x, self.affine(x, 0, y))

    def concat(self, parts: Sequence[IndexMap | Any], axis: int) -> IndexMap:
        """Concatenation along any axis: that of the channels costs nothing."""
        base = next(part for part in parts if isinstance(part, IndexMap))
        first = base.shape
        axis %= len(first)
        _same_sizes([np.shape(p) if not isinstance(p, IndexMap) else p.shape for p in parts], axis)
        if math.prod(first[:axis]) != 1:  # in front of the others, behind the batch
            lead = first[0] == 1
            turned = [
                rearranged(p, lambda a: np.moveaxis(a if lead else a[None], axis + (not lead), 1))
                for p in parts
            ]
            made = self.concat(turned, 1).moved(lambda a: np.moveaxis(a, 1, axis + (not lead)))
            return made if lead else made.moved(itemgetter(0))
        views = [part if isinstance(part, IndexMap) else self._made(base, part) for part in parts]
        shape = (*first[:axis], sum(part.shape[axis] for part in views), *first[axis + 1 :])
        room: tuple[int, ...] = (1, -1)
        if len(first) >= 4 and axis <= len(first) - 3:
            room = (1, -1, *first[-2:])
        elif len(first) == 3 and axis == 1:
            _, *have = self.graph.shapes[base.value]
            room = (1, -1, *have) if math.prod(have) == first[2] else room
        moved = [part.moved(lambda a: a.reshape(room)) for part in views]
        return self.add(Concat(), *(self.materialise(part) for part in moved), like=shape)

    def _made(self, like: IndexMap, constant: Any) -> IndexMap:
        """A constant of an image's size beside it, as channels that do not depend on theirs."""
        numbers = floats(constant)
        if numbers.shape[2:] != like.shape[2:] or numbers.ndim < 2:
            raise UnsupportedError(f"a constant of shape {numbers.shape} beside {like.shape}")
        chosen = np.arange(numbers.shape[1]) % like.shape[1]
        return self.affine(like.moved(partial(np.take, indices=chosen, axis=1)), 0, numbers)

    def select(self, chosen: NDArray[np.bool_], x: IndexMap | Any, y: IndexMap | Any) -> Any:
        """Elements of `x` where it is chosen, of `y` elsewhere; constants broadcast."""
        shape = chosen.shape
        x, y = (rearranged(part, lambda a: np.broadcast_to(a, shape)) for part in (x, y))
        if chosen.all() or not chosen.any():
            return x if chosen.all() else y
        flat = [rearranged(part, lambda a: a.reshape(1, *shape)) for part in (x, y)]
        if len(shape) > 1 and shape[0] == 1:
            flat = [x, y]
        joined, count = self.concat(flat, 1), flat[0].shape[1]
        where = chosen.reshape(flat[0].shape)
        picked = joined.moved(lambda a: np.where(where, a[:, :count], a[:, count:]))
        return picked.moved(lambda a: a.reshape(shape))

    def pool(self, x: IndexMap, op: Pool) -> IndexMap:
        """Sliding windows; one as large as the image is a reduction of its pixels."""
        value = self.materialise(x)
        if not any(op.padding) and op.kernel == self.graph.shapes[value][1:]:
            return self.add(Reduce(op.how, "pixels"), value)
        return self.add(op, value)

    def pad(self, x: IndexMap, sides: Sequence[int], fill: float = 0.0) -> IndexMap:
        """A number around an image; `sides` are channels before and after, then rows, then columns.

        What is negative is cut off. Minus infinity is what a maximum does not see.
        """
        if len(x.shape) != 4:
            raise UnsupportedError(f"padding of {x.shape}; only of (1, C, H, W)")
        cut = [slice(None)] + [
            slice(max(-before, 0), size - max(-after, 0))
            for before, after, size in zip(sides[::2], sides[1::2], x.shape[1:], strict=True)
        ]
        x = x.moved(lambda a: a[tuple(cut)])
        front, back, top, bottom, left, right = (max(side, 0) for side in sides)
        around: Sides = (top, left, bottom, right)
        if any(around) and fill < -1e30:
            x = self.add(Pool("max", (1, 1), (1, 1), around), self.materialise(x))
        elif any(around):
            one = np.ones((x.shape[1], 1, 1, 1), np.float32)
            inside = self.affine(x, 0, 1)  # added as an image of its own, no pixel is rounded
            x = self.conv(x, one, None, padding=around, groups=x.shape[1])
            if fill != 0:
                ring = self.conv(inside, one, None, padding=around, groups=x.shape[1])
                x = self.combine("add", x, self.affine(ring, -fill, fill))
        filled = [np.full((1, count, *x.shape[2:]), fill) for count in (front, back)]
        parts = [part for part in (filled[0], x, filled[1]) if part.shape[1]]
        return self.concat(parts, 1) if len(parts) > 1 else x


def rearranged(part: IndexMap | Any, move: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """A view or a constant after a rearrangement."""
    return part.moved(move) if isinstance(part, IndexMap) else move(np.asarray(part))


def _same_sizes(shapes: Sequence[Sequence[int]], axis: int) -> None:
    """Raises `UnsupportedError` for a concatenation of what does not fit together."""
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) > 1 or len({len(shape) for shape in shapes}) > 1:
        words = ", ".join(str(tuple(shape)) for shape in shapes)
        raise UnsupportedError(f"a concatenation of {words} along axis {axis}")


def _shift(bias: Any, count: int) -> Floats:
    """A bias as one number for each output; zeros without one. Raises `UnsupportedError`."""
    given = floats(0 if bias is None else bias).reshape(-1)
    if len(given) not in (1, count):
        raise UnsupportedError(f"a bias of {len(given)} numbers for {count} outputs")
    return floats(np.broadcast_to(given, count))


def _broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that arrays of these shapes have together. Raises `UnsupportedError`."""
    try:
        return np.broadcast_shapes(*(tuple(shape) for shape in shapes))
    except ValueError as error:
        words = " and ".join(str(tuple(shape)) for shape in shapes)
        raise UnsupportedError(f"values of shapes {words} do not fit together") from error


def _narrow(view: IndexMap) -> IndexMap:
    """A view without the axes along which it only repeats itself: an expanded gate, a norm."""
    if view.index is None or len(view.shape) < 2:
        return view
    index = view.index
    for axis in range(1, index.ndim):
        first = np.take(index, [0], axis)
        if index.shape[axis] > 1 and np.array_equal(index, np.broadcast_to(first, index.shape)):
            index = first
    return IndexMap(view.value, index.shape, index)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    rows, columns = (*values, *values)[:2]
    return int(rows), int(columns)
