"""Factors on the outputs of batch norms, and what the loss owes to each while they learn.

One pass of the paper's "tick": the factors φ, 1 at first, and the classifier take a step of
descent after each batch while all else is frozen, and Θ(φ) = Σ |φ · ∂L/∂φ| over the batches.
Norms that a shortcut ties share one factor (its group pruning): here all that are coupled do. Ours:
frozen includes the running statistics, and descent is plain, at a rate of 0.001. The "tock" is a
training with the recipe's `bn_l1`, as γ and φ are one factor once merged.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import Hook, batch_norms, broadcast, device_of, forward_hooks

RATE = 1e-3


@criterion(
    "gate_decorator",
    source="You et al., Gate Decorator: Global Filter Pruning Method, NeurIPS 2019, section 3",
    reads="labels",
)
def score(subject: Subject) -> Scores:
    """Θ under the paths of the norms. Raises `MismatchError` for a network without any."""
    rows = {
        path: torch.from_numpy(subject.dependencies.writes[path])
        for path in batch_norms(subject, "gate_decorator")
    }
    body = copy.deepcopy(subject.body).requires_grad_(False)
    ran = [body.get_submodule(path) for path in subject.dependencies.writes]
    last = [module for module in ran if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    classifier = list(last.requires_grad_(True).parameters())
    device = device_of(body)
    factors = torch.ones(subject.dependencies.coupled_count, device=device, requires_grad=True)
    total = torch.zeros_like(factors, dtype=torch.float64)

    def scales(path: str) -> Hook:
        row = rows[path].to(device)

        def scale(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out * broadcast(factors[row], out)

        return scale

    learning = [factors, *classifier]
    with forward_hooks({body.get_submodule(path): scales(path) for path in rows}):
        for images, labels in subject.batches(mixed=True):
            with torch.enable_grad():
                loss = F.cross_entropy(body(images), labels)
            grads = torch.autograd.grad(loss, learning)
            with torch.no_grad():
                total += (factors * grads[0]).abs().double()
                torch._foreach_add_(learning, grads, alpha=-RATE)
    theta = total.detach().cpu().numpy()
    return {path: theta[row.numpy()] for path, row in rows.items()}
