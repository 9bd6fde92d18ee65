"""What data sets that are stored as arrays share; nothing is to be decoded, so none is cached."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from leancnn.data._base import Part, Reading, Split, room
from leancnn.errors import DataError
from leancnn.preprocess import Pixels


def part_of(
    images: Pixels, labels: NDArray[np.int64], files: list[str], classes: int, reading: Reading
) -> Part:
    """A part from pixels (N, h, w, C) and labels.

    Raises `DataError` for a label outside the classes, which a damaged file would give.
    """
    odd = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(odd):
        raise DataError(
            f"{files[odd[0]]}: its label, {labels[odd[0]]}, is not in 0..{classes - 1}; "
            "get the file again"
        )
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    preprocessing = reading.preprocessing
    if (
        images.shape[1:] != preprocessing.shape or images.dtype != np.uint8
    ):  # enlarged, they may be many
        images = preprocessing.of_arrays(
            images, out=room((len(images), *preprocessing.shape), reading.cache)
        )
    split = Split(images, labels, files)
    return Part(split=split, sha256=digest.hexdigest())
