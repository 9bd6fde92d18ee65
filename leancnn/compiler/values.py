"""What kernels read and write: values, which are planes of buffers in one arena.

A plane is one channel's pixels, row after row, `pitch` floats apart. A value is a list of planes;
because each may lie anywhere, a concatenation, slice, split or channel shuffle is a list and costs
nothing, and a crop is an offset. Padding is `gap` zero columns after each row (the right padding of
one row is the left padding of the next) and zero rows between planes; with it a convolution of
stride 1 reads shifts of one long line.

Where maps are small, channels lie in blocks (NCHWc): sixteen numbers of each pixel side by side,
pixel after pixel without gaps, then the next sixteen channels. A plane is then a place and a step.
"""

from dataclasses import dataclass

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.graph import Activation, Affine, Combine, Shape


@dataclass(slots=True, eq=False)
class Buffer:
    """Planes that one kernel writes. A vector has planes of one float, side by side."""

    name: str
    channels: int
    height: int
    width: int
    positive: bool = False  # nothing in it is below zero
    blocked: bool = False  # sixteen channels of a pixel side by side
    gap: tuple[int, int] = (0, 0)  # rows and columns of zeros that some reader needs
    pitch: int = 1
    stride: int = 1  # floats from one plane to the next; blocked: from sixteen to the next
    origin: int = 0  # place in the arena of the first pixel of the first plane
    below: int = 0  # floats before `origin` that belong to it: the zeros above the first row
    size: int = 0  # floats in the arena, `below` included
    born: int = 0  # the kernel that writes it
    dies: int = 0  # the last kernel that reads it

    @property
    def shape(self) -> Shape:
        return self.channels, self.height, self.width

    @property
    def vector(self) -> bool:
        return self.height == self.width == 1

    @property
    def masked(self) -> bool:
        return self.gap != (0, 0)

    def plane(self, channel: int) -> int:
        """The place in the arena of a channel's first pixel."""
        if self.blocked:
            return self.origin + channel // WIDEST * self.stride + channel % WIDEST
        return self.origin + channel * self.stride

    @property
    def step(self) -> int:
        """Floats from a pixel to the next of its row."""
        return WIDEST if self.blocked else 1

    @property
    def line(self) -> int:
        """Floats from a plane's first pixel to the end of its last row."""
        return self.height * self.pitch


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Channels of one size, each a plane of some buffer, seen from row `top` and column `left`."""

    planes: tuple[tuple[Buffer, int], ...]
    height: int
    width: int
    top: int = 0
    left: int = 0

    @property
    def shape(self) -> Shape:
        return len(self.planes), self.height, self.width

    @property
    def pixel(self) -> bool:
        """Whether each channel is one number."""
        return self.height == self.width == 1

    @property
    def buffers(self) -> list[Buffer]:
        return list(dict.fromkeys(buffer for buffer, _ in self.planes))

    @property
    def pitch(self) -> int:
        return self.planes[0][0].pitch

    @property
    def step(self) -> int:
        return self.planes[0][0].step

    @property
    def whole(self) -> Buffer | None:
        """The buffer whose planes these are, all and in order, if there is one."""
        buffer = self.planes[0][0]
        same = buffer.shape == self.shape and all(
            b is buffer and c == place for place, (b, c) in enumerate(self.planes)
        )
        return buffer if same else None

    def places(self) -> list[int]:
        """The place in the arena of each channel's first pixel."""
        return [b.plane(c) + self.top * b.pitch + self.left * b.step for b, c in self.planes]


def side_by_side(places: list[int]) -> bool:
    """Whether each place in the arena follows the one before."""
    return places == list(range(places[0], places[0] + len(places)))


def whole(buffer: Buffer) -> Value:
    """Every channel of a buffer in order."""
    planes = tuple((buffer, c) for c in range(buffer.channels))
    return Value(planes, buffer.height, buffer.width)


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """An operator that combines what was computed with another value; None is that value itself.

    `flipped`: the other value is the first operand.
    """

    how: Combine
    other: Value | None
    flipped: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """An operator that writes what was computed so far."""

    buffer: Buffer


EpilogueOp = Activation | Affine | Binary | Store
