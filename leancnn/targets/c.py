"""One C file without dependencies, written by the compiler in `native/`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiled import CompiledNetwork
from leancnn.runs import atomic_write
from leancnn.targets._base import Loaded, Logits, Target, register
from leancnn.targets._c_text import to_c
from leancnn.targets._cmake import write_project
from leancnn.toolchain import compile_library
from leancnn.weights import Network


def write(
    network: Network,
    folder: Path,
    *,
    tune: float | None = None,
    small: bool = False,
    cmake: bool = False,
) -> list[Path]:
    written = to_c(network, tune, small=small)
    if cmake:
        return [write_project(written, len(network.classes), folder)]
    paths = [folder / f"{written.prefix}.c", folder / f"{written.prefix}.h"]
    for path, text in zip(paths, (written.source, written.header), strict=True):
        atomic_write(path, text.encode())
    return paths


def load(path: Path) -> Loaded:
    """Compile a written file or project, or take a library as it is.

    Raises `CompileError`, `DamagedError`.
    """
    path = path / f"{path.name}.c" if path.is_dir() else path
    library = path
    if path.suffix == ".c":
        library = compile_library(path.read_text(encoding="utf-8"), name=path.stem)
    return loaded(CompiledNetwork(library))


def loaded(native: CompiledNetwork) -> Loaded:
    """A compiled network as every target's artifact is used."""
    mean, std = (np.array(native.about.get(key, [0]), np.float32) for key in ("mean", "std"))
    full = 255.0 if native.dtype == np.uint8 else 1.0
    scale, shift = (1 / (full * std)).astype(np.float32), -mean / std

    def logits(images: NDArray[Any]) -> Logits:
        normal = images.astype(np.float32) * scale + shift
        return native.logits(normal.transpose(0, 3, 1, 2))

    return Loaded(logits, native.classes, native.bare, native)


register(Target("c", "one C file, no dependencies", ".c", write, load, ("tune", "small", "cmake")))
