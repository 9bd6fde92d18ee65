"""Where everything lies: layouts, pitches, planes, the arena."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from leancnn.compiler.blocked import Layout, choose, is_pointwise, tile
from leancnn.compiler.graph import Conv, Pool
from leancnn.compiler.loops import (
    Tiles,
    Tiling,
    moves_straight,
    outside_is_zero,
    reach,
    round_up,
    shape_key,
    tiling,
)
from leancnn.compiler.program import (
    WIDEST,
    Binary,
    BlockedKernel,
    Buffer,
    Kernel,
    PlanarKernel,
    Program,
    Store,
    reads,
    writes,
)
from leancnn.compiler.winograd import Tile, Winograd, is_winograd, placed, scratch_floats, way


@dataclass(slots=True, eq=False)
class Schedule:
    """A program whose buffers have places, with a plan for each of its line kernels, and a tile for
    each 1×1 and a walk for each 3×3 convolution with channels abreast."""

    program: Program
    tilings: dict[PlanarKernel, Tiling]
    tiles: dict[BlockedKernel, Tile]
    walks: dict[BlockedKernel, Winograd]


def schedule(
    program: Program,
    tiles: Tiles | None = None,
    layout: Layout = "best",
    *,
    small: bool = False,
) -> Schedule:
    """Decide everything that is left to decide; `tiles` and `layout` overrule the cost model.

    `small`: planes float beside float, for plain loops, which never write beyond a line.
    """
    grain = 1 if small else WIDEST
    _set_pitches(program, grain)
    choose(program, "planes" if small else layout)
    _set_pitches(program, grain)
    _set_lives(program)
    chosen = {
        kernel: tile(kernel, (tiles or {}).get(shape_key(kernel)))
        for kernel in program.kernels
        if isinstance(kernel, BlockedKernel) and is_pointwise(kernel)
    }
    walks = {
        kernel: way(kernel, (tiles or {}).get(shape_key(kernel)))
        for kernel in program.kernels
        if isinstance(kernel, BlockedKernel) and is_winograd(kernel)
    }
    scratch: dict[PlanarKernel | BlockedKernel, Buffer] = {}
    tilings: dict[PlanarKernel, Tiling] = {}
    for at, kernel in enumerate(program.kernels):
        floats = 0
        if isinstance(kernel, PlanarKernel):
            tilings[kernel] = tiling(kernel, (tiles or {}).get(shape_key(kernel)))
            phases = tilings[kernel].phases
            if phases is not None:
                floats = phases.size * tilings[kernel].inputs + phases.pitch + 4 * WIDEST
        if isinstance(kernel, BlockedKernel) and kernel in walks:
            floats = scratch_floats(kernel, walks[kernel])
        if floats and isinstance(kernel, PlanarKernel | BlockedKernel):
            name = f"{kernel.name} scratch"
            scratch[kernel] = Buffer(name, 1, 1, 1, size=round_up(floats), born=at, dies=at)
    _place(program, scratch.values(), grain)
    for kernel, buffer in scratch.items():
        if isinstance(kernel, BlockedKernel):
            walks[kernel] = placed(walks[kernel], buffer.origin)
            continue
        old = tilings[kernel]
        assert old.phases is not None
        tilings[kernel] = replace(old, phases=replace(old.phases, offset=buffer.origin))
    return Schedule(program, tilings, chosen, walks)


def _ask_for_gaps(kernel: Kernel) -> None:
    """Note on the buffers a kernel reads how many zeros it expects around their planes."""
    if not isinstance(kernel, PlanarKernel) or not isinstance(kernel.op, Conv | Pool):
        return
    if isinstance(kernel.op, Pool) and not outside_is_zero(kernel.op, kernel):
        return
    top, left, bottom, right = kernel.op.padding
    for buffer in kernel.x.buffers:
        rows, columns = buffer.gap
        buffer.gap = (max(rows, top, bottom), max(columns, left, right))


def _set_pitches(program: Program, grain: int) -> None:
    """Give buffers that one line kernel reads and writes the same pitch, the smallest.

    Planes begin a multiple of `grain` floats apart.
    """
    for buffer in program.buffers:
        buffer.gap = (0, 0)
    for kernel in program.kernels:
        _ask_for_gaps(kernel)
    parent: dict[Buffer, Buffer] = {buffer: buffer for buffer in program.buffers}

    def root(buffer: Buffer) -> Buffer:
        while parent[buffer] is not buffer:
            buffer = parent[buffer]
        return buffer

    least: dict[Buffer, int] = {}
    for kernel in program.kernels:
        if not isinstance(kernel, PlanarKernel):
            for value in reads(kernel):
                _unite(parent, root, value.buffers)
            continue
        others = [
            step.other
            for step in kernel.steps
            if isinstance(step, Binary) and step.other is not None
        ]
        planes = [b for v in others if (v.height, v.width) != (1, 1) for b in v.buffers]
        made = [b for b in writes(kernel) if not b.vector]
        _unite(parent, root, kernel.x.buffers)
        _unite(parent, root, [*made, *planes])
        if moves_straight(kernel):
            _unite(parent, root, [*made, *kernel.x.buffers])
        for buffer in made:
            beyond = 0
            if kernel.op is not None and not moves_straight(kernel):
                beyond = reach(kernel.op)[1] // kernel.op.stride[1]
            least[buffer] = max(least.get(buffer, 0), kernel.width + beyond)
    pitches: dict[Buffer, int] = {}
    for buffer in program.buffers:
        wanted = max(buffer.width + buffer.gap[1], least.get(buffer, 0))
        pitches[root(buffer)] = max(pitches.get(root(buffer), 1), wanted)
    for buffer in program.buffers:
        buffer.below = 0
        if buffer.blocked:
            buffer.pitch = buffer.width * WIDEST
            buffer.stride = _apart(buffer.line)
            buffer.size = round_up(buffer.channels) // WIDEST * buffer.stride
            continue
        if buffer.vector:  # no window looks beyond a pixel: see simplify
            buffer.pitch = buffer.stride = 1
            buffer.size = round_up(buffer.channels + WIDEST)
            continue
        buffer.pitch = pitches[root(buffer)]
        rows, columns = buffer.gap
        buffer.below = round_up(rows * buffer.pitch + columns, grain)
        stride = round_up(buffer.line + rows * buffer.pitch + columns, grain)
        buffer.stride = stride if grain == 1 else _apart(stride)
        buffer.size = buffer.below + buffer.channels * buffer.stride


def _apart(stride: int) -> int:
    """Floats from plane to plane: a power of two apart they would share few cache lines."""
    return stride + WIDEST if stride % 512 < WIDEST else stride


def _unite(parent, root, buffers: Iterable[Buffer]) -> None:  # type: ignore[no-untyped-def]
    first: Buffer | None = None
    for buffer in buffers:
        if buffer.vector or buffer.blocked:
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
    """A buffer of this kernel that may lie where one it reads element by element ends its life.

    The place is free from the last step that reads it on. A line kernel whose planes are single
    floats writes over the next ones, too.
    """
    if not isinstance(kernel, PlanarKernel | BlockedKernel):
        return None
    if isinstance(kernel, PlanarKernel) and (kernel.height, kernel.width) == (1, 1):
        return None
    last = dict.fromkeys(kernel.x.buffers, -1) if kernel.op is None else {}
    for place, step in enumerate(kernel.steps):
        if isinstance(step, Binary) and step.other is not None:
            last.update(dict.fromkeys(step.other.buffers, place))
    for place, step in enumerate(kernel.steps):
        if not isinstance(step, Store):
            continue
        for old in [buffer for buffer, read in last.items() if read < place]:
            busy = kernel.op is not None and old in kernel.x.buffers
            busy = busy or any(old in v.buffers and v.whole is None for v in reads(kernel))
            if old.dies != at or old in taken or busy or old is step.buffer:
                continue
            if _layout(old) == _layout(step.buffer):
                return old, step.buffer
    return None


def _layout(buffer: Buffer) -> tuple[object, ...]:
    """What two buffers must have in common to lie in the same place."""
    shape = (buffer.channels, buffer.height, buffer.width)
    return (*shape, buffer.gap, buffer.pitch, buffer.stride, buffer.blocked)


def _place(program: Program, scratch: Iterable[Buffer], grain: int) -> None:
    """Give every buffer its place: the lowest that is free for its whole life."""
    heirs: dict[Buffer, Buffer] = {}
    for at, kernel in enumerate(program.kernels):
        pair = _heir(kernel, at, set(heirs.values()))
        if pair is not None:
            heirs[pair[1]] = pair[0]
    lives: dict[Buffer, list[Buffer]] = {}
    for buffer in [*program.buffers, *scratch]:
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
                at = round_up(high, grain)
        placed.append((at, at + first.size, born, dies))
        for buffer in lives[first]:
            buffer.origin = at + buffer.below
    slack = 8 * grain + 2 * max(buffer.pitch for buffer in program.buffers)
    program.arena = round_up(max(high for _, high, _, _ in placed) + slack)
