"""How a line kernel walks: taps, phases of strided inputs, register tiles by a cost model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

from leancnn.compiler.arena import WIDEST, round_up
from leancnn.compiler.graph import Conv, Pool
from leancnn.compiler.kernel import Kernel, Plan

L1_FLOATS = 6 * 1024  # of the first cache, what a kernel may expect to keep for its input
L2_FLOATS = 128 * 1024
Tiles = Mapping[str, tuple[int, int]]
"""Channels and vectors of the register tile for some layer shapes, by `tile_key`."""


@dataclass(frozen=True, slots=True)
class Phases:
    """A strided convolution as one of stride 1: a polyphase split of rows and columns into planes.

    Phase (a, b) holds the pixels whose row is a and column b modulo the stride, `pitch` apart like
    the output's, so that every tap is a shift of one long line again.
    """

    which: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]  # of each phase
    columns: int
    pitch: int
    stride: int  # floats from phase to phase
    fill: float | None  # what stands outside the image, when not the zeros around the planes

    @property
    def size(self) -> int:
        """Floats for one channel."""
        return len(self.which) * self.stride


@dataclass(frozen=True, slots=True)
class Tiling(Plan):
    """How a line kernel walks. Its scratch is phases, where it has them."""

    inputs: int  # channels each block reads
    outputs: int  # channels of a register tile
    blocks: int  # register tiles in a group; the last may be filled up with copies
    groups: int
    vectors: int  # of pixels in a register tile, with 32 registers
    few: int  # and with 16
    rest: int  # vectors left over at 16 lanes
    chunk: int  # pixels for which all blocks of a group run before the next; 0: all
    taps: tuple[int, ...]  # floats from a pixel to each of its neighbours
    phases: Phases | None


def likely_tiles(kernel: Kernel, count: int) -> list[tuple[int, int]]:
    """Channels and vectors of register tiles, the best by the cost model first."""
    pitch = kernel.out.pitch
    taps, _ = _taps(kernel, pitch, 0)
    vectors = -(-kernel.height * pitch // WIDEST)
    inputs, wide = _depth(kernel)
    order = sorted(
        (cost(o, v, wide, (inputs, len(taps)), vectors), -o, v)
        for o, v in product(range(1, min(wide, 14) + 1), range(1, 9))
        if o * v + v + 1 <= 32
    )
    return [(-o, v) for _, o, v in order[:count]]


def _depth(kernel: Kernel) -> tuple[int, int]:
    """Channels that a group of a line kernel reads, and those it makes."""
    if not isinstance(kernel.op, Conv):
        return 1, 1
    return kernel.op.weight.shape[1], kernel.channels // kernel.op.groups


def tiling(kernel: Kernel, tile: tuple[int, int] | None = None) -> Tiling:
    """The register tile, by the cost model unless it is given, and the walk of a line kernel."""
    pitch = kernel.out.pitch
    taps, phases = _taps(kernel, pitch, 0)
    line = kernel.height * pitch
    inputs, wide = _depth(kernel)
    groups = kernel.channels // wide
    vectors = -(-line // WIDEST)
    outputs, many = tile or likely_tiles(kernel, 1)[0]
    few = max((v for v in range(1, many + 1) if outputs * v + v + 1 <= 16), default=1)
    blocks = -(-wide // outputs)
    chunk = _chunk(inputs, len(taps), blocks, many, vectors)
    if phases is not None and outputs >= wide:
        chunk = many * WIDEST  # split the rows of one tile just before it
    if phases is not None and chunk:
        taps, phases = _taps(kernel, pitch, chunk)
    rest = vectors % many
    scratch = 0 if phases is None else phases.size * inputs + phases.pitch + 4 * WIDEST
    return Tiling(
        inputs, outputs, blocks, groups, many, few, rest, chunk, taps, phases, scratch=scratch
    )


def cost(outputs: int, vectors: int, wide: int, depth: tuple[int, int], line: int) -> float:
    """Cycles, about, for one group with a tile of so many channels and vectors.

    Counted for two multiply-add units of latency 4, two loads and four instructions a cycle, and 16
    bytes a cycle from the second cache when a tile's inputs outgrow the first. `depth`: inputs and
    taps of one output; `line`: vectors in a plane. What kernels take beside it is measured by
    `python benchmarks/kernel_costs.py kinds`.
    """
    inputs, taps = depth

    def tile(v: int) -> float:
        adds = outputs * v
        step = max(adds / 2, (outputs + 1.7 * v) / 2, (adds + outputs + v) / 3.8, 4.0)
        if inputs * v * WIDEST * min(taps, 3) > L1_FLOATS:
            step = max(step, 4.0 * v * min(taps, 3) / taps) + 1.2 * v * min(taps, 3) / taps
        return inputs * taps * step + 12 + 2.5 * adds

    full, rest = divmod(line, vectors)
    blocks = -(-wide // outputs)
    return blocks * (full * tile(vectors) + (tile(rest) if rest else 0))


def _chunk(inputs: int, taps: int, blocks: int, vectors: int, line: int) -> int:
    """Pixels after which to go on with the next block of channels, so that inputs stay in cache."""
    rows = 1 if taps == 1 else 3
    if blocks <= 1 or inputs * line * WIDEST * rows <= L1_FLOATS:
        return 0
    for room in (L1_FLOATS, L2_FLOATS):
        tiles = room // (inputs * rows * vectors * WIDEST)
        if tiles >= 1:
            chunk = tiles * vectors * WIDEST
            return chunk if chunk < line * WIDEST else 0
    return vectors * WIDEST


def _taps(kernel: Kernel, pitch: int, chunk: int) -> tuple[tuple[int, ...], Phases | None]:
    """Offsets of the window's taps, and the phases they point into, when there are any.

    `chunk`: pixels for which the phases are split at a time; 0: all.
    """
    op = kernel.op
    if op is None:
        return (0,), None
    size = op.kernel if isinstance(op, Pool) else op.weight.shape[2:]
    dilation = (1, 1) if isinstance(op, Pool) else op.dilation
    places = [(y * dilation[0], x * dilation[1]) for y, x in product(*map(range, size))]
    top, left = op.padding[:2]
    if moves_straight(kernel) or picks(kernel):
        return tuple((y - top) * kernel.x.pitch + x - left for y, x in places), None
    rows, columns = op.stride
    which = tuple(sorted({(y % rows, x % columns) for y, x in places}))
    heights = tuple(
        kernel.height + max(y // rows for y, x in places if (y % rows, x % columns) == phase)
        for phase in which
    )
    wide = kernel.width + max(x // columns for _, x in places)
    pitch = max(pitch, wide)  # of one pixel alone, the output's has no room for what its taps read
    held = max(heights)
    if chunk:
        held = min(held, (chunk - 1) // pitch + 2 + held - kernel.height)
    stride = round_up(held * pitch + WIDEST)
    fill = None
    if isinstance(op, Pool) and any(op.padding) and not outside_is_zero(op, kernel):
        fill = float("-inf")
    taps = tuple(
        which.index((y % rows, x % columns)) * stride + (y // rows) * pitch + x // columns
        for y, x in places
    )
    return taps, Phases(which, heights, wide, pitch, stride, fill)


def outside_is_zero(op: Pool, kernel: Kernel) -> bool:
    """Whether zeros around the image may stand for what a pooling must not see there."""
    return op.how == "mean" or all(buffer.positive for buffer in kernel.x.buffers)


def moves_straight(kernel: Kernel) -> bool:
    """Whether pixels of input and output correspond at equal distances along the line."""
    if kernel.op is None:
        return True
    if isinstance(kernel.op, Pool) and any(kernel.op.padding):
        return kernel.op.stride == (1, 1) and outside_is_zero(kernel.op, kernel)
    straight: bool = kernel.op.stride == (1, 1)
    return straight


def picks(kernel: Kernel) -> bool:
    """Whether each tap of a strided convolution picks every second float of a row where it lies.

    Half a vector of the output must not cross rows, however wide vectors are: then two loads and a
    shuffle make a tap, which costs less than splitting rows into planes.
    """
    pitch = kernel.out.pitch
    strided = isinstance(kernel.op, Conv) and kernel.op.stride == (2, 2)
    return strided and pitch % (WIDEST // 2) == 0


def reach(op: Conv | Pool) -> tuple[int, int]:
    """Rows and columns from a window's first tap to its last."""
    if isinstance(op, Pool):
        return op.kernel[0] - 1, op.kernel[1] - 1
    rows, columns = op.weight.shape[2:]
    return (rows - 1) * op.dilation[0], (columns - 1) * op.dilation[1]


def planar_cost(kernel: Kernel) -> float:
    """Cycles, about, of a planar kernel without its epilogue."""
    pitch = kernel.out.pitch
    vectors = -(-kernel.height * pitch // WIDEST)
    split = 0.0
    if not moves_straight(kernel) and not picks(kernel):
        split = 4.0 * len(kernel.x.planes) * -(-kernel.x.height * kernel.x.pitch // WIDEST)
    if not isinstance(kernel.op, Conv):
        return split + 4.0 * kernel.channels * vectors
    taps = len(kernel.op.weight[0, 0].ravel())
    inputs, wide = _depth(kernel)
    outputs, many = likely_tiles(kernel, 1)[0]
    return split + kernel.op.groups * cost(outputs, many, wide, (inputs, taps), vectors)


NARROW_LANES = 4
NARROW_REGISTERS = 13
"""An engine of WebAssembly leaves fifteen of sixteen registers to a tile at best, and spills what
does not fit: tiles of at most so many measured fastest in V8."""


class Narrow(tuple[int, int]):
    """A register tile whose vectors hold four floats, side by side in their rows of weights."""

    __slots__ = ()


def narrow_tile(rows: int, vectors: int, price: Callable[[int, int], float]) -> tuple[int, int]:
    """The cheapest tile of at most so many rows and vectors in few registers."""
    able = [
        (o, v)
        for o, v in product(range(1, rows + 1), range(1, vectors + 1))
        if o * v + v + 1 <= NARROW_REGISTERS
    ]
    return min(able, key=lambda tile: price(*tile))


def narrow_cost(rows: int, vectors: int, depth: int, each: int = 1) -> float:
    """Cycles, about, of a tile: counted as in `cost`; `each`: instructions that load a vector."""
    adds = rows * vectors
    loads = rows + vectors * each
    return depth * max(adds / 2, loads / 2, (adds + loads) / 4, 4.0) + 12 + 2.5 * adds
