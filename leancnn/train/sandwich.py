"""One network at many widths: the largest, the smallest and some between in every step.

The sandwich rule with in-place distillation: the whole network learns from the labels; the smallest
width, and some in which every layer draws one of its own, learn in the same step from the whole
network's answers. A width is the first channels of each layer. Source: Yu and Huang, Universally
Slimmable Networks and Improved Training Techniques, ICCV 2019, sections 3.2 and 3.3, as AutoSlim
trains by them (Yu and Huang, 2019, section 3.1).

Ours: a narrow network is computed as the whole one whose other channels are held at zero, which is
the same function at the whole one's cost; running statistics are those of the whole network alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import Keep, Silenced
from leancnn.train.plan import TrainingPlan


class Sandwich:
    """The rule `sandwich`; see `rules.StepRule`.

    Its `groups` have one share each, of every list of coupled channels in them, the first of which
    stay; `least` is the smallest share, `between` how many widths are drawn for each step.
    """

    after_clipping = False  # they are gradients like the others

    def __init__(self, plan: TrainingPlan, body: nn.Module) -> None:
        self.body, self.seed, rule = body, plan.seed, plan.rule
        self.dependencies = find_dependencies(body, plan.preprocessing.channels)
        self.groups: list[list[list[int]]] = rule["groups"]
        self.least, self.between = float(rule["least"]), int(rule["between"])

    def widths(self, step: int) -> list[Keep]:
        """The channels of the smallest width, and of those that are drawn for a step."""
        random = np.random.default_rng([self.seed, step])
        shares = [
            np.full(len(self.groups), self.least),
            *(random.uniform(self.least, 1, len(self.groups)) for _ in range(self.between)),
        ]
        return [first_channels(self.dependencies.coupled_count, self.groups, s) for s in shares]

    def __call__(self, step: int, images: Tensor, logits: Tensor) -> None:
        """Add the gradients of the narrower networks."""
        aims = logits.softmax(1)
        with whole_statistics(self.body), torch.enable_grad():
            for keep in self.widths(step):
                answers = Silenced(self.body, self.dependencies, keep).run(images).float()
                loss = -(aims * F.log_softmax(answers, 1)).sum(1).mean()
                loss.backward()  # type: ignore[no-untyped-call]


def first_channels(count: int, groups: Iterable[list[list[int]]], shares: Iterable[float]) -> Keep:
    """Of `count` coupled channels those that stay: the first of every list, at least one."""
    keep = np.ones(count, bool)
    for lists, share in zip(groups, shares, strict=True):
        for alike in lists:
            keep[alike[max(1, int(share * len(alike) + 0.5)) :]] = False
    return keep


@contextmanager
def whole_statistics(body: nn.Module) -> Iterator[None]:
    """Batch norms use a batch's own statistics for a while, and keep nothing of them."""
    norms = [m for m in body.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = [(module, module.training) for module in body.modules()]
    body.train()
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, mode in modes:
            module.training = mode
