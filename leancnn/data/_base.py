"""What a data set is to the rest of the house, and what a member of this family gives.

A member is one file for one layout on disk. It registers a `Format`: a name, a function
that recognises a folder, and one that opens it as a `Source`; a source reads one part at a time.
"""

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leancnn.data._split import VAL_SHARE
from leancnn.errors import DataError
from leancnn.preprocess import Pixels, Preprocessing
from leancnn.registry import Registry
from leancnn.safe_files import write_error

PartName = Literal["train", "val", "test"]
PARTS: tuple[PartName, ...] = ("train", "val", "test")
CHUNK = 4096  # images per step, where a whole part may not fit into memory
LARGE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # bytes: too much to copy
SQUARES = np.square(np.arange(256, dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a data set: row i of each field is image i."""

    images: Pixels
    """uint8 (N, H, W, C) at `Preprocessing.scale`; a memory map for folders: do not write to it."""
    labels: NDArray[np.int64]
    """(N,): places in `Dataset.classes`."""
    files: Sequence[str]
    """One name per image, for messages."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64], folder: Path) -> "Split":
        """Some rows, in their order: in memory, or what is large in a nameless file in `folder`.

        Raises `WriteError` when there is no room for that file.
        """
        images = room((len(rows), *self.images.shape[1:]), folder)
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            images[chunk] = self.images[rows[chunk]]
        return Split(images, self.labels[rows], [self.files[row] for row in rows])


def room(shape: tuple[int, ...], folder: Path) -> Pixels:
    """Room for pixels: in memory, or what is large in a nameless file in `folder`.

    Raises `WriteError` when there is no room for that file.
    """
    need = math.prod(shape)
    if need <= LARGE:
        return np.empty(shape, np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # gone with the last user
            os.posix_fallocate(file.fileno(), 0, need)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise write_error(folder, need, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images with labels; a part that was not asked for is None."""

    name: str
    classes: tuple[str, ...]
    """Names (NFC, natural order); a label is a place in here, a class is identified by its name."""
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    """JSON values: source, counts, checksums of the content, what was skipped and why, how parts
    were cut; see docs/data.md."""

    @property
    def val_share(self) -> float:
        """Of the train part as stored, set apart for the val part; the usual one where none was."""
        return float(self.manifest.get("cuts", {}).get("val", {}).get("share", VAL_SHARE))

    @property
    def of_train(self) -> Split:
        """The train part. Raises `DataError` when it is empty."""
        if self.train is None or not len(self.train.labels):
            raise DataError(f"{self.name} has no images to train on")
        return self.train

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the train part per channel, pixels in 0..1; exact sums."""
        images = self.of_train.images
        total = np.zeros(images.shape[3], np.uint64)
        squares = total.copy()
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            for channel in range(images.shape[3]):
                counts = np.bincount(chunk[..., channel].ravel(), minlength=256).astype(np.uint64)
                total[channel] += counts @ np.arange(256, dtype=np.uint64)
                squares[channel] += counts @ SQUARES
        pixels = images.size // images.shape[3]
        mean = [int(value) / pixels for value in total]
        var = [int(square) / pixels - m * m for square, m in zip(squares, mean, strict=True)]
        return tuple(m / 255 for m in mean), tuple(max(v, 0.0) ** 0.5 / 255 for v in var)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not used."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part as read."""

    split: Split
    sha256: str
    """Over names, sizes and content: equal exactly when the part is the same."""
    skipped: tuple[Skipped, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)
    """Remarks of `preprocess.decode`, each with the number of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How to read: what `load_dataset` was told."""

    preprocessing: Preprocessing
    cache: Path
    max_bad_share: float = 0.01
    verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened data set, of which nothing is decoded yet."""

    name: str
    path: str
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    """(H, W) when all images have the same by definition."""
    read: Mapping[PartName, Callable[[Reading], Part]]
    """The parts there are."""
    stray: tuple[Skipped, ...] = ()
    cuts: Mapping[str, Any] = field(default_factory=dict)
    """How parts were made that are not stored as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A layout of data sets on disk, or a data set that comes inside a dependency."""

    name: str
    open: Callable[[Path], Source]
    found: Callable[[Path], bool] = lambda path: False
    """Whether a folder is laid out so; never true for a set that has no folder."""
    folderless: bool = False
    fallback: bool = False
    """Asked last."""


formats: Registry[Format] = Registry("data set")
