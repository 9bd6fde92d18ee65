"""The mean of a channel's squeeze-and-excitation gate over the training images.

S_i = 1/N Σ_n gate(x_n)_i, in evaluation mode, as the gates of LB-MBNet are read before they choose
the kernels that stay. The paper does not say whether those images are augmented: here they are not.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import ANY, Hook, forward_hooks, gate_layers
from leancnn.errors import MismatchError

SOURCE = "Data-Driven Channel Pruning towards LB-MBNet, Electronics 2021, 10, 1329"
BINS = 50


@criterion("se_gate", source=SOURCE, reads="images")
def score(subject: Subject) -> Scores:
    """Means in 0..1 under the paths of the gates whose channels may be cut.

    Tells the distribution of every gate as `gates`. Raises `MismatchError` for a network without.
    """
    found = distribution(subject)
    subject.observed["gates"] = found
    cuttable = [path for path in found if subject.dependencies.group_of(path) is not None]
    return {path: np.array(found[path]["mean"]) for path in cuttable}


def distribution(subject: Subject, *, bins: int = BINS) -> dict[str, dict[str, Any]]:
    """The paper's Fig. 5 as plain JSON values, by path of each gate, the uncut ones included.

    `mean` has a number per channel, `counts` how many gate values of all images and channels fall
    between neighbours of `edges` (0..1, `bins` + 1 of them). Raises `MismatchError` as `score`.
    """
    gates = {f"{path}.gate": module.gate for path, module in gate_layers(subject)}
    if not gates:
        raise MismatchError(f"se_gate reads gates, and this network has none; {ANY}")
    sums: dict[str, Tensor] = {}
    counts = {path: np.zeros(bins, np.int64) for path in gates}

    def adds_to(path: str) -> Hook:
        def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            sums[path] = sums.get(path, 0) + out.double().sum(0)
            counts[path] += np.histogram(out.float().cpu(), bins, (0, 1))[0]

        return add

    images_seen = 0
    with torch.no_grad(), forward_hooks({gate: adds_to(path) for path, gate in gates.items()}):
        for images, _ in subject.batches():
            subject.body(images)
            images_seen += len(images)
    edges = np.linspace(0, 1, bins + 1).tolist()
    return {
        path: {
            "mean": (sums[path] / images_seen).tolist(),
            "edges": edges,
            "counts": counts[path].tolist(),
        }
        for path in gates
    }
