"""Draw how open the gates of squeeze-and-excitation networks are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leancnn import runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.plots import gate_distributions
from leancnn.prune.importance import scored
from leancnn.training_data import training_images


def gates(
    path: str | Path | Sequence[str | Path],
    picture: str | Path,
    *,
    data: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Draw how open the gates of one network or several are: the LB-MBNet paper's Fig. 5.

    The answer holds, by network and gate, the mean of each channel over the training images, and a
    histogram of all values. Raises `MismatchError` for a network without gates.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    found = {}
    for one in map(Path, paths):
        network = weights.load(one)
        images = training_images(one, data, network)
        dependencies = find_dependencies(network.body, network.pictures().channels)
        scores = scored(network, dependencies, "se_gate", images, progress=progress)
        found[str(one)] = scores.observed["gates"]
    runs.atomic_write(Path(picture), gate_distributions(found))
    return found
