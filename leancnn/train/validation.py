"""How a network that is being trained does on the validation part; all processes share the work."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn.data import Split
from leancnn.distributed import World
from leancnn.modes import evaluating
from leancnn.weights import Network

VALIDATION_BATCH = 256  # images in each process
SAMPLE = 16  # images that tell whether weights are broken; what fills a vector of a SIMD batch


def answers_numbers(forward: nn.Module, images: Tensor) -> bool:
    """Whether the answers to the first of some normalised images are finite, in evaluation."""
    with torch.inference_mode(), evaluating(forward):
        return bool(forward(images[:SAMPLE]).isfinite().all())


def validate(
    network: Network,
    forward: nn.Module,
    split: Split | None,
    world: World,
    stopped: Callable[[], bool],
) -> tuple[float, float] | None:
    """Accuracy 0..1 and mean cross-entropy; None without a split, or when stopped.

    `forward` runs the network's body. The processes share the images and add up what they find.
    """
    if split is None:
        return None
    device = world.device
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.inference_mode(), evaluating(forward):
        for first in range(0, len(split.labels), VALIDATION_BATCH * world.size):
            if stopped() and world.size == 1:
                return None
            rows = slice(first + world.rank, first + VALIDATION_BATCH * world.size, world.size)
            windows = np.array(network.preprocessing.window(split.images[rows]))
            if not len(windows):
                continue
            labels = torch.from_numpy(split.labels[rows]).to(device)
            logits = forward(network.normalise(torch.from_numpy(windows).to(device)))
            sums[0] += (logits.argmax(1) == labels).sum().item()
            sums[1] += F.cross_entropy(logits.double(), labels, reduction="sum").item()
    accuracy, loss = (world.sum(sums.to(device)) / len(split.labels)).tolist()
    return accuracy, loss
