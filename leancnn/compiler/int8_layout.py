"""Where the bytes of a quantized network lie: quads, planes, views, the arena.

Four channels of a pixel stand side by side in one 32-bit word, a *quad*; a plane is one quad of
every pixel, row after row, `pitch` words apart. Between rows stands the padding that convolutions
read, as bytes that mean zero. A value is a list of places (plane and lane) for its channels, so
that shuffles, slices and concatenations cost nothing. A vector of 32-bit sums has a word for each
channel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from leancnn.compiler.arena import WIDEST, padded_stride, round_up, set_origins
from leancnn.compiler.integers import QValue

Order = tuple[int | None, ...]
"""The channel in each lane of each quad."""


@dataclass(slots=True, eq=False)
class Plane:
    """Quads that one kernel writes: a buffer of `quads` planes of one size."""

    name: str
    quads: int
    height: int
    width: int
    fill: tuple[int, ...]  # of each quad: the word that stands in its gaps
    gap: tuple[int, int] = (0, 0)  # rows and columns of padding that some reader needs
    pitch: int = 1
    stride: int = 1  # words from one plane to the next
    below: int = 0
    origin: int = 0
    size: int = 0
    born: int = 0
    dies: int = 0
    words: int = 0  # of something else than planes: sums, scratch

    @property
    def line(self) -> int:
        """Words from a plane's first pixel to the end of its last row."""
        return self.height * self.pitch

    def at(self, quad: int) -> int:
        """The place in the arena of a quad's first pixel."""
        return self.origin + quad * self.stride


@dataclass(frozen=True, slots=True)
class Place:
    """Where a channel lies: the lane of a quad, or (lane −1) a word of sums; and its window."""

    plane: Plane
    quad: int
    lane: int
    top: int = 0
    left: int = 0

    @property
    def at(self) -> int:
        plane = self.plane
        return plane.at(self.quad) + self.top * plane.pitch + self.left


@dataclass(frozen=True, slots=True, eq=False)
class ChannelView:
    """A value: the place of each channel, and the size of what is seen of it."""

    places: tuple[Place, ...]
    height: int
    width: int

    @property
    def planes(self) -> list[Plane]:
        return list(dict.fromkeys(place.plane for place in self.places))

    @property
    def bytes(self) -> list[int]:
        """Of one pixel, the place of each channel's byte in the arena, four for each word."""
        return [4 * place.at + place.lane for place in self.places]

    @property
    def whole(self) -> bool:
        """Whether every channel shows all pixels of its plane."""
        return all(
            (p.plane.height, p.plane.width, p.top, p.left) == (self.height, self.width, 0, 0)
            for p in self.places
        )


@dataclass(slots=True)
class Arena:
    """All planes, with their lives by the number of the kernel that makes or last reads them."""

    planes: list[Plane] = field(default_factory=list)
    reused: dict[Plane, Plane] = field(default_factory=dict)
    """A plane that may lie where another ends its life."""
    before: dict[Plane, tuple[Plane, int]] = field(default_factory=dict)
    """A plane that lies so many words in front of another, which ends its life meanwhile."""
    alike: list[tuple[Plane, Plane, int]] = field(default_factory=list)
    """Planes whose quads are equally far apart, by so many words more than the second needs."""
    small: bool = False
    """Whether nothing is written beyond a line, as plain loops do not."""
    words: int = 0

    @property
    def grain(self) -> int:
        """Words of which places and distances are multiples."""
        return 1 if self.small else WIDEST

    def pitches(self, reaches: dict[tuple[int, int], int]) -> None:
        """Give planes of one size one pitch; `reaches`: columns that strided readers go beyond."""
        pitch: dict[tuple[int, int], int] = {}
        for plane in self.planes:
            size = (plane.height, plane.width)
            least = plane.width + max(plane.gap[1], reaches.get(size, 0))
            pitch[size] = max(pitch.get(size, 1), least)
        for plane in self.planes:
            self._size(plane, pitch[plane.height, plane.width])
        for _, old, more in self.alike:
            old.stride += more
        for _ in self.alike:  # as often as the longest chain of them needs
            for new, old, _ in self.alike:
                new.stride = old.stride = max(new.stride, old.stride)
        for plane in {plane for new, old, _ in self.alike for plane in (new, old)}:
            plane.size = plane.below + plane.quads * plane.stride

    def _size(self, plane: Plane, pitch: int) -> None:
        """How far apart a plane's rows and quads are, and how much it takes."""
        grain, more = self.grain, 0 if self.small else WIDEST
        if plane.words:
            plane.size = round_up(plane.words + more, grain)
            return
        if (plane.height, plane.width) == (1, 1):
            plane.pitch = plane.stride = 1
            plane.size = round_up(plane.quads + more, grain)
            return
        rows, columns = plane.gap
        plane.pitch = pitch
        plane.below = round_up(rows * pitch + columns, grain)
        room = round_up(plane.line + rows * pitch + columns, grain)
        if len(set(plane.fill)) > 1:  # the rows above one are not those below another
            room += plane.below
        plane.stride = room if self.small else padded_stride(room)
        plane.size = plane.below + plane.quads * plane.stride

    def place(self) -> None:
        """Give every plane its place: the lowest that is free for its whole life."""
        margin, grain = (0, 1) if self.small else (MARGIN, WIDEST)
        top = set_origins(
            self.planes,
            self.reused,
            before=self.before,
            first=margin,
            grain=grain,
            tries=TRIES if self.small else 0,
        )
        widest = max((p.pitch for p in self.planes), default=0)
        slack = 0 if self.small else 8 * WIDEST + 4 * widest
        self.words = round_up(margin + top + slack)


TRIES = 20  # orders in which planes are placed, where memory counts
MARGIN = 4 * WIDEST  # words before the first plane, which taps before a first row may touch


def quad_word(zeros: Sequence[int]) -> int:
    """Four zero points as the word that stands in gaps."""
    padded = [*zeros, *[0] * (4 - len(zeros))]
    return sum(int(zero) << (8 * lane) for lane, zero in enumerate(padded))


def quads_of(places: Iterable[Place]) -> list[tuple[Plane, int, int, int]]:
    """The quads that hold these channels, each once, in order of appearance."""
    return list(dict.fromkeys((p.plane, p.quad, p.top, p.left) for p in places))


def natural(channels: int) -> Order:
    """Channels one after another, the last quad filled up."""
    return padded(range(channels))


def padded(channels: Sequence[int]) -> Order:
    return (*channels, *[None] * (-len(channels) % 4))


def order_of(view: ChannelView) -> Order | None:
    """The order in which a view's channels lie, when they are all of one plane."""
    planes = view.planes
    if len(planes) != 1 or not view.whole or planes[0].words:
        return None
    order: list[int | None] = [None] * (4 * planes[0].quads)
    for channel, place in enumerate(view.places):
        slot = 4 * place.quad + place.lane
        if order[slot] is not None:
            return None
        order[slot] = channel
    return tuple(order) if len(view.places) > len(order) - 4 else None


def filled(meaning: QValue, order: Order) -> tuple[int, ...]:
    """Of each quad the word that means zero."""
    zeros = [0 if c is None else int(meaning.zero[c]) for c in order]
    return tuple(quad_word(zeros[at : at + 4]) for at in range(0, len(order), 4))
