"""Score the channels of a network by a criterion, on the images it was trained on.

Scores that read images are kept in the cache under the hash of the weights and of the data.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leancnn import cache, criteria, manifests
from leancnn.channels.dependencies import Dependencies
from leancnn.criteria import Batches, Scores, Subject
from leancnn.data import Dataset, Split
from leancnn.distributed import own_device
from leancnn.errors import (
    ArgumentError,
    DamagedError,
    LeanCNNError,
    MismatchError,
    RunError,
    WriteError,
)
from leancnn.modes import evaluating
from leancnn.progress import Progress, tell
from leancnn.safe_files import load_pair, save_pair
from leancnn.training_data import LARGEST_SEED, TrainingImages
from leancnn.weights import Network, digest

BATCH = 128  # images at a time; larger images share the memory of as many of 64×64
PIXELS = BATCH * 64 * 64
FORMAT = 6  # of the scores in the cache; to be raised when a criterion comes to score otherwise


class Scored(NamedTuple):
    """What a criterion found in a network."""

    importance: Scores
    observed: dict[str, Any]
    """What it saw beside; see `Subject`."""


def scored(
    network: Network,
    dependencies: Dependencies,
    criterion: str,
    images: TrainingImages | None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> Scored:
    """Score each channel. Raises `UnknownNameError`; `RunError` when images are missing.

    Where the cache cannot be written it says so on stderr, and goes on.
    """
    member = criteria.get(criterion)
    if not 0 <= seed <= LARGEST_SEED:
        raise ArgumentError(f"a `seed` is 0 to {LARGEST_SEED}, not {seed}")
    if member.reads == "weights":
        subject = blind(network, dependencies, seed)
        with evaluating(network):
            return Scored(_finite(member.score(subject)), subject.observed)
    seed = seed if member.seeded else 0  # one pass over the images then serves every seed
    subject, key = subject_of(
        network, dependencies, criterion, images, seed=seed, progress=progress
    )
    place = cache.folder() / "scores" / key
    with contextlib.suppress(LeanCNNError, OSError):  # none yet, or damaged: score again
        about, found = load_pair(
            place / "scores.json", place / "scores.safetensors", manifests.Scores
        )
        cache.mark_used(place / "scores.json")
        return Scored(dict(found), about["observed"])
    with evaluating(subject.body):
        found = _finite(member.score(subject))
    about = {"criterion": criterion, "network": network.name, "observed": subject.observed}
    try:
        save_pair(place / "scores.json", place / "scores.safetensors", about, found)
        cache.trim()
    except WriteError as error:
        tell(f"the scores are not kept for another time: {error}")
    return Scored(found, subject.observed)


def blind(network: Network, dependencies: Dependencies, seed: int) -> Subject:
    """What a criterion that reads weights alone is given."""
    return Subject(network.body, dependencies, _none, seed)


def _finite(found: Scores) -> Scores:
    """The same. Raises `MismatchError` for scores that are no numbers."""
    for path, values in found.items():
        if not np.isfinite(values).all():
            raise MismatchError(f"the scores of {path} are no numbers; has its training diverged?")
    return found


def subject_of(
    network: Network,
    dependencies: Dependencies,
    criterion: str,
    images: TrainingImages | None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Subject, str]:
    """What a criterion that reads images is given, and the name its scores are kept under.

    Its body is where a training here would be: the network's own or a copy on the GPU. Criteria
    want it in evaluation mode, which the caller sees to.
    """
    if images is None:
        raise RunError(f"{criterion} reads the training images; name them with --data")
    dataset = images.of(network)
    name = _name_of_scores(criterion, seed, network, dataset)
    network = network.on(own_device())
    title = f"{criterion} on {dataset.name}"
    batches = _batches(network, dataset.of_train, title, progress)
    return Subject(network.body, dependencies, batches, seed), name


def judging(
    network: Network,
    dependencies: Dependencies,
    criterion: str,
    images: TrainingImages | None,
    *,
    seed: int,
    progress: bool,
) -> tuple[Subject, Batches]:
    """What a criterion that tries cuts is given, and the images to judge them on.

    Those are the validation part; of the training where nothing is set apart.
    """
    subject, _ = subject_of(network, dependencies, criterion, images, seed=seed, progress=progress)
    assert images is not None, "or the line above had refused"
    dataset = images.of(network)
    apart = dataset.val if dataset.val is not None and len(dataset.val.labels) else None
    title = f"{criterion} on {dataset.name}"
    network = network.on(own_device())
    return subject, _batches(network, apart or dataset.of_train, title, progress)


def _batches(network: Network, split: Split, title: str, progress: bool) -> Batches:
    """One pass over a part as a criterion asks for it; see `Subject.batches`."""
    height, width = network.preprocessing.size
    batch = max(1, min(BATCH, PIXELS // (height * width)))
    device = network.scale.device

    def batches(mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(split.labels))
        if mixed:
            np.random.default_rng(0).shuffle(order)
        with Progress(title, len(order), shown=progress) as bar:
            for start in range(0, len(order), batch):
                rows = np.sort(order[start : start + batch])  # neighbours on disk one by one
                seen: NDArray[np.uint8] = np.array(network.preprocessing.window(split.images[rows]))
                images = torch.from_numpy(seen).to(device)
                labels = torch.from_numpy(np.array(split.labels[rows]))
                yield network.normalise(images), labels.to(device)
                bar.to(min(start + batch, len(order)))

    return batches


def _name_of_scores(criterion: str, seed: int, network: Network, dataset: Dataset) -> str:
    """What the scores are kept under: all that they depend on, in 32 hexadecimal digits."""
    facts = [
        FORMAT,
        criterion,
        seed,
        dataset.manifest["sha256"]["train"],
        sorted(dataset.manifest["cuts"].get("val", {}).items()),
        network.mean,
        network.std,
        network.name,
        sorted(network.arguments.items()),
        network.preprocessing,
        digest(network),
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _none(mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    raise DamagedError("a criterion that reads weights alone asked for images")
