"""Kernels that go along the long lines of planes: what all kinds share.

One function a layer shape. It gets the arena `s`, a table `t` of the places of planes, and weights
`w`. For each group the table holds the places of its input planes, then for each block of output
channels the places that its epilogue reads and writes.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import cheapest
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.epilogue import (
    affines,
    described,
    epilogue_cost,
    finished,
    is_long,
    statements,
)
from leancnn.compiler.graph import Floats, floats
from leancnn.compiler.kernel import Kernel, is_small, mixed_layouts, operand
from leancnn.compiler.loops import Tiling, moves_straight, planar_cost, reach, tiling
from leancnn.compiler.polyphase import split
from leancnn.compiler.values import Buffer, Store, Value

FUNCTION = """
$macros
$tiles
$undefined
$split
LAYER @(float *s, const int32_t *t, const float *w)
{
    $factors
    const int end = ($line + LANES - 1) / LANES * LANES;
    for (int g = 0; g < $groups; g++, t += $group$next) {
        const int32_t *in = t;
        $walk
    }
    $unused
}
"""
BY_CHUNKS = """
for (int from = 0; from < end; from += $chunk) {
    const int to = from + $chunk < end ? from + $chunk : end;
    $walk
}
"""
SPLITTING = """
const int row = $row, base = row * $pitch;
@_split(s, in, row, ($end - 1) / $pitch + $below);
"""
BLOCKS = """
for (int b = 0; b < $blocks; b++) {
    const int32_t *at = t + $inputs + b * $table;
    const float *k = $weights;
    int p = $start;
    $loops
}
"""
TILE = """
static inline void @_x$size(float *s, const int32_t *in, const int32_t *t, const float *w$more, \
int p)
{
    $sums
    $finish
    $unused
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class PlanarKernel(Kernel):
    """Planes to planes along their long lines."""

    biased: ClassVar[bool] = False
    """Whether the numbers of a block of channels begin with biases."""

    def blocked(self) -> Kernel | None:
        return cheapest(self)

    def cost(self) -> float:
        vectors = -(-self.height * self.out.pitch // WIDEST)
        return planar_cost(self) + self.channels * vectors * epilogue_cost(self.epilogue)

    def same_pitch(self) -> list[list[Buffer]]:
        others = [other for value in self.reads()[1:] if not value.pixel for other in value.buffers]
        made = [buffer for buffer in self.writes() if not buffer.vector]
        x = self.x.buffers
        return [x, [*made, *others], [*made, *x] if moves_straight(self) else []]

    def least_pitch(self) -> int:
        if self.op is None or moves_straight(self):
            return self.width
        beyond: int = reach(self.op)[1] // self.op.stride[1]
        return self.width + beyond

    def plan(self, tile: tuple[int, int] | None = None) -> Tiling:
        return tiling(self, tile)

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

    @abstractmethod
    def words(self) -> str:
        """What it does, for a comment."""

    @abstractmethod
    def sums(self, file: File, plan: Tiling, size: int) -> str:
        """C that makes the sums of a register tile of `size` vectors from place `p` on.

        `in` are the places of its inputs, `w` its numbers, `s` the arena; with phases the first
        lies at `base`.
        """

    def rows(self, part: slice) -> list[Floats]:
        """Numbers of some channels, a row each, behind biases and what the epilogue needs."""
        return []

    def factors(self) -> Floats | None:
        """One factor for each place of the line, behind all other numbers."""
        return None

    def scaling(self) -> list[str]:
        """What is done to a sum `y` before the epilogue."""
        return []

    def macros(self) -> str:
        """Macros of the function's own; they are undefined behind its tiles."""
        return ""

    def c(self, file: File, plan: Tiling) -> None:
        sizes = (f"{c}x{h}x{w}" for c, h, w in (self.x.shape, self.shape))
        comment = (
            f"{self.name}: {self.words()}, {' -> '.join(sizes)}\n"
            f"   then {described(self.epilogue)}; "
            f"tile: {plan.outputs} channels x {plan.vectors} vectors"
        )
        name = file.function(self.name, comment, _function(file, self, plan))
        table = file.integers(f"{self.name}_planes", _table(self, plan, file.dump))
        weights = _weights(self, plan)
        numbers = file.floats(self.name, weights) if weights.size else "NULL"
        for b in self.writes():
            if b.masked:
                file.calls.append(
                    f"clear_gaps(s + {b.origin}, {b.channels}, {b.stride}, {b.line}, {b.below});"
                )
        file.calls.append(f"{name}(s, {table}, {numbers});")


def _table(kernel: PlanarKernel, plan: Tiling, dump: int) -> list[int]:
    inputs, wide = kernel.x.places(), kernel.channels // plan.groups
    columns = []
    for op in kernel.epilogue:
        if isinstance(op, Store):
            columns.append([op.buffer.plane(c) for c in range(kernel.channels)])
        elif (other := operand(op)) is not None:
            places = other.places()
            columns.append(places * kernel.channels if len(places) == 1 else places)
    table = []
    for group in range(plan.groups):
        table += inputs[group * plan.inputs : (group + 1) * plan.inputs]
        for block in range(plan.blocks):
            for column in columns:
                for o in range(plan.outputs):
                    c = block * plan.outputs + o
                    table.append(column[group * wide + c] if c < wide else dump)
    return table


def _weights(kernel: PlanarKernel, plan: Tiling) -> Floats:
    """For each block: biases, scales and shifts of the epilogue, then the kind's own rows."""
    blocks: list[Floats] = []
    wide = kernel.channels // plan.groups
    for group in range(plan.groups):
        for block in range(plan.blocks):
            first = group * wide + block * plan.outputs
            have = min(plan.outputs, wide - block * plan.outputs)
            part = slice(first, first + have)
            rows = [kernel.op.bias[None, part]] if kernel.biased else []
            for op in affines(kernel.epilogue):
                rows += [op.scale[None, part], op.shift[None, part]]
            rows += kernel.rows(part)
            if rows:
                filled = np.concatenate(rows)
                blocks.append(np.pad(filled, ((0, 0), (0, plan.outputs - have))).ravel())
    if (factors := kernel.factors()) is not None:
        blocks.append(factors)
    return floats(np.concatenate(blocks)) if blocks else floats([])


def head_rows(kernel: PlanarKernel) -> int:
    """Rows of numbers before those of the kind's own."""
    return kernel.biased + 2 * len(affines(kernel.epilogue))


def _function(file: File, kernel: PlanarKernel, plan: Tiling) -> str:
    """The text of the kernel's function, without its name, so that equal shapes are equal text."""
    tables = sum(isinstance(op, Store) or operand(op) is not None for op in kernel.epilogue)
    own = sum(len(rows) for rows in kernel.rows(slice(0, 1)))
    weights, table = (rows * plan.outputs for rows in (head_rows(kernel) + own, tables))
    tiles = []
    for size in _sizes(plan):
        when = _when(plan, size)
        tiles += [f"#if {when}"] * bool(when) + [_tile(file, kernel, plan, size)]
        tiles += ["#endif"] * bool(when)
    uneven, macros = kernel.factors() is not None, kernel.macros()
    behind = plan.groups * plan.blocks * weights
    names = [line.split()[1].split("(")[0] for line in macros.splitlines()]
    return fill(
        FUNCTION,
        macros=macros,
        tiles="\n".join(tiles),
        undefined="\n".join(f"#undef {name}" for name in names),
        split=split(kernel, plan) if plan.phases is not None else "",
        factors=f"const float *share = w + {behind};" if uneven else "",
        line=kernel.height * kernel.out.pitch,
        groups=plan.groups,
        group=plan.inputs + plan.blocks * table,
        next=f", w += {plan.blocks * weights}" if weights else "",
        walk=_walk(kernel, plan, table, weights),
        unused="" if weights or uneven else "(void)w;",
    )


def _sizes(plan: Tiling) -> list[int]:
    """Vectors of its register tiles, the largest first."""
    return sorted({plan.vectors, plan.few, plan.rest, 1} - {0}, reverse=True)


def _walk(kernel: PlanarKernel, plan: Tiling, table: int, weights: int) -> str:
    """The loops over blocks of outputs and their vectors; what is split is split before.

    `table` and `weights`: how many entries of each a block has.
    """
    start, end = ("from", "to") if plan.chunk else ("0", "end")
    factors = ", share + 0" if kernel.factors() is not None else ""
    call = f"(s, in, at, k{factors}{', base' if plan.phases is not None else ''}, p)"
    walk = fill(
        BLOCKS,
        blocks=plan.blocks,
        inputs=plan.inputs,
        table=table,
        weights=f"w + b * {weights}" if weights else "w",
        start=start,
        loops="\n".join(vector_loops(plan, _sizes(plan), call, end)),
    )
    if plan.phases is not None:
        pitch = plan.phases.pitch
        row = f"from / {pitch}" if plan.chunk else "0"
        below = max(plan.phases.rows) - kernel.height + 1
        walk = f"{fill(SPLITTING, row=row, pitch=pitch, end=end, below=below)}\n{walk}"
    return fill(BY_CHUNKS, chunk=plan.chunk, walk=walk) if plan.chunk else walk


def _when(plan: Tiling, size: int) -> str:
    """The condition of the preprocessor under which a tile of so many vectors is used."""
    wide = size in (plan.vectors, plan.rest)
    narrow = size == plan.few
    if wide and narrow:
        return ""
    if wide:
        return "" if size == 1 else "REGISTERS >= 32"  # with fewer, single vectors are left over
    return "REGISTERS < 32" if narrow and size != 1 else "REGISTERS < 32 || LANES != 16"


def vector_loops(plan: Tiling, sizes: list[int], call: str, end: str) -> list[str]:
    """Loops over the line: whole tiles, then what is left."""
    rows = []
    for size in sizes:
        when = _when(plan, size)
        rows += [f"#if {when}"] * bool(when)
        rows.append(f"for (; p + {size} * LANES <= {end}; p += {size} * LANES) @_x{size}{call};")
        rows += ["#endif"] * bool(when)
    return rows


def _tile(file: File, kernel: PlanarKernel, plan: Tiling, size: int) -> str:
    """One register tile: what is summed, and the epilogue on every vector of it."""
    o, phases = plan.outputs, plan.phases is not None
    epilogue = statements(
        kernel.epilogue,
        head=int(kernel.biased),
        row=lambda row: f"w[{row * o} + o]",
        alone="splat",
        operand=lambda other, place: _operand(kernel, other, f"t[{place * o} + o]"),
        store=lambda buffer, place: _store(file, buffer, f"t[{place * o} + o]"),
    )
    factors = ", const float *share" if kernel.factors() is not None else ""
    unused = ["(void)w;"] * (not head_rows(kernel)) + ["(void)in;"] * phases
    tile = file.tile("EACH", o, size)
    return fill(
        TILE,
        size=size,
        more=f"{factors}{', int base' if phases else ''}",
        sums=kernel.sums(file, plan, size),
        finish=finished([*kernel.scaling(), *epilogue], tile, (o, size), is_long(kernel.epilogue)),
        unused=" ".join(unused),
    )


def _operand(kernel: PlanarKernel, other: Value, place: str) -> str:
    small = (other.height, other.width) == (1, 1) != (kernel.height, kernel.width)
    return f"splat(s[{place}])" if small else f"load(s + {place} + p + v * LANES)"


def _store(file: File, b: Buffer, place: str) -> str:
    mask = f"{file.mask(b.height, b.width, b.pitch)} + p + v * LANES" if b.masked else ""
    return f"store(s + {place} + p + v * LANES, {f'keep(y, {mask})' if mask else 'y'});"


def place_of(plan: Tiling, channel: str) -> str:
    """Where a tile finds its vectors of an input channel."""
    if plan.phases is None:
        return f"s + in[{channel}] + p"
    size = "" if channel == "0" else f" + {channel} * {plan.phases.size}"
    return f"s + {plan.place}{size} + p - base"
