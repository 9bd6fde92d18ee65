"""Count what a network costs: weights of three kinds, and multiply-accumulates for one image.

One convention everywhere, also in the reports:
* a MAC is one multiply and its add; only convolutions and matrix products count, at the sizes that
  really ran, groups respected; biases, norms, activations and pooling do not (FLOPs = 2 × MACs);
* trainable: parameters that ask for a gradient, batch-norm scales and shifts included;
* frozen: weights that are stored and never trained, ternary kernels entry by entry, however they
  are packed;
* buffers: running means and variances; `num_batches_tracked` is a step counter and left out;
* dense: trainable, with every convolution counted as if it had one group. It only explains a column
  of the HENet paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from leancnn.errors import ArgumentError, UncountableError
from leancnn.modes import evaluating

BYTES_PER_WEIGHT = 4  # float32
LONGEST = 1 << 20  # side of an image, and its channels


@dataclass(frozen=True, slots=True)
class Cost:
    """What one network costs; see the convention above."""

    trainable: int
    frozen: int
    buffers: int
    macs: int
    """For one image of the size that was asked for."""
    bytes: int
    """Of the trainable weights as float32."""
    dense: int


def count(module: nn.Module, image: tuple[int, int, int]) -> Cost:
    """Count `module` for one image of (channels, height, width).

    Nothing is computed: shapes alone run through the network, which is left as it was. What
    FlopCounterMode of torch sees is counted, operations and not class names. Raises `MismatchError`
    for an image without pixels or end, `UncountableError` when no convolution or matrix product
    ran, and what the network raises for an image it cannot take; ours raise `MismatchError`.

    >>> cost = leancnn.count(leancnn.create_model("henet_r3"), (3, 31, 31))
    >>> cost.trainable, cost.macs
    (87058, 10046040)
    """
    if not 1 <= min(image) <= max(image) <= LONGEST:
        raise ArgumentError(
            f"an image has 1 to {LONGEST:,} channels, rows and columns, not {tuple(image)}"
        )
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Cost(
        trainable=trainable,
        frozen=_frozen(module),
        buffers=sum(b.numel() for b in module.buffers() if b.is_floating_point()),
        macs=_macs(module, image),
        bytes=BYTES_PER_WEIGHT * trainable,
        dense=trainable + _spared_by_groups(module),
    )


def _frozen(module: nn.Module) -> int:
    fixed = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return fixed + sum(b.numel() for b in module.buffers() if b.dtype == torch.int8)


def _spared_by_groups(module: nn.Module) -> int:
    """How many trainable convolution weights the groups leave out."""
    return sum(
        part.weight.numel() * (part.groups - 1)
        for part in module.modules()
        if isinstance(part, _ConvNd) and part.weight.requires_grad
    )


def _macs(module: nn.Module, image: tuple[int, int, int]) -> int:
    shapes: dict[str, Tensor] = {
        name: tensor.detach().to("meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    counter = FlopCounterMode(display=False)
    with evaluating(module), torch.no_grad(), counter, _Norms(lambda x: x):
        functional_call(module, shapes, (torch.empty(1, *image, device="meta"),))
    if counter.get_total_flops() == 0:
        raise UncountableError(
            f"no convolution or matrix product ran in {type(module).__name__}: nothing to count"
        )
    return int(counter.get_total_flops()) // 2


def held(module: nn.Module, image: tuple[int, int, int]) -> int:
    """Bytes that a training step keeps for each image until its backward pass, in plain torch.

    Nothing is computed; `module` is left as it was. Copies for a moment are not in it.
    """
    shapes: dict[str, Tensor] = {
        name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad)
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    own = {tensor.untyped_storage()._cdata for tensor in shapes.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # one of several views
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with evaluating(module), torch.enable_grad(), hooks, _Norms(torch.square):
        functional_call(module, shapes, (torch.empty(1, *image, device="meta"),))
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


class _Norms(TorchFunctionMode):
    """Batch norms become another function of what they get: on shapes they themselves are slow."""

    def __init__(self, instead: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.instead(args[0]) if func is F.batch_norm else func(*args, **(kwargs or {}))
