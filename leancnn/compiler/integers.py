"""A quantized network as data: integer operators on bytes, and how they are written down.

Every value is unsigned bytes (C, H, W), real = scale[c] · (q − zero[c]), or 32-bit sums, real =
scale[c] · sum. An operator begins with a 32-bit sum for each output (a convolution's, or a bias
alone), does an epilogue on it, and stores bytes by the one rule of docs/quantize.md:

    q = clamp(rint(float32(sum) · multiplier[c]) + zero, 0, 255), half to even

A channel shuffle, a slice and a concatenation only name channels, each of which keeps its scale.
Where a layer stays in float32, `QDequantize` leads from bytes to it and `QQuantize` back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Op, Shape, Sides, slide
from leancnn.compiler.graph_data import op_to_data

Array = NDArray[Any]
ROOM = 2**31 - 2**24  # what a sum may reach, and what rounding makes of it


@dataclass(frozen=True, slots=True, eq=False)
class QValue:
    """What the numbers of a value mean. `wide`: 32-bit sums, whose zero is 0; `real`: float32."""

    shape: Shape
    scale: Array  # (c,) float64
    zero: Array  # (c,) int32, 0 to 255: what padding is filled with
    wide: bool = False
    most: int = 255  # the largest magnitude of a number in it
    real: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Clamp:
    """The sum of each channel, not below `low` and not above `high`."""

    low: Array  # (c,) int32
    high: Array  # (c,) int32


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """The sum plus factor[c] · (q − zero[c]) of another value."""

    value: str
    factor: Array  # (c,) int32, −32767 to 32767


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """The sum plus (q − zero) · (g − zero) of a value and one number a channel."""

    value: str
    gate: str


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Requantize the sum to bytes of a value; without a multiplier the sum itself is kept."""

    value: str
    multiplier: Array | None = None  # (c,) float32


QEpilogueOp = Clamp | Add | Gate | Store


@dataclass(frozen=True, slots=True, eq=False)
class QConv:
    """A convolution of bytes, or (of a wide value) of sums; its bias holds every zero point."""

    x: str
    weight: Array  # (c_out, c_in / groups, rows, columns) int8; −127 to 127, others' from −128
    bias: Array  # (c_out,) int32
    epilogue: tuple[QEpilogueOp, ...]
    stride: tuple[int, int] = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class QElementwise:
    """An epilogue alone, pixel by pixel, on a sum that begins with a bias."""

    bias: Array  # (c,) int32
    epilogue: tuple[QEpilogueOp, ...]


@dataclass(frozen=True, slots=True)
class QMaxPool:
    """The largest byte of a window; padding never counts."""

    x: str
    out: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Sides = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class QGlobalSum:
    """All pixels of a channel, less its zero point, as one 32-bit sum."""

    x: str
    out: str


@dataclass(frozen=True, slots=True, eq=False)
class QLookup:
    """Each byte by a table of 256."""

    x: str
    out: str
    table: Array  # (256,) uint8


@dataclass(frozen=True, slots=True, eq=False)
class QNorm:
    """Vectors of one pixel by their lengths, `groups` of them side by side; 0 stays 0.

    With n the sum of (q − zero)² of a group, its bytes are rint((q − zero) · (step / sqrt(n))) +
    zero, each of the float32 operations rounded by itself. `step` is 1 / scale of the result.
    """

    x: str
    out: str
    groups: int
    step: Array  # (1,) float32


@dataclass(frozen=True, slots=True)
class QGather:
    """The channels named, in that order."""

    x: str
    out: str
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QConcat:
    """Concatenation of channels."""

    xs: tuple[str, ...]
    out: str


@dataclass(frozen=True, slots=True)
class QCrop:
    """A window of every channel."""

    x: str
    out: str
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class QDequantize:
    """Bytes or sums as float32: float32(q − zero) · float32(scale); of the image q · scale +
    shift."""

    x: str
    out: str


@dataclass(frozen=True, slots=True, eq=False)
class QFloat:
    """An operator of the graph on values of float32."""

    op: Op
    xs: tuple[str, ...]
    out: str


@dataclass(frozen=True, slots=True)
class QQuantize:
    """float32 to bytes: clamp(rint(x / float32(scale)) + zero, 0, 255), half to even."""

    x: str
    out: str


QNode = (
    QConv | QElementwise | QMaxPool | QGlobalSum | QLookup | QNorm | QGather | QConcat | QCrop
    | QDequantize | QFloat | QQuantize
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Quantized:
    """Nodes in computing order. `image` are the pixels as they come; the answer is
    float32(number − zero) · float32(scale) of the value `output`."""

    image: str
    output: str
    values: dict[str, QValue]
    nodes: list[QNode] = field(default_factory=list)
    shift: Array = field(default_factory=lambda: np.zeros(0))
    """Of the image: real = scale · pixel + shift, which is not a whole multiple of the scale."""
    step: Array | None = None
    """Of signals, which come as floats x that nobody normalised: their bytes are
    rint((x − shift) / step), in doubles, and real = scale · (byte − zero)."""

    @property
    def mixed(self) -> bool:
        """Whether some of it is computed in float32; then bits may differ between processors."""
        return any(isinstance(node, QDequantize | QFloat | QQuantize) for node in self.nodes)

    def weights(self) -> int:
        """Bytes of weights, biases, multipliers and tables: what a program of it keeps."""
        return sum(array.nbytes for array in _of_nodes(self).values())


def stores(node: QNode) -> list[Store]:
    """What a node with an epilogue writes."""
    if isinstance(node, QConv | QElementwise):
        return [op for op in node.epilogue if isinstance(op, Store)]
    return []


def writes(node: QNode) -> list[str]:
    """The values a node makes."""
    if isinstance(node, QConv | QElementwise):
        return [store.value for store in stores(node)]
    return [node.out]


def reads(node: QNode) -> list[str]:
    """The values a node reads, those of its epilogue included."""
    if isinstance(node, QConcat | QFloat):
        return list(node.xs)
    found = [] if isinstance(node, QElementwise) else [node.x]
    if isinstance(node, QConv | QElementwise):
        for op in node.epilogue:
            if isinstance(op, Add):
                found.append(op.value)
            if isinstance(op, Gate):
                found += [op.value, op.gate]
    return found


def trimmed(network: Quantized) -> Quantized:
    """The network without what its answer does not need."""
    needed, kept = {network.output}, []
    for node in reversed(network.nodes):
        if needed.intersection(writes(node)):
            needed.update(reads(node))
            kept.append(node)
    there = {network.image, *(name for node in kept for name in writes(node))}
    values = {name: value for name, value in network.values.items() if name in there}
    return replace(network, nodes=kept[::-1], values=values)


def conv_shape(node: QConv, x: Shape) -> Shape:
    """The shape of a convolution's sums."""
    kernel = (node.weight.shape[2], node.weight.shape[3])
    return (len(node.weight), *slide(x, kernel, node.stride, node.padding, node.dilation))


def bound(node: QConv | QElementwise, values: Mapping[str, QValue]) -> Array:
    """The largest magnitude that each channel's sum can have at any step, (c,) as floats.

    It has to stay below 2^31, see `overflows`.
    """
    total = np.abs(node.bias.astype(np.float64))
    if isinstance(node, QConv):
        x = values[node.x]
        most = float(x.most) if x.wide else 255.0
        total = total + np.abs(node.weight.astype(np.float64)).sum((1, 2, 3)) * most
    for op in node.epilogue:
        if isinstance(op, Add):
            total = total + np.abs(op.factor.astype(np.float64)) * 255
        if isinstance(op, Gate):
            total = total + 255 * 255 * np.ones_like(total)
    return np.asarray(total)


def overflows(node: QConv | QElementwise, values: Mapping[str, QValue]) -> bool:
    """Whether a sum, or what its multiplier makes of it, may leave 32 bits: the quantizer makes no
    such node, and loading refuses one.

    Processors differ in what they make of a float beyond that: some the largest integer, some the
    smallest. Nothing that means anything goes there: a byte is full at 255.
    """
    most = bound(node, values)
    products = [
        most * np.abs(op.multiplier.astype(np.float64))
        for op in node.epilogue
        if isinstance(op, Store) and op.multiplier is not None
    ]
    return bool((most >= 2**31).any()) or any((each >= ROOM).any() for each in products)


def arrays_of(network: Quantized) -> dict[str, Array]:
    """Every array by a name made of its place."""
    found: dict[str, Array] = {"shift": network.shift}
    if network.step is not None:
        found["step"] = network.step
    for name, value in network.values.items():
        found[f"{name}.scale"], found[f"{name}.zero"] = value.scale, value.zero
    return found | _of_nodes(network)


def _of_nodes(network: Quantized) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for place, node in enumerate(network.nodes):
        _collect(node, f"n{place}", found)
    return found


def _collect(item: Any, path: str, found: dict[str, Array]) -> None:
    for key in item.__dataclass_fields__:
        value = getattr(item, key)
        if isinstance(value, np.ndarray):
            found[f"{path}.{key}"] = value
        if key == "op":
            found.update(op_to_data(value, f"{path}.op")[1])
        if key == "epilogue":
            for number, op in enumerate(value):
                _collect(op, f"{path}.s{number}", found)
