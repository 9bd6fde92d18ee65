"""What the form of a network in 8-bit integers will store, told from shapes alone.

Layers with weights keep a byte for each and four numbers for each output; what joins values
without weights (sums, gates, means of windows) keeps factors and multipliers for each channel, too.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Maps = dict[torch.nn.Conv2d, tuple[int, int]]
"""By convolution, the (height, width) of what it was last given."""
NUMBER = 4  # bytes
OUTPUT = 4 * NUMBER  # of a layer for each output: bias, two limits, multiplier
SUM = 4 * NUMBER  # of a sum that no layer begins: bias, two factors, multiplier
GATE = 2 * NUMBER  # bias and multiplier
MEAN = 2 * NUMBER  # and a byte for each pixel of the window
ATEN = torch.ops.aten


def watched(body: torch.nn.Module) -> Maps:
    """What the convolutions of a network are given, filled in whenever it runs."""
    found: Maps = {}

    def see(layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, torch.nn.Conv2d)
        found[layer] = given[0].shape[-2], given[0].shape[-1]

    for layer in body.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_pre_hook(see)
    return found


def of_layers(body: torch.nn.Module, maps: Maps) -> int:
    """Bytes of layers with weights, nearly: batch norms are folded, and of a kernel on a single
    pixel only its middle is left.

    >>> of_layers(torch.nn.Linear(100, 10), {}) == 100 * 10 + OUTPUT * 10
    True
    >>> deep = torch.nn.Conv2d(8, 8, 3, padding=1)
    >>> of_layers(deep, {deep: (1, 1)}) == 8 * 8 + OUTPUT * 8
    True
    """
    found = 0
    for layer in body.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            within = isinstance(layer, torch.nn.Conv2d) and maps.get(layer) == (1, 1)
            kernel = layer.weight[0, 0].numel() if within else 1
            found += layer.weight.numel() // kernel + OUTPUT * len(layer.weight)
    return found


class Joins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, `bytes` counts what joins of values without weights will keep.

    >>> with Joins() as joins:
    ...     _ = torch.ones(1, 21, 64).sum(1)  # of 21 vectors
    >>> joins.bytes == 20 * 64 * SUM
    True
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.bytes += _kept(func.overloadpacket, args, result)
        return result


def _kept(operator: Any, args: Sequence[Any], result: Any) -> int:
    """Bytes that one operator will keep, by the channels of its result."""
    both = [one for one in args[:2] if isinstance(one, Tensor)]
    if operator in (ATEN.add, ATEN.add_) and len(both) == 2 and result.ndim == 4:
        return NUMBER * int(result.shape[1])  # a factor: the sum itself is a layer's
    if operator in (ATEN.mul, ATEN.mul_) and len(both) == 2 and _is_gated(*both):
        return GATE * int(result.shape[1])
    if operator is ATEN.sum and args[0].ndim == 3 and result.ndim == 2:  # of a stack of vectors
        return SUM * int(args[0].shape[1] - 1) * int(result.shape[1])
    if operator is ATEN.avg_pool2d:
        return (MEAN + int(math.prod(args[1]))) * int(result.shape[1])
    return 0


def _is_gated(x: Tensor, y: Tensor) -> bool:
    """Whether one of two factors is a number for each channel of the other's maps."""
    return x.ndim == y.ndim == 4 and x.shape != y.shape and x.shape[:2] == y.shape[:2]
