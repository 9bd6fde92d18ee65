"""The ranges of a network's values on calibration images, and the scale that each gets.

The simplified float graph runs in PyTorch, so that what is measured is what is quantized: batch
norm is folded, shuffles and concatenations are there by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Graph,
    Node,
    Pool,
    Quantize,
    Reduce,
    Reshape,
)
from leancnn.compiler.int8_pairs import in_words, largest_pairs
from leancnn.errors import UnsupportedError

BINS = 2048
TRIED = 80  # shares of the whole range that are tried as the range of the bytes
CLIPPED = 0.01  # of the values, from which on a range is named

Visit = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Range:
    """What a value did on the calibration images, and the bytes it gets."""

    low: float
    high: float
    mean: NDArray[np.float64]
    """Of each channel."""
    scale: float
    zero: int
    clipped: float
    """Share of the values beyond the range of the bytes."""


def measure(graph: Graph, batches: Iterable[Tensor], *, signals: bool = False) -> dict[str, Range]:
    """The range of every value that some operator computes, from normalised images (N, C, H, W),
    and of the input of `signals`, which has no bytes of its own.

    Each range is the one with the least mean squared error on a histogram of 2,048 bins.
    """
    given = list(batches)
    ends: dict[str, tuple[float, float]] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    count = 0

    def limits(name: str, x: Tensor) -> None:
        low, high = ends.get(name, (0.0, 0.0))
        ends[name] = (
            float(np.minimum(low, x.min().item())),  # not a number where one is none
            float(np.maximum(high, x.max().item())),
        )
        if not np.isfinite(ends[name]).all():
            raise UnsupportedError(f"{name}: values that are not numbers on the calibration images")
        total = x.double().mean((2, 3)).sum(0).numpy()
        sums[name] = sums.get(name, 0.0) + total

    def watch(batch: Tensor, visit: Visit) -> None:
        if signals:
            visit(graph.input, batch)
        run(graph, batch, visit)

    for batch in given:
        count += len(batch)
        watch(batch, limits)
    counts = {name: np.zeros(BINS) for name in ends}

    def histogram(name: str, x: Tensor) -> None:
        low, high = ends[name]
        if high > low:
            counts[name] += torch.histc(x.float(), BINS, low, high).double().numpy()

    for batch in given:
        watch(batch, histogram)
    return {name: _range(ends[name], counts[name], sums[name] / max(count, 1)) for name in ends}


def _range(
    ends: tuple[float, float], counts: NDArray[np.float64], mean: NDArray[np.float64]
) -> Range:
    low, high = ends
    if high <= low:
        return Range(low, high, mean, 1.0, 0, 0.0)
    edges = np.linspace(low, high, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    best: tuple[float, float, int] | None = None
    for share in np.linspace(1.0, 0.2, TRIED):
        scale = float(np.float32((high - low) * share / 255))
        zero = int(np.clip(np.rint(-low * share / scale), 0, 255))
        real = (np.clip(np.rint(middle / scale) + zero, 0, 255) - zero) * scale
        error = float((counts * (real - middle) ** 2).sum())
        if best is None or error < best[0]:
            best = (error, scale, zero)
    assert best is not None
    _, scale, zero = best
    inside = (middle >= (-zero - 0.5) * scale) & (middle <= (255.5 - zero) * scale)
    clipped = 1.0 - float(counts[inside].sum() / max(counts.sum(), 1))
    return Range(low, high, mean, scale, zero, clipped)


def means_of(graph: Graph, ranges: Mapping[str, Range], value: str) -> NDArray[np.float64] | None:
    """The mean of each channel of a value, also of one that only names channels; None: unknown."""
    if value in ranges:
        return ranges[value].mean
    for node in graph.nodes:
        if node.output == value and isinstance(node.op, Gather | Concat):
            found = [means_of(graph, ranges, name) for name in node.inputs]
            parts = [part for part in found if part is not None]
            if len(parts) < len(found):
                return None
            whole = np.concatenate(parts)
            return whole[list(node.op.channels)] if isinstance(node.op, Gather) else whole
    return None


@torch.no_grad()
def run(graph: Graph, images: Tensor, visit: Visit | None = None) -> Tensor:
    """The graph's answer (N, C, 1, 1) for normalised images; `visit` sees each value computed."""
    known = {graph.input: images}
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    for place, node in enumerate(graph.nodes):
        known[node.output] = apply(node, [known[name] for name in node.inputs])
        if visit is not None and not isinstance(node.op, Gather | Concat | Crop | Reshape):
            visit(node.output, known[node.output])
        for name in set(node.inputs):
            if last[name] == place and name != graph.output:
                del known[name]
    return known[graph.output]


def _step(op: Conv, made: Tensor) -> NDArray[np.float64]:
    """What one step of each output's weights is (c_out, 1, 1, 1), as the quantizer has it."""
    outputs, each = op.weight.shape[:2]
    words = in_words(op.weight, depthwise=each == 1 and op.groups == outputs)
    pixels = made.shape[2:] != (1, 1)
    most = largest_pairs(words) if pixels else np.abs(op.weight).max((1, 2, 3))
    return np.where(most > 0, most / 127, 1.0).reshape(-1, 1, 1, 1)


@torch.no_grad()
def weight_noise(graph: Graph, images: Tensor) -> list[tuple[str, float]]:
    """Of each convolution, by its output: how far rounding its weights to 8 bits alone moves it,
    relative to its spread over these images; the worst first."""
    known, found = {graph.input: images}, {}
    for node in graph.nodes:
        xs = [known[name] for name in node.inputs]
        made = known[node.output] = apply(node, xs)
        if isinstance(node.op, Conv):
            scale = _step(node.op, made)
            lost = (np.rint(node.op.weight / scale) * scale - node.op.weight).astype(np.float32)
            alone = replace(node.op, weight=lost, bias=np.zeros_like(node.op.bias))
            error = apply(replace(node, op=alone), xs)
            spread = (made - made.mean((0, 2, 3), keepdim=True)).norm().clamp(min=1e-12)
            found[node.output] = float(error.norm() / spread)
    return sorted(found.items(), key=lambda item: -item[1])


@torch.no_grad()
def layer_noise(
    graph: Graph, ranges: Mapping[str, Range], images: Tensor
) -> list[tuple[str, float]]:
    """The same where what a convolution reads is rounded too; the worst first."""
    known, found = {graph.input: images}, {}
    for node in graph.nodes:
        xs = [known[name] for name in node.inputs]
        made = known[node.output] = apply(node, xs)
        if isinstance(node.op, Conv):
            x, range_ = xs[0], ranges.get(node.inputs[0])
            if range_ is not None:
                whole = (x / range_.scale).round() + range_.zero
                x = (whole.clamp(0, 255) - range_.zero) * range_.scale
            step = _step(node.op, made)
            weight = (np.rint(node.op.weight / step) * step).astype(np.float32)
            error = apply(replace(node, op=replace(node.op, weight=weight)), [x]) - made
            spread = (made - made.mean((0, 2, 3), keepdim=True)).norm().clamp(min=1e-12)
            found[node.output] = float(error.norm() / spread)
    return sorted(found.items(), key=lambda item: -item[1])


def apply(node: Node, xs: list[Tensor]) -> Tensor:
    """One operator on tensors (N, C, H, W)."""
    op, x = node.op, xs[0]
    match op:
        case Conv():
            top, left, bottom, right = op.padding
            padded = F.pad(x, (left, right, top, bottom))
            weight, bias = torch.from_numpy(op.weight), torch.from_numpy(op.bias)
            return F.conv2d(padded, weight, bias, op.stride, 0, op.dilation, op.groups)
        case Affine():
            return x * _channels(op.scale) + _channels(op.shift)
        case Activation():
            return activation(op, x)
        case Quantize():
            whole = torch.round(x / _channels(op.scale)) + _channels(op.zero)
            return whole.clamp(op.low, op.high)
        case Combine(how):
            return COMBINED[how](x, xs[1])
        case Gather(channels):
            return x[:, list(channels)]
        case Concat():
            return torch.cat(xs, 1)
        case Crop(top, left, height, width):
            return x[:, :, top : top + height, left : left + width]
        case Pool():
            return _pool(op, x)
        case Reduce(how, over):
            axes: tuple[int, ...] = (2, 3) if over == "pixels" else (1,)
            return REDUCED[how](x, axes)
        case Reshape(to):
            return x.reshape(len(x), *to)
    return torch.log_softmax(x, 1) if op.log else torch.softmax(x, 1)


COMBINED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
}
REDUCED: Mapping[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "mean": lambda x, axes: x.mean(axes, keepdim=True),
    "sum": lambda x, axes: x.sum(axes, keepdim=True),
    "max": lambda x, axes: x.amax(axes, keepdim=True),
    "norm": lambda x, axes: torch.linalg.vector_norm(x, dim=axes, keepdim=True),
}


def activation(op: Activation, x: Tensor) -> Tensor:
    """A function of each element."""
    match op.kind:
        case "clip":
            return x.clamp(op.low, op.high)
        case "leaky":
            return F.leaky_relu(x, op.low)
        case "hardsigmoid":
            return F.hardsigmoid(x)
        case "hardswish":
            return F.hardswish(x)
        case "silu":
            return F.silu(x)
        case "softplus":
            return F.softplus(x)
        case "power":
            return x.pow(op.low)
    plain: Tensor = getattr(torch, op.kind)(x)
    return plain


def _pool(op: Pool, x: Tensor) -> Tensor:
    top, left, bottom, right = op.padding
    sides = (left, right, top, bottom)
    if op.how == "max":
        return F.max_pool2d(F.pad(x, sides, value=-torch.inf), op.kernel, op.stride)
    area = op.kernel[0] * op.kernel[1]
    sums = F.avg_pool2d(F.pad(x, sides), op.kernel, op.stride) * area
    rows, columns = sums.shape[2:]
    counted = np.outer(op.counted(0, x.shape[2], rows), op.counted(1, x.shape[3], columns))
    return sums / torch.from_numpy(counted).clamp(min=1)


def _channels(numbers: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(numbers).view(1, -1, 1, 1)
