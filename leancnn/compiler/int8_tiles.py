"""How a convolution of quads is cut into register tiles: which sums stand in one, what they read.

A tile is some quads of outputs by some vectors of pixels. Its outputs fall into *parts* that read
the same quads: a group, or the pieces of several groups whose channels a shuffle has mixed. Tiles
of one shape share their code, so every tile of a layer has the same parts; where that cannot be, a
tile has one part that reads what any of its outputs needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leancnn.compiler.int8_layout import Place, quads_of
from leancnn.compiler.integers import Array, QConv

MANY = 28  # registers for a tile's sums, its pixels and a weight, of 32; with more gcc spills
FEW = 14  # and of 16

Quad = tuple[object, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Tiling:
    """Tiles of one shape: `pattern` is the part of each output, `depth` the quads a part reads."""

    quads: int
    pattern: tuple[int, ...]
    depth: int
    reads: tuple[tuple[tuple[Quad, ...], ...], ...]  # of each tile, of each part
    outputs: tuple[tuple[int | None, ...], ...]  # of each tile, the channels in order of lanes

    @property
    def parts(self) -> int:
        return max(self.pattern) + 1


def tilings(node: QConv, places: Sequence[Place], order: Sequence[int | None]) -> list[Tiling]:
    """The best cut for outputs in this order (None: a lane of nothing), and that of the rest."""
    count = len(order) // 4
    best: tuple[float, list[Tiling]] | None = None
    for quads in (1, 2, 3, 4, 6):
        if quads > count:
            continue
        whole = count // quads * quads
        found = [_cut(node, places, order[: 4 * whole], quads)]
        if count > whole:
            found.append(_cut(node, places, order[4 * whole :], count - whole))
        price = sum(cost(cut, vectors(cut, MANY)) for cut in found)
        if best is None or price < best[0]:
            best = price, found
    assert best is not None
    return best[1]


def vectors(cut: Tiling, registers: int) -> int:
    """Vectors of pixels in a tile, with so many registers."""
    return max(1, min(6, (registers - 1) // (4 * cut.quads + 1)))


def cost(cut: Tiling, many: int) -> float:
    """Cycles, about, for one vector of pixels of every output and one tap: multiply-adds, loads of
    pixels (one a cycle) and of weights (two a cycle)."""
    outputs = 4 * cut.quads
    step = max(outputs * many, cut.parts * many + outputs / 2, 4.0 * cut.parts)
    return len(cut.reads) * (cut.depth * step / many + 5 * outputs / 4)


def _cut(node: QConv, places: Sequence[Place], order: Sequence[int | None], quads: int) -> Tiling:
    wide, each = len(node.weight) // node.groups, node.weight.shape[1]
    needs = [quads_of(places[g * each : (g + 1) * each]) for g in range(node.groups)]
    tiles = [tuple(order[at : at + 4 * quads]) for at in range(0, len(order), 4 * quads)]
    patterns, reads = [], []
    for tile in tiles:
        parts: list[tuple[Quad, ...]] = []
        pattern = []
        for output in tile:
            wanted = (
                tuple(needs[output // wide]) if output is not None else parts[0] if parts else ()
            )
            if wanted not in parts:
                parts.append(wanted)
            pattern.append(parts.index(wanted))
        patterns.append(tuple(pattern))
        reads.append(parts)
    if len(set(patterns)) > 1 or len(set(map(len, reads))) > 1:
        one = (0,) * (4 * quads)
        patterns = [one]
        reads = [[tuple(dict.fromkeys(quad for part in parts for quad in part))] for parts in reads]
    depth = max(len(part) for parts in reads for part in parts)
    filled = tuple(
        tuple((*part, *[part[0]] * (depth - len(part))) for part in parts) for parts in reads
    )
    return Tiling(quads, patterns[0], depth, filled, tuple(tiles))


def waste(cuts: Sequence[Tiling], node: QConv) -> float:
    """Bytes that are multiplied for each that has to be."""
    done = sum(len(cut.reads) * cut.depth * 16 * cut.quads for cut in cuts)
    return float(done / (len(node.weight) * node.weight.shape[1]))


def weight_words(node: QConv, places: Sequence[Place], cut: Tiling) -> Array:
    """The weights in the order in which tiles take them, (words, 4): for each tile, part, quad, tap
    and output the four that are multiplied by a quad."""
    wide, each = len(node.weight) // node.groups, node.weight.shape[1]
    flat = node.weight.reshape(len(node.weight), each, -1)
    held: list[
        dict[Quad, list[tuple[int, int]]]
    ] = []  # of each group: lanes and channels of a quad
    for group in range(node.groups):
        lanes: dict[Quad, list[tuple[int, int]]] = {}
        for channel, p in enumerate(places[group * each : (group + 1) * each]):
            lanes.setdefault((p.plane, p.quad, p.top, p.left), []).append((p.lane, channel))
        held.append(lanes)
    blocks = []
    for tile, parts in zip(cut.outputs, cut.reads, strict=True):
        for number, part in enumerate(parts):
            outputs = [o for o, p in zip(tile, cut.pattern, strict=True) if p == number]
            groups: dict[int, list[int]] = {}  # the outputs' places in the part, by group
            for place, output in enumerate(outputs):
                if output is not None:
                    groups.setdefault(output // wide, []).append(place)
            seen: set[Quad] = set()
            for quad in part:
                block = np.zeros((flat.shape[2], len(outputs), 4), np.int8)
                for group, members in groups.items() if quad not in seen else ():
                    rows = np.array([outputs[place] for place in members], np.intp)
                    for lane, channel in held[group].get(quad, ()):
                        block[:, members, lane] = flat[rows, channel].T
                seen.add(quad)
                blocks.append(block.reshape(-1, 4))
    return np.concatenate(blocks)
