"""The small typed graph that every network becomes: named values, operators with weights.

Every value has the shape (C, H, W); a vector is (C, 1, 1). There is no batch. An operator is a
frozen value that knows the shape of its result, and a graph is a list of nodes in an order in which
they can be computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import UnsupportedError

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]
Sides = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True, slots=True, eq=False)
class Conv:
    """A convolution; a linear layer is one over a 1×1 image."""

    weight: Floats  # (c_out, c_in / groups, kernel rows, kernel columns)
    bias: Floats  # (c_out,)
    stride: tuple[int, int] = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight_scale: Floats | None = None  # (c_out,) where a file keeps the weights as integers

    def shape(self, x: Shape) -> Shape:
        kernel = (self.weight.shape[2], self.weight.shape[3])
        return (len(self.weight), *slide(x, kernel, self.stride, self.padding, self.dilation))


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Each channel times its scale plus its shift: batch norm, or a constant."""

    scale: Floats  # (c,)
    shift: Floats  # (c,)

    def shape(self, x: Shape) -> Shape:
        return x


@dataclass(frozen=True, slots=True, eq=False)
class Quantize:
    """QuantizeLinear: the whole numbers rint(x / scale) + zero, from `low` up to `high`."""

    scale: Floats  # (c,)
    zero: Floats  # (c,), whole numbers
    low: float
    high: float

    def shape(self, x: Shape) -> Shape:
        return x


ActivationKind = Literal[
    "clip",
    "leaky",
    "sigmoid",
    "hardsigmoid",
    "silu",
    "hardswish",
    "exp",
    "expm1",
    "tanh",
    "erf",
    "sqrt",
    "reciprocal",
    "log",
    "softplus",
    "power",
    "round",
]
Combining = Literal["add", "sub", "mul", "div", "max", "min"]
Pooling = Literal["max", "mean"]
Reducing = Literal["mean", "sum", "max", "norm"]
Axes = Literal["pixels", "channels"]


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of each element. ReLU is `clip` from 0 up; `low` is the slope of `leaky`, and the
    exponent of `power`."""

    kind: ActivationKind
    low: float = 0.0
    high: float = float("inf")

    def shape(self, x: Shape) -> Shape:
        return x


@dataclass(frozen=True, slots=True)
class Combine:
    """Two values element by element; the second may have one channel or one pixel for all."""

    how: Combining

    def shape(self, x: Shape, y: Shape) -> Shape:
        if y[0] not in (1, x[0]) or y[1:] not in ((1, 1), x[1:]):
            raise UnsupportedError(f"cannot {self.how} {x} and {y}: the second must fit the first")
        return x


@dataclass(frozen=True, slots=True)
class Gather:
    """The channels named, in that order: a shuffle, a slice, a part of a split."""

    channels: tuple[int, ...]

    def shape(self, x: Shape) -> Shape:
        return (len(self.channels), x[1], x[2])


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation of channels."""

    def shape(self, *xs: Shape) -> Shape:
        return (sum(x[0] for x in xs), xs[0][1], xs[0][2])


@dataclass(frozen=True, slots=True)
class Crop:
    """A window of every channel."""

    top: int
    left: int
    height: int
    width: int

    def shape(self, x: Shape) -> Shape:
        return (x[0], self.height, self.width)


@dataclass(frozen=True, slots=True)
class Pool:
    """Maximum or mean over sliding windows; the mean leaves padding out unless told otherwise.

    With ceil mode the importer has enlarged `padding` at the bottom and right, and says in `beyond`
    by how much: those pixels never count.
    """

    how: Pooling
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Sides = (0, 0, 0, 0)
    beyond: tuple[int, int] = (0, 0)
    count_padding: bool = True

    def shape(self, x: Shape) -> Shape:
        return (x[0], *slide(x, self.kernel, self.stride, self.padding, (1, 1)))

    def counted(self, axis: int, size: int, places: int) -> NDArray[np.intp]:
        """Pixels of a mean along an axis of `size`, (places,); none or fewer: nothing is in it."""
        low, high = self.padding[axis], self.padding[axis + 2] - self.beyond[axis]
        first = np.arange(places) * self.stride[axis] - low
        edge = (-low, size + high) if self.count_padding else (0, size)
        return np.minimum(first + self.kernel[axis], edge[1]) - np.maximum(first, edge[0])


@dataclass(frozen=True, slots=True)
class Reduce:
    """All pixels of a channel to one number, or all channels of a pixel."""

    how: Reducing
    over: Axes

    def shape(self, x: Shape) -> Shape:
        return (x[0], 1, 1) if self.over == "pixels" else (1, x[1], x[2])


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in the same order under another shape."""

    to: Shape

    def shape(self, x: Shape) -> Shape:
        if np.prod(x) != np.prod(self.to):
            raise UnsupportedError(f"cannot reshape {x} to {self.to}")
        return self.to


@dataclass(frozen=True, slots=True)
class Softmax:
    """exp(x) over its sum, of a vector; or the logarithm of that."""

    log: bool = False

    def shape(self, x: Shape) -> Shape:
        return x


Op = (
    Conv | Affine | Activation | Quantize | Combine | Gather | Concat | Crop | Pool | Reduce
    | Reshape | Softmax
)  # fmt: skip


def slide(
    x: Shape,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Sides,
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Rows and columns of places for a window. Raises `UnsupportedError` where none fits."""
    top, left, bottom, right = padding
    rows = (x[1] + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    columns = (x[2] + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    if rows < 1 or columns < 1:
        raise UnsupportedError(f"a {kernel[0]}×{kernel[1]} window does not fit an image of {x}")
    return rows, columns


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator at work: the values it reads and the value it makes."""

    op: Op
    inputs: tuple[str, ...]
    output: str


@dataclass(slots=True, eq=False)
class Graph:
    """Nodes in computing order. Values are names; `shapes` knows each."""

    input: str
    output: str
    shapes: dict[str, Shape]
    nodes: list[Node] = field(default_factory=list)

    def add(self, op: Any, *inputs: str, name: str) -> str:
        """Append an operator and return the name of its value: `name`, numbered when taken."""
        output, number = name, 1
        while output in self.shapes:
            number += 1
            output = f"{name}_{number}"
        self.shapes[output] = op.shape(*(self.shapes[value] for value in inputs))
        self.nodes.append(Node(op, inputs, output))
        return output

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value; the graph's output has none of its own."""
        found: dict[str, list[Node]] = {name: [] for name in self.shapes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def macs(self) -> int:
        """Multiply-accumulates of its convolutions and linear layers."""
        return sum(
            node.op.weight.size * self.shapes[node.output][1] * self.shapes[node.output][2]
            for node in self.convolutions()
            if isinstance(node.op, Conv)
        )

    def convolutions(self) -> Iterator[Node]:
        """Its nodes that are convolutions."""
        return (node for node in self.nodes if isinstance(node.op, Conv))


def empty(shape: Shape) -> Graph:
    """A graph that only knows its input."""
    return Graph("image", "image", {"image": shape})


def floats(array: Any) -> Floats:
    """A contiguous float32 copy of an array or tensor."""
    if hasattr(array, "numpy"):
        array = array.numpy()
    return np.array(array, dtype=np.float32, order="C")
