"""The torch functions that have a SIMD form, one rule each, with parameters as torch names them.

A rule reads symbols and returns one: it leaves a node, or only another way of reading nodes.
`NotImplemented` means that this call has no SIMD form and leaves the lanes.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leancnn.cpu_training.trace import (
    LINEAR,
    RELU,
    RELU6,
    RULES,
    Node,
    Norm,
    NoSimdError,
    Plane,
    Symbol,
    Term,
    claimed,
    planes_of,
    summed,
)

MOST_TERMS = 6  # a plane of more terms is summed in memory first


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
    planes = planes_of(summed(input, LINEAR)) if many else input.planes
    shape = (weight.shape[0], height, width)
    return input.trace.add(Node(shape, claimed(planes), weight, bias, stride, pad, groups))


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
    if not free or list(input.planes) != planes_of(node) or training != input.trace.training:
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
        planes = planes_of(summed(input, act))
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


def _max_pool(
    input: Symbol,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    window, border = _square(kernel_size), _square(padding)
    step = window if stride is None or stride == [] else _square(stride)
    if min(window, step) < 1 or border < 0 or _square(dilation) != 1 or return_indices:
        return NotImplemented
    if max(map(len, input.planes)) > MOST_TERMS:
        return NotImplemented
    shape = F.max_pool2d(
        torch.empty(1, *input.extent, device="meta"), window, step, border, ceil_mode=ceil_mode
    ).shape
    node = Node((len(input.planes), *shape[1:]), claimed(input.planes), pool=(window, step, border))
    return input.trace.add(node)


def _every_second(input: Symbol, place: Any) -> Any:
    if place != (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)):
        return NotImplemented
    return _halved(input, torch.ones(len(input.planes), 1, 1, 1))


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


RULES.update(
    {
        torch.conv2d: _convolution,
        F.batch_norm: _batch_norm,
        F.relu: _relu,
        torch.relu: _relu,
        torch.relu_: _relu,
        F.relu6: _relu6,
        F.hardtanh: _hardtanh,
        torch.add: _add,
        Tensor.__getitem__: _every_second,
        torch.cat: _cat,
        torch.chunk: _chunk,
        F.avg_pool2d: _avg_pool,
        F.max_pool2d: _max_pool,
        torch.max_pool2d: _max_pool,
        F.pad: _pad,
    }
)
