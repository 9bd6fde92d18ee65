"""Something that answers: a torch network, a quantized one, a compiled library, an engine session.

`evaluate`, `predict`, `bench`, `serve` and a comparison of prunings take any of them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import MismatchError
from leancnn.preprocess import Preprocessing

BATCH = 64  # images that are in memory at once


class Classifier(Protocol):
    """From images to the probabilities of named classes.

    >>> one = np.zeros((1, 8, 8, 3), np.uint8)
    >>> for answers in leancnn.load("runs/a"), leancnn.compile("runs/a"):
    ...     print(answers.name, answers.probabilities(one).shape)
    resnet8 (1, 3)
    resnet8 (1, 3)
    """

    @property
    def name(self) -> str:
        """That of the network, for people."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the answers."""
        ...

    def pictures(self) -> Preprocessing:
        """From any image file to its input. Raises a `LeanCNNError` where it takes no pictures."""
        ...

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, classes) of uint8 images (N, H, W, C) of the input's size.

        What is no number stays none. Raises `MismatchError` for images of another kind.
        """
        ...


def check_images(images: Any, name: str, pictures: Preprocessing) -> NDArray[np.uint8]:
    """Images as an array, once they are what a network takes: uint8 (N, H, W, C).

    Floats of 0 to 1 would be answered, wrongly, without a word. Raises `MismatchError`.
    """
    (height, width), channels = pictures.size, pictures.channels
    try:
        array = np.ascontiguousarray(images)
    except Exception as error:  # of whoever's array that is
        raise MismatchError(f"{name} takes arrays of uint8 ({error})") from error
    if array.dtype != np.uint8 or array.shape[1:] != (height, width, channels):
        raise MismatchError(
            f"{name} takes uint8 (N, {height}, {width}, {channels}), not {array.dtype} "
            f"{array.shape}; leancnn.predict takes images of any size and kind"
        )
    return array


def check_classes(network: Classifier, classes: Sequence[str], where: object) -> None:
    """Raises `MismatchError` when data has other classes than a network, or another order."""
    if tuple(classes) != network.classes:
        odd = sorted(set(classes) ^ set(network.classes))
        what = f"only one of the two has {', '.join(map(repr, odd[:4]))}" if odd else "the order"
        raise MismatchError(f"{where}: its classes are not those of {network.name}: {what}")


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (N, classes) of logits, in float64."""
    with np.errstate(invalid="ignore"):
        powers = logits - logits.max(1, keepdims=True).astype(np.float64)
        powers = np.exp(powers)
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)


def probabilities(
    network: Classifier, stored: NDArray[np.uint8], batch: int = BATCH
) -> NDArray[np.float64]:
    """Stored images, uint8 (N, h, w, C) at `Preprocessing.scale`, to probabilities (N, classes).

    What is no number stays none.
    """
    pictures = network.pictures()
    rows = [
        network.probabilities(np.array(pictures.window(stored[start : start + batch])))
        for start in range(0, len(stored), batch)
    ]
    return np.concatenate(rows) if rows else np.empty((0, len(network.classes)))
