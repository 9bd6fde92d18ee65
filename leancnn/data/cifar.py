"""CIFAR-10 and CIFAR-100 as their authors publish them: the python and the binary format.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, and the page of the
data sets. A record is 32×32 pixels as three planes: red, green, blue. The python format is a
pickle, of which only arrays, bytes, text, lists and dicts are read here; no function it names is
ever called.
"""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leancnn.data._arrays import part_of
from leancnn.data._base import Format, Part, PartName, Reading, Source, formats
from leancnn.errors import DataError
from leancnn.preprocess import Pixels, shown

SIDE = 32
PLANES = 3 * SIDE * SIDE  # bytes of an image


class Layout(NamedTuple):
    """One of the four ways the two sets are published."""

    folder: str
    """Its name in the archive; the folder above it is recognised too."""
    meta: str
    """The file with the class names."""
    names: str
    """Their key in a python meta file; "" for a text file."""
    labels: str
    """The key of the labels in a python batch."""
    head: int
    """Label bytes before each binary record; the last is the label."""
    files: dict[PartName, tuple[str, ...]]


TEN = tuple(f"data_batch_{n}" for n in range(1, 6))
LAYOUTS = (
    Layout(
        *("cifar-10-batches-py", "batches.meta", "label_names", "labels", 0),
        {"train": TEN, "test": ("test_batch",)},
    ),
    Layout(
        *("cifar-100-python", "meta", "fine_label_names", "fine_labels", 0),
        {"train": ("train",), "test": ("test",)},
    ),
    Layout(
        *("cifar-10-batches-bin", "batches.meta.txt", "", "", 1),
        {"train": tuple(f"{name}.bin" for name in TEN), "test": ("test_batch.bin",)},
    ),
    Layout(
        *("cifar-100-binary", "fine_label_names.txt", "", "", 2),
        {"train": ("train.bin",), "test": ("test.bin",)},
    ),
)


def _layout(folder: Path) -> tuple[Path, Layout] | None:
    for layout in LAYOUTS:
        for place in (folder, folder / layout.folder):
            first = next(iter(layout.files.values()))[0]
            if (place / layout.meta).is_file() and (place / first).is_file():
                return place, layout
    return None


def _open(path: Path) -> Source:
    found = _layout(path)
    assert found is not None, "asked only where it was recognised"
    place, layout = found
    if layout.names:
        stored = _unpickled(place / layout.meta).get(layout.names)
        names = [_text(name) for name in stored] if isinstance(stored, list) else []
    else:
        names = (place / layout.meta).read_text("utf-8", "replace").split()
    if len(names) < 2 or len(set(names)) != len(names):
        raise DataError(f"{shown(place / layout.meta)}: no list of class names; get it again")
    return Source(
        name="cifar",
        path=str(place.absolute()),
        classes=tuple(names),  # in the order of the labels in the files
        size=(SIDE, SIDE),
        read={
            part: partial(_read, place, layout, files, len(names))
            for part, files in layout.files.items()
        },
    )


def _read(
    place: Path, layout: Layout, files: tuple[str, ...], classes: int, reading: Reading
) -> Part:
    one: Callable[[Path, Layout], tuple[Pixels, NDArray[np.int64]]]
    one = _python_batch if layout.names else _binary_batch
    batches = [one(place / file, layout) for file in files]
    images = np.concatenate([images for images, _ in batches])
    images = np.ascontiguousarray(images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    labels = np.concatenate([labels for _, labels in batches])
    names = [
        f"{file}#{row}"
        for file, (_, own) in zip(files, batches, strict=True)
        for row in range(len(own))
    ]
    return part_of(images, labels, names, classes, reading)


def _binary_batch(path: Path, layout: Layout) -> tuple[Pixels, NDArray[np.int64]]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{shown(path)}: {error.strerror}; get it again") from error
    record = layout.head + PLANES
    if not data.size or data.size % record:
        raise DataError(
            f"{shown(path)}: {data.size} bytes are no whole records of {record}; get it again"
        )
    rows = data.reshape(-1, record)
    return rows[:, layout.head :], rows[:, layout.head - 1].astype(np.int64)


def _python_batch(path: Path, layout: Layout) -> tuple[Pixels, NDArray[np.int64]]:
    batch = _unpickled(path)
    pixels, labels = (
        found.values if isinstance(found, _Array) else found
        for found in (batch.get("data"), batch.get(layout.labels))
    )
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != PLANES
        or not len(pixels)
        or not isinstance(labels, list | np.ndarray)
        or len(labels) != len(pixels)
        or not all(
            isinstance(label, int | np.integer) and abs(int(label)) < 2**63 for label in labels
        )
    ):
        raise DataError(f"{shown(path)}: not {PLANES} bytes and one label per image; get it again")
    return pixels, np.array(labels, np.int64)


# The pickles


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unpickled(path: Path) -> dict[str, Any]:
    """A pickled dict of plain values and arrays. Raises `DataError` for anything else."""
    try:
        with path.open("rb") as file:
            found = _PlainUnpickler(file, encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{shown(path)}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = shown(str(error)) or type(error).__name__
        raise DataError(f"{shown(path)}: damaged ({reason}); get it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{shown(path)}: holds no dict; get it again")
    return {_text(key): value for key, value in found.items()}


class _PlainUnpickler(pickle.Unpickler):
    """Knows the names an array of numbers needs, each bound to something of ours."""

    def find_class(self, module: str, name: str) -> Any:
        known = PLAIN.get((module, name))
        if known is None:
            asked = shown(f"{module}.{name}")
            raise DataError(f"refused: it asks to run {asked}, which no array needs; do not use it")
        return known


class _Dtype:
    """A type of numbers, as numpy pickles it: its code, then its byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def known(self) -> "np.dtype[Any]":
        found = np.dtype(self.code)
        if found.kind not in "biuf" or self.order not in ("|", "<", ">", "="):
            raise DataError("refused: an array of other things than numbers; do not use it")
        return found.newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """An array as numpy pickles it; its bytes are read by numpy, its state is not set by it."""

    values: NDArray[Any] = np.empty(0)  # of one that a damaged pickle never fills

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise DataError("refused: an array of other things than numbers; do not use it")
        values = np.frombuffer(raw, dtype.known())
        self.values = values.reshape(shape, order="F" if fortran else "C")


def _array(*stored: Any) -> _Array:
    return _Array()


def _dtype(code: Any, *stored: Any) -> _Dtype:
    return _Dtype(_text(code))


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 spells bytes."""
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise DataError("refused: text in an unknown encoding; do not use it")
    return text.encode("latin1")


PLAIN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): "ndarray",  # only ever an argument
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}

formats.register(
    "cifar", Format(name="cifar", open=_open, found=lambda folder: _layout(folder) is not None)
)
