"""One C file without dependencies, written by the compiler in `compiler/`."""

from pathlib import Path

from leancnn.compiled import CompiledNetwork
from leancnn.runs import atomic_write
from leancnn.targets._base import EngineSession, Target, register
from leancnn.targets._c_text import to_c
from leancnn.targets._cmake import write_project
from leancnn.targets._compiled import loaded
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


def load(path: Path) -> EngineSession:
    """Compile a written file or project, or take a library as it is.

    Raises `CompileError`, `DamagedError`.
    """
    path = path / f"{path.name}.c" if path.is_dir() else path
    library = path
    if path.suffix == ".c":
        library = compile_library(path.read_text(encoding="utf-8"), name=path.stem)
    return loaded(CompiledNetwork(library))


register(Target("c", "one C file, no dependencies", ".c", write, load, ("tune", "small", "cmake")))
