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
from leancnn.compiler.loops import NARROW_LANES, Narrow, narrow_cost, narrow_tile
from leancnn.compiler.values import Value

FUNCTION = """
$tiles
LAYER @(float *s, const int32_t *t, const float *w)
{
    for (int b = 0; b < $blocks; b++, w += $weights)
    for (int l = 0; l < $part; l += $step) {
        const int at = $place + l, c = b * $wide + l;
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
        """Pixels × vectors of four channels, which divide sixteen."""
        inputs, pixels = len(self.x.planes), self.pixels

        def price(many: int, vectors: int) -> float:
            if WIDEST // NARROW_LANES % vectors:
                return float("inf")
            full, rest = divmod(pixels, many)
            last = narrow_cost(rest, vectors, inputs) if rest else 0
            return (full * narrow_cost(many, vectors, inputs) + last) / vectors

        return Narrow(narrow_tile(min(pixels, 14), WIDEST // NARROW_LANES, price))

    def plan(self, tile: tuple[int, int] | None = None) -> Tile:
        pixels, vectors = tile or self.tiles(1)[0]
        if isinstance(tile, Narrow):
            return Tile(pixels, pixels, vectors, NARROW_LANES)
        return tile_of(pixels, vectors)

    def words(self, plan: Tile) -> tuple[str, str]:
        return "convolution 1x1", f"tile: {plan.pixels} pixels x {plan.vectors} vectors"

    def inputs(self, plan: Tile) -> list[int]:
        return self.x.places()

    def weights(self, plan: Tile) -> Floats:
        return weight_rows(self, plan.row)

    def body(self, file: File, plan: Tile) -> str:
        near, wide, stride = plan.lanes < WIDEST, plan.row, self.out.stride
        channel = f"i * {WIDEST}"
        place = f"b * {plan.vectors * stride}"
        if near:
            place = f"b * {wide} / {WIDEST} * {stride} + b * {wide} % {WIDEST}"
        return fill(
            FUNCTION,
            tiles=tile_functions(plan, self.pixels, partial(self._tile, file, plan)),
            blocks=self.vectors * WIDEST // wide,
            weights=(head_rows(self) + len(self.x.planes)) * wide,
            part=wide if near else WIDEST,
            step=f"{plan.vectors} * LANES" if near else "LANES",
            place=place,
            wide=wide,
            loops=tile_loops(plan, self.pixels, f"(s, t, w + l, {channel}, at + {channel}, c);"),
        )

    def _tile(self, file: File, plan: Tile, size: int) -> str:
        inputs, vectors, wide = len(self.x.planes), plan.vectors, plan.row
        near = plan.lanes < WIDEST
        kind, next_vector = ("_NEAR", "LANES") if near else ("", WIDEST)
        place = f"at + v * {next_vector if near else self.out.stride} + o * {WIDEST}"
        epilogue = finish(self, inputs, wide, place, f"c + v * {next_vector}")
        own = [f"const float *u = w + v * {next_vector};"] * bool(affines(self.epilogue))
        each = file.tile("EACH", size, vectors)
        return fill(
            TILE,
            size=size,
            spread=file.tile(f"SPREAD{kind}", size, vectors),
            head=head_rows(self) * wide,
            inputs=inputs,
            wide=wide,
            fetch=file.tile("FETCH", 1, vectors),
            ahead=AHEAD,
            mix=file.tile(f"MIX{kind}", size, vectors),
            finish=finished([*own, *epilogue], each, (size, vectors), is_long(self.epilogue)),
            unused=unread(epilogue, "c + v"),
        )
