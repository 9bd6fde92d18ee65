"""What a kernel is: all that the compiler asks of one, in the order in which it asks.

A kernel is one call in the C file: an operator of the graph, then an epilogue, a few element-wise
operators on each number of its result. Each kind of kernel is one file `kernel_<kind>.py`, from the
operators it takes to its C; nothing else in the compiler knows a kind by name, so that a new kind
is a new file. CONTRIBUTING.md has a template.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from types import NoneType
from typing import Any, ClassVar, Literal, Self, TypeVar

from leancnn.compiler.c_text import File
from leancnn.compiler.graph import Graph, Shape, Sides
from leancnn.compiler.values import Binary, Buffer, EpilogueOp, Store, Value
from leancnn.errors import UnsupportedError

InputLayout = Literal["blocked", "planes"]
"""How a kernel wants a value that lies otherwise to be laid out for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a kernel walks, decided once its buffers have pitches. Kinds add what their C needs."""

    scratch: int = 0  # floats of the arena that it needs for itself
    place: int = 0  # where these begin


@dataclass(frozen=True, slots=True, eq=False)
class Kernel(ABC):
    """One call in the C file: `op` of `x`, then `epilogue` on each number of the result."""

    name: str
    op: Any
    """The operator it computes; None: there is only an epilogue."""
    x: Value
    epilogue: tuple[EpilogueOp, ...]

    # Lowering: which operators become this kernel. ---------------------------------------------

    takes: ClassVar[tuple[type, ...]] = ()
    """Operators of the graph that may become this kernel; NoneType: an epilogue alone."""
    follows: ClassVar[bool] = True
    """Whether element-wise operators can join its epilogue; if not, that is a store alone."""

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        """Whether it computes `op`, one of those it takes, with a result of this shape."""
        return True

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the result."""
        if self.op is None:
            return self.x.shape
        shape: Shape = self.op.shape(self.x.shape)
        return shape

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def positive(self) -> bool:
        """Whether nothing is below zero before the epilogue."""
        return False

    # What it reads and writes. ------------------------------------------------------------------

    def reads(self) -> list[Value]:
        """The values it reads: its input, then those of its epilogue."""
        return [self.x, *(other for op in self.epilogue if (other := operand(op)) is not None)]

    def writes(self) -> list[Buffer]:
        """The buffers it writes, in the order of its epilogue."""
        return [op.buffer for op in self.epilogue if isinstance(op, Store)]

    @property
    def out(self) -> Buffer:
        """The first buffer that it writes."""
        return self.writes()[0]

    def reading(self, ready: Callable[[Value], Value]) -> Self:
        """The same with every value that it reads replaced."""
        x = ready(self.x)
        epilogue = tuple(
            replace(op, other=ready(op.other))
            if isinstance(op, Binary) and op.other is not None
            else op
            for op in self.epilogue
        )
        return replace(self, x=x, epilogue=epilogue)

    # Layout: planes, or channels side by side. --------------------------------------------------

    lays_blocked: ClassVar[bool] = False
    """Whether what it writes has sixteen channels of a pixel side by side."""

    def blocked(self) -> "Kernel | None":
        """The kernel that computes the same with sixteen channels side by side, if there is one."""
        return None

    @property
    def role(self) -> str:
        """What it does, in a word under which costs are added up."""
        return "moves"

    def cost(self) -> float:
        """Cycles, about, epilogue included: where there are two kinds, the cheaper one is taken.

        A kind of which nothing better is known takes one for each number that it reads.
        """
        return float(sum(prod(value.shape) for value in self.reads()))

    def readable(self, value: Value) -> bool:
        """Whether a value that it reads need not be copied where its channels are blocked."""
        return value.whole is not None

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        """How it wants a value it reads, of which buffers lie blocked or not; None: as it is."""
        return None if blocked == {False} else "planes"

    # Memory: pitches, scratch, places that are used again. --------------------------------------

    def margins(self) -> Sides:
        """Zeros that it reads above, left of, below and right of the planes of its input."""
        return (0, 0, 0, 0)

    def same_pitch(self) -> list[list[Buffer]]:
        """Buffers whose rows must be equally far apart, list by list."""
        return [value.buffers for value in self.reads()]

    def least_pitch(self) -> int:
        """How far apart the rows of what it writes must be at least."""
        return 0

    @property
    def tile_key(self) -> str:
        """What the speed of its register tile depends on, in a word; empty: it has no choice."""
        return ""

    def tiles(self, count: int) -> list[tuple[int, int]]:
        """Register tiles that it could have, the best by the cost model first."""
        return []

    def narrow_tile(self) -> tuple[int, int] | None:
        """The register tile for vectors of four floats and few registers, where it has its own."""
        return None

    def plan(self, tile: tuple[int, int] | None = None) -> Plan:
        """How it walks, with the register tile that is given, or that of the cost model."""
        return Plan()

    @property
    def elementwise(self) -> bool:
        """Whether each tile reads no more of its input than the pixels that it writes."""
        return False

    @property
    def in_place(self) -> bool:
        """Whether a store may take the place of a value that an earlier operator read last."""
        return False

    # Verifying: what must hold where it is called. ----------------------------------------------

    @property
    def spills(self) -> bool:
        """Whether its stores end in floats that follow what they write, and are written later."""
        return False

    @property
    def stores_first(self) -> bool:
        """Whether its result is stored before the epilogue begins, which then reads it there."""
        return False

    def faults(self) -> Iterator[str]:
        """What is wrong with the way in which its values lie, as the end of a sentence."""
        yield from mixed_layouts(self)

    # C. -----------------------------------------------------------------------------------------

    @abstractmethod
    def c(self, file: File, plan: Any) -> None:
        """Write its function, tables and weights, and its call."""


def operand(op: EpilogueOp) -> Value | None:
    """The other value that an operator reads, if there is one."""
    return op.other if isinstance(op, Binary) else None


def is_small(kernel: Kernel, other: Value) -> bool:
    """Whether an operand is one number for all pixels of a channel."""
    one_pixel = kernel.shape[1:] == (1, 1)
    return other.pixel and (not one_pixel or len(other.planes) == 1)


def mixed_layouts(kernel: Kernel) -> Iterator[str]:
    for value in kernel.reads():
        if not value.pixel and len({(b.pitch, b.blocked) for b in value.buffers}) > 1:
            yield "reads planes of two layouts as one value"


def shape_key(kernel: Kernel, *words: str) -> str:
    """The sizes of a convolution, after some words, as a `tile_key`."""
    op, x = kernel.op, kernel.x
    sizes = (*words, *x.shape, len(op.weight), *op.weight.shape[2:])
    return "-".join(map(str, (*sizes, op.groups, *op.stride, *op.padding, *op.dilation)))


KINDS: list[type[Kernel]] = []
"""Kinds of kernels to which operators are lowered."""
Kind = TypeVar("Kind", bound=type[Kernel])


def kernel(kind: Kind) -> Kind:
    """Register a kind of kernel for the operators that it takes."""
    KINDS.append(kind)
    return kind


def kind_of(op: Any, shape: Shape) -> type[Kernel]:
    """The kind that computes an operator, None: only an epilogue, with a result of this shape.

    Raises `UnsupportedError` for an operator that no kind takes.
    """
    able = [
        kind for kind in KINDS if isinstance(op, kind.takes or NoneType) and kind.fits(op, shape)
    ]
    if len(able) != 1:
        names = " and ".join(sorted(kind.__name__ for kind in able)) or "no kernel"
        raise UnsupportedError(f"{type(op).__name__} of {shape} becomes {names}")
    return able[0]


@dataclass(slots=True, eq=False)
class Program:
    """Kernels in order, and the buffers they use."""

    graph: Graph
    image: Buffer
    logits: Value
    buffers: list[Buffer]
    kernels: list[Kernel] = field(default_factory=list)
    arena: int = 0  # floats
