"""Refuse a program in which a kernel would read what was overwritten: every one is walked.

Each float of the arena has an owner, the buffer that was written there last, and a kernel is played
as its C runs: its scratch, then its input and its steps in their order. A value must lie where the
loops look for it, in a layout that the kernel knows, and own all of its floats, the zeros around
its planes included, until the last read. Two buffers of one kernel may share a place only where the
same tile reads each float for the last time before it writes it.

What is refused here is a fault of the compiler, never of the network.
"""

import numpy as np

from leancnn.compiler.blocked import is_pointwise
from leancnn.compiler.graph import Conv, Pool
from leancnn.compiler.loops import moves_straight, outside_is_zero
from leancnn.compiler.memory import Schedule
from leancnn.compiler.program import (
    WIDEST,
    Binary,
    BlockedKernel,
    Buffer,
    DenseKernel,
    FlattenKernel,
    Kernel,
    LayoutKernel,
    PlanarKernel,
    Program,
    ReduceKernel,
    SoftmaxKernel,
    Store,
    Value,
    reads,
    writes,
)
from leancnn.compiler.winograd import in_vectors, is_winograd
from leancnn.errors import ProgramError

NOBODY, SCRATCH = -1, -2


def verify(schedule: Schedule) -> None:
    """Walk a scheduled program. Raises `ProgramError` naming the kernel and what is wrong."""
    program = schedule.program
    arena = _Arena(program)
    if program.image.blocked:
        _refuse("the image", "does not lie in planes")
    arena.write("the image", program.image)
    for at, kernel in enumerate(program.kernels):
        _check_lives(at, kernel)
        _check_sizes(kernel)
        _check_layouts(kernel)
        arena.take(kernel.name, *_scratch(schedule, kernel))
        _play(arena, kernel)
    arena.read("the answer", program.logits)
    for buffer in program.logits.buffers:
        if buffer.dies < len(program.kernels):
            _refuse("the answer", f"is read from {buffer.name} after its life")


def _refuse(name: str, what: str) -> None:
    raise ProgramError(f"leancnn's compiler made a wrong program: {name} {what}; please report it")


def _check_lives(at: int, kernel: Kernel) -> None:
    """That a kernel begins the buffers it writes, once, and reads others within their lives."""
    made = writes(kernel)
    if len(set(made)) < len(made):
        _refuse(kernel.name, "stores into one buffer twice")
    for buffer in made:
        if buffer.born != at:
            _refuse(kernel.name, f"writes {buffer.name}, which another kernel makes")
    for value in reads(kernel):
        for buffer in value.buffers:
            if not buffer.born <= at <= buffer.dies:
                _refuse(kernel.name, f"reads {buffer.name} outside its life")


def _check_sizes(kernel: Kernel) -> None:
    """That what is written is as large as what was computed, and what is read is there."""
    x = kernel.x
    shape = (len(x.planes), x.height, x.width)
    for value in reads(kernel):
        for buffer, channel in value.planes:
            beyond = (channel, value.top + value.height - 1, value.left + value.width - 1)
            if any(b >= s for b, s in zip(beyond, _shape(buffer), strict=True)):
                _refuse(kernel.name, f"reads beyond the planes of {buffer.name}")
    match kernel:
        case PlanarKernel() | BlockedKernel():
            shape = (kernel.channels, kernel.height, kernel.width)
        case DenseKernel():
            shape = (kernel.channels, 1, 1)
        case ReduceKernel(over=over):
            shape = (len(x.planes), 1, 1) if over == "pixels" else (1, 1, 1)
        case FlattenKernel(out=out) if np.prod(_shape(out)) == np.prod(shape):
            shape = _shape(out)
    for buffer in writes(kernel):
        if _shape(buffer) != shape:
            _refuse(kernel.name, f"makes {shape} of {buffer.name}, which is {_shape(buffer)}")


def _shape(buffer: Buffer) -> tuple[int, int, int]:
    return buffer.channels, buffer.height, buffer.width


def _check_layouts(kernel: Kernel) -> None:
    """That every value lies as the kernel's loops walk over it."""
    for value in (
        () if isinstance(kernel, LayoutKernel) else reads(kernel)
    ):  # its table knows each channel
        pixels = (value.height, value.width) != (1, 1)
        if pixels and len({(b.pitch, b.blocked) for b in value.buffers}) > 1:
            _refuse(kernel.name, "reads planes of two layouts as one value")
    match kernel:
        case PlanarKernel() | BlockedKernel():
            _check_results(kernel)
            _check_input(kernel)
            for other in reads(kernel)[1:]:
                _check_operand(kernel, other)
        case DenseKernel():
            for other in reads(kernel)[1:]:
                if len(other.planes) not in (1, kernel.channels):
                    _refuse(kernel.name, "has an operand of another length")
        case ReduceKernel(over="pixels") if (
            kernel.x.planes[0][0].blocked and kernel.x.whole is None
        ):
            _refuse(kernel.name, "folds a part of channels abreast as a whole")
        case LayoutKernel() if kernel.out.vector:
            _refuse(kernel.name, "turns a vector")


def _check_results(kernel: PlanarKernel | BlockedKernel) -> None:
    wide = isinstance(kernel, BlockedKernel)
    made = writes(kernel)
    if not made or len({(b.pitch, b.stride if wide else 0) for b in made}) > 1:
        _refuse(kernel.name, "stores planes of different layouts in one walk")
    for buffer in made:
        if buffer.blocked != wide:
            _refuse(kernel.name, f"stores {buffer.name} in the other layout")


def _check_input(kernel: PlanarKernel | BlockedKernel) -> None:
    x, pitch = kernel.x, writes(kernel)[0].pitch
    if isinstance(kernel, PlanarKernel):
        one = (1, 1) in ((x.height, x.width), (kernel.height, kernel.width))
        straight = moves_straight(kernel) and not one
        if any(b.blocked for b in x.buffers) or (straight and x.pitch != pitch):
            _refuse(kernel.name, f"walks over {x.buffers[0].name} as if it lay otherwise")
        return
    whole = x.whole is not None
    if is_pointwise(kernel):
        whole = all(_shape(b)[1:] == (x.height, x.width) for b in x.buffers)
    elif is_winograd(kernel):
        whole = in_vectors(x)
    if not whole or not all(b.blocked for b in x.buffers):
        _refuse(kernel.name, f"walks over {x.buffers[0].name} as if it lay otherwise")


def _check_operand(kernel: PlanarKernel | BlockedKernel, other: Value) -> None:
    made = writes(kernel)[0]
    if _is_small(kernel, other):
        many = len(other.planes)
        if many not in (1, kernel.channels):
            _refuse(kernel.name, "has a gate of another length")
        places = other.places()
        if isinstance(kernel, BlockedKernel) and places != list(range(places[0], places[0] + many)):
            _refuse(kernel.name, "has a gate whose channels do not lie side by side")
        return
    counts = {kernel.channels} if isinstance(kernel, BlockedKernel) else {kernel.channels, 1}
    same = len(other.planes) in counts and other.pitch == made.pitch
    if isinstance(kernel, BlockedKernel):
        same = same and other.whole is not None and other.buffers[0].stride == made.stride
    if not same or any(b.blocked != made.blocked for b in other.buffers):
        _refuse(kernel.name, f"walks over {other.buffers[0].name} as if it lay otherwise")


def _is_small(kernel: Kernel, other: Value) -> bool:
    """Whether an operand is one number for all pixels of a channel."""
    sizes = (
        (kernel.height, kernel.width)
        if isinstance(kernel, PlanarKernel | BlockedKernel)
        else (1, 1)
    )
    one = (other.height, other.width) == (1, 1)
    return one and (sizes != (1, 1) or len(other.planes) == 1)


def _scratch(schedule: Schedule, kernel: Kernel) -> tuple[int, int]:
    """Where in the arena a kernel's own scratch begins and ends."""
    if isinstance(kernel, PlanarKernel) and (phases := schedule.tilings[kernel].phases) is not None:
        floats = phases.size * schedule.tilings[kernel].inputs + phases.pitch
        return phases.offset, phases.offset + floats
    if isinstance(kernel, BlockedKernel) and kernel in schedule.walks:
        way = schedule.walks[kernel]
        return way.place, way.place + sum(way.parts(-(-kernel.channels // WIDEST)))
    return 0, 0


def _play(arena: "_Arena", kernel: Kernel) -> None:
    """What a kernel reads and writes, in the order of one tile."""
    made, steps = writes(kernel), _steps(kernel)
    each = isinstance(kernel, PlanarKernel | BlockedKernel | DenseKernel) and kernel.op is None
    lasting = [] if each else [kernel.x]  # every tile may read all of it
    lasting += [v for v in reads(kernel)[1:] if _is_small(kernel, v)]
    if _spills(kernel):
        lasting += reads(kernel)[1:]
    arena.read(kernel.name, kernel.x, _margins(kernel))
    for value in lasting:
        arena.apart(kernel.name, value, [b for b in made if b not in value.buffers])
    before = [kernel.x] if each else []
    if isinstance(kernel, ReduceKernel):  # the result lies there already when its steps begin
        arena.write(kernel.name, made[0])
        before = []
    for step in steps:
        if isinstance(step, Binary) and step.other is not None:
            arena.read(kernel.name, step.other)
            before.append(step.other)
        elif isinstance(step, Store):
            for value in before:
                if arena.touch(value, step.buffer) and not _congruent(value, step.buffer):
                    _refuse(kernel.name, f"writes {step.buffer.name} over pixels it reads later")
            arena.write(kernel.name, step.buffer)
    if isinstance(kernel, FlattenKernel | LayoutKernel | SoftmaxKernel):
        arena.write(kernel.name, kernel.out)


def _spills(kernel: Kernel) -> bool:
    """Whether a vector that is stored ends in floats of the next planes, which follow later."""
    if isinstance(kernel, PlanarKernel):
        return (kernel.height, kernel.width) == (1, 1)
    return isinstance(kernel, DenseKernel) and kernel.op is not None and kernel.op.groups > 1


def _steps(kernel: Kernel) -> tuple[object, ...]:
    return (
        kernel.steps
        if isinstance(kernel, PlanarKernel | BlockedKernel | DenseKernel | ReduceKernel)
        else ()
    )


def _congruent(value: Value, buffer: Buffer) -> bool:
    """Whether each pixel of a buffer lies where the same pixel of a value does."""
    mine = [buffer.plane(c) for c in range(buffer.channels)]
    size = (buffer.height, buffer.width)
    return (
        value.places() == mine
        and (value.height, value.width) == size
        and (size == (1, 1) or (value.pitch, value.step) == (buffer.pitch, buffer.step))
        and all(b is buffer or b.gap == buffer.gap for b in value.buffers)
    )


def _margins(kernel: Kernel) -> tuple[int, int, int, int]:
    """Zeros that a kernel reads above, left, below and right of its input's planes."""
    if not isinstance(kernel, PlanarKernel) or not isinstance(kernel.op, Conv | Pool):
        return (0, 0, 0, 0)
    if isinstance(kernel.op, Pool) and not outside_is_zero(kernel.op, kernel):
        return (0, 0, 0, 0)
    return kernel.op.padding


class _Arena:
    """Who owns each float while the kernels run one after the other."""

    def __init__(self, program: Program) -> None:
        self.owner = np.full(program.arena, NOBODY, np.int32)
        self.number = {buffer: at for at, buffer in enumerate(program.buffers)}

    def take(self, name: str, low: int, high: int) -> None:
        """Floats that a kernel uses for itself."""
        if not 0 <= low <= high <= len(self.owner):
            _refuse(name, "has its scratch outside the arena")
        self.owner[low:high] = SCRATCH

    def write(self, name: str, buffer: Buffer) -> None:
        """All of a buffer, the zeros around its planes included."""
        low, high = _extent(buffer)
        if not 0 <= low <= high <= len(self.owner) or buffer not in self.number:
            _refuse(name, f"writes {buffer.name} outside the arena")
        last = buffer.channels - 1
        if buffer.plane(last - last % WIDEST if buffer.blocked else last) + buffer.line > high:
            _refuse(name, f"writes beyond the end of {buffer.name}")
        self.owner[low:high] = self.number[buffer]

    def read(
        self, name: str, value: Value, margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> None:
        """Every row of a value and so many zeros around it."""
        top, left, bottom, right = margins
        for buffer in value.buffers:
            if max(top, bottom) > buffer.gap[0] or max(left, right) > buffer.gap[1]:
                _refuse(name, f"finds no zeros around the planes of {buffer.name}")
        for (buffer, _), place in zip(value.planes, value.places(), strict=True):
            low = place - top * buffer.pitch - left
            last = place + (value.height - 1 + bottom) * buffer.pitch
            high = last + (value.width - 1) * buffer.step + right + 1
            owners = self.owner[max(low, 0) : high]
            if low < 0 or high > len(self.owner) or (owners != self.number[buffer]).any():
                _refuse(name, f"reads {buffer.name} where something else was written")

    def touch(self, value: Value, buffer: Buffer) -> bool:
        """Whether a value lies, in part, where a buffer does."""
        low, high = _extent(buffer)
        spans = [_extent(b) for b in value.buffers if b is not buffer]
        return any(begin < high and low < end for begin, end in spans)

    def apart(self, name: str, value: Value, buffers: list[Buffer]) -> None:
        """Refuse a value that lies where one of these buffers does."""
        for buffer in buffers:
            if self.touch(value, buffer):
                _refuse(name, f"writes {buffer.name} over pixels that it reads again")


def _extent(buffer: Buffer) -> tuple[int, int]:
    low = buffer.origin - buffer.below
    return low, low + buffer.size
