"""The bytes that are known of a file's graph, and the network that computes them."""

from dataclasses import dataclass

import numpy as np

from leancnn.compiler.graph import Graph
from leancnn.compiler.integers import Array, QGather, QNode, QTable, Quantized, QValue
from leancnn.errors import UnsupportedError

NEAR = 1e-3  # of a step: how far a number may be from a whole one, for float32's sake


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A value of the graph that is bytes of the network: scale · q + offset, by channel."""

    name: str
    scale: Array
    offset: Array


class Values:
    """A graph, what of it are bytes by now, and the network so far."""

    def __init__(self, graph: Graph, network: Quantized) -> None:
        self.graph, self.network = graph, network
        self.makers = {node.output: node for node in graph.nodes}
        self.known: dict[str, Known] = {}
        self.pointwise: set[str] = set()  # roundings that are tables

    def append(self, made: QNode, name: str, value: QValue) -> None:
        self.network.nodes.append(made)
        self.network.values[name] = value

    def operand(self, value: str) -> str:
        """The network's name of bytes whose meaning there is that of the graph."""
        x = self.known[value]
        zero = np.rint(-x.offset / x.scale)
        if np.abs(zero + x.offset / x.scale).max() > NEAR or (np.abs(zero - 127.5) > 128).any():
            raise UnsupportedError(f"the zero of {value} is no byte")
        own = self.network.values[x.name]
        if np.array_equal(own.zero, zero) and np.allclose(own.scale, x.scale, 1e-6, 0):
            return x.name
        name = f"{value}_meant"
        if name not in self.network.values:
            meant = QValue(own.shape, x.scale, zero.astype(np.int32))
            same = QGather(x.name, name, tuple(range(len(zero))))
            copied = QTable(x.name, name, np.arange(256, dtype=np.uint8))
            # what stands around pixels is the zero, so that another zero needs a copy
            self.append(same if np.array_equal(own.zero, zero) else copied, name, meant)
        return name
