"""A graph made smaller without changing what it computes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.eliminate import eliminate_dead
from leancnn.compiler.graph import (
    Activation,
    Affine,
    Concat,
    Conv,
    Floats,
    Gather,
    Graph,
    Node,
    Pool,
    Quantize,
    Reshape,
    empty,
    floats,
)

Rewrite = Callable[["Copy", Node], str | None]


def simplify(graph: Graph) -> Graph:
    """The same function in fewer nodes and channels: what `lower` takes."""
    for rewrites in (
        (flatten_into_kernel, one_pixel, compose_gathers),
        (early,),
        (fold_affine,),
    ):
        graph = rewritten(graph, rewrites)
    return rewritten(eliminate_dead(graph), (compose_gathers,))


def rewritten(graph: Graph, rewrites: tuple[Rewrite, ...]) -> Graph:
    """The graph when none of these rewrites finds anything more to do."""
    while True:
        copy = Copy(graph, rewrites)
        graph = copy.new
        if not copy.changed:
            return graph


class Copy:
    """One walk over a graph that copies what is needed and rewrites what it can.

    A rewrite looks at a node of the old graph, whose inputs are already copied, and returns the
    name of a value in the new graph that replaces the node's, or None.
    """

    def __init__(self, old: Graph, rewrites: tuple[Rewrite, ...]) -> None:
        self.old = old
        self.users = old.users()
        self.producers = {node.output: node for node in old.nodes}
        self.new = empty(old.shapes[old.input])
        self.name = {old.input: self.new.input}
        self.changed = False
        self.replaced: set[str] = set()  # values of the old graph that a rewrite has made
        needed = self._needed()
        for node in old.nodes:
            if node.output not in needed:
                continue
            for rewrite in rewrites:
                replaced = rewrite(self, node)
                if replaced is not None:
                    self.name[node.output] = replaced
                    self.changed = True
                    self.replaced.add(node.output)
                    break
            else:
                inputs = [self.name[value] for value in node.inputs]
                self.name[node.output] = self.new.add(node.op, *inputs, name=node.output)
        self.new.output = self.name[old.output]

    def _needed(self) -> set[str]:
        """Values from which the output is computed."""
        needed = {self.old.output}
        for node in reversed(self.old.nodes):
            if node.output in needed:
                needed.update(node.inputs)
        return needed

    def drop(self, node: Node) -> None:
        """Take back the copy of a node that what is about to be added replaces."""
        output = self.name[node.output]
        self.new.nodes = [other for other in self.new.nodes if other.output != output]
        del self.new.shapes[output]

    def producer(self, node: Node, place: int = 0) -> Node | None:
        """The node that made an input, when nobody else reads it."""
        value = node.inputs[place]
        alone = len(self.users[value]) == 1 and value != self.old.output
        return self.producers.get(value) if alone else None


def fold_affine(copy: Copy, node: Node) -> str | None:
    """Affine after a convolution or another affine becomes part of it."""
    before = copy.producer(node)
    if not isinstance(node.op, Affine) or before is None or before.output in copy.replaced:
        return None
    scale, shift = node.op.scale.astype(np.float64), node.op.shift
    inputs = [copy.name[value] for value in before.inputs]
    if isinstance(before.op, Conv):
        weight = floats(before.op.weight * scale[:, None, None, None])
        weight_scale = (
            None
            if before.op.weight_scale is None
            else floats(before.op.weight_scale * np.abs(scale))
        )
        folded: Conv | Affine = replace(
            before.op,
            weight=weight,
            bias=floats(before.op.bias * scale + shift),
            weight_scale=weight_scale,
        )
    elif isinstance(before.op, Affine):
        folded = Affine(floats(before.op.scale * scale), floats(before.op.shift * scale + shift))
    else:
        return None
    copy.drop(before)
    return copy.new.add(folded, *inputs, name=before.output)


def early(copy: Copy, node: Node) -> str | None:
    """What is done to elements moves in front of Concat and Gather, next to what made the value."""
    before = copy.producer(node)
    if not isinstance(node.op, Activation | Affine | Quantize) or before is None:
        return None
    if isinstance(before.op, Gather):
        source = before.inputs[0]
        if len(copy.users[source]) > 1 or len(set(before.op.channels)) < copy.old.shapes[source][0]:
            return None
        back = np.argsort(np.array(before.op.channels))
        if len(back) != copy.old.shapes[source][0] and not isinstance(node.op, Activation):
            return None
        op = _of_channels(node.op, back)
        moved = copy.new.add(op, copy.name[source], name=node.output)
        return copy.new.add(before.op, moved, name=f"{node.output}_taken")
    if isinstance(before.op, Concat):
        if any(len(copy.users[value]) > 1 for value in before.inputs):
            return None
        parts, start = [], 0
        for value in before.inputs:
            end = start + copy.old.shapes[value][0]
            part = _of_channels(node.op, slice(start, end))
            parts.append(copy.new.add(part, copy.name[value], name=f"{node.output}_part"))
            start = end
        return copy.new.add(before.op, *parts, name=node.output)
    return None


def _of_channels(op: Activation | Affine | Quantize, which: Any) -> Activation | Affine | Quantize:
    """The same for some of the channels."""
    if isinstance(op, Affine):
        return Affine(op.scale[which], op.shift[which])
    if isinstance(op, Quantize):
        return replace(op, scale=op.scale[which], zero=op.zero[which])
    return op


def flatten_into_kernel(copy: Copy, node: Node) -> str | None:
    """A linear layer on a flattened image becomes a convolution as large as the image."""
    before = copy.producer(node)
    if before is None or not isinstance(before.op, Reshape) or not isinstance(node.op, Conv):
        return None
    source = before.inputs[0]
    c, h, w = copy.old.shapes[source]
    if before.op.to != (c * h * w, 1, 1) or node.op.groups != 1 or h * w == 1:
        return None
    if node.op.weight.shape[2:] != (1, 1) or any(node.op.padding):
        return None
    weight: Floats = floats(node.op.weight.reshape(-1, c, h, w))
    made = Conv(weight, node.op.bias, weight_scale=node.op.weight_scale)
    return copy.new.add(made, copy.name[source], name=node.output)


def one_pixel(copy: Copy, node: Node) -> str | None:
    """Windows that go beyond an image of one pixel become a convolution of that pixel.

    Each has one tap on it, or none; a pixel then needs no zeros around it.
    """
    op = node.op
    if not isinstance(op, Conv | Pool) or not any(op.padding):
        return None
    c, *size = copy.old.shapes[node.inputs[0]]
    if size != [1, 1]:
        return None
    _, height, width = to = op.shape((c, 1, 1))
    if isinstance(op, Conv):
        rows, columns = (_taps_on_it(op, axis, to[axis + 1]) for axis in (0, 1))
        picked = op.weight[:, :, :, columns.clip(0)][:, :, rows.clip(0)]  # (out, in, h, w)
        weight = picked * np.outer(rows >= 0, columns >= 0)
        groups, bias = op.groups, np.repeat(op.bias, height * width)
        weight_scale = (
            None if op.weight_scale is None else np.repeat(op.weight_scale, height * width)
        )
    else:
        shares = [_shares_of_it(op, axis, to[axis + 1]) for axis in (0, 1)]
        share = np.outer(*shares)
        seen = share if op.how == "mean" else share > 0
        weight = np.broadcast_to(seen, (c, 1, height, width))
        none = 0.0 if op.how == "mean" else -np.inf  # of a window that sees nothing
        groups, bias, weight_scale = c, np.tile(np.where(share > 0, 0.0, none).ravel(), c), None
    points = weight.transpose(0, 2, 3, 1).reshape(len(bias), -1, 1, 1)
    conv = Conv(floats(points), floats(bias), groups=groups, weight_scale=weight_scale)
    if height * width == 1:
        return copy.new.add(conv, copy.name[node.inputs[0]], name=node.output)
    column = copy.new.add(conv, copy.name[node.inputs[0]], name=f"{node.output}_column")
    return copy.new.add(Reshape(to), column, name=node.output)


def _taps_on_it(op: Conv, axis: int, places: int) -> NDArray[np.intp]:
    """For each place of a window along an axis, which tap lies on the pixel; −1: none."""
    far = op.padding[axis] - np.arange(places) * op.stride[axis]
    tap, rest = np.divmod(far, op.dilation[axis])
    return np.where((rest == 0) & (tap >= 0) & (tap < op.weight.shape[2 + axis]), tap, -1)


def _shares_of_it(op: Pool, axis: int, places: int) -> NDArray[np.float64]:
    """For each place of a window along an axis, the pixel's share of a mean; 0: not in it."""
    first = np.arange(places) * op.stride[axis] - op.padding[axis]
    inside = (first <= 0) & (first + op.kernel[axis] > 0)
    return np.where(inside, 1 / np.maximum(op.counted(axis, 1, places), 1), 0.0)


def compose_gathers(copy: Copy, node: Node) -> str | None:
    """A take of a take is one; a reshape that changes nothing is none."""
    if isinstance(node.op, Reshape) and node.op.to == copy.old.shapes[node.inputs[0]]:
        return copy.name[node.inputs[0]]
    before = copy.producers.get(node.inputs[0])
    if not isinstance(node.op, Gather) or before is None or not isinstance(before.op, Gather):
        return None
    channels = tuple(before.op.channels[c] for c in node.op.channels)
    return copy.new.add(Gather(channels), copy.name[before.inputs[0]], name=node.output)
