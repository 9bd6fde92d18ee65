"""When a kernel in plain loops reads each word of its planes last, and when it writes it first.

With this an output may lie over an input that ends there although their places differ: a few rows
in front of it, so that what is written has been read. `distance` finds the fewest words that will
do, and the verifier asks the same of the places that were given, word by word.
"""

from dataclasses import dataclass, field

import numpy as np

from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.integers import Array
from leancnn.errors import ProgramError

NEVER = 2**62
TRIED = 4000  # distances, at most, that are looked at


@dataclass(slots=True, eq=False)
class Accesses:
    """Times, in steps of some clock, of every word of each plane, what stands before it included.

    A read comes before what is written at the same time.
    """

    read: dict[Plane, Array] = field(default_factory=dict)  # last; -1: never
    written: dict[Plane, Array] = field(default_factory=dict)  # first; NEVER

    def reads(self, plane: Plane, words: Array, times: Array | int) -> None:
        """Note reads of words of a plane, counted from its first pixel, each word once."""
        found = self.read.setdefault(plane, np.full(plane.size, -1, np.int64))
        at = _inside(plane, words)
        found[at] = np.maximum(found[at], times)

    def writes(self, plane: Plane, words: Array, times: Array | int) -> None:
        """The same of what is written."""
        found = self.written.setdefault(plane, np.full(plane.size, NEVER, np.int64))
        at = _inside(plane, words)
        found[at] = np.minimum(found[at], times)

    def apart(self, new: Plane, old: Plane, words: int) -> bool:
        """Whether nothing of `old` is read after it was overwritten, where `new` has its first
        pixel so many words in front of that of `old`."""
        return not len(self._clashes(new, old, words))

    def distance(self, new: Plane, old: Plane) -> int | None:
        """The fewest words for which that holds; None where the planes would not meet, or far."""
        words = 0
        for _ in range(TRIED):
            if words > old.size // 2:
                return None
            clashes = self._clashes(new, old, words)
            if not len(clashes):
                return words
            words = max(self._next(new, old, words, int(at)) for at in clashes[[0, -1]])
        return None

    def _clashes(self, new: Plane, old: Plane, words: int) -> Array:
        """Places in `new` which are written while what lay there is still wanted."""
        read, written = self.read[old], self.written[new]
        ahead = old.below - new.below - words  # of places in `new` those in `old`
        first, end = max(0, -ahead), min(len(written), len(read) - ahead)
        if first >= end:
            return np.zeros(0, np.int64)
        wanted = read[first + ahead : end + ahead] > written[first:end]
        return first + np.flatnonzero(wanted)

    def _next(self, new: Plane, old: Plane, words: int, at: int) -> int:
        """More words, the fewest for which this place in `new` clashes no more."""
        place = at + old.below - new.below - words
        free = np.flatnonzero(self.read[old][:place] <= self.written[new][at])
        return words + (place - int(free[-1]) if len(free) else place + 1)


def _inside(plane: Plane, words: Array) -> Array:
    at = words + plane.below
    if len(at) and not (int(at.min()) >= 0 and int(at.max()) < plane.size):
        raise ProgramError(f"leancnn's compiler made a wrong program: {plane.name} is read or "
                           "written beyond its end; please report it")  # fmt: skip
    return np.asarray(at)
