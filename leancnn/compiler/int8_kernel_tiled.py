"""Convolutions of quads, and epilogues alone, as C: register tiles along lines of pixels."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from leancnn.compiler import int8_boxes, int8_winograd
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_epilogue import Epilogue, Operands, biases
from leancnn.compiler.int8_inputs import Inputs, find_inputs, padding_of
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_pack import aligned
from leancnn.compiler.int8_layout import ChannelView, Order, Plane
from leancnn.compiler.int8_loops import Body, loops
from leancnn.compiler.int8_pairs import pairs_fit
from leancnn.compiler.int8_phases import phase_offsets
from leancnn.compiler.int8_tiles import BLOCK, Tiling, fitted, tilings, weight_words
from leancnn.compiler.int8_walk import Steps, Walk
from leancnn.compiler.integers import Add, Gate, QConv, QElementwise, Quantized, stores
from leancnn.errors import UnsupportedError

FUNCTION = """
LAYER @($parameters)
{
    $taps
    for (int t = 0; t < tiles; t++, $advance) {
        $before
        $loops
        $after
    }
}
"""
EITHER = """
#if REGISTERS >= 32
$many
#else
$few
#endif
"""
TAPS = """
static const int32_t taps[$many] = {$taps};
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Tiled(NodeKernel):
    """A convolution (or, without one, only an epilogue) pixel by pixel along lines of quads."""

    node: QConv | QElementwise
    inputs: Inputs
    cuts: list[Tiling]
    shape: Shape
    operands: Operands
    small: bool  # whether it is for plain loops
    takes = (QConv, QElementwise)
    quads_at_once = True

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
        small, inputs = lowering.arena.small, Inputs()
        if isinstance(node, QConv):
            inputs = find_inputs(node, lowering, order, shape, next(iter(outs.values())))
            cuts = tilings(node, inputs.places, order, shape[1:], apart=small)
        else:
            cuts = [_quads(order, shape)]
        operands = _operands(node, lowering, order, outs)
        return cls(node, inputs, cuts, shape, operands, small)

    def reads(self) -> Sequence[Plane]:
        return [*(place.plane for place in self.inputs.places), *self.operands.reads()]

    def writes(self) -> Sequence[Plane]:
        return list(self.operands.outs.values())

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        """An added value that is read here for the last time, quad by quad, gives its place."""
        busy = {place.plane for place in self.inputs.places} | set(reused.values())
        for quads in self.operands.others.values():
            old = quads[0][0]
            if [(old, n) for n in range(old.quads)] != quads or old in busy or old.dies != at:
                continue
            for new in self.operands.stored_after(old):
                if new.gap == old.gap and new.quads == old.quads and new not in reused:
                    return new, old
        return None

    def faults(self) -> Iterator[str]:
        if isinstance(self.node, QConv) and self.inputs.phases is None:
            rows, columns = padding_of(self.node, self.inputs, self.shape)
            for plane in {place.plane for place in self.inputs.places}:
                alone = (plane.height, plane.width) == (1, 1) and (rows or columns)
                if alone or plane.gap[0] < rows or plane.gap[1] < columns:
                    yield f"finds no padding around the rows of {plane.name}"

    def passed(self) -> Sequence[Plane]:
        """Planes no quad of which is read by two tiles, nor beside a sum."""
        quads = [
            {q[:2] for part in parts for q in part} for cut in self.cuts for parts in cut.reads
        ]
        again = {plane for (plane, _), n in Counter(q for s in quads for q in s).items() if n > 1}
        busy = again | set(self.operands.reads())
        return [p for p in dict.fromkeys(p.plane for p in self.inputs.places) if p not in busy]

    def accesses(self) -> Accesses | None:
        return self.walk().accesses() if self.small else None

    def beyond(self) -> dict[Plane, int]:
        return self.walk().beyond() if self.small else {}

    def walk(self) -> Walk:
        """How its C in plain loops goes over its planes."""
        taps = offsets(self) if isinstance(self.node, QConv) else ()
        many = [pixels_at_once(self, cut) for cut in self.cuts]
        return Walk(self.operands, self.cuts, taps, self.steps, many)

    @property
    def steps(self) -> Steps | None:
        """How far apart windows are that are read where the input lies."""
        if not (isinstance(self.node, QConv) and self.inputs.direct):
            return None
        down, across = self.node.stride
        return Steps(down * self.inputs.places[0].plane.pitch, across)

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
    words = weight_words(kernel.node, kernel.inputs.places, cut)
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
    inputs = kernel.inputs
    pitch = next(iter(kernel.operands.outs.values())).pitch
    if inputs.direct:
        pitch = inputs.places[0].plane.pitch
    places = [
        (y * node.dilation[0], x * node.dilation[1])
        for y, x in product(*map(range, node.weight.shape[2:]))
    ]
    if inputs.phases is None:
        top, left = node.padding[:2]
        return [(y - top) * pitch + x - left for y, x in places]
    phases = inputs.phases
    return phase_offsets(phases.which, phases.stride, inputs.places[0].plane, places)


def pixels_at_once(kernel: Tiled, cut: Tiling) -> int:
    """Pixels of a tile in plain loops, where windows read in place are all of one row."""
    plane = next(iter(kernel.operands.outs.values()))
    if kernel.steps is not None and (plane.pitch % cut.few or plane.width <= cut.few):
        return 1
    return cut.few


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
    body = Body(cut, epilogue, taps, plane, kernel.steps)
    if kernel.small:
        walks = loops(body, pixels_at_once(kernel, cut), BLOCK)
    else:
        many, few = loops(body, cut.many, cut.quads), loops(body, cut.few, BLOCK)
        walks = fill(EITHER, many=many, few=few)
    return fill(
        FUNCTION,
        parameters=", ".join(parameters),
        taps=fill(TAPS, many=len(taps), taps=", ".join(map(str, taps))) if several else "",
        advance=", ".join(advance),
        before="\n".join(epilogue.before),
        loops=walks,
        after="\n".join(epilogue.after),
    )
