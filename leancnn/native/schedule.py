"""Where everything lies and how each kernel walks: pitches, planes, the arena, register tiles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from leancnn.native.graph import Affine, Conv, Pool
from leancnn.native.program import (
    Blend,
    Buffer,
    Dense,
    Flatten,
    Kernel,
    Line,
    Program,
    Soft,
    Store,
    reads,
    writes,
)

WIDEST = 16  # lanes of the widest vectors we plan for; narrower ones divide it
L1_FLOATS = 6 * 1024  # of the first cache, what a kernel may expect to keep for its input
L2_FLOATS = 128 * 1024
Tiles = Mapping[str, tuple[int, int]]
"""Channels and vectors of the register tile for some layer shapes, by `shape_key`."""


@dataclass(frozen=True, slots=True)
class Phases:
    """A strided convolution as one of stride 1: rows and columns dealt out to planes of their own.

    Phase (a, b) holds the pixels whose row is a and column b modulo the stride, `pitch` apart like
    the output's, so that every tap is a shift of one long line again.
    """

    which: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]  # of each phase
    columns: int
    pitch: int
    stride: int  # floats from phase to phase
    fill: float | None  # what stands outside the image, when not the zeros around the planes
    offset: int = 0  # place in the arena

    @property
    def size(self) -> int:
        """Floats for one channel."""
        return len(self.which) * self.stride


@dataclass(frozen=True, slots=True)
class Plan:
    """How a line kernel walks."""

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


@dataclass(slots=True, eq=False)
class Schedule:
    """A program whose buffers have places, with a plan for each of its line kernels."""

    program: Program
    plans: dict[Line, Plan]


def schedule(program: Program, tiles: Tiles | None = None) -> Schedule:
    """Decide everything that is left to decide; `tiles` overrule the cost model."""
    for kernel in program.kernels:
        _ask_for_gaps(kernel)
    _set_pitches(program)
    _set_lives(program)
    scratch: dict[Line, Buffer] = {}
    plans: dict[Line, Plan] = {}
    for at, kernel in enumerate(program.kernels):
        if isinstance(kernel, Line):
            plans[kernel] = plan(kernel, (tiles or {}).get(shape_key(kernel)))
            phases = plans[kernel].phases
            if phases is not None:
                floats = phases.size * plans[kernel].inputs + phases.pitch + 4 * WIDEST
                scratch[kernel] = Buffer(
                    f"{kernel.name} phases", 1, 1, 1, size=_round(floats), born=at, dies=at
                )
    _place(program, scratch)
    for kernel, buffer in scratch.items():
        old = plans[kernel]
        assert old.phases is not None
        plans[kernel] = replace(old, phases=replace(old.phases, offset=buffer.origin))
    return Schedule(program, plans)


def outside_is_zero(op: Pool, kernel: Line) -> bool:
    """Whether zeros around the image may stand for what a pooling must not see there."""
    return op.how == "mean" or all(buffer.positive for buffer in kernel.x.buffers)


def _ask_for_gaps(kernel: Kernel) -> None:
    """Note on the buffers a kernel reads how many zeros it expects around their planes."""
    if not isinstance(kernel, Line) or not isinstance(kernel.op, Conv | Pool):
        return
    if isinstance(kernel.op, Pool) and not outside_is_zero(kernel.op, kernel):
        return
    top, left, bottom, right = kernel.op.padding
    for buffer in kernel.x.buffers:
        rows, columns = buffer.gap
        buffer.gap = (max(rows, top, bottom), max(columns, left, right))


def _moves_straight(kernel: Line) -> bool:
    """Whether pixels of input and output correspond at equal distances along the line."""
    if kernel.op is None:
        return True
    if isinstance(kernel.op, Pool) and any(kernel.op.padding):
        return kernel.op.stride == (1, 1) and outside_is_zero(kernel.op, kernel)
    return kernel.op.stride == (1, 1)


def _reach(op: Conv | Pool) -> tuple[int, int]:
    """Rows and columns from a window's first tap to its last."""
    if isinstance(op, Pool):
        return op.kernel[0] - 1, op.kernel[1] - 1
    rows, columns = op.weight.shape[2:]
    return (rows - 1) * op.dilation[0], (columns - 1) * op.dilation[1]


def _set_pitches(program: Program) -> None:
    """Give buffers that one line kernel reads and writes the same pitch, the smallest."""
    parent: dict[Buffer, Buffer] = {buffer: buffer for buffer in program.buffers}

    def root(buffer: Buffer) -> Buffer:
        while parent[buffer] is not buffer:
            buffer = parent[buffer]
        return buffer

    least: dict[Buffer, int] = {}
    for kernel in program.kernels:
        if not isinstance(kernel, Line):
            for value in reads(kernel):
                _unite(parent, root, value.buffers)
            continue
        others = [
            step.other
            for step in kernel.steps
            if isinstance(step, Blend) and step.other is not None
        ]
        planes = [b for v in others if (v.height, v.width) != (1, 1) for b in v.buffers]
        made = [b for b in writes(kernel) if not b.vector]
        _unite(parent, root, kernel.x.buffers)
        _unite(parent, root, [*made, *planes])
        if _moves_straight(kernel):
            _unite(parent, root, [*made, *kernel.x.buffers])
        for buffer in made:
            reach = 0
            if kernel.op is not None and not _moves_straight(kernel):
                reach = _reach(kernel.op)[1] // kernel.op.stride[1]
            least[buffer] = max(least.get(buffer, 0), kernel.width + reach)
    pitches: dict[Buffer, int] = {}
    for buffer in program.buffers:
        wanted = max(buffer.width + buffer.gap[1], least.get(buffer, 0))
        pitches[root(buffer)] = max(pitches.get(root(buffer), 1), wanted)
    for buffer in program.buffers:
        if buffer.vector and pitches[root(buffer)] == 1:
            buffer.size = _round(buffer.channels + WIDEST)
            continue
        buffer.pitch = pitches[root(buffer)]
        rows, columns = buffer.gap
        buffer.below = _round(rows * buffer.pitch + columns)
        buffer.stride = _round(buffer.line + rows * buffer.pitch + columns)
        if buffer.stride % 512 < WIDEST:
            buffer.stride += WIDEST  # planes a power of two apart would share few cache lines
        buffer.size = buffer.below + buffer.channels * buffer.stride


def _unite(parent, root, buffers: Iterable[Buffer]) -> None:  # type: ignore[no-untyped-def]
    first: Buffer | None = None
    for buffer in buffers:
        if buffer.vector:
            continue
        if first is not None:
            parent[root(buffer)] = root(first)
        first = buffer


def _set_lives(program: Program) -> None:
    for at, kernel in enumerate(program.kernels):
        for buffer in writes(kernel):
            buffer.born = buffer.dies = at
        for value in reads(kernel):
            for buffer in value.buffers:
                buffer.dies = at
    for buffer in program.logits.buffers:
        buffer.dies = len(program.kernels)
    program.image.born = -1


def _heir(kernel: Kernel, at: int, taken: set[Buffer]) -> tuple[Buffer, Buffer] | None:
    """A buffer of this kernel that may lie where one it reads element by element ends its life."""
    if not isinstance(kernel, Line):
        return None
    before: list[Buffer] = []
    if kernel.op is None and kernel.x.top == kernel.x.left == 0:
        before += _in_order(kernel.x.planes)
    for step in kernel.steps:
        if isinstance(step, Blend) and step.other is not None:
            before += _in_order(step.other.planes)
        if isinstance(step, Store):
            for old in before:
                busy = kernel.op is not None and old in kernel.x.buffers
                alike = (old.channels, old.height, old.width, old.gap, old.stride) == (
                    step.buffer.channels,
                    step.buffer.height,
                    step.buffer.width,
                    step.buffer.gap,
                    step.buffer.stride,
                )
                if old.dies == at and not busy and alike and old not in taken:
                    return old, step.buffer
    return None


def _in_order(planes: tuple[tuple[Buffer, int], ...]) -> list[Buffer]:
    """The buffer whose planes these are, all and in order, or nothing."""
    buffer = planes[0][0]
    whole = len(planes) == buffer.channels and all(
        b is buffer and c == place for place, (b, c) in enumerate(planes)
    )
    return [buffer] if whole else []


def _place(program: Program, scratch: dict[Line, Buffer]) -> None:
    """Give every buffer its place: the lowest that is free for its whole life."""
    heirs: dict[Buffer, Buffer] = {}
    for at, kernel in enumerate(program.kernels):
        pair = _heir(kernel, at, set(heirs.values()))
        if pair is not None:
            heirs[pair[1]] = pair[0]
    lives: dict[Buffer, list[Buffer]] = {}
    for buffer in [*program.buffers, *scratch.values()]:
        first = buffer
        while first in heirs:
            first = heirs[first]
        lives.setdefault(first, []).append(buffer)
    placed: list[tuple[int, int, int, int]] = []  # from, to in the arena; from, to in time
    order = sorted(lives, key=lambda b: (-b.size, b.born))
    for first in order:
        born = min(b.born for b in lives[first])
        dies = max(b.dies for b in lives[first])
        at = 0
        for low, high, begin, end in sorted(placed):
            if begin <= dies and born <= end and at < high and low < at + first.size:
                at = _round(high)
        placed.append((at, at + first.size, born, dies))
        for buffer in lives[first]:
            buffer.origin = at + buffer.below
    slack = 8 * WIDEST + 2 * max(buffer.pitch for buffer in program.buffers)
    program.arena = _round(max(high for _, high, _, _ in placed) + slack)


def _round(count: int) -> int:
    return -(-count // WIDEST) * WIDEST


def shape_key(kernel: Line) -> str:
    """What the speed of a convolution's tiles depends on, in a word; empty for other kernels."""
    op, x = kernel.op, kernel.x
    if not isinstance(op, Conv):
        return ""
    sizes = (len(x.planes), x.height, x.width, len(op.weight), *op.weight.shape[2:])
    return "-".join(map(str, (*sizes, op.groups, *op.stride, *op.padding, *op.dilation)))


def likely_tiles(kernel: Line, count: int) -> list[tuple[int, int]]:
    """Channels and vectors of register tiles, the best by the cost model first."""
    pitch = next(b.pitch for b in writes(kernel))
    taps, _ = _taps(kernel, pitch, 0)
    vectors = -(-kernel.height * pitch // WIDEST)
    inputs, wide = _depth(kernel)
    order = sorted(
        (cost(o, v, wide, (inputs, len(taps)), vectors), -o, v)
        for o, v in product(range(1, min(wide, 14) + 1), range(1, 9))
        if o * v + v + 1 <= 32
    )
    return [(-o, v) for _, o, v in order[:count]]


def _depth(kernel: Line) -> tuple[int, int]:
    """Channels that a group of a line kernel reads, and those it makes."""
    if not isinstance(kernel.op, Conv):
        return 1, 1
    return kernel.op.weight.shape[1], kernel.channels // kernel.op.groups


def plan(kernel: Line, tile: tuple[int, int] | None = None) -> Plan:
    """The register tile, by the cost model unless it is given, and the walk of a line kernel."""
    pitch = next(b.pitch for b in writes(kernel))
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
        chunk = many * WIDEST  # deal out the rows of one tile just before it
    if phases is not None and chunk:
        taps, phases = _taps(kernel, pitch, chunk)
    rest = vectors % many
    return Plan(inputs, outputs, blocks, groups, many, few, rest, chunk, taps, phases)


def cost(outputs: int, vectors: int, wide: int, depth: tuple[int, int], line: int) -> float:
    """Cycles, about, for one group with a tile of so many channels and vectors.

    Counted for two multiply-add units of latency 4, two loads and four instructions a cycle, and 16
    bytes a cycle from the second cache when a tile's inputs outgrow the first. `depth`: inputs and
    taps of one output; `line`: vectors in a plane.
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


def _taps(kernel: Line, pitch: int, chunk: int) -> tuple[tuple[int, ...], Phases | None]:
    """Offsets of the window's taps, and the phases they point into, when there are any.

    `chunk`: pixels for which the phases are dealt out at a time; 0: all.
    """
    op = kernel.op
    if op is None:
        return (0,), None
    size = op.kernel if isinstance(op, Pool) else op.weight.shape[2:]
    dilation = (1, 1) if isinstance(op, Pool) else op.dilation
    places = [(y * dilation[0], x * dilation[1]) for y, x in product(*map(range, size))]
    top, left = op.padding[:2]
    if _moves_straight(kernel):
        return tuple((y - top) * kernel.x.pitch + x - left for y, x in places), None
    rows, columns = op.stride
    which = tuple(sorted({(y % rows, x % columns) for y, x in places}))
    heights = tuple(
        kernel.height + max(y // rows for y, x in places if (y % rows, x % columns) == phase)
        for phase in which
    )
    wide = kernel.width + max(x // columns for _, x in places)
    held = max(heights)
    if chunk:
        held = min(held, (chunk - 1) // pitch + 2 + held - kernel.height)
    stride = _round(held * pitch + WIDEST)
    fill = None
    if isinstance(op, Pool) and any(op.padding) and not outside_is_zero(op, kernel):
        fill = float("-inf")
    taps = tuple(
        which.index((y % rows, x % columns)) * stride + (y // rows) * pitch + x // columns
        for y, x in places
    )
    return taps, Phases(which, heights, wide, pitch, stride, fill)


def affines(kernel: Line | Dense) -> list[Affine]:
    """The scale-and-shift steps of a kernel, whose numbers stand beside its weights."""
    return [step for step in kernel.steps if isinstance(step, Affine)]


__all__ = ["Dense", "Flatten", "Phases", "Plan", "Schedule", "Soft", "affines", "plan", "schedule"]
