"""A forward pass on symbols: what a network does between its images and its head, as a list.

A `Symbol` stands for a tensor and sees real shapes. torch functions that have a SIMD form leave a
node (memory that will exist) or only another way of reading nodes: a channel is a plane, and a
plane is a sum of terms. The first function without a SIMD form takes its arguments out of the
lanes; from there on calls are written down, to be made on real values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LINEAR, RELU, RELU6, SILU, SIGMOID, HARD_SIGMOID, HARD_SWISH = range(7)  # as in simd.c
STORED = (LINEAR, RELU, RELU6)  # activations whose gradient can be had from what they gave
RULES: dict[Any, Callable[..., Any]] = {}
"""torch functions that have a SIMD form, filled by operators.py."""


class NoSimdError(Exception):
    """The network does something that has no SIMD form; the text says what."""


@dataclass(frozen=True, slots=True)
class Norm:
    """The batch-norm that follows a node: its channels from `start` on."""

    mean: Tensor
    var: Tensor
    gamma: Tensor
    beta: Tensor
    momentum: float
    eps: float
    start: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """A tensor that exists in memory: the images, a raw convolution output, a sum of planes …"""

    shape: tuple[int, int, int]
    """(channels, height, width)"""
    planes: list["Plane"] = field(default_factory=list)
    """What it reads; nothing for the images. Of a gate: what it scales, then the scales."""
    form: str = "sum"
    """images, convolution, sum, max, mean, gate, peaks or units: the steps of steps.c."""
    weight: Tensor | None = None
    """Of a convolution."""
    bias: Tensor | None = None
    stride: int = 1
    pad: int = 0
    groups: int = 1
    norm: Norm | None = None
    act: int | None = None
    """The activation through which its readers see it; None until the first one asks."""
    sum_act: int = LINEAR
    """Of a sum: the activation before it is stored."""
    pool: tuple[int, int, int] | None = None
    """Of a maximum pooling: side of the window, stride, border."""
    windows: tuple[tuple[int, int, int, int], ...] = ()
    """Of regional maxima: top, left, rows and columns of each."""
    shortest: float = 0.0
    """Of unit vectors: the length below which they are not made longer."""
    source: Tensor | None = None
    """Of a convolution with fixed kernels: the buffer they come from."""
    constant: bool = False
    """Of a convolution that stands for a pooling: its weight is ours, not the network's."""

    @property
    def kernel(self) -> int:
        """Side of a convolution's window."""
        return 0 if self.weight is None else self.weight.shape[-1] if self.weight.ndim == 4 else 1

    @property
    def viewed(self) -> bool:
        """Whether its readers see it through something that has a gradient of its own."""
        return bool(self.weight is not None or self.norm or self.act not in (None, LINEAR))

    @property
    def dear(self) -> bool:
        """Whether its activation's gradient is computed once, and kept."""
        return self.act is not None and self.act not in STORED


@dataclass(frozen=True, slots=True)
class Term:
    """A channel of a node, as a reader sees it."""

    node: Node
    channel: int
    act: int = LINEAR
    normed: bool = False


Plane = tuple[Term, ...]


@dataclass(slots=True, eq=False)
class Trace:
    """One recorded forward pass: nodes in order, the first being the images, then the tail."""

    batch: int
    training: bool
    nodes: list[Node] = field(default_factory=list)
    exits: list[tuple[Node, int]] = field(default_factory=list)
    """What leaves the lanes, and the place of its value in the tail."""
    calls: list[tuple[Callable[..., Any], Any, Any, int]] = field(default_factory=list)
    """Function, arguments, named arguments, and the place of the result."""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Of the value at each place."""
    sums: dict[tuple["Plane", ...], Node] = field(default_factory=dict)
    """Planes that were added up in memory already."""

    def add(self, node: Node) -> "Symbol":
        """Append a node; returns it as a symbol."""
        self.nodes.append(node)
        return Symbol(self, planes_of(node), (node.shape[0],), node.shape[1:])

    def late(self, fake: Tensor) -> "Late":
        """A new value of the tail, with the shape of `fake`."""
        late = fake.detach().to("meta").as_subclass(Late)
        late.trace, late.place = self, len(self.shapes)
        self.shapes.append(tuple(fake.shape))
        return late

    def mostly_fast(self) -> bool:
        """Whether no norm and at most a third of the multiply-adds are left to torch."""
        fast = sum(n.weight.numel() * prod(n.shape[1:]) for n in self.nodes if n.weight is not None)
        slow = 0
        for function, args, _, place in self.calls:
            if function is F.batch_norm:
                return False
            if function is torch.conv2d:
                slow += args[1].numel() * prod(self.shapes[place][2:])
        return 2 * slow <= fast

    def leave(self, symbol: "Symbol") -> "Late":
        """Bring a symbol's value into memory, in torch's own layout."""
        if len(symbol.middle) != 1:
            raise NoSimdError("a half-finished shuffle leaves the lanes")
        late = self.late(torch.empty(symbol.shape, device="meta"))
        self.exits.append((summed(symbol, LINEAR), late.place))
        return late

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> "Late":
        """Write down an ordinary torch call of the tail; only its shape is computed."""
        left: dict[int, Late] = {}

        def enter(value: Any) -> Any:
            if isinstance(value, Symbol) and id(value) not in left:
                left[id(value)] = self.leave(value)
            return left.get(id(value), value)

        def fake(value: Any) -> Any:
            if isinstance(value, Late):
                return value.as_subclass(Tensor)
            return value.to("meta") if isinstance(value, Tensor) else value

        args, kwargs = mapped(args, enter), mapped(kwargs, enter)
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*mapped(args, fake), **mapped(kwargs, fake))
        if not isinstance(result, Tensor):
            raise NoSimdError(f"{function.__name__} does not return one tensor")
        late = self.late(result)
        self.calls.append((function, args, kwargs, late.place))
        return late


class Symbol:
    """Stands for a tensor (N, …, H, W) whose channels are planes."""

    def __init__(
        self,
        trace: Trace,
        planes: Sequence[Plane],
        middle: tuple[int, ...],
        extent: tuple[int, ...],
    ) -> None:
        self.trace = trace
        self.planes = tuple(planes)
        self.middle = middle  # the channel axes: (C,), or two in the middle of a shuffle
        self.extent = extent  # (H, W), or nothing of a vector

    @property
    def dtype(self) -> torch.dtype:
        """As of the tensor it stands for, whatever is stored."""
        return torch.float32

    @property
    def shape(self) -> torch.Size:
        """As of the tensor it stands for."""
        return torch.Size((self.trace.batch, *self.middle, *self.extent))

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def dim(self) -> int:
        """Axes, as torch also calls them."""
        return self.ndim

    def size(self, axis: int | None = None) -> Any:
        """The shape, or one axis of it."""
        return self.shape if axis is None else self.shape[axis]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoSimdError(f"a tensor's {name} has no SIMD form")

    def __add__(self, other: Any) -> Any:
        return torch.add(self, other)  # type: ignore[call-overload]

    __radd__ = __iadd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)  # type: ignore[arg-type]

    __rmul__ = __imul__ = __mul__

    def view(self, *shape: int) -> Any:
        """Channels split in two axes or joined again stay in the lanes; other views leave them."""
        if self.vector and shape in ((self.trace.batch, len(self.planes)), (self.trace.batch, -1)):
            return self.vector
        middle = tuple(shape[1:-2])
        kept = shape[0] == self.trace.batch and tuple(shape[-2:]) == self.extent
        if kept and middle and prod(middle) == len(self.planes):
            return Symbol(self.trace, self.planes, middle, self.extent)
        return self.trace.call(torch.reshape, (self, shape), {})

    reshape = view

    def transpose(self, one: int, two: int) -> Any:
        """The two channel axes of a shuffle exchanged: planes in another order."""
        if {one, two} == {1, 2} and len(self.middle) == 2:
            groups, width = self.middle
            planes = [self.planes[g * width + n] for n in range(width) for g in range(groups)]
            return Symbol(self.trace, planes, (width, groups), self.extent)
        return self.trace.call(torch.transpose, (self, one, two), {})

    def __getitem__(self, place: Any) -> Any:
        """Every second pixel stays in the lanes; other parts leave them."""
        return self.__torch_function__(Tensor.__getitem__, (), (self, place))

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        """Parts of the channels, each the same planes."""
        return torch.chunk(self, chunks, dim)  # type: ignore[arg-type]

    @property
    def vector(self) -> "Symbol | None":
        """Maps of one pixel as a vector (N, C)."""
        if prod(self.extent) != 1 or len(self.middle) != 1:
            return None
        return Symbol(self.trace, self.planes, self.middle, ())

    def flatten(self, start: int = 0, end: int = -1) -> Any:
        """Stays in the lanes where each map is one pixel."""
        return torch.flatten(self, start, end)  # type: ignore[arg-type]

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        """Over the whole map it stays in the lanes."""
        return torch.mean(self, *args, **kwargs)  # type: ignore[call-overload]

    def sigmoid(self) -> Any:
        """As torch.sigmoid."""
        return torch.sigmoid(self)  # type: ignore[arg-type]

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        values = leaves((args, kwargs))
        late = any(isinstance(value, Late) for value in values)
        rule = None if late else RULES.get(function)
        if rule and (result := rule(*args, **kwargs)) is not NotImplemented:
            return result
        trace = next(value.trace for value in values if isinstance(value, Symbol | Late))
        return trace.call(function, args, kwargs)


class Late(Tensor):
    """A value of the tail: it knows its shape and the place where its real value will stand."""

    trace: Trace  # type: ignore[assignment]  # torch's own trace is of matrices
    place: int

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _QUESTIONS:
            return super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return Symbol.__torch_function__(function, types, args, kwargs)


_QUESTIONS = (
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim")),
    *(Tensor.size, Tensor.dim, Tensor.numel),
)


def leaves(value: Any) -> list[Any]:
    """All values in nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested lists, tuples and dicts with each value changed."""
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mapped(item, change) for item in value)
    return change(value)


def planes_of(node: Node) -> list[Plane]:
    return [(Term(node, channel),) for channel in range(node.shape[0])]


def summed(symbol: Symbol, act: int) -> Node:
    """The symbol's planes, each added up in memory, through an activation that can be stored."""
    known = symbol.trace.sums.get(symbol.planes) if act == LINEAR else None
    if known is not None:
        return known
    node = Node((len(symbol.planes), *extent_of(symbol)), claimed(symbol.planes), sum_act=act)
    symbol.trace.nodes.append(node)
    if act == LINEAR:
        symbol.trace.sums[symbol.planes] = node
    return node


def extent_of(symbol: Symbol) -> tuple[int, int]:
    """Rows and columns of its maps; a vector's are one."""
    height, width = symbol.extent or (1, 1)
    return height, width


def claimed(planes: Sequence[Plane]) -> list[Plane]:
    """The planes, now read: all readers of a node see it alike, or the network has no SIMD form."""
    if not all(planes):
        raise NoSimdError("channels of zeros are read by themselves")
    for term in (term for plane in planes for term in plane):
        if term.normed != (term.node.norm is not None):
            raise NoSimdError("a convolution is read both before and after its norm")
        if term.node.act not in (None, term.act):
            raise NoSimdError("a convolution is read both with and without its activation")
        term.node.act = term.act
    return list(planes)
