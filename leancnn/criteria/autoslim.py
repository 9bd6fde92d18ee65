"""The width of each layer, found by slimming one network that was trained at many widths.

AutoSlim trains a slimmable network (`leancnn.train.sandwich`), of which every width of every layer
is its first channels; then, from the whole network on, it takes a piece of that layer away whose
absence costs least on images that are set apart, until the budget is met. What was found is trained
on. `score` is the order of the channels, `rule` the training, `shares` the slimming.

Ours: trials are judged by the loss and not by the accuracy, which a few hundred images tell in
coarse steps; their batch norms take the statistics of the images of the trial, as those of a narrow
network are not kept; a piece is 1/`PIECES` of a layer; what was found goes on from the slimmable
network's weights, where the paper trains it anew. Channels under groups and shuffles stay.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn.channels.remove import cut_body
from leancnn.criteria._base import Cuts, Scores, Subject, criterion
from leancnn.criteria._layers import ANY, classes
from leancnn.errors import MismatchError

LEAST = 0.25  # the smallest share of a layer's channels
BETWEEN = 2  # widths drawn for each step beside the largest and the smallest
PIECES = 8
TOO_LITTLE = f"autoslim leaves at least {LEAST:g} of every layer, which is more than this budget"
IMAGES = 256  # that each trial is judged on


def rule(subject: Subject, keep: NDArray[np.bool_]) -> dict[str, Any]:
    """The rule `sandwich` of a training, see `leancnn.train.rules`; of any budget.

    Raises `MismatchError` where equal shares that meet the budget (`keep`) are below the least.
    """
    for group in subject.dependencies.channel_groups:
        for path in () if group.equal_splits else group.layers:
            row = subject.dependencies.writes[path]
            if keep[row].sum() < max(1, int(LEAST * len(row) + 0.5)):
                raise MismatchError(TOO_LITTLE)
    groups = [
        [alike.tolist() for alike in classes(subject.dependencies, group)]
        for group in subject.dependencies.channel_groups
        if not group.equal_splits
    ]
    return {"name": "sandwich", "groups": groups, "least": LEAST, "between": BETWEEN}


def shares(subject: Subject, cuts: Cuts) -> dict[str, float]:
    """Greedy slimming. Raises `MismatchError` for a budget that the smallest widths do not meet."""
    sample = cuts.sample(IMAGES)
    found = dict.fromkeys(cuts.names, 1.0)
    while not cuts.fits(found):
        trials = [
            {**found, name: share - 1 / PIECES}
            for name, share in found.items()
            if share - 1 / PIECES >= LEAST - 1e-9
        ]
        if not trials:
            raise MismatchError(TOO_LITTLE)
        found = min(trials, key=lambda trial: _loss(subject, cuts, trial, sample))
    return found


@criterion(
    "autoslim",
    source="Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, "
    "arXiv 1903.11728, 2019, section 3",
    reads="labels",
    rule=rule,
    shares=shares,
)
def score(subject: Subject) -> Scores:
    """The first channel of those that the same layers have is worth 1, each further one less.

    Raises `MismatchError` for a network whose channels are all under groups or shuffles.
    """
    found: Scores = {}
    for group in subject.dependencies.channel_groups:
        if group.equal_splits:
            continue
        worth = np.zeros(subject.dependencies.coupled_count)
        for alike in classes(subject.dependencies, group):
            worth[alike] = 1 - np.arange(len(alike)) / len(alike)
        found |= {path: worth[subject.dependencies.writes[path]] for path in group.layers}
    if not found:
        raise MismatchError(f"autoslim slims no channels of groups and shuffles; {ANY}")
    return found


@torch.no_grad()
def _loss(
    subject: Subject, cuts: Cuts, trial: Mapping[str, float], sample: tuple[Tensor, Tensor]
) -> float:
    """Cross-entropy of a width, its norms by the sample's own statistics."""
    images, labels = sample
    body, _ = cut_body(subject.body, subject.dependencies, cuts.keep(trial))
    body.eval()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.train()
    return float(F.cross_entropy(body(images).flatten(1), labels))
