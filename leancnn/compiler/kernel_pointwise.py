"""A 1×1 convolution of every pixel as a matrix product, channels side by side.

The table holds the place of each input channel, wherever it lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import (
    AHEAD,
    BlockedKernel,
    Tile,
    blocked_kernel,
    finish,
    head_rows,
    product_tiles,
    tile_functions,
    tile_loops,
    tile_of,
    unread,
    weight_rows,
)
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.epilogue import affines, finished, is_long
from leancnn.compiler.graph import Conv, Floats
from leancnn.compiler.kernel import Kernel, shape_key
from leancnn.compiler.loops import narrow_cost, narrow_tile
from leancnn.compiler.values import Value

FUNCTION = """
$tiles
LAYER @(float *s, const int32_t *t, const float *w)
{
    for (int b = 0; b < $blocks; b++, w += $weights)
    for (int l = 0; l < 16; l += LANES) {
        const int at = b * $block + l, c = b * $wide + l;
        $loops
    }
}
"""
TILE = """
static inline void @_x$size(float *s, const int32_t *t, const float *w, int p, int at, int c)
{
    $spread(w)
    const float *k = w + $head;
    for (int i = 0; i < $inputs; i++, k += $wide) {
        $fetch(k + $ahead)
        $mix(s + t[i] + p, k)
    }
    $finish
    $unused
}
"""


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

    @property
    def role(self) -> str:
        return "pointwise blocked"

    def readable(self, value: Value) -> bool:
        """It finds each channel of its input."""
        if value is not self.x:
            return value.whole is not None
        return all(buffer.shape[1:] == value.shape[1:] for buffer in value.buffers)

    def _products(self) -> Iterator[tuple[float, int, int]]:
        """Cycles, pixels and vectors of the register tiles that it could have."""
        return product_tiles(len(self.x.planes), self.channels, self.pixels)

    def cost(self) -> float:
        finish = self.vectors * self.pixels * 2.0 + self.epilogue_cost()
        return min(cost for cost, _, _ in self._products()) + finish

    @property
    def tile_key(self) -> str:
        return shape_key(self, "blocked")

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
        wide = plan.vectors * WIDEST
        place = f"i * {WIDEST}"
        return fill(
            FUNCTION,
            tiles=tile_functions(plan, self.pixels, partial(self._tile, file, plan)),
            blocks=self.vectors // plan.vectors,
            weights=(head_rows(self) + len(self.x.planes)) * wide,
            block=plan.vectors * self.out.stride,
            wide=wide,
            loops=tile_loops(plan, self.pixels, f"(s, t, w + l, {place}, at + {place}, c);"),
        )

    def _tile(self, file: File, plan: Tile, size: int) -> str:
        inputs, vectors = len(self.x.planes), plan.vectors
        wide = vectors * WIDEST
        place = f"at + v * {self.out.stride} + o * {WIDEST}"
        epilogue = finish(self, inputs, wide, place, f"c + v * {WIDEST}")
        own = [f"const float *u = w + v * {WIDEST};"] * bool(affines(self.epilogue))
        each = file.tile("EACH", size, vectors)
        return fill(
            TILE,
            size=size,
            spread=file.tile("SPREAD", size, vectors),
            head=head_rows(self) * wide,
            inputs=inputs,
            wide=wide,
            fetch=file.tile("FETCH", 1, vectors),
            ahead=AHEAD,
            mix=file.tile("MIX", size, vectors),
            finish=finished([*own, *epilogue], each, (size, vectors), is_long(self.epilogue)),
            unused=unread(epilogue, "c + v"),
        )
