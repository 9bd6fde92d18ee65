"""The box that a depthwise convolution copies a quad of channels into."""

from dataclasses import dataclass
from itertools import product

from leancnn.compiler.arena import WIDEST, round_up
from leancnn.compiler.int8_pairs import rows_in_words
from leancnn.compiler.integers import Clamp, QConv, Store

REACH = 4  # pixels between the first and the last column of a window that are read together


@dataclass(frozen=True, slots=True)
class Member:
    """A column of the window, or four rows of it: its place among columns read together."""

    group: int
    shift: int
    taps: tuple[int | None, ...]  # numbers of the window's taps, one a row


@dataclass(frozen=True, slots=True)
class Box:
    """Where the pixels of a quad lie with what surrounds them."""

    phases: tuple[tuple[int, int], ...]
    rows: int
    pitch: int
    each: int  # words of a phase
    groups: tuple[tuple[int, ...], ...]  # of columns read together: words from a pixel to its rows
    members: tuple[Member, ...]

    @property
    def words(self) -> int:
        return self.each * len(self.phases) + 3 * WIDEST


def suits(node: QConv, channels: int) -> bool:
    """Whether a convolution is depthwise and has only an epilogue that is done here."""
    depthwise = node.groups == len(node.weight) == channels and node.weight.shape[1] == 1
    epilogue = all(isinstance(s, Clamp) or (isinstance(s, Store) and s.multiplier is not None)
                for s in node.epilogue)  # fmt: skip
    reach = (node.weight.shape[3] - 1) * node.dilation[1] // node.stride[1]
    taps = node.weight.shape[2] * node.weight.shape[3]
    return depthwise and epilogue and taps > 1 and reach <= REACH


def box_of(node: QConv, size: tuple[int, int], out: tuple[int, int]) -> Box:
    """The box of a depthwise convolution of planes of this size."""
    (sy, sx), (dy, dx) = node.stride, node.dilation
    kernel = node.weight.shape[2:]
    places = [(y * dy, x * dx) for y, x in product(*map(range, kernel))]
    phases = tuple(sorted({(y % sy, x % sx) for y, x in places}))
    beyond = max(x // sx for _, x in places)
    pitch = out[1] + beyond
    if (sy, sx) == (1, 1):  # what stands right of a row is also left of the next
        pitch = max(out[1], size[1] + max(node.padding[1], node.padding[3]))
    rows = out[0] + max(y // sy for y, _ in places)
    each = round_up(rows * pitch + beyond + WIDEST)
    groups: dict[tuple[int, ...], int] = {}
    members = []
    for column in range(kernel[1]):
        phase, shift = column * dx % sx, column * dx // sx
        for first in range(0, kernel[0], 4):
            chunk = rows_in_words(range(first, min(first + 4, kernel[0])))
            offsets = tuple(
                phases.index((y * dy % sy, phase)) * each + y * dy // sy * pitch for y in chunk
            )
            group = groups.setdefault(offsets, len(groups))
            taps = tuple(y * kernel[1] + column for y in chunk)
            members.append(Member(group, shift, (*taps, *[None] * (4 - len(taps)))))
    return Box(phases, rows, pitch, each, tuple(groups), tuple(members))
