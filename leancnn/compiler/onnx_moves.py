"""ONNX operators that move, repeat, cut and join elements and compute nothing."""

import math
from operator import itemgetter
from typing import Any

import numpy as np

from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import MOST, IndexMap
from leancnn.compiler.onnx_call import Call, handles
from leancnn.errors import UnsupportedError

SAME = (1, 13, 14, 16, 19, 21, 23, 24, 25)  # of Identity
MOVED = (13, 21, 23, 24, 25)


def _fits(shape: Any) -> None:
    """Raises `UnsupportedError` before a value is made that is larger than the compiler takes."""
    if math.prod(int(size) for size in shape) > MOST:
        words = "×".join(str(int(size)) for size in shape)
        raise UnsupportedError(f"a value of {words} is too large to compile")


@handles("Identity", sets=SAME)
@handles("Dropout", sets=(7, 10, 12, 13, 22), hints="ratio seed")
def _same(b: Builder, call: Call) -> IndexMap:
    if any(np.any(value) for value in call.values[2:3] if value is not None):
        raise UnsupportedError("it is in training mode; export the network in evaluation mode")
    return call.view()


@handles("Cast", sets=(6, 9, 13, 19, 21, 23, 24, 25, 28), reads="to", hints="saturate round_mode")
def _cast(b: Builder, call: Call) -> IndexMap:
    if call.get("to") not in (1, 11):
        raise UnsupportedError(
            "it makes other numbers than float32, in which the compiler computes; export the "
            "network in float32"
        )
    return call.view()


@handles("Shape", sets=(1, 13, 15, 19, 21, 23, 24, 25), reads="start end")
def _shape(b: Builder, call: Call) -> Any:
    return np.array(call.view().shape, np.int64)[call.get("start", 0) : call.get("end")]


@handles("Size", sets=(1, 13, 19, 21, 23, 24, 25))
def _size(b: Builder, call: Call) -> Any:
    return np.array(math.prod(call.view().shape), np.int64)


@handles(
    "Reshape",
    sets=(1, 5, 13, 14, 19, 21, 23, 24, 25),
    reads="shape allowzero",
    hints="consumed_inputs",
)
def _reshape(b: Builder, call: Call) -> IndexMap:
    x, to = call.view(), call.numbers("shape", 1) or []
    if not call.get("allowzero", 0):
        to = [x.shape[axis] if size == 0 else size for axis, size in enumerate(to)]
    return x.moved(lambda a: a.reshape(to))


@handles("Flatten", sets=(1, 9, 11, *MOVED), reads="axis")
def _flatten(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    axis = call.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return x.moved(lambda a: a.reshape(math.prod(x.shape[:axis]), -1))


@handles("Transpose", sets=(1, *MOVED), reads="perm")
def _transpose(b: Builder, call: Call) -> IndexMap:
    return call.view().moved(lambda a: a.transpose(call.get("perm")))


@handles("Squeeze", sets=(1, 11, *MOVED), reads="axes")
def _squeeze(b: Builder, call: Call) -> IndexMap:
    axes = call.numbers("axes", 1)
    return call.view().moved(lambda a: a.squeeze(None if axes is None else tuple(axes)))


@handles("Unsqueeze", sets=(1, 11, *MOVED), reads="axes")
def _unsqueeze(b: Builder, call: Call) -> IndexMap:
    axes = call.numbers("axes", 1) or []
    return call.view().moved(lambda a: np.expand_dims(a, tuple(axes)))


@handles("Expand", sets=(8, 13))
def _expand(b: Builder, call: Call) -> IndexMap:
    x, to = call.view(), tuple(int(size) for size in call.constant(1, "shape"))
    shape = np.broadcast_shapes(x.shape, to)
    _fits(shape)
    return x.moved(lambda a: np.broadcast_to(a, shape))


@handles("Tile", sets=(6, 13))
def _tile(b: Builder, call: Call) -> IndexMap:
    x, repeats = call.view(), [int(n) for n in call.constant(1, "repeats")]
    _fits([size * n for size, n in zip(x.shape, repeats, strict=True)])
    return x.moved(lambda a: np.tile(a, repeats))


@handles("Slice", sets=(1, 10, 11, 13), reads="starts ends axes")
def _slice(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    starts, ends = (call.numbers(name, i) or [] for i, name in ((1, "starts"), (2, "ends")))
    axes = call.numbers("axes", 3) or list(range(len(starts)))
    given = call.constant(4, "steps")
    steps = [1] * len(starts) if given is None else [int(step) for step in np.ravel(given)]
    cut = [slice(None)] * len(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        stop = end if step > 0 or end >= -size else None  # beyond the first element, backwards
        cut[axis] = slice(start, stop, step)
    return x.moved(lambda a: a[tuple(cut)])


@handles("Gather", sets=(1, 11, 13), reads="axis")
def _gather(b: Builder, call: Call) -> IndexMap:
    x, places = call.view(), np.asarray(call.constant(1, "list of places"))
    axis = call.get("axis", 0) % len(x.shape)
    _fits([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])
    return x.moved(lambda a: np.take(a, places, axis))


@handles("Split", sets=(1, 2, 11, 13, 18), reads="axis split num_outputs")
def _split(b: Builder, call: Call) -> list[IndexMap]:
    x, sizes = call.view(), call.numbers("split", 1)
    axis = call.get("axis", 0) % len(x.shape)
    count = call.get("num_outputs", call.outputs)
    if sizes is None:
        each = -(-x.shape[axis] // count)
        sizes = [min(each, max(x.shape[axis] - i * each, 0)) for i in range(count)]
    if sum(sizes) != x.shape[axis]:
        raise UnsupportedError(f"it splits {x.shape[axis]} into {sizes}")
    ends = np.cumsum(sizes)
    pieces = [(slice(None),) * axis + (slice(e - n, e),) for n, e in zip(sizes, ends, strict=True)]
    return [x.moved(itemgetter(piece)) for piece in pieces]


@handles("Concat", sets=(1, 4, 11, 13), reads="axis")
def _concat(b: Builder, call: Call) -> IndexMap:
    if len(call.values) == 1:
        return call.view()
    return b.concat(call.values, call.get("axis", 1))


@handles("SpaceToDepth", sets=(1, 13, 28), reads="blocksize mode")
def _space_to_depth(b: Builder, call: Call) -> IndexMap:
    """(1, C, H, W) to (1, C·n², H/n, W/n): the place in a block first, or (CRD) the channel."""
    x, n, order = call.view(), call.get("blocksize"), _order(call)
    _, c, h, w = x.shape
    perm = (0, 3, 5, 1, 2, 4) if order == "DCR" else (0, 1, 3, 5, 2, 4)
    shape = (1, c * n * n, h // n, w // n)
    return x.moved(lambda a: a.reshape(1, c, h // n, n, w // n, n).transpose(perm).reshape(shape))


@handles("DepthToSpace", sets=(1, 11, 13, 28), reads="blocksize mode")
def _depth_to_space(b: Builder, call: Call) -> IndexMap:
    """The way back."""
    x, n, order = call.view(), call.get("blocksize"), _order(call)
    _, c, h, w = x.shape
    first = order == "DCR"
    split = (n, n, -1) if first else (-1, n, n)
    perm = (0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3)
    shape = (1, c // (n * n), h * n, w * n)
    return x.moved(lambda a: a.reshape(1, *split, h, w).transpose(perm).reshape(shape))


def _order(call: Call) -> str:
    order: str = call.get("mode", "DCR")
    if order not in ("DCR", "CRD"):
        raise UnsupportedError(f"its mode {order} is not known; known are DCR and CRD")
    return order


@handles("Pad", sets=(2, 11, 13, 18, 19, 21, 23, 24, 25), reads="pads value mode")
def _pad(b: Builder, call: Call) -> IndexMap:
    x, pads, fill = call.view(), call.numbers("pads", 1) or [], call.either("value", 2)
    axes = call.constant(3, "axes")
    axes = range(len(x.shape)) if axes is None else [int(axis) % len(x.shape) for axis in axes]
    sides = np.zeros((len(x.shape), 2), np.int64)
    sides[list(axes)] = np.reshape(pads, (2, -1)).T
    if not sides.any():
        return x
    _fits([size + before + after for size, (before, after) in zip(x.shape, sides, strict=True)])
    mode = call.get("mode", "constant")
    if mode in ("reflect", "edge", "wrap"):
        if (sides < 0).any():
            raise UnsupportedError(f"padding by {pads}, mode {mode}, which also cuts")
        return x.moved(lambda a: np.pad(a, sides.tolist(), mode))
    if mode != "constant" or sides[0].any():
        raise UnsupportedError(f"padding by {pads}, mode {mode}; only with a number, around images")
    number = 0.0 if fill is None else float(np.ravel(fill)[0])
    return b.pad(x, [int(side) for side in sides[1:].ravel()], number)


@handles("Where", sets=(9, 16))
def _where(b: Builder, call: Call) -> Any:
    """Elements of one or the other, as a constant says."""
    chosen = np.asarray(call.constant(0, "condition"), bool)
    x, y = call.values[1:]
    shape = np.broadcast_shapes(
        chosen.shape,
        np.shape(x) if not isinstance(x, IndexMap) else x.shape,
        np.shape(y) if not isinstance(y, IndexMap) else y.shape,
    )
    _fits(shape)
    return b.select(np.broadcast_to(chosen, shape), x, y)
