"""The size of a batch norm's scale.

Score |γ|. Training with λ Σ|γ| in the loss (Eq. 1) pushes scales towards 0 first: `bn_l1` of a
recipe.
"""

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import batch_norms


@criterion(
    "bn_scale",
    source="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, "
    "ICCV 2017, section 3 and Eq. 1",
    reads="weights",
)
def score(subject: Subject) -> Scores:
    """|γ| under the paths of the norms. Raises `MismatchError` for a network without any."""
    return {
        path: norm.weight.detach().double().abs().cpu().numpy()
        for path, norm in batch_norms(subject, "bn_scale").items()
    }
