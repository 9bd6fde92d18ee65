"""What a quantized network is lowered to: kernels that read and write planes of quads."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from leancnn.compiler.borders import FromBytes, ToBytes
from leancnn.compiler.graph import Graph, Shape
from leancnn.compiler.int8_boxes import Box
from leancnn.compiler.int8_layout import Arena, ChannelView, Place, Plane, quad_word
from leancnn.compiler.int8_tiles import Tiling
from leancnn.compiler.integers import (
    Add,
    Gate,
    QConv,
    QElementwise,
    QLookup,
    QMaxPool,
    QNorm,
    Quantized,
    QValue,
    Store,
)

Order = tuple[int | None, ...]  # the channel in each lane of each quad


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Channels gathered into quads of another order; `phases` split rows and columns by stride."""

    x: ChannelView
    order: Order
    out: Plane
    fill: tuple[int, ...]
    phases: "PackedPhases | None" = None


@dataclass(frozen=True, slots=True)
class PackedPhases:
    """A window of strides as one of stride 1: phase (a, b) has the pixels of row a and column b."""

    which: tuple[tuple[int, int], ...]
    stride: tuple[int, int]
    start: tuple[int, int]  # padding above and to the left
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Tiled:
    """A convolution (or, without one, only an epilogue) pixel by pixel along lines of quads."""

    node: QConv | QElementwise
    places: tuple[Place, ...]  # of the input's channels, where the kernel reads them
    phases: PackedPhases | None
    cuts: list[Tiling]
    order: Order
    shape: Shape
    outs: dict[str, Plane]
    others: dict[str, list[tuple[Plane, int]]]  # of an added value: the quad beside each output's
    gates: dict[str, ChannelView]

    @property
    def outs_name(self) -> str:
        return next(iter(self.outs))


@dataclass(frozen=True, slots=True, eq=False)
class Depthwise:
    """A convolution of each channel for itself, quad by quad in a box of its own."""

    node: QConv
    quads: list[tuple[Plane, int]]  # of the input, beside each of the output
    fill: tuple[int, ...]  # what surrounds each
    box: Box
    order: Order
    shape: Shape
    outs: dict[str, Plane]
    scratch: Plane


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A matrix by a vector, of bytes or of sums; or only an epilogue on a vector."""

    node: QConv | QElementwise
    x: ChannelView | None
    order: Order
    outs: dict[str, Plane]
    others: dict[str, ChannelView]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The largest byte of each window, from packed phases."""

    node: QMaxPool
    source: Plane
    phases: PackedPhases
    out: Plane


@dataclass(frozen=True, slots=True, eq=False)
class GlobalSum:
    """All pixels of each channel as a sum."""

    x: ChannelView
    zero: tuple[int, ...]
    out: Plane


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Groups of one vector by their lengths."""

    node: QNorm
    x: ChannelView
    out: Plane


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """Each byte of some planes by a table."""

    node: QLookup
    quads: list[tuple[Plane, int]]
    out: Plane


@dataclass(frozen=True, slots=True, eq=False)
class Border:
    """Where float layers begin or end; the kernel itself stands among floats."""

    op: FromBytes | ToBytes


Kernel = Pack | Tiled | Depthwise | Dense | Pool | GlobalSum | Norm | Lookup | Border


@dataclass(slots=True, eq=False)
class Int8Program:
    """Kernels in order, where the image goes and where the answer is; None: among floats."""

    network: Quantized
    image: Plane | None
    answer: ChannelView | None
    arena: Arena
    kernels: list[Kernel] = field(default_factory=list)
    floats: Graph | None = None
    """The layers that stay in float32."""


def lives(program: Int8Program) -> None:
    """When each plane is made and last read, and which may take the place of one that ends."""
    for at, kernel in enumerate(program.kernels):
        for plane in made(kernel):
            plane.born = plane.dies = at
        for plane in used(kernel):
            plane.dies = at
    if program.image is not None:
        program.image.born = -1
    for plane in program.answer.planes if program.answer is not None else ():
        plane.dies = len(program.kernels)
    for at, kernel in enumerate(program.kernels):
        if isinstance(kernel, Tiled):
            _reusable(program.arena, kernel, at)
        if isinstance(kernel, Depthwise):
            _in_place(program.arena, kernel, at)


def _reusable(arena: Arena, kernel: Tiled, at: int) -> None:
    """An added value that is read here for the last time, quad by quad, gives its place."""
    busy = {place.plane for place in kernel.places} | set(arena.reused.values())
    for quads in kernel.others.values():
        old = quads[0][0]
        if [(old, n) for n in range(old.quads)] != quads or old in busy or old.dies != at:
            continue
        for new in _after(kernel, old):
            if new.gap == old.gap and new.quads == old.quads and new not in arena.reused:
                arena.reused[new] = old
                return


def _in_place(arena: Arena, kernel: Depthwise, at: int) -> None:
    """A quad that has been read gives its place to the quad made of it."""
    old = kernel.quads[0][0]
    if [(old, n) for n in range(old.quads)] != kernel.quads or old.dies != at:
        return
    for new in kernel.outs.values():
        size = (new.height, new.width, new.gap, new.quads)
        fits = size == (old.height, old.width, old.gap, old.quads)
        if fits and new not in arena.reused and len(set(new.fill)) == len(set(old.fill)) == 1:
            arena.reused[new] = old
            return


def _after(kernel: Tiled, old: Plane) -> list[Plane]:
    """What a kernel stores after it has read these planes for the last time."""
    epilogue = kernel.node.epilogue
    last = max(
        at
        for at, op in enumerate(epilogue)
        if isinstance(op, Add | Gate) and old in [p for p, _ in kernel.others[op.value]]
    )
    return [kernel.outs[op.value] for op in epilogue[last:] if isinstance(op, Store)]


def made(kernel: Kernel) -> list[Plane]:
    """The planes that a kernel writes."""
    if isinstance(kernel, Depthwise):
        return [*kernel.outs.values(), kernel.scratch]
    if isinstance(kernel, Border):
        return [kernel.op.out] if isinstance(kernel.op, ToBytes) else []
    return list(kernel.outs.values()) if isinstance(kernel, Tiled | Dense) else [kernel.out]


def used(kernel: Kernel) -> list[Plane]:
    """The planes that a kernel reads."""
    match kernel:
        case Pack() | GlobalSum() | Norm():
            return kernel.x.planes
        case Pool():
            return [kernel.source]
        case Border():
            return kernel.op.view.planes if isinstance(kernel.op, FromBytes) else []
        case Lookup() | Depthwise():
            return [plane for plane, _ in kernel.quads]
        case Dense():
            found = [] if kernel.x is None else kernel.x.planes
            return found + [plane for view in kernel.others.values() for plane in view.planes]
    found = [place.plane for place in kernel.places]
    found += [plane for quads in kernel.others.values() for plane, _ in quads]
    return found + [plane for view in kernel.gates.values() for plane in view.planes]


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
