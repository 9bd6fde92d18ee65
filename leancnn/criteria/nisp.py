"""Importance handed back from the answers through the absolute weights of all later layers.

s_k = |W_{k+1}|ᵀ s_{k+1}, summed over the pixels of a map: batch norms hand on
|γ|/σ, activations and pools their due of 1; the borders' padding is not deducted. The paper ranks
the layer before the classifier by Inf-FS on data. Ours: every logit is worth 1 and the classifier
hands that back as any layer does, so that no image is needed; a gate counts as wide open; and a
layer's scores are divided by their mean, as otherwise they grow with the depth behind them.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from leancnn.channels.dependencies import ALONE_TOO
from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import (
    RewritingInterpreter,
    device_of,
    gate_layers,
    output_node,
    prunable_layers,
)
from leancnn.errors import MismatchError
from leancnn.layers import RMAC, ChannelShuffle, LocalBinaryConv2d, PadChannels


@criterion(
    "nisp",
    source="Yu et al., NISP: Pruning Networks using Neuron Importance Score Propagation, CVPR 2018",
    reads="weights",
)
def score(subject: Subject) -> Scores:
    """Importance under the path of the layer that makes the channels, mean 1.

    Raises `MismatchError` for a network so deep that the numbers overflow.
    """
    paths = {output_node(subject, path): path for path, _ in prunable_layers(subject)}
    values: dict[str, Tensor] = {}

    def keep(node: fx.Node, out: Any) -> Any:
        if node in paths:
            values[paths[node]] = out
        return out

    placeholder = next(iter(subject.dependencies.graph.nodes))
    width = len(subject.dependencies.rows[placeholder.name])
    device = device_of(subject.body)
    pixel = torch.ones(1, width, 1, 1, dtype=torch.float64, device=device, requires_grad=True)
    with torch.enable_grad():
        logits = _Magnitudes(subject, keep).run(pixel)
    grads = torch.autograd.grad(logits.sum(), list(values.values()), materialize_grads=True)
    found = {path: grad.flatten() for path, grad in zip(values, grads, strict=True)}
    if not all(bool(s.isfinite().all()) for s in found.values()):
        raise MismatchError(
            "nisp: this network is so deep that importances overflow; l1 and taylor do not"
        )
    return {path: (s / s.mean() if s.any() else s).cpu().numpy() for path, s in found.items()}


class _Magnitudes(RewritingInterpreter):
    """The network as a linear map of magnitudes on one pixel, whose gradient is the importance."""

    def __init__(self, subject: Subject, change: Any) -> None:
        super().__init__(subject, change)
        self.gates = {f"{path}.gate" for path, _ in gate_layers(subject)}

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cropped = target is operator.getitem and isinstance(args[0], Tensor) and args[0].ndim == 4
        if cropped or target in ALONE_TOO:
            return args[0]
        return super().call_function(target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module, x = self.fetch_attr(str(target)), args[0]
        if target in self.gates:
            return torch.ones_like(x, requires_grad=False)
        match module:
            case nn.Conv2d():
                weight = module.weight.detach().double().abs().sum((2, 3), keepdim=True)
                return F.conv2d(x, weight, groups=module.groups)
            case nn.Linear():
                weight, x = module.weight.detach().double().abs(), x.flatten(1)
                return F.linear(x, weight.view(len(weight), x.shape[1], -1).sum(2))
            case LocalBinaryConv2d():
                return x * module.weight.double().abs().sum((1, 2, 3))[:, None, None]
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                return x * _gain(module).view(-1, *[1] * (x.ndim - 2))
            case ChannelShuffle() | PadChannels():
                return module(x)
            case RMAC():
                return x.flatten(1)
        return x  # activations and pools


def _gain(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    """|γ|/σ, (C,)."""
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    return scale * norm.weight.detach().double().abs() if norm.affine else scale
