"""One C file without dependencies, written by the compiler in `native/`."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leancnn.compiled import Native
from leancnn.compiler.emit import Written
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.translate import translate
from leancnn.runs import atomic_write
from leancnn.targets._base import Loaded, Logits, Target, put
from leancnn.toolchain import compile_library
from leancnn.weights import Network


def to_c(network: Network, tune: float | None = None) -> Written:
    """The C file of a network, with its classes, its normalisation and its road inside.

    `tune`: seconds for timing register tiles on this machine; None: trust the cost model.
    """
    road = network.road
    given = {**network.arguments, "cut": "pruned"} if "cut" in network.arguments else {}
    settings = ", ".join(f"{k}={v}" for k, v in (given or network.arguments).items())
    about = {
        "road": road.to_json(),
        "mean": list(network.mean),
        "std": list(network.std),
    }
    return translate(
        import_torch(network.body, (road.channels, *road.size)),
        name=network.name,
        classes=network.classes,
        mean=network.mean,
        std=network.std,
        about=json.dumps(about),
        source=f"from {network.name}({settings})",
        tune=tune,
    )


def write(network: Network, folder: Path, *, tune: float | None = None) -> list[Path]:
    written = to_c(network, tune)
    paths = [folder / f"{written.prefix}.c", folder / f"{written.prefix}.h"]
    for path, text in zip(paths, (written.source, written.header), strict=True):
        atomic_write(path, text.encode())
    return paths


def load(path: Path) -> Loaded:
    """Compile a written file, or take a library as it is. Raises `CompileError`, `DamagedError`."""
    library = path
    if path.suffix == ".c":
        library = compile_library(path.read_text(encoding="utf-8"), name=path.stem)
    return loaded(Native(library))


def loaded(native: Native) -> Loaded:
    """A compiled network as every target's artifact is used."""
    mean, std = (np.array(native.about.get(key, [0]), np.float32) for key in ("mean", "std"))
    scale, shift = (1 / (255 * std)).astype(np.float32), -mean / std

    def logits(images: NDArray[np.uint8]) -> Logits:
        normal = images.astype(np.float32) * scale + shift
        return native.logits(normal.transpose(0, 3, 1, 2))

    return Loaded(logits, native.classes, native.bare, native)


put(Target("c", "one C file, no dependencies", ".c", write, load))
