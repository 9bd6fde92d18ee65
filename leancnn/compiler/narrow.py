"""Register tiles for vectors of four floats and few registers, as WebAssembly has them.

An engine leaves fifteen of sixteen registers to a tile at best, and spills what does not fit: tiles
of at most `REGISTERS` measured fastest in V8. The cost is counted as in `loops.cost`: two
multiply-adds, two loads and four instructions a cycle, four cycles of latency.
"""

from collections.abc import Iterator
from itertools import product

from leancnn.compiler.blocked import is_pointwise
from leancnn.compiler.graph import Conv, Graph
from leancnn.compiler.loops import shape_key
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.program import WIDEST, BlockedKernel, PlanarKernel, writes
from leancnn.compiler.winograd import is_winograd

LANES = 4
REGISTERS = 13


def narrow_tiles(graph: Graph) -> dict[str, tuple[int, int]]:
    """The tile of each shape of convolution in a simplified graph, by `shape_key`."""
    program = lower(graph)
    schedule(program)
    found = {}
    for kernel in program.kernels:
        if isinstance(kernel, PlanarKernel) and isinstance(kernel.op, Conv):
            found[shape_key(kernel)] = _planar(kernel)
        elif isinstance(kernel, BlockedKernel) and is_pointwise(kernel) and not is_winograd(kernel):
            found[shape_key(kernel)] = _blocked(kernel)
    return found


def _planar(kernel: PlanarKernel) -> tuple[int, int]:
    """Channels × vectors of pixels."""
    op = kernel.op
    assert isinstance(op, Conv)
    wide = kernel.channels // op.groups
    line = -(-kernel.height * next(b.pitch for b in writes(kernel)) // LANES)
    depth = op.weight[0].size

    def price(tile: tuple[int, int]) -> float:
        full, rest = divmod(line, tile[1])
        once = full * _cost(*tile, depth) + rest * _cost(tile[0], 1, depth)
        return -(-wide // tile[0]) * once

    return min(_tiles(min(wide, 14), 8), key=price)


def _blocked(kernel: BlockedKernel) -> tuple[int, int]:
    """Pixels × vectors of sixteen channels, of which four are multiplied at a time."""
    pixels, inputs = kernel.height * kernel.width, len(kernel.x.planes)
    vectors = -(-kernel.channels // WIDEST)

    def price(tile: tuple[int, int]) -> float:
        full, rest = divmod(pixels, tile[0])
        once = full * _cost(*tile, inputs) + (_cost(rest, tile[1], inputs) if rest else 0)
        return vectors // tile[1] * once

    return min((t for t in _tiles(min(pixels, 14), 5) if vectors % t[1] == 0), key=price)


def _tiles(rows: int, vectors: int) -> Iterator[tuple[int, int]]:
    for o, v in product(range(1, rows + 1), range(1, vectors + 1)):
        if o * v + v + 1 <= REGISTERS:
            yield o, v


def _cost(rows: int, vectors: int, depth: int) -> float:
    adds = rows * vectors
    loads = rows + vectors
    return depth * max(adds / 2, loads / 2, (adds + loads) / 4, 4.0) + 12 + 2.5 * adds
