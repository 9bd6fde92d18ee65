"""How a convolution of quads is cut into register tiles: which sums stand in one, what they read.

A tile is some quads of outputs by some vectors of pixels. Its outputs fall into *parts* that read
the same quads: a group, or the pieces of several groups whose channels a shuffle has mixed. Tiles
of one shape share their code, so every tile of a layer has the same parts; where that cannot be, a
tile has one part that reads what any of its outputs needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leancnn.compiler.int8_layout import Place, Plane, quads_of
from leancnn.compiler.integers import Array, QConv

MANY = 28  # registers for a tile's sums, its pixels and a weight, of 32; with more gcc spills
FEW = 14  # and of 16
BLOCK = 1  # quads of a tile at a time where there are 16
# The next three are measured by `python benchmarks/int8_costs.py latency`, `gather` and `loop`; a
# cycle is what one product of vectors takes at the peak of the core.
LATENCY = 4.0  # cycles from a sum of products to the next
GATHER = 1.25  # times the work that is done on quads as they lie, from which on they are gathered
LOOP = 1.0  # of each tap, for going on to the next

Quad = tuple[Plane, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Tiling:
    """Tiles of one shape: `pattern` is the part of each output, `depth` the quads a part reads."""

    quads: int
    pattern: tuple[int, ...]
    depth: int
    reads: tuple[tuple[tuple[Quad, ...], ...], ...]  # of each tile, of each part
    outputs: tuple[tuple[int | None, ...], ...]  # of each tile, the channels in order of lanes
    many: int = 1  # vectors of pixels in a tile, with 32 registers
    few: int = 1  # and with 16
    bytewise: bool = False  # whether its weights may be multiplied in pairs of bytes

    @property
    def parts(self) -> int:
        return max(self.pattern) + 1

    @property
    def products(self) -> str:
        """What the C names of its types and functions of products begin with."""
        return "bytes_" if self.bytewise else ""

    @property
    def words(self) -> str:
        """The C name of how many words four weights take."""
        return f"{self.products.upper()}WORDS"


def tilings(
    node: QConv,
    places: Sequence[Place],
    order: Sequence[int | None],
    size: tuple[int, int],
    *,
    apart: bool = False,
) -> list[Tiling]:
    """The best cut for outputs in this order (None: a lane of nothing), and that of the rest.

    `size` is the height and width of what is computed. `apart`: the best of those in which no two
    tiles read the same quad, if there is one.
    """
    taps = node.weight.shape[2] * node.weight.shape[3]
    count = len(order) // 4
    best: tuple[tuple[bool, float], list[Tiling]] | None = None
    for quads in (1, 2, 3, 4, 6):
        if quads > count:
            continue
        whole = count // quads * quads
        found = [_cut(node, places, order[: 4 * whole], quads)]
        if count > whole:
            found.append(_cut(node, places, order[4 * whole :], count - whole))
        found = [fitted(cut, size, taps) for cut in found]
        work = sum(cost(cut, cut.many, size, taps, 16) for cut in found)
        price = (apart and _shared(found), work)
        if best is None or price < best[0]:
            best = price, found
    assert best is not None
    return best[1]


def _shared(cuts: Sequence[Tiling]) -> bool:
    """Whether two tiles read the same quad."""
    each = [{quad for part in parts for quad in part} for cut in cuts for parts in cut.reads]
    return sum(map(len, each)) > len(set().union(*each))


def fitted(cut: Tiling, size: tuple[int, int], taps: int) -> Tiling:
    """The cut with as many vectors of pixels in a tile as cost least on planes of this size."""
    most, least = vectors(cut.quads, MANY), vectors(BLOCK, FEW)
    many = min(range(1, most + 1), key=lambda n: (cost(cut, n, size, taps, 16), -n))
    few = min(range(1, least + 1), key=lambda n: (cost(cut, n, size, taps, 8, BLOCK), -n))
    return replace(cut, many=many, few=few)


def vectors(quads: int, registers: int) -> int:
    """Vectors of pixels in a tile of so many quads of outputs, with so many registers."""
    return max(1, min(6, (registers - 1) // (4 * quads + 1)))


def by_rows(size: tuple[int, int], many: int, lanes: int) -> bool:
    """Whether vectors can begin where rows do, so that none holds what stands between them."""
    high, wide = size
    if wide % lanes == 0:
        return many % (wide // lanes) == 0
    return wide >= 4 and lanes % wide == 0 and high % (lanes // wide) == 0


def cost(
    cut: Tiling,
    many: int,
    size: tuple[int, int],
    taps: int,
    lanes: int,
    block: int = 0,
    *,
    loop: float = LOOP,
) -> float:
    """Cycles, about, for every vector of pixels and every output, `block` quads of these at a time
    (0: all): multiply-adds (one a cycle, and no chain shorter than LATENCY), loads of pixels (one a
    cycle) and of weights (two a cycle)."""
    high, wide = size
    fits = by_rows(size, many, lanes)
    lines = high * wide if fits else high * (wide + 1) if high > 1 else wide
    whole, rest = divmod(-(-lines // lanes), many)
    parts = lanes // wide if fits and lanes > wide else 1  # loads for a vector
    outputs = 4 * (min(block, cut.quads) or cut.quads)
    found = 0.0
    for vectors_, tiles in ((many, whole), (1, rest)):
        loads = cut.parts * vectors_ * (1 + 0.4 * (parts - 1)) + outputs / 2
        step = max(outputs * vectors_, loads, LATENCY * cut.parts)
        found += tiles * (cut.depth * taps * (step + loop) + outputs * vectors_)
    return len(cut.reads) * found * 4 * cut.quads / outputs


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


def gathers(
    node: QConv,
    places: Sequence[Place],
    grouped: Sequence[int | None],
    order: Sequence[int | None],
    size: tuple[int, int],
) -> bool:
    """Whether reading quads as they lie multiplies so many zeros that a copy pays."""
    if node.groups == 1:
        return len(quads_of(places)) > GATHER * -(-len(places) // 4)
    ideal = [Place(Plane("", 0, 1, 1, ()), 0, 0)] * len(places)
    plane = ideal[0].plane
    for slot, channel in enumerate(grouped):
        if channel is not None:
            ideal[channel] = Place(plane, slot // 4, slot % 4)
    best = waste(tilings(node, ideal, order, size), node)
    return waste(tilings(node, places, order, size), node) > GATHER * best
