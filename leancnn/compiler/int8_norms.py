"""Vectors divided by their lengths, found in a graph, so that integers can do it in one step."""

from leancnn.compiler.graph import Activation, Combine, Concat, Gather, Graph, Node, Reduce

Root = tuple[str, int]  # a value that is no view of others, and a channel of it


class Norms:
    """`groups`: of each quotient that divides groups of channels by their lengths, how many there
    are; `inside`: the nodes that are computed for it alone."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made = {node.output: node for node in graph.nodes}
        self.groups: dict[Node, int] = {}
        self.inside: set[Node] = set()
        for node in graph.nodes:
            if isinstance(node.op, Combine) and node.op.how == "div":
                found = self._count(node)
                if found:
                    self.groups[node] = found
                    self._inside(node.inputs[1])

    def _root(self, value: str, channel: int) -> Root:
        """Where a channel comes from, through all that only names channels."""
        while (node := self.made.get(value)) is not None:
            if isinstance(node.op, Gather):
                value, channel = node.inputs[0], node.op.channels[channel]
            elif isinstance(node.op, Concat):
                for part in node.inputs:
                    value = part
                    if channel < self.graph.shapes[part][0]:
                        break
                    channel -= self.graph.shapes[part][0]
            else:
                break
        return value, channel

    def _measured(self, value: str, channel: int) -> str:
        """The vector whose length a channel is, kept from 0 by a clip or not; or nothing."""
        node = self.made.get(self._root(value, channel)[0])
        if node is not None and isinstance(node.op, Activation) and node.op.kind == "clip":
            if node.op.high != float("inf"):
                return ""
            node = self.made.get(self._root(node.inputs[0], 0)[0])
        if node is None or not isinstance(node.op, Reduce):
            return ""
        return node.inputs[0] if (node.op.how, node.op.over) == ("norm", "channels") else ""

    def _count(self, node: Node) -> int:
        """How many groups a quotient has; 0 where it is none of vectors by their lengths."""
        x, y = node.inputs
        shape, others = self.graph.shapes[x], self.graph.shapes[y][0]
        if shape[1:] != (1, 1):
            return 0
        vectors = [self._measured(y, c if others > 1 else 0) for c in range(shape[0])]
        if not all(vectors):
            return 0
        each = self.graph.shapes[vectors[0]][0]
        for first in range(0, shape[0], each):
            vector = vectors[first]
            if set(vectors[first : first + each]) != {vector}:
                return 0
            own = [self._root(x, c) for c in range(first, min(first + each, shape[0]))]
            if own != [self._root(vector, c) for c in range(self.graph.shapes[vector][0])]:
                return 0
        return shape[0] // each

    def _inside(self, value: str) -> None:
        """What leads from lengths to a denominator, unless somebody else reads it."""
        node = self.made[value]
        users = self.graph.users()[value]
        alone = all(user in self.inside or user in self.groups for user in users)
        if not alone or value == self.graph.output:
            return
        self.inside.add(node)
        if not isinstance(node.op, Reduce):
            for name in node.inputs:
                self._inside(name)
