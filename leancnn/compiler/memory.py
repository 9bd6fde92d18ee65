"""Where everything lies: layouts, pitches, planes, the arena."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from leancnn.compiler.kernel import Kernel, Plan, Program, operand
from leancnn.compiler.layout import Layout, choose
from leancnn.compiler.loops import Tiles
from leancnn.compiler.values import WIDEST, Buffer, Store, round_up


@dataclass(slots=True, eq=False)
class Schedule:
    """A program whose buffers have places, and how each of its kernels walks."""

    program: Program
    plans: dict[Kernel, Plan]


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
    plans = {kernel: kernel.plan((tiles or {}).get(kernel.tile_key)) for kernel in program.kernels}
    scratch = {}
    for at, kernel in enumerate(program.kernels):
        if floats := round_up(plans[kernel].scratch):
            name = f"{kernel.name} scratch"
            scratch[kernel] = Buffer(name, 1, 1, 1, size=floats, born=at, dies=at)
    _place(program, scratch.values(), grain)
    for kernel, buffer in scratch.items():
        plans[kernel] = replace(plans[kernel], place=buffer.origin)
    return Schedule(program, plans)


def _ask_for_gaps(kernel: Kernel) -> None:
    """Note on the buffers a kernel reads how many zeros it expects around their planes."""
    top, left, bottom, right = kernel.margins()
    for buffer in kernel.x.buffers:
        rows, columns = buffer.gap
        buffer.gap = (max(rows, top, bottom), max(columns, left, right))


def _set_pitches(program: Program, grain: int) -> None:
    """Give buffers that one kernel reads and writes the same pitch, the smallest.

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
        for buffers in kernel.alike():
            _unite(parent, root, buffers)
        for buffer in kernel.writes():
            least[buffer] = max(least.get(buffer, 0), kernel.least_pitch())
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
        for buffer in kernel.writes():
            buffer.born = buffer.dies = at
        for value in kernel.reads():
            for buffer in value.buffers:
                buffer.dies = at
    for buffer in program.logits.buffers:
        buffer.dies = len(program.kernels)
    program.image.born = -1


def _heir(kernel: Kernel, at: int, taken: set[Buffer]) -> tuple[Buffer, Buffer] | None:
    """A buffer of this kernel that may lie where one it reads element by element ends its life.

    The place is free from the last step that reads it on.
    """
    if not kernel.in_place:
        return None
    last = dict.fromkeys(kernel.x.buffers, -1) if kernel.elementwise else {}
    for place, step in enumerate(kernel.steps):
        if (other := operand(step)) is not None:
            last.update(dict.fromkeys(other.buffers, place))
    for place, step in enumerate(kernel.steps):
        if not isinstance(step, Store):
            continue
        for old in [buffer for buffer, read in last.items() if read < place]:
            busy = not kernel.elementwise and old in kernel.x.buffers
            busy = busy or any(old in v.buffers and v.whole is None for v in kernel.reads())
            if old.dies != at or old in taken or busy or old is step.buffer:
                continue
            if _layout(old) == _layout(step.buffer):
                return old, step.buffer
    return None


def _layout(buffer: Buffer) -> tuple[object, ...]:
    """What two buffers must have in common to lie in the same place."""
    return (*buffer.shape, buffer.gap, buffer.pitch, buffer.stride, buffer.blocked)


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
