"""SVHN, cropped digits: train_32x32.mat and test_32x32.mat, ten classes, 32×32 colour.

Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011. In
its files the digit 0 has the label 10. The easier images of extra_32x32.mat are not used.
"""

from functools import partial
from pathlib import Path

import numpy as np

from leancnn.data._arrays import part_of
from leancnn.data._base import PARTS, Format, Part, Reading, Skipped, Source, formats
from leancnn.errors import DataError
from leancnn.preprocess import shown

CLASSES = tuple("0123456789")
SIDE = 32


def _files(folder: Path) -> dict[str, Path]:
    places = {part: folder / f"{part}_32x32.mat" for part in (*PARTS, "extra")}
    return {part: place for part, place in places.items() if place.is_file()}


def _open(path: Path) -> Source:
    files = _files(path)
    extra = files.pop("extra", None)
    return Source(
        name="svhn",
        path=str(path.absolute()),
        classes=CLASSES,
        size=(SIDE, SIDE),
        read={part: partial(_read, files[part]) for part in PARTS if part in files},
        stray=(Skipped(extra.name, "easier images, not used"),) if extra else (),
    )


def _read(path: Path, reading: Reading) -> Part:
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=["X", "y"])
    except NotImplementedError:
        raise DataError(
            f"{shown(path)}: in MATLAB's format 7.3, which is not read; get the published file, "
            "or save it with -v7"
        ) from None
    except Exception as error:  # a damaged file can raise nearly anything
        reason = shown(str(error)) or type(error).__name__
        raise DataError(f"{shown(path)}: damaged ({reason}); get it again") from error
    images, labels = found.get("X"), found.get("y")
    if (
        images is None
        or labels is None
        or images.dtype != np.uint8
        or images.shape[:3] != (SIDE, SIDE, 3)
        or images.ndim != 4
        or labels.dtype.kind not in "iuf"
        or labels.size != images.shape[3]
    ):
        raise DataError(f"{shown(path)}: not images X of 32×32×3×N and N labels y; get it again")
    digits = labels.ravel().astype(np.int64)
    digits[digits == 10] = 0
    rows = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    names = [f"{path.name}#{row}" for row in range(len(digits))]
    return part_of(rows, digits, names, len(CLASSES), reading)


formats.register(
    "svhn",
    Format(name="svhn", open=_open, found=lambda folder: bool(_files(folder).keys() & {*PARTS})),
)
