"""Refuse a program in which a kernel would read what was overwritten: every one is walked.

Each float of the arena has an owner, the buffer that was written there last, and a kernel is played
as its C runs: its scratch, then its input and its epilogue in its order. A value must lie where the
loops look for it, in a layout that the kernel knows, and own all of its floats, the zeros around
its planes included, until the last read. Two buffers of one kernel may share a place only where the
same tile reads each float for the last time before it writes it.

What is refused here is a fault of the compiler, never of the network.
"""

from typing import NoReturn

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.kernel import Kernel, Program, is_small, operand
from leancnn.compiler.layout import input_layout
from leancnn.compiler.memory import PASSES, Schedule, set_lives, set_pitches, set_plans
from leancnn.compiler.values import Buffer, Store, Value
from leancnn.errors import ProgramError, UnsupportedError

NOBODY, SCRATCH = -1, -2
PITCHES, LIVES = ("gap", "pitch", "stride", "below", "size"), ("born", "dies")


def verify(schedule: Schedule) -> None:
    """Check that no pass of memory planning came too early, then walk the program.

    Raises `ProgramError` naming the kernel and what is wrong.
    """
    check_order(schedule)
    walk(schedule)


def check_order(schedule: Schedule) -> None:
    """That the passes of memory planning ran in their order, and would decide the same now.

    Raises `ProgramError`.
    """
    program, plans = schedule.program, dict(schedule.plans)
    if tuple(schedule.done) != PASSES:
        ran = ", ".join(decide.__name__ for decide in schedule.done) or "none"
        _refuse("its memory", f"was planned in another order: {ran}")
    for kernel in program.kernels:
        for value in kernel.reads():
            laid = [(buffer, buffer.blocked) for buffer in value.buffers]
            if input_layout(kernel, laid, kernel.readable(value)) is not None:
                _refuse(kernel.name, f"reads {laid[0][0].name} in a layout that it cannot read")
    for decide, words in ((set_pitches, PITCHES), (set_lives, LIVES)):
        before = [[getattr(buffer, word) for word in words] for buffer in program.buffers]
        decide(schedule)
        for buffer, old in zip(program.buffers, before, strict=True):
            if [getattr(buffer, word) for word in words] != old:
                _refuse(buffer.name, f"has the {words[-1]} of a program that was changed later")
    set_plans(schedule)
    if schedule.plans != plans:
        _refuse("a kernel", "walks as its buffers lay before")


def walk(schedule: Schedule) -> None:
    """Play a scheduled program. Raises `ProgramError` naming the kernel and what is wrong."""
    program = schedule.program
    arena = _Arena(program)
    if program.image.blocked:
        _refuse("the image", "does not lie in planes")
    arena.write("the image", program.image)
    for at, kernel in enumerate(program.kernels):
        _check_lives(at, kernel)
        _check_sizes(kernel)
        for fault in kernel.faults():
            _refuse(kernel.name, fault)
        plan = schedule.plans[kernel]
        arena.take(kernel.name, plan.place, plan.place + plan.scratch)
        _play(arena, kernel)
    arena.read("the answer", program.logits)
    for buffer in program.logits.buffers:
        if buffer.dies < len(program.kernels):
            _refuse("the answer", f"is read from {buffer.name} after its life")


def _refuse(name: str, what: str) -> NoReturn:
    raise ProgramError(f"leancnn's compiler made a wrong program: {name} {what}; please report it")


def _check_lives(at: int, kernel: Kernel) -> None:
    """That a kernel begins the buffers it writes, once, and reads others within their lives."""
    made = kernel.writes()
    if len(set(made)) < len(made):
        _refuse(kernel.name, "stores into one buffer twice")
    for buffer in made:
        if buffer.born != at:
            _refuse(kernel.name, f"writes {buffer.name}, which another kernel makes")
    for value in kernel.reads():
        for buffer in value.buffers:
            if not buffer.born <= at <= buffer.dies:
                _refuse(kernel.name, f"reads {buffer.name} outside its life")


def _check_sizes(kernel: Kernel) -> None:
    """That what is written is as large as what was computed, and what is read is there."""
    for value in kernel.reads():
        for buffer, channel in value.planes:
            beyond = (channel, value.top + value.height - 1, value.left + value.width - 1)
            if any(b >= s for b, s in zip(beyond, buffer.shape, strict=True)):
                _refuse(kernel.name, f"reads beyond the planes of {buffer.name}")
    try:
        shape = kernel.shape
    except UnsupportedError as error:
        _refuse(kernel.name, f"does not fit what it reads ({error})")
    if not kernel.writes():
        _refuse(kernel.name, "stores nothing")
    for buffer in kernel.writes():
        if buffer.shape != shape:
            _refuse(kernel.name, f"makes {shape} of {buffer.name}, which is {buffer.shape}")


def _play(arena: "_Arena", kernel: Kernel) -> None:
    """What a kernel reads and writes, in the order of one tile."""
    made, each = kernel.writes(), kernel.elementwise
    lasting = [] if each else [kernel.x]  # every tile may read all of it
    lasting += [v for v in kernel.reads()[1:] if is_small(kernel, v)]
    if kernel.spills:
        lasting += kernel.reads()[1:]
    arena.read(kernel.name, kernel.x, kernel.margins())
    for value in lasting:
        arena.check_disjoint(kernel.name, value, [b for b in made if b not in value.buffers])
    before = [kernel.x] if each else []
    if kernel.stores_first:
        arena.write(kernel.name, made[0])
        before = []
    for op in kernel.epilogue:
        if (other := operand(op)) is not None:
            arena.read(kernel.name, other)
            before.append(other)
        elif isinstance(op, Store):
            for value in before:
                if arena.touch(value, op.buffer) and not _congruent(value, op.buffer):
                    _refuse(kernel.name, f"writes {op.buffer.name} over pixels it reads later")
            arena.write(kernel.name, op.buffer)


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

    def check_disjoint(self, name: str, value: Value, buffers: list[Buffer]) -> None:
        """Refuse a value that lies where one of these buffers does."""
        for buffer in buffers:
            if self.touch(value, buffer):
                _refuse(name, f"writes {buffer.name} over pixels that it reads again")


def _extent(buffer: Buffer) -> tuple[int, int]:
    low = buffer.origin - buffer.below
    return low, low + buffer.size
