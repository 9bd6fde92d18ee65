"""Planes to planes along their long lines: a convolution, a pooling, or only steps.

One function a layer shape. It gets the arena `s`, a table `t` of the places of planes, and weights
`w`. For each group the table holds the places of its input planes, then for each block of output
channels the places that its steps read and write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np

from leancnn.compiler.blocked import cheapest
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import (
    affines,
    combined,
    curve,
    described,
    finished,
    is_long,
    steps_cost,
)
from leancnn.compiler.graph import Activation, Affine, Conv, Floats, Pool, Shape, Sides, floats
from leancnn.compiler.kernel import (
    Kernel,
    is_small,
    kernel,
    mixed_layouts,
    operand,
    shape_key,
)
from leancnn.compiler.literals import number
from leancnn.compiler.loops import (
    L1_FLOATS,
    L2_FLOATS,
    NARROW_LANES,
    Tiling,
    likely_tiles,
    moves_straight,
    narrow_cost,
    narrow_tile,
    outside_is_zero,
    picks,
    planar_cost,
    reach,
    tiling,
)
from leancnn.compiler.polyphase import deal
from leancnn.compiler.values import WIDEST, Binary, Buffer, Store, Value

AHEAD = 6  # input planes between the one a pointwise tile reads and the one it fetches
CACHE_LINE = 16  # floats
WEIGHTS_AHEAD = 1024  # floats from the weights that are multiplied to those fetched: a page


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class PlanarKernel(Kernel):
    """Planes to planes along their long lines: a convolution, a pooling, or only steps."""

    op: Conv | Pool | None
    takes = (Conv, Pool, NoneType)

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        return isinstance(op, Pool) or shape[1:] != (1, 1)

    @property
    def positive(self) -> bool:
        return isinstance(self.op, Pool) and all(buffer.positive for buffer in self.x.buffers)

    def blocked(self) -> Kernel | None:
        return cheapest(self)

    def cost(self) -> float:
        vectors = -(-self.height * self.out.pitch // WIDEST)
        return planar_cost(self) + self.channels * vectors * steps_cost(self.steps)

    def margins(self) -> Sides:
        op = self.op
        if op is None or (isinstance(op, Pool) and not outside_is_zero(op, self)):
            return (0, 0, 0, 0)
        padding: Sides = op.padding
        return padding

    def alike(self) -> list[list[Buffer]]:
        others = [other for value in self.reads()[1:] if not value.pixel for other in value.buffers]
        made = [buffer for buffer in self.writes() if not buffer.vector]
        x = self.x.buffers
        return [x, [*made, *others], [*made, *x] if moves_straight(self) else []]

    def least_pitch(self) -> int:
        if self.op is None or moves_straight(self):
            return self.width
        return self.width + reach(self.op)[1] // self.op.stride[1]

    @property
    def tile_key(self) -> str:
        return shape_key(self) if isinstance(self.op, Conv) else ""

    def tiles(self, count: int) -> list[tuple[int, int]]:
        return likely_tiles(self, count) if isinstance(self.op, Conv) else []

    def narrow_tile(self) -> tuple[int, int] | None:
        """Channels × vectors of pixels."""
        if not isinstance(self.op, Conv):
            return None
        depth, wide = self.op.weight[0].size, self.channels // self.op.groups
        line = -(-self.height * self.out.pitch // NARROW_LANES)

        def price(outputs: int, vectors: int) -> float:
            full, rest = divmod(line, vectors)
            once = full * narrow_cost(outputs, vectors, depth)
            return -(-wide // outputs) * (once + rest * narrow_cost(outputs, 1, depth))

        return narrow_tile(min(wide, 14), 8, price)

    def plan(self, tile: tuple[int, int] | None = None) -> Tiling:
        return tiling(self, tile)

    @property
    def elementwise(self) -> bool:
        return self.op is None

    @property
    def in_place(self) -> bool:
        return not self.spills

    @property
    def spills(self) -> bool:
        return self.shape[1:] == (1, 1)  # planes of single floats, side by side

    def faults(self) -> Iterator[str]:
        yield from mixed_layouts(self)
        made = self.writes()
        if len({b.pitch for b in made}) != 1:
            yield "stores planes of different layouts in one walk"
        if any(b.blocked for b in made):
            yield f"stores {made[0].name} in the other layout"
        one = (1, 1) in (self.x.shape[1:], self.shape[1:])
        straight = moves_straight(self) and not one
        if any(b.blocked for b in self.x.buffers) or (straight and self.x.pitch != made[0].pitch):
            yield f"walks over {self.x.buffers[0].name} as if it lay otherwise"
        for other in self.reads()[1:]:
            if len(other.planes) not in (1, self.channels):
                yield "has a gate of another length"
            elif not is_small(self, other) and (
                other.pitch != made[0].pitch or any(b.blocked for b in other.buffers)
            ):
                yield f"walks over {other.buffers[0].name} as if it lay otherwise"

    def c(self, file: File, plan: Tiling) -> None:
        name = file.function(self.name, _comment(self, plan), _function(file, self, plan))
        table = file.integers(f"{self.name}_planes", _table(self, plan, file.dump))
        weights = _weights(self, plan)
        numbers = file.floats(self.name, weights) if weights.size else "NULL"
        for b in self.writes():
            if b.masked:
                file.calls.append(
                    f"clear_gaps(s + {b.origin}, {b.channels}, {b.stride}, {b.line}, {b.below});"
                )
        file.calls.append(f"{name}(s, {table}, {numbers});")


def _comment(kernel: PlanarKernel, tiling: Tiling) -> str:
    op = kernel.op
    c, h, w = len(kernel.x.planes), kernel.x.height, kernel.x.width
    if isinstance(op, Conv):
        k = "x".join(map(str, op.weight.shape[2:]))
        what = f"convolution {k}, {op.groups} group{'s' * (op.groups > 1)}"
    elif isinstance(op, Pool):
        what = f"{op.how} pooling {op.kernel[0]}x{op.kernel[1]}"
    else:
        what = "element by element"
    if op is not None and op.stride != (1, 1):
        what += f", stride {op.stride[0]}"
    tile = f"tile: {tiling.outputs} channels x {tiling.vectors} vectors"
    return (
        f"{kernel.name}: {what}, {c}x{h}x{w} -> {kernel.channels}x{kernel.height}x{kernel.width}\n"
        f"   then {described(kernel.steps)}; {tile}"
    )


def _places(value: Value, channels: int) -> list[int]:
    """Places of a step's other value, one for each channel."""
    places = value.places()
    return places * channels if len(places) == 1 else places


def _table(kernel: PlanarKernel, tiling: Tiling, dump: int) -> list[int]:
    inputs = kernel.x.places()
    columns = []
    for step in kernel.steps:
        if isinstance(step, Store):
            columns.append([step.buffer.plane(c) for c in range(kernel.channels)])
        elif isinstance(step, Binary) and step.other is not None:
            columns.append(_places(step.other, kernel.channels))
    table = []
    wide = kernel.channels // tiling.groups
    for group in range(tiling.groups):
        table += inputs[group * tiling.inputs : (group + 1) * tiling.inputs]
        for block in range(tiling.blocks):
            for column in columns:
                for o in range(tiling.outputs):
                    c = block * tiling.outputs + o
                    table.append(column[group * wide + c] if c < wide else dump)
    return table


def _weights(kernel: PlanarKernel, tiling: Tiling) -> Floats:
    """For each block: bias, scales and shifts of the steps, then input by input, tap by tap."""
    extra = affines(kernel.steps)
    blocks: list[Floats] = []
    wide = kernel.channels // tiling.groups
    for group in range(tiling.groups):
        for block in range(tiling.blocks):
            first = group * wide + block * tiling.outputs
            have = min(tiling.outputs, wide - block * tiling.outputs)
            part = slice(first, first + have)
            rows = []
            if isinstance(kernel.op, Conv):
                rows.append(kernel.op.bias[None, part])
            for step in extra:
                rows += [step.scale[None, part], step.shift[None, part]]
            if isinstance(kernel.op, Conv):
                taps = kernel.op.weight[part].reshape(have, -1)
                rows.append(taps.T)
            if rows:
                filled = np.concatenate(rows)
                blocks.append(np.pad(filled, ((0, 0), (0, tiling.outputs - have))).ravel())
    if isinstance(kernel.op, Pool) and kernel.op.how == "mean" and not _even(kernel.op):
        blocks.append(_shares(kernel))
    return floats(np.concatenate(blocks)) if blocks else floats([])


def _even(op: Pool) -> bool:
    """Whether every window of a mean has as many pixels."""
    return not any(op.padding) or (op.count_padding and op.beyond == (0, 0))


def _shares(kernel: PlanarKernel) -> Floats:
    """One over the number of pixels that count, for each place of the output line."""
    op = kernel.op
    assert isinstance(op, Pool)
    rows = op.counted(0, kernel.x.height, kernel.height)
    columns = op.counted(1, kernel.x.width, kernel.width)
    share = np.zeros((kernel.height, kernel.out.pitch))
    share[:, : kernel.width] = 1 / np.outer(rows, columns)
    line = share.ravel()
    return floats(np.pad(line, (0, -len(line) % 16)))


def _function(file: File, kernel: PlanarKernel, tiling: Tiling) -> str:
    """The text of the kernel's function, without its name, so that equal shapes are equal text."""
    line = kernel.height * kernel.out.pitch
    uneven = isinstance(kernel.op, Pool) and kernel.op.how == "mean" and not _even(kernel.op)
    tables = sum(isinstance(step, Store) or operand(step) is not None for step in kernel.steps)
    head = tiling.outputs * (2 * len(affines(kernel.steps)) + isinstance(kernel.op, Conv))
    depth = tiling.inputs * len(tiling.taps) if isinstance(kernel.op, Conv) else 0
    block_w, block_t = head + depth * tiling.outputs, tables * tiling.outputs
    sizes = sorted(
        {tiling.vectors, tiling.few, 1} | ({tiling.rest} if tiling.rest else set()), reverse=True
    )
    parts = [_tile(file, kernel, tiling, size, head, uneven) for size in sizes]
    text = [_picking(kernel)] if picks(kernel) else []
    for size, body in zip(sizes, parts, strict=True):
        when = _when(tiling, size)
        text.append(f"#if {when}" if when else "")
        text.append(f"static inline void @_x{size}{body}")
        text.append("#endif" if when else "")
    if picks(kernel):
        text.append("#undef BEGIN\n#undef AT\n#undef EVENS\n#undef ODDS")
    if tiling.phases is not None:
        text.append(deal(kernel, tiling))
    end = f"({line} + LANES - 1) / LANES * LANES"
    shares = f", share + {0}" if uneven else ""
    share = (
        f"    const float *share = w + {tiling.groups * tiling.blocks * block_w};\n"
        if uneven
        else ""
    )
    bases = ", base" if tiling.phases is not None else ""
    call = f"(s, in, at, k{shares}{bases}, p)"
    walk = _walk(tiling, sizes, call)
    chunk = tiling.chunk or None
    lines = [
        "LAYER @(float *s, const int32_t *t, const float *w)\n{",
        share.rstrip("\n"),
        f"    const int end = {end};",
        f"    for (int g = 0; g < {tiling.groups}; g++, "
        f"t += {tiling.inputs + tiling.blocks * block_t}"
        f"{f', w += {tiling.blocks * block_w}' if block_w else ''}) {{",
        "        const int32_t *in = t;",
    ]
    stop = "end"
    indent = "        "
    if chunk:
        lines.append(f"{indent}for (int from = 0; from < end; from += {chunk}) {{")
        lines.append(f"{indent}    const int to = from + {chunk} < end ? from + {chunk} : end;")
        stop, indent = "to", indent + "    "
    if tiling.phases is not None:
        below = max(tiling.phases.rows) - kernel.height
        pitch = tiling.phases.pitch
        row = f"from / {pitch}" if chunk else "0"
        lines.append(f"{indent}const int row = {row}, base = row * {pitch};")
        lines.append(f"{indent}@_deal(s, in, row, ({stop} - 1) / {pitch} + {1 + below});")
    lines.append(f"{indent}for (int b = 0; b < {tiling.blocks}; b++) {{")
    lines.append(f"{indent}    const int32_t *at = t + {tiling.inputs} + b * {block_t};")
    lines.append(f"{indent}    const float *k = w + b * {block_w};" if block_w else "")
    if not block_w:
        lines.append(f"{indent}    const float *k = w;")
    lines.append(f"{indent}    int p = {'from' if chunk else '0'};")
    lines += [
        row if row.startswith("#") else f"{indent}    {row}".replace("END", stop)
        for row in walk
        if row
    ]
    lines.append(f"{indent}}}")
    if chunk:
        lines.append("        }")
    lines.append("    }")
    if not block_w and not uneven:
        lines.append("    (void)w;")
    lines.append("}")
    return "\n".join(row for row in [*text, *lines] if row)


def _when(tiling: Tiling, size: int) -> str:
    """The condition of the preprocessor under which a tile of so many vectors is used."""
    wide = size in (tiling.vectors, tiling.rest)
    narrow = size == tiling.few
    if wide and narrow:
        return ""
    if wide:
        return "" if size == 1 else "REGISTERS >= 32"  # with fewer, single vectors are left over
    return "REGISTERS < 32" if narrow and size != 1 else "REGISTERS < 32 || LANES != 16"


def _walk(tiling: Tiling, sizes: list[int], call: str) -> list[str]:
    """Loops over the line: whole tiles, then what is left."""
    rows = []
    for size in sizes:
        when = _when(tiling, size)
        rows.append(f"#if {when}" if when else "")
        rows.append(f"for (; p + {size} * LANES <= END; p += {size} * LANES) @_x{size}{call};")
        rows.append("#endif" if when else "")
    return rows


def _tile(
    file: File, kernel: PlanarKernel, tiling: Tiling, size: int, head: int, uneven: bool
) -> str:
    """One register tile: what is summed, and the steps on every vector of it."""
    o, op = tiling.outputs, kernel.op
    share = ", const float *share" if uneven else ""
    base_ = ", int base" if tiling.phases is not None else ""
    lines = [
        f"(float *s, const int32_t *in, const int32_t *t, const float *w{share}{base_}, int p)\n{{"
    ]
    base = "s + in[i] + BEGIN" if picks(kernel) else "s + in[i] + p"
    if tiling.phases is not None:
        base = f"s + {tiling.place} + i * {tiling.phases.size} + p - base"
    tile = f"{o}X{size}"
    file.tiles.add(("EACH", o, size))
    if isinstance(op, Conv):
        file.tiles.add(("START", o, size))
        lines.append(f"    START_{tile}(w)")
        lines.append(f"    const float *k = w + {head};")
        lines.append(
            f"    for (int i = 0; i < {tiling.inputs}; i++, k += {o * len(tiling.taps)}) {{"
        )
        lines.append(f"        const float *x = {base};")
        lines += [
            f"        {tap}".replace("+ -", "- ") for tap in _tap_lines(file, kernel, tiling, size)
        ]
        if tiling.phases is None and not picks(kernel):
            file.tiles.add(("FETCH", 1, size))
            ahead = f"x + {max(tiling.taps)} + {size} * LANES".replace("+ -", "- ")
            if len(tiling.taps) == 1 and tiling.inputs * size * 16 > L1_FLOATS // 2:
                ahead = f"s + in[i + {AHEAD} < {tiling.inputs} ? i + {AHEAD} : i] + p"
            lines.append(f"        FETCH_1X{size}({ahead})")
        if op.weight.size > L2_FLOATS:  # they come from beyond
            places = range(WEIGHTS_AHEAD, WEIGHTS_AHEAD + o * len(tiling.taps), CACHE_LINE)
            lines.append(f"        {' '.join(f'prefetch(k + {place});' for place in places)}")
        lines.append("    }")
    else:
        file.tiles.add(("LOAD", o, size))
        first = base.replace("in[i]", "in[0]").replace(
            " + i * " + str(tiling.phases.size if tiling.phases else 0), ""
        )
        lines.append(f"    const float *x = {first};")
        lines.append(f"    LOAD_{tile}(x + {tiling.taps[0]})".replace("+ -", "- "))
        if isinstance(op, Pool):
            word = "LARGER" if op.how == "max" else "PLUS"
            file.tiles.add((word, o, size))
            for tap in tiling.taps[1:]:
                lines.append(f"    {word}_{tile}(x + {tap})".replace("+ -", "- "))
    steps = []
    if isinstance(op, Pool) and op.how == "mean":
        if uneven:
            steps.append("y = y * load(share + p + v * LANES);")
        else:
            steps.append(f"y = y * {number(1 / (op.kernel[0] * op.kernel[1]))};")
    table = 0
    scale = o if isinstance(op, Conv) else 0
    for step in kernel.steps:
        if isinstance(step, Activation):
            steps.append(f"y = {curve(step, 'y')};")
        elif isinstance(step, Affine):
            scaled = f"y * w[{scale} + o] + " if step.scale.any() else ""
            shift = f"w[{scale + o} + o]"
            steps.append(f"y = {scaled}{shift};" if scaled else f"y = splat({shift});")
            scale += 2 * o
        elif isinstance(step, Binary):
            if step.other is None:
                other = "y"
            else:
                small = (
                    (step.other.height, step.other.width) == (1, 1) != (kernel.height, kernel.width)
                )
                place = (
                    f"s[t[{table} + o]]" if small else f"load(s + t[{table} + o] + p + v * LANES)"
                )
                other = f"splat({place})" if small else place
                table += o
            steps.append(f"y = {combined(step.how, 'y', other, step.flipped)};")
        else:
            b = step.buffer
            value = "y"
            if b.masked:
                value = f"keep(y, {file.mask(b.height, b.width, b.pitch)} + p + v * LANES)"
            steps.append(f"store(s + t[{table} + o] + p + v * LANES, {value});")
            table += o
    lines += finished(steps, f"EACH_{tile}", (o, size), is_long(kernel.steps))
    unused = [] if isinstance(op, Conv) or affines(kernel.steps) else ["(void)w;"]
    if tiling.phases is not None:
        unused.append("(void)in;")
    if unused:
        lines.append(f"    {' '.join(unused)}")
    lines.append("}")
    return "\n".join(lines)


def _tap_lines(file: File, kernel: PlanarKernel, tiling: Tiling, size: int) -> list[str]:
    """A multiply-add of a register tile for each tap; two picked ones share what they load."""
    assert isinstance(kernel.op, Conv)
    o, columns, dilation = tiling.outputs, kernel.op.weight.shape[3], kernel.op.dilation[1]
    if not picks(kernel):
        file.tiles.add(("TAP", o, size))
        return [f"TAP_{o}X{size}(x + {tap}, k + {j * o})" for j, tap in enumerate(tiling.taps)]
    file.tiles.add(("PICK", o, size))
    lines = []
    for j, tap in enumerate(tiling.taps):
        odd = j % columns * dilation % 2
        half = "ODDS" if odd else "EVENS"
        lines.append(f"PICK_{o}X{size}({half}, x + {tap - odd}, k + {j * o})")
    return lines


def _picking(kernel: PlanarKernel) -> str:
    """Macros for the halves of a tap: constants beside p where a vector is of whole rows."""
    pitch = kernel.out.pitch
    sizes = f"{pitch}, {2 * kernel.x.pitch}"
    return (
        f"#define BEGIN (LANES % {pitch} ? 0 : doubled(p, {sizes}))\n"
        f"#define AT(d) doubled(LANES % {pitch} ? p + (d) : (d), {sizes})\n"
        "#define EVENS(x, d) evens(x + AT(d), x + AT(d + LANES / 2))\n"
        "#define ODDS(x, d) odds(x + AT(d), x + AT(d + LANES / 2))"
    )
