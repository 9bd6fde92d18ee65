"""Large strided convolutions in groups as two, one after the other, whose copies share room.

What a strided convolution reads is split by rows and columns first, into a copy as large as its
input. Where that copy is the most that lies in the arena, half of the groups at a time take half
of it, and the second half lies where the first one was.
"""

from dataclasses import replace
from typing import Any

from leancnn.compiler.integers import (
    Array,
    Clamp,
    QConcat,
    QConv,
    QGather,
    QNode,
    Quantized,
    QValue,
    Store,
)

LARGE = 40_000  # bytes of a copy, from which on it is made in two


def in_halves(network: Quantized) -> Quantized:
    """The same arithmetic in other nodes; the network is not changed."""
    values = dict(network.values)
    nodes: list[QNode] = []
    for node in network.nodes:
        nodes += _halves(node, values) if isinstance(node, QConv) else [node]
    return replace(network, nodes=nodes, values=values)


def _halves(node: QConv, values: dict[str, QValue]) -> list[QNode]:
    x, (outputs, each) = values[node.x], node.weight.shape[:2]
    half, read = outputs // 2, node.groups // 2 * each
    stored = [op for op in node.epilogue if isinstance(op, Store)]
    plain = all(isinstance(op, Clamp | Store) for op in node.epilogue)
    quads = node.groups % 2 == 0 and half % 4 == 0 and read % 4 == 0
    depthwise = node.groups == outputs
    small = x.shape[0] * x.shape[1] * x.shape[2] < LARGE
    if node.stride == (1, 1) or small or depthwise or not quads or not plain:
        return [node]
    made: list[QNode] = []
    for number, (first, start) in enumerate(((0, 0), (half, read))):
        rows, name = slice(first, first + half), f"{node.x}_half{number}_of_{stored[0].value}"
        made.append(QGather(node.x, name, tuple(range(start, start + read))))
        values[name] = _part(x, slice(start, start + read))
        epilogue: list[Any] = []
        for op in node.epilogue:
            if isinstance(op, Store):
                values[_named(op, number)] = _part(values[op.value], rows)
            epilogue.append(_rows_of(op, rows, number))
        weight, bias = node.weight[rows], node.bias[rows]
        groups = node.groups // 2
        made.append(
            replace(node, x=name, weight=weight, bias=bias, epilogue=tuple(epilogue), groups=groups)
        )
    for store in stored:
        made.append(QConcat((_named(store, 0), _named(store, 1)), store.value))
    return made


def _part(value: QValue, which: slice) -> QValue:
    scale = value.scale[which]
    return replace(value, shape=(len(scale), *value.shape[1:]), scale=scale, zero=value.zero[which])


def _named(store: Store, number: int) -> str:
    return f"{store.value}_half{number}"


def _rows_of(op: Any, rows: slice, number: int) -> Clamp | Store:
    """An operator for some of the outputs."""
    if isinstance(op, Clamp):
        return Clamp(op.low[rows], op.high[rows])
    assert isinstance(op, Store)
    multiplier: Array | None = None if op.multiplier is None else op.multiplier[rows]
    return Store(_named(op, number), multiplier)
