"""Where a convolution of quads finds its input: as it lies, gathered anew, or split into phases."""

from dataclasses import dataclass

from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_kernel import Lowering, view_of
from leancnn.compiler.int8_kernel_pack import copied, split
from leancnn.compiler.int8_layout import ChannelView, Order, Place, Plane, filled, natural
from leancnn.compiler.int8_phases import PackedPhases
from leancnn.compiler.int8_tiles import gathers
from leancnn.compiler.integers import QConv


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The places of a convolution's channels where it reads them.

    `direct`: as they lie, though outputs lie elsewhere, for strides or for want of padding; in
    plain loops, where no vector of pixels has to stand side by side.
    """

    places: tuple[Place, ...] = ()
    phases: PackedPhases | None = None
    direct: bool = False


def find_inputs(node: QConv, lowering: Lowering, order: Order, shape: Shape, out: Plane) -> Inputs:
    """Where a kernel reads its channels, whose outputs are in `order` and of this shape; phases are
    as far apart as `out`."""
    x, grouped = lowering.views[node.x], _grouped(node)
    twice = len({(p.plane, p.quad, p.lane) for p in x.places}) < len(x.places)
    alike = node.stride == (1, 1) and x.whole and shape[1:] == (x.height, x.width)
    in_sight = alike or (lowering.arena.small and _in_sight(node, x))
    if twice or not in_sight:
        return _split(node, lowering, grouped, shape, out)
    gathered = gathers(node, x.places, grouped, order, shape[1:])
    if gathered and not alike:
        return _split(node, lowering, grouped, shape, out)
    places = copied(lowering, node.x, grouped) if gathered else x.places
    found = Inputs(places, direct=not alike)
    _ask_for_gaps(found, padding_of(node, found, shape))
    return found


def _split(node: QConv, lowering: Lowering, order: Order, shape: Shape, out: Plane) -> Inputs:
    """A copy of the input, split by strides, as what is computed from it needs it."""
    phases = lowering.phases(node, shape)
    fill = filled(lowering.network.values[node.x], order)
    plane = split(lowering, node.x, order, phases, out, fill)
    return Inputs(view_of(plane, order, len(lowering.views[node.x].places)).places, phases)


def _in_sight(node: QConv, x: ChannelView) -> bool:
    """Whether what a window sees outside of a view is the padding of the view's planes."""
    sizes = {(plane.height, plane.width) for plane in x.planes}
    padded = node.padding != (0, 0, 0, 0)
    if padded and sizes == {(1, 1)}:
        return False  # planes of one pixel stand side by side, without padding
    return len(sizes) == 1 and (x.whole or not padded)


def padding_of(node: QConv, inputs: Inputs, shape: Shape) -> tuple[int, int]:
    """Rows and columns of padding that are read around the planes of an input."""
    top, left, bottom, right = node.padding
    if inputs.direct and any(node.padding):
        plane = inputs.places[0].plane
        ends = [
            (count - 1) * step + (window - 1) * dilation + 1
            for count, step, window, dilation in zip(
                shape[1:], node.stride, node.weight.shape[2:], node.dilation, strict=True
            )
        ]
        bottom, right = ends[0] - top - plane.height, ends[1] - left - plane.width
    return max(top, bottom), max(left, right)


def _ask_for_gaps(inputs: Inputs, wanted: tuple[int, int]) -> None:
    for plane in {place.plane for place in inputs.places}:
        plane.gap = (max(plane.gap[0], wanted[0]), max(plane.gap[1], wanted[1]))


def _grouped(node: QConv) -> Order:
    """The input's channels with each group in quads of its own."""
    each = node.weight.shape[1]
    if node.groups == 1 or each % 4 == 0 or node.groups == len(node.weight) or each < 3:
        return natural(each * node.groups)
    order: list[int | None] = []
    for group in range(node.groups):
        order += [*range(group * each, (group + 1) * each), *[None] * (-each % 4)]
    return tuple(order)
