"""What each aten operator becomes: functions from views to views, by the operator's name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leancnn.compiler.graph import Pool, Sides
from leancnn.compiler.handlers import Handler, Handlers
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.reductions import adaptive, normalised, reduce, softmax, windows
from leancnn.errors import UnsupportedError

handlers = Handlers()
handles = handlers.handles  # functions get the builder and the operator's arguments


def channelwise(x: IndexMap, numbers: Tensor) -> Tensor:
    """One number for each channel, (C,), so that it broadcasts against (N, C, …)."""
    return numbers.reshape(-1, *[1] * (len(x.shape) - 2))


def sides(padding: Sequence[int]) -> Sides:
    """(rows, columns) of padding on both sides as top, left, bottom, right."""
    rows, columns = (*padding, *padding)[:2]
    return rows, columns, rows, columns


@handles("conv1d", "conv2d", "convolution")
def _conv(
    b: Builder, x: IndexMap, weight: Tensor, bias: Tensor | None = None, *rest: Any
) -> IndexMap:
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
def _linear(b: Builder, x: IndexMap, weight: Tensor, bias: Tensor | None = None) -> IndexMap:
    return b.linear(x, weight, bias)


@handles("addmm")
def _addmm(b: Builder, bias: Tensor, x: IndexMap, weight: Tensor) -> IndexMap:
    return b.linear(x, weight.T, bias)


@handles("mm", "matmul")
def _matmul(b: Builder, x: IndexMap, weight: Tensor) -> IndexMap:
    return b.linear(x, weight.T, None)


@handles("_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(
    b: Builder,
    x: IndexMap,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    *rest: Any,
) -> list[IndexMap] | IndexMap:
    epsilon = rest[-1] if len(rest) == 2 else rest[-2]
    scale = torch.rsqrt(variance.double() + epsilon)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    result = b.affine(x, channelwise(x, scale), channelwise(x, shift))
    return [result] if len(rest) == 2 else result


@handles("clone", "contiguous", "alias", "detach", "dropout", "feature_dropout", "lift_fresh_copy")
def _same(b: Builder, x: IndexMap, *rest: Any, **named: Any) -> IndexMap:
    return x


@handles("_assert_tensor_metadata")
def _assured(b: Builder, x: IndexMap, *rest: Any, **named: Any) -> IndexMap:
    """What torch.export puts before a conversion; the conversion itself says what is wrong."""
    return x


@handles("_to_copy", "to")
def _converted(b: Builder, x: IndexMap, *rest: Any, **named: Any) -> IndexMap:
    kinds = {value for value in (*rest, *named.values()) if isinstance(value, torch.dtype)}
    if kinds - {torch.float32, torch.float64}:
        raise UnsupportedError(f"a conversion to {kinds.pop()}; the compiler computes in float32")
    return x


@handles("view", "_unsafe_view", "reshape")
def _reshape(b: Builder, x: IndexMap, shape: Sequence[int]) -> IndexMap:
    return x.moved(lambda a: a.reshape(tuple(shape)))


@handles("flatten")
def _flatten(b: Builder, x: IndexMap, start: int = 0, end: int = -1) -> IndexMap:
    end %= len(x.shape)
    shape = (*x.shape[:start], -1, *x.shape[end + 1 :])
    return x.moved(lambda a: a.reshape(shape))


@handles("transpose")
def _transpose(b: Builder, x: IndexMap, first: int, second: int) -> IndexMap:
    return x.moved(lambda a: a.swapaxes(first, second))


@handles("permute")
def _permute(b: Builder, x: IndexMap, order: Sequence[int]) -> IndexMap:
    return x.moved(lambda a: a.transpose(order))


@handles("unsqueeze")
def _unsqueeze(b: Builder, x: IndexMap, axis: int) -> IndexMap:
    return x.moved(lambda a: np.expand_dims(a, axis))


@handles("squeeze")
def _squeeze(b: Builder, x: IndexMap, axes: int | Sequence[int] | None = None) -> IndexMap:
    chosen = range(len(x.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    ones = tuple(axis % len(x.shape) for axis in chosen if x.shape[axis] == 1)
    return x.moved(lambda a: a.squeeze(ones))


@handles("expand")
def _expand(b: Builder, x: IndexMap, shape: Sequence[int], **named: Any) -> IndexMap:
    pad = (1,) * (len(shape) - len(x.shape)) + x.shape
    sizes = tuple(old if new == -1 else new for old, new in zip(pad, shape, strict=True))
    return x.moved(lambda a: np.broadcast_to(a, sizes))


@handles("expand_as")
def _expand_as(b: Builder, x: IndexMap, other: IndexMap) -> IndexMap:
    return x.moved(lambda a: np.broadcast_to(a, other.shape))


@handles("slice")
def _slice(
    b: Builder,
    x: IndexMap,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> IndexMap:
    return x.moved(lambda a: a[(slice(None),) * (axis % a.ndim) + (slice(start, end, step),)])


@handles("zeros_like")
def _zeros(b: Builder, x: IndexMap, *rest: Any, **named: Any) -> Tensor:
    return torch.zeros(x.shape)


@handles("flip")
def _flip(b: Builder, x: IndexMap, axes: Sequence[int]) -> IndexMap:
    return x.moved(lambda a: np.flip(a, tuple(axes)))


@handles("roll")
def _roll(b: Builder, x: IndexMap, shifts: Sequence[int], axes: Sequence[int]) -> IndexMap:
    return x.moved(lambda a: np.roll(a, tuple(shifts), tuple(axes)))


@handles("repeat")
def _repeat(b: Builder, x: IndexMap, times: Sequence[int]) -> IndexMap:
    return x.moved(lambda a: np.tile(a, tuple(times)))


@handles("unbind")
def _unbind(b: Builder, x: IndexMap, axis: int = 0) -> list[IndexMap]:
    return [_select(b, x, axis, place) for place in range(x.shape[axis])]


@handles("select")
def _select(b: Builder, x: IndexMap, axis: int, place: int) -> IndexMap:
    return x.moved(lambda a: np.take(a, place, axis))


@handles("index")
def _index(b: Builder, x: IndexMap, places: Sequence[Any]) -> IndexMap:
    given = [(axis, p) for axis, p in enumerate(places) if p is not None]
    if len(given) != 1 or not isinstance(given[0][1], Tensor) or given[0][1].dim() != 1:
        raise UnsupportedError("only a constant list of places along one axis can be taken")
    made: IndexMap = _index_select(b, x, *given[0])
    return made


@handles("index_select")
def _index_select(b: Builder, x: IndexMap, axis: int, places: Tensor) -> IndexMap:
    return x.moved(lambda a: np.take(a, places.numpy(), axis))


@handles("split", "split_with_sizes")
def _split(b: Builder, x: IndexMap, sizes: Any, axis: int = 0) -> list[IndexMap]:
    total = x.shape[axis]
    steps = range(sizes, total, sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
    pieces: list[Any] = np.split(x.elements(), list(steps), axis)
    return [IndexMap(x.value, piece.shape, piece) for piece in pieces]


@handles("chunk")
def _chunk(b: Builder, x: IndexMap, count: int, axis: int = 0) -> list[IndexMap]:
    parts: list[IndexMap] = _split(b, x, -(-x.shape[axis] // count), axis)
    return parts


@handles("channel_shuffle", "native_channel_shuffle")
def _shuffle(b: Builder, x: IndexMap, groups: int) -> IndexMap:
    n, c, *rest = x.shape
    return x.moved(
        lambda a: a.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)
    )


@handles("cat")
def _cat(b: Builder, parts: Sequence[IndexMap], axis: int = 0) -> IndexMap:
    return b.concat(parts, axis) if len(parts) > 1 else parts[0]


@handles("pad", "constant_pad_nd")
def _pad(b: Builder, x: IndexMap, pads: Sequence[int], *rest: Any, **named: Any) -> IndexMap:
    words = [v for v in (*rest, *named.values()) if isinstance(v, str) and v != "constant"]
    numbers = [v for v in (*rest, *named.values()) if isinstance(v, int | float)]
    if words or len(x.shape) != 4 or len(pads) > 6:
        raise UnsupportedError(f"pad{tuple(pads)} of {x.shape}; only numbers around images")
    right = [*pads, *([0] * 6)]  # last axis first
    fill = float(numbers[0]) if numbers else 0.0
    return b.pad(x, (*right[4:6], *right[2:4], *right[:2]), fill)


@handles("stack")
def _stack(b: Builder, parts: Sequence[IndexMap], axis: int = 0) -> IndexMap:
    return b.concat([_unsqueeze(b, part, axis) for part in parts], axis)


def _pool(
    b: Builder,
    x: IndexMap,
    how: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    count_padding: bool = True,
) -> IndexMap:
    size: Any = (list(kernel) * 2)[:2]
    step: Any = (list(stride) * 2)[:2] if stride else size
    around, beyond = windows(x.shape, size, step, sides(padding), ceil)
    return b.pool(x, Pool(how, tuple(size), tuple(step), around, beyond, count_padding))


@handles("max_pool2d")
def _max_pool(
    b: Builder,
    x: IndexMap,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> IndexMap:
    if set(dilation) != {1}:
        raise UnsupportedError("max_pool2d with dilation is not supported")
    return _pool(b, x, "max", kernel, stride, padding, ceil)


@handles("max_pool2d_with_indices")
def _max_pool_indices(b: Builder, x: IndexMap, *rest: Any) -> list[IndexMap]:
    return [_max_pool(b, x, *rest)]


@handles("avg_pool2d")
def _avg_pool(
    b: Builder,
    x: IndexMap,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> IndexMap:
    if divisor is not None:
        raise UnsupportedError("avg_pool2d with a divisor of its own is not supported")
    return _pool(b, x, "mean", kernel, stride, padding, ceil, count_padding)


@handles("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_mean(b: Builder, x: IndexMap, size: Sequence[int | None]) -> IndexMap:
    return adaptive(b, x, _sizes(x, size), "mean")


@handles("adaptive_max_pool2d")
def _adaptive_max(b: Builder, x: IndexMap, size: Sequence[int | None]) -> list[IndexMap]:
    return [adaptive(b, x, _sizes(x, size), "max")]


def _sizes(x: IndexMap, size: Sequence[int | None]) -> list[int]:
    return [x.shape[i + 2] if s is None else s for i, s in enumerate((list(size) * 2)[:2])]


def _reducer(how: Any) -> Handler:
    def reducer(
        b: Builder, x: IndexMap, axes: Any = None, keep: bool = False, **named: Any
    ) -> IndexMap:
        chosen = [axes] if isinstance(axes, int) else axes or range(len(x.shape))
        return reduce(b, x, how, chosen, keep)

    return reducer


for _name, _how in (("mean", "mean"), ("sum", "sum"), ("amax", "max")):
    handles(_name)(_reducer(_how))


@handles("max")
def _max(
    b: Builder, x: IndexMap, axis: Any = None, keep: bool = False
) -> list[IndexMap] | IndexMap:
    if isinstance(axis, int):
        return [reduce(b, x, "max", [axis], keep)]
    if axis is None:
        return reduce(b, x, "max", range(len(x.shape)), keep)
    return b.combine("max", x, axis)  # another value


@handles("linalg_vector_norm")
def _norm(
    b: Builder, x: IndexMap, order: float = 2, axes: Any = None, keep: bool = False, **named: Any
) -> IndexMap:
    if order != 2:
        raise UnsupportedError(f"vector norm of order {order} is not supported; only 2 is")
    chosen = [axes] if isinstance(axes, int) else axes or range(len(x.shape))
    return reduce(b, x, "norm", chosen, keep)


@handles("softmax", "_softmax")
def _softmax(b: Builder, x: IndexMap, axis: int, *rest: Any) -> IndexMap:
    return softmax(b, x, axis)


@handles("layer_norm")
def _layer_norm(
    b: Builder,
    x: IndexMap,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *rest: Any,
) -> IndexMap:
    made = normalised(b, x, range(-len(shape), 0), epsilon)
    return b.affine(made, 1 if weight is None else weight, 0 if bias is None else bias)


@handles("group_norm")
def _group_norm(
    b: Builder,
    x: IndexMap,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *rest: Any,
) -> IndexMap:
    n, c, *pixels = x.shape
    split = x.moved(lambda a: a.reshape(n, groups, c // groups, *pixels))
    made = normalised(b, split, range(2, len(split.shape)), epsilon)
    made = made.moved(lambda a: a.reshape(x.shape))
    scale = 1 if weight is None else channelwise(x, weight)
    return b.affine(made, scale, 0 if bias is None else channelwise(x, bias))


@handles("instance_norm")
def _instance_norm(
    b: Builder, x: IndexMap, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, *rest: Any
) -> IndexMap:
    if not own:
        raise UnsupportedError("an instance norm with running statistics is not supported")
    made: IndexMap = _group_norm(b, x, x.shape[1], weight, bias, rest[1])
    return made
