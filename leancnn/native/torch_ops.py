"""What each aten operator becomes: functions from views to views, by the operator's name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leancnn.errors import UnsupportedError
from leancnn.native.graph import Pool, Softmax
from leancnn.native.views import Builder, View, image_shape, sides, windows

Handler = Callable[..., Any]
handlers: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a function for aten operators; it gets the builder and the operator's arguments."""

    def put(function: Handler) -> Handler:
        handlers.update(dict.fromkeys(names, function))
        return function

    return put


@handles("conv2d", "convolution")
def _conv(b: Builder, x: View, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> View:
    given = list(rest)
    if (
        len(given) >= 5
    ):  # convolution(stride, padding, dilation, transposed, output_padding, groups)
        if given[3]:
            raise UnsupportedError("transposed convolution is not supported")
        given = [*given[:3], given[5]]
    default: list[Any] = [[1], [0], [1], 1]
    stride, padding, dilation, groups = given + default[len(given) :]
    stride, dilation = (list(stride) * 2)[:2], (list(dilation) * 2)[:2]
    if isinstance(padding, str):
        room = [
            d * (k - 1) if padding == "same" else 0
            for d, k in zip(dilation, weight.shape[2:], strict=True)
        ]
        around = (room[0] // 2, room[1] // 2, room[0] - room[0] // 2, room[1] - room[1] // 2)
    else:
        around = sides(padding)
    return b.conv(x, weight, bias, stride=stride, padding=around, dilation=dilation, groups=groups)


@handles("linear")
def _linear(b: Builder, x: View, weight: Tensor, bias: Tensor | None = None) -> View:
    return b.linear(x, weight, bias)


@handles("addmm")
def _addmm(b: Builder, bias: Tensor, x: View, weight: Tensor) -> View:
    return b.linear(x, weight.T, bias)


@handles("mm", "matmul")
def _matmul(b: Builder, x: View, weight: Tensor) -> View:
    return b.linear(x, weight.T, None)


@handles("_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    *rest: Any,
) -> list[View] | View:
    epsilon = rest[-1] if len(rest) == 2 else rest[-2]
    scale = torch.rsqrt(variance.double() + epsilon)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    result = b.affine(x, scale, shift)
    return [result] if len(rest) == 2 else result


@handles("relu")
def _relu(b: Builder, x: View) -> View:
    return b.activate(x, "clip")


@handles("relu6")
def _relu6(b: Builder, x: View) -> View:
    return b.activate(x, "clip", 0, 6)


@handles("hardtanh", "clamp")
def _clamp(b: Builder, x: View, low: float | None = -1, high: float | None = None) -> View:
    return b.activate(
        x, "clip", -math.inf if low is None else low, math.inf if high is None else high
    )


@handles("clamp_min")
def _clamp_min(b: Builder, x: View, low: float) -> View:
    return b.activate(x, "clip", low)


@handles("leaky_relu")
def _leaky(b: Builder, x: View, slope: float = 0.01) -> View:
    return b.activate(x, "leaky", slope)


for _curve in ("sigmoid", "hardsigmoid", "silu", "hardswish", "exp", "sqrt", "reciprocal"):
    handles(_curve)(lambda b, x, curve=_curve: b.activate(x, curve))


def _combiner(how: str) -> Handler:
    def combine(b: Builder, x: Any, y: Any, *, alpha: float = 1) -> View:
        if alpha != 1:
            y = b.affine(y, alpha, 0) if isinstance(y, View) else y * alpha
        return b.combine(how, x, y)

    return combine


for _name, _how in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("div", "div")):
    handles(_name)(_combiner(_how))
handles("maximum")(_combiner("max"))
handles("minimum")(_combiner("min"))


@handles("pow")
def _pow(b: Builder, x: View, exponent: float) -> View:
    if exponent == 2:
        return b.combine("mul", x, x)
    if exponent == 0.5:
        return b.activate(x, "sqrt")
    raise UnsupportedError(f"pow({exponent}) is not supported; only 2 and 0.5 are")


@handles("clone", "contiguous", "alias", "detach", "dropout", "_to_copy", "lift_fresh_copy")
def _same(b: Builder, x: View, *rest: Any, **named: Any) -> View:
    return x


@handles("view", "_unsafe_view", "reshape")
def _reshape(b: Builder, x: View, shape: Sequence[int]) -> View:
    return x.moved(lambda a: a.reshape(tuple(shape)))


@handles("flatten")
def _flatten(b: Builder, x: View, start: int = 0, end: int = -1) -> View:
    end %= len(x.shape)
    shape = (*x.shape[:start], -1, *x.shape[end + 1 :])
    return x.moved(lambda a: a.reshape(shape))


@handles("transpose")
def _transpose(b: Builder, x: View, first: int, second: int) -> View:
    return x.moved(lambda a: a.swapaxes(first, second))


@handles("permute")
def _permute(b: Builder, x: View, order: Sequence[int]) -> View:
    return x.moved(lambda a: a.transpose(order))


@handles("unsqueeze")
def _unsqueeze(b: Builder, x: View, axis: int) -> View:
    return x.moved(lambda a: np.expand_dims(a, axis))


@handles("squeeze")
def _squeeze(b: Builder, x: View, axes: int | Sequence[int] | None = None) -> View:
    chosen = range(len(x.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    ones = tuple(axis % len(x.shape) for axis in chosen if x.shape[axis] == 1)
    return x.moved(lambda a: a.squeeze(ones))


@handles("expand")
def _expand(b: Builder, x: View, shape: Sequence[int], **named: Any) -> View:
    pad = (1,) * (len(shape) - len(x.shape)) + x.shape
    sizes = tuple(old if new == -1 else new for old, new in zip(pad, shape, strict=True))
    return x.moved(lambda a: np.broadcast_to(a, sizes))


@handles("expand_as")
def _expand_as(b: Builder, x: View, other: View) -> View:
    return x.moved(lambda a: np.broadcast_to(a, other.shape))


@handles("slice")
def _slice(
    b: Builder,
    x: View,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    return x.moved(lambda a: a[(slice(None),) * (axis % a.ndim) + (slice(start, end, step),)])


@handles("select")
def _select(b: Builder, x: View, axis: int, place: int) -> View:
    return x.moved(lambda a: np.take(a, place, axis))


@handles("index_select")
def _index_select(b: Builder, x: View, axis: int, places: Tensor) -> View:
    return x.moved(lambda a: np.take(a, places.numpy(), axis))


@handles("split", "split_with_sizes")
def _split(b: Builder, x: View, sizes: Any, axis: int = 0) -> list[View]:
    total = x.shape[axis]
    steps = range(sizes, total, sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
    pieces: list[Any] = np.split(x.elements(), list(steps), axis)
    return [View(x.value, piece.shape, piece) for piece in pieces]


@handles("chunk")
def _chunk(b: Builder, x: View, count: int, axis: int = 0) -> list[View]:
    parts: list[View] = _split(b, x, -(-x.shape[axis] // count), axis)
    return parts


@handles("channel_shuffle", "native_channel_shuffle")
def _shuffle(b: Builder, x: View, groups: int) -> View:
    n, c, *rest = x.shape
    return x.moved(
        lambda a: a.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)
    )


@handles("cat")
def _cat(b: Builder, parts: Sequence[View], axis: int = 0) -> View:
    return b.join(parts, axis) if len(parts) > 1 else parts[0]


@handles("pad", "constant_pad_nd")
def _pad(b: Builder, x: View, pads: Sequence[int], *rest: Any, **named: Any) -> View:
    mode = [v for v in (*rest, *named.values()) if v not in (None, 0, "constant")]
    if mode or len(x.shape) != 4 or min(pads) < 0:
        raise UnsupportedError(f"pad{tuple(pads)} of {x.shape}; only zeros around images")
    right = [*pads, *([0] * 6)]  # last axis first
    return b.pad(x, (*right[4:6], *right[2:4], *right[:2]))


@handles("stack")
def _stack(b: Builder, parts: Sequence[View], axis: int = 0) -> View:
    return b.join([_unsqueeze(b, part, axis) for part in parts], axis)


def _pool(
    b: Builder,
    x: View,
    how: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    count_padding: bool = True,
) -> View:
    size: Any = (list(kernel) * 2)[:2]
    step: Any = (list(stride) * 2)[:2] if stride else size
    around, beyond = windows(x.shape, size, step, sides(padding), ceil)
    return b.pool(x, Pool(how, tuple(size), tuple(step), around, beyond, count_padding))


@handles("max_pool2d")
def _max_pool(
    b: Builder,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> View:
    if set(dilation) != {1}:
        raise UnsupportedError("max_pool2d with dilation is not supported")
    return _pool(b, x, "max", kernel, stride, padding, ceil)


@handles("max_pool2d_with_indices")
def _max_pool_indices(b: Builder, x: View, *rest: Any) -> list[View]:
    return [_max_pool(b, x, *rest)]


@handles("avg_pool2d")
def _avg_pool(
    b: Builder,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> View:
    if divisor is not None:
        raise UnsupportedError("avg_pool2d with a divisor of its own is not supported")
    return _pool(b, x, "mean", kernel, stride, padding, ceil, count_padding)


def _adaptive(b: Builder, x: View, size: Sequence[int | None], how: Any) -> View:
    rows, columns = (
        s if s is not None else x.shape[i + 2] for i, s in enumerate((list(size) * 2)[:2])
    )
    if (rows, columns) == (1, 1):
        return b.reduce(x, how, (2, 3), keep=True)
    if (rows, columns) == tuple(x.shape[2:]):
        return x
    if x.shape[2] % rows or x.shape[3] % columns:
        raise UnsupportedError(
            f"adaptive pooling of {x.shape[2:]} to {rows}×{columns}: uneven windows"
        )
    step = (x.shape[2] // rows, x.shape[3] // columns)
    return b.pool(x, Pool(how, step, step))


@handles("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_mean(b: Builder, x: View, size: Sequence[int]) -> View:
    return _adaptive(b, x, size, "mean")


@handles("adaptive_max_pool2d")
def _adaptive_max(b: Builder, x: View, size: Sequence[int]) -> list[View]:
    return [_adaptive(b, x, size, "max")]


def _reducer(how: str) -> Handler:
    def reduce(b: Builder, x: View, axes: Any = None, keep: bool = False, **named: Any) -> View:
        chosen = [axes] if isinstance(axes, int) else axes or range(1, len(x.shape))
        return b.reduce(x, how, chosen, keep)

    return reduce


for _name, _how in (("mean", "mean"), ("sum", "sum"), ("amax", "max")):
    handles(_name)(_reducer(_how))


@handles("linalg_vector_norm")
def _norm(
    b: Builder, x: View, order: float = 2, axes: Any = None, keep: bool = False, **named: Any
) -> View:
    if order != 2:
        raise UnsupportedError(f"vector norm of order {order} is not supported; only 2 is")
    return b.reduce(x, "norm", [axes] if isinstance(axes, int) else axes, keep)


@handles("softmax", "_softmax")
def _softmax(b: Builder, x: View, axis: int, *rest: Any) -> View:
    if image_shape(x.shape)[1:] != (1, 1) or x.shape[axis] == 1:
        raise UnsupportedError(f"softmax of {x.shape} over axis {axis}; only of a vector")
    return b.add(Softmax(), b.settle(x), like=x.shape)
