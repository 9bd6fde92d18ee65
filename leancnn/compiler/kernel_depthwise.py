"""A depthwise convolution, channels side by side."""

from dataclasses import dataclass
from itertools import groupby

from leancnn.compiler.blocked import (
    BlockedKernel,
    block_loops,
    blocked_kernel,
    finish,
    head_rows,
)
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv
from leancnn.compiler.kernel import Kernel, Plan
from leancnn.compiler.values import WIDEST

COLUMNS = 8  # of a tile


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseKernel(BlockedKernel):
    """Each vector of channels by itself, row by row; taps outside the image are left out."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        op = kernel.op
        return isinstance(op, Conv) and op.groups == kernel.channels == len(kernel.x.planes)

    def cost(self) -> float:
        rows, columns = self.op.weight.shape[2:]
        each: float = 2.0 + (0.6 * columns + 1.0) * rows
        return self.vectors * self.pixels * each + self.steps_cost()

    def words(self, plan: Plan) -> tuple[str, str]:
        what = f"depthwise convolution {'x'.join(map(str, self.op.weight.shape[2:]))}"
        if self.op.stride != (1, 1):
            what += f", stride {self.op.stride[0]}"
        return what, f"tile: {COLUMNS} columns at most"

    def body(self, file: File, plan: Plan) -> str:
        return _depthwise(file, self)


def _depthwise(file: File, kernel: Kernel) -> str:
    """Each vector of channels by itself, row by row; taps outside the image are left out."""
    op = kernel.op
    assert op is not None
    rows = op.weight.shape[2]
    top, left = op.padding[:2]
    x, plane, head = kernel.x, kernel.out.stride, head_rows(kernel)
    taps = op.weight[0].size
    text, calls = [], []
    for name, start, count, repeats in _column_tiles(kernel):
        text.append(_depthwise_tile(file, kernel, f"@_from{name}", start, count))
        column = (start * op.stride[1] - left) * WIDEST
        call = f"@_from{name}(s, t, w + l, x + {column}, at + {start * WIDEST}, c, from, to);"
        if repeats > 1:
            calls.append(f"            for (int i = 0; i < {repeats}; i++)")
            step = f" + i * {count * op.stride[1] * WIDEST}"
            call = call.replace(f"x + {column}", f"x + {column}{step}").replace(
                f"at + {start * WIDEST}", f"at + {start * WIDEST} + i * {count * WIDEST}"
            )
            calls.append(f"                {call}")
        else:
            calls.append(f"            {call}")
    reach = op.dilation[0]
    above = f"{top} - r * {op.stride[0]}"
    below = f"{x.height + top} - r * {op.stride[0]}"
    if reach > 1:
        above, below = f"({above} + {reach - 1}) / {reach}", f"({below} + {reach - 1}) / {reach}"
    line = x.width * WIDEST
    lines = [
        *block_loops(-(-kernel.channels // WIDEST), (head + taps) * WIDEST),
        f"        const float *in = s + t[0] + b * {kernel.x.planes[0][0].stride} + l;",
        f"        const int c = b * {WIDEST} + l;",
        f"        for (int r = 0; r < {kernel.height}; r++) {{",
        f"            const float *x = in + (r * {op.stride[0]} - {top}) * {line};",
        f"            const int above = {above}, below = {below};",
        "            const int from = above > 0 ? above : 0, to = "
        f"below < {rows} ? below : {rows};",
        f"            const int at = b * {plane} + l + r * {kernel.width * WIDEST};",
        *calls,
        "        }",
        "    }",
        "}",
    ]
    return "\n".join([*text, *lines]).replace("+ -", "- ")


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


def _depthwise_tile(file: File, kernel: Kernel, name: str, start: int, count: int) -> str:
    op = kernel.op
    assert op is not None
    columns, head = op.weight.shape[3], head_rows(kernel)
    products = _columns(kernel, start, count)
    sums = ", ".join(["a0_0 = load(w)", *(f"a{o}_0 = a0_0" for o in range(1, count))])
    used = sorted({j for _, _, j in products})
    weights = ", ".join(f"w{j} = load(k + {j * WIDEST})" for j in used)
    lines = [
        f"static inline void {name}(float *s, const int32_t *t, const float *w, const float *x, "
        "int at, int c, int from, int to)\n{",
        f"    vf {sums};",
        "    for (int i = from; i < to; i++) {",
        f"        const float *r = x + i * {op.dilation[0] * kernel.x.width * WIDEST};",
        f"        const float *k = w + {head * WIDEST} + i * {columns * WIDEST};",
        f"        const vf {weights};" if used else "        (void)r, (void)k;",
    ]
    for column, group in groupby(products, key=lambda product: product[0]):
        adds = " ".join(f"a{o}_0 += z * w{j};" for _, o, j in group)
        lines.append(f"        {{ const vf z = load(r + {column * WIDEST}); {adds} }}")
    lines.append("    }")
    steps = finish(kernel, 1, WIDEST, f"at + o * {WIDEST}", "c")
    steps = ["const float *u = w;"] * bool(affines(kernel.steps)) + steps
    file.tiles.add(("EACH", count, 1))
    lines += finished(steps, f"EACH_{count}X1", (count, 1), is_long(kernel.steps))
    if not any("+ c)" in step for step in steps):
        lines.append("    (void)c;")
    return "\n".join([*lines, "}"])
