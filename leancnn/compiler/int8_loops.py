"""The loops of a convolution of quads as C: along an output, a register tile at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from leancnn.compiler.c_text import fill
from leancnn.compiler.int8_epilogue import Epilogue
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_tiles import Tiling
from leancnn.compiler.int8_walk import Steps

LOOPS = """
enum { pitch = $pitch, wide = $wide, by_rows = BY_ROWS($high, $wide, $many),
    vectors = ((by_rows ? $pixels : $line) + LANES - 1) / LANES };
int n = 0;
$whole
for (; n < vectors; n++) {
    const int p = AT(n);
    $source
    $rest
}
"""
WHOLE = """
for (; n + $many <= vectors; n += $many) {
    const int p = AT(n);
    $source
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
    const uint32_t *x = s + in[$first + k] + $place + ($tap);
    const ${how}vx $loads;
    $products
    u += $members * $words;
}
"""
SOURCE = "const int q = p / pitch * $down + p % pitch * $across;"
EACH_TAP = """
for (int k = 0; k < $depth; k++) {
    const uint32_t *at = s + in[$first + k] + $place;
    for (int i = 0; i < $taps; i++, u += $members * $words) {
    const uint32_t *x = at + taps[i];
    const ${how}vx $loads;
    $products
    }
}
"""


class Body(NamedTuple):
    """What the C of a kernel's loops is made of."""

    cut: Tiling
    epilogue: Epilogue
    taps: Sequence[int]
    plane: Plane  # that it writes
    steps: Steps | None


def loops(body: Body, many: int, block: int) -> str:
    """The loop over whole tiles and that over the vectors left, `block` quads at a time."""
    quads, plane, steps = body.cut.quads, body.plane, body.steps
    blocks = [range(at, min(at + block, quads)) for at in range(0, quads, block)]
    source = "" if steps is None else fill(SOURCE, down=steps.down, across=steps.across)

    def tiles(vectors: int) -> str:
        return "\n".join(tile(body, vectors, quads) for quads in blocks)

    return fill(
        LOOPS,
        pitch=plane.pitch,
        high=plane.height,
        wide=plane.width,
        many=many,
        pixels=plane.height * plane.width,
        line=plane.line,
        whole=fill(WHOLE, many=many, source=source, tiles=tiles(many)) if many > 1 else "",
        source=source,
        rest=tiles(1),
    )


def tile(body: Body, many: int, quads: range) -> str:
    """One register tile, these quads of outputs: sums, products, epilogue."""
    cut, outputs = body.cut, range(4 * quads.start, 4 * quads.stop)
    sums = [
        ", ".join(f"a{i}_{v} = {f'a{i}_0' if v else f'splat(b[{i}])'}" for v in range(many))
        for i in outputs
    ]
    parts = range(cut.parts) if cut.depth else ()
    products = [text for part in parts if (text := _part(body, part, many, outputs))]
    lines = [line for q, line in body.epilogue.lines if q in quads]
    return fill(
        TILE,
        sums="\n".join(f"vi {names};" for names in sums),
        weights="const int32_t *u = w;" if cut.depth else "",
        products="\n".join(products),
        epilogue="\n".join(
            fill(EPILOGUE, lines="\n".join(line.format(v=v) for line in lines)) for v in range(many)
        ),
    )


def _part(body: Body, part: int, many: int, outputs: range) -> str:
    """The products of those outputs that read the same quads; steps over the others' weights."""
    cut, taps, steps = body.cut, body.taps, body.steps
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
        place="p" if steps is None else "q",
        loads=", ".join(f"x{v} = {how}operand({_load(steps, v)})" for v in range(many)),
        products="\n".join(products),
    )


def _load(steps: Steps | None, v: int) -> str:
    """C that reads a vector of pixels."""
    return f"line(x + AT({v}), SIDE, pitch)" if steps is None else f"words(x + {v * steps.across})"
