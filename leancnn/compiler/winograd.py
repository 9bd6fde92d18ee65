"""Winograd's convolution: a 3×3 window of stride 1 in fewer multiplications, where it pays.

A tile of m × m results reads (m + 2)² pixels. Both directions are a short filter, F(m, 3) of
Winograd (1980): pixels and weights are taken to (m + 2)² points, where each point is a product of
matrices, tiles × inputs by inputs × outputs, and the products back to results. That is 4
multiply-adds for each result and input with m = 2 and 2.25 with m = 4, where the window takes 9.
Lavin and Gray (2016) sum over inputs at the points, so that each number is transformed once.

With sixteen channels in blocks every transform adds whole vectors and shuffles nothing.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import Tile, product_tiles, tile_of
from leancnn.compiler.graph import Conv, Floats, floats
from leancnn.compiler.kernel import Kernel, Plan
from leancnn.compiler.loops import L2_FLOATS
from leancnn.compiler.values import Value

TAPS = 3
SIZES = (2, 4)
HALF, ROOT = sqrt(2) / 2, sqrt(2)
WEIGHTS = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1, 0, 0],
            [-2 / 3, -ROOT / 3, -1 / 3],
            [-2 / 3, ROOT / 3, -1 / 3],
            [1 / 6, ROOT / 6, 1 / 3],
            [1 / 6, -ROOT / 6, 1 / 3],
            [0, 0, 1],
        ]
    ),
}
"""What takes three taps to m + 2 points; for m = 4 the points are 0, ±√½, ±√2 and infinity, with
which rounding errors are a third of those with 0, ±1, ±2."""
INTO = {2: 75.0, 4: 200.0}
BACK = {2: 36.0, 4: 140.0}
"""Cycles, about, of taking a tile of a vector of channels to its points, and back. What whole walks
take beside their cost is measured by `python benchmarks/kernel_costs.py kinds resnet20`."""
FAR = 1_000_000  # floats of weights that may come from beyond the third cache
MOST = 1_000_000  # floats of scratch for rows, where there is a choice
CLOSE = 4096  # floats of points and products that stay in the first cache beside the rest


@dataclass(frozen=True, slots=True)
class Winograd(Plan):
    """How a 3×3 convolution with channels in blocks is walked."""

    size: int  # m: results of a tile in each direction
    rows: int  # rows of tiles that are multiplied at a time
    across: int  # tiles in a row
    inputs: int  # vectors of channels that are read
    tile: Tile  # of the products at each point

    @property
    def edge(self) -> int:
        """Pixels that a tile reads in each direction."""
        return self.size + TAPS - 1

    @property
    def tiles(self) -> int:
        """Tiles that are multiplied at a time."""
        return self.rows * self.across

    @property
    def columns(self) -> int:
        """Of a row of pixels with what lies beside it."""
        return self.across * self.size + TAPS

    @property
    def input_stride(self) -> int:
        """Floats from a point of the inputs to the next, an odd number of cache lines."""
        return _odd(self.inputs * self.tiles)

    @property
    def output_stride(self) -> int:
        """Floats from a point of the products to the next, an odd number of cache lines."""
        return _odd(self.tile.vectors * self.tiles)

    def parts(self, outputs: int) -> tuple[int, int, int, int, int]:
        """Floats of a row of zeros, rows of pixels, points, products and rows of results.

        `outputs`: vectors of channels.
        """
        row = self.columns * WIDEST
        lines = self.rows * self.edge * row
        points = self.edge * self.input_stride, self.edge * self.output_stride
        return (row, self.inputs * lines, *points, outputs * lines)


def _odd(vectors: int) -> int:
    return (vectors | 1) * WIDEST


def is_winograd(kernel: Kernel) -> bool:
    """Whether a kernel is a dense 3×3 convolution of stride 1."""
    op = kernel.op
    if not isinstance(op, Conv) or op.groups > 1 or max(op.padding) >= TAPS:
        return False
    return op.weight.shape[2:] == (TAPS, TAPS) and (op.stride, op.dilation) == ((1, 1), (1, 1))


def in_vectors(value: Value) -> bool:
    """Whether each sixteen channels of a value would lie side by side in one vector, in order."""
    planes = value.planes
    return all(
        buffer is planes[at - at % WIDEST][0]
        and channel == planes[at - at % WIDEST][1] + at % WIDEST
        and channel % WIDEST == at % WIDEST
        and (buffer.height, buffer.width) == (value.height, value.width)
        for at, (buffer, channel) in enumerate(planes)
    )


def transformed(op: Conv, size: int) -> Floats:
    """Weights at the points: (points, inputs, outputs)."""
    to = WEIGHTS[size]
    points = np.einsum("ay,oiyx,bx->abio", to, op.weight.astype(np.float64), to)
    return floats(points.reshape(-1, *points.shape[2:]))


def ways(kernel: Kernel) -> list[tuple[float, Winograd]]:
    """Cycles, about, without the epilogue, and how: for each size and width the best first."""
    found: dict[tuple[int, int], tuple[float, Winograd]] = {}
    inputs = -(-len(kernel.x.planes) // WIDEST)
    for size in SIZES:
        down, across = -(-kernel.height // size), -(-kernel.width // size)
        for rows in (r for r in range(1, down + 1) if down % r == 0):
            products = product_tiles(len(kernel.x.planes), kernel.channels, rows * across)
            best: dict[int, tuple[float, int]] = {}
            for cost, many, wide in products:
                best[wide] = min(best.get(wide, (float("inf"), 0)), (cost, many))
            for wide, (cost, many) in best.items():
                way = Winograd(size, rows, across, inputs, tile_of(many, wide))
                price = (_price(kernel, way, cost), way)
                key = (size, wide)
                if key not in found or price[0] < found[key][0]:
                    found[key] = price
    return sorted(found.values(), key=lambda price: price[0])


def _price(kernel: Kernel, way: Winograd, product: float) -> float:
    """Cycles, about, of a walk; `product`: of the products at one point, for a band of tiles."""
    outputs = -(-kernel.channels // WIDEST)
    bands = -(-kernel.height // way.size) // way.rows
    moves = way.tiles * (way.inputs * INTO[way.size] + outputs * BACK[way.size])
    _, rows, points, products, output_stride = way.parts(outputs)
    if points + products > CLOSE:
        moves += 0.4 * way.edge * (points + products * outputs / way.tile.vectors)
    if rows + output_stride > L2_FLOATS:
        moves += 0.8 * (rows + output_stride)
    if way.rows > 1 and rows + output_stride > MOST:
        return float("inf")
    weights = way.edge**2 * len(kernel.x.planes) * outputs * WIDEST
    again = 0.05 if weights <= L2_FLOATS else 0.3
    fetched = weights * (0.3 if weights < FAR else 0.8) + (bands - 1) * weights * again
    return bands * (way.edge**2 * product + moves) + fetched
