"""Whether two programs of a network answer alike: trial images, a difference, a tolerance.

One set of numbers for whoever compares: export, compile, bench, prune, quantize.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.compiler.reference import IntegerNetwork
from leancnn.errors import ImageError, ParityError
from leancnn.modes import evaluating
from leancnn.preprocess import SUFFIXES
from leancnn.signal_window import SignalWindow
from leancnn.weights import Network

WITHIN = 1e-4  # of the logits' scale: what another order of sums in float32 may change
WITHIN_INT8 = 0.05  # the same of integers whose products, or some layers, are sums of floats
WITHIN_ROUNDED = 0.25  # of a file of others: a step apart in the first layer grows with depth
EXACT = 0.0  # of integers in C of ours, which owes the very bits
TRIALS = 24  # made images on which answers are compared
REAL = 8  # and of those that the network was trained with, where they are at hand
LEAST = 1e-6  # the least probability whose logarithm still tells the logit behind it
ROUNDED = 4e-6  # what float32 loses of that logarithm


def tolerance(network: Network, *, ours: bool) -> float:
    """How far logits may be from those of `network` in PyTorch, relative to their scale.

    `ours` says whether it is C of ours that answers.
    """
    if not network.quantized:
        return WITHIN
    body = getattr(network, "body", None)
    mixed = isinstance(body, IntegerNetwork) and body.network.mixed  # some layers in float32
    return EXACT if ours and not mixed else WITHIN_INT8


class Artifact(Protocol):
    """What was written of a network, run by its engine."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def logits(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """(N, classes) of stored images (N, H, W, C)."""
        ...

    def entry(self, images: NDArray[Any], /) -> NDArray[np.float32] | None:
        """Probabilities by the call that users make, where that is another than `logits`."""
        ...


@torch.inference_mode()
def logits_of(network: Network, images: NDArray[Any]) -> NDArray[np.float32]:
    """What PyTorch answers, (N, classes), in evaluation mode."""
    with evaluating(network):
        logits: NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
    return logits


def check_parity(network: Network, artifact: Artifact, images: NDArray[Any]) -> float:
    """The largest difference from PyTorch's answers. Raises `ParityError` where it is too large."""
    if artifact.classes != network.classes:
        raise ParityError(f"the artifact's classes are {artifact.classes}, not {network.classes}")
    logits, entry = artifact.logits(images), artifact.entry(images)
    within = tolerance(network, ours=entry is not None)
    try:
        return check_answers(logits_of(network, images), logits, entry, within)
    except ParityError as error:
        raise ParityError(f"the artifact's {error}; it was not kept") from None


def check_answers(
    expected: NDArray[Any],
    logits: NDArray[Any],
    probabilities: NDArray[Any] | None,
    within: float = WITHIN,
) -> float:
    """The largest difference of logits, relative to their scale, from those that are expected, and
    of `probabilities` where users call another entry.

    Raises `ParityError` where one is too large.
    """
    error = difference(logits, expected)
    if not error <= within:
        raise ParityError(
            f"logits differ by {error:.2g} of their scale from PyTorch's, more than {within:g}"
        )
    if probabilities is None:
        return error
    entry = probability_difference(probabilities, expected)
    if not entry <= WITHIN:
        raise ParityError(
            f"probabilities of uint8 images differ by {entry:.2g} from PyTorch's, more than "
            f"{WITHIN:g}, and its logits by {error:.2g}"
        )
    return max(error, entry)


def trial_images(network: Network, count: int = TRIALS, *, real: int = 0) -> NDArray[Any]:
    """Images for a comparison: `count` made ones, and up to `real` that it was trained with.

    Of a network of signals, made features: noise, all 0 and all 1.
    """
    if isinstance(network.preprocessing, SignalWindow):
        features: NDArray[Any] = network.preprocessing.made(count)
        return features
    made = made_images((*network.preprocessing.size, network.preprocessing.channels), count)
    seen = list(islice(_trained_with(network), real))
    return np.concatenate([made, np.stack(seen)]) if seen else made


def calibration_images(network: Network, count: int) -> NDArray[Any]:
    """At most so many images that the network was trained with, or made ones, to set ranges by."""
    seen = list(islice(_trained_with(network, count), count))
    return np.stack(seen) if len(seen) >= TRIALS else trial_images(network)


def _trained_with(network: Network, most: int = REAL) -> Iterator[NDArray[np.uint8]]:
    """Images of a network's training folder, one of each class in turn, where it still stands."""
    place = Path(network.known_data or "")
    if not network.known_data or not place.is_dir():
        return
    train = place / "train" if (place / "train").is_dir() else place
    files: list[list[Path]] = []
    with suppress(OSError):
        folders = [folder for folder in sorted(train.iterdir()) if folder.is_dir()]
        files += [sorted(islice(folder.iterdir(), most)) for folder in folders[:most]]
    for path in (path for turn in zip_longest(*files) for path in turn if path is not None):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            with suppress(ImageError):
                yield network.pictures().window(network.pictures().read(path).image[None])[0]


def made_images(size: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Images of rows, columns and channels `size` that drive values far: black first, noise, smooth
    gradients, then greys, single bright channels, edges, weak noise, one bright pixel; white last.
    """
    random = np.random.default_rng(0)
    height, width, channels = size
    images = random.integers(0, 256, (count, height, width, channels)).astype(np.uint8)
    ramp = np.linspace(0, 255, height)[:, None, None] * np.linspace(0, 1, width)[None, :, None]
    images[1::3] = (images[1::3] * 0.2 + 0.8 * ramp).astype(np.uint8)
    odd = [np.full(size, grey) for grey in (64, 128, 192)]
    odd += [np.broadcast_to(row, size) for row in np.eye(channels) * 255]
    board = (np.add.outer(np.arange(height), np.arange(width)) % 2 * 255)[..., None]
    half = np.where(np.arange(width) < width // 2, 0, 255)[:, None]
    weak = 126 + random.integers(0, 5, size)
    spot = np.zeros(size)
    spot[height // 2, width // 2] = 255
    odd += [np.broadcast_to(image, size) for image in (board, half, weak, spot)]
    if count > len(odd) + 5:
        images[5 : 5 + len(odd)] = np.stack(odd)
    images[0], images[-1] = 0, 255
    return images


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of answers of one shape, relative to the scale of `expected`.

    NaN and infinities are answers as others: equal where both have them, else far apart.
    """
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    scale = max(float(np.abs(expected[np.isfinite(expected)]).max(initial=0)), 1e-6)
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(found - expected))
    return float(error.max(initial=0)) / scale


def probability_difference(found: NDArray[Any], logits: NDArray[Any]) -> float:
    """How far probabilities are from the softmax of `logits`, on the scale of these.

    Logarithms are compared where a probability is not too small to have one, for a softmax that is
    sure of its answer hides what stands before it; elsewhere the probabilities themselves. Where
    logits are no numbers, neither are probabilities.
    """
    sound = np.isfinite(logits).all(1)
    if not np.isnan(found[~sound]).any(-1).all():
        return float("inf")
    if not sound.any():
        return 0.0
    found, logits = found[sound], logits[sound]
    expected = logits - logits.max(1, keepdims=True).astype(np.float64)
    expected -= np.log(np.exp(expected).sum(1, keepdims=True))
    error = float(np.abs(found - np.exp(expected)).max())
    readable = (expected > np.log(LEAST)) & (found > LEAST / 10)
    if not readable.any():
        return error
    of_logits = float(np.abs(np.log(found[readable]) - expected[readable]).max())
    scale = max(float(np.abs(logits).max()), 1e-6)
    return float(np.max([error, (of_logits - ROUNDED) / scale]))
