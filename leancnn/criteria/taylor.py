"""What the loss would change, to first order, if a feature map were zero.

Θ(z) = |1/M Σ_m ∂C/∂z_m · z_m| over the M pixels of a map z after norm and activation, for each
image, averaged over the images; a layer's scores are then divided by their l2 norm (section 2.2).
The sum over pixels is the derivative by a factor of 1 on the map, and is taken as that. Without the
paper's penalty on FLOPs.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import RewritingInterpreter, broadcast, output_node, prunable_layers


@criterion(
    "taylor",
    source="Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient "
    "Inference, ICLR 2017, Eq. 7-8 and section 2.2",
    reads="labels",
)
def score(subject: Subject) -> Scores:
    """Θ under the path of the layer that makes the map; cross-entropy is the loss."""
    paths = {output_node(subject, path): path for path, _ in prunable_layers(subject)}
    factors: dict[str, Tensor] = {}
    pixels: dict[str, int] = {}

    def change(node: fx.Node, out: Any) -> Any:
        path = paths.get(node)
        if path is None:
            return out
        factors[path] = torch.ones(out.shape[:2], device=out.device, requires_grad=True)
        pixels[path] = out[0, 0].numel()
        return out * broadcast(factors[path], out)

    sums: dict[str, Any] = defaultdict(float)
    interpreter = RewritingInterpreter(subject, change)
    for images, labels in subject.batches():
        with torch.enable_grad():
            loss = F.cross_entropy(interpreter.run(images).flatten(1), labels, reduction="sum")
        grads = torch.autograd.grad(loss, list(factors.values()), materialize_grads=True)
        for path, grad in zip(factors, grads, strict=True):
            sums[path] += (grad.double() / pixels[path]).abs().sum(0)
    return {path: F.normalize(total, dim=0).cpu().numpy() for path, total in sums.items()}
