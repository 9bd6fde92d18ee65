"""What each aten operator becomes: functions from views to views, by the operator's name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leancnn.compiler.graph import Pool, Sides
from leancnn.compiler.handlers import Handler, Handlers
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import View
from leancnn.compiler.reductions import adaptive, normalised, reduce, softmax, windows
from leancnn.errors import UnsupportedError

handlers = Handlers()
handles = handlers.handles  # functions get the builder and the operator's arguments


def channelwise(x: View, numbers: Tensor) -> Tensor:
    """One number for each channel, (C,), so that it broadcasts against (N, C, …)."""
    return numbers.reshape(-1, *[1] * (len(x.shape) - 2))


def sides(padding: Sequence[int]) -> Sides:
    """(rows, columns) of padding on both sides as top, left, bottom, right."""
    rows, columns = (*padding, *padding)[:2]
    return rows, columns, rows, columns


@handles("conv1d", "conv2d", "convolution")
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
    result = b.affine(x, channelwise(x, scale), channelwise(x, shift))
    return [result] if len(rest) == 2 else result


@handles("clone", "contiguous", "alias", "detach", "dropout", "feature_dropout", "lift_fresh_copy")
def _same(b: Builder, x: View, *rest: Any, **named: Any) -> View:
    return x


@handles("_to_copy", "to")
def _converted(b: Builder, x: View, *rest: Any, **named: Any) -> View:
    kinds = {value for value in (*rest, *named.values()) if isinstance(value, torch.dtype)}
    if kinds - {torch.float32, torch.float64}:
        raise UnsupportedError(f"a conversion to {kinds.pop()}; the compiler computes in float32")
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


@handles("zeros_like")
def _zeros(b: Builder, x: View, *rest: Any, **named: Any) -> Tensor:
    return torch.zeros(x.shape)


@handles("flip")
def _flip(b: Builder, x: View, axes: Sequence[int]) -> View:
    return x.moved(lambda a: np.flip(a, tuple(axes)))


@handles("roll")
def _roll(b: Builder, x: View, shifts: Sequence[int], axes: Sequence[int]) -> View:
    return x.moved(lambda a: np.roll(a, tuple(shifts), tuple(axes)))


@handles("repeat")
def _repeat(b: Builder, x: View, times: Sequence[int]) -> View:
    return x.moved(lambda a: np.tile(a, tuple(times)))


@handles("unbind")
def _unbind(b: Builder, x: View, axis: int = 0) -> list[View]:
    return [_select(b, x, axis, place) for place in range(x.shape[axis])]


@handles("select")
def _select(b: Builder, x: View, axis: int, place: int) -> View:
    return x.moved(lambda a: np.take(a, place, axis))


@handles("index")
def _index(b: Builder, x: View, places: Sequence[Any]) -> View:
    given = [(axis, p) for axis, p in enumerate(places) if p is not None]
    if len(given) != 1 or not isinstance(given[0][1], Tensor) or given[0][1].dim() != 1:
        raise UnsupportedError("only a constant list of places along one axis can be taken")
    made: View = _index_select(b, x, *given[0])
    return made


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
    words = [v for v in (*rest, *named.values()) if isinstance(v, str) and v != "constant"]
    numbers = [v for v in (*rest, *named.values()) if isinstance(v, int | float)]
    if words or len(x.shape) != 4 or len(pads) > 6:
        raise UnsupportedError(f"pad{tuple(pads)} of {x.shape}; only numbers around images")
    right = [*pads, *([0] * 6)]  # last axis first
    fill = float(numbers[0]) if numbers else 0.0
    return b.pad(x, (*right[4:6], *right[2:4], *right[:2]), fill)


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


@handles("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_mean(b: Builder, x: View, size: Sequence[int | None]) -> View:
    return adaptive(b, x, _sizes(x, size), "mean")


@handles("adaptive_max_pool2d")
def _adaptive_max(b: Builder, x: View, size: Sequence[int | None]) -> list[View]:
    return [adaptive(b, x, _sizes(x, size), "max")]


def _sizes(x: View, size: Sequence[int | None]) -> list[int]:
    return [x.shape[i + 2] if s is None else s for i, s in enumerate((list(size) * 2)[:2])]


def _reducer(how: Any) -> Handler:
    def reducer(b: Builder, x: View, axes: Any = None, keep: bool = False, **named: Any) -> View:
        chosen = [axes] if isinstance(axes, int) else axes or range(len(x.shape))
        return reduce(b, x, how, chosen, keep)

    return reducer


for _name, _how in (("mean", "mean"), ("sum", "sum"), ("amax", "max")):
    handles(_name)(_reducer(_how))


@handles("max")
def _max(b: Builder, x: View, axis: Any = None, keep: bool = False) -> list[View] | View:
    if isinstance(axis, int):
        return [reduce(b, x, "max", [axis], keep)]
    if axis is None:
        return reduce(b, x, "max", range(len(x.shape)), keep)
    return b.combine("max", x, axis)  # another value


@handles("linalg_vector_norm")
def _norm(
    b: Builder, x: View, order: float = 2, axes: Any = None, keep: bool = False, **named: Any
) -> View:
    if order != 2:
        raise UnsupportedError(f"vector norm of order {order} is not supported; only 2 is")
    chosen = [axes] if isinstance(axes, int) else axes or range(len(x.shape))
    return reduce(b, x, "norm", chosen, keep)


@handles("softmax", "_softmax")
def _softmax(b: Builder, x: View, axis: int, *rest: Any) -> View:
    return softmax(b, x, axis)


@handles("layer_norm")
def _layer_norm(
    b: Builder,
    x: View,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *rest: Any,
) -> View:
    made = normalised(b, x, range(-len(shape), 0), epsilon)
    return b.affine(made, 1 if weight is None else weight, 0 if bias is None else bias)


@handles("group_norm")
def _group_norm(
    b: Builder,
    x: View,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *rest: Any,
) -> View:
    n, c, *pixels = x.shape
    split = x.moved(lambda a: a.reshape(n, groups, c // groups, *pixels))
    made = normalised(b, split, range(2, len(split.shape)), epsilon)
    made = made.moved(lambda a: a.reshape(x.shape))
    scale = 1 if weight is None else channelwise(x, weight)
    return b.affine(made, scale, 0 if bias is None else channelwise(x, bias))


@handles("instance_norm")
def _instance_norm(
    b: Builder, x: View, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, *rest: Any
) -> View:
    if not own:
        raise UnsupportedError("an instance norm with running statistics is not supported")
    made: View = _group_norm(b, x, x.shape[1], weight, bias, rest[1])
    return made
