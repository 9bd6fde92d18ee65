"""3×3 convolutions of quads by Winograd's filter, as C beside the window's own products.

Which of the two a processor takes is known where the C is compiled: both have the same tables and
the same bits. A block of MANY vectors of tiles at a time, all of its quads are taken to their
points, in a scratch; then for every four outputs products at the points, their sums back to pixels,
and the epilogue on these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leancnn.compiler import int8_winograd
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_epilogue import Epilogue, VectorAccess, biases
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_tiled import (
    Tiled,
    comment,
    function,
    inputs_of,
    offsets,
    weights_of,
)
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_tiles import Tiling, weight_words
from leancnn.compiler.integers import QConv, Quantized

MANY = 2  # vectors of tiles at a time (int8_winograd.h), of LANES at most
FUNCTION = """
#if WINOGRAD
LAYER @_rows(uint32_t *s, const int32_t *points, int n, int many, int tiles, const int32_t *w,
    const int32_t *b$parameters)
{
    enum { $sizes, by_rows = 0 };
    ALIGNED(64) int32_t products[16 * 4 * MANY * LANES], sums[16 * LANES];
    for (int t = 0; t < tiles; t++, w += $words, b += 4$advance) {
        $before
        if (many == MANY) products_of_many(points, $depth, w, products);
        else products_of_one(points, $depth, w, products);
        for (int v = 0; v < many; v++) {
            const int row = (n + v) / across * rows, column = (n + v) % across * 2 * LANES;
            from_points(products + 4 * v * LANES, 4 * many * LANES, b, sums);
            for (int j = 0; j < 4; j++) {
                const int y = row + j / 2 + (two ? j % 2 * 2 : 0);
                const int x = column + (two ? 0 : j % 2 * LANES);
                const int p = y * pitch + x, some = y < high ? wide - x : 0;
                if (some <= 0) continue;
                const int32_t *sum = sums + 4 * j * LANES;
                vi a0_0 = load(sum), a1_0 = load(sum + LANES);
                vi a2_0 = load(sum + 2 * LANES), a3_0 = load(sum + 3 * LANES);
                $lines
            }
        }
    }
}
LAYER @(uint32_t *s, int32_t *points, int tiles, const int32_t *w, const int32_t *b,
    const int32_t *in$parameters)
{
    enum { $sizes };
    for (int n = 0; n < total; n += MANY) {
        const int many = total - n < MANY ? 1 : MANY;
        for (int v = 0; v < many; v++) {
            const int row = (n + v) / across * rows, column = (n + v) % across * 2 * LANES;
            const int first = (row - 1) * pitch + column - 1;
            for (int k = 0; k < $depth; k++) {
                int32_t *to = points + 2 * (k * many + v) * LANES;
                into_points(s + in[k] + first, pitch, half, to, 2 * $depth * many * LANES);
            }
        }
        @_rows(s, points, n, many, tiles, w, b$names);
    }
    for (int t = 0; t < tiles; t++, $after_advance) {
        $after
    }
}
#endif
"""
SIZES = """\
pitch = $pitch, high = $high, wide = $wide, two = wide <= LANES, rows = two ? 4 : 2, \
across = two ? 1 : (wide + 2 * LANES - 1) / (2 * LANES), half = two ? 2 * pitch : LANES, \
total = across * ((high + rows - 1) / rows)"""
PARTS = VectorAccess("words({place})", "put_some({place}, {quads}, some);")


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Winograd(NodeKernel):
    """A convolution at the points of tiles, where no instruction adds up four products of bytes."""

    direct: Tiled
    """What it is elsewhere."""
    points: Plane
    takes = (QConv,)
    preludes = ("int8_winograd.h",)

    @classmethod
    def fits(cls, node: Any, x: Shape, out: Shape) -> bool:
        return int8_winograd.suits(node, x, out)

    @classmethod
    def lower(cls, node: QConv, lowering: Lowering) -> None:
        direct = Tiled.of(node, lowering)
        if lowering.narrow or direct.inputs.phases is not None:
            lowering.add(direct)
            return
        words = 16 * 2 * direct.cuts[0].depth * MANY * int8_winograd.LANES
        points = lowering.keep(Plane(f"{direct.name}_points", 0, 1, 1, (), words=words))
        lowering.add(cls(direct, points))

    def reads(self) -> Sequence[Plane]:
        return self.direct.reads()

    def writes(self) -> Sequence[Plane]:
        return [*self.direct.writes(), self.points]

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        return self.direct.in_place(at, reused)

    def faults(self) -> Iterator[str]:
        yield from self.direct.faults()

    def c(self, file: File, network: Quantized) -> None:
        """Two functions, one call; and one call for each shape of the other's tiles."""
        direct, node = self.direct, self.direct.node
        assert isinstance(node, QConv)
        whole = _by_quads(direct.cuts)
        flat = [output for tile in whole.outputs for output in tile]
        epilogue = Epilogue(file, network, direct.operands, whole, flat, 0, PARTS)
        bias = file.listed("int32_t", "bias", biases(node, flat), 4 * len(flat))
        reads = file.integers("reads", inputs_of(direct.cuts[0]))
        words = weight_words(node, direct.inputs.places, whole).reshape(-1, whole.depth, 9, 4, 4)
        at_points = int8_winograd.point_words(words)
        numbers = [str(number) for number in at_points.tolist()]
        name = f"{direct.name}_points"  # the window's weights are counted, and not these instead
        name = file.listed("int32_t", name, numbers, 0, when="#if WINOGRAD")
        body = _function(direct, whole, epilogue)
        called = file.function("winograd", f"at points, {comment(direct, whole)}", body)
        start = f"(int32_t *)s + {self.points.origin}"
        arguments = ["s", start, str(len(whole.reads)), name, bias, reads, *epilogue.arguments]
        file.calls.append(
            f"#if WINOGRAD\n    {called}({', '.join(arguments)}); /* {direct.name} */"
        )
        file.calls.append("#else")
        self._direct_calls(file, network, epilogue, bias, reads)
        file.calls.append("#endif")

    def _direct_calls(
        self, file: File, network: Quantized, tables: Epilogue, bias: str, reads: str
    ) -> None:
        """The window's own products, from the same tables."""
        direct, first = self.direct, 0
        taps = offsets(direct)
        for cut in direct.cuts:
            flat = [output for tile in cut.outputs for output in tile]
            spare = File("tables")  # which stand in `file` for all cuts
            epilogue = Epilogue(spare, network, direct.operands, cut, flat, first)
            cut, texts = weights_of(direct, cut)
            assert epilogue.parameters == tables.parameters
            name, size = f"{direct.name}_weights", 4 * len(texts)
            weights = file.listed("int32_t", name, texts, size, cut.words, when="#if !WINOGRAD")
            body = f"#if !WINOGRAD\n{function(direct, cut, epilogue, taps)}\n#endif"
            name = file.function("conv", comment(direct, cut), body)
            steps = zip(tables.arguments, tables.steps, strict=True)
            starts = [_from(table, first * step) for table, step in steps]
            start = _from(bias, 4 * first)
            arguments = ["s", str(len(cut.reads)), weights, start, reads, *starts]
            file.calls.append(f"{name}({', '.join(arguments)}); /* {direct.name} */")
            first += len(flat) // 4


def _from(table: str, at: int) -> str:
    return f"{table} + {at}" if at else table


def _by_quads(cuts: Sequence[Tiling]) -> Tiling:
    """The same outputs, four in a tile."""
    flat = [output for cut in cuts for tile in cut.outputs for output in tile]
    tiles = tuple(tuple(flat[at : at + 4]) for at in range(0, len(flat), 4))
    return Tiling(1, (0,) * 4, cuts[0].depth, cuts[0].reads[:1] * len(tiles), tiles)


def _function(kernel: Tiled, whole: Tiling, epilogue: Epilogue) -> str:
    """The C of one shape: what is done to a block of vectors of tiles, and to all of them."""
    plane = next(iter(kernel.operands.outs.values()))
    names = [parameter.split("*")[-1].split()[-1] for parameter in epilogue.parameters]
    advance = epilogue.advance
    return fill(
        FUNCTION,
        sizes=fill(SIZES, pitch=plane.pitch, high=plane.height, wide=plane.width),
        parameters="".join(f", {parameter}" for parameter in epilogue.parameters),
        names="".join(f", {name}" for name in names),
        words=16 * whole.depth * 8,
        advance="".join(f", {step}" for step in advance),
        depth=whole.depth,
        before="\n".join(epilogue.before),
        lines="\n".join(line.format(v=0) for _, line in epilogue.lines),
        after="\n".join(epilogue.after),
        after_advance=", ".join(advance),
    )
