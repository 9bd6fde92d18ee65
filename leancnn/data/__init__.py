"""Data sets: class folders, CIFAR, SVHN, and the digits that come with scikit-learn."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.cache import folder as cache_folder
from leancnn.data._base import (
    PARTS,
    Dataset,
    Format,
    Part,
    PartName,
    Reading,
    Source,
    Split,
    formats,
)
from leancnn.data._split import cut, val_share_of
from leancnn.errors import DataError, UnknownNameError
from leancnn.preprocess import Preprocessing, shown
from leancnn.progress import tell
from leancnn.registry import import_members

__all__ = ["Dataset", "Split", "load_dataset", "names", "open_source", "recognise"]

import_members(__name__)


def names() -> list[str]:
    """Data sets that need no folder, because they come inside a dependency."""
    return [name for name, form in formats.items() if form.folderless]


def open_source(source: str | Path) -> Source:
    """Open a data set without decoding anything.

    Raises as `recognise`, and `DataError` for classes that disagree or have no images.
    """
    return recognise(source).open(Path(source))


def recognise(source: str | Path) -> Format:
    """What kind of data set lies in a folder, or has a name.

    Raises `DataError` for what is no folder, and for a name that is neither.
    """
    path = Path(source)
    if source == "":
        raise DataError("the path of the data is empty; name a folder, or . for this one")
    if isinstance(source, str) and source in names():
        _tell_of_folder(source)
        return formats[source]
    if not path.exists():
        if isinstance(source, str) and "/" not in source and "\\" not in source:
            known = type(formats)("data set")
            known.update({name: formats[name] for name in names()})
            try:
                known[source]
            except UnknownNameError as error:
                raise DataError(f"{error}; nor is a folder of that name here") from None
        raise DataError(f"no folder at {shown(path)}; check the path")
    if not path.is_dir():
        raise DataError(f"{shown(path)} is a file, not a folder of images; unpack an archive first")
    ask = sorted(formats.values(), key=lambda form: form.fallback)
    return next(form for form in ask if form.found(path))


@functools.cache
def _tell_of_folder(name: str) -> None:
    """Say, once, that a folder has the name of a data set that needs none."""
    if Path(name).is_dir():
        tell(f"{name} is the data set of that name; your folder is ./{name}")


def load_dataset(
    source: str | Path,
    preprocessing: Preprocessing,
    *,
    parts: Sequence[PartName] = ("train", "val"),
    val_share: float | None = None,
    seed: int = 0,
    cache: Path | None = None,
    max_bad_share: float = 0.01,
    verify: bool = False,
) -> Dataset:
    """Load the named parts of a data set as uint8 images at `preprocessing.scale`.

    `source` is a folder, or a name of `names()`. When there is no "val", it is cut from "train":
    stratified, a function of names and `seed`, a tenth or about 2,000 images unless `val_share`
    says otherwise; `train` is the rest whenever "val" is asked for too.
    Only the parts asked for are opened. Folders are decoded once, into `cache`; a second load
    compares names, sizes and times, with `verify` every byte.
    Raises `DataError` when classes disagree, one has no readable image, or more than
    `max_bad_share` of a part's files are unreadable (fewer stand in `manifest["skipped"]`).

    >>> dataset = leancnn.load_dataset("photos", leancnn.Preprocessing(size=(8, 8)))
    >>> dataset.classes
    ('class 0', 'class 1', 'class 2')
    >>> dataset.train.images.shape[1:], dataset.train.images.dtype
    ((8, 8, 3), dtype('uint8'))
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise DataError(f"a data set has the parts train, val and test, not '{unknown[0]}'")
    opened = open_source(source)
    if len(opened.classes) < 2:
        only = f"one class, '{shown(opened.classes[0])}'" if opened.classes else "no class"
        raise DataError(f"{shown(opened.path)} has {only}; a classifier tells two or more apart")
    reading = Reading(
        preprocessing=preprocessing,
        cache=cache or cache_folder(),
        max_bad_share=max_bad_share,
        verify=verify,
    )
    cut_val = "val" in parts and "val" not in opened.read and val_share != 0
    no_val = cut_val or ("val" not in opened.read and val_share == 0)
    wanted = [part for part in PARTS if part in parts or (part == "train" and cut_val)]
    read = _read(opened, reading, [part for part in wanted if part != "val" or not no_val])
    splits: dict[PartName, Split] = {part: found.split for part, found in read.items()}
    cuts: dict[str, Any] = dict(opened.cuts)
    if cut_val:
        cuts["val"] = _cut_val(splits, val_share, seed, reading.cache)
    splits = {part: split for part, split in splits.items() if part in parts}
    return Dataset(
        name=opened.name,
        classes=opened.classes,
        train=splits.get("train"),
        val=splits.get("val"),
        test=splits.get("test"),
        manifest=_manifest(opened, read, splits, cuts),
    )


def _cut_val(
    splits: dict[PartName, Split], share: float | None, seed: int, cache: Path
) -> dict[str, Any]:
    """Set the validation part apart from "train"; how, for the manifest."""
    whole = splits["train"]
    share = val_share_of(len(whole.labels)) if share is None else share
    stay, off = cut(whole.files, whole.labels, share, f"val {seed}")
    splits["train"], splits["val"] = (whole.take(rows, cache) for rows in (stay, off))
    return {"from": "train", "share": share, "seed": seed, "images": len(off)}


def _read(opened: Source, reading: Reading, parts: Sequence[PartName]) -> dict[PartName, Part]:
    """The parts of a source, each with images of every class. Raises `DataError`."""
    read: dict[PartName, Part] = {}
    for part in parts:
        if part not in opened.read:
            there = ", ".join(opened.read)
            raise DataError(
                f"{shown(opened.path)} has no {part} part; it has: {there}; put images into "
                f"{part}/<class>/, or name other data"
            )
        read[part] = opened.read[part](reading)
        _require_every_class(part, opened.classes, read[part])
    return read


def _require_every_class(part: str, classes: Sequence[str], found: Part) -> None:
    counts = np.bincount(found.split.labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{part}: class '{shown(empty[0])}' has no readable image; run leancnn check"
        )


def _manifest(
    opened: Source,
    read: dict[PartName, Part],
    splits: dict[PartName, Split],
    cuts: dict[str, Any],
) -> dict[str, Any]:
    counts = {
        part: dict(
            zip(
                opened.classes,
                np.bincount(split.labels, minlength=len(opened.classes)).tolist(),
                strict=True,
            )
        )
        for part, split in splits.items()
    }
    return {
        "source": opened.path,
        "kind": opened.name,
        "classes": list(opened.classes),
        "parts": list(opened.read),
        "counts": counts,
        "sha256": {part: found.sha256 for part, found in read.items()},
        "cuts": cuts,
        "skipped": [
            {"part": part, "file": bad.file, "reason": bad.reason}
            for part, found in read.items()
            for bad in found.skipped
        ],
        "warnings": {part: dict(found.warnings) for part, found in read.items()},
        "stray": [{"file": bad.file, "reason": bad.reason} for bad in opened.stray],
    }
