"""Kernels with sixteen channels of a pixel side by side in the lanes: what all kinds share.

One function a layer shape. The table `t` holds the places of what is read, then of what the
epilogue reads and writes, in its order. The weights of a block of channels stand together: bias,
scales and shifts of the epilogue, then a row for each number that is multiplied. Narrow
vectors go over the sixteen lanes `l` in parts.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import affines, described, epilogue_cost, statements
from leancnn.compiler.graph import Floats, floats
from leancnn.compiler.kernel import (
    InputLayout,
    Kernel,
    Plan,
    is_small,
    mixed_layouts,
    operand,
)
from leancnn.compiler.values import Store, Value

AHEAD = 512  # floats between the weights that are multiplied and those that are fetched


@dataclass(frozen=True, slots=True)
class Tile(Plan):
    """The register tile of a matrix product: pixels × vectors of channels."""

    pixels: int  # with 32 registers
    few: int  # and with 16
    vectors: int
    lanes: int = WIDEST  # floats of each vector in a row of weights

    @property
    def row(self) -> int:
        """Floats of a row of weights."""
        return self.vectors * self.lanes


def tile_of(pixels: int, vectors: int) -> Tile:
    """A register tile, also for 16 registers."""
    few = max((p for p in range(1, pixels + 1) if p * vectors + vectors + 1 <= 16), default=1)
    return Tile(pixels, few, vectors)


def product_tiles(inputs: int, channels: int, pixels: int) -> Iterator[tuple[float, int, int]]:
    """Cycles, pixels and vectors of the register tiles that a matrix product could have.

    Counted for two multiply-add units of latency 4, two loads and four instructions a cycle; a
    vector of weights that comes from the second cache takes a cycle more. `python
    benchmarks/kernel_costs.py kinds` measures what kernels take beside it.
    """
    vectors = -(-channels // WIDEST)
    for wide in (v for v in range(1, 6) if vectors % v == 0):
        far = 0.5 * wide if inputs * wide * WIDEST > 4096 else 0.0
        for many in range(1, min(pixels, 28) + 1):
            if many * wide + wide + 1 > 31:
                break
            total = 0.0
            full, rest = divmod(pixels, many)
            for count, size in ((full, many), (1, rest)):
                adds = size * wide
                loads = (size + 2 * wide + 1) / 2
                issued = (adds + size * (1 if wide > 1 else 1.5) + 2 * wide + 4) / 3.9
                each = inputs * max(adds / 2 + far, loads, issued, 4.0 + far) + 12
                total += count * each if size else 0
            yield total * (vectors // wide), many, wide


@dataclass(frozen=True, slots=True, eq=False)
class BlockedKernel(Kernel):
    """What a kernel with planes can be instead: channels in the lanes, pixel by pixel."""

    lays_blocked = True

    @classmethod
    @abstractmethod
    def can(cls, kernel: Kernel) -> bool:
        """Whether this kind computes what a kernel with planes does, its epilogue apart."""

    @classmethod
    def of(cls, kernel: Kernel) -> Self | None:
        """What a kernel with planes becomes, if this kind can."""
        operands = [other for op in kernel.epilogue if (other := operand(op)) is not None]
        if cls.can(kernel) and all(_fits(other, kernel) for other in operands):
            return cls(kernel.name, kernel.op, kernel.x, kernel.epilogue)
        return None

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        return None if blocked == {True} and readable else "blocked"

    @property
    def elementwise(self) -> bool:
        return self.op is None

    @property
    def in_place(self) -> bool:
        return True

    @property
    def vectors(self) -> int:
        """Of sixteen channels, to hold all of a pixel."""
        return -(-self.channels // WIDEST)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def epilogue_cost(self) -> float:
        return self.vectors * self.pixels * epilogue_cost(self.epilogue)

    def faults(self) -> Iterator[str]:
        yield from mixed_layouts(self)
        made = self.writes()
        if len({(b.pitch, b.stride) for b in made}) != 1:
            yield "stores planes of different layouts in one walk"
        for buffer in made:
            if not buffer.blocked:
                yield f"stores {buffer.name} in the other layout"
        if not self.readable(self.x) or not all(b.blocked for b in self.x.buffers):
            yield f"walks over {self.x.buffers[0].name} as if it lay otherwise"
        for other in self.reads()[1:]:
            yield from self._operand_faults(other)

    def _operand_faults(self, other: Value) -> Iterator[str]:
        many = len(other.planes)
        if is_small(self, other):
            places = other.places()
            if many not in (1, self.channels):
                yield "has a gate of another length"
            if places != list(range(places[0], places[0] + many)):
                yield "has a gate whose channels do not lie side by side"
            return
        same = other.whole is not None and many == self.channels and other.buffers[0].blocked
        layout = (other.pitch, other.buffers[0].stride)
        if not same or layout != (self.out.pitch, self.out.stride):
            yield f"walks over {other.buffers[0].name} as if it lay otherwise"

    def c(self, file: File, plan: Any) -> None:
        what, how = self.words(plan)
        sizes = (f"{c}x{h}x{w}" for c, h, w in (self.x.shape, self.shape))
        comment = (
            f"{self.name}: {what}, {' -> '.join(sizes)}, channels in blocks\n"
            f"   then {described(self.epilogue)}; {how}"
        )
        name = file.function(self.name, comment, self.body(file, plan))
        table = file.integers(f"{self.name}_places", [*self.inputs(plan), *epilogue_places(self)])
        weights = self.weights(plan)
        numbers = file.floats(self.name, weights) if weights.size else "NULL"
        file.calls.append(f"{name}(s, {table}, {numbers});")

    @abstractmethod
    def words(self, plan: Any) -> tuple[str, str]:
        """What it does and how, for a comment."""

    @abstractmethod
    def body(self, file: File, plan: Any) -> str:
        """Its function, `@` for its name, so that equal shapes are equal text."""

    def inputs(self, plan: Any) -> list[int]:
        """What stands in its table before the places of its epilogue."""
        return self.x.places()[:1]

    def weights(self, plan: Any) -> Floats:
        return weight_rows(self, WIDEST)


KINDS: list[type[BlockedKernel]] = []
Kind = TypeVar("Kind", bound=type[BlockedKernel])


def blocked_kernel(kind: Kind) -> Kind:
    """Register a kind that kernels with planes may become."""
    KINDS.append(kind)
    return kind


def cheapest(kernel: Kernel) -> BlockedKernel | None:
    """What a kernel with planes becomes with channels side by side, if any kind can."""
    forms = [form for kind in KINDS if (form := kind.of(kernel)) is not None]
    return min(forms, key=lambda form: form.cost(), default=None)


def _fits(other: Value, kernel: Kernel) -> bool:
    """Whether an operand is as large as the result, a gate for each channel or one number."""
    if other.pixel:
        buffer = other.whole
        gate = buffer is not None and len(other.planes) == kernel.channels
        return len(other.planes) == 1 or (gate and buffer is not None and buffer.gap == (0, 0))
    return other.shape == kernel.shape


def epilogue_places(kernel: Kernel) -> list[int]:
    """Where the epilogue of a kernel reads and writes, in its order."""
    places = []
    for op in kernel.epilogue:
        if isinstance(op, Store):
            places.append(op.buffer.origin)
        elif (other := operand(op)) is not None:
            places.append(other.places()[0])
    return places


def weight_rows(kernel: Kernel, wide: int) -> Floats:
    """For each block of so many channels: a row a head, then a row for each input or tap."""
    rows = [] if kernel.op is None else [kernel.op.bias]
    for op in affines(kernel.epilogue):
        rows += [op.scale, op.shift]
    if kernel.op is not None:
        rows += list(kernel.op.weight.reshape(kernel.channels, -1).T)
    if not rows:
        return floats([])
    matrix = np.pad(np.stack(rows), ((0, 0), (0, -kernel.channels % max(wide, WIDEST))))
    return floats(matrix.reshape(len(rows), -1, wide).transpose(1, 0, 2))


def head_rows(kernel: Kernel) -> int:
    """Rows of numbers before the weights."""
    return (kernel.op is not None) + 2 * len(affines(kernel.epilogue))


def finish(kernel: Kernel, first: int, row: int, place: str, channel: str) -> list[str]:
    """The epilogue on a vector y as C statements.

    `first`: entries of the table before the epilogue's; `row`: floats of a row of weights;
    `place`: of y in its buffer; `channel`: its first channel; u: its part of the head's first row.
    """
    return statements(
        kernel.epilogue,
        head=int(kernel.op is not None),
        row=lambda number: f"load(u + {number * row})",
        operand=lambda other, at: _operand(other, kernel, f"t[{first + at}]", place, channel),
        store=lambda _, at: f"store(s + t[{first + at}] + {place}, y);",
    )


def _operand(other: Value, kernel: Kernel, origin: str, place: str, channel: str) -> str:
    if (other.height, other.width) == (kernel.height, kernel.width):
        return f"load(s + {origin} + {place})"
    return f"splat(s[{origin}])" if len(other.planes) == 1 else f"load(s + {origin} + {channel})"


def tile_functions(tile: Tile, rows: int, write: Callable[[int], str]) -> str:
    """What `write` makes of each height of tile that `rows` take, where the registers suffice."""
    many = {tile.pixels, rows % tile.pixels} - {0}
    few = {tile.few, rows % tile.few} - {0}
    text = []
    for size in sorted(many | few, reverse=True):
        when = "" if size in many & few else f"REGISTERS {'>=' if size in many else '<'} 32"
        text += [f"#if {when}"] * bool(when) + [write(size)] + ["#endif"] * bool(when)
    return "\n".join(text)


def tile_loops(tile: Tile, rows: int, call: str) -> str:
    """Whole tiles from row i on, then the rest; `call` is what stands behind a function's name."""
    lines = ["int i = 0;"]
    lines += ["#if REGISTERS >= 32"] * (tile.few != tile.pixels)
    for size in dict.fromkeys((tile.pixels, tile.few)):
        lines += ["#else"] * (size != tile.pixels)
        lines.append(f"for (; i + {size} <= {rows}; i += {size}) @_x{size}{call}")
        if rows % size:
            lines.append(f"@_x{rows % size}{call}")
    lines += ["#endif"] * (tile.few != tile.pixels)
    return "\n".join(lines)


def unread(epilogue: Sequence[str], name: str) -> str:
    """What keeps compilers from a warning where no step reads a channel's place."""
    return "" if any(f"+ {name}" in line for line in epilogue) else "(void)c;"
