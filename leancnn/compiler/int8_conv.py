"""Convolutions of quads, and epilogues alone, as C: register tiles along lines of pixels."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_epilogue import Epilogue, spread
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_program import Tiled
from leancnn.compiler.int8_tiles import BLOCK, Tiling, weight_words
from leancnn.compiler.integers import QConv, QElementwise, Quantized

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
    const vx $loads;
    $products
    u += $members * WORDS;
}
"""
EACH_TAP = """
for (int k = 0; k < $depth; k++) {
    const uint32_t *at = s + in[$first + k] + p;
    for (int i = 0; i < $taps; i++, u += $members * WORDS) {
    const uint32_t *x = at + taps[i];
    const vx $loads;
    $products
    }
}
"""


def emit_tiled(file: File, kernel: Tiled, network: Quantized) -> None:
    """One call for each shape of tiles; a layer whose quads do not divide has two."""
    for cut in kernel.cuts:
        flat = [output for tile in cut.outputs for output in tile]
        epilogue = Epilogue(file, kernel, network, flat, cut)
        weights, taps = "NULL", [0]
        if isinstance(kernel.node, QConv):
            words = weight_words(kernel.node, kernel.places, cut)
            texts = [f"QUAD({a}, {b}, {c}, {d})" for a, b, c, d in words.tolist()]
            name = f"{kernel.outs_name}_weights"
            weights = file.listed("int32_t", name, texts, 4 * len(words), "WORDS")
            taps = offsets(kernel)
        inputs = [
            plane.at(quad) + top * plane.pitch + left  # type: ignore[attr-defined]
            for parts in cut.reads
            for part in parts
            for plane, quad, top, left in part
        ]
        bias = file.listed("int32_t", "bias", biases(kernel.node, flat), 4 * len(flat))
        reads = file.integers("reads", inputs) if inputs else "NULL"
        body = function(kernel, cut, epilogue, taps)
        name = file.function("conv" if cut.depth else "each", comment(kernel, cut), body)
        arguments = ["s", str(len(cut.reads)), weights, bias, reads, *epilogue.arguments]
        file.calls.append(f"{name}({', '.join(arguments)}); /* {kernel.outs_name} */")


def biases(node: QConv | QElementwise, flat: Sequence[int | None]) -> list[str]:
    """Of each output; BIAS adds what is lost where bytes are taken for signed ones."""
    lost = np.zeros(len(node.bias), np.int64)
    if isinstance(node, QConv):
        lost = 128 * node.weight.astype(np.int64).sum((1, 2, 3))
    pairs = zip(spread(node.bias, flat, 0), spread(lost, flat, 0), strict=True)
    return [f"BIAS({bias}, {more})" for bias, more in pairs]


def comment(kernel: Tiled, cut: Tiling) -> str:
    """What a function computes, in a line."""
    _, h, w = kernel.shape
    if not isinstance(kernel.node, QConv):
        return f"element by element on {h}x{w}, {4 * cut.quads} channels at a time"
    rows, columns = kernel.node.weight.shape[2:]
    return f"{rows}x{columns} to {h}x{w}, {4 * cut.quads} channels at a time in {cut.parts} parts"


def offsets(kernel: Tiled) -> list[int]:
    """Words from where an output lies to each tap of its window."""
    node = kernel.node
    assert isinstance(node, QConv)
    pitch = next(iter(kernel.outs.values())).pitch
    places = [
        (y * node.dilation[0], x * node.dilation[1])
        for y, x in product(*map(range, node.weight.shape[2:]))
    ]
    if kernel.phases is None:
        top, left = node.padding[:2]
        return [(y - top) * pitch + x - left for y, x in places]
    return phase_offsets(kernel.phases.which, kernel.phases.stride, kernel.places[0].plane, places)


def phase_offsets(
    which: Sequence[tuple[int, int]],
    stride: tuple[int, int],
    plane: Plane,
    places: Sequence[tuple[int, int]],
) -> list[int]:
    """The same in packed phases."""
    rows, columns = stride
    each = plane.stride // len(which)
    return [
        which.index((y % rows, x % columns)) * each + (y // rows) * plane.pitch + x // columns
        for y, x in places
    ]


def function(kernel: Tiled, cut: Tiling, epilogue: Epilogue, taps: Sequence[int]) -> str:
    """The C of a kernel of this shape."""
    plane = next(iter(kernel.outs.values()))
    outputs = 4 * cut.quads
    words = len(taps) * cut.depth * outputs
    parameters = [
        "uint32_t *s, int tiles, const int32_t *w, const int32_t *b, const int32_t *in",
        *epilogue.parameters,
    ]
    advance = [
        f"w += {words} * WORDS" if words else "(void)w",
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
        return "" if last else f"u += {cut.depth * len(taps) * len(members)} * WORDS;"
    products = []
    for place, i in mine:
        added = " ".join(f"a{i}_{v} = dot(a{i}_{v}, x{v}, g);" for v in range(many))
        products.append(f"{{ const vw g = weights(u + {place} * WORDS); {added} }}")
    return fill(
        ONE_TAP if len(taps) == 1 else EACH_TAP,
        depth=cut.depth,
        first=part * cut.depth,
        tap=taps[0],
        taps=len(taps),
        members=len(members),
        loads=", ".join(f"x{v} = operand(line(x + AT({v}), SIDE, pitch))" for v in range(many)),
        products="\n".join(products),
    )
