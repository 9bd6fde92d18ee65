"""A convolution whose result is one pixel, as a matrix by a vector; or an epilogue on a vector.

Outputs lie in the lanes. For each block of outputs the weights are bias, scales and shifts of the
epilogue, then a row for each input number, in the order in which they are read; the table says
where in the arena each input number is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File, Places, fill
from leancnn.compiler.epilogue import affines, described, epilogue_cost, statements
from leancnn.compiler.graph import Conv, Shape, floats
from leancnn.compiler.kernel import InputLayout, Kernel, Plan, kernel, mixed_layouts
from leancnn.compiler.literals import LARGE
from leancnn.compiler.values import Value, side_by_side

AHEAD = 1024  # floats between the weights that are multiplied and those that are fetched

FUNCTION = """
LAYER @(float *s$given)
{
    for (int g = 0; g < $groups; g++$next_inputs)
    for (int b = 0; b < $blocks; b++$next_weights)
    for (int l = 0; l < 16; l += LANES) {
        const int o = b * $row + l;
        $sums
        $products
        $results
    }
}
"""
PRODUCTS = """
const float *k = w + $head + l;
for (int i = 0; i < $depth; i += $split, k += $weights) {
    $fetch
    $adds
}
$totals
"""
RESULT = """
{
    vf y = $sum;
    $epilogue
}
"""


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class DenseKernel(Kernel):
    """A convolution whose result is one pixel: a matrix by a vector; (None) only an epilogue."""

    op: Conv | None
    takes = (Conv, NoneType)

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        return shape[1:] == (1, 1)

    @property
    def role(self) -> str:
        return "dense"

    def cost(self) -> float:
        macs = self.op.weight.size if self.op is not None else 0
        return macs / WIDEST + self.channels / WIDEST * (2 + epilogue_cost(self.epilogue))

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
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
        places, matrix = _matrix(self.op, self.x)
        if self.op is None and not side_by_side(self.x.places()):
            places = _filled(self.x.places())
        walk = _Walk(self, 0 if self.op is None else len(places) // self.groups)
        weights = walk.weights(matrix)
        loops, at = walk.loops(file, bool(places), weights is not None), walk.at
        what = "element by element"
        if self.op is not None:
            what = f"matrix by vector, {self.groups} groups of {walk.depth} numbers"
        sizes = f"{len(self.x.planes)} planes -> {self.channels}"
        comment = f"{self.name}: {what}, {sizes}, then {described(self.epilogue)}"
        name = file.function(self.name, comment, loops)
        given = [file.integers(f"{self.name}_inputs", places)] if places else []
        given += [file.floats(self.name, floats(weights))] if weights is not None else []
        file.calls.append(f"{name}({', '.join(['s', *given])}{at.arguments});")

    @property
    def groups(self) -> int:
        return 1 if self.op is None else self.op.groups


def _matrix(op: Conv | None, x: Value) -> tuple[list[int], NDArray[Any] | None]:
    """Places of the input numbers, group by group, and the weights (group, input, output)."""
    if op is None:
        return [], None
    _, _, rows, columns = op.weight.shape
    window = [
        (i, j, i * op.dilation[0] - op.padding[0], j * op.dilation[1] - op.padding[1])
        for i in range(rows)
        for j in range(columns)
    ]
    inside = [(i, j, y, z) for i, j, y, z in window if 0 <= y < x.height and 0 <= z < x.width]
    places = [p + y * x.pitch + z * x.step for p in x.places() for _, _, y, z in inside]
    chosen = op.weight[:, :, [i for i, *_ in inside], [j for _, j, *_ in inside]]
    depth = len(x.planes) // op.groups * len(inside)
    return places, chosen.reshape(op.groups, -1, depth).transpose(0, 2, 1)


def _filled(places: list[int]) -> list[int]:
    return places + places[-1:] * (-len(places) % WIDEST)


class _Walk:
    """How a dense kernel goes over groups, blocks of outputs and inputs."""

    def __init__(self, kernel: DenseKernel, depth: int) -> None:
        self.kernel = kernel
        self.depth = depth  # input numbers of a group
        self.wide = kernel.channels // kernel.groups  # outputs of a group
        vectors = -(-self.wide // WIDEST)
        self.units = next(u for u in (8, 7, 6, 5, 4, 3, 2, 1) if vectors % u == 0)
        self.row = self.units * WIDEST  # outputs of a block
        self.blocks = vectors // self.units
        self.biased = kernel.op is not None
        self.head = self.biased + 2 * len(affines(kernel.epilogue))  # rows before the weights
        split = max(1, 4 // self.units) if depth >= 8 else 1
        self.split = split if depth % split == 0 else 1  # sums of their own, to hide latency
        self.at = Places()

    def weights(self, matrix: NDArray[Any] | None) -> NDArray[Any] | None:
        """Block by block, the rows of the head, then one for each input number."""
        heads = [] if self.kernel.op is None else [self.kernel.op.bias]
        for op in affines(self.kernel.epilogue):
            heads += [op.scale, op.shift]
        blocks = []
        for group in range(self.kernel.groups):
            part = slice(group * self.wide, (group + 1) * self.wide)
            rows = [values[None, part] for values in heads]
            rows += [matrix[group]] if matrix is not None and self.depth else []
            if rows:
                room = self.blocks * self.row - self.wide
                filled = np.pad(np.concatenate(rows), ((0, 0), (0, room)))
                blocks.append(filled.reshape(len(filled), -1, self.row).transpose(1, 0, 2).ravel())
        return np.concatenate(blocks) if blocks else None

    def loops(self, file: File, table: bool, weights: bool) -> str:
        """The function: `s` is the arena, `t` the places of inputs, `w` the weights."""
        sums = [self._sum(unit) for unit in range(self.units)]
        products = self._products(file) if self.biased and self.depth else ""
        results = [self._result(file, unit) for unit in range(self.units)]
        given = ", const int32_t *t" * table + ", const float *w" * weights
        rows = self.head + self.depth
        return fill(
            FUNCTION,
            given=given + self.at.parameters,
            groups=self.kernel.groups,
            next_inputs=f", t += {self.depth}" if self.depth else "",
            blocks=self.blocks,
            next_weights=f", w += {rows * self.row}" if rows else "",
            row=self.row,
            sums="\n".join(sums),
            products=products,
            results="\n".join(results),
        )

    def _sum(self, unit: int) -> str:
        """The vectors in which a vector of outputs is summed, as they begin."""
        first = unit * WIDEST
        if self.biased:
            rest = "".join(f", a{unit}_{part} = {{0}}" for part in range(1, self.split))
            return f"vf a{unit}_0 = load(w + {first} + l){rest};"
        places = self.kernel.x.places()
        if side_by_side(places):
            return f"vf a{unit}_0 = load(s + {self.at.at(places[0])} + o + {first});"
        return f"vf a{unit}_0 = gather(s, t + o + {first});"

    def _products(self, file: File) -> str:
        """Every input number times its weights, added to the sums."""
        adds, totals = [], []
        for part in range(self.split):
            adds.append(f"const float x{part} = s[t[i + {part}]];")
            for unit in range(self.units):
                place = f"k + {part * self.row + unit * WIDEST}"
                adds.append(f"a{unit}_{part} += x{part} * load({place});")
        for unit in range(self.units):
            totals += [f"a{unit}_0 += a{unit}_{part};" for part in range(1, self.split)]
        fetch = ""
        if self.depth * self.row > LARGE:
            fetch = f"{file.tile('FETCH', 1, self.units * self.split)}(k + {AHEAD})"
        return fill(
            PRODUCTS,
            head=self.head * self.row,
            depth=self.depth,
            split=self.split,
            weights=self.split * self.row,
            fetch=fetch,
            adds="\n".join(adds),
            totals="\n".join(totals),
        )

    def _result(self, file: File, unit: int) -> str:
        """The epilogue on a vector of outputs, from output `o` of group `g` on."""
        first = unit * WIDEST
        place = f"g * {self.wide} + o + {first}"
        epilogue = statements(
            self.kernel.epilogue,
            head=int(self.biased),
            row=lambda number: f"load(w + {number * self.row} + {first} + l)",
            operand=lambda other, _: self._operand(file, other, place),
            store=lambda buffer, _: f"store(s + {self.at.at(buffer.origin)} + {place}, y);",
        )
        return fill(RESULT, sum=f"a{unit}_0", epilogue="\n".join(epilogue))

    def _operand(self, file: File, other: Value, place: str) -> str:
        places = other.places()
        if len(set(places)) == 1:
            return f"splat(s[{self.at.at(places[0])}])"
        if side_by_side(places):
            return f"load(s + {self.at.at(places[0])} + {place})"
        table = file.integers(f"{self.kernel.name}_other", places + places[-1:] * WIDEST)
        return f"gather(s, {table} + {place})"
