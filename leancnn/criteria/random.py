"""No opinion: what every other criterion has to beat."""

import numpy as np

from leancnn.criteria._base import Scores, Subject, criterion


@criterion(
    "random",
    source="Mittal et al., Recovering from Random Pruning, WACV 2018",
    reads="weights",
    seeded=True,
)
def score(subject: Subject) -> Scores:
    """Uniform numbers of the subject's seed."""
    generator = np.random.default_rng(subject.seed)
    layers = [
        path
        for channel_group in subject.dependencies.channel_groups
        for path in channel_group.layers
    ]
    return {path: generator.random(len(subject.dependencies.writes[path])) for path in layers}
