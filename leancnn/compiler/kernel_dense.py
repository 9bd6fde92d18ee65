"""A convolution whose result is one pixel, as a matrix by a vector; or only steps on a vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np

from leancnn.compiler.c_text import File, Places
from leancnn.compiler.epilogue import affines, combined, curve, described
from leancnn.compiler.graph import Activation, Affine, Conv, Shape, floats
from leancnn.compiler.kernel import Kernel, Plan, Wish, kernel, mixed_layouts
from leancnn.compiler.literals import LARGE
from leancnn.compiler.values import WIDEST, Binary, Value, side_by_side

AHEAD = 1024  # floats between the weights that are multiplied and those that are fetched


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class DenseKernel(Kernel):
    """A convolution whose result is one pixel: a matrix by a vector; (None) only steps."""

    op: Conv | None
    takes = (Conv, NoneType)

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        return shape[1:] == (1, 1)

    def wish(self, blocked: set[bool], readable: bool) -> Wish | None:
        """It finds each number by itself."""
        return None if len(blocked) == 1 else "planes"

    @property
    def elementwise(self) -> bool:
        return self.op is None

    @property
    def spills(self) -> bool:
        return self.op is not None and self.op.groups > 1

    def faults(self) -> Iterator[str]:
        yield from mixed_layouts(self)
        for other in self.reads()[1:]:
            if len(other.planes) not in (1, self.channels):
                yield "has an operand of another length"

    def c(self, file: File, plan: Plan) -> None:
        emit_dense(file, self)


def emit_dense(file: File, kernel: DenseKernel) -> None:
    """A convolution whose result is one pixel, or element-wise steps on a vector.

    Outputs lie in the lanes. For each block of outputs the weights are bias, scales and shifts of
    the steps, then a row for each input number, in the order in which they are read; the table says
    where in the arena each input number is.
    """
    groups = 1 if kernel.op is None else kernel.op.groups
    wide = kernel.channels // groups
    row = -(-wide // WIDEST) * WIDEST
    inputs, matrix = _matrix(kernel, groups, wide)
    depth = len(inputs) // groups
    if kernel.op is None and not side_by_side(kernel.x.places()):
        inputs = _filled(kernel.x.places())
    heads = [] if kernel.op is None else [kernel.op.bias]
    for step in affines(kernel.steps):
        heads += [step.scale, step.shift]
    units = next(u for u in (8, 7, 6, 5, 4, 3, 2, 1) if row // WIDEST % u == 0)
    block = units * WIDEST
    blocks = []
    for group in range(groups):
        part = slice(group * wide, (group + 1) * wide)
        rows = [np.asarray(values)[None, part] for values in heads]
        if depth:
            rows.append(matrix[group])
        if rows:
            filled = np.pad(np.concatenate(rows), ((0, 0), (0, row - wide)))
            blocks.append(filled.reshape(len(filled), -1, block).transpose(1, 0, 2).ravel())
    sizes = (groups, wide, row // block, depth, len(heads), units)
    at = Places()
    given = [", const int32_t *t"] * bool(inputs) + [", const float *w"] * bool(blocks)
    loops = _dense_loops(file, kernel, sizes, at)
    body = f"LAYER @(float *s{''.join(given)}{at.parameters})\n{{\n{loops}\n}}"
    c = len(kernel.x.planes)
    what = (
        "element by element"
        if kernel.op is None
        else f"matrix by vector, {groups} groups of {depth} numbers"
    )
    comment = (
        f"{kernel.name}: {what}, {c} planes -> {kernel.channels}, then {described(kernel.steps)}"
    )
    name = file.function(kernel.name, comment, body)
    arguments = [", " + file.integers(f"{kernel.name}_inputs", inputs)] if inputs else []
    if blocks:
        arguments.append(", " + file.floats(kernel.name, floats(np.concatenate(blocks))))
    file.calls.append(f"{name}(s{''.join(arguments)}{at.arguments});")


def _matrix(kernel: DenseKernel, groups: int, wide: int) -> tuple[list[int], list[np.ndarray]]:
    """Places of the input numbers, group by group, and the weights: one row for each."""
    op, x = kernel.op, kernel.x
    if op is None:
        return [], []
    per = len(x.planes) // groups
    _, _, rows, columns = op.weight.shape
    window = [
        (i, j, i * op.dilation[0] - op.padding[0], j * op.dilation[1] - op.padding[1])
        for i in range(rows)
        for j in range(columns)
    ]
    inside = [(i, j, y, z) for i, j, y, z in window if 0 <= y < x.height and 0 <= z < x.width]
    places = x.places()
    inputs = [place + y * x.pitch + z * x.step for place in places for _, _, y, z in inside]
    chosen = op.weight[:, :, [i for i, *_ in inside], [j for _, j, *_ in inside]]
    by_group = chosen.reshape(groups, wide, per * len(inside)).transpose(0, 2, 1)
    return inputs, list(by_group)


def _filled(places: list[int]) -> list[int]:
    return places + places[-1:] * (-len(places) % WIDEST)


def _dense_loops(
    file: File, kernel: DenseKernel, sizes: tuple[int, int, int, int, int, int], at: Places
) -> str:
    """What the function does: `s` is the arena, `t` the places of inputs, `w` the weights."""
    groups, wide, blocks, depth, head, units = sizes
    row = units * WIDEST
    split = max(1, 4 // units) if depth >= 8 else 1  # sums of their own, to hide latency
    split = split if depth % split == 0 else 1
    names = [[f"a{u}_{k}" for k in range(split)] for u in range(units)]
    group = f", t += {depth}" if depth else ""
    block = f", w += {(head + depth) * row}" if head + depth else ""
    lines = [
        f"    for (int g = 0; g < {groups}; g++{group})",
        f"    for (int b = 0; b < {blocks}; b++{block})",
        f"    for (int l = 0; l < {WIDEST}; l += LANES) {{",
        f"        const int o = b * {row} + l;",
    ]
    if kernel.op is None:
        for u in range(units):
            if side_by_side(kernel.x.places()):
                first = f"load(s + {at.at(kernel.x.places()[0])}"
            else:
                first = "gather(s, t"
            lines.append(f"        vf {names[u][0]} = {first} + o + {u * WIDEST});")
    else:
        for u in range(units):
            rest = "".join(f", {name} = {{0}}" for name in names[u][1:])
            lines.append(f"        vf {names[u][0]} = load(w + {u * WIDEST} + l){rest};")
        lines += _products(file, names, depth, split, head * row)
    for u in range(units):
        lines.append(f"        {{\n            vf y = {names[u][0]};")
        lines += _steps(file, kernel, row, wide, u * WIDEST, at)
        lines.append("        }")
    lines.append("    }")
    return "\n".join(lines)


def _products(file: File, names: list[list[str]], depth: int, split: int, behind: int) -> list[str]:
    """Add every input number times its weights to the sums in `names`; weights lie `behind` w."""
    if not depth:
        return []  # the whole window lies in the padding
    row = len(names) * WIDEST
    lines = [
        f"        const float *k = w + {behind} + l;",
        f"        for (int i = 0; i < {depth}; i += {split}, k += {split * row}) {{",
    ]
    if depth * row > LARGE:
        file.tiles.add(("FETCH", 1, len(names) * split))
        lines.append(f"            FETCH_1X{len(names) * split}(k + {AHEAD})")
    for part in range(split):
        lines.append(f"            const float x{part} = s[t[i + {part}]];")
        lines += [
            f"            {sums[part]} += x{part} * load(k + {part * row + u * WIDEST});"
            for u, sums in enumerate(names)
        ]
    lines.append("        }")
    return lines + [f"        {first} += {name};" for first, *rest in names for name in rest]


def _steps(
    file: File, kernel: DenseKernel, row: int, wide: int, first: int, at: Places
) -> list[str]:
    """The steps on the vector of outputs that starts `first` behind output o of group g."""
    lines = []
    place, mine = f"o + {first}", f"{first} + l"
    offset = row if kernel.op is not None else 0
    for step in kernel.steps:
        if isinstance(step, Activation):
            lines.append(f"            y = {curve(step, 'y')};")
        elif isinstance(step, Affine):
            scaled = f"y * load(w + {offset} + {mine}) + " if step.scale.any() else ""
            lines.append(f"            y = {scaled}load(w + {offset + row} + {mine});")
            offset += 2 * row
        elif isinstance(step, Binary):
            other = "y"
            if step.other is not None:
                other = _operand(file, kernel.name, step.other, f"g * {wide} + {place}", at)
            lines.append(f"            y = {combined(step.how, 'y', other, step.flipped)};")
        else:
            to = at.at(step.buffer.origin)
            lines.append(f"            store(s + {to} + g * {wide} + {place}, y);")
    return lines


def _operand(file: File, name: str, other: Value, place: str, at: Places) -> str:
    places = other.places()
    if len(set(places)) == 1:
        return f"splat(s[{at.at(places[0])}])"
    if side_by_side(places):
        return f"load(s + {at.at(places[0])} + {place})"
    table = file.integers(f"{name}_other", places + places[-1:] * WIDEST)
    return f"gather(s, {table} + {place})"
