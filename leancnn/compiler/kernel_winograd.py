"""C for 3×3 convolutions by Winograd's short filters, sixteen channels of a pixel abreast.

A band of rows of tiles at a time: its columns are taken to points, then for each of these its rows,
so that points and products of one stay in the first cache; products come back along the rows, and
when all are there up the columns. The scratch holds a row of zeros, rows with zero columns at their
ends, points, products, and rows of results. The weights are bias, scales and shifts of the steps,
then for each point of the columns, block of outputs, point of the rows and input a row.
"""

from dataclasses import dataclass, replace

import numpy as np

from leancnn.compiler.blocked import (
    AHEAD,
    BlockedKernel,
    blocked_kernel,
    finish,
    head_rows,
    tile_functions,
    tile_loops,
)
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv, Floats, floats
from leancnn.compiler.kernel import Kernel, shape_key
from leancnn.compiler.values import WIDEST, Value
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


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class WinogradKernel(BlockedKernel):
    """A dense 3×3 convolution of stride 1 in fewer multiplications."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        return is_winograd(kernel)

    def readable(self, value: Value) -> bool:
        """It finds each vector of its input."""
        return in_vectors(value) if value is self.x else value.whole is not None

    def cost(self) -> float:
        return ways(self)[0][0] + self.steps_cost()

    @property
    def tile_key(self) -> str:
        return shape_key(self, "abreast")

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
        return _function(file, self, plan, len(self.inputs(plan)))


def _weights(kernel: Kernel, way: Winograd) -> Floats:
    """For each block of vectors: a row a head, then for each point a row for each input."""
    op = kernel.op
    assert isinstance(op, Conv)
    heads = [op.bias]
    for step in affines(kernel.steps):
        heads += [step.scale, step.shift]
    points = transformed(op, way.size)
    matrix = np.concatenate([np.stack(heads), points.reshape(-1, kernel.channels)])
    wide = way.tile.vectors * WIDEST
    matrix = np.pad(matrix, ((0, 0), (0, -kernel.channels % wide)))
    head = floats(matrix[: len(heads)])
    depth = way.edge * len(kernel.x.planes)
    body = matrix[len(heads) :].reshape(way.edge, depth, -1, wide).transpose(0, 2, 1, 3)
    return floats(np.concatenate([head.ravel(), body.ravel()]))


def _function(file: File, kernel: Kernel, way: Winograd, first: int) -> str:
    wide, inputs = way.tile.vectors * WIDEST, len(kernel.x.planes)
    blocks, vectors = -(-kernel.channels // wide), -(-kernel.channels // WIDEST)
    head = head_rows(kernel) * blocks * wide
    zeros, rows, points, products, _ = way.parts(vectors)
    line = way.columns * WIDEST
    to = f"(b * {way.tile.vectors * way.rows * way.edge} + p) * {line} + l"
    lines = [
        "LAYER @(float *s, const int32_t *t, const float *w)\n{",
        f"    float *const zero = s + t[0], *const rows = zero + {zeros};",
        f"    float *const points = rows + {rows}, *const products = points + {points};",
        f"    float *const results = products + {products};",
        f"    memset(zero, 0, {4 * (zeros + rows)});",
        f"    for (int r = 0; r < {-(-kernel.height // way.size)}; r += {way.rows}) {{",
        "        @_down(s, t, zero, rows, r);",
        f"        const float *k = w + {head};",
        f"        for (int p = 0; p < {way.edge}; p++) {{",
        f"            @_along(rows + p * {line}, points);",
        f"            for (int b = 0; b < {blocks}; b++, k += {way.edge * inputs * wide})",
        f"                for (int l = 0; l < {WIDEST}; l += LANES) {{",
        "                    @_multiply(points, k + l, products + l);",
        f"                    @_back(products + l, results + {to});",
        "                }",
        "        }",
        "        @_up(s, t, w, results, r);",
        "    }",
        "}",
    ]
    parts = [_down(kernel, way), _along(way), *_products(file, kernel, way), _back(way)]
    return "\n".join([*parts, *_up(file, kernel, way, first), *lines])


def _down(kernel: Kernel, way: Winograd) -> str:
    """Columns of a band of pixels to points; rows outside the image are zeros."""
    x, edge, columns = kernel.x, way.edge, way.columns * WIDEST
    assert isinstance(kernel.op, Conv)
    top, left = kernel.op.padding[:2]
    lines = [
        "static inline void @_down(const float *s, const int32_t *t, const float *zero, "
        "float *rows, int first)\n{",
        f"    for (int c = 0; c < {way.inputs}; c++)",
        f"    for (int r = 0; r < {way.rows}; r++, rows += {edge * columns}) {{",
        f"        const float *x = s + t[1 + c], *from[{edge}];",
        f"        for (int j = 0; j < {edge}; j++) {{",
        f"            const int y = (first + r) * {way.size} + j - {top};",
        f"            from[j] = y >= 0 && y < {x.height} ? x + y * {x.pitch} : zero;",
        "        }",
        "#define X(i, j) load(from[j] + i)",
        f"#define Y(i, j, v) store(rows + j * {columns} + {left * WIDEST} + i, v);",
        f"        for (int i = 0; i < {x.width * WIDEST}; i += LANES) INTO_{way.size}(X, Y, i)",
        "#undef X\n#undef Y",
        "    }",
        "}",
    ]
    return "\n".join(lines)


def _along(way: Winograd) -> str:
    """One of those points, along the rows, to as many points again."""
    edge, columns = way.edge, way.columns * WIDEST
    lines = [
        "static inline void @_along(const float *rows, float *points)\n{",
        f"    for (int r = 0; r < {way.inputs * way.rows}; r++, rows += {edge * columns})",
        f"        for (int n = 0; n < {way.across}; n++, points += {WIDEST})",
        f"            for (int l = 0; l < {WIDEST}; l += LANES) {{",
        f"#define X(i, j) load(rows + (n * {way.size} + j) * {WIDEST} + i)",
        f"#define Y(i, j, v) store(points + j * {way.apart} + i, v);",
        f"                INTO_{way.size}(X, Y, l)",
        "#undef X\n#undef Y",
        "            }",
        "}",
    ]
    return "\n".join(lines)


def _products(file: File, kernel: Kernel, way: Winograd) -> list[str]:
    """At each point, tiles × inputs by inputs × a block of outputs."""
    tile, inputs = way.tile, len(kernel.x.planes)
    wide = tile.vectors * WIDEST
    lines = tile_functions(tile, way.tiles, lambda size: _product(file, way, size, inputs))
    lines += [
        "static inline void @_multiply(const float *x, const float *w, float *y)\n{",
        f"    for (int p = 0; p < {way.edge}; p++, x += {way.apart}, w += {inputs * wide}, "
        f"y += {way.results}) {{",
        *tile_loops(tile, way.tiles, f"(x + i * {WIDEST}, w, y + i * {WIDEST});"),
        "    }",
        "}",
    ]
    return lines


def _product(file: File, way: Winograd, size: int, inputs: int) -> str:
    """A register tile of the products."""
    vectors = way.tile.vectors
    name = f"{size}X{vectors}"
    file.tiles |= {(word, size, vectors) for word in ("ZERO", "MIX", "EACH")}
    file.tiles.add(("FETCH", 1, vectors))
    mix = f"{{ FETCH_1X{vectors}(w + {AHEAD}) MIX_{name}(x + i, w) }}"
    full, rest = divmod(inputs, WIDEST)
    step = f"i++, w += {vectors * WIDEST}"
    lines = [
        f"static inline void @_x{size}(const float *x, const float *w, float *y)\n{{",
        f"    ZERO_{name}",
    ]
    if full:
        lines += [
            f"    for (int c = 0; c < {full}; c++, x += {way.tiles * WIDEST})",
            f"        for (int i = 0; i < {WIDEST}; {step}) {mix}",
        ]
    if rest:
        lines.append(f"    for (int i = 0; i < {rest}; {step}) {mix}")
    lines += [
        f"#define FINISH(o, v, a) store(y + (v * {way.tiles} + o) * {WIDEST}, a);",
        f"    EACH_{name}(FINISH)",
        "#undef FINISH",
        "}",
    ]
    return "\n".join(lines)


def _back(way: Winograd) -> str:
    """Products of one point of the columns back along the rows."""
    edge, columns = way.edge, way.columns * WIDEST
    lines = [
        "static inline void @_back(const float *x, float *rows)\n{",
        f"    for (int r = 0; r < {way.tile.vectors * way.rows}; r++, rows += {edge * columns})",
        f"        for (int n = 0; n < {way.across}; n++, x += {WIDEST}) {{",
        f"#define X(i, j) load(x + j * {way.results})",
        f"#define Y(i, j, v) store(rows + (n * {way.size} + j) * {WIDEST}, v);",
        f"            BACK_{way.size}(X, Y, 0)",
        "#undef X\n#undef Y",
        "        }",
        "}",
    ]
    return "\n".join(lines)


def _up(file: File, kernel: Kernel, way: Winograd, first: int) -> list[str]:
    """Columns of points back to pixels, and the steps on each of them."""
    size, edge, columns = way.size, way.edge, way.columns * WIDEST
    vectors, row = -(-kernel.channels // WIDEST), kernel.width * WIDEST
    wide = -(-vectors // way.tile.vectors) * way.tile.vectors * WIDEST
    file.tiles.add(("EACH", size, 1))
    steps = finish(kernel, first, wide, f"at + o * {row}", "c")
    steps = ["y = y + load(u);", *steps]
    if kernel.height % size:
        steps = ["if (o < high) {", *steps, "}"]
    names = ", ".join(f"a{o}_0" for o in range(size))
    lines = [
        "static inline void @_up(float *s, const int32_t *t, const float *w, const float *rows, "
        "int first)\n{",
        f"    for (int b = 0; b < {vectors}; b++)",
        f"    for (int r = 0; r < {way.rows}; r++, rows += {edge * columns})",
        f"    for (int i = 0; i < {row}; i += LANES) {{",
        f"        const int at = b * {kernel.out.stride} + (first + r) * {size * row} + i;",
        f"        const int c = b * {WIDEST} + i % {WIDEST};",
        "        const float *u = w + c;",
    ]
    if kernel.height % size:
        lines.append(f"        const int high = {kernel.height} - (first + r) * {size};")
    lines += [
        f"        vf {names};",
        f"#define X(i, j) load(rows + j * {columns} + i)",
        "#define Y(i, j, v) a##j##_0 = v;",
        f"        BACK_{size}(X, Y, i)",
        "#undef X\n#undef Y",
        *finished(steps, f"EACH_{size}X1", (size, 1), is_long(kernel.steps)),
        "    }",
    ]
    return [*lines, "}"]
