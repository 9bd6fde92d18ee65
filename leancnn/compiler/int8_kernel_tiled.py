"""Convolutions of quads, and epilogues alone, as C: register tiles along lines of pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from leancnn.compiler import int8_boxes, int8_winograd
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_epilogue import Epilogue, Operands, biases
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel, view_of
from leancnn.compiler.int8_kernel_pack import aligned, copied, split
from leancnn.compiler.int8_layout import ChannelView, Order, Place, Plane, filled, natural
from leancnn.compiler.int8_pairs import pairs_fit
from leancnn.compiler.int8_phases import PackedPhases, phase_offsets
from leancnn.compiler.int8_tiles import (
    BLOCK,
    Tiling,
    fitted,
    gathers,
    tilings,
    weight_words,
)
from leancnn.compiler.integers import Add, Gate, QConv, QElementwise, Quantized, stores
from leancnn.errors import UnsupportedError

FUNCTION = """
LAYER @($parameters)
{
    $taps
    for (int t = 0; t < tiles; t++, $advance) {
        $before
#if REGISTERS >= 32
        $many
#else
        $few
#endif
        $after
    }
}
"""
TAPS = """
static const int32_t taps[$many] = {$taps};
"""
LOOPS = """
enum { pitch = $pitch, wide = $wide, by_rows = BY_ROWS($high, $wide, $many),
    vectors = ((by_rows ? $pixels : $line) + LANES - 1) / LANES };
int n = 0;
$whole
for (; n < vectors; n++) {
    const int p = AT(n);
    $rest
}
"""
WHOLE = """
for (; n + $many <= vectors; n += $many) {
    const int p = AT(n);
    $tiles
}
"""
TILE = """
{
$sums
$weights
$products
$epilogue
}
"""
EPILOGUE = """
{
    $lines
}
"""
ONE_TAP = """
for (int k = 0; k < $depth; k++) {
    const uint32_t *x = s + in[$first + k] + p + ($tap);
    const ${how}vx $loads;
    $products
    u += $members * $words;
}
"""
EACH_TAP = """
for (int k = 0; k < $depth; k++) {
    const uint32_t *at = s + in[$first + k] + p;
    for (int i = 0; i < $taps; i++, u += $members * $words) {
    const uint32_t *x = at + taps[i];
    const ${how}vx $loads;
    $products
    }
}
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Tiled(NodeKernel):
    """A convolution (or, without one, only an epilogue) pixel by pixel along lines of quads."""

    node: QConv | QElementwise
    places: tuple[Place, ...]  # of the input's channels, where the kernel reads them
    phases: PackedPhases | None
    cuts: list[Tiling]
    shape: Shape
    operands: Operands
    takes = (QConv, QElementwise)

    @classmethod
    def fits(cls, node: Any, x: Shape, out: Shape) -> bool:
        if isinstance(node, QConv) and (
            int8_boxes.suits(node, x[0]) or int8_winograd.suits(node, x, out)
        ):
            return False
        return out[1:] != (1, 1)

    @classmethod
    def lower(cls, node: QConv | QElementwise, lowering: Lowering) -> None:
        lowering.add(cls.of(node, lowering))

    @classmethod
    def of(cls, node: QConv | QElementwise, lowering: Lowering) -> "Tiled":
        """The kernel of a node, after those that copy what it reads."""
        shape = lowering.shape(node)
        order = lowering.order(node, shape[0])
        if any(store.multiplier is None for store in stores(node)):
            raise UnsupportedError("the compiler takes classifiers, whose answer is one vector")
        outs = lowering.outs(node, order)
        places: tuple[Place, ...] = ()
        phases: PackedPhases | None = None
        if isinstance(node, QConv):
            places, phases = _inputs(node, lowering, order, shape, next(iter(outs.values())))
            cuts = tilings(node, places, order, shape[1:])
        else:
            cuts = [_quads(order, shape)]
        operands = _operands(node, lowering, order, outs)
        return cls(node, places, phases, cuts, shape, operands)

    def reads(self) -> Sequence[Plane]:
        return [*(place.plane for place in self.places), *self.operands.reads()]

    def writes(self) -> Sequence[Plane]:
        return list(self.operands.outs.values())

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        """An added value that is read here for the last time, quad by quad, gives its place."""
        busy = {place.plane for place in self.places} | set(reused.values())
        for quads in self.operands.others.values():
            old = quads[0][0]
            if [(old, n) for n in range(old.quads)] != quads or old in busy or old.dies != at:
                continue
            for new in self.operands.stored_after(old):
                if new.gap == old.gap and new.quads == old.quads and new not in reused:
                    return new, old
        return None

    def faults(self) -> Iterator[str]:
        if isinstance(self.node, QConv) and self.phases is None:
            top, left, bottom, right = self.node.padding
            for plane in {place.plane for place in self.places}:
                if plane.gap[0] < max(top, bottom) or plane.gap[1] < max(left, right):
                    yield f"finds no padding around the rows of {plane.name}"

    @property
    def name(self) -> str:
        """What it stores first."""
        return next(iter(self.operands.outs))

    def c(self, file: File, network: Quantized) -> None:
        """One call for each shape of tiles; a layer whose quads do not divide has two."""
        first = 0
        for cut in self.cuts:
            flat = [output for tile in cut.outputs for output in tile]
            epilogue = Epilogue(file, network, self.operands, cut, flat, first)
            first += len(flat) // 4
            weights, taps = "NULL", [0]
            if isinstance(self.node, QConv):
                cut, texts = weights_of(self, cut)
                name = f"{self.name}_weights"
                weights = file.listed("int32_t", name, texts, 4 * len(texts), cut.words)
                taps = offsets(self)
            inputs = inputs_of(cut)
            bias = file.listed("int32_t", "bias", biases(self.node, flat), 4 * len(flat))
            reads = file.integers("reads", inputs) if inputs else "NULL"
            body = function(self, cut, epilogue, taps)
            name = file.function("conv" if cut.depth else "each", comment(self, cut), body)
            arguments = ["s", str(len(cut.reads)), weights, bias, reads, *epilogue.arguments]
            file.calls.append(f"{name}({', '.join(arguments)}); /* {self.name} */")


def _inputs(
    node: QConv, lowering: Lowering, order: Order, shape: Shape, out: Plane
) -> tuple[tuple[Place, ...], PackedPhases | None]:
    """Where the kernel reads its channels: as they lie, gathered into quads, or split by strides
    into phases as far apart as `out`."""
    x, grouped = lowering.views[node.x], _grouped(node)
    twice = len({(p.plane, p.quad, p.lane) for p in x.places}) < len(x.places)
    whole = x.whole and not twice and shape[1:] == (x.height, x.width)
    if node.stride != (1, 1) or not whole:
        phases = lowering.phases(node, shape)
        fill = filled(lowering.network.values[node.x], grouped)
        plane = split(lowering, node.x, grouped, phases, out, fill)
        return view_of(plane, grouped, len(x.places)).places, phases
    places = x.places
    if gathers(node, places, grouped, order, shape[1:]):
        places = copied(lowering, node.x, grouped)
    top, left, bottom, right = node.padding
    for plane in {place.plane for place in places}:
        rows, columns = plane.gap
        plane.gap = (max(rows, top, bottom), max(columns, left, right))
    return places, None


def _grouped(node: QConv) -> Order:
    """The input's channels with each group in quads of its own."""
    each = node.weight.shape[1]
    if node.groups == 1 or each % 4 == 0 or node.groups == len(node.weight) or each < 3:
        return natural(each * node.groups)
    order: list[int | None] = []
    for group in range(node.groups):
        order += [*range(group * each, (group + 1) * each), *[None] * (-each % 4)]
    return tuple(order)


def _quads(order: Order, shape: Shape) -> Tiling:
    """Tiles of an epilogue alone."""
    size = 2 if len(order) % 8 == 0 else 1
    tiles = tuple(order[at : at + 4 * size] for at in range(0, len(order), 4 * size))
    cut = Tiling(size, (0,) * (4 * size), 0, tuple(((),) for _ in tiles), tiles)
    return fitted(cut, shape[1:], 0)


def _operands(
    node: QConv | QElementwise, lowering: Lowering, order: Order, outs: dict[str, Plane]
) -> Operands:
    """The epilogue of a node whose outputs lie in this order."""
    others: dict[str, list[tuple[Plane, int]]] = {}
    gates: dict[str, ChannelView] = {}
    for op in node.epilogue:
        if isinstance(op, Add | Gate):
            others[op.value] = aligned(lowering, op.value, order)
        if isinstance(op, Gate):
            gates[op.gate] = lowering.views[op.gate]
    return Operands(node.epilogue, outs, others, gates)


def comment(kernel: Tiled, cut: Tiling) -> str:
    """What a function computes, in a line."""
    _, h, w = kernel.shape
    if not isinstance(kernel.node, QConv):
        return f"element by element on {h}x{w}, {4 * cut.quads} channels at a time"
    rows, columns = kernel.node.weight.shape[2:]
    return f"{rows}x{columns} to {h}x{w}, {4 * cut.quads} channels at a time in {cut.parts} parts"


def weights_of(kernel: Tiled, cut: Tiling) -> tuple[Tiling, list[str]]:
    """The cut with how its weights are multiplied, and these as C."""
    assert isinstance(kernel.node, QConv)
    words = weight_words(kernel.node, kernel.places, cut)
    cut = replace(cut, bytewise=pairs_fit(words))
    quad = f"{cut.products.upper()}QUAD"
    return cut, [f"{quad}({a}, {b}, {c}, {d})" for a, b, c, d in words.tolist()]


def inputs_of(cut: Tiling) -> list[int]:
    """Where the quads lie that each part of each tile reads."""
    return [
        plane.at(quad) + top * plane.pitch + left
        for parts in cut.reads
        for part in parts
        for plane, quad, top, left in part
    ]


def offsets(kernel: Tiled) -> list[int]:
    """Words from where an output lies to each tap of its window."""
    node = kernel.node
    assert isinstance(node, QConv)
    pitch = next(iter(kernel.operands.outs.values())).pitch
    places = [
        (y * node.dilation[0], x * node.dilation[1])
        for y, x in product(*map(range, node.weight.shape[2:]))
    ]
    if kernel.phases is None:
        top, left = node.padding[:2]
        return [(y - top) * pitch + x - left for y, x in places]
    return phase_offsets(kernel.phases.which, kernel.phases.stride, kernel.places[0].plane, places)


def function(kernel: Tiled, cut: Tiling, epilogue: Epilogue, taps: Sequence[int]) -> str:
    """The C of a kernel of this shape."""
    plane = next(iter(kernel.operands.outs.values()))
    outputs = 4 * cut.quads
    words = len(taps) * cut.depth * outputs
    parameters = [
        "uint32_t *s, int tiles, const int32_t *w, const int32_t *b, const int32_t *in",
        *epilogue.parameters,
    ]
    advance = [
        f"w += {words} * {cut.words}" if words else "(void)w",
        f"b += {outputs}",
        f"in += {cut.parts * cut.depth}" if cut.depth else "(void)in",
        *epilogue.advance,
    ]
    several = len(taps) > 1
    return fill(
        FUNCTION,
        parameters=", ".join(parameters),
        taps=fill(TAPS, many=len(taps), taps=", ".join(map(str, taps))) if several else "",
        advance=", ".join(advance),
        before="\n".join(epilogue.before),
        many=loops(cut, epilogue, taps, plane, cut.many, cut.quads),
        few=loops(cut, epilogue, taps, plane, cut.few, BLOCK),
        after="\n".join(epilogue.after),
    )


def loops(
    cut: Tiling, epilogue: Epilogue, taps: Sequence[int], plane: Plane, many: int, block: int
) -> str:
    """The loop over whole tiles and that over the vectors left, `block` quads at a time."""
    blocks = [range(at, min(at + block, cut.quads)) for at in range(0, cut.quads, block)]

    def tiles(vectors: int) -> str:
        return "\n".join(tile(cut, epilogue, taps, vectors, quads) for quads in blocks)

    return fill(
        LOOPS,
        pitch=plane.pitch,
        high=plane.height,
        wide=plane.width,
        many=many,
        pixels=plane.height * plane.width,
        line=plane.line,
        whole=fill(WHOLE, many=many, tiles=tiles(many)) if many > 1 else "",
        rest=tiles(1),
    )


def tile(cut: Tiling, epilogue: Epilogue, taps: Sequence[int], many: int, quads: range) -> str:
    """One register tile, these quads of outputs: sums, products, epilogue."""
    outputs = range(4 * quads.start, 4 * quads.stop)
    sums = [
        ", ".join(f"a{i}_{v} = {f'a{i}_0' if v else f'splat(b[{i}])'}" for v in range(many))
        for i in outputs
    ]
    parts = range(cut.parts) if cut.depth else ()
    products = [text for part in parts if (text := _part(cut, taps, part, many, outputs))]
    lines = [line for q, line in epilogue.lines if q in quads]
    return fill(
        TILE,
        sums="\n".join(f"vi {names};" for names in sums),
        weights="const int32_t *u = w;" if cut.depth else "",
        products="\n".join(products),
        epilogue="\n".join(
            fill(EPILOGUE, lines="\n".join(line.format(v=v) for line in lines)) for v in range(many)
        ),
    )


def _part(cut: Tiling, taps: Sequence[int], part: int, many: int, outputs: range) -> str:
    """The products of those outputs that read the same quads; steps over the others' weights."""
    members = [i for i, p in enumerate(cut.pattern) if p == part]
    mine = [(place, i) for place, i in enumerate(members) if i in outputs]
    if not mine:
        last = part + 1 == cut.parts
        return "" if last else f"u += {cut.depth * len(taps) * len(members)} * {cut.words};"
    products, how = [], cut.products
    for place, i in mine:
        added = " ".join(f"a{i}_{v} = {how}dot(a{i}_{v}, x{v}, g);" for v in range(many))
        products.append(f"{{ const {how}vw g = {how}weights(u + {place} * {cut.words}); {added} }}")
    return fill(
        ONE_TAP if len(taps) == 1 else EACH_TAP,
        depth=cut.depth,
        first=part * cut.depth,
        tap=taps[0],
        taps=len(taps),
        members=len(members),
        words=cut.words,
        how=how,
        loads=", ".join(
            f"x{v} = {how}operand(line(x + AT({v}), SIDE, pitch))" for v in range(many)
        ),
        products="\n".join(products),
    )
