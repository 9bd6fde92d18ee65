"""Outputs that lie over inputs which end there, a few words in front of them: plans for `--small`.

In plain loops a convolution has read a row before it writes that of the next quads or rows; where
all that reads some quads is one tile, its output may take the place of its input. How far in front
of it the output has to begin is what the kernel's `accesses` say. Each such pair is kept that makes
the arena smaller.
"""

from collections.abc import Callable

from leancnn.compiler.arena import round_up
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_kernel import Int8Kernel, Int8Program
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_tiles import BLOCK, FEW, vectors

AT_ONCE = vectors(BLOCK, FEW)  # pixels that plain loops compute at a time, at most
Pair = tuple[Plane, Plane]  # what is written, and over what


def overlap(program: Int8Program, size: Callable[[], None]) -> None:
    """Place the planes of a program with the pairs that make its arena smallest; `size` says how
    large they are without."""
    found = candidates(program)
    plans = Plans(program, size)
    least = plans.words(found)
    for pair in list(found):
        fewer = {each: kernel for each, kernel in found.items() if each != pair}
        if (words := plans.words(fewer)) <= least:
            found, least = fewer, words
    plans.words(found)


def candidates(program: Int8Program) -> dict[Pair, Int8Kernel]:
    """Outputs with a plane that the same kernel reads, and is the last to read."""
    reused = program.arena.reused
    taken = {*reused.values()}
    found: dict[Pair, Int8Kernel] = {}
    for at, kernel in enumerate(program.kernels):
        ends = [p for p in kernel.passed() if p.dies == at and p not in taken]
        free = [p for p in kernel.writes() if p not in reused and not p.words]
        for new, old in zip(free, ends, strict=False):
            if new.quads <= old.quads and (old.height, old.width) != (1, 1):
                found[new, old] = kernel
    return found


class Plans:
    """Arenas with some pairs or others."""

    def __init__(self, program: Int8Program, size: Callable[[], None]) -> None:
        self.program, self.size = program, size
        size()  # for pitches, which stay as they are
        self.distances: dict[tuple[object, ...], int | None] = {}

    def words(self, pairs: dict[Pair, Int8Kernel]) -> int:
        """Place everything with these pairs: how many words it takes."""
        arena = self.program.arena
        arena.alike = [(new, old, 0) for new, old in arena.reused.items() if not old.words]
        for (new, old), kernel in pairs.items():
            if kernel.quads_at_once:  # then what is written keeps to the quads of what is read
                arena.alike.append((new, old, old.gap[0] * old.pitch + AT_ONCE))
        self.size()
        arena.before = {}
        for (new, old), kernel in pairs.items():
            words = self._distance(new, old, kernel)
            if words is not None:
                arena.before[new] = old, words
        arena.place()
        ends = [p.origin + end for k in self.program.kernels for p, end in k.beyond().items()]
        arena.words = round_up(max([arena.words, *ends]))
        return arena.words

    def _distance(self, new: Plane, old: Plane, kernel: Int8Kernel) -> int | None:
        """How many words `new` has to lie in front; found once for planes of the same strides."""
        planes = [*kernel.reads(), *kernel.writes()]
        key = (new, old, *((plane.stride, plane.pitch) for plane in planes))
        if key not in self.distances:
            accesses: Accesses | None = kernel.accesses()
            self.distances[key] = None if accesses is None else accesses.distance(new, old)
        return self.distances[key]
