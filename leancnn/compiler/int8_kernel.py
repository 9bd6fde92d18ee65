"""What a kernel of integers is: all that lowering, memory and C ask of one, in that order.

A kernel is one call (or, of tiles of two shapes, two) in the C file: what one node of a quantized
network computes, its epilogue included, on planes of quads. Each kind is one file
`int8_kernel_<kind>.py`, from the nodes it takes to its C; nothing else in the compiler knows a kind
by name. Floats have the same in kernel.py; CONTRIBUTING.md says how one is added.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from leancnn.compiler.c_text import File
from leancnn.compiler.graph import Graph, Shape
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_floats import FloatPart
from leancnn.compiler.int8_layout import (
    Arena,
    ChannelView,
    Order,
    Place,
    Plane,
    filled,
    natural,
    order_of,
    padded,
)
from leancnn.compiler.int8_phases import PackedPhases, phases_of, place_phases
from leancnn.compiler.integers import (
    QConv,
    QElementwise,
    QGather,
    QMaxPool,
    QNode,
    Quantized,
    QValue,
    conv_shape,
    reads,
    stores,
    writes,
)
from leancnn.errors import UnsupportedError


class Int8Kernel(ABC):
    """One call in the C file."""

    # Memory: lives, places that are used again. -------------------------------------------------

    @abstractmethod
    def reads(self) -> Sequence[Plane]:
        """The planes that it reads."""

    @abstractmethod
    def writes(self) -> Sequence[Plane]:
        """The planes that it writes, scratch included."""

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        """A plane that it writes, and one that this kernel, number `at`, is the last to read and
        whose place the other may take; `reused`: what has been decided so far."""
        return None

    def passed(self) -> Sequence[Plane]:
        """Planes of which it has read a quad for the last time before it goes on to others, so that
        what it writes may lie over them by what `accesses` say, in a program of plain loops."""
        return ()

    quads_at_once: ClassVar[bool] = False
    """Whether it goes over the pixels of several quads at once, and not quad by quad."""

    def accesses(self) -> Accesses | None:
        """When it reads and writes each word, in a program of plain loops; None: nobody says."""
        return None

    def beyond(self) -> dict[Plane, int]:
        """Of planes that it reads beyond their ends, how many words from the first pixel on."""
        return {}

    def scratch_words(self) -> dict[Plane, int]:
        """Words of each plane that is nobody's but its own, once planes have their pitches."""
        return {}

    # Verifying: what must hold where it is called. ----------------------------------------------

    def faults(self) -> Iterator[str]:
        """What is wrong with the way in which its planes lie, as the end of a sentence."""
        yield from ()

    # C. -----------------------------------------------------------------------------------------

    preludes: ClassVar[tuple[str, ...]] = ()
    """Files of helpers that its C needs beside those of all."""

    @property
    def border(self) -> object | None:
        """The operator among float layers that does its work: all floats up to it come first."""
        return None

    @abstractmethod
    def c(self, file: File, network: Quantized) -> None:
        """Write its function, tables and weights, and its call."""


class NodeKernel(Int8Kernel):
    """A kernel that a node of a quantized network becomes; others are there for these."""

    takes: ClassVar[tuple[type, ...]]
    """Nodes that may become it."""

    @classmethod
    def fits(cls, node: Any, x: Shape, out: Shape) -> bool:
        """Whether it computes `node`, one of those it takes, of these shapes (C, H, W)."""
        return True

    @classmethod
    @abstractmethod
    def lower(cls, node: Any, lowering: "Lowering") -> None:
        """Add what computes a node, and say where the channels of its values lie."""


@dataclass(slots=True, eq=False)
class Int8Program:
    """Kernels in order, where the image goes and where the answer is; None: among floats."""

    network: Quantized
    image: Plane | None
    answer: ChannelView | None
    arena: Arena
    kernels: list[Int8Kernel] = field(default_factory=list)
    floats: Graph | None = None
    """The layers that stay in float32."""


class Lowering:
    """The views known so far, and the program that makes them: what kinds add kernels to."""

    def __init__(self, network: Quantized, *, small: bool = False, narrow: bool = False) -> None:
        self.network = network
        self.arena, self.narrow = Arena(small=small), small or narrow
        self.reaches: dict[tuple[int, int], int] = {}
        """Of planes of a size, the columns that strided readers go beyond them."""
        self.phased: list[tuple[Plane, PackedPhases, Plane]] = []
        """Planes of packed phases, and one whose pitch they have."""
        self.views: dict[str, ChannelView] = {}
        self.floats = FloatPart(network)
        meaning = network.values[network.image]
        image: Plane | None = None
        if not meaning.real:
            image = self.plane(network.image, meaning, natural(meaning.shape[0]))
            self.show(network.image, image, natural(meaning.shape[0]))
        self.program = Int8Program(network, image, None, self.arena)

    def add(self, kernel: Int8Kernel) -> None:
        """The next kernel."""
        self.program.kernels.append(kernel)

    def plane(self, name: str, meaning: QValue, order: Order) -> Plane:
        """A new plane of a value's size, whose channels lie in this order."""
        _, high, wide = meaning.shape
        return self.keep(Plane(name, len(order) // 4, high, wide, filled(meaning, order)))

    def keep(self, plane: Plane) -> Plane:
        """Have the arena find a place for it."""
        self.arena.planes.append(plane)
        return plane

    def show(self, name: str, plane: Plane, order: Order) -> ChannelView:
        """Say that a value lies in a plane, in this order."""
        self.views[name] = view_of(plane, order, self.network.values[name].shape[0])
        return self.views[name]

    def value(self, name: str, order: Order) -> Plane:
        """A new plane for a value, which is there from now on."""
        plane = self.plane(name, self.network.values[name], order)
        self.show(name, plane, order)
        return plane

    def sums(self, name: str, channels: int) -> Plane:
        """The same for a vector of 32-bit sums."""
        plane = self.keep(Plane(name, 0, 1, 1, (), words=channels, stride=1))
        self.views[name] = ChannelView(tuple(Place(plane, c, -1) for c in range(channels)), 1, 1)
        return plane

    def outs(self, node: QConv | QElementwise, order: Order) -> dict[str, Plane]:
        """Planes for all that an epilogue stores."""
        return {
            store.value: self.sums(store.value, self.network.values[store.value].shape[0])
            if store.multiplier is None
            else self.value(store.value, order)
            for store in stores(node)
        }

    def order(self, node: QConv | QElementwise, channels: int) -> Order:
        """In what order a node's outputs lie: as their one reader wants them, or as they came."""
        for store in stores(node):
            takes = [n for n in self.network.nodes if store.value in reads(n)]
            if takes and all(isinstance(n, QGather) for n in takes):
                wanted = {n.channels for n in takes if isinstance(n, QGather)}
                first = wanted.pop()
                if not wanted and sorted(first) == list(range(channels)):
                    return padded(first)
        source = self.views[reads(node)[0]]
        channelwise = isinstance(node, QElementwise) or node.groups == len(node.weight)
        if channelwise and len(source.places) == channels:
            inherited = order_of(source)
            if inherited is not None:
                return inherited
        return natural(channels)

    def shape(self, node: QNode) -> Shape:
        """(C, H, W) of a node's result."""
        if isinstance(node, QConv):
            return conv_shape(node, self.network.values[node.x].shape)
        return self.network.values[writes(node)[0]].shape

    def phases(self, node: QConv | QMaxPool, out: Shape) -> PackedPhases:
        """The phases that a node reads, whose result, of this shape, has room for their columns."""
        phases = phases_of(node, out)
        size = (out[1], out[2])
        self.reaches[size] = max(self.reaches.get(size, 0), phases.columns - out[2])
        return phases

    def place_phases(self) -> None:
        """Give packed phases their size, now that the planes made of them have pitches."""
        for plane, phases, like in self.phased:
            place_phases(plane, phases, like)


def view_of(plane: Plane, order: Order, channels: int) -> ChannelView:
    """The view of so many channels that lie in a plane in this order."""
    slots = {c: slot for slot, c in enumerate(order) if c is not None}
    places = tuple(Place(plane, slots[c] // 4, slots[c] % 4) for c in range(channels))
    return ChannelView(places, plane.height, plane.width)


KINDS: list[type[NodeKernel]] = []
Kind = TypeVar("Kind", bound=type[NodeKernel])


def int8_kernel(kind: Kind) -> Kind:
    """Register a kind of kernel for the nodes that it takes."""
    KINDS.append(kind)
    return kind


def kind_of(node: QNode, x: Shape, out: Shape) -> type[NodeKernel]:
    """The kind that computes a node of these shapes.

    Raises `UnsupportedError` for a node that no kind takes.
    """
    able = [kind for kind in KINDS if isinstance(node, kind.takes) and kind.fits(node, x, out)]
    if len(able) != 1:
        names = " and ".join(sorted(kind.__name__ for kind in able)) or "no kernel of integers"
        raise UnsupportedError(f"{type(node).__name__} of {x} to {out} becomes {names}")
    return able[0]
