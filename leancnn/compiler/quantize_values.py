"""The values of a graph that is being quantized: as integers, as floats, or as both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leancnn.compiler.graph import Concat, Crop, Gather, Graph, Node, Reshape
from leancnn.compiler.int8_views import flattened
from leancnn.compiler.int8_weights import as_bytes, image_bytes, no_integers
from leancnn.compiler.integers import (
    QConcat,
    QCrop,
    QDequantize,
    QFloat,
    QGather,
    QNode,
    QQuantize,
    Quantized,
    QValue,
)
from leancnn.compiler.ranges import Range

VIEWS = Gather | Concat | Crop  # of channels and windows, made where somebody asks for them


class Values:
    """What is known, and the network that computes it.

    A value that some layer computes in float32 is rounded to bytes where an integer one reads it,
    and the other way round.
    """

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, Range],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.graph, self.ranges = graph, ranges
        self.users = graph.users()
        self.producers = {node.output: node for node in graph.nodes}
        self.done: set[Node] = set()
        name, shape = graph.input, graph.shapes[graph.input]
        image, shift, step = image_bytes(shape, mean, std, ranges.get(name))
        self.beyond = shift + image.scale * image.zero if step is None else None
        """What the input's reals are beyond (byte − zero) · scale."""
        self.network = Quantized(name, "", {name: image}, [], shift, step)
        self.names = {graph.input: graph.input}  # from the graph's values to the integers'
        self.reals: dict[str, str] = {}  # and to the floats'

    def state(self) -> tuple[Any, ...]:
        """What `back` needs."""
        kept = dict(self.network.values), dict(self.names), dict(self.reals), set(self.done)
        return len(self.network.nodes), *kept

    def back(self, state: tuple[Any, ...]) -> None:
        """Forget what was done since `state`."""
        count, self.network.values, self.names, self.reals, self.done = state
        del self.network.nodes[count:]

    def append(self, name: str, node: QNode, value: QValue) -> None:
        """A value of the graph by a node that makes it alone."""
        self.network.nodes.append(node)
        self.network.values[name] = value
        self.names[name] = name

    # As integers

    def name(self, value: str) -> str:
        """A value in integers; rounded first, if it is there in floats alone."""
        if value not in self.names:
            producer = self.producers[value]
            if isinstance(producer.op, VIEWS):
                self._view(producer)
            else:
                self._round(value)
        return self.names[value]

    def meaning(self, value: str) -> QValue:
        """What its integers mean."""
        return self.network.values[self.name(value)]

    def bytes(self, node: Node, value: str) -> QValue:
        """The same, of what `node` can only take as bytes."""
        x = self.meaning(value)
        if x.wide:
            raise no_integers(node)
        return x

    def _view(self, node: Node) -> None:
        if isinstance(node.op, Concat):
            self._concat(node)
            return
        x, name = self.meaning(node.inputs[0]), self.name(node.inputs[0])
        made: QGather | QCrop
        if isinstance(node.op, Gather):
            made = QGather(name, node.output, node.op.channels)
        else:
            assert isinstance(node.op, Crop)
            made = QCrop(name, node.output, node.op.top, node.op.left)
        kept = list(made.channels) if isinstance(made, QGather) else list(range(x.shape[0]))
        value = QValue(self.graph.shapes[node.output], x.scale[kept], x.zero[kept], x.wide, x.most)
        self.append(node.output, made, value)

    def _concat(self, node: Node) -> None:
        parts = [self.meaning(name) for name in node.inputs]
        if len({part.wide for part in parts}) > 1:
            raise no_integers(node)
        value = QValue(
            self.graph.shapes[node.output],
            np.concatenate([part.scale for part in parts]),
            np.concatenate([part.zero for part in parts]),
            parts[0].wide,
            max(part.most for part in parts),
        )
        made = QConcat(tuple(self.name(x) for x in node.inputs), node.output)
        self.append(node.output, made, value)

    def flatten(self, node: Node) -> None:
        """All pixels as channels, those of one channel together: crops, joined and put in order."""
        source = node.inputs[0]
        if source not in self.names:  # in float32: it stays there
            raise no_integers(node)
        x, to = self.bytes(node, source), self.graph.shapes[node.output]
        for view, value in flattened(node, self.names[source], x, to):
            self.append(view.out, view, value)

    def _round(self, value: str) -> None:
        source = value
        while isinstance((producer := self.producers[source]).op, Reshape):
            source = producer.inputs[0]
        meaning = as_bytes(self.ranges[source], self.graph.shapes[value])
        name = f"{value}_bytes"
        self.network.nodes.append(QQuantize(self.real(value), name))
        self.network.values[name] = meaning
        self.names[value] = name

    # As floats

    def real(self, value: str) -> str:
        """A value in float32; from its integers, if it is there as such."""
        if value not in self.reals:
            if value in self.names:
                name = f"{value}_real"
                self._append_real(value, QDequantize(self.names[value], name), name)
            else:
                self.compute_real(self.producers[value])
        return self.reals[value]

    def compute_real(self, node: Node) -> None:
        """One node in float32."""
        xs = tuple(self.real(value) for value in node.inputs)
        self._append_real(node.output, QFloat(node.op, xs, node.output), node.output)

    def _append_real(self, value: str, node: QDequantize | QFloat, name: str) -> None:
        shape = self.graph.shapes[value]
        ones, none = np.ones(shape[0]), np.zeros(shape[0], np.int32)
        self.network.nodes.append(node)
        self.network.values[name] = QValue(shape, ones, none, real=True)
        self.reals[value] = name
