"""Channels in clusters, drawn together while they learn (C-SGD).

In each cluster H of filters F_j, with the loss L, decay η and centripetal strength ε,

    ΔF_j = − 1/|H| Σ_{k∈H} ∂L/∂F_k − η F_j + ε (1/|H| Σ_{k∈H} F_k − F_j):

all of a cluster get the same gradient, so that only what tells them apart shrinks. The same holds
for biases and for scales and shifts of norms. Source: Ding et al., Centripetal SGD for Pruning Very
Deep Convolutional Networks with Complicated Structure, CVPR 2019, Eq. 4.

Ours: the paper's ε of 0.003 is for hundreds of epochs; a shorter training takes as large a one as
lets differences shrink by e^−`FOLDS`.
"""

import math

import torch
from torch import Tensor, nn

from leancnn.recipes import Recipe, learning_rate
from leancnn.train.plan import TrainingPlan

EPSILON = 0.003  # the paper's
FOLDS = 20  # e-folds in which what differs falls below what float32 tells apart


def strength(recipe: Recipe, steps: int) -> float:
    """ε of a training of so many steps: differences fall by exp(−ε Σ lr / (1 − momentum)).

    >>> from leancnn.recipes import read
    >>> strength(read("resnet-paper"), 64_000), round(strength(read("resnet-paper"), 1_000), 3)
    (0.003, 0.038)
    """
    way = sum(learning_rate(recipe, step / steps) for step in range(steps))
    return max(EPSILON, FOLDS * (1 - recipe.momentum) / max(way, 1e-12))


class Centripetal:
    """The rule `centripetal`; see `rules.StepRule`.

    Its `clusters` are, by module path, lists of the channels that are drawn together: rows of the
    module's weight and bias.
    """

    after_clipping = True  # the pull stands beside decay, in Eq. 4

    def __init__(self, plan: TrainingPlan, body: nn.Module) -> None:
        self.epsilon = strength(plan.recipe, plan.steps)
        device = next(body.parameters()).device
        self.clustered: list[tuple[Tensor, Tensor, Tensor]] = []
        """Parameters, of each of their rows the number of its cluster, and the clusters' sizes."""
        for path, clusters in plan.rule["clusters"].items():
            for parameter in body.get_submodule(path).parameters(recurse=False):
                if parameter.requires_grad:
                    home = _homes(len(parameter), clusters).to(device)
                    self.clustered.append((parameter, home, home.bincount().float()))

    @torch.no_grad()
    def __call__(self, step: int, images: Tensor, logits: Tensor) -> None:
        """Average gradients over each cluster, and add the pull towards its mean."""
        for parameter, home, sizes in self.clustered:
            if parameter.grad is None:
                continue
            parameter.grad.copy_(_mean(parameter.grad, home, sizes))
            apart = parameter - _mean(parameter, home, sizes)
            parameter.grad.add_(apart, alpha=self.epsilon)


def _homes(rows: int, clusters: list[list[int]]) -> Tensor:
    """(rows,): the number of each row's cluster; a row that none names is one of its own."""
    home = torch.full((rows,), -1)
    for number, cluster in enumerate(clusters):
        home[torch.tensor(cluster)] = number
    alone = home < 0
    home[alone] = len(clusters) + torch.arange(int(alone.sum()))
    return home


def _mean(values: Tensor, home: Tensor, sizes: Tensor) -> Tensor:
    """Of each row the mean over its cluster."""
    sums = values.new_zeros(len(sizes), math.prod(values.shape[1:]))
    sums.index_add_(0, home, values.flatten(1) if values.ndim > 1 else values[:, None])
    return (sums / sizes[:, None])[home].view_as(values)
