"""ONNX operators that compute sums: convolutions, matrices, norms, reductions, pooling, softmax."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Pool
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.onnx_call import Call, handles
from leancnn.compiler.reductions import normalised, reduce, softmax, windows
from leancnn.errors import UnsupportedError

WINDOW = "auto_pad dilations kernel_shape pads strides"


def channelwise(x: IndexMap, numbers: Any) -> NDArray[Any]:
    """One number for each channel, (C,), so that numpy broadcasts it against (N, C, …)."""
    return np.reshape(numbers, (-1, *[1] * (len(x.shape) - 2)))


def _pads(call: Call, x: IndexMap, kernel: Sequence[int]) -> list[int]:
    """What stands before each axis, then what stands behind each."""
    axes = range(len(kernel))
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return list(call.get("pads", [0] * 2 * len(kernel)))
    if auto == "VALID":
        return [0] * 2 * len(kernel)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedError(f"its auto_pad {auto} is not known")
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


@handles("Conv", sets=(1, 11, 22), reads=f"{WINDOW} group")
def _conv(b: Builder, call: Call) -> IndexMap:
    x, weight = call.view(), call.constant(1, "weight")
    ones = [1] * (weight.ndim - 2)
    _same_kernel(call, weight)
    return b.conv(
        x,
        weight,
        call.constant(2, "bias"),
        stride=call.get("strides", ones),
        padding=_pads(call, x, weight.shape[2:]),
        dilation=call.get("dilations", ones),
        groups=call.get("group", 1),
    )


def _same_kernel(call: Call, weight: Any) -> None:
    size = tuple(call.get("kernel_shape", weight.shape[2:]))
    if size != weight.shape[2:]:
        raise UnsupportedError(f"its kernel_shape is {size}, its weights are {weight.shape}")


@handles("ConvTranspose", sets=(1, 11, 22), reads=f"{WINDOW} group output_padding output_shape")
def _conv_transpose(b: Builder, call: Call) -> IndexMap:
    x, weight = call.view(), np.asarray(call.constant(1, "weight"))
    _same_kernel(call, weight)
    axes = weight.ndim - 2
    if axes == 1 and len(x.shape) == 3:
        raise UnsupportedError("a transposed convolution along one axis; only of images")
    ones, none = [1] * axes, [0] * axes
    stride, dilation = call.get("strides", ones), call.get("dilations", ones)
    more = call.get("output_padding", none)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    whole = [s * (n - 1) + r for s, n, r in zip(stride, x.shape[2:], reach, strict=True)]
    pads = _transposed_pads(
        call,
        [w + m for w, m in zip(whole, more, strict=True)],
        [n * s for n, s in zip(x.shape[2:], stride, strict=True)],
    )
    sides = zip(pads[:axes], pads[axes:], strict=True)
    sizes = [w + m - p - q for w, m, (p, q) in zip(whole, more, sides, strict=True)]
    if min(pads) < 0 or min(sizes) < 1:
        raise UnsupportedError(f"its padding is {pads} and its result {sizes}")
    return transposed(
        b,
        x,
        weight,
        call.constant(2, "bias"),
        stride,
        dilation,
        pads[:axes],
        sizes,
        call.get("group", 1),
    )


def _transposed_pads(call: Call, whole: Sequence[int], same: Sequence[int]) -> list[int]:
    """First of each axis, then last: said, or by the size that is said; `same` is that of SAME."""
    auto, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = same
    none = [0] * 2 * len(whole)
    if wanted is None:
        found: list[int] = call.get("pads", none) if auto in ("NOTSET", "") else none
        return found
    room = [w - t for w, t in zip(whole, wanted, strict=True)]
    low = [r // 2 for r in room]
    first = low if auto not in ("SAME_LOWER", "NOTSET", "") else [r - r // 2 for r in room]
    return [*first, *(r - f for r, f in zip(room, first, strict=True))]


def transposed(
    b: Builder,
    x: IndexMap,
    weight: NDArray[Any],
    bias: Any,
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[int],
    sizes: Sequence[int],
    groups: int,
) -> IndexMap:
    """A transposed convolution, weight (c_in, c_out / groups, rows, columns): for each place of a
    pixel in its stride a convolution with every so-manieth tap, and these interleaved."""
    c_in, each, rows, columns = weight.shape
    (s, t), (d, e) = stride, dilation
    taps = np.zeros((c_in, each, d * (rows - 1) + 1, e * (columns - 1) + 1), np.float64)
    taps[:, :, ::d, ::e] = weight
    j, k = -(-taps.shape[2] // s), -(-taps.shape[3] // t)
    room = np.zeros((c_in, each, j * s, k * t))
    room[:, :, : taps.shape[2], : taps.shape[3]] = taps
    # (group, in, out, tap row, phase row, tap column, phase column), the last taps first
    parts = room.reshape(groups, c_in // groups, each, j, s, k, t)[:, :, :, ::-1, :, ::-1]
    kernel = parts.transpose(0, 2, 4, 6, 1, 3, 5).reshape(groups * each * s * t, -1, j, k)
    many = [-(-(p + n) // q) for p, n, q in zip(pads, sizes, stride, strict=True)]
    sides = (j - 1, k - 1, max(many[0] - x.shape[2], 0), max(many[1] - x.shape[3], 0))
    shift = None if bias is None else np.repeat(np.asarray(bias), s * t)
    made = b.conv(x, kernel, shift, padding=sides, groups=groups)
    _, _, h, w = made.shape
    return made.moved(
        lambda a: (
            a.reshape(1, groups * each, s, t, h, w)
            .transpose(0, 1, 4, 2, 5, 3)
            .reshape(1, groups * each, h * s, w * t)[
                :, :, pads[0] : pads[0] + sizes[0], pads[1] : pads[1] + sizes[1]
            ]
        )
    )


@handles("Gemm", sets=(1, 6, 7, 9, 11, 13), reads="alpha beta transA transB", hints="broadcast")
def _gemm(b: Builder, call: Call) -> IndexMap:
    """alpha · A · B + beta · C; the image's values may be A, or B of a constant A."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    first, second = call.value(0), call.value(1)
    turned = [call.get("transA", 0), call.get("transB", 0)]
    matrices = [
        (value.moved(lambda a: a.T) if isinstance(value, IndexMap) else np.asarray(value).T)
        if turn
        else value
        for value, turn in zip((first, second), turned, strict=True)
    ]
    made = b.affine(_product(b, *matrices), alpha, 0) if alpha != 1 else _product(b, *matrices)
    rest = call.value(2)
    if rest is None:
        return made
    if isinstance(rest, IndexMap):
        return b.combine("add", made, b.affine(rest, beta, 0))
    return b.affine(made, 1, beta * np.asarray(rest, np.float64))


@handles("MatMul", sets=(1, 9, 13))
def _matmul(b: Builder, call: Call) -> IndexMap:
    return _product(b, call.value(0), call.value(1))


def _product(b: Builder, first: Any, second: Any) -> IndexMap:
    """The matrix product of a view and a constant, or the other way round."""
    if isinstance(first, IndexMap) and isinstance(second, IndexMap):
        raise UnsupportedError(
            "its second matrix is computed from the image, where constants are due"
        )
    if isinstance(first, IndexMap):
        matrix, lead = _matrix(second)
        if matrix.ndim == 1:
            made = b.linear(first, matrix[None], None)
            return made.moved(lambda a: a[..., 0])
        made = b.linear(first, matrix.T, None)
        shape = (*lead[: max(len(lead) - len(made.shape) + 2, 0)], *made.shape)
        return made.moved(lambda a: a.reshape(shape))
    matrix, lead = _matrix(first)
    columns = len(second.shape) > 1
    turned = second.moved(lambda a: a.swapaxes(-1, -2)) if columns else second
    made = b.linear(turned, np.atleast_2d(matrix), None)
    if matrix.ndim == 1:
        return made.moved(lambda a: a[..., 0])
    more = lead[: max(len(lead) - len(made.shape) + 1 + columns, 0)]
    if not columns:
        return made.moved(lambda a: a.reshape(*more, *made.shape))
    return made.moved(lambda a: a.reshape(*more, *made.shape).swapaxes(-1, -2))


def _matrix(given: Any) -> tuple[NDArray[Any], tuple[int, ...]]:
    """A constant as one matrix, and the axes of one before it. Raises `UnsupportedError`."""
    matrix = np.asarray(given)
    lead = matrix.shape[:-2]
    if math.prod(lead) != 1:
        raise UnsupportedError(f"a matrix of shape {matrix.shape}; only one for all")
    return matrix.reshape(matrix.shape[-2:]) if lead else matrix, lead


@handles(
    "BatchNormalization",
    sets=(7, 9, 14, 15),
    reads="epsilon training_mode",
    only={"spatial": 1},
    hints="momentum",
)
def _batch_norm(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        call.constant(i, name).astype(np.float64) for i, name in enumerate(names, 1)
    )
    if call.get("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the network in evaluation mode")
    scale = gamma / np.sqrt(variance + call.get("epsilon", 1e-5))
    return b.affine(x, channelwise(x, scale), channelwise(x, beta - mean * scale))


@handles("InstanceNormalization", sets=(1, 6, 22), reads="epsilon", hints="consumed_inputs")
def _instance_norm(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    scale, shift = (channelwise(x, call.constant(i, n)) for i, n in ((1, "scale"), (2, "bias")))
    axes = range(2, len(x.shape))
    return b.affine(normalised(b, x, axes, call.get("epsilon", 1e-5)), scale, shift)


@handles("LayerNormalization", sets=(17,), reads="axis epsilon", only={"stash_type": 1})
def _layer_norm(b: Builder, call: Call) -> IndexMap:
    x, shift = call.view(), call.constant(2, "bias")
    axes = range(call.get("axis", -1) % len(x.shape), len(x.shape))
    made = normalised(b, x, axes, call.get("epsilon", 1e-5))
    return b.affine(made, call.constant(1, "scale"), 0 if shift is None else shift)


@handles("GroupNormalization", sets=(18, 21), reads="epsilon num_groups", only={"stash_type": 1})
def _group_norm(b: Builder, call: Call) -> IndexMap:
    x, groups = call.view(), call.get("num_groups")
    scale, shift = (np.ravel(call.constant(i, n)) for i, n in ((1, "scale"), (2, "bias")))
    n, c, *pixels = x.shape
    split = x.moved(lambda a: a.reshape(n, groups, c // groups, *pixels))
    made = normalised(b, split, range(2, len(split.shape)), call.get("epsilon", 1e-5))
    if call.opset < 21:  # one number for each group, not for each channel
        scale, shift = np.repeat(scale, c // groups), np.repeat(shift, c // groups)
    made = made.moved(lambda a: a.reshape(x.shape))
    return b.affine(made, channelwise(x, scale), channelwise(x, shift))


@handles("MeanVarianceNormalization", sets=(9, 13), reads="axes")
def _mean_variance_norm(b: Builder, call: Call) -> IndexMap:
    return normalised(b, call.view(), call.get("axes", [0, 2, 3]), 1e-9, of="deviation")


@handles("LRN", sets=(1, 13), reads="alpha beta bias size")
def _local_response(b: Builder, call: Call) -> IndexMap:
    """x over a power of the mean square of the channels beside it."""
    x, size = call.view(), call.get("size")
    count, low = x.shape[1], (size - 1) // 2
    places = np.arange(count)
    beside = places[None] - places[:, None]
    band = ((beside >= -low) & (beside <= size - 1 - low)).astype(np.float64)
    share = call.get("alpha", 1e-4) / size
    squares = b.combine("mul", x, x)
    sums = b.conv(squares, share * band[:, :, None, None], np.full(count, call.get("bias", 1.0)))
    return b.combine("mul", x, b.activate(sums, "power", -call.get("beta", 0.75)))


for _name, _how, _later in (
    ("ReduceMean", "mean", (18,)),
    ("ReduceSum", "sum", ()),
    ("ReduceMax", "max", (12, 18, 20)),
    ("ReduceMin", "min", (12, 18, 20)),
    ("ReduceL1", "l1", (18,)),
    ("ReduceL2", "norm", (18,)),
    ("ReduceSumSquare", "squares", (18,)),
    ("ReduceLogSum", "log", (18, 28)),
    ("ReduceLogSumExp", "logexp", (18, 28)),
):

    def _reduce(b: Builder, call: Call, how: Any = _how) -> IndexMap:
        x, axes = call.view(), call.numbers("axes", 1)
        if not axes and call.get("noop_with_empty_axes", 0):
            if how in ("mean", "sum", "max", "min", "logexp"):
                return x
            raise UnsupportedError("it reduces no axis; only sums, means and extremes can")
        return reduced(b, x, how, axes or range(len(x.shape)), bool(call.get("keepdims", 1)))

    handles(_name, sets=(1, 11, 13, *_later), reads="axes keepdims noop_with_empty_axes")(_reduce)


def reduced(b: Builder, x: IndexMap, how: str, axes: Sequence[int], keep: bool) -> IndexMap:
    """A reduction by any of ONNX's names, composed of those that there are."""
    match how:
        case "min":
            return b.affine(reduce(b, b.affine(x, -1, 0), "max", axes, keep), -1, 0)
        case "l1":
            return reduce(b, b.activate(x, "leaky", -1.0), "sum", axes, keep)
        case "squares":
            return reduce(b, b.combine("mul", x, x), "sum", axes, keep)
        case "log":
            return b.activate(reduce(b, x, "sum", axes, keep), "log")
        case "logexp":
            largest = float(np.finfo(np.float32).max)  # infinity less itself would be no number
            most = b.activate(reduce(b, x, "max", axes, keep=True), "clip", -largest, largest)
            shares = b.activate(b.combine("sub", x, most), "exp")
            total = b.activate(reduce(b, shares, "sum", axes, keep=True), "log")
            return reduce(b, b.combine("add", total, most), "sum", axes, keep)
    return reduce(b, x, how, axes, keep)  # type: ignore[arg-type]


@handles("GlobalAveragePool", sets=(1, 22))
def _global_mean(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    return reduce(b, x, "mean", range(2, len(x.shape)), keep=True)


@handles("GlobalMaxPool", sets=(1, 22))
def _global_max(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    return reduce(b, x, "max", range(2, len(x.shape)), keep=True)


def _pool(b: Builder, call: Call, how: Any, count_padding: bool) -> IndexMap:
    x, kernel = call.view(), tuple(call.get("kernel_shape"))
    axes = len(kernel)
    if set(call.get("dilations", [1])) != {1}:
        raise UnsupportedError("its windows are dilated, which is not supported")
    if len(x.shape) != axes + 2 or axes not in (1, 2):
        raise UnsupportedError(f"pooling of {x.shape}; only of (1, C, H, W) and (1, C, W)")
    stride: Any = tuple(call.get("strides", [1] * axes))
    sides: Any = tuple(_pads(call, x, kernel))
    if axes == 1:  # one row
        line = x.moved(lambda a: a[:, :, None])
        kernel, stride, sides = (1, *kernel), (1, *stride), (0, sides[0], 0, sides[1])
    else:
        line = x
    sides, beyond = windows(line.shape, kernel, stride, sides, bool(call.get("ceil_mode", 0)))
    made = b.pool(line, Pool(how, kernel, stride, sides, beyond, count_padding))
    return made.moved(lambda a: a[:, :, 0]) if axes == 1 else made


@handles("MaxPool", sets=(1, 8, 10, 11, 12, 22), reads=f"{WINDOW} ceil_mode", hints="storage_order")
def _max_pool(b: Builder, call: Call) -> IndexMap:
    return _pool(b, call, "max", True)


@handles("AveragePool", sets=(1, 7, 10, 11, 19, 22), reads=f"{WINDOW} ceil_mode count_include_pad")
def _mean_pool(b: Builder, call: Call) -> IndexMap:
    return _pool(b, call, "mean", bool(call.get("count_include_pad", 0)))


def _softmax_of(b: Builder, call: Call, *, log: bool) -> IndexMap:
    x = call.view()
    axis = call.get("axis", 1 if call.opset < 13 else -1) % len(x.shape)
    if call.opset >= 13:
        return softmax(b, x, axis, log=log)
    rows = math.prod(x.shape[:axis])  # then all axes from there on count as one
    flat = softmax(b, x.moved(lambda a: a.reshape(rows, -1)), 1, log=log)
    return flat.moved(lambda a: a.reshape(x.shape))


@handles("Softmax", sets=(1, 11, 13), reads="axis")
def _softmax(b: Builder, call: Call) -> IndexMap:
    return _softmax_of(b, call, log=False)


@handles("LogSoftmax", sets=(1, 11, 13), reads="axis")
def _log_softmax(b: Builder, call: Call) -> IndexMap:
    return _softmax_of(b, call, log=True)
