"""Depthwise convolutions along the lines of a box, as C: a block of four pixels in each 128 bits.

Up to four rows of a window's column, turned byte by byte, are one vector whose words are channels
(int8_depthwise.h); a column to the right is the next vector.
"""

from collections.abc import Sequence

from leancnn.compiler.c_text import fill
from leancnn.compiler.int8_boxes import Box

VECTORS = """
$weights
const vi bias = four(b);
$before
$first
for (int p = 0; p < $count; p += LANES) {
    $columns
    $sums
    $epilogue
    $next
}
"""
COLUMNS = """
vq $names;
$turned
"""
SUM = """
vi a$channel = bias;
$products
"""
TURNED = """
{
    const vq r0 = $row0, r1 = $row1, r2 = $row2, r3 = $row3;
    const vq a = low8(r0, r1), b = high8(r0, r1), c = low8(r2, r3), d = high8(r2, r3);
    $to0 = low16(a, c), $to1 = high16(a, c);
    $to2 = low16(b, d), $to3 = high16(b, d);
}
"""
"""Up to four rows as vectors whose words are channels."""


def along_lines(
    box: Box, before: Sequence[str], epilogue: Sequence[str], count: int, how: str
) -> str:
    """C for `count` pixels of a quad: `before` the loop, and the epilogue of each block of sums;
    names of what multiplies begin with `how`."""
    reach = [
        max(m.shift for m in box.members if m.group == group) for group in range(len(box.groups))
    ]
    shared = [group for group in range(len(box.groups)) if reach[group]]
    return fill(
        VECTORS,
        weights="\n".join(
            f"const {how}vw4 w{n} = {how}four_weights(w + {4 * n} * {how.upper()}WORDS);"
            for n in range(len(box.members))
        ),
        before="\n".join(before),
        first="\n".join(
            fill(COLUMNS, names=_names(f"c{group}_"), turned=_turned(box, group, "0", "c"))
            for group in shared
        ),
        count=count,
        columns="\n".join(_columns(box, group, reach[group], how) for group in range(len(reach))),
        sums="\n".join(_sum(box, channel, how) for channel in range(4)),
        epilogue="\n".join(epilogue),
        next="\n".join(
            " ".join(f"c{group}_{i} = n{group}_{i};" for i in range(4)) for group in shared
        ),
    )


def _columns(box: Box, group: int, reach: int, how: str) -> str:
    """C that reads the columns of a group at p, and `reach` more of those that come next."""
    which, place = ("n", "p + LANES") if reach else ("c", "p")
    columns = fill(
        COLUMNS,
        names=_names(f"{which}{group}_"),
        turned=_turned(box, group, place, which),
    )
    following = [
        f"const vq c{group}_{4 + i} = next_block(c{group}_{i}, n{group}_{i});" for i in range(reach)
    ]
    operands = [
        f"const {how}vx x{group}_{i} = {how}operand(c{group}_{i});" for i in range(4 + reach)
    ]
    return "\n".join([columns, *following, *operands])


def _sum(box: Box, channel: int, how: str) -> str:
    """C of the products of all columns for the pixels whose words are in this place of four."""
    products = [
        f"a{channel} = {how}dot4(a{channel}, x{m.group}_{channel + m.shift}, w{n});"
        for n, m in enumerate(box.members)
    ]
    return fill(SUM, channel=channel, products="\n".join(products))


def _names(stem: str) -> str:
    return ", ".join(f"{stem}{i}" for i in range(4))


def _turned(box: Box, group: int, place: str, to: str) -> str:
    """C that turns up to four rows into vectors whose words are channels."""
    rows = [f"words(box + {offset} + {place})" for offset in box.groups[group]]
    rows += ["no_quads()"] * (4 - len(rows))
    named = {f"row{i}": row for i, row in enumerate(rows)}
    return fill(TURNED, **named, **{f"to{i}": f"{to}{group}_{i}" for i in range(4)})
