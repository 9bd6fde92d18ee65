"""The sum of a filter's absolute weights."""

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import prunable_layers


@criterion(
    "l1",
    source="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1",
    reads="weights",
)
def score(subject: Subject) -> Scores:
    """Σ|w| of each filter of each convolution and linear layer; gates have no filters."""
    return {
        path: layer.weight.detach().double().flatten(1).abs().sum(1).cpu().numpy()
        for path, layer in prunable_layers(subject)
    }
