"""A graph that a file rounds with QuantizeLinear to a quantized network, as the file says it.

Every scale and zero point is the file's, and so are the weights' whole numbers: the sums are those
of any engine that computes in integers, and what is stored is rounded where the file rounds. What
stands between two roundings and depends on one byte alone becomes a table of 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leancnn.compiler.graph import Affine, Concat, Crop, Gather, Graph, Node, Pool, Quantize, Reduce
from leancnn.compiler.integers import (
    Array,
    QConcat,
    QCrop,
    QGather,
    QMaxPool,
    QNode,
    Quantized,
    QValue,
    Store,
    reads,
    writes,
)
from leancnn.compiler.qdq_sums import sums
from leancnn.compiler.qdq_tables import root, table
from leancnn.compiler.qdq_values import Known, Values
from leancnn.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Grid:
    """How a file rounds an image of floats: to rint(float32(x) / scale) + zero, within 0 to 255."""

    scale: np.float32
    zero: int


def from_qdq(graph: Graph, integers: bool) -> tuple[Quantized, Grid | None]:
    """The network of a simplified graph, and the grid of its image if that is floats.

    Raises `UnsupportedError` naming what has no integer form, or stands between no roundings.
    """
    reader = Reader(graph, integers)
    for node in graph.nodes:
        reader.node(node)
    reader.answer()
    return reader.values.network, reader.grid


class Reader:
    """The bytes known so far and the network that computes them."""

    def __init__(self, graph: Graph, integers: bool) -> None:
        c = graph.shapes[graph.input][0]
        image = QValue(graph.shapes[graph.input], np.ones(c), np.zeros(c, np.int32))
        network = Quantized(graph.input, "", {graph.input: image}, [], np.zeros(c))
        self.values = Values(graph, network)
        self.grid: Grid | None = None
        if integers:
            self.values.known[graph.input] = Known(graph.input, np.ones(c), np.zeros(c))
        else:
            self._image(c)

    def _image(self, c: int) -> None:
        """Floats are rounded first of all, and by one grid."""
        ops = [
            node.op for node in self.values.graph.nodes if self.values.graph.input in node.inputs
        ]
        first = next((op for op in ops if isinstance(op, Quantize)), None)
        if first is None or not all(_same_grid(op, first) for op in ops):
            raise UnsupportedError("the image of floats is not rounded before anything else")
        scale, zero = _one(first.scale), _one(first.zero - first.low)
        if scale is None or zero is None:
            raise UnsupportedError("the image is rounded channel by channel")
        self.grid = Grid(np.float32(scale), int(zero))
        zeros = np.full(c, zero, np.int32)
        image = QValue(self.values.graph.shapes[self.values.graph.input], np.full(c, scale), zeros)
        self.values.network.values[self.values.graph.input] = image
        self.values.network.shift = -image.scale * zeros

    def node(self, node: Node) -> None:
        """One node: bytes become bytes; sums wait until they are rounded."""
        given = [self.values.known.get(name) for name in node.inputs]
        x = given[0]
        match node.op:
            case Quantize() if self.grid is not None and node.inputs[0] == self.values.graph.input:
                c = self.values.graph.shapes[node.output][0]
                low = np.full(c, node.op.low)
                self.values.known[node.output] = Known(self.values.graph.input, np.ones(c), low)
            case Quantize():
                self._rounded(node, node.op)
            case Affine(factor, shift) if x is not None:
                scale = x.scale * factor.astype(np.float64)
                if (scale > 0).all():
                    offset = x.offset * factor.astype(np.float64) + shift
                    self.values.known[node.output] = Known(x.name, scale, offset)
            case Gather(channels) if x is not None:
                value = self._value(x.name, node, list(channels))
                self._put(node, QGather(x.name, node.output, channels), value, x, list(channels))
            case Crop(top, left, _, _) if x is not None:
                value = self._value(x.name, node, None)
                self._put(node, QCrop(x.name, node.output, top, left), value, x, None)
            case Concat() if all(given):
                self._joined(node, [part for part in given if part is not None])
            case Pool("max") | Reduce("max", "pixels") if x is not None:
                shape = self.values.graph.shapes[node.inputs[0]]
                pooled = QMaxPool(x.name, node.output, (shape[1], shape[2]), (1, 1))
                if isinstance(node.op, Pool):
                    sizes = node.op.kernel, node.op.stride, node.op.padding
                    pooled = QMaxPool(x.name, node.output, *sizes)
                self._put(node, pooled, self._value(x.name, node, None), x, None)

    def _value(self, name: str, node: Node, channels: list[int] | None) -> QValue:
        """What a value with the same bytes means."""
        x = self.values.network.values[name]
        kept = list(range(x.shape[0])) if channels is None else channels
        return QValue(self.values.graph.shapes[node.output], x.scale[kept], x.zero[kept])

    def _put(
        self, node: Node, made: QNode, value: QValue, x: Known, channels: list[int] | None
    ) -> None:
        kept = list(range(len(x.scale))) if channels is None else channels
        self.values.append(made, node.output, value)
        self.values.known[node.output] = Known(node.output, x.scale[kept], x.offset[kept])

    def _joined(self, node: Node, parts: list[Known]) -> None:
        values = [self.values.network.values[part.name] for part in parts]
        scale, zero = (
            np.concatenate([getattr(value, field) for value in values])
            for field in ("scale", "zero")
        )
        value = QValue(self.values.graph.shapes[node.output], scale, zero)
        self.values.append(
            QConcat(tuple(part.name for part in parts), node.output), node.output, value
        )
        both = [np.concatenate([getattr(p, f) for p in parts]) for f in ("scale", "offset")]
        self.values.known[node.output] = Known(node.output, *both)

    # Roundings

    def _rounded(self, node: Node, op: Quantize) -> None:
        source = node.inputs[0]
        zero = _one(op.zero)
        if zero is None:
            raise UnsupportedError(f"{node.output} has a zero point for each channel")
        shape = self.values.graph.shapes[node.output]
        zeros = np.full(shape[0], int(zero - op.low), np.int32)
        value = QValue(shape, op.scale.astype(np.float64), zeros)
        found = root(self.values, source)
        if found is not None:
            table(self.values, node, found, value)
        else:
            sums(self.values, source, Store(node.output), value)
        if node.output not in self.values.known:
            low = np.full(shape[0], op.low)
            self.values.known[node.output] = Known(node.output, np.ones(shape[0]), low)

    # The answer

    def answer(self) -> None:
        """Bytes, or sums of the last layer; then what nobody reads is left out."""
        value = self.values.graph.output
        if value in self.values.known:
            self.values.network.output = self.values.operand(value)
        else:
            sums(self.values, value, Store(f"{value}_sums"), None)
            self.values.network.output = f"{value}_sums"
        needed, kept = {self.values.network.output}, []
        for node in reversed(self.values.network.nodes):
            if needed.intersection(writes(node)):
                needed.update(reads(node))
                kept.append(node)
        self.values.network.nodes = kept[::-1]
        there = {self.values.network.image, *(name for node in kept for name in writes(node))}
        self.values.network.values = {
            k: v for k, v in self.values.network.values.items() if k in there
        }


def _one(numbers: Sequence[float] | Array) -> float | None:
    """The number that all of these are, if they are one."""
    found = np.unique(np.asarray(numbers))
    return float(found[0]) if len(found) == 1 else None


def _same_grid(op: object, first: Quantize) -> bool:
    return (
        isinstance(op, Quantize)
        and np.array_equal(op.scale, first.scale)
        and np.array_equal(op.zero, first.zero)
        and (op.low, op.high) == (first.low, first.high)
    )
