"""Windows of strides as windows of stride 1: rows and columns split into phases."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from leancnn.compiler.arena import round_up
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.integers import QConv, QMaxPool


@dataclass(frozen=True, slots=True)
class PackedPhases:
    """A window of strides as one of stride 1: phase (a, b) has the pixels of row a and column b."""

    which: tuple[tuple[int, int], ...]
    stride: tuple[int, int]
    start: tuple[int, int]  # padding above and to the left
    rows: int
    columns: int


def phases_of(node: QConv | QMaxPool, out: Shape) -> PackedPhases:
    """The phases that a node reads, whose result has this shape."""
    kernel = node.kernel if isinstance(node, QMaxPool) else node.weight.shape[2:]
    dilation = (1, 1) if isinstance(node, QMaxPool) else node.dilation
    taps = [(y * dilation[0], x * dilation[1]) for y, x in product(*map(range, kernel))]
    rows, columns = node.stride
    which = tuple(sorted({(y % rows, x % columns) for y, x in taps}))
    high = out[1] + max(y // rows for y, _ in taps)
    wide = out[2] + max(x // columns for _, x in taps)
    return PackedPhases(which, node.stride, node.padding[:2], high, wide)


def phase_offsets(
    which: Sequence[tuple[int, int]],
    stride: tuple[int, int],
    plane: Plane,
    places: Sequence[tuple[int, int]],
) -> list[int]:
    """Words from where an output lies to each pixel of its window, in packed phases."""
    rows, columns = stride
    each = plane.stride // len(which)
    return [
        which.index((y % rows, x % columns)) * each + (y // rows) * plane.pitch + x // columns
        for y, x in places
    ]


def place_phases(plane: Plane, phases: PackedPhases, like: Plane) -> None:
    """Size a plane of phases: they have the pitch of what is computed from them."""
    plane.pitch = max(like.pitch, phases.columns) if like.line == 1 else like.pitch
    each = round_up(phases.rows * plane.pitch + phases.columns)
    plane.stride = each * len(phases.which)
    plane.size = plane.quads * plane.stride + round_up(plane.pitch)
