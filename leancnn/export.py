"""Write a network for another engine, and keep it only if it answers like the original."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.errors import ImageError, ParityError, UsageError, WriteError
from leancnn.modes import evaluating
from leancnn.preprocess import SUFFIXES
from leancnn.progress import now
from leancnn.signal_window import SignalWindow
from leancnn.targets import Loaded, targets
from leancnn.weights import Network, check_finite, load
from leancnn.workspaces import workspace

WITHIN = 1e-4  # of the logits' scale: the largest difference that is kept
WITHIN_INT8 = 0.05  # the same of integers in an engine that sums their products in floats
TRIALS = 24  # made images on which the answers are compared
REAL = 8  # and of those that the network was trained with, where they are at hand
TOLD = 1e-6  # the least probability whose logarithm still tells the logit behind it
ORIGIN = re.compile(rb"\borigin(?:&quot;|\W){1,8}([0-9a-f]{16})\b")
"""How C, JSON, ONNX's metadata and OpenVINO's XML spell where a network comes from."""
ROUNDED = 4e-6  # what float32 loses of that logarithm


def export(
    network: Network | str | Path,
    *,
    to: str,
    out: str | Path,
    tune: float | None = None,
    single: bool = False,
    small: bool = False,
    cmake: bool = False,
    name: str | None = None,
) -> list[Path]:
    """Write `network` as target `to` into the folder `out`, and return the files.

    What was written is loaded back and compared with PyTorch first. Raises `ParityError` with the
    largest difference, and leaves `out` as it was, when the answers differ by more than a
    ten-thousandth of the logits' scale; `WriteError` where files of another network would be
    written over, `DamagedError` for weights that are no numbers. `tune` is for "c", as in
    `compile`, and `small`: plain loops in the least memory, and `cmake`: a project with a package,
    JNI and Swift; `single` is for "web": one page that holds all; `name` is what files, and in C
    the symbols, are called by in the place of the network's. Raises `UsageError` for what is not
    of the format.
    """
    network = (network if isinstance(network, Network) else load(network)).called(name)
    check_finite(network)
    target = targets[to]
    write = writer(to, tune=tune, single=single or None, small=small or None, cmake=cmake or None)
    out = Path(out)
    with folder_for(out):
        try:
            with workspace(out) as work:
                now(f"writing {to}")
                written = write(network, work)
                now("comparing with PyTorch")
                check_parity(network, target.load(written[0]), trial_images(network, real=REAL))
                for path in written:
                    _check_place(path, out / path.name)
                with own([out / path.name for path in written], network.origin):
                    return [_keep(path, out / path.name, work) for path in written]
        except OSError as error:
            raise WriteError(f"{out}: {error.strerror or error}") from error


@contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """A folder to write into; of those it had to make none stays when what is inside fails."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{path}: {error.strerror or error}") from error
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty, or not there
            for place in made:
                place.rmdir()
        raise


@contextmanager
def own(places: Sequence[Path], origin: str) -> Iterator[None]:
    """Files of one folder that no other export touches meanwhile.

    Refuses, with `WriteError`, to write over what was not made from the same run. Every artifact
    names its origin somewhere in one of its files; what names none is not ours.
    """
    handle = os.open(places[0].parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        _check_own(places, origin)
        yield
    finally:
        os.close(handle)


def _check_own(places: Sequence[Path], origin: str) -> None:
    there = [place for place in places if place.exists()]
    found = {mark for place in there for mark in _origins(place)}
    if there and found != {origin}:
        what = "of another network" if found else "that no run of leancnn is known of"
        raise WriteError(
            f"{there[0]} is a file {what}, and stays; choose another --out, or another --name"
        )


def _origins(place: Path) -> set[str]:
    """The marks of `Network.origin` in a file, or in the files of a folder."""
    files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
    return {mark.decode() for file in files for mark in ORIGIN.findall(file.read_bytes())}


def writer(to: str, **options: object) -> Callable[[Network, Path], list[Path]]:
    """How a target writes, with those options that are not None. Raises `UsageError` for one that
    is of another target."""
    target = targets[to]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given.keys() - set(target.options):
        of = ", ".join(name for name, other in targets.items() if key in other.options)
        raise UsageError(f"--{key} is for {of}, not for {to}")
    return partial(target.write, **given)


def _check_place(path: Path, place: Path) -> None:
    """Refuse, with `WriteError`, to put an artifact in the place of what is none."""
    if place.exists() and place.is_dir() != path.is_dir():
        kind = "folder" if place.is_dir() else "file"
        raise WriteError(f"{place} is a {kind}; move it away or choose another --out")
    if path.is_dir() and place.is_dir():
        own = {child.name for child in path.iterdir()}
        if odd := sorted(child.name for child in place.iterdir() if child.name not in own):
            raise WriteError(f"{place} holds {odd[0]}, too; choose another --out")


def _keep(path: Path, place: Path, work: Path) -> Path:
    """Put an artifact in its place; a folder that was there ends with the folder `work`."""
    if not place.is_dir():
        return path.replace(place)
    old = place.rename(work / f"old {place.name}")
    try:
        return path.replace(place)
    except BaseException:
        old.rename(place)  # `work` ends, and what stood there must not end with it
        raise


def trial_images(network: Network, count: int = TRIALS, *, real: int = 0) -> NDArray[Any]:
    """Images for a comparison: `count` made ones, and up to `real` that it was trained with.

    Of a network of signals, made features: noise, all 0 and all 1.
    """
    if isinstance(network.preprocessing, SignalWindow):
        features: NDArray[Any] = network.preprocessing.made(count)
        return features
    made = made_images((*network.preprocessing.size, network.preprocessing.channels), count)
    seen = list(islice(_trained_with(network), real))
    return np.concatenate([made, np.stack(seen)]) if seen else made


def _trained_with(network: Network) -> Iterator[NDArray[np.uint8]]:
    """Images of a network's training folder, one of each class in turn, where it still stands."""
    told = Path(network.known_data or "")
    if not network.known_data or not told.is_dir():
        return
    train = told / "train" if (told / "train").is_dir() else told
    files: list[list[Path]] = []
    with suppress(OSError):
        folders = [folder for folder in sorted(train.iterdir()) if folder.is_dir()]
        files += [sorted(islice(folder.iterdir(), REAL)) for folder in folders[:REAL]]
    for path in (path for turn in zip_longest(*files) for path in turn if path is not None):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            with suppress(ImageError):
                yield network.pictures().window(network.pictures().read(path).image[None])[0]


def made_images(size: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Images of rows, columns and channels `size` that drive values far: black first, noise, smooth
    gradients, then greys, single bright channels, edges, weak noise, one bright pixel; white last.
    """
    random = np.random.default_rng(0)
    height, width, channels = size
    images = random.integers(0, 256, (count, height, width, channels)).astype(np.uint8)
    ramp = np.linspace(0, 255, height)[:, None, None] * np.linspace(0, 1, width)[None, :, None]
    images[1::3] = (images[1::3] * 0.2 + 0.8 * ramp).astype(np.uint8)
    odd = [np.full(size, grey) for grey in (64, 128, 192)]
    odd += [np.broadcast_to(row, size) for row in np.eye(channels) * 255]
    board = (np.add.outer(np.arange(height), np.arange(width)) % 2 * 255)[..., None]
    half = np.where(np.arange(width) < width // 2, 0, 255)[:, None]
    weak = 126 + random.integers(0, 5, size)
    spot = np.zeros(size)
    spot[height // 2, width // 2] = 255
    odd += [np.broadcast_to(image, size) for image in (board, half, weak, spot)]
    if count > len(odd) + 5:
        images[5 : 5 + len(odd)] = np.stack(odd)
    images[0], images[-1] = 0, 255
    return images


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of answers of one shape, relative to the scale of `expected`.

    NaN and infinities are answers as others: equal where both have them, else far apart.
    """
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    scale = max(float(np.abs(expected[np.isfinite(expected)]).max(initial=0)), 1e-6)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(found - expected))
    return float(apart.max(initial=0)) / scale


def probabilities_apart(found: NDArray[Any], logits: NDArray[Any]) -> float:
    """How far probabilities are from the softmax of `logits`, on the scale of these.

    Logarithms are compared where a probability is not too small to have one, for a softmax that is
    sure of its answer hides what stands before it; elsewhere the probabilities themselves. Where
    logits are no numbers, neither are probabilities.
    """
    sound = np.isfinite(logits).all(1)
    if not np.isnan(found[~sound]).any(-1).all():
        return float("inf")
    if not sound.any():
        return 0.0
    found, logits = found[sound], logits[sound]
    expected = logits - logits.max(1, keepdims=True).astype(np.float64)
    expected -= np.log(np.exp(expected).sum(1, keepdims=True))
    apart = float(np.abs(found - np.exp(expected)).max())
    told = (expected > np.log(TOLD)) & (found > TOLD / 10)
    if not told.any():
        return apart
    of_logits = float(np.abs(np.log(found[told]) - expected[told]).max())
    scale = max(float(np.abs(logits).max()), 1e-6)
    return float(np.max([apart, (of_logits - ROUNDED) / scale]))


@torch.inference_mode()
def check_parity(network: Network, artifact: Loaded, images: NDArray[Any]) -> float:
    """The largest difference of logits, relative to their scale, and where users call another entry
    that gives probabilities, of these. Raises `ParityError`."""
    if artifact.classes != network.classes:
        raise ParityError(f"the artifact's classes are {artifact.classes}, not {network.classes}")
    with evaluating(network):
        expected = network(torch.from_numpy(images)).numpy()
    found = artifact.logits(images)
    apart = difference(found, expected)
    ours = artifact.probabilities is not None  # C, which owes the very bits of integers
    within = WITHIN if not network.quantized else 0.0 if ours else WITHIN_INT8
    if not apart <= within:
        raise ParityError(
            f"the artifact's logits differ by {apart:.2g} of their scale from PyTorch's, "
            f"more than {within:g}; it was not kept"
        )
    if artifact.probabilities is None:
        return apart
    entry = probabilities_apart(artifact.probabilities(images), expected)
    if not entry <= WITHIN:
        raise ParityError(
            f"the artifact's probabilities of uint8 images differ by {entry:.2g} from PyTorch's, "
            f"more than {WITHIN:g}, and its logits by {apart:.2g}; it was not kept"
        )
    return max(apart, entry)
