"""Places in one piece of memory: the lowest that is free for a buffer's whole life."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

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
    buffers: Iterable[B],
    same: Mapping[B, B],
    *,
    before: Mapping[B, tuple[B, int]] | None = None,
    first: int = 0,
    grain: int = WIDEST,
    tries: int = 0,
) -> int:
    """Set the origin of every buffer, the largest first; how many words they take from `first` on.

    `same` leads from a buffer to the one in whose place it is written, `before` to one in front of
    whose first value, by so many words, its own lies. So many `tries` more begin with what reached
    furthest; the best is kept.
    """
    tied: dict[B, list[tuple[int, B]]] = {}  # with the first of them: words in front of its value
    for buffer in buffers:
        root, words = buffer, 0
        while root in same or (before and root in before):
            root, more = (same[root], 0) if root in same else (before or {})[root]
            words += more
        tied.setdefault(root, []).append((words, buffer))
    groups = [_Group(members) for members in tied.values()]
    groups.sort(key=lambda group: (-group.size, group.born))
    best: tuple[int, list[int]] | None = None
    least = _most_at_once(groups) if tries else 0
    for _ in range(1 + tries):
        tops = _place(groups, grain)
        if best is None or max(tops, default=0) < best[0]:
            best = max(tops, default=0), [group.at for group in groups]
            kept = list(groups)
        if best[0] <= least:
            break
        furthest = groups.pop(tops.index(max(tops))) if groups else None
        groups[:0] = [furthest] if furthest is not None else []
    assert best is not None
    for group, at in zip(kept, best[1], strict=True):
        for words, buffer in group.members:
            buffer.origin = first + at + group.top - words
    return best[0]


def _place(groups: Sequence["_Group[B]"], grain: int) -> list[int]:
    """Give each group the lowest free place, one after the other; where each of them ends."""
    placed: list[Piece] = []
    for group in groups:
        group.at = group.lowest(placed, grain)
        at = group.at
        placed += [(at + low, at + high, born, dies) for low, high, born, dies in group.pieces]
    return [group.at + group.size for group in groups]


def _most_at_once(groups: Sequence["_Group[B]"]) -> int:
    """Words that are needed at some time, whatever the places."""
    pieces = [piece for group in groups for piece in group.pieces]
    return max((_needed(groups, born) for _, _, born, _ in pieces), default=0)


def _needed(groups: Sequence["_Group[B]"], time: int) -> int:
    total = 0
    for group in groups:
        end = 0
        for low, high, born, dies in sorted(group.pieces):
            if born <= time <= dies and high > end:
                total += high - max(low, end)
                end = high
    return total


Piece = tuple[int, int, int, int]  # from, to in the arena; from, to in time


class _Group(Generic[B]):
    """Buffers whose places hang together, the words of each in front of the first one's value."""

    def __init__(self, members: list[tuple[int, B]]) -> None:
        self.members = members
        self.at = 0
        self.top = max(words + buffer.below for words, buffer in members)
        self.pieces = [
            (low := self.top - words - buffer.below, low + buffer.size, buffer.born, buffer.dies)
            for words, buffer in members
        ]
        self.size = max(high for _, high, _, _ in self.pieces)
        self.born = min(buffer.born for _, buffer in members)

    def lowest(self, placed: list[Piece], grain: int) -> int:
        """The lowest place where none of it meets what is placed."""
        at, moved = 0, True
        while moved:
            moved = False
            for low, high, born, dies in sorted(placed):
                for start, end, begin, until in self.pieces:
                    meets = low < at + end and at + start < high
                    if meets and begin <= dies and born <= until:
                        at, moved = round_up(high - start, grain), True
        return at
