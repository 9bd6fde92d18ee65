"""The bytes that are known of a file's graph, and the network that computes them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from leancnn.compiler.graph import Affine, Graph, floats
from leancnn.compiler.integers import (
    Array,
    QDequantize,
    QFloat,
    QGather,
    QLookup,
    QNode,
    Quantized,
    QValue,
)
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
        self.producers = {node.output: node for node in graph.nodes}
        self.known: dict[str, Known] = {}
        self.reals: dict[str, str] = {}  # the network's names of values in float32
        self.pointwise: set[str] = set()  # roundings that are tables

    def append(self, made: QNode, name: str, value: QValue) -> None:
        self.network.nodes.append(made)
        self.network.values[name] = value

    def state(self) -> tuple[Any, ...]:
        """What `back` needs."""
        kept = dict(self.network.values), dict(self.known), dict(self.reals), set(self.pointwise)
        return len(self.network.nodes), *kept

    def back(self, state: tuple[Any, ...]) -> None:
        """Forget what was done since `state`."""
        count, self.network.values, self.known, self.reals, self.pointwise = state
        del self.network.nodes[count:]

    def real(self, value: str) -> str:
        """The network's name of a value in float32, computed so where it is no bytes."""
        if value not in self.reals:
            if value in self.known:
                self._from_bytes(value)
            else:
                node = self.producers[value]
                xs = tuple(self.real(name) for name in node.inputs)
                self._append_real(value, QFloat(node.op, xs, value), value)
        return self.reals[value]

    def _from_bytes(self, value: str) -> None:
        x, state = self.known[value], self.state()
        try:
            self._append_real(
                value, QDequantize(self.operand(value), f"{value}_real"), f"{value}_real"
            )
        except UnsupportedError:  # its zero is no byte
            self.back(state)
            own, name = self.network.values[x.name], f"{value}_own"
            self._append_real(value, QDequantize(x.name, name), name)
            factor = x.scale / own.scale
            op = Affine(floats(factor), floats(x.offset + x.scale * own.zero))
            self._append_real(value, QFloat(op, (name,), f"{value}_real"), f"{value}_real")

    def _append_real(self, value: str, node: QDequantize | QFloat, name: str) -> None:
        shape = self.graph.shapes[value]
        none = np.zeros(shape[0], np.int32)
        self.append(node, name, QValue(shape, np.ones(shape[0]), none, real=True))
        self.reals[value] = name

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
            copied = QLookup(x.name, name, np.arange(256, dtype=np.uint8))
            # what stands around pixels is the zero, so that another zero needs a copy
            self.append(same if np.array_equal(own.zero, zero) else copied, name, meant)
        return name
