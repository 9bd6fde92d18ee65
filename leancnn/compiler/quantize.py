"""A simplified graph and the ranges of its values to a quantized network.

Like `lower`, element-wise operators become epilogues of what stands before them, here on its 32-bit
sums, so that a residual sum is rounded once. Where a shortcut is added to a convolution its scale
is a whole multiple of the scale of the sum: the scale of the weights is made to fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

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
    Reduce,
)
from leancnn.compiler.int8_norms import Norms
from leancnn.compiler.int8_weights import (
    LEVELS,
    ROOM,
    as_bytes,
    as_conv,
    clamp,
    common_scale,
    factors,
    fits,
    no_integers,
    repeated,
    to_bytes,
)
from leancnn.compiler.integers import (
    Add,
    Array,
    Gate,
    QConcat,
    QConv,
    QCrop,
    QEach,
    QEpilogueOp,
    QGather,
    QMaxPool,
    QNorm,
    QTable,
    QTotal,
    Quantized,
    QValue,
    Store,
    bound,
)
from leancnn.compiler.ranges import Range, activation, means_of
from leancnn.errors import UnsupportedError
from leancnn.normalisation import scale_and_shift

ACTIVATIONS = ("leaky", "sigmoid", "hardsigmoid", "silu", "hardswish", "exp", "erf", "sqrt")


def quantize(
    graph: Graph,
    ranges: Mapping[str, Range],
    mean: Sequence[float],
    std: Sequence[float],
    finer: Mapping[str, int] | None = None,
) -> Quantized:
    """The integer form of a simplified graph whose values have these ranges.

    `mean` and `std` normalise the pixels, per channel, where white is 1; `finer` says of some
    convolutions, by their outputs, by how many the scale of their weights is divided. Raises
    `UnsupportedError` naming an operator that has no integer form.
    """
    made = Quantizer(graph, ranges, mean, std, finer or {})
    for node in graph.nodes:
        if node not in made.done:
            made.node(node)
    made.network.output = made.names[graph.output]
    return made.network


@dataclass(slots=True, eq=False)
class Chain:
    """Sums about to be computed: the element-wise nodes that follow, up to where bytes are kept."""

    value: str  # of the graph, the last in the chain
    nodes: list[Node] = field(default_factory=list)


class Quantizer:
    """The values known so far and the network that computes them."""

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, Range],
        mean: Sequence[float],
        std: Sequence[float],
        finer: Mapping[str, int],
    ) -> None:
        self.graph, self.ranges, self.finer = graph, ranges, finer
        self.users = graph.users()
        self.done: set[Node] = set()
        self.norms = Norms(graph)
        scale, shift = scale_and_shift(mean, std)
        zero = np.clip(np.rint(-shift / scale), 0, 255).astype(np.int32)
        image = QValue(graph.shapes[graph.input], scale, zero)
        self.network = Quantized(graph.input, "", {graph.input: image}, [], shift)
        self.names = {graph.input: graph.input}  # from the graph's values to the network's

    def meaning(self, value: str) -> QValue:
        return self.network.values[self.names[value]]

    def node(self, node: Node) -> None:
        """One node, and the element-wise ones that can follow it at once."""
        match node.op:
            case _ if node in self.norms.inside:
                return
            case Gather(channels):
                self._view(node, QGather(self.names[node.inputs[0]], node.output, channels))
            case Concat():
                self._join(node)
            case Crop(top, left, _, _):
                self._view(node, QCrop(self.names[node.inputs[0]], node.output, top, left))
            case Conv():
                self._conv(node, node.op)
            case Pool("max") | Reduce("max", "pixels"):
                self._max(node)
            case Pool("mean"):
                self._mean(node, node.op)
            case Reduce("mean" | "sum", "pixels"):
                self._total(node)
            case Combine("div") if node in self.norms.groups:
                self._norm(node, self.norms.groups[node])
            case Affine() | Activation() | Combine():
                self._each(node)
            case _:
                raise no_integers(node)

    # Views

    def _view(self, node: Node, made: QGather | QCrop) -> None:
        x = self.meaning(node.inputs[0])
        kept = list(made.channels) if isinstance(made, QGather) else list(range(x.shape[0]))
        value = QValue(self.graph.shapes[node.output], x.scale[kept], x.zero[kept], x.wide, x.most)
        self._put(node.output, made, value)

    def _join(self, node: Node) -> None:
        parts = [self.meaning(name) for name in node.inputs]
        if len({part.wide for part in parts}) > 1:
            raise no_integers(node)
        scale, zero = (
            np.concatenate([getattr(p, key) for p in parts]) for key in ("scale", "zero")
        )
        most = max(part.most for part in parts)
        value = QValue(self.graph.shapes[node.output], scale, zero, parts[0].wide, most)
        names = tuple(self.names[x] for x in node.inputs)
        self._put(node.output, QConcat(names, node.output), value)

    def _put(
        self, name: str, node: QGather | QCrop | QConcat | QTotal | QMaxPool | QNorm, value: QValue
    ) -> None:
        self.network.nodes.append(node)
        self.network.values[name] = value
        self.names[name] = name

    # Pooling

    def _max(self, node: Node) -> None:
        x = self.meaning(node.inputs[0])
        self._bytes(node, x)
        name, source = node.output, self.names[node.inputs[0]]
        if isinstance(node.op, Pool):
            pool = QMaxPool(source, name, node.op.kernel, node.op.stride, node.op.padding)
        else:
            pool = QMaxPool(source, name, (x.shape[1], x.shape[2]), (1, 1))
        self._put(name, pool, QValue(self.graph.shapes[name], x.scale, x.zero))

    def _mean(self, node: Node, op: Pool) -> None:
        shape = self.graph.shapes[node.output]
        self._conv(node, as_conv(node, op, self.graph.shapes[node.inputs[0]], shape))

    def _total(self, node: Node) -> None:
        x, name = self.meaning(node.inputs[0]), node.output
        self._bytes(node, x)
        c, h, w = x.shape
        share = h * w if isinstance(node.op, Reduce) and node.op.how == "mean" else 1
        readers = self.users[name]
        alone = all(
            isinstance(user.op, Conv) and self.graph.shapes[user.output][1:] == (1, 1)
            for user in readers
        )
        if alone:  # kept as they are: the classifier or the gate takes sums
            value = QValue((c, 1, 1), x.scale / share, np.zeros(c, np.int32), True, 255 * h * w)
            self._put(name, QTotal(self.names[node.inputs[0]], name), value)
            return
        ones = np.full((c, 1, h, w), 1 / share, np.float32)
        self._conv(node, Conv(ones, np.zeros(c, np.float32), groups=c))

    def _norm(self, node: Node, groups: int) -> None:
        """Whatever the scale of a vector is, its length takes it away again."""
        x, name = self._uniform(node, self.meaning(node.inputs[0])), node.output
        self._bytes(node, x)
        y = as_bytes(self.ranges[name], self.graph.shapes[name])
        step = np.array([1 / y.scale[0]], np.float32)
        self._put(name, QNorm(self.names[node.inputs[0]], name, groups, step), y)

    def _bytes(self, node: Node, x: QValue) -> None:
        if x.wide:
            raise no_integers(node)

    # Sums

    def _conv(self, node: Node, op: Conv) -> None:
        if not (np.isfinite(op.weight).all() and np.isfinite(op.bias).all()):
            raise UnsupportedError(f"{node.output} has weights that are not numbers")
        source = node.inputs[0]
        chain = self._chain(node.output)
        others = [self.meaning(self._other(n, v)) for n, v in self._adds(node.output, chain)]
        x = self.meaning(source)
        shift = self.network.shift + x.scale * x.zero if source == self.graph.input else None
        means, times = means_of(self.graph, self.ranges, source), self.finer.get(node.output, 1)
        weights = to_bytes(op, x, others, shift, means, LEVELS * times)
        epilogue, meant = self._epilogue(node.output, chain, weights.scale)
        name, weight = repeated(self.network, self.names[source], weights.weight, op.groups, times)
        made = QConv(
            name,
            weight,
            weights.bias,
            epilogue,
            op.stride,
            op.padding,
            op.dilation,
            op.groups,
        )
        self._sums(made, weights.scale, meant)

    def _each(self, node: Node) -> None:
        """Element-wise operators on bytes that stand in memory."""
        x = self.meaning(node.inputs[0])
        for name in node.inputs:
            self._bytes(node, self.meaning(name))
        if isinstance(node.op, Activation) and node.op.kind != "clip":
            if node.op.kind not in ACTIVATIONS:
                raise no_integers(node)
            self._table(node, self.names[node.inputs[0]], self._uniform(node, x))
            return
        chain = self._chain(node.output)
        others = [self.meaning(self._other(n, v)) for n, v in self._adds(node.output, chain)]
        if not fits(node, [self.meaning(name) for name in node.inputs], others):
            chain, others = Chain(node.output), []
        first, bias, scale = self._first(node, x, others)
        epilogue, meant = self._epilogue(node.output, chain, scale)
        self._sums(QEach(bias, (*first, *epilogue)), scale, meant)

    def _first(
        self, node: Node, x: QValue, others: Sequence[QValue]
    ) -> tuple[tuple[QEpilogueOp, ...], Array, Array]:
        """An element-wise operator as the first of an epilogue, with bias and scale of its sums."""
        names = [self.names[name] for name in node.inputs]
        none = np.zeros(x.shape[0], np.int32)
        if isinstance(node.op, Combine):
            y = self.meaning(node.inputs[1])
            if node.op.how == "mul" and y.shape == (x.shape[0], 1, 1):
                return (Gate(names[0], names[1]),), none, x.scale * y.scale
            if node.op.how not in ("add", "sub") or y.shape != x.shape:
                raise no_integers(node)
            scale = common_scale([x.scale, y.scale, *(other.scale for other in others)])
            sign = 1 if node.op.how == "add" else -1
            epilogue = (
                Add(names[0], factors(x.scale / scale)),
                Add(names[1], sign * factors(y.scale / scale)),
            )
            return epilogue, none, scale
        if isinstance(node.op, Affine):
            factor, shift = node.op.scale.astype(np.float64), node.op.shift.astype(np.float64)
            scale = common_scale([np.abs(factor) * x.scale, *(other.scale for other in others)])
            scale = np.maximum(np.maximum(scale, np.abs(shift) / 2**28), 1e-30)
            bias = np.rint(shift / scale).astype(np.int32)
            return (Add(names[0], factors(factor * x.scale / scale)),), bias, scale
        assert isinstance(node.op, Activation)
        scale = common_scale([x.scale, *(other.scale for other in others)])
        ends = clamp(node.op, scale)
        return (Add(names[0], factors(x.scale / scale)), ends), none, scale

    # What follows sums

    def _chain(self, value: str) -> Chain:
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
        for user in self.users[value]:
            if isinstance(user.op, Activation) and (
                user.op.kind == "clip" or user.op.kind in ACTIVATIONS
            ):
                return user
            if isinstance(user.op, Combine) and user.op.how == "add" and user not in self.done:
                other = self._other(user, value)
                if other not in self.names or other == value:
                    continue
                meaning = self.meaning(other)
                if meaning.shape == self.graph.shapes[value] and not meaning.wide:
                    return user
        return None

    def _adds(self, value: str, chain: Chain) -> list[tuple[Node, str]]:
        """The sums in a chain, with the value that is there before each."""
        found = []
        for node in chain.nodes:
            if isinstance(node.op, Combine):
                found.append((node, value))
            value = node.output
        return found

    def _other(self, node: Node, value: str) -> str:
        return node.inputs[1] if node.inputs[0] == value else node.inputs[0]

    def _epilogue(
        self, value: str, chain: Chain, scale: Array
    ) -> tuple[tuple[QEpilogueOp, ...], list[tuple[str, QValue]]]:
        """The epilogue on sums of this scale, and what the stored values mean."""
        epilogue: list[QEpilogueOp] = []
        meant: list[tuple[str, QValue]] = []
        tables: list[tuple[Node, str]] = []
        for node in [*chain.nodes, None]:
            others = [user for user in self.users[value] if user is not node]
            final = node is None or value == self.graph.output
            table = node is not None and isinstance(node.op, Activation) and node.op.kind != "clip"
            if others or final or table:
                epilogue.append(self._store(value, scale, meant))
            if node is None:
                break
            self.done.add(node)
            if table:
                tables.append((node, value))
                break
            if isinstance(node.op, Activation):
                epilogue.append(clamp(node.op, scale))
            else:
                other = self._other(node, value)
                factor = factors(self.meaning(other).scale / scale)
                epilogue.append(Add(self.names[other], factor))
            value = node.output
        self.tables = tables
        return tuple(epilogue), meant

    def _store(self, value: str, scale: Array, meant: list[tuple[str, QValue]]) -> Store:
        shape = self.graph.shapes[value]
        if value == self.graph.output:
            none = np.zeros(shape[0], np.int32)
            meant.append((value, QValue(shape, scale, none, True, 2**31 - 1)))
            return Store(value)
        range_ = self.ranges[value]
        meaning = as_bytes(range_, shape)
        meant.append((value, meaning))
        return Store(value, (scale / meaning.scale).astype(np.float32))

    def _sums(self, made: QConv | QEach, scale: Array, meant: list[tuple[str, QValue]]) -> None:
        """Append a node with an epilogue and the tables that follow it."""
        self.network.nodes.append(made)
        for name, value in meant:
            self.network.values[name] = value
            self.names[name] = name
        if bound(made, self.network.values).max(initial=0) > ROOM + 2**24 - 1:
            raise UnsupportedError(f"the sums of {meant[0][0]} do not fit 32 bits")
        for node, source in self.tables:
            self._table(node, self.names[source], self._uniform(node, self.meaning(source)))
        self.tables = []

    def _uniform(self, node: Node, x: QValue) -> QValue:
        if (x.scale != x.scale[0]).any() or (x.zero != x.zero[0]).any():
            raise no_integers(node)
        return x

    def _table(self, node: Node, source: str, x: QValue) -> None:
        assert isinstance(node.op, Activation)
        name = node.output
        y = as_bytes(self.ranges[name], self.graph.shapes[name])
        real = torch.from_numpy((np.arange(256) - x.zero[0]) * x.scale[0])
        bytes_ = np.rint(np.nan_to_num(activation(node.op, real).numpy()) / y.scale[0]) + y.zero[0]
        table = np.clip(bytes_, 0, 255).astype(np.uint8)
        self.network.nodes.append(QTable(source, name, table))
        self.network.values[name] = y
        self.names[name] = name
