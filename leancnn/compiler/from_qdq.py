"""A graph that a file rounds with QuantizeLinear to a quantized network, as the file says it.

Every scale and zero point is the file's, and so are the weights' whole numbers: the sums are those
of any engine that computes in integers, and what is stored is rounded where the file rounds. What
stands between two roundings and depends on one byte alone becomes a table of 256. Parts without an
integer form are computed in float32, as the file writes them, and rounded where it rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leancnn.compiler.graph import Affine, Concat, Crop, Gather, Graph, Node, Pool, Quantize, Reduce
from leancnn.compiler.integers import (
    Array,
    QConcat,
    QConv,
    QCrop,
    QGather,
    QLookup,
    QMaxPool,
    QNode,
    QQuantize,
    Quantized,
    QValue,
    Store,
    trimmed,
)
from leancnn.compiler.qdq_narrow import narrowed
from leancnn.compiler.qdq_sums import sums
from leancnn.compiler.qdq_tables import root, table
from leancnn.compiler.qdq_values import Known, Values
from leancnn.errors import UnsupportedError

FULL = 255  # the largest byte


@dataclass(frozen=True, slots=True)
class Grid:
    """How a file rounds an image of floats: rint(float32(x) / scale) + zero, from 0 to `high`."""

    scale: np.float32
    zero: int
    high: int = 255


def from_qdq(graph: Graph, integers: bool) -> tuple[Quantized, Grid | None, list[str]]:
    """The network of a simplified graph, the grid of its image if that is floats, and what of it
    has no integer form or stands between no roundings, and is computed in floats.

    Raises `UnsupportedError` where no convolution is one of integers.
    """
    graph = narrowed(graph)
    reader = Reader(graph, integers)
    for node in graph.nodes:
        reader.node(node)
    reader.answer()
    network = trimmed(reader.values.network)
    if not any(isinstance(node, QConv) for node in network.nodes):
        raise UnsupportedError(reader.floats[0] if reader.floats else "nothing is multiplied")
    return network, reader.grid, reader.floats


class Reader:
    """The bytes known so far and the network that computes them."""

    def __init__(self, graph: Graph, integers: bool) -> None:
        c = graph.shapes[graph.input][0]
        image = QValue(graph.shapes[graph.input], np.ones(c), np.zeros(c, np.int32))
        network = Quantized(graph.input, "", {graph.input: image}, [], np.zeros(c))
        self.values = Values(graph, network)
        self.grid: Grid | None = None
        self.floats: list[str] = []  # why something is computed in floats
        if integers:
            self.values.known[graph.input] = Known(graph.input, np.ones(c), np.zeros(c))
        else:
            self._image(c)

    def _image(self, c: int) -> None:
        """Floats are rounded first of all, and by one grid; or they stay floats."""
        ops = [
            node.op for node in self.values.graph.nodes if self.values.graph.input in node.inputs
        ]
        first = next((op for op in ops if isinstance(op, Quantize)), None)
        shape, name = self.values.graph.shapes[self.values.graph.input], self.values.graph.input
        scale = zero = None
        if first is not None and all(_same_grid(op, first) for op in ops):
            scale, zero = _one(first.scale), _one(first.zero - first.low)
        if scale is None or zero is None:
            self.floats.append("the image is not rounded by one grid before anything else")
            none = np.zeros(c, np.int32)
            self.values.network.values[name] = QValue(shape, np.ones(c), none, real=True)
            self.values.reals[name] = name
            return
        assert first is not None
        self.grid = Grid(np.float32(scale), int(zero), int(first.high - first.low))
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
        state = self.values.state()
        try:
            self._whole(node, op)
        except UnsupportedError as error:
            self.values.back(state)
            self.floats.append(str(error))
            shape, name = self.values.graph.shapes[node.output], node.output
            zeros = (op.zero - op.low).astype(np.int32)
            value = QValue(shape, op.scale.astype(np.float64), zeros)
            real = self.values.real(node.inputs[0])
            if op.high - op.low == FULL:
                self.values.append(QQuantize(real, name), name, value)
            else:
                whole = np.minimum(np.arange(256), op.high - op.low).astype(np.uint8)
                self.values.append(QQuantize(real, f"{name}_full"), f"{name}_full", value)
                self.values.append(QLookup(f"{name}_full", name, whole), name, value)
        if node.output not in self.values.known:
            c = self.values.graph.shapes[node.output][0]
            self.values.known[node.output] = Known(node.output, np.ones(c), np.full(c, op.low))

    def _whole(self, node: Node, op: Quantize) -> None:
        """The same in integers alone."""
        source, zero = node.inputs[0], _one(op.zero)
        if zero is None:
            raise UnsupportedError(f"{node.output} has a zero point for each channel")
        shape = self.values.graph.shapes[node.output]
        zeros = np.full(shape[0], int(zero - op.low), np.int32)
        value = QValue(shape, op.scale.astype(np.float64), zeros)
        found = root(self.values, source)
        if found is not None:
            table(self.values, node, found, value)
        else:
            sums(self.values, source, Store(node.output), value, op.high - op.low)

    # The answer

    def answer(self) -> None:
        """Bytes, sums of the last layer, or floats."""
        value, state = self.values.graph.output, self.values.state()
        try:
            if value in self.values.known:
                self.values.network.output = self.values.operand(value)
            else:
                sums(self.values, value, Store(f"{value}_sums"), None)
                self.values.network.output = f"{value}_sums"
        except UnsupportedError as error:
            self.values.back(state)
            self.floats.append(str(error))
            self.values.network.output = self.values.real(value)


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
