"""Score the channels of a network by a criterion, on the images it was trained on.

Scores that read images are kept in the cache under the hash of the weights and of the data.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leancnn import cache, criteria, manifests, runs
from leancnn.channels.dependencies import Dependencies
from leancnn.criteria import Scores, Subject
from leancnn.data import Dataset, names
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
from leancnn.safe_files import seal, unseal
from leancnn.training_data import LARGEST_SEED, images_for, kept_cut
from leancnn.weights import Network, digest, run_of

BATCH = 128  # images at a time; larger images share the memory of as many of 64×64
PIXELS = BATCH * 64 * 64
FORMAT = 4  # of the scores in the cache; to be raised when a criterion comes to score otherwise


@dataclass(frozen=True, slots=True)
class Source:
    """The images a network is scored and retrained on: those its run trained on."""

    data: str
    val_share: float | None = None
    seed: int = 0
    """Of the cut of the val part."""

    @property
    def place(self) -> str:
        """`data`, absolute where it is a folder: for whoever reads it elsewhere."""
        return self.data if self.data in names() else str(Path(self.data).resolve())

    def load(self, network: Network) -> Dataset:
        """Train and validation part. Raises `DataError`, `MismatchError` for other classes."""
        dataset = images_for(
            self.data, network.pictures, val_share=self.val_share, split_seed=self.seed
        )
        network.check_classes(dataset.classes, self.data)
        return dataset

    def digest(self, network: Network) -> str:
        """Hash of the images of the train part. Raises as `load`."""
        return str(self.load(network).manifest["sha256"]["train"])


def source_of(path: Path, data: str | Path | None, network: Network) -> Source:
    """The images of a run, or `data`. Raises `RunError` when neither says where they are.

    Outside a run the images are set apart as they were where `network`, saved in `path`, was
    trained, if it says so.
    """
    run, _ = run_of(path)
    if run is None:
        if data is None and (data := network.known_data) is None:
            raise RunError(f"{path} is no run and does not know its data; name it with --data")
        share, cut_by = kept_cut(network, None, None)
        return Source(str(data), share, cut_by or 0)
    plan: dict[str, Any] = runs.read_run(run)["plan"]
    where = runs.images_of(run, plan["data"]) if data is None else str(data)
    cut_by = plan["seed"] if plan.get("split_seed") is None else plan["split_seed"]
    return Source(where, plan["val_share"], int(cut_by))


class Scored(NamedTuple):
    """What a criterion found in a network."""

    worth: Scores
    told: dict[str, Any]
    """What it saw beside; see `Subject`."""


def scored(
    network: Network,
    dependencies: Dependencies,
    criterion: str,
    source: Source | None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> Scored:
    """The worth of each channel. Raises `UnknownNameError`; `RunError` when images are missing.

    Where the cache cannot be written it says so on stderr, and goes on.
    """
    member = criteria.get(criterion)
    if not 0 <= seed <= LARGEST_SEED:
        raise ArgumentError(f"a `seed` is 0 to {LARGEST_SEED}, not {seed}")
    if member.reads == "weights":
        subject = Subject(network.body, dependencies, _none, seed)
        with evaluating(network):
            return Scored(_finite(member.score(subject)), subject.told)
    seed = seed if member.seeded else 0  # one pass over the images then serves every seed
    subject, key = subject_of(
        network, dependencies, criterion, source, seed=seed, progress=progress
    )
    place = cache.folder() / "scores" / key
    with contextlib.suppress(LeanCNNError, OSError):  # none yet, or damaged: score again
        about, found = unseal(place / "scores.json", place / "scores.safetensors", manifests.Scores)
        cache.mark_used(place / "scores.json")
        return Scored(dict(found), about["told"])
    with evaluating(subject.body):
        found = _finite(member.score(subject))
    about = {"criterion": criterion, "network": network.name, "told": subject.told}
    try:
        seal(place / "scores.json", place / "scores.safetensors", about, found)
        cache.trim()
    except WriteError as error:
        tell(f"the scores are not kept for another time: {error}")
    return Scored(found, subject.told)


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
    source: Source | None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Subject, str]:
    """What a criterion that reads images is given, and the name its scores are kept under.

    Its body is where a training here would be: the network's own or a copy on the GPU. Criteria
    want it in evaluation mode, which the caller sees to.
    """
    if source is None:
        raise RunError(f"{criterion} reads the training images; name them with --data")
    dataset = source.load(network)
    split = dataset.of_train
    network = network.on(own_device())
    device = network.scale.device
    height, width = network.preprocessing.size
    batch = max(1, min(BATCH, PIXELS // (height * width)))

    def batches(mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        title = f"{criterion} on {dataset.name}"
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

    subject = Subject(network.body, dependencies, batches, seed)
    facts = [
        FORMAT,
        criterion,
        seed,
        dataset.manifest["sha256"]["train"],
        sorted(dataset.manifest["cuts"].get("val", {}).items()),
        network.mean,
        network.std,
    ]
    facts += [
        network.name,
        sorted(network.arguments.items()),
        network.preprocessing,
        digest(network),
    ]
    return subject, hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _none(mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    raise DamagedError("a criterion that reads weights alone asked for images")
