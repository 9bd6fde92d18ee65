"""What stands between two roundings and depends on one byte alone: a table of 256."""

import numpy as np
import torch

from leancnn.compiler.graph import Activation, Affine, Combine, Node, Quantize
from leancnn.compiler.integers import Array, QConcat, QGather, QLookup, QValue
from leancnn.compiler.qdq_values import Known, Values
from leancnn.compiler.ranges import apply
from leancnn.errors import UnsupportedError

TABLES = 8  # different ones of a value's channels


def root(v: Values, value: str) -> str | None:
    """The bytes that a value is a function of, element by element; None where of none."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        name = waiting.pop()
        node = v.producers.get(name)
        if name in v.known and not _passes(v, node):
            found.add(name)
            continue
        if node is None or not _each(node):
            return None
        if isinstance(node.op, Quantize) and name not in v.pointwise:
            return None
        if any(v.graph.shapes[x] != v.graph.shapes[name] for x in node.inputs):
            return None
        waiting += node.inputs
    return found.pop() if len(found) == 1 and found <= v.known.keys() else None


def _passes(v: Values, node: Node | None) -> bool:
    """Whether bytes are known by what they are a function of: a table, or a new meaning."""
    if node is None:
        return False
    return node.output in v.pointwise or isinstance(node.op, Affine)


def table(v: Values, node: Node, source: str, value: QValue) -> None:
    """What a rounding makes of each of 256 bytes, in every channel."""
    x = v.known[source]
    c = len(x.scale)
    numbers = np.arange(256)[:, None] * x.scale + x.offset
    found = {source: torch.from_numpy(numbers.astype(np.float32)).view(256, c, 1, 1)}
    for step in v.graph.nodes:
        needed = all(name in found for name in step.inputs)
        if needed and step.output not in found and _each(step):
            found[step.output] = apply(step, [found[name] for name in step.inputs])
        if step is node:
            break
    assert isinstance(node.op, Quantize)
    tables = (found[node.output].view(256, c).numpy() - node.op.low).astype(np.uint8).T
    own = v.network.values[x.name]
    if (tables == np.arange(256)).all() and (own.zero == value.zero).all():
        low = np.full(c, node.op.low)
        v.known[node.output] = Known(x.name, np.ones(c), low)
        return
    v.pointwise.add(node.output)
    kinds, which = np.unique(tables, axis=0, return_inverse=True)
    if len(kinds) > TABLES:
        raise UnsupportedError(f"{node.output} rounds each channel in its own way")
    if len(kinds) == 1:
        v.append(QLookup(x.name, node.output, kinds[0]), node.output, value)
        return
    _by_kind(v, node.output, x.name, kinds, which.ravel(), value)


def _by_kind(v: Values, name: str, source: str, kinds: Array, which: Array, value: QValue) -> None:
    """Channels with tables of their own, and back in order."""
    own, parts, order = v.network.values[source], [], []
    for number, table in enumerate(kinds):
        channels = np.flatnonzero(which == number)
        order += channels.tolist()
        taken, made = f"{name}_taken{number}", f"{name}_part{number}"
        shape = (len(channels), *value.shape[1:])
        few = QValue(shape, own.scale[channels], own.zero[channels])
        v.append(QGather(source, taken, tuple(channels.tolist())), taken, few)
        few = QValue(shape, value.scale[channels], value.zero[channels])
        v.append(QLookup(taken, made, table), made, few)
        parts.append(made)
    v.append(QConcat(tuple(parts), f"{name}_parts"), f"{name}_parts", value)
    back = tuple(np.argsort(order).tolist())
    v.append(QGather(f"{name}_parts", name, back), name, value)


def _each(node: Node) -> bool:
    return isinstance(node.op, Activation | Affine | Combine | Quantize)
