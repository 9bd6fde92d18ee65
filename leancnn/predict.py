"""A trained network as a function: image files in, labels and probabilities out."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leancnn.classifier import BATCH, Classifier
from leancnn.classifier import probabilities as answers
from leancnn.compiled import SUFFIXES as LIBRARIES
from leancnn.compiled import CompiledNetwork
from leancnn.decode import begins_as_image
from leancnn.errors import DamagedError, ImageError, MismatchError, RunError
from leancnn.preprocess import SUFFIXES, UNREAD, WANTED, Picture, Source
from leancnn.runs import Which
from leancnn.targets import open_session, targets
from leancnn.weights import Network, check_finite, load

IN_MEMORY = (str, Path, bytes, bytearray, memoryview, Image.Image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says about one file."""

    path: str
    label: str
    probability: float
    """Of `label`, 0..1: the network's own, which is not a promise."""
    top: tuple[tuple[str, float], ...]
    """The likeliest classes with their probabilities, best first."""
    warnings: tuple[str, ...] = ()
    """What had to be done to the file, such as turning it upright."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": share} for label, share in self.top],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be predicted, and why."""

    path: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {"path": self.path, "reason": self.reason}


def open_classifier(source: str | Path, which: Which | None = None) -> Classifier:
    """What answers: a saved network, a run's, a compiled library, or an exported file, by its
    suffix.

    Raises what loading it raises; `DamagedError` for a file that is none of ours.

    >>> open_classifier("runs/a").name
    'resnet8'
    """
    path = Path(source)
    exported = {target.suffix for target in targets.values() if target.suffix}
    if path.is_dir() or path.suffix not in exported.union(LIBRARIES):
        return load(path, which)
    if which is not None:
        raise MismatchError(f"{path} is one network; it has no '{which}'")
    if not path.exists():
        raise RunError(f"{path}: no such file")
    found = CompiledNetwork(path) if path.suffix in LIBRARIES else open_session(path)
    assert found is not None, "its suffix is a target's"
    _ = found.pictures()  # that it has some is said now
    return found


def predict(
    network: Classifier | str | Path,
    images: Source | Iterable[Source],
    *,
    top: int = 5,
) -> list[Prediction]:
    """Predict image files, and those in folders and the folders below them, in a stable order.

    An image in memory is taken as well, alone or among others: the bytes of a file, an open file, a
    PIL image, or an array of pixels 0 to 255, uint8 (h, w) or (h, w, C); one of (N, h, w, C) is N
    images. Its `path` in the prediction is "image 1" by its place.

    Raises `ImageError` naming every file that cannot be used; `predict_readable` goes on without
    them. `network` is whatever answers (see `Classifier`), the folder of a saved network, a run
    (its best), a compiled library, or a file that `export` wrote.

    >>> found = leancnn.predict("runs/a", ["photos/class 0", np.zeros((40, 50, 3), np.uint8)])
    >>> len(found), found[-1].path, found[0].label in ("class 0", "class 1", "class 2")
    (33, 'image 2', True)
    """
    found, refused = predict_readable(network, images, top=top)
    if refused:
        reasons = "; ".join(item.reason for item in refused[:5])
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ImageError(f"{len(refused)} of {len(found) + len(refused)} files: {reasons}{more}")
    return found


def predict_readable(
    network: Classifier | str | Path,
    images: Source | Iterable[Source],
    *,
    top: int = 5,
) -> tuple[list[Prediction], list[Refused]]:
    """As `predict`, with the files that cannot be used beside the predictions, not as an error."""
    network = open_classifier(network) if isinstance(network, str | Path) else network
    preprocessing = network.pictures()
    found: list[Prediction] = []
    refused: list[Refused] = []
    stream = _named(images)
    while group := list(islice(stream, BATCH)):
        read: list[tuple[str, Picture]] = []
        for name, item in group:
            if isinstance(item, Refused):
                refused.append(item)
                continue
            try:
                read.append((name, preprocessing.read(item, name=name)))
            except ImageError as error:
                refused.append(Refused(name, str(error)))
        if read:
            rows = answers(network, np.stack([picture.image for _, picture in read]))
            for (path, picture), row in zip(read, rows, strict=True):
                if not np.isfinite(row).all():
                    refused.append(Refused(path, f"{path}: {_no_number(network)}"))
                    continue
                found.append(_prediction(path, picture.warnings, row, network.classes, max(top, 1)))
    return found, refused


def _prediction(
    path: str,
    warnings: tuple[str, ...],
    row: NDArray[np.float64],
    classes: Sequence[str],
    top: int,
) -> Prediction:
    order = np.argsort(-row, kind="stable")[:top]  # of equals the first, as argmax has it
    best = tuple((classes[place], float(row[place])) for place in order)
    return Prediction(
        path=path, label=best[0][0], probability=best[0][1], top=best, warnings=warnings
    )


def _named(images: Source | Iterable[Source]) -> Iterator[tuple[str, Source | Refused]]:
    """Every image with its name: a file's own, or its place among those that were given."""
    alone = isinstance(images, IN_MEMORY) or hasattr(images, "read")
    if hasattr(images, "__array__"):
        alone = getattr(images, "ndim", 0) != 4
    if not alone and not isinstance(images, Iterable):
        raise MismatchError(f"{type(images).__name__} is no image; {WANTED}")
    for number, given in enumerate([images] if alone else images, 1):
        if isinstance(given, str | Path):
            yield from ((str(getattr(item, "path", item)), item) for item in files([given]))
        else:
            yield f"image {number}", given


def files(paths: Iterable[str | Path]) -> Iterator[Path | Refused]:
    """Every file named, and every image below every folder named, hidden ones left out."""
    for given in paths:
        if given == "":
            yield Refused("", "an empty path; name a file, or . for this folder")
            continue
        path = Path(given)
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (OSError, ValueError):
            is_folder = False  # reading it will say what is wrong
        if not is_folder:
            yield path
            continue
        inside = list(_below(path))
        if not inside:
            yield Refused(str(path), f"{path}: no image in this folder")
        yield from inside


def _below(folder: Path) -> Iterator[Path | Refused]:
    """Links are followed, as in training, each folder once."""
    closed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        about = Path(parent).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            known = path.suffix.lower() in SUFFIXES.keys() | UNREAD
            if not name.startswith(".") and (known or begins_as_image(path)):
                yield path
    for error in closed:
        path = Path(error.filename)
        yield Refused(str(path), f"{path}: {error.strerror or error}; check the folder")


def probabilities(
    network: Classifier, images: NDArray[np.uint8], batch: int = BATCH
) -> NDArray[np.float64]:
    """Stored images, uint8 (N, h, w, C) at the scale of preprocessing, to (N, classes).

    Raises `DamagedError` when the network's answer is not a number.
    """
    rows = answers(network, images, batch)
    if not np.isfinite(rows).all():
        raise DamagedError(_no_number(network))
    return rows


def _no_number(network: Classifier) -> str:
    """What to say of an answer that is NaN. Raises `DamagedError` when a weight is."""
    if isinstance(network, Network):
        check_finite(network)
    return f"{network.name} answers with what is no number (NaN) for it"


def captions(predictions: Sequence[Prediction]) -> list[str]:
    """Two lines for a contact sheet: the label with its probability, and the file's name."""
    return [f"{item.label} {item.probability:.0%}\n{Path(item.path).name}" for item in predictions]
