"""Places in one piece of memory: the lowest that is free for a buffer's whole life."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

WIDEST = 16  # words of the widest vectors we plan for; narrower ones divide it


class Lived(Protocol):
    """What lies somewhere in the arena for a while, in words of 32 bits."""

    origin: int
    """Of its first value."""
    below: int
    """Words before that."""
    size: int
    born: int
    """The kernel that writes it first."""
    dies: int
    """The last that reads it."""


B = TypeVar("B", bound=Lived)


def round_up(count: int, grain: int = WIDEST) -> int:
    """The next multiple.

    >>> round_up(17), round_up(17, 4)
    (32, 20)
    """
    return -(-count // grain) * grain


def padded_stride(stride: int) -> int:
    """Words from plane to plane: a power of two apart they would share few cache lines."""
    return stride + WIDEST if stride % 512 < WIDEST else stride


def set_origins(
    buffers: Iterable[B], same: Mapping[B, B], *, first: int = 0, grain: int = WIDEST
) -> int:
    """Set the origin of every buffer, the largest first; how many words they take from `first` on.

    `same` leads from a buffer to the one in whose place it is written.
    """
    lives: dict[B, list[B]] = {}
    for buffer in buffers:
        root = buffer
        while root in same:
            root = same[root]
        lives.setdefault(root, []).append(buffer)
    placed: list[tuple[int, int, int, int]] = []  # from, to in the arena; from, to in time
    for root in sorted(lives, key=lambda b: (-b.size, b.born)):
        born = min(b.born for b in lives[root])
        dies = max(b.dies for b in lives[root])
        at = 0
        for low, high, begin, end in sorted(placed):
            if begin <= dies and born <= end and at < high and low < at + root.size:
                at = round_up(high, grain)
        placed.append((at, at + root.size, born, dies))
        for buffer in lives[root]:
            buffer.origin = first + at + buffer.below
    return max((high for _, high, _, _ in placed), default=0)
