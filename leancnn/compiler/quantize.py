"""A simplified graph and the ranges of its values to a quantized network.

Like `lower`, element-wise operators become epilogues of what stands before them, here on its 32-bit
sums, so that a residual sum is rounded once. Where a shortcut is added to a convolution its scale
is a whole multiple of the scale of the sum: the scale of the weights is made to fit. What has no
integer form stays in float32, and so do element-wise operators on it.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Conv,
    Graph,
    Node,
    Pool,
    Reduce,
    Reshape,
)
from leancnn.compiler.int8_norms import Norms
from leancnn.compiler.int8_weights import (
    LEVELS,
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
    QConv,
    QElementwise,
    QEpilogueOp,
    QGlobalSum,
    QLookup,
    QMaxPool,
    QNorm,
    Quantized,
    QValue,
    overflows,
    trimmed,
)
from leancnn.compiler.quantize_chain import ACTIVATIONS, Chain, Chains
from leancnn.compiler.quantize_values import VIEWS, Values
from leancnn.compiler.ranges import Range, activation, means_of
from leancnn.errors import UnsupportedError


def quantize(
    graph: Graph,
    ranges: Mapping[str, Range],
    mean: Sequence[float],
    std: Sequence[float],
    scale_divisors: Mapping[str, int] | None = None,
    floats: Collection[str] = (),
) -> Quantized:
    """The integer form of a simplified graph whose values have these ranges.

    `mean` and `std` normalise the pixels, per channel, where white is 1; an input that has a range
    is signals. `scale_divisors` says of some convolutions, by their outputs, by how many the scale
    of their weights is divided; those whose outputs are in `floats` stay in float32, like every
    operator that has no integer form. Raises `UnsupportedError` for weights that are not numbers.
    """
    for node in graph.convolutions():
        assert isinstance(node.op, Conv)
        if not (np.isfinite(node.op.weight).all() and np.isfinite(node.op.bias).all()):
            raise UnsupportedError(f"{node.output} has weights that are not numbers")
    made = Quantizer(graph, ranges, mean, std, scale_divisors or {}, floats)
    for node in graph.nodes:
        if node not in made.v.done:
            made.node(node)
    return made.finished()


class Quantizer:
    """The values known so far, and how each node makes more of them."""

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, Range],
        mean: Sequence[float],
        std: Sequence[float],
        scale_divisors: Mapping[str, int],
        floats: Collection[str],
    ) -> None:
        self.v = Values(graph, ranges, mean, std)
        self.graph, self.ranges, self.network = graph, ranges, self.v.network
        self.scale_divisors, self.floats = scale_divisors, floats
        self.norms = Norms(graph)
        self.chains = Chains(self.v)

    def node(self, node: Node) -> None:
        """One node, and the element-wise ones that can follow it at once."""
        if node in self.norms.inside or isinstance(node.op, VIEWS):
            return  # made where somebody asks for it
        unrounded = not all(self._is_bytes(name) for name in node.inputs)
        each = isinstance(node.op, Affine | Activation | Combine)
        if node.output not in self.floats and not (each and unrounded):
            before = self.v.state()
            with suppress(UnsupportedError):
                self._integers(node)
                return
            self.v.back(before)
        self.v.compute_real(node)

    def _is_bytes(self, value: str) -> bool:
        """Whether a value is there in bytes, or is made of such as soon as somebody asks."""
        producer = self.v.producers.get(value)
        if value in self.v.names or producer is None:
            return value in self.v.names
        views = isinstance(producer.op, VIEWS) and all(self._is_bytes(x) for x in producer.inputs)
        return producer in self.norms.inside or views

    def finished(self) -> Quantized:
        """The network, its answer in integers if it is there as such; without what nobody reads."""
        answer, v = self.graph.output, self.v
        if isinstance(v.producers[answer].op, VIEWS) and answer not in v.names:
            v.real(answer)
        self.network.output = v.names.get(answer) or v.reals[answer]
        return trimmed(self.network)

    def _integers(self, node: Node) -> None:
        match node.op:
            case Conv():
                self._conv(node, node.op)
            case Pool("max") | Reduce("max", "pixels"):
                self._max(node)
            case Pool("mean"):
                self._mean(node, node.op)
            case Reshape():
                self.v.flatten(node)
            case Reduce("mean" | "sum", "pixels"):
                self._total(node)
            case Combine("div") if node in self.norms.groups:
                self._norm(node, self.norms.groups[node])
            case Affine() | Activation() | Combine():
                self._each(node)
            case _:
                raise no_integers(node)

    # Pooling

    def _max(self, node: Node) -> None:
        x = self.v.bytes(node, node.inputs[0])
        name, source = node.output, self.v.name(node.inputs[0])
        if isinstance(node.op, Pool):
            pool = QMaxPool(source, name, node.op.kernel, node.op.stride, node.op.padding)
        else:
            pool = QMaxPool(source, name, (x.shape[1], x.shape[2]), (1, 1))
        self.v.append(name, pool, QValue(self.graph.shapes[name], x.scale, x.zero))

    def _mean(self, node: Node, op: Pool) -> None:
        shape = self.graph.shapes[node.output]
        made = as_conv(node, op, self.graph.shapes[node.inputs[0]], shape)
        self._conv(node, made, LEVELS - 1)  # two equal weights are whole halves of that

    def _total(self, node: Node) -> None:
        x, name = self.v.bytes(node, node.inputs[0]), node.output
        c, h, w = x.shape
        share = h * w if isinstance(node.op, Reduce) and node.op.how == "mean" else 1
        readers = self.v.users[name]
        alone = all(
            isinstance(user.op, Conv) and self.graph.shapes[user.output][1:] == (1, 1)
            for user in readers
        )
        if alone:  # kept as they are: the classifier or the gate takes sums
            value = QValue((c, 1, 1), x.scale / share, np.zeros(c, np.int32), True, 255 * h * w)
            self.v.append(name, QGlobalSum(self.v.name(node.inputs[0]), name), value)
            return
        ones = np.full((c, 1, h, w), 1 / share, np.float32)
        self._conv(node, Conv(ones, np.zeros(c, np.float32), groups=c))

    def _norm(self, node: Node, groups: int) -> None:
        """Whatever the scale of a vector is, its length takes it away again."""
        uniform(node, self.v.bytes(node, node.inputs[0]))
        name = node.output
        y = as_bytes(self.ranges[name], self.graph.shapes[name])
        step = np.array([1 / y.scale[0]], np.float32)
        self.v.append(name, QNorm(self.v.name(node.inputs[0]), name, groups, step), y)

    # Sums

    def _conv(self, node: Node, op: Conv, levels: int = LEVELS) -> None:
        source = node.inputs[0]
        chain = self.chains.chain(node.output)
        others = self.chains.others(node.output, chain)
        x = self.v.meaning(source)
        shift = self.v.beyond if source == self.graph.input else None
        means, times = (
            means_of(self.graph, self.ranges, source),
            self.scale_divisors.get(node.output, 1),
        )
        pixels = self.graph.shapes[node.output][1:] != (1, 1)  # else a matrix by a vector
        weights = to_bytes(op, x, others, shift, means, levels * times, paired=pixels)
        epilogue, meant = self.chains.epilogue(node.output, chain, weights.scale)
        name, weight = repeated(self.network, self.v.name(source), weights.weight, op.groups, times)
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
        x = self.v.meaning(node.inputs[0])
        for name in node.inputs:
            self.v.bytes(node, name)
        if isinstance(node.op, Activation) and node.op.kind != "clip":
            if node.op.kind not in ACTIVATIONS:
                raise no_integers(node)
            self._table(node, self.v.name(node.inputs[0]), uniform(node, x))
            return
        chain = self.chains.chain(node.output)
        others = self.chains.others(node.output, chain)
        if not fits(node, [self.v.meaning(name) for name in node.inputs], others):
            chain, others = Chain(node.output), []
        first, bias, scale = self._first(node, x, others)
        epilogue, meant = self.chains.epilogue(node.output, chain, scale)
        self._sums(QElementwise(bias, (*first, *epilogue)), scale, meant)

    def _first(
        self, node: Node, x: QValue, others: Sequence[QValue]
    ) -> tuple[tuple[QEpilogueOp, ...], Array, Array]:
        """An element-wise operator as the first of an epilogue, with bias and scale of its sums."""
        names = [self.v.name(name) for name in node.inputs]
        none = np.zeros(x.shape[0], np.int32)
        if isinstance(node.op, Combine):
            y = self.v.meaning(node.inputs[1])
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

    def _sums(
        self, made: QConv | QElementwise, scale: Array, meant: list[tuple[str, QValue]]
    ) -> None:
        """Append a node with an epilogue and the tables that follow it."""
        self.network.nodes.append(made)
        for name, value in meant:
            self.network.values[name] = value
            self.v.names[name] = name
        if overflows(made, self.network.values):
            raise UnsupportedError(f"the sums of {meant[0][0]} do not fit 32 bits")
        for node, source in self.chains.tables:
            self._table(node, self.v.name(source), uniform(node, self.v.meaning(source)))
        self.chains.tables = []

    def _table(self, node: Node, source: str, x: QValue) -> None:
        assert isinstance(node.op, Activation)
        name = node.output
        y = as_bytes(self.ranges[name], self.graph.shapes[name])
        real = torch.from_numpy((np.arange(256) - x.zero[0]) * x.scale[0])
        bytes_ = np.rint(np.nan_to_num(activation(node.op, real).numpy()) / y.scale[0]) + y.zero[0]
        table = np.clip(bytes_, 0, 255).astype(np.uint8)
        self.network.nodes.append(QLookup(source, name, table))
        self.network.values[name] = y
        self.v.names[name] = name


def uniform(node: Node, x: QValue) -> QValue:
    """A value whose channels have one scale and one zero."""
    if (x.scale != x.scale[0]).any() or (x.zero != x.zero[0]).any():
        raise no_integers(node)
    return x
