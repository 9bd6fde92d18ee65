"""Where everything lies: layouts, pitches, planes, the arena."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from leancnn.compiler.arena import WIDEST, padded_stride, round_up, set_origins
from leancnn.compiler.kernel import Kernel, Plan, Program, operand
from leancnn.compiler.layout import Layout, choose
from leancnn.compiler.loops import Tiles
from leancnn.compiler.values import Buffer, Store


@dataclass(slots=True, eq=False)
class Schedule:
    """A program with what is decided about it: when all is, its buffers have places."""

    program: Program
    layout: Layout = "best"
    tiles: Tiles = field(default_factory=dict)
    """Register tiles that are given, by `tile_key`; others are those of the cost model."""
    grain: int = WIDEST
    """Floats of which places and the distances of planes are multiples."""
    plans: dict[Kernel, Plan] = field(default_factory=dict)
    """How each kernel walks."""
    done: list[Callable[["Schedule"], None]] = field(default_factory=list)
    """The passes that have decided, in order."""


def schedule(
    program: Program,
    tiles: Tiles | None = None,
    layout: Layout = "best",
    *,
    small: bool = False,
) -> Schedule:
    """Decide everything that is left to decide, by `PASSES`; `tiles` and `layout` overrule the cost
    model.

    `small`: planes float beside float, for plain loops, which never write beyond a line.
    """
    planned = Schedule(program, "planes" if small else layout, tiles or {}, 1 if small else WIDEST)
    for decide in PASSES:
        decide(planned)
        planned.done.append(decide)
    return planned


def set_layout(planned: Schedule) -> None:
    """Choose the kernels that are blocked, and copy values where layouts meet."""
    choose(planned.program, planned.layout)


def _ask_for_gaps(kernel: Kernel) -> None:
    """Note on the buffers a kernel reads how many zeros it expects around their planes."""
    top, left, bottom, right = kernel.margins()
    for buffer in kernel.x.buffers:
        rows, columns = buffer.gap
        buffer.gap = (max(rows, top, bottom), max(columns, left, right))


def set_pitches(planned: Schedule) -> None:
    """Give buffers that one kernel reads and writes the same pitch, the smallest."""
    program, grain = planned.program, planned.grain
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
        for buffers in kernel.same_pitch():
            _unite(parent, root, buffers)
        for buffer in kernel.writes():
            least[buffer] = max(least.get(buffer, 0), kernel.least_pitch())
    pitches: dict[Buffer, int] = {}
    for buffer in program.buffers:
        wanted = max(buffer.width + buffer.gap[1], least.get(buffer, 0))
        pitches[root(buffer)] = max(pitches.get(root(buffer), 1), wanted)
    for buffer in program.buffers:
        _set_size(buffer, pitches[root(buffer)], grain)


def _set_size(buffer: Buffer, pitch: int, grain: int) -> None:
    """Set its pitch, how far apart its planes are, and how many floats it takes."""
    buffer.below = 0
    if buffer.blocked:
        buffer.pitch = buffer.width * WIDEST
        buffer.stride = padded_stride(buffer.line)
        buffer.size = round_up(buffer.channels) // WIDEST * buffer.stride
        return
    if buffer.vector:  # no window looks beyond a pixel: see simplify
        buffer.pitch = buffer.stride = 1
        buffer.size = round_up(buffer.channels + WIDEST)
        return
    buffer.pitch = pitch
    rows, columns = buffer.gap
    buffer.below = round_up(rows * buffer.pitch + columns, grain)
    stride = round_up(buffer.line + rows * buffer.pitch + columns, grain)
    buffer.stride = stride if grain == 1 else padded_stride(stride)
    buffer.size = buffer.below + buffer.channels * buffer.stride


def _unite(parent, root, buffers: Iterable[Buffer]) -> None:  # type: ignore[no-untyped-def]
    first: Buffer | None = None
    for buffer in buffers:
        if buffer.vector or buffer.blocked:
            continue
        if first is not None:
            parent[root(buffer)] = root(first)
        first = buffer


def set_lives(planned: Schedule) -> None:
    """Note the first and the last kernel that needs each buffer."""
    program = planned.program
    for at, kernel in enumerate(program.kernels):
        for buffer in kernel.writes():
            buffer.born = buffer.dies = at
        for value in kernel.reads():
            for buffer in value.buffers:
                buffer.dies = at
    for buffer in program.logits.buffers:
        buffer.dies = len(program.kernels)
    program.image.born = -1


def set_plans(planned: Schedule) -> None:
    """Decide how each kernel walks over its buffers; their pitches may not change any more."""
    for kernel in planned.program.kernels:
        place = planned.plans[kernel].place if kernel in planned.plans else 0
        plan = kernel.plan(planned.tiles.get(kernel.tile_key))
        planned.plans[kernel] = replace(plan, place=place)


def _reusable(kernel: Kernel, at: int, taken: set[Buffer]) -> tuple[Buffer, Buffer] | None:
    """A buffer of this kernel that may lie where one it reads element by element ends its life.

    The place is free from the last operator that reads it on.
    """
    if not kernel.in_place:
        return None
    last = dict.fromkeys(kernel.x.buffers, -1) if kernel.elementwise else {}
    for place, op in enumerate(kernel.epilogue):
        if (other := operand(op)) is not None:
            last.update(dict.fromkeys(other.buffers, place))
    for place, op in enumerate(kernel.epilogue):
        if not isinstance(op, Store):
            continue
        for old in [buffer for buffer, read in last.items() if read < place]:
            busy = not kernel.elementwise and old in kernel.x.buffers
            busy = busy or any(old in v.buffers and v.whole is None for v in kernel.reads())
            if old.dies != at or old in taken or busy or old is op.buffer:
                continue
            if _layout(old) == _layout(op.buffer):
                return old, op.buffer
    return None


def _layout(buffer: Buffer) -> tuple[object, ...]:
    """What two buffers must have in common to lie in the same place."""
    return (*buffer.shape, buffer.gap, buffer.pitch, buffer.stride, buffer.blocked)


def set_places(planned: Schedule) -> None:
    """Give every buffer, and the scratch of every kernel, the lowest place that is free for it."""
    program, grain = planned.program, planned.grain
    scratch = {}
    for at, kernel in enumerate(program.kernels):
        if floats := round_up(planned.plans[kernel].scratch):
            name = f"{kernel.name} scratch"
            scratch[kernel] = Buffer(name, 1, 1, 1, size=floats, born=at, dies=at)
    reused: dict[Buffer, Buffer] = {}
    for at, kernel in enumerate(program.kernels):
        pair = _reusable(kernel, at, set(reused.values()))
        if pair is not None:
            reused[pair[1]] = pair[0]
    top = set_origins([*program.buffers, *scratch.values()], reused, grain=grain)
    slack = 8 * grain + 2 * max(buffer.pitch for buffer in program.buffers)
    program.arena = round_up(top + slack)
    for kernel, buffer in scratch.items():
        planned.plans[kernel] = replace(planned.plans[kernel], place=buffer.origin)


PASSES: tuple[Callable[[Schedule], None], ...] = (
    set_pitches,  # of planes alone: what a kernel costs depends on them
    set_layout,
    set_pitches,  # blocked buffers have none, and new ones came
    set_lives,  # also of copies
    set_plans,  # taps are distances of rows; says how much scratch there is
    set_places,
)
"""What decides about memory, in order: each takes what those before it decided as settled, and
`verify` refuses a program about which one would decide otherwise at the end."""
