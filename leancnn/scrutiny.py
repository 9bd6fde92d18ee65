"""What stands behind a test accuracy: copies of training images, a run that is not finished, the
worst mistakes, and what is gained by refusing to answer where the network is unsure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leancnn import runs
from leancnn.data import Split, load_dataset
from leancnn.errors import LeanCNNError, MismatchError
from leancnn.preprocess import Preprocessing

MOST_MISTAKES = 40  # on a sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer; the surer, the worse."""

    file: str
    true: str
    answer: str
    probability: float
    """Of the answer, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejecting:
    """What answering only from a probability on would give."""

    threshold: float
    answered: int
    coverage: float
    """Share of the images that are answered."""
    right: int
    accuracy: float | None
    """Of those that are answered; None when none is."""


def copies_of_training(
    run: Path | None, preprocessing: Preprocessing, test: Split
) -> tuple[str, ...]:
    """Test images whose pixels the run trained on, at the size of training.

    Empty where the training images are not there any more.
    """
    if run is None:
        return ()
    try:
        source = runs.images_of(run, str(runs.read_json(run / "run.json")["plan"]["data"]))
        train = load_dataset(source, preprocessing, parts=("train",), val_share=0).of_train
    except (LeanCNNError, KeyError, TypeError, OSError):
        return ()
    known = {_pixels(image) for image in train.images}
    return tuple(
        file for file, image in zip(test.files, test.images, strict=True) if _pixels(image) in known
    )


def _pixels(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def unfinished(run: Path | None) -> str:
    """A sentence when a run has epochs ahead of it, else nothing."""
    if run is None:
        return ""
    try:
        about = runs.read_json(run / "run.json")
        state, epochs = about["state"], about["plan"]["recipe"]["epochs"]
        done = len(runs.read_metrics(run))
    except (LeanCNNError, KeyError, TypeError):
        return ""
    if state == "finished":
        return ""
    return (
        f"the run is not finished ({state}): {done} of {epochs:g} epochs; "
        f"'leancnn train --resume {run}' goes on"
    )


def worst(
    answers: NDArray[np.float64],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    files: Sequence[str],
) -> tuple[list[Mistake], list[int]]:
    """Wrong answers, the surest first, and their rows; `answers` are probabilities (N, classes)."""
    said = answers.argmax(1)
    wrong = np.flatnonzero(said != truth)
    order = wrong[np.argsort(-answers[wrong, said[wrong]], kind="stable")]
    found = [
        Mistake(
            file=files[row],
            true=classes[truth[row]],
            answer=classes[said[row]],
            probability=float(answers[row, said[row]]),
        )
        for row in order.tolist()
    ]
    return found, order.tolist()


def rejecting(
    answers: NDArray[np.float64], truth: NDArray[np.int64], threshold: float
) -> Rejecting:
    """Coverage and accuracy when answers below a probability are refused. `MismatchError`."""
    if not 0 <= threshold <= 1:
        raise MismatchError(f"answers are rejected below a probability in 0..1, not {threshold}")
    sure = answers.max(1) >= threshold
    right = int((answers.argmax(1)[sure] == truth[sure]).sum())
    answered = int(sure.sum())
    return Rejecting(
        threshold=threshold,
        answered=answered,
        coverage=answered / max(len(truth), 1),
        right=right,
        accuracy=right / answered if answered else None,
    )
