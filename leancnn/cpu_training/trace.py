"""A forward pass on symbols: what a network does between its images and its head, as a list.

A `Symbol` stands for a tensor and sees real shapes. torch functions that have a SIMD form leave a
node (memory that will exist) or only another way of reading nodes: a channel is a plane, and a
plane is a sum of terms. The first function without a SIMD form takes its arguments out of the
lanes; from there on calls are written down, to be made on real values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LINEAR, RELU, RELU6 = range(3)  # activations, as in kernels.c
MOST_TERMS = 6  # a plane of more terms is summed in memory first


class NoSimdError(Exception):
    """The network does something that has no SIMD form; the text says what."""


@dataclass(frozen=True, slots=True)
class Norm:
    """The batch-norm that follows a convolution."""

    mean: Tensor
    var: Tensor
    gamma: Tensor
    beta: Tensor
    momentum: float
    eps: float


@dataclass(slots=True, eq=False)
class Node:
    """A tensor that exists in memory: the images, a raw convolution output, or a sum of planes."""

    shape: tuple[int, int, int]
    """(channels, height, width)"""
    planes: list["Plane"] = field(default_factory=list)
    """What it reads; nothing for the images."""
    weight: Tensor | None = None
    """None for the images and for a sum."""
    bias: Tensor | None = None
    stride: int = 1
    pad: int = 0
    groups: int = 1
    norm: Norm | None = None
    act: int | None = None
    """The activation through which its readers see it; None until the first one asks."""
    sum_act: int = LINEAR
    """Of a sum: the activation before it is stored."""
    constant: bool = False
    """Of a convolution that stands for a pooling: its weight is ours, not the network's."""

    @property
    def kernel(self) -> int:
        """Side of a convolution's window."""
        return 0 if self.weight is None else self.weight.shape[-1]


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
    places: int = 0

    def add(self, node: Node) -> "Symbol":
        """Append a node; returns it as a symbol."""
        self.nodes.append(node)
        return Symbol(self, _planes(node), (node.shape[0],), node.shape[1:])

    def late(self, fake: Tensor) -> "Late":
        """A new value of the tail, with the shape of `fake`."""
        late = fake.detach().to("meta").as_subclass(Late)
        late.trace, late.place = self, self.places
        self.places += 1
        return late

    def leave(self, symbol: "Symbol") -> "Late":
        """Bring a symbol's value into memory, in torch's own layout."""
        if len(symbol.middle) != 1:
            raise NoSimdError("a half-finished shuffle leaves the lanes")
        late = self.late(torch.empty(symbol.shape, device="meta"))
        self.exits.append((_sum(symbol, LINEAR), late.place))
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
        extent: tuple[int, int],
    ) -> None:
        self.trace = trace
        self.planes = tuple(planes)
        self.middle = middle  # the channel axes: (C,), or two in the middle of a shuffle
        self.extent = extent

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

    def view(self, *shape: int) -> Any:
        """Channels split in two axes or joined again stay in the lanes; other views leave them."""
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
        if place == (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)):
            return _halved(self, torch.ones(len(self.planes), 1, 1, 1))
        return self.trace.call(Tensor.__getitem__, (self, place), {})

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        """Parts of the channels, each the same planes."""
        return torch.chunk(self, chunks, dim)  # type: ignore[arg-type]

    def flatten(self, start: int = 0, end: int = -1) -> Any:
        """Leaves the lanes."""
        return self.trace.call(torch.flatten, (self, start, end), {})

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves the lanes."""
        return self.trace.call(torch.mean, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        values = leaves((args, kwargs))
        late = any(isinstance(value, Late) for value in values)
        rule = None if late else _RULES.get(function)
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


# ---- the torch functions that have a SIMD form; parameters are named as torch names them ----


def _convolution(
    input: Symbol,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    kernel, stride, pad = weight.shape[-1], _square(stride), _square(padding)
    known = kernel in (1, 3) and weight.shape[-2] == kernel and _square(dilation) == 1
    if not known or (stride, pad) not in ((1, kernel // 2), (2, 0), (2, kernel // 2)):
        return NotImplemented
    height, width = ((side + 2 * pad - kernel) // stride + 1 for side in input.extent)
    many = max(map(len, input.planes)) > MOST_TERMS
    planes = _planes(_sum(input, LINEAR)) if many else input.planes
    shape = (weight.shape[0], height, width)
    return input.trace.add(Node(shape, _claimed(planes), weight, bias, stride, pad, groups))


def _batch_norm(
    input: Symbol,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    node = next(term.node for plane in input.planes for term in plane)
    free = node.weight is not None and node.norm is None and node.act is None
    if not free or list(input.planes) != _planes(node) or training != input.trace.training:
        return NotImplemented  # a norm that is frozen, or a layer that is read before it
    if running_mean is None or running_var is None or weight is None or bias is None:
        return NotImplemented
    node.norm = Norm(running_mean, running_var, weight, bias, momentum, eps)
    planes: list[Plane] = [(replace(plane[0], normed=True),) for plane in input.planes]
    return Symbol(input.trace, planes, input.middle, input.extent)


def _relu(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, RELU)


def _relu6(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, RELU6)


def _hardtanh(
    input: Symbol, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    return _activated(input, RELU6) if (min_val, max_val) == (0, 6) else NotImplemented


def _activated(input: Symbol, act: int) -> Symbol:
    """Through an activation: on the way to its readers where that can be, else in memory."""
    terms = [plane[0] if len(plane) == 1 else None for plane in input.planes]
    if all(t and t.node.weight is not None and _takes(t, act) for t in terms):
        planes: list[Plane] = [(replace(plane[0], act=act),) for plane in input.planes]
    else:
        planes = _planes(_sum(input, act))
    return Symbol(input.trace, planes, input.middle, input.extent)


def _takes(term: Term, act: int) -> bool:
    return term.node.act in (None, act) and term.act in (LINEAR, act)


def _add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    both = isinstance(input, Symbol) and isinstance(other, Symbol) and input.shape == other.shape
    if not both or alpha != 1:
        return NotImplemented
    planes = [p + q for p, q in zip(input.planes, other.planes, strict=True)]
    return Symbol(input.trace, planes, input.middle, input.extent)


def _cat(tensors: Any, dim: int = 0) -> Any:
    if dim != 1 or not all(isinstance(t, Symbol) and len(t.middle) == 1 for t in tensors):
        return NotImplemented
    planes = [plane for t in tensors for plane in t.planes]
    return Symbol(tensors[0].trace, planes, (len(planes),), tensors[0].extent)


def _chunk(input: Symbol, chunks: int, dim: int = 0) -> Any:
    if dim != 1 or len(input.middle) != 1:
        raise NoSimdError("chunks of anything but channels")
    width = -(-len(input.planes) // chunks)
    starts = range(0, len(input.planes), width)
    parts = [input.planes[start : start + width] for start in starts]
    return tuple(Symbol(input.trace, part, (len(part),), input.extent) for part in parts)


def _avg_pool(
    input: Symbol,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    plain = not ceil_mode and divisor_override is None
    if not plain or (_square(kernel_size), _square(stride), _square(padding)) != (3, 2, 0):
        return NotImplemented
    return _halved(input, torch.full((len(input.planes), 1, 3, 3), 1 / 9))


def _halved(input: Symbol, weight: Tensor) -> Any:
    smaller = _convolution(input, weight, stride=2, groups=len(input.planes))
    input.trace.nodes[-1].constant = True
    return smaller


def _pad(input: Symbol, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    if len(pad) != 6 or any(pad[:4]) or min(pad) < 0 or mode != "constant" or value:
        return NotImplemented
    planes = ((),) * pad[4] + input.planes + ((),) * pad[5]  # zeros: sums of nothing
    return Symbol(input.trace, planes, (len(planes),), input.extent)


def _square(value: Any) -> int:
    """The one number of an argument that torch also takes as a pair; -1 for anything else."""
    values = set(value) if isinstance(value, tuple | list) else {value}
    one = values.pop()
    return one if isinstance(one, int) and not values else -1


def _planes(node: Node) -> list[Plane]:
    return [(Term(node, channel),) for channel in range(node.shape[0])]


def _sum(symbol: Symbol, act: int) -> Node:
    """The symbol's planes, each added up in memory, through an activation."""
    node = Node((len(symbol.planes), *symbol.extent), _claimed(symbol.planes), sum_act=act)
    symbol.trace.nodes.append(node)
    return node


def _claimed(planes: Sequence[Plane]) -> list[Plane]:
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


_RULES: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _convolution,
    F.batch_norm: _batch_norm,
    F.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    torch.add: _add,
    torch.cat: _cat,
    torch.chunk: _chunk,
    F.avg_pool2d: _avg_pool,
    F.pad: _pad,
}
