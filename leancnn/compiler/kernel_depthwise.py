"""A depthwise convolution, channels side by side."""

from dataclasses import dataclass
from itertools import groupby

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import (
    BlockedKernel,
    blocked_kernel,
    finish,
    head_rows,
    unread,
)
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv
from leancnn.compiler.kernel import Kernel, Plan

COLUMNS = 8  # of a tile


FUNCTION = """
$tiles
LAYER @(float *s, const int32_t *t, const float *w)
{
    for (int b = 0; b < $blocks; b++, w += $weights)
    for (int l = 0; l < 16; l += LANES) {
        const float *in = s + t[0] + b * $input + l;
        const int c = b * 16 + l;
        for (int r = 0; r < $height; r++) {
            const float *x = in + (r * $stride - $top) * $line;
            const int above = $above, below = $below;
            const int from = above > 0 ? above : 0, to = below < $rows ? below : $rows;
            const int at = b * $plane + l + r * $row;
            $calls
        }
    }
}
"""
TILE = """
static inline void $name(float *s, const int32_t *t, const float *w, const float *x, \
int at, int c, int from, int to)
{
    vf $sums;
    for (int i = from; i < to; i++) {
        const float *r = x + i * $line;
        const float *k = w + $head + i * $weights;
        $taps
        $products
    }
    $finish
    $unused
}
"""


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseKernel(BlockedKernel):
    """Each vector of channels by itself, row by row; taps outside the image are left out."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        op = kernel.op
        return isinstance(op, Conv) and op.groups == kernel.channels == len(kernel.x.planes)

    @property
    def role(self) -> str:
        return "depthwise blocked"

    def cost(self) -> float:
        rows, columns = self.op.weight.shape[2:]
        each: float = 2.0 + (0.6 * columns + 1.0) * rows
        return self.vectors * self.pixels * each + self.epilogue_cost()

    def words(self, plan: Plan) -> tuple[str, str]:
        what = f"depthwise convolution {'x'.join(map(str, self.op.weight.shape[2:]))}"
        if self.op.stride != (1, 1):
            what += f", stride {self.op.stride[0]}"
        return what, f"tile: {COLUMNS} columns at most"

    def body(self, file: File, plan: Plan) -> str:
        op = self.op
        top, taps = op.padding[0], op.weight[0].size
        above = f"{top} - r * {op.stride[0]}"
        below = f"{self.x.height + top} - r * {op.stride[0]}"
        if (reach := op.dilation[0]) > 1:
            above, below = (f"({edge} + {reach - 1}) / {reach}" for edge in (above, below))
        tiles = _column_tiles(self)
        return fill(
            FUNCTION,
            tiles="\n".join(self._tile(file, *tile[:3]) for tile in tiles),
            blocks=self.vectors,
            weights=(head_rows(self) + taps) * WIDEST,
            input=self.x.planes[0][0].stride,
            height=self.height,
            stride=op.stride[0],
            top=top,
            line=self.x.width * WIDEST,
            above=above,
            below=below,
            rows=op.weight.shape[2],
            plane=self.out.stride,
            row=self.width * WIDEST,
            calls="\n".join(self._call(*tile) for tile in tiles),
        )

    def _call(self, name: int, start: int, count: int, repeats: int) -> str:
        """A tile from column `start` on, or one after the other."""
        stride, left = self.op.stride[1], self.op.padding[1]
        x, at = (start * stride - left) * WIDEST, start * WIDEST
        more = (f" + i * {count * stride * WIDEST}", f" + i * {count * WIDEST}")
        more = more if repeats > 1 else ("", "")
        call = f"@_from{name}(s, t, w + l, x + {x}{more[0]}, at + {at}{more[1]}, c, from, to);"
        return f"for (int i = 0; i < {repeats}; i++)\n    {call}" if repeats > 1 else call

    def _tile(self, file: File, name: int, start: int, count: int) -> str:
        products = _columns(self, start, count)
        used = sorted({j for _, _, j in products})
        taps = ", ".join(f"w{j} = load(k + {j * WIDEST})" for j in used)
        lines = []
        for column, group in groupby(products, key=lambda product: product[0]):
            adds = " ".join(f"a{o}_0 += z * w{j}; ordered(a{o}_0);" for _, o, j in group)
            lines.append(f"{{ const vf z = load(r + {column * WIDEST}); {adds} }}")
        epilogue = finish(self, 1, WIDEST, f"at + o * {WIDEST}", "c")
        own = ["const float *u = w;"] * bool(affines(self.epilogue))
        each = file.tile("EACH", count, 1)
        return fill(
            TILE,
            name=f"@_from{name}",
            sums=", ".join(["a0_0 = load(w)", *(f"a{o}_0 = a0_0" for o in range(1, count))]),
            line=self.op.dilation[0] * self.x.width * WIDEST,
            head=head_rows(self) * WIDEST,
            weights=self.op.weight.shape[3] * WIDEST,
            taps=f"const vf {taps};" if used else "(void)r, (void)k;",
            products="\n".join(lines),
            finish=finished([*own, *epilogue], each, (count, 1), is_long(self.epilogue)),
            unused=unread(epilogue, "c)"),
        )


def _column_tiles(kernel: Kernel) -> list[tuple[int, int, int, int]]:
    """Number, first column, columns and repeats of a row's tiles; those without an edge repeat."""
    tiles = -(-kernel.width // (COLUMNS + 2)) if kernel.width <= COLUMNS + 2 else 0
    tiles = tiles or -(-kernel.width // COLUMNS)
    count = -(-kernel.width // tiles)
    starts = [(start, min(count, kernel.width - start)) for start in range(0, kernel.width, count)]
    found: list[tuple[int, int, int, int]] = []
    for _, same in groupby(starts, key=lambda tile: _columns(kernel, *tile)):
        group = list(same)
        found.append((len(found), *group[0], len(group)))
    return found


def _columns(kernel: Kernel, start: int, count: int) -> tuple[tuple[int, int, int], ...]:
    """Input column, output column and tap of each product in a row of a tile, from its start on."""
    op = kernel.op
    assert op is not None
    stride, left, dilation = op.stride[1], op.padding[1], op.dilation[1]
    products = [
        (o * stride + j * dilation, o, j)
        for o in range(count)
        for j in range(op.weight.shape[3])
        if 0 <= (start + o) * stride + j * dilation - left < kernel.x.width
    ]
    return tuple(sorted(products))
