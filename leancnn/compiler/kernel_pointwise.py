"""A 1×1 convolution of every pixel as a matrix product, channels side by side.

The table holds the place of each input channel, wherever it lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from leancnn.compiler.blocked import (
    AHEAD,
    BlockedKernel,
    Tile,
    block_loops,
    blocked_kernel,
    finish,
    head_rows,
    product_tiles,
    tile_functions,
    tile_loops,
    tile_of,
    weight_rows,
)
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv, Floats
from leancnn.compiler.kernel import Kernel, shape_key
from leancnn.compiler.loops import narrow_cost, narrow_tile
from leancnn.compiler.values import WIDEST, Value


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class PointwiseKernel(BlockedKernel):
    """A matrix product: tiles of pixels × vectors of channels, along all inputs."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        op = kernel.op
        if not isinstance(op, Conv) or op.groups > 1 or any(op.padding):
            return False
        return op.weight.shape[2:] == (1, 1) and op.stride == (1, 1)

    def readable(self, value: Value) -> bool:
        """It finds each channel of its input."""
        if value is not self.x:
            return value.whole is not None
        return all(buffer.shape[1:] == value.shape[1:] for buffer in value.buffers)

    def _products(self) -> Iterator[tuple[float, int, int]]:
        """Cycles, pixels and vectors of the register tiles that it could have."""
        return product_tiles(len(self.x.planes), self.channels, self.pixels)

    def cost(self) -> float:
        finish = self.vectors * self.pixels * 2.0 + self.steps_cost()
        return min(cost for cost, _, _ in self._products()) + finish

    @property
    def tile_key(self) -> str:
        return shape_key(self, "abreast")

    def tiles(self, count: int) -> list[tuple[int, int]]:
        """Pixels and vectors."""
        order = sorted((cost, -vectors, pixels) for cost, pixels, vectors in self._products())
        return [(pixels, -vectors) for _, vectors, pixels in order[:count]]

    def narrow_tile(self) -> tuple[int, int]:
        """Pixels × vectors of sixteen channels, of which four are multiplied at a time."""
        inputs, pixels = len(self.x.planes), self.pixels

        def price(many: int, vectors: int) -> float:
            if self.vectors % vectors:
                return float("inf")
            full, rest = divmod(pixels, many)
            last = narrow_cost(rest, vectors, inputs) if rest else 0
            return self.vectors // vectors * (full * narrow_cost(many, vectors, inputs) + last)

        return narrow_tile(min(pixels, 14), 5, price)

    def plan(self, tile: tuple[int, int] | None = None) -> Tile:
        return tile_of(*(tile or self.tiles(1)[0]))

    def words(self, plan: Tile) -> tuple[str, str]:
        return "convolution 1x1", f"tile: {plan.pixels} pixels x {plan.vectors} vectors"

    def inputs(self, plan: Tile) -> list[int]:
        return self.x.places()

    def weights(self, plan: Tile) -> Floats:
        return weight_rows(self, plan.vectors)

    def body(self, file: File, plan: Tile) -> str:
        return _pointwise(file, self, plan)


def _pointwise(file: File, kernel: Kernel, tile: Tile) -> str:
    """A matrix product: tiles of pixels × vectors of channels, along all inputs."""
    inputs, wide = len(kernel.x.planes), tile.vectors * WIDEST
    blocks = -(-kernel.channels // wide)
    pixels, plane, head = kernel.height * kernel.width, kernel.out.stride, head_rows(kernel)
    sizes = (inputs, head, plane)
    text = tile_functions(
        tile, pixels, lambda size: _pointwise_tile(file, kernel, size, tile.vectors, sizes)
    )
    lines = block_loops(blocks, (head + inputs) * wide)
    lines.append(f"        const int at = b * {tile.vectors * plane} + l, c = b * {wide} + l;")
    lines += tile_loops(tile, pixels, f"(s, t, w + l, i * {WIDEST}, at + i * {WIDEST}, c);")
    return "\n".join([*text, *lines, "    }", "}"])


def _pointwise_tile(
    file: File, kernel: Kernel, size: int, vectors: int, sizes: tuple[int, int, int]
) -> str:
    inputs, head, plane = sizes
    wide, name = vectors * WIDEST, f"{size}X{vectors}"
    file.tiles |= {("SPREAD", size, vectors), ("MIX", size, vectors), ("EACH", size, vectors)}
    file.tiles.add(("FETCH", 1, vectors))
    steps = finish(kernel, inputs, wide, f"at + v * {plane} + o * {WIDEST}", f"c + v * {WIDEST}")
    if affines(kernel.steps):
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
