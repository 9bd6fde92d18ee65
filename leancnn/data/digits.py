"""The handwritten digits that come inside scikit-learn: 1797 grey images of 8×8, ten classes.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part);
pixels are counts 0..16. There is no official split of these, so the test part is ours: 20 % of each
class, the same on every machine and for every seed.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leancnn.data._arrays import part_of
from leancnn.data._base import Format, Part, Reading, Source, formats
from leancnn.data._split import TEST_SHARE, cut_test
from leancnn.preprocess import Pixels

CLASSES = tuple("0123456789")


@cache
def _digits() -> tuple[Pixels, NDArray[np.int64]]:
    """uint8 (1797, 8, 8, 1) and labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, found.target.astype(np.int64)


def _reader(test: bool) -> Callable[[Reading], Part]:
    def read(reading: Reading) -> Part:
        images, labels = _digits()
        files = [f"digits#{row}" for row in range(len(labels))]
        rows = cut_test(files, labels)[test]
        return part_of(
            images[rows], labels[rows], [files[row] for row in rows], len(CLASSES), reading
        )

    return read


def _open(path: Path) -> Source:
    return Source(
        name="digits",
        path="digits",
        classes=CLASSES,
        size=(8, 8),
        read={"train": _reader(False), "test": _reader(True)},
        cuts={"test": {"from": "all", "share": TEST_SHARE, "by": "name"}},
    )


formats.register("digits", Format(name="digits", open=_open, folderless=True))
