"""C for kernels with sixteen channels of a pixel abreast in the lanes.

One function a layer shape, as for lines. The table `t` holds the place of each input channel (of a
1×1 convolution) or of the input (of the others), then of what the steps read and write, in their
order. The weights of a block of channels stand together: bias, scales and shifts of the steps, then
a row for each number that is multiplied. Narrow vectors go over the sixteen lanes `l` in parts.
"""

from collections.abc import Callable
from itertools import groupby

import numpy as np

from leancnn.compiler.blocked import is_pointwise
from leancnn.compiler.c_text import File, combined, curve, described, finished, is_long
from leancnn.compiler.graph import Activation, Affine, Conv, Floats, floats
from leancnn.compiler.loops import affines
from leancnn.compiler.program import WIDEST, Binary, BlockedKernel, Store, Value
from leancnn.compiler.winograd import Tile

AHEAD = 512  # floats between the weights that are multiplied and those that are fetched
COLUMNS = 8  # of a tile of a depthwise convolution


def emit_blocked(file: File, kernel: BlockedKernel, tile: Tile | None) -> None:
    """Write an abreast kernel's function, table and weights, and its call."""
    if is_pointwise(kernel):
        assert tile is not None
        body, words = _pointwise(file, kernel, tile), f"tile: {tile.pixels} pixels x {tile.vectors}"
        words += " vectors"
        what, vectors = "convolution 1x1", tile.vectors
    elif isinstance(kernel.op, Conv):
        body, words, vectors = _depthwise(file, kernel), f"tile: {COLUMNS} columns at most", 1
        what = f"depthwise convolution {'x'.join(map(str, kernel.op.weight.shape[2:]))}"
        if kernel.op.stride != (1, 1):
            what += f", stride {kernel.op.stride[0]}"
    else:
        body, words, what, vectors = _each_pixel(kernel), "tile: 1 pixel", "element by element", 1
    x = kernel.x
    comment = (
        f"{kernel.name}: {what}, {len(x.planes)}x{x.height}x{x.width} -> "
        f"{kernel.channels}x{kernel.height}x{kernel.width}, channels abreast\n"
        f"   then {described(kernel.steps)}; {words}"
    )
    name = file.function(kernel.name, comment, body)
    table = file.integers(f"{kernel.name}_places", _table(kernel))
    weights = _weights(kernel, vectors)
    numbers = file.floats(kernel.name, weights) if weights.size else "NULL"
    file.calls.append(f"{name}(s, {table}, {numbers});")


def _table(kernel: BlockedKernel) -> list[int]:
    places = kernel.x.places()
    return [*(places if is_pointwise(kernel) else places[:1]), *step_places(kernel)]


def step_places(kernel: BlockedKernel) -> list[int]:
    """Where the steps of a kernel read and write, in their order."""
    places = []
    for step in kernel.steps:
        if isinstance(step, Store):
            places.append(step.buffer.origin)
        elif isinstance(step, Binary) and step.other is not None:
            places.append(step.other.places()[0])
    return places


def _weights(kernel: BlockedKernel, vectors: int) -> Floats:
    """For each block of so many vectors: a row a head, then a row for each input or tap."""
    rows = [] if kernel.op is None else [kernel.op.bias]
    for step in affines(kernel):
        rows += [step.scale, step.shift]
    if kernel.op is not None:
        rows += list(kernel.op.weight.reshape(kernel.channels, -1).T)
    if not rows:
        return floats([])
    wide = vectors * WIDEST
    matrix = np.pad(np.stack(rows), ((0, 0), (0, -kernel.channels % wide)))
    return floats(matrix.reshape(len(rows), -1, wide).transpose(1, 0, 2))


def plane_stride(kernel: BlockedKernel) -> int:
    """Floats from sixteen channels of the result to the next."""
    return next(step.buffer.stride for step in kernel.steps if isinstance(step, Store))


def head_rows(kernel: BlockedKernel) -> int:
    """Rows of numbers before the weights."""
    return (kernel.op is not None) + 2 * len(affines(kernel))


def finish(kernel: BlockedKernel, first: int, row: int, place: str, channel: str) -> list[str]:
    """The steps on a vector y as C statements.

    `first`: entries of the table before the steps'; `row`: floats of a row of weights; `place`: of
    y in its buffer; `channel`: its first channel; w: its part of the head's first row.
    """
    lines, head = [], int(kernel.op is not None)
    for step in kernel.steps:
        if isinstance(step, Activation):
            lines.append(f"y = {curve(step, 'y')};")
        elif isinstance(step, Affine):
            scale, shift = f"load(u + {head * row})", f"load(u + {(head + 1) * row})"
            lines.append(f"y = y * {scale} + {shift};" if step.scale.any() else f"y = {shift};")
            head += 2
        elif isinstance(step, Store):
            lines.append(f"store(s + t[{first}] + {place}, y);")
            first += 1
        else:
            other = "y"
            if step.other is not None:
                other = _operand(step.other, kernel, f"t[{first}]", place, channel)
                first += 1
            lines.append(f"y = {combined(step.how, 'y', other, step.flipped)};")
    return lines


def _operand(other: Value, kernel: BlockedKernel, origin: str, place: str, channel: str) -> str:
    if (other.height, other.width) == (kernel.height, kernel.width):
        return f"load(s + {origin} + {place})"
    return f"splat(s[{origin}])" if len(other.planes) == 1 else f"load(s + {origin} + {channel})"


def _loops(blocks: int, weights: int) -> list[str]:
    """The start of a function that goes over blocks of channels and their lanes."""
    step = f", w += {weights}" if weights else ""
    return [
        "LAYER @(float *s, const int32_t *t, const float *w)\n{",
        f"    for (int b = 0; b < {blocks}; b++{step})",
        f"    for (int l = 0; l < {WIDEST}; l += LANES) {{",
    ]


def _pointwise(file: File, kernel: BlockedKernel, tile: Tile) -> str:
    """A matrix product: tiles of pixels × vectors of channels, along all inputs."""
    inputs, wide = len(kernel.x.planes), tile.vectors * WIDEST
    blocks = -(-kernel.channels // wide)
    pixels, plane, head = kernel.height * kernel.width, plane_stride(kernel), head_rows(kernel)
    sizes = (inputs, head, plane)
    text = tile_functions(
        tile, pixels, lambda size: _pointwise_tile(file, kernel, size, tile.vectors, sizes)
    )
    lines = _loops(blocks, (head + inputs) * wide)
    lines.append(f"        const int at = b * {tile.vectors * plane} + l, c = b * {wide} + l;")
    lines += tile_loops(tile, pixels, f"(s, t, w + l, i * {WIDEST}, at + i * {WIDEST}, c);")
    return "\n".join([*text, *lines, "    }", "}"])


def tile_functions(tile: Tile, rows: int, write: Callable[[int], str]) -> list[str]:
    """What `write` makes of each height of tile that `rows` take, where the registers suffice."""
    many = {tile.pixels, rows % tile.pixels} - {0}
    few = {tile.few, rows % tile.few} - {0}
    text = []
    for size in sorted(many | few, reverse=True):
        when = "" if size in many & few else f"REGISTERS {'>=' if size in many else '<'} 32"
        text += [f"#if {when}"] * bool(when)
        text.append(write(size))
        text += ["#endif"] * bool(when)
    return text


def tile_loops(tile: Tile, rows: int, call: str) -> list[str]:
    """Whole tiles from row i on, then the rest; `call` is what stands behind a function's name."""
    lines = ["        int i = 0;"]
    if tile.few != tile.pixels:
        lines.append("#if REGISTERS >= 32")
    for size in dict.fromkeys((tile.pixels, tile.few)):
        if size != tile.pixels:
            lines.append("#else")
        lines.append(f"        for (; i + {size} <= {rows}; i += {size}) @_x{size}{call}")
        if rows % size:
            lines.append(f"        @_x{rows % size}{call}")
    if tile.few != tile.pixels:
        lines.append("#endif")
    return lines


def _pointwise_tile(
    file: File, kernel: BlockedKernel, size: int, vectors: int, sizes: tuple[int, int, int]
) -> str:
    inputs, head, plane = sizes
    wide, name = vectors * WIDEST, f"{size}X{vectors}"
    file.tiles |= {("SPREAD", size, vectors), ("MIX", size, vectors), ("EACH", size, vectors)}
    file.tiles.add(("FETCH", 1, vectors))
    steps = finish(kernel, inputs, wide, f"at + v * {plane} + o * {WIDEST}", f"c + v * {WIDEST}")
    if affines(kernel):
        steps.insert(0, f"const float *u = w + v * {WIDEST};")
    lines = [
        f"static inline void @_x{size}(float *s, const int32_t *t, const float *w, int p, int at, "
        "int c)\n{",
        f"    SPREAD_{name}(w)",
        f"    const float *k = w + {head * wide};",
        f"    for (int i = 0; i < {inputs}; i++, k += {wide}) {{",
        f"        FETCH_1X{vectors}(k + {AHEAD})",
        f"        MIX_{name}(s + t[i] + p, k)",
        "    }",
        *finished(steps, f"EACH_{name}", (size, vectors), is_long(kernel.steps)),
    ]
    if not any("c + v" in step for step in steps):
        lines.append("    (void)c;")
    return "\n".join([*lines, "}"])


def _depthwise(file: File, kernel: BlockedKernel) -> str:
    """Each vector of channels by itself, row by row; taps outside the image are left out."""
    op = kernel.op
    assert op is not None
    rows = op.weight.shape[2]
    top, left = op.padding[:2]
    x, plane, head = kernel.x, plane_stride(kernel), head_rows(kernel)
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
        *_loops(-(-kernel.channels // WIDEST), (head + taps) * WIDEST),
        f"        const float *in = s + t[0] + b * {_input_plane(kernel)} + l;",
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


def _column_tiles(kernel: BlockedKernel) -> list[tuple[int, int, int, int]]:
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


def _columns(kernel: BlockedKernel, start: int, count: int) -> tuple[tuple[int, int, int], ...]:
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


def _depthwise_tile(file: File, kernel: BlockedKernel, name: str, start: int, count: int) -> str:
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
    steps = ["const float *u = w;"] * bool(affines(kernel)) + steps
    file.tiles.add(("EACH", count, 1))
    lines += finished(steps, f"EACH_{count}X1", (count, 1), is_long(kernel.steps))
    if not any("+ c)" in step for step in steps):
        lines.append("    (void)c;")
    return "\n".join([*lines, "}"])


def _input_plane(kernel: BlockedKernel) -> int:
    return kernel.x.planes[0][0].stride


def _each_pixel(kernel: BlockedKernel) -> str:
    """Steps on each pixel of each sixteen channels."""
    head, plane = head_rows(kernel), plane_stride(kernel)
    steps = finish(kernel, 1, WIDEST, "at + p", "c")
    lines = [
        *_loops(-(-kernel.channels // WIDEST), head * WIDEST),
        f"        const int at = b * {plane} + l, c = b * {WIDEST} + l;",
        "        const float *u = w + l;" if head else "",
        f"        for (int p = 0; p < {kernel.height * kernel.width * WIDEST}; p += {WIDEST}) {{",
        f"            vf y = load(s + t[0] + b * {_input_plane(kernel)} + l + p);",
        *(f"            {step}" for step in steps),
        "        }",
        "" if any("+ c)" in step for step in steps) else "        (void)c;",
        "    }",
        "" if head else "    (void)w;",
        "}",
    ]
    return "\n".join(line for line in lines if line)
