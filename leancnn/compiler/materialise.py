"""Where each element of what an exporter calls a tensor lies in a value of the graph.

Exporters write one channel shuffle, split or flatten in many ways: view, transpose, reshape, slice,
squeeze, expand. Instead of matching patterns, a `View` carries the index of every element in the
value it came from; numpy moves the indices as the exporter would move the data, and only where an
operator needs the result do we look at what has become of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Crop, Gather, Graph, Pool, Reshape, Shape
from leancnn.errors import UnsupportedError

MOST = 2**26  # numbers of a value: places in the arena are 32-bit integers
MOVED = 2**18  # pixels that may be moved one by one; each has its place in a table


@dataclass(frozen=True, slots=True, eq=False)
class IndexMap:
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

    def moved(self, move: Callable[[NDArray[np.int64]], Any]) -> "IndexMap":
        """The view after a rearrangement, given as a function of an array."""
        index = np.asarray(move(self.elements()))
        plain = index.size == math.prod(self.shape) and self.index is None
        if plain and np.array_equal(index.ravel(), np.arange(index.size)):
            return IndexMap(self.value, index.shape)
        return IndexMap(self.value, index.shape, index)


def image_shape(shape: Sequence[int]) -> Shape:
    """(1, C, H, W), (1, C) or (C,) as (C, H, W); of (1, A, B, H, W) all but the last two axes are
    channels. Raises `UnsupportedError` for more than one image."""
    sizes = tuple(shape)
    if len(sizes) > 1:
        if sizes[0] != 1:
            raise UnsupportedError(f"a value of shape {sizes}; the compiler takes one image a time")
        sizes = sizes[1:]
    if len(sizes) > 3:
        sizes = (math.prod(sizes[:-2]), *sizes[-2:])
    c, h, w = (*sizes, 1, 1, 1)[:3]
    return (c, h, w)


def materialise(graph: Graph, view: IndexMap, *, by_pixel: bool = True) -> str:
    """The name of a value that holds what the view shows, as (C, H, W).

    Channels, windows and flattenings cost little or nothing; any other order is a table of single
    pixels. Raises `UnsupportedError` where that is too long, or not wanted.
    """
    have = graph.shapes[view.value]
    shape = _natural(view, have)
    if view.index is None:
        if shape == have:
            return view.value
        return graph.add(Reshape(shape), view.value, name=f"{view.value}_flat")
    index = view.index.reshape(shape)
    for form in (_whole_channels, _window, _sampled, _flattened):
        found = form(graph, view.value, index, have)
        if found is not None:
            return found
    flat = index.ravel()
    if by_pixel and len(flat) <= MOVED:
        everything = materialise(graph, IndexMap(view.value, (1, math.prod(have))))
        taken = _gathered(graph, everything, flat)
        return graph.add(Reshape(shape), taken, name=f"{view.value}_moved")
    raise UnsupportedError(
        f"the rearrangement of {view.value} from {have} to {shape} moves {len(flat):,} single "
        f"pixels; only channels, windows and whole flattenings can be moved, or {MOVED:,} pixels"
    )


def _whole_channels(graph: Graph, value: str, index: NDArray[np.int64], have: Shape) -> str | None:
    """Some channels, in some order, each with all its pixels."""
    size = have[1] * have[2]
    if index.shape[1:] != have[1:]:
        return None
    channels = index[:, 0, 0] // size
    whole = channels[:, None] * size + np.arange(size)
    return (
        _gathered(graph, value, channels)
        if np.array_equal(index.reshape(len(channels), -1), whole)
        else None
    )


def _window(graph: Graph, value: str, index: NDArray[np.int64], have: Shape) -> str | None:
    """The same rectangle of some channels."""
    _, h, w = index.shape
    size = have[1] * have[2]
    channels, first = index[:, 0, 0] // size, int(index[0, 0, 0] % size)
    window = Crop(first // have[2], first % have[2], h, w)
    inside = np.arange(h)[:, None] * have[2] + np.arange(w) + first
    if not (_fits(window, have) and np.array_equal(index, channels[:, None, None] * size + inside)):
        return None
    return graph.add(window, _gathered(graph, value, channels), name=f"{value}_window")


def _flattened(graph: Graph, value: str, index: NDArray[np.int64], have: Shape) -> str | None:
    """All numbers under another shape, or numbers that go into or come out of a vector."""
    _, h, w = index.shape
    flat = index.ravel()
    if np.array_equal(flat, np.arange(math.prod(have))):
        return graph.add(Reshape(index.shape), value, name=f"{value}_flat")
    if have[1:] == (1, 1) and (h, w) != (1, 1):
        spread = _gathered(graph, value, flat)
        return graph.add(Reshape(index.shape), spread, name=f"{value}_spread")
    if (h, w) == (1, 1):
        vector = graph.add(Reshape((math.prod(have), 1, 1)), value, name=f"{value}_flat")
        return _gathered(graph, vector, flat)
    return None


def _sampled(graph: Graph, value: str, index: NDArray[np.int64], have: Shape) -> str | None:
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
    if not _fits(window, have):
        return None
    taken = _gathered(graph, value, channels)
    if (window.top, window.left, window.height, window.width) != (0, 0, *have[1:]):
        taken = graph.add(window, taken, name=f"{value}_window")
    return graph.add(Pool("max", (1, 1), step), taken, name=f"{value}_sampled")


def _gathered(graph: Graph, value: str, channels: NDArray[np.int64]) -> str:
    if np.array_equal(channels, np.arange(graph.shapes[value][0])):
        return value
    chosen = Gather(tuple(int(c) for c in channels))
    return graph.add(chosen, value, name=f"{value}_taken")


def _natural(view: IndexMap, have: Shape) -> Shape:
    """The (C, H, W) under which to hold what a view of a value of `have` shows."""
    shape = view.shape
    if len(shape) == 3 and shape[0] == 1:
        if have[1:] == (1, 1):
            return (math.prod(shape), 1, 1)
        if shape[2] == have[1] * have[2]:
            return (shape[1], have[1], have[2])
        if shape[1:] == have[1:]:  # one channel
            return (1, have[1], have[2])
    return image_shape(shape)


def _fits(window: Crop, have: Shape) -> bool:
    """Whether a window lies inside an image, so that none of its rows goes on in the next."""
    return window.top + window.height <= have[1] and window.left + window.width <= have[2]
