"""What each ONNX operator becomes: functions from views to views, by the operator's name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Pool
from leancnn.compiler.handlers import Handlers
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import View
from leancnn.compiler.reductions import normalised, reduce, softmax, windows
from leancnn.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Call:
    """One operator: what it reads, views and constants, None where it leaves an input out."""

    values: list[Any]
    attributes: dict[str, Any]
    outputs: int  # that somebody could read
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; text as str."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def view(self, place: int = 0) -> View:
        """An input that is computed from the image."""
        found = self.values[place] if place < len(self.values) else None
        if not isinstance(found, View):
            raise UnsupportedError("its inputs are constants where the image's values belong")
        return found

    def constant(self, place: int, what: str) -> Any:
        """An input that must be constant, or None. Raises `UnsupportedError`."""
        found = self.values[place] if place < len(self.values) else None
        if isinstance(found, View):
            raise UnsupportedError(
                f"its {what} is computed from the image, where constants are due"
            )
        return found

    def either(self, name: str, place: int) -> Any:
        """What older operator sets have as an attribute and newer ones as an input."""
        found = self.attributes.get(name)
        return self.constant(place, name) if found is None else found

    def numbers(self, name: str, place: int) -> list[int] | None:
        """The same as whole numbers."""
        found = self.either(name, place)
        return None if found is None else [int(number) for number in np.ravel(found)]


handlers = Handlers()
handles = handlers.handles  # functions get the builder and the call


def channelwise(x: View, numbers: Any) -> NDArray[Any]:
    """One number for each channel, (C,), so that numpy broadcasts it against (N, C, …)."""
    return np.reshape(numbers, (-1, *[1] * (len(x.shape) - 2)))


def _pads(call: Call, x: View, kernel: Sequence[int]) -> list[int]:
    """What stands before each axis, then what stands behind each."""
    axes = range(len(kernel))
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return list(call.get("pads", [0] * 2 * len(kernel)))
    if auto == "VALID":
        return [0] * 2 * len(kernel)
    strides, dilations = (call.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    room = [
        max(
            (-(-x.shape[2 + i] // strides[i]) - 1) * strides[i]
            + (kernel[i] - 1) * dilations[i]
            + 1
            - x.shape[2 + i],
            0,
        )
        for i in axes
    ]
    first = [r // 2 if auto == "SAME_UPPER" else r - r // 2 for r in room]
    return [*first, *(r - f for r, f in zip(room, first, strict=True))]


@handles("Conv")
def _conv(b: Builder, call: Call) -> View:
    x, weight = call.view(), call.constant(1, "weight")
    ones = [1] * (weight.ndim - 2)
    return b.conv(
        x,
        weight,
        call.constant(2, "bias"),
        stride=call.get("strides", ones),
        padding=_pads(call, x, weight.shape[2:]),
        dilation=call.get("dilations", ones),
        groups=call.get("group", 1),
    )


@handles("Gemm")
def _gemm(b: Builder, call: Call) -> View:
    """alpha · A · B + beta · C; the image's values may be A, or B of a constant A."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    first_turned, second_turned = call.get("transA", 0), call.get("transB", 0)
    if isinstance(call.values[0], View):
        x, matrix = call.view(), np.asarray(call.constant(1, "B"))
        x = x.moved(lambda a: a.T) if first_turned else x
        made = b.linear(x, alpha * (matrix if second_turned else matrix.T), None)
    else:
        x, matrix = call.view(1), np.asarray(call.constant(0, "A"))
        x = x if second_turned else x.moved(lambda a: a.T)
        made = b.linear(x, alpha * (matrix.T if first_turned else matrix), None)
        made = made.moved(lambda a: a.T)
    if len(call.values) < 3 or call.values[2] is None:
        return made
    rest = call.values[2]
    if isinstance(rest, View):
        return b.combine("add", made, b.affine(rest, beta, 0))
    return b.affine(made, 1, beta * rest)


@handles("MatMul")
def _matmul(b: Builder, call: Call) -> View:
    first = call.values[0]
    if not isinstance(first, View):  # a constant by a column: its rows by a row
        column = call.view(1)
        made = b.linear(column.moved(lambda a: a.swapaxes(-1, -2)), np.asarray(first), None)
        return made.moved(lambda a: a.swapaxes(-1, -2))
    return b.linear(first, np.asarray(call.constant(1, "second matrix")).T, None)


@handles("BatchNormalization")
def _batch_norm(b: Builder, call: Call) -> View:
    x = call.view()
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        call.constant(i, name).astype(np.float64) for i, name in enumerate(names, 1)
    )
    if call.get("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the network in evaluation mode")
    scale = gamma / np.sqrt(variance + call.get("epsilon", 1e-5))
    return b.affine(x, channelwise(x, scale), channelwise(x, beta - mean * scale))


@handles("InstanceNormalization")
def _instance_norm(b: Builder, call: Call) -> View:
    x = call.view()
    scale, shift = (channelwise(x, call.constant(i, n)) for i, n in ((1, "scale"), (2, "bias")))
    axes = range(2, len(x.shape))
    return b.affine(normalised(b, x, axes, call.get("epsilon", 1e-5)), scale, shift)


@handles("LayerNormalization")
def _layer_norm(b: Builder, call: Call) -> View:
    x, shift = call.view(), call.constant(2, "bias")
    axes = range(call.get("axis", -1) % len(x.shape), len(x.shape))
    made = normalised(b, x, axes, call.get("epsilon", 1e-5))
    return b.affine(made, call.constant(1, "scale"), 0 if shift is None else shift)


for _name, _how in (
    ("ReduceMean", "mean"),
    ("ReduceSum", "sum"),
    ("ReduceMax", "max"),
    ("ReduceL2", "norm"),
):

    def _reduce(b: Builder, call: Call, how: Any = _how) -> View:
        x, axes = call.view(), call.numbers("axes", 1)
        if not axes and call.get("noop_with_empty_axes", 0):
            return x
        return reduce(b, x, how, axes or range(len(x.shape)), bool(call.get("keepdims", 1)))

    handles(_name)(_reduce)


@handles("GlobalAveragePool")
def _global_mean(b: Builder, call: Call) -> View:
    x = call.view()
    return reduce(b, x, "mean", range(2, len(x.shape)), keep=True)


@handles("GlobalMaxPool")
def _global_max(b: Builder, call: Call) -> View:
    x = call.view()
    return reduce(b, x, "max", range(2, len(x.shape)), keep=True)


def _pool(b: Builder, call: Call, how: Any, count_padding: bool) -> View:
    x, kernel = call.view(), tuple(call.get("kernel_shape"))
    if set(call.get("dilations", [1])) != {1}:
        raise UnsupportedError("its windows are dilated, which is not supported")
    if len(x.shape) != 4 or len(kernel) != 2:
        raise UnsupportedError(f"pooling of {x.shape}; only of (1, C, H, W)")
    stride: Any = tuple(call.get("strides", [1, 1]))
    sides: Any = tuple(_pads(call, x, kernel))
    sides, beyond = windows(x.shape, kernel, stride, sides, bool(call.get("ceil_mode", 0)))
    return b.pool(x, Pool(how, kernel, stride, sides, beyond, count_padding))


@handles("MaxPool")
def _max_pool(b: Builder, call: Call) -> View:
    return _pool(b, call, "max", True)


@handles("AveragePool")
def _mean_pool(b: Builder, call: Call) -> View:
    return _pool(b, call, "mean", bool(call.get("count_include_pad", 0)))


def _soft(b: Builder, call: Call, *, log: bool) -> View:
    x = call.view()
    axis = call.get("axis", 1 if call.opset < 13 else -1) % len(x.shape)
    if call.opset >= 13:
        return softmax(b, x, axis, log=log)
    rows = math.prod(x.shape[:axis])  # then all axes from there on count as one
    flat = softmax(b, x.moved(lambda a: a.reshape(rows, -1)), 1, log=log)
    return flat.moved(lambda a: a.reshape(x.shape))


@handles("Softmax")
def _softmax(b: Builder, call: Call) -> View:
    return _soft(b, call, log=False)


@handles("LogSoftmax")
def _log_softmax(b: Builder, call: Call) -> View:
    return _soft(b, call, log=True)


@handles("Identity", "Dropout")
def _same(b: Builder, call: Call) -> View:
    if any(np.any(value) for value in call.values[2:3] if value is not None):
        raise UnsupportedError("it is in training mode; export the network in evaluation mode")
    return call.view()


@handles("Cast")
def _cast(b: Builder, call: Call) -> View:
    if call.get("to") not in (1, 11):
        raise UnsupportedError(
            "it makes other numbers than float32, in which the compiler computes; export the "
            "network in float32"
        )
    return call.view()


@handles("Reshape")
def _reshape(b: Builder, call: Call) -> View:
    x, to = call.view(), [int(size) for size in call.constant(1, "shape")]
    if not call.get("allowzero", 0):
        to = [x.shape[axis] if size == 0 else size for axis, size in enumerate(to)]
    return x.moved(lambda a: a.reshape(to))


@handles("Flatten")
def _flatten(b: Builder, call: Call) -> View:
    x = call.view()
    axis = call.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return x.moved(lambda a: a.reshape(math.prod(x.shape[:axis]), -1))


@handles("Transpose")
def _transpose(b: Builder, call: Call) -> View:
    return call.view().moved(lambda a: a.transpose(call.get("perm")))


@handles("Squeeze")
def _squeeze(b: Builder, call: Call) -> View:
    axes = call.numbers("axes", 1)
    return call.view().moved(lambda a: a.squeeze(None if axes is None else tuple(axes)))


@handles("Unsqueeze")
def _unsqueeze(b: Builder, call: Call) -> View:
    axes = call.numbers("axes", 1) or []
    return call.view().moved(lambda a: np.expand_dims(a, tuple(axes)))


@handles("Expand")
def _expand(b: Builder, call: Call) -> View:
    x, to = call.view(), tuple(int(size) for size in call.constant(1, "shape"))
    shape = np.broadcast_shapes(x.shape, to)
    return x.moved(lambda a: np.broadcast_to(a, shape))


@handles("Tile")
def _tile(b: Builder, call: Call) -> View:
    return call.view().moved(lambda a: np.tile(a, [int(n) for n in call.constant(1, "repeats")]))


@handles("Slice")
def _slice(b: Builder, call: Call) -> View:
    x = call.view()
    starts, ends = (call.numbers(name, i) or [] for i, name in ((1, "starts"), (2, "ends")))
    axes = call.numbers("axes", 3) or list(range(len(starts)))
    steps = call.numbers("steps", 4) or [1] * len(starts)
    cut = [slice(None)] * len(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        stop = end if step > 0 or end >= -size else None  # beyond the first element, backwards
        cut[axis] = slice(start, stop, step)
    return x.moved(lambda a: a[tuple(cut)])


@handles("Gather")
def _gather(b: Builder, call: Call) -> View:
    places = call.constant(1, "list of places")
    return call.view().moved(lambda a: np.take(a, places, call.get("axis", 0)))


@handles("Split")
def _split(b: Builder, call: Call) -> list[View]:
    x, sizes = call.view(), call.numbers("split", 1)
    axis = call.get("axis", 0) % len(x.shape)
    if sizes is None:
        each = -(-x.shape[axis] // call.outputs)
        sizes = [min(each, max(x.shape[axis] - i * each, 0)) for i in range(call.outputs)]
    ends = np.cumsum(sizes)
    pieces = [(slice(None),) * axis + (slice(e - n, e),) for n, e in zip(sizes, ends, strict=True)]
    return [x.moved(itemgetter(piece)) for piece in pieces]


@handles("Concat")
def _concat(b: Builder, call: Call) -> View:
    if len(call.values) == 1:
        return call.view()
    return b.join(call.values, call.get("axis"))


@handles("SpaceToDepth")
def _space_to_depth(b: Builder, call: Call) -> View:
    x, n = call.view(), call.get("blocksize")
    whole = slice(None)
    steps = [slice(i, None, n) for i in range(n)]
    places = [(whole, whole, rows, columns) for rows in steps for columns in steps]
    return b.join([x.moved(itemgetter(place)) for place in places], 1)


@handles("Pad")
def _pad(b: Builder, call: Call) -> View:
    x, pads, fill = call.view(), call.numbers("pads", 1) or [], call.either("value", 2)
    axes = call.constant(3, "axes")
    axes = range(len(x.shape)) if axes is None else [int(axis) % len(x.shape) for axis in axes]
    sides = np.zeros((len(x.shape), 2), np.int64)
    sides[list(axes)] = np.reshape(pads, (2, -1)).T
    if not sides.any():
        return x
    mode = call.get("mode", "constant")
    if mode != "constant" or sides[0].any():
        raise UnsupportedError(f"padding by {pads}, mode {mode}; only with a number, around images")
    number = 0.0 if fill is None else float(np.ravel(fill)[0])
    return b.pad(x, [int(side) for side in sides[1:].ravel()], number)
