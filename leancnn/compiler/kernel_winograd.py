"""C for 3×3 convolutions by Winograd's short filters, sixteen channels of a pixel side by side.

A band of rows of tiles at a time: its columns are taken to points, then for each of these its rows,
so that points and products of one stay in the first cache; products come back along the rows, and
when all are there up the columns. The scratch holds a row of zeros, rows with zero columns at their
ends, points, products, and rows of results. The weights are bias, scales and shifts of the
epilogue, then for each point of the columns, block of outputs, point of the rows and input a row.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import (
    AHEAD,
    BlockedKernel,
    blocked_kernel,
    finish,
    head_rows,
    tile_functions,
    tile_loops,
)
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv, Floats, floats
from leancnn.compiler.kernel import Kernel, shape_key
from leancnn.compiler.values import Value
from leancnn.compiler.winograd import Winograd, in_vectors, is_winograd, transformed, ways

FILTERS = {
    2: """/* F(2, 3): four pixels to points, points to two results, of row or column i */
#define INTO_2(X, Y, i) { \\
    const vf x0 = X(i, 0), x1 = X(i, 1), x2 = X(i, 2), x3 = X(i, 3); \\
    Y(i, 0, x0 - x2) Y(i, 1, x1 + x2) Y(i, 2, x2 - x1) Y(i, 3, x3 - x1) }
#define BACK_2(X, Y, i) { \\
    const vf x0 = X(i, 0), x1 = X(i, 1), x2 = X(i, 2), x3 = X(i, 3); \\
    Y(i, 0, x0 + x1 + x2) Y(i, 1, x1 - x2 + x3) }
""",
    4: """/* F(4, 3): six pixels to points (0, roots of 2 and 1/2, infinity), and back to four */
#define HALF 0.707106781f
#define ROOT 1.41421356f
#define INTO_4(X, Y, i) { \\
    const vf x0 = X(i, 0), x1 = X(i, 1), x2 = X(i, 2), x3 = X(i, 3), x4 = X(i, 4), x5 = X(i, 5); \\
    const vf a = x4 - 2.0f * x2, b = HALF * x3 - ROOT * x1; \\
    const vf c = x4 - 0.5f * x2, d = ROOT * x3 - HALF * x1; \\
    Y(i, 0, x0 + x4 - 2.5f * x2) Y(i, 1, a + b) Y(i, 2, a - b) \\
    Y(i, 3, c + d) Y(i, 4, c - d) Y(i, 5, x1 + x5 - 2.5f * x3) }
#define BACK_4(X, Y, i) { \\
    const vf x0 = X(i, 0), x1 = X(i, 1), x2 = X(i, 2), x3 = X(i, 3), x4 = X(i, 4), x5 = X(i, 5); \\
    const vf a = x1 + x2, b = x1 - x2, c = x3 + x4, d = x3 - x4; \\
    Y(i, 0, x0 + a + c) Y(i, 1, HALF * b + ROOT * d) Y(i, 2, 0.5f * a + 2.0f * c) \\
    Y(i, 3, x5 + 0.5f * HALF * b + 2.0f * ROOT * d) }
""",
}


FUNCTION = """
$parts
LAYER @(float *s, const int32_t *t, const float *w)
{
    float *const zero = s + t[0], *const rows = zero + $zeros;
    float *const points = rows + $rows, *const products = points + $points;
    float *const results = products + $products;
    memset(zero, 0, $cleared);
    for (int r = 0; r < $bands; r += $step) {
        @_down(s, t, zero, rows, r);
        const float *k = w + $head;
        for (int p = 0; p < $edge; p++) {
            @_along(rows + p * $line, points);
            for (int b = 0; b < $blocks; b++, k += $weights)
                for (int l = 0; l < 16; l += LANES) {
                    @_multiply(points, k + l, products + l);
                    @_back(products + l, results + (b * $results + p) * $line + l);
                }
        }
        @_up(s, t, w, results, r);
    }
}
"""
DOWN = """
static inline void @_down(const float *s, const int32_t *t, const float *zero, float *rows, \
int first)
{
    for (int c = 0; c < $inputs; c++)
    for (int r = 0; r < $rows; r++, rows += $band) {
        const float *x = s + t[1 + c], *from[$edge];
        for (int j = 0; j < $edge; j++) {
            const int y = (first + r) * $size + j - $top;
            from[j] = y >= 0 && y < $height ? x + y * $pitch : zero;
        }
#define X(i, j) load(from[j] + i)
#define Y(i, j, v) store(rows + j * $line + $left + i, v);
        for (int i = 0; i < $width; i += LANES) INTO_$size(X, Y, i)
#undef X
#undef Y
    }
}
"""
"""Columns of a band of pixels to points; rows outside the image are zeros."""
ALONG = """
static inline void @_along(const float *rows, float *points)
{
    for (int r = 0; r < $rows; r++, rows += $band)
        for (int n = 0; n < $across; n++, points += 16)
            for (int l = 0; l < 16; l += LANES) {
#define X(i, j) load(rows + (n * $size + j) * 16 + i)
#define Y(i, j, v) store(points + j * $input_stride + i, v);
                INTO_$size(X, Y, l)
#undef X
#undef Y
            }
}
"""
"""One of those points, along the rows, to as many points again."""
MULTIPLY = """
static inline void @_multiply(const float *x, const float *w, float *y)
{
    for (int p = 0; p < $edge; p++, x += $input_stride, w += $weights, y += $output_stride) {
        $loops
    }
}
"""
PRODUCT = """
static inline void @_x$size(const float *x, const float *w, float *y)
{
    $zero
    $whole
    $rest
#define FINISH(o, v, a) store(y + (v * $tiles + o) * 16, a);
    $each(FINISH)
#undef FINISH
}
"""
VECTORS = """
for (int c = 0; c < $full; c++, x += $point)
    for (int i = 0; i < 16; i++, w += $wide) $mix
"""
REST = "for (int i = 0; i < $rest; i++, w += $wide) $mix"
MIX = "{ $fetch(w + $ahead) $mix(x + i, w) }"
BACK = """
static inline void @_back(const float *x, float *rows)
{
    for (int r = 0; r < $rows; r++, rows += $band)
        for (int n = 0; n < $across; n++, x += 16) {
#define X(i, j) load(x + j * $output_stride)
#define Y(i, j, v) store(rows + (n * $size + j) * 16, v);
            BACK_$size(X, Y, 0)
#undef X
#undef Y
        }
}
"""
"""Products of one point of the columns back along the rows."""
UP = """
static inline void @_up(float *s, const int32_t *t, const float *w, const float *rows, int first)
{
    for (int b = 0; b < $vectors; b++)
    for (int r = 0; r < $rows; r++, rows += $band)
    for (int i = 0; i < $row; i += LANES) {
        const int at = b * $plane + (first + r) * $rows_down + i;
        const int c = b * 16 + i % 16;
        const float *u = w + c;
        $high
        vf $names;
#define X(i, j) load(rows + j * $line + i)
#define Y(i, j, v) a##j##_0 = v;
        BACK_$size(X, Y, i)
#undef X
#undef Y
    $finish
    }
}
"""


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class WinogradKernel(BlockedKernel):
    """A dense 3×3 convolution of stride 1 in fewer multiplications."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        return is_winograd(kernel)

    @property
    def role(self) -> str:
        return "winograd"

    def readable(self, value: Value) -> bool:
        """It finds each vector of its input."""
        return in_vectors(value) if value is self.x else value.whole is not None

    def cost(self) -> float:
        return ways(self)[0][0] + self.epilogue_cost()

    @property
    def tile_key(self) -> str:
        return shape_key(self, "blocked")

    def tiles(self, count: int) -> list[tuple[int, int]]:
        """Results of a tile in each direction and vectors of a product."""
        return [(way.size, way.tile.vectors) for _, way in ways(self)[:count]]

    def plan(self, tile: tuple[int, int] | None = None) -> Winograd:
        """The best by the cost model, of those of a given size and width of the product."""
        found = [way for _, way in ways(self)]
        way = next((w for w in found if (w.size, w.tile.vectors) == tile), found[0])
        return replace(way, scratch=sum(way.parts(self.vectors)) + WIDEST)

    def words(self, plan: Winograd) -> tuple[str, str]:
        tile = plan.tile
        return f"convolution 3x3 by F({plan.size}, 3)", (
            f"{plan.tiles} tiles at a time, products: {tile.pixels} tiles x {tile.vectors} vectors"
        )

    def inputs(self, plan: Winograd) -> list[int]:
        return [plan.place, *self.x.places()[::WIDEST]]

    def weights(self, plan: Winograd) -> Floats:
        return _weights(self, plan)

    def body(self, file: File, plan: Winograd) -> str:
        if FILTERS[plan.size] not in file.functions:
            file.functions.append(FILTERS[plan.size])
        zeros, rows, points, products, _ = plan.parts(self.vectors)
        wide = plan.tile.vectors * WIDEST
        blocks = -(-self.channels // wide)
        return fill(
            FUNCTION,
            parts="\n".join(self._parts(file, plan)),
            zeros=zeros,
            rows=rows,
            points=points,
            products=products,
            cleared=4 * (zeros + rows),
            bands=-(-self.height // plan.size),
            step=plan.rows,
            head=head_rows(self) * blocks * wide,
            edge=plan.edge,
            line=plan.columns * WIDEST,
            blocks=blocks,
            weights=plan.edge * len(self.x.planes) * wide,
            results=plan.tile.vectors * plan.rows * plan.edge,
        )

    def _parts(self, file: File, plan: Winograd) -> list[str]:
        """The functions of its walk, in the order in which they are called."""
        x, tile, inputs = self.x, plan.tile, len(self.x.planes)
        top, left = self.op.padding[:2]
        sizes = {"size": plan.size, "edge": plan.edge, "line": plan.columns * WIDEST}
        step = {**sizes, "rows": plan.rows, "band": plan.edge * plan.columns * WIDEST}
        down = {"inputs": plan.inputs, "top": top, "left": left * WIDEST, "height": x.height}
        multiply = fill(
            MULTIPLY,
            edge=plan.edge,
            input_stride=plan.input_stride,
            weights=inputs * tile.vectors * WIDEST,
            output_stride=plan.output_stride,
            loops=tile_loops(tile, plan.tiles, f"(x + i * {WIDEST}, w, y + i * {WIDEST});"),
        )
        across = {"across": plan.across}
        along = {"rows": plan.inputs * plan.rows, "input_stride": plan.input_stride, **across}
        back = {"rows": tile.vectors * plan.rows, "output_stride": plan.output_stride, **across}
        return [
            fill(DOWN, **step, **down, pitch=x.pitch, width=x.width * WIDEST),
            fill(ALONG, **{**step, **along}),
            tile_functions(tile, plan.tiles, partial(self._product, file, plan)),
            multiply,
            fill(BACK, **{**step, **back}),
            self._up(file, plan, step),
        ]

    def _product(self, file: File, plan: Winograd, size: int) -> str:
        """A register tile of the products: tiles × inputs by inputs × a block of outputs."""
        vectors = plan.tile.vectors
        full, rest = divmod(len(self.x.planes), WIDEST)
        mix = fill(
            MIX,
            fetch=file.tile("FETCH", 1, vectors),
            mix=file.tile("MIX", size, vectors),
            ahead=AHEAD,
        )
        sizes = {"wide": vectors * WIDEST, "tiles": plan.tiles, "mix": mix}
        return fill(
            PRODUCT,
            size=size,
            zero=file.tile("ZERO", size, vectors),
            whole=fill(VECTORS, full=full, point=plan.tiles * WIDEST, **sizes) if full else "",
            rest=fill(REST, rest=rest, **sizes) if rest else "",
            each=file.tile("EACH", size, vectors),
            tiles=plan.tiles,
        )

    def _up(self, file: File, plan: Winograd, sizes: dict[str, int]) -> str:
        """Columns of points back to pixels, and the epilogue on each of them."""
        size, row = plan.size, self.width * WIDEST
        wide = -(-self.vectors // plan.tile.vectors) * plan.tile.vectors * WIDEST
        epilogue = finish(self, len(self.inputs(plan)), wide, f"at + o * {row}", "c")
        epilogue = ["y = y + load(u);", *epilogue]
        uneven = self.height % size != 0
        if uneven:
            epilogue = ["if (o < high) {", *epilogue, "}"]
        each = file.tile("EACH", size, 1)
        return fill(
            UP,
            **sizes,
            vectors=self.vectors,
            row=row,
            plane=self.out.stride,
            rows_down=size * row,
            high=f"const int high = {self.height} - (first + r) * {size};" if uneven else "",
            names=", ".join(f"a{o}_0" for o in range(size)),
            finish=finished(epilogue, each, (size, 1), is_long(self.epilogue)),
        )


def _weights(kernel: Kernel, way: Winograd) -> Floats:
    """For each block of vectors: a row a head, then for each point a row for each input."""
    op = kernel.op
    assert isinstance(op, Conv)
    heads = [op.bias]
    for epilogue_op in affines(kernel.epilogue):
        heads += [epilogue_op.scale, epilogue_op.shift]
    points = transformed(op, way.size)
    matrix = np.concatenate([np.stack(heads), points.reshape(-1, kernel.channels)])
    wide = way.tile.vectors * WIDEST
    matrix = np.pad(matrix, ((0, 0), (0, -kernel.channels % wide)))
    head = floats(matrix[: len(heads)])
    depth = way.edge * len(kernel.x.planes)
    body = matrix[len(heads) :].reshape(way.edge, depth, -1, wide).transpose(0, 2, 1, 3)
    return floats(np.concatenate([head.ravel(), body.ravel()]))
