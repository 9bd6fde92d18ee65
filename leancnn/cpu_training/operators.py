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
    HARD_SIGMOID,
    HARD_SWISH,
    LINEAR,
    RELU,
    RELU6,
    RULES,
    SIGMOID,
    SILU,
    STORED,
    Node,
    Norm,
    NoSimdError,
    Plane,
    Symbol,
    Term,
    claimed,
    extent_of,
    planes_of,
    summed,
)
from leancnn.layers import regional_max
from leancnn.regions import rmac_windows

MOST_TERMS = 6  # a plane of more terms is summed in memory first
LARGEST_KERNEL = 11


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
    known = kernel <= LARGEST_KERNEL and weight.shape[-2] == kernel and _square(dilation) == 1
    if not known or stride < 1 or not 0 <= pad < max(kernel, 1) or not input.extent:
        return NotImplemented
    height, width = ((side + 2 * pad - kernel) // stride + 1 for side in input.extent)
    shape = (weight.shape[0], height, width)
    form = "convolution"
    return input.trace.add(Node(shape, _few(input), form, weight, bias, stride, pad, groups))


def _linear(input: Symbol, weight: Tensor, bias: Tensor | None = None) -> Any:
    if input.extent:
        return NotImplemented
    node = Node((weight.shape[0], 1, 1), _few(input), "convolution", weight, bias)
    return input.trace.add(node).vector


def _few(input: Symbol) -> list[Plane]:
    """Its planes, read; added up in memory first where they have many terms."""
    many = max(map(len, input.planes)) > MOST_TERMS
    return claimed(planes_of(summed(input, LINEAR)) if many else input.planes)


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
    if running_mean is None or running_var is None or weight is None or bias is None:
        return NotImplemented
    if training != input.trace.training or len(input.middle) != 1:
        return NotImplemented  # a norm that is frozen
    nodes = _whole(input)
    planes = input.planes
    if nodes is None:  # a norm of its own sum
        node = Node((len(planes), *extent_of(input)), claimed(planes_of(summed(input, LINEAR))))
        input.trace.nodes.append(node)
        nodes, planes = [node], tuple(planes_of(node))
    start = 0
    for node in nodes:
        node.norm = Norm(running_mean, running_var, weight, bias, momentum, eps, start)
        start += node.shape[0]
    normed: list[Plane] = [(replace(plane[0], normed=True),) for plane in planes]
    return Symbol(input.trace, normed, input.middle, input.extent)


def _whole(input: Symbol) -> list[Node] | None:
    """The convolutions whose channels follow each other here, none of which was read before."""
    nodes: list[Node] = []
    planes = list(input.planes)
    while planes:
        node = planes[0][0].node if planes[0] else None
        if node is None or node.weight is None or node.norm or node.act is not None:
            return None
        count = node.shape[0]
        if planes[:count] != planes_of(node) or node in nodes:
            return None
        nodes.append(node)
        planes = planes[count:]
    return nodes


def _relu(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, RELU)


def _relu6(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, RELU6)


def _hardtanh(
    input: Symbol, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    return _activated(input, RELU6) if (min_val, max_val) == (0, 6) else NotImplemented


def _silu(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, SILU)


def _sigmoid(input: Symbol) -> Any:
    return _activated(input, SIGMOID)


def _hard_sigmoid(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, HARD_SIGMOID)


def _hard_swish(input: Symbol, inplace: bool = False) -> Any:
    return _activated(input, HARD_SWISH)


def _activated(input: Symbol, act: int) -> Symbol:
    """Through an activation: on the way to its readers where that can be, else in memory."""
    terms = [plane[0] if len(plane) == 1 else None for plane in input.planes]
    if all(t and t.node.weight is not None and _takes(t, act) for t in terms):
        planes: list[Plane] = [(replace(plane[0], act=act),) for plane in input.planes]
    elif act in STORED:
        planes = planes_of(summed(input, act))
    else:  # a sum of its own, for others may read the one that is known
        node = Node((len(input.planes), *extent_of(input)), _few(input))
        input.trace.nodes.append(node)
        planes = [(replace(plane[0], act=act),) for plane in planes_of(node)]
    return Symbol(input.trace, planes, input.middle, input.extent)


def _takes(term: Term, act: int) -> bool:
    again = act in STORED and term.act == act  # doing it twice is doing it once
    return term.node.act in (None, act) and (term.act == LINEAR or again)


def _add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    both = isinstance(input, Symbol) and isinstance(other, Symbol) and input.shape == other.shape
    if not both or alpha != 1:
        return NotImplemented
    planes = [p + q for p, q in zip(_known(input), _known(other), strict=True)]
    return Symbol(input.trace, planes, input.middle, input.extent)


def _known(input: Symbol) -> Any:
    """Its planes, or their sums if those exist already."""
    node = input.trace.sums.get(input.planes)
    return input.planes if node is None else planes_of(node)


def _multiply(input: Any, other: Any) -> Any:
    if not (isinstance(input, Symbol) and isinstance(other, Symbol)):
        return NotImplemented
    if input.extent == (1, 1) and other.extent != (1, 1):
        input, other = other, input
    if other.extent != (1, 1) or not input.extent or input.middle != other.middle:
        return NotImplemented
    shape = (len(input.planes), *extent_of(input))
    node = Node(shape, _few(input) + _few(other), "gate")
    return input.trace.add(node)


def _mean(input: Symbol, dim: Any = None, keepdim: bool = False, **others: Any) -> Any:
    axes = sorted(axis % input.ndim for axis in dim) if isinstance(dim, list | tuple) else None
    if others or axes != [2, 3] or len(input.middle) != 1:
        return NotImplemented
    mean = input.trace.add(Node((len(input.planes), 1, 1), _few(input), "mean"))
    return mean if keepdim else mean.vector


def _adaptive_avg_pool(input: Symbol, output_size: Any) -> Any:
    return _mean(input, (2, 3), keepdim=True) if _square(output_size) == 1 else NotImplemented


def _flatten(input: Symbol, start_dim: int = 0, end_dim: int = -1) -> Any:
    whole = start_dim == 1 and end_dim in (-1, input.ndim - 1)
    return input.vector if whole and input.vector else NotImplemented


def _regional_max(x: Symbol, mode: str, eps: float) -> Any:
    if len(x.middle) != 1 or not x.extent:
        return NotImplemented
    windows = tuple((w[0], w[1], w[2], w[3]) for w in rmac_windows(*extent_of(x), mode))
    shape = (len(x.planes), 1, len(windows))
    peaks = x.trace.add(Node(shape, _few(x), "peaks", windows=windows))
    units = Node((shape[0], 1, 1), claimed(peaks.planes), "units", shortest=eps)
    return x.trace.add(units).vector


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
    window, border = _square(kernel_size), _square(padding)
    step = window if stride is None or stride == [] else _square(stride)
    plain = not ceil_mode and divisor_override is None and (count_include_pad or border == 0)
    if not plain or min(window, step) < 1 or border < 0:
        return NotImplemented
    weight = torch.full((len(input.planes), 1, window, window), 1 / window**2)
    return _pooled(input, weight, step, border)


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
    if not input.extent:
        return NotImplemented
    shape = F.max_pool2d(
        torch.empty(1, *input.extent, device="meta"), window, step, border, ceil_mode=ceil_mode
    ).shape
    pool = (window, step, border)
    return input.trace.add(Node((len(input.planes), *shape[1:]), _few(input), "max", pool=pool))


def _part(input: Symbol, place: Any) -> Any:
    if place == (slice(None), slice(None), None, None) and not input.extent:
        return Symbol(input.trace, input.planes, input.middle, (1, 1))
    if place != (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)):
        return NotImplemented
    return _pooled(input, torch.ones(len(input.planes), 1, 1, 1), 2, 0)


def _pooled(input: Symbol, weight: Tensor, step: int, border: int) -> Any:
    smaller = _convolution(input, weight, None, step, border, groups=len(input.planes))
    if smaller is not NotImplemented:
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
        F.silu: _silu,
        F.hardsigmoid: _hard_sigmoid,
        F.hardswish: _hard_swish,
        torch.sigmoid: _sigmoid,
        torch.add: _add,
        torch.mul: _multiply,
        torch.mean: _mean,
        torch.flatten: _flatten,
        F.linear: _linear,
        F.adaptive_avg_pool2d: _adaptive_avg_pool,
        regional_max: _regional_max,
        Tensor.__getitem__: _part,
        torch.cat: _cat,
        torch.chunk: _chunk,
        F.avg_pool2d: _avg_pool,
        F.max_pool2d: _max_pool,
        torch.max_pool2d: _max_pool,
        F.pad: _pad,
    }
)
