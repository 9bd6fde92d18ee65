"""Weights, biases and scales as integers, chosen so that no sum leaves 32 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from leancnn.compiler.graph import Activation, Combine, Conv, Node, Pool, Shape
from leancnn.compiler.int8_pairs import in_words, largest_pairs
from leancnn.compiler.integers import ROOM, Array, Clamp, QGather, Quantized, QValue
from leancnn.compiler.ranges import Range
from leancnn.errors import UnsupportedError
from leancnn.normalisation import scale_and_shift

LEVELS = 127  # the largest weight; −128 is left out
FACTOR = 32_767  # the largest factor of a value that is added to a sum
LEAST = 2  # of that factor; below, the shortcut is added by a node of its own
NEARLY = 128  # of the factor of a shortcut beside a gate: within half a hundredth


def no_integers(node: Node) -> UnsupportedError:
    """What to say of an operator that has no integer form."""
    how = getattr(node.op, "how", getattr(node.op, "kind", ""))
    kind = f"{type(node.op).__name__} {how}".strip().lower()
    return UnsupportedError(f"{kind} (at {node.output}) has no integer form")


def as_bytes(range_: Range, shape: Shape) -> QValue:
    c = shape[0]
    return QValue(shape, np.full(c, range_.scale), np.full(c, range_.zero, np.int32))


def image_bytes(
    shape: Shape, mean: Sequence[float], std: Sequence[float], range_: Range | None
) -> tuple[QValue, Array, Array | None]:
    """What the bytes of the input mean, and the shift and the step of `Quantized`.

    Pixels are the bytes they are; signals, whose normalised values have a range, are rounded to it.
    """
    if range_ is None:
        scale, shift = scale_and_shift(mean, std)
        zero = np.clip(np.rint(-shift / scale), 0, 255).astype(np.int32)
        return QValue(shape, scale, zero), shift, None
    value, std_ = as_bytes(range_, shape), np.asarray(std, np.float64)
    step = value.scale * std_
    return value, np.asarray(mean, np.float64) - value.zero * step, step


def as_conv(node: Node, op: Pool, x: Shape, y: Shape) -> Conv:
    """A mean over windows is a convolution with ones; padding has to count as zeros."""
    counts = np.outer(op.counted(0, x[1], y[1]), op.counted(1, x[2], y[2]))
    if (counts != counts[0, 0]).any():
        raise UnsupportedError(
            f"a mean whose windows hold different numbers of pixels (at {node.output}) has no "
            "integer form"
        )
    ones = np.ones((y[0], 1, *op.kernel), np.float32)
    none = np.zeros(y[0], np.float32)
    return Conv(ones / counts[0, 0], none, op.stride, op.padding, (1, 1), y[0])


def common_scale(scales: Sequence[Array]) -> Array:
    """A scale of sums of which each of these is a large multiple."""
    return np.asarray(np.maximum(np.max(np.stack(scales), 0) / 2**14, 1e-30))


def factors(ratio: Array) -> Array:
    return np.clip(np.rint(ratio), -FACTOR, FACTOR).astype(np.int32)


def fits(node: Node, inputs: Sequence[QValue], others: Sequence[QValue]) -> bool:
    """Whether shortcuts can be added to the sums of an element-wise operator: a gate's have the
    scale they have, so that each has to be a large multiple of it, but not too large a one."""
    if not isinstance(node.op, Combine) or node.op.how != "mul":
        return True
    ratios = [other.scale / (inputs[0].scale * inputs[1].scale) for other in others]
    return all((ratio >= NEARLY).all() and (ratio <= FACTOR).all() for ratio in ratios)


def clamp(op: Activation, scale: Array) -> Clamp:
    """The ends of a clip in the scale of the sums."""
    low, high = (
        np.clip(np.rint(np.float64(end) / scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        for end in (op.low, op.high)
    )
    return Clamp(low, high)


def _as_int8(weight: Array) -> Array:
    """The same numbers in a byte each; what does not fit would turn its sign in silence."""
    assert weight.min(initial=0) >= -LEVELS - 1, weight.min()
    assert weight.max(initial=0) <= LEVELS, weight.max()
    return weight.astype(np.int8)


def repeated(
    network: Quantized, source: str, weight: Array, groups: int, times: int
) -> tuple[str, Array]:
    """Weights of more than 8 bits in so many parts, and what they multiply: each of the input's
    channels as many times; a byte each. The network gets that view, which copies nothing itself."""
    if times == 1:
        return source, _as_int8(weight)
    x = network.values[source]
    ends = [weight.astype(np.int32) * part // times for part in range(times + 1)]
    parts = [high - low for low, high in pairwise(ends)]
    channels = np.arange(groups * weight.shape[1]).reshape(groups, -1)
    order = np.concatenate([channels] * times, 1).ravel()
    name = f"{source}_times_{times}"
    if name not in network.values:
        shape = (len(order), *x.shape[1:])
        value = QValue(shape, x.scale[order], x.zero[order], x.wide, x.most)
        network.nodes.append(QGather(source, name, tuple(order.tolist())))
        network.values[name] = value
    return name, _as_int8(np.concatenate(parts, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Bytes:
    """A convolution's weights and bias as integers, and the scale of its sums."""

    weight: Array  # int16
    bias: Array  # int32
    scale: Array  # (c_out,)


def to_bytes(
    op: Conv,
    x: QValue,
    others: Sequence[QValue],
    shift: Array | None = None,
    means: Array | None = None,
    levels: int = LEVELS,
    *,
    paired: bool = True,
) -> Bytes:
    """Weights within ±`levels` on a scale for each output, fit for the shortcuts that are added.

    Each input channel's scale goes into its weights. `shift` is what the input's reals are beyond
    (q − zero) · scale; `means` of the input's channels let the bias make up for rounding. `paired`:
    no pair adds up to more than `levels` (see int8_pairs); where nothing is multiplied in pairs
    each weight alone does not.
    """
    outputs, each = op.weight.shape[:2]
    inputs = np.arange(outputs)[:, None] // (outputs // op.groups) * each + np.arange(each)
    real = op.weight.astype(np.float64) * x.scale[inputs][:, :, None, None]
    bias = op.bias.astype(np.float64)
    if shift is not None:
        bias = bias + (op.weight.astype(np.float64) * shift[inputs][:, :, None, None]).sum(
            (1, 2, 3)
        )
    depthwise = each == 1 and op.groups == outputs
    words = in_words(real, depthwise=depthwise)
    scale = (largest_pairs(words) if paired else np.abs(real).max((1, 2, 3))) / levels
    scale = np.maximum(np.maximum(scale, np.abs(bias) / 2**29), 1e-30)
    for other in others[:1]:
        scale = np.maximum(scale, other.scale / FACTOR)
        times = np.maximum(np.floor(other.scale / scale * (1 + 1e-12)), 1)
        scale = np.where(times >= LEAST, other.scale / times, scale)
    while True:
        weight = np.rint(real / scale[:, None, None, None])
        zeros = (weight * x.zero[inputs][:, :, None, None]).sum((1, 2, 3))
        most = np.abs(weight).sum((1, 2, 3)) * (x.most if x.wide else 255)
        most += np.abs(bias / scale - zeros) + 255.0 * FACTOR * len(others)
        if (most < ROOM).all():
            break
        scale = np.where(most < ROOM, scale, scale * 2)
    left = bias / scale - zeros
    if means is not None:  # the mean of what rounding took from the weights
        lost = (real - weight * scale[:, None, None, None]).sum((2, 3))
        left = left + (lost * (means[inputs] / x.scale[inputs])).sum(1) / scale
    return Bytes(weight.astype(np.int16), np.rint(left).astype(np.int32), scale)
