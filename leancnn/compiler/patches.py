"""The first layers strip by strip of rows, so that fewer of their rows are in memory at once.

The maps of the first layers are the largest, and every one of their rows is needed for a few rows
of a later, smaller map only. Each strip of that map is computed from the strip of the image that it
sees, one after another; rows at the seams are computed twice, which is the price. Ji Lin et al.,
MCUNetV2: memory-efficient patch-based inference for tiny deep learning, NeurIPS 2021; by rows alone
here, because the pixels of a row lie side by side.

`smallest` tries cuts and numbers of strips; memory must shrink by more than work grows.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from math import prod

import numpy as np

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
)
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule

MOST_WORK = 1.25  # multiply-adds of a graph in strips, over those without
MOST_STRIPS = 8
MOST_CUTS = 2  # places that are tried
Rows = tuple[int, int]  # the first, and the one behind the last


def smallest(graph: Graph) -> Graph:
    """The graph, or one that computes the same in strips: of scratch times work the least."""
    best, least = graph, float(_peak(graph))
    for cut in list(cuts(graph))[:MOST_CUTS]:
        for count in range(2, min(MOST_STRIPS, graph.shapes[cut][1]) + 1):
            found = in_strips(graph, cut, count)
            work = found.macs() / graph.macs()
            if work > MOST_WORK:
                break
            if (weighed := work * _peak(found)) < least:
                best, least = found, weighed
    if best is graph or best.macs() * _arena(best) < graph.macs() * _arena(graph):
        return best
    return graph


def _peak(graph: Graph) -> int:
    """Numbers that are kept at once, about: views share what they show, and element-wise operators
    write over what nobody else reads."""
    users = graph.users()
    kept: dict[str, tuple[str, ...]] = {graph.input: (graph.input,)}
    lives = {graph.input: [0, 0]}
    for at, node in enumerate(graph.nodes):
        first = node.inputs[0]
        if isinstance(node.op, Gather | Concat | Crop):
            found = tuple(dict.fromkeys(b for value in node.inputs for b in kept[value]))
        elif isinstance(node.op, Activation | Affine | Combine) and len(users[first]) == 1:
            found = kept[first]
        else:
            found = (node.output,)
            lives[node.output] = [at, at]
        kept[node.output] = found
        for buffer in (*found, *(b for value in node.inputs for b in kept[value])):
            lives[buffer][1] = at
    sizes = [0] * (len(graph.nodes) + 1)
    for buffer, (born, dies) in lives.items():
        sizes[born] += prod(graph.shapes[buffer])
        sizes[dies + 1] -= prod(graph.shapes[buffer])
    return max(accumulate(sizes))


def _arena(graph: Graph) -> int:
    return schedule(lower(graph), small=True).program.arena


def cuts(graph: Graph) -> Iterator[str]:
    """Values that everything behind is computed from, and whose rows may be computed apart."""
    users = graph.users()
    waiting = {graph.input: len(users[graph.input])}
    height = graph.shapes[graph.input][1]
    for node in graph.nodes:
        if not _by_rows(node.op):
            return
        for value in dict.fromkeys(node.inputs):
            waiting[value] -= 1
        waiting[node.output] = len(users[node.output])
        alive = [value for value, count in waiting.items() if count]
        rows = graph.shapes[node.output][1]
        if alive == [node.output] and 1 < rows < height:
            height = rows  # once for each size of the maps
            yield node.output


def _by_rows(op: object) -> bool:
    """Whether a few rows of an operator's result are a function of a few rows of what it reads."""
    if isinstance(op, Conv | Pool):
        first, end = _reach(op, (0, 1))
        inside = max(op.padding[0], op.padding[2]) < end - first  # every window sees some row
        return inside and (isinstance(op, Conv) or _by_max(op))
    return isinstance(op, Affine | Activation | Combine | Gather | Concat | Crop)


def _by_max(op: Pool) -> bool:
    """Whether padding counts for nothing; a mean would count other pixels at seams."""
    return not any(op.beyond) and (op.how == "max" or not any(op.padding))


def in_strips(graph: Graph, cut: str, count: int) -> Graph:
    """The same function with all that stands before `cut` computed in `count` strips of rows."""
    before = _before(graph, cut)
    made = Graph(graph.input, graph.output, {graph.input: graph.shapes[graph.input]})
    channels, height, _ = graph.shapes[cut]
    edges = [height * strip // count for strip in range(count + 1)]
    joined = ""
    for first, end in pairwise(edges):
        strip = _strip(graph, made, before, {cut: (first, end)})
        one, zero = np.ones((channels, 1, 1, 1), np.float32), np.zeros(channels, np.float32)
        place = Conv(one, zero, padding=(first, 0, height - end, 0), groups=channels)
        strip = made.add(place, strip, name=f"{cut}_placed")
        joined = made.add(Combine("add"), strip, joined, name=f"{cut}_joined") if joined else strip
    names = {cut: joined}
    for node in graph.nodes:
        if node in before:
            continue
        inputs = [names.get(value, value) for value in node.inputs]
        names[node.output] = made.add(node.op, *inputs, name=node.output)
    made.output = names.get(graph.output, graph.output)
    return made


def _before(graph: Graph, cut: str) -> list[Node]:
    """The nodes that make a value, itself included, in order."""
    wanted, found = {cut}, []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            found.append(node)
            wanted.update(node.inputs)
    return found[::-1]


def _strip(old: Graph, new: Graph, nodes: list[Node], needed: dict[str, Rows]) -> str:
    """Add what makes the rows of the last value that are `needed`; its name."""
    for node in reversed(nodes):
        for value in node.inputs:
            first, end = _read(old, node, value, needed[node.output])
            had = needed.get(value, (first, end))
            needed[value] = min(first, had[0]), max(end, had[1])
    made = {}
    image = old.shapes[old.input]
    made[old.input] = _rows_of(new, old.input, image[2], (0, image[1]), needed[old.input])
    for node in nodes:
        inputs = []
        for value in node.inputs:
            rows = _read(old, node, value, needed[node.output])
            inputs.append(_rows_of(new, made[value], old.shapes[value][2], needed[value], rows))
        op = _narrowed(old, node, needed[node.output])
        made[node.output] = new.add(op, *inputs, name=node.output)
    return made[nodes[-1].output]


def _rows_of(graph: Graph, name: str, width: int, have: Rows, rows: Rows) -> str:
    """A window of a value that holds the rows `have`."""
    if rows == have:
        return name
    window = Crop(rows[0] - have[0], 0, rows[1] - rows[0], width)
    return graph.add(window, name, name=f"{name}_rows")


def _reach(op: Conv | Pool, rows: Rows) -> Rows:
    """Rows that a window sees, those of the padding included."""
    size, dilation = (
        (op.kernel[0], 1) if isinstance(op, Pool) else (op.weight.shape[2], op.dilation[0])
    )
    first = rows[0] * op.stride[0] - op.padding[0]
    return first, (rows[1] - 1) * op.stride[0] - op.padding[0] + dilation * (size - 1) + 1


def _read(graph: Graph, node: Node, value: str, rows: Rows) -> Rows:
    """Rows of `value` that a node needs for some of its own."""
    height = graph.shapes[value][1]
    if isinstance(node.op, Conv | Pool):
        first, end = _reach(node.op, rows)
        return max(first, 0), min(end, height)
    if isinstance(node.op, Crop):
        return rows[0] + node.op.top, rows[1] + node.op.top
    return (0, 1) if height == 1 else rows


def _narrowed(graph: Graph, node: Node, rows: Rows) -> object:
    """The operator for these rows alone: padding at the edges of the image, none at the seams."""
    op = node.op
    if isinstance(op, Crop):
        return replace(op, top=0, height=rows[1] - rows[0])
    if not isinstance(op, Conv | Pool):
        return op
    first, end = _reach(op, rows)
    height = graph.shapes[node.inputs[0]][1]
    _, left, _, right = op.padding
    return replace(op, padding=(max(-first, 0), left, max(end - height, 0), right))
