"""Quantization-aware training: floats that take the values they will have as 8-bit integers.

Weights of convolutions and linear layers are rounded to the steps of each output channel, what
convolutions read to 255 steps of its range in the batch; gradients pass straight through (Jacob et
al., Quantization and Training of Neural Networks, CVPR 2018). Nothing else changes: parameters,
statistics and checkpoints are those of plain training, and no state is added that a resumed run
would need.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from leancnn.compiler.int8_pairs import in_words, largest_pairs

LEVELS = 127  # of a weight, to either side
STEPS = 255  # of an activation
SMALLEST = 1e-12  # of a step: what is all zeros stays so


class FakeQuantized(nn.Module):
    """The body in fake quantization; it shares the body's parameters.

    >>> FakeQuantized(nn.Conv2d(3, 4, 3))(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 4, 6, 6])
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        rounded = {
            f"{name}.weight" if name else "weight": rounded_weight(
                layer.weight, depthwise=_is_depthwise(layer)
            )
            for name, layer in layers(self.body)
        }
        with _rounded_inputs(self.body):
            logits: Tensor = functional_call(self.body, rounded, (x,))
        return logits


def layers(body: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """The convolutions and linear layers whose weights are parameters, by name."""
    for name, layer in body.named_modules():
        plain = isinstance(getattr(layer, "_parameters", {}).get("weight"), nn.Parameter)
        if isinstance(layer, nn.Conv2d | nn.Linear) and plain:
            yield name, layer


def _is_depthwise(layer: nn.Conv2d | nn.Linear) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels == layer.in_channels


def rounded_weight(weight: Tensor, *, depthwise: bool = False) -> Tensor:
    """(c_out, …) on a step for each output channel; the gradient is the weight's own.

    The largest weight is 127 steps or, of a convolution, the largest pair that is multiplied at
    once; see `leancnn.compiler.int8_pairs`.
    """
    given = weight.detach()
    if weight.dim() == 4:
        words = in_words(given.cpu().numpy(), depthwise=depthwise)
        found = torch.from_numpy(largest_pairs(words)).to(given)
    else:
        found = given.flatten(1).abs().amax(1)
    most = found.view(-1, *[1] * (weight.dim() - 1))
    step = (most / LEVELS).clamp(min=SMALLEST)
    return weight + ((weight / step).round() * step - weight).detach()


def rounded_activation(x: Tensor) -> Tensor:
    """(N, C, H, W) on 255 steps from the least to the largest of the batch, zero among them."""
    given = x.detach()
    low, high = given.min().clamp(max=0), given.max().clamp(min=0)
    step = ((high - low) / STEPS).clamp(min=SMALLEST)
    zero = (low / step).round()
    whole = (given / step).round().clamp(zero, zero + STEPS)
    return x + (whole * step - given)


@contextmanager
def _rounded_inputs(body: nn.Module) -> Iterator[None]:
    """What convolutions read is rounded for a while. One pixel is not: it is a sum of many, which
    integers hold exactly."""

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        return (rounded_activation(x), *inputs[1:]) if x.shape[2:].numel() > 1 else inputs

    hooks = [
        layer.register_forward_pre_hook(before)
        for _, layer in layers(body)
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
