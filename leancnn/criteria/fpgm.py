"""How far a filter is from all others of its layer: what lies among them, they can replace."""

import torch

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import prunable_layers


@criterion(
    "fpgm",
    source="He et al., Filter Pruning via Geometric Median, CVPR 2019, section 3.3",
    reads="weights",
)
def score(subject: Subject) -> Scores:
    """Σ_j ‖F_i − F_j‖₂ over the filters of a layer: least at the filter nearest their median."""
    found: Scores = {}
    for path, layer in prunable_layers(subject):
        filters = layer.weight.detach().double().flatten(1).cpu()
        found[path] = torch.cdist(filters, filters).sum(1).numpy()
    return found
