"""What stands behind a test accuracy: copies of training images, a run that is not finished, the
worst mistakes, and what is gained by refusing to answer where the network is unsure."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leancnn import runs
from leancnn.data import Split, load_dataset
from leancnn.errors import LeanCNNError, MismatchError
from leancnn.preprocess import Preprocessing

MOST_MISTAKES = 40  # on a sheet
MOST_PAIRS = 8  # of classes that are confused, of which pictures are kept
OF_EACH = 6  # pictures of such a pair
THUMBNAIL = 96  # pixels of the longer side


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer; the surer, the worse."""

    file: str
    true: str
    answer: str
    probability: float
    """Of the answer, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectOption:
    """What answering only from a probability on would give."""

    threshold: float
    answered: int
    coverage: float
    """Share of the images that are answered."""
    correct: int
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


def worst_mistakes(
    answers: NDArray[np.float64],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    files: Sequence[str],
) -> tuple[list[Mistake], list[int]]:
    """Wrong answers, the surest first, and their rows; `answers` are probabilities (N, classes)."""
    predicted = answers.argmax(1)
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-answers[wrong, predicted[wrong]], kind="stable")]
    found = [
        Mistake(
            file=files[row],
            true=classes[truth[row]],
            answer=classes[predicted[row]],
            probability=float(answers[row, predicted[row]]),
        )
        for row in order.tolist()
    ]
    return found, order.tolist()


def frequent_confusions(mistakes: Sequence[Mistake]) -> list[int]:
    """Places of the surest mistakes of each pair of classes that is confused most often.

    At most `OF_EACH` of each of `MOST_PAIRS` pairs (true, answer), the most frequent pair first.
    """
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, one in enumerate(mistakes):
        places[one.true, one.answer].append(place)
    often = Counter({pair: len(found) for pair, found in places.items()})
    return [place for pair, _ in often.most_common(MOST_PAIRS) for place in places[pair][:OF_EACH]]


def thumbnails(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images (H, W, C) of one size as one array (N, h, w, C), no side above `THUMBNAIL` pixels."""
    small = []
    for image in images:
        height, width, channels = image.shape
        shrink = min(1.0, THUMBNAIL / max(height, width))
        if shrink < 1:
            picture = Image.fromarray(image if channels == 3 else image[:, :, 0])
            size = max(1, round(width * shrink)), max(1, round(height * shrink))
            image = np.asarray(picture.resize(size, Image.Resampling.BOX))
        small.append(image.reshape(*image.shape[:2], channels))
    return np.stack(small) if small else np.zeros((0, 1, 1, 1), np.uint8)


def reject_option(
    answers: NDArray[np.float64], truth: NDArray[np.int64], threshold: float
) -> RejectOption:
    """Coverage and accuracy when answers below a probability are refused. `MismatchError`."""
    if not 0 <= threshold <= 1:
        raise MismatchError(f"answers are rejected below a probability in 0..1, not {threshold}")
    sure = answers.max(1) >= threshold
    correct = int((answers.argmax(1)[sure] == truth[sure]).sum())
    answered = int(sure.sum())
    return RejectOption(
        threshold=threshold,
        answered=answered,
        coverage=answered / max(len(truth), 1),
        correct=correct,
        accuracy=correct / answered if answered else None,
    )
