"""Cutting one part from another: stratified, and a pure function of names and seed."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leancnn.data._classes import nfc
from leancnn.errors import DataError
from leancnn.preprocess import shown

TEST_SHARE = 0.2  # of what comes without a test part
VAL_SHARE = 0.1  # of a train part where none comes with a val part and no share is named …
VAL_MOST = 2_000  # … and about so many images at most: more, to choose an epoch, teach nothing


def cut_test(
    files: Sequence[str], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The test part of what has none: the same for every seed, so that it stays unseen."""
    return cut(files, labels, TEST_SHARE, "test")


def val_share_of(images: int) -> float:
    """The share of a train part set apart where none is named: a tenth, about VAL_MOST at most."""
    return min(VAL_SHARE, VAL_MOST / max(images, 1))


def cut(
    files: Sequence[str], labels: NDArray[np.int64], share: float, salt: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that stay and rows cut off, both ascending; `share` of each class, at least one.

    Within a class the rows are ordered by sha256 of salt and name (NFC: not every file system
    keeps another form), so neither the order of the files nor another class changes anything.
    Raises `DataError` when a class has fewer than two.
    """
    if not 0 < share < 1:
        raise DataError(f"a share to cut off lies between 0 and 1, not at {share}")
    keys = np.array([_key(salt, name) for name in files], dtype=np.uint64)
    off = np.zeros(len(files), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise DataError(
                f"'{shown(files[rows[0]])}' is the only image of its class; another is needed, "
                "so that each part has one"
            )
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        off[rows[np.argsort(keys[rows], kind="stable")[:count]]] = True
    return np.flatnonzero(~off), np.flatnonzero(off)


def _key(salt: str, name: str) -> int:
    text = f"{salt}\0{nfc(name)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
