"""The element-wise operators that follow sums, as their epilogue."""

from dataclasses import dataclass, field

import numpy as np

from leancnn.compiler.graph import Activation, Combine, Node
from leancnn.compiler.int8_weights import as_bytes, clamp, factors
from leancnn.compiler.integers import Add, Array, QEpilogueOp, QValue, Store
from leancnn.compiler.quantize_values import Values

ACTIVATIONS = ("leaky", "sigmoid", "hardsigmoid", "silu", "hardswish", "exp", "erf", "sqrt")


@dataclass(slots=True, eq=False)
class Chain:
    """Sums about to be computed: the element-wise nodes that follow, up to where bytes are kept."""

    value: str  # of the graph, the last in the chain
    nodes: list[Node] = field(default_factory=list)


class Chains:
    """Chains among values. `tables`: activations that follow the last one's bytes."""

    def __init__(self, values: Values) -> None:
        self.v, self.graph = values, values.graph
        self.tables: list[tuple[Node, str]] = []

    def chain(self, value: str) -> Chain:
        """The element-wise nodes that can follow `value` before it is stored."""
        chain = Chain(value)
        while (following := self._following(chain.value)) is not None:
            chain.nodes.append(following)
            chain.value = following.output
            if isinstance(following.op, Activation) and following.op.kind != "clip":
                break
        return chain

    def _following(self, value: str) -> Node | None:
        if value == self.graph.output:
            return None
        for user in self.v.users[value]:
            if isinstance(user.op, Activation) and (
                user.op.kind == "clip" or user.op.kind in ACTIVATIONS
            ):
                return user
            if isinstance(user.op, Combine) and user.op.how == "add" and user not in self.v.done:
                other = self.other(user, value)
                if other not in self.v.names or other == value:
                    continue
                meaning = self.v.meaning(other)
                if meaning.shape == self.graph.shapes[value] and not meaning.wide:
                    return user
        return None

    def adds(self, value: str, chain: Chain) -> list[tuple[Node, str]]:
        """The sums in a chain, with the value that is there before each."""
        found = []
        for node in chain.nodes:
            if isinstance(node.op, Combine):
                found.append((node, value))
            value = node.output
        return found

    def others(self, value: str, chain: Chain) -> list[QValue]:
        """What is added along a chain."""
        pairs = self.adds(value, chain)
        return [self.v.meaning(self.other(node, before)) for node, before in pairs]

    def other(self, node: Node, value: str) -> str:
        return node.inputs[1] if node.inputs[0] == value else node.inputs[0]

    def epilogue(
        self, value: str, chain: Chain, scale: Array
    ) -> tuple[tuple[QEpilogueOp, ...], list[tuple[str, QValue]]]:
        """The epilogue on sums of this scale, and what the stored values mean."""
        epilogue: list[QEpilogueOp] = []
        meant: list[tuple[str, QValue]] = []
        tables: list[tuple[Node, str]] = []
        for node in [*chain.nodes, None]:
            others = [user for user in self.v.users[value] if user is not node]
            final = node is None or value == self.graph.output
            table = node is not None and isinstance(node.op, Activation) and node.op.kind != "clip"
            if others or final or table:
                epilogue.append(self._store(value, scale, meant))
            if node is None:
                break
            self.v.done.add(node)
            if table:
                tables.append((node, value))
                break
            if isinstance(node.op, Activation):
                epilogue.append(clamp(node.op, scale))
            else:
                other = self.other(node, value)
                factor = factors(self.v.meaning(other).scale / scale)
                epilogue.append(Add(self.v.name(other), factor))
            value = node.output
        self.tables = tables
        return tuple(epilogue), meant

    def _store(self, value: str, scale: Array, meant: list[tuple[str, QValue]]) -> Store:
        shape = self.graph.shapes[value]
        if value == self.graph.output:
            none = np.zeros(shape[0], np.int32)
            meant.append((value, QValue(shape, scale, none, True, 2**31 - 1)))
            return Store(value)
        range_ = self.v.ranges[value]
        meaning = as_bytes(range_, shape)
        meant.append((value, meaning))
        return Store(value, (scale / meaning.scale).astype(np.float32))
