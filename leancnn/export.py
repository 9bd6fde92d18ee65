"""Write a network for another engine, and keep it only if it answers like the original."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from leancnn.errors import UsageError, WriteError
from leancnn.parity import REAL, check_parity, trial_images
from leancnn.progress import now
from leancnn.targets import targets
from leancnn.weights import Network, check_finite, load
from leancnn.workspaces import workspace

ORIGIN = re.compile(rb"\borigin(?:&quot;|\W){1,8}([0-9a-f]{16})\b")
"""How C, JSON, ONNX's metadata and OpenVINO's XML spell where a network comes from."""


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

    >>> [path.name for path in leancnn.export("runs/a", to="c", out="build")]
    ['resnet8.c', 'resnet8.h']
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
