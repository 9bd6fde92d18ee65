"""Refuse a program of integers in which a kernel would read what was overwritten; as verify.py.

Each word of the arena has an owner, the plane that was written there last, and the kernels are
played in their order: a plane that is read must own all of its words, what stands around its rows
included. What a kernel writes may lie where it reads only by `Int8Kernel.in_place`, or where its
`accesses` say of each word that it is read for the last time before it is written. What is refused
here is a fault of the compiler, never of the network.
"""

from typing import NoReturn

import numpy as np

from leancnn.compiler.int8_kernel import Int8Kernel, Int8Program
from leancnn.compiler.int8_layout import Plane
from leancnn.errors import ProgramError

NOBODY = -1


def verify(program: Int8Program) -> None:
    """Play a lowered program. Raises `ProgramError` naming the kernel and what is wrong."""
    arena = _Arena(program)
    if program.image is not None:
        arena.write("the image", program.image)
    for at, kernel in enumerate(program.kernels):
        name = f"kernel {at}, {type(kernel).__name__},"
        for fault in kernel.faults():
            _refuse(name, fault)
        _check_lives(name, at, kernel)
        _check_apart(name, at, kernel, program)
        for plane in kernel.reads():
            arena.read(name, plane)
        for plane, end in kernel.beyond().items():
            if plane.origin + end > program.arena.words:
                _refuse(name, f"reads beyond the end of the arena behind {plane.name}")
        for plane in kernel.writes():
            arena.write(name, plane)
    for plane in [] if program.answer is None else program.answer.planes:
        arena.read("the answer", plane)


def _refuse(name: str, what: str) -> NoReturn:
    raise ProgramError(f"leancnn's compiler made a wrong program: {name} {what}; please report it")


def _check_lives(name: str, at: int, kernel: Int8Kernel) -> None:
    """That a kernel begins what it writes, and reads within lives."""
    for plane in kernel.writes():
        if plane.born != at:
            _refuse(name, f"writes {plane.name}, which another kernel makes")
    for plane in kernel.reads():
        if not plane.born < at <= plane.dies:
            _refuse(name, f"reads {plane.name} outside its life")


def _check_apart(name: str, at: int, kernel: Int8Kernel, program: Int8Program) -> None:
    """That what a kernel writes lies apart, and where it reads only as it can."""
    reused = program.arena.reused
    written = list(kernel.writes())
    for place, new in enumerate(written):
        for other in written[:place]:
            if _touch(new, other):
                _refuse(name, f"writes {new.name} and {other.name} to one place")
        earlier = {made: old for made, old in reused.items() if made is not new}
        for old in kernel.reads():
            if not _touch(new, old):
                continue
            same = _extent(new) == _extent(old) and kernel.in_place(at, earlier) == (new, old)
            if not same and not _read_before(kernel, new, old):
                _refuse(name, f"writes {new.name} over {old.name}, which it reads")


def _read_before(kernel: Int8Kernel, new: Plane, old: Plane) -> bool:
    """Whether each word of what is read has been read when it is overwritten."""
    accesses = kernel.accesses()
    if accesses is None:
        return False
    return accesses.apart(new, old, old.origin - new.origin)


class _Arena:
    """Who owns each word while the kernels run one after the other."""

    def __init__(self, program: Int8Program) -> None:
        self.owner = np.full(program.arena.words, NOBODY, np.int32)
        self.number = {plane: at for at, plane in enumerate(program.arena.planes)}

    def write(self, name: str, plane: Plane) -> None:
        """All of some planes, what stands around their rows included."""
        low, high = _extent(plane)
        if not 0 <= low <= high <= len(self.owner) or plane not in self.number:
            _refuse(name, f"writes {plane.name} outside the arena")
        if plane.quads and plane.at(plane.quads - 1) + plane.line > high:
            _refuse(name, f"writes beyond the end of {plane.name}")
        self.owner[low:high] = self.number[plane]

    def read(self, name: str, plane: Plane) -> None:
        """The same of what is read."""
        low, high = _extent(plane)
        if (self.owner[low:high] != self.number[plane]).any():
            _refuse(name, f"reads {plane.name} where something else was written")


def _extent(plane: Plane) -> tuple[int, int]:
    low = plane.origin - plane.below
    return low, low + plane.size


def _touch(one: Plane, other: Plane) -> bool:
    (low, high), (begin, end) = _extent(one), _extent(other)
    return begin < high and low < end
