"""Register tiles by measurement: the likely ones of each layer shape, timed on this machine.

The winners are kept in the cache folder, one file for each processor and compiler, so that a shape
is timed once.
"""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from leancnn.cache import folder
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import Conv, Graph, Reduce, empty, floats
from leancnn.compiler.kernel import Kernel
from leancnn.compiler.loops import Tiles
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.errors import LeanCNNError, MismatchError, WriteError
from leancnn.safe_files import read_json, write_checked
from leancnn.timing import in_turns
from leancnn.toolchain import FAST_FLAGS, compile_library, find_compiler, processor

CANDIDATES = 5  # tiles of each shape that are timed: the best by the cost model
TURNS = 7
TURN_SECONDS = 0.004


def tune(graph: Graph, seconds: float) -> dict[str, tuple[int, int]]:
    """The best tile known for each shape of a simplified graph, measuring for about so long.

    Shapes with the most multiply-adds come first; what there is no time for keeps the tile of the
    cost model. 0 seconds measure nothing. Raises `MismatchError` for no time, `WriteError`,
    `MissingDependencyError`.
    """
    if not 0 <= seconds < float("inf"):
        raise MismatchError(f"tiles are timed for 0 seconds or more, not {seconds}")
    until = time.monotonic() + seconds
    known = load_tiles()
    for key, kernel in shapes(graph).items():
        if key in known:
            continue
        if time.monotonic() >= until:
            break
        known[key] = fastest(kernel, key)
        save_tiles({**load_tiles(), key: known[key]})
    return known


def shapes(graph: Graph) -> dict[str, Kernel]:
    """A convolution of each shape in the program, that with the most multiply-adds first."""
    program = lower(graph)
    schedule(program)
    work: dict[str, float] = {}
    found: dict[str, Kernel] = {}
    for kernel in program.kernels:
        if key := kernel.tile_key:
            found.setdefault(key, kernel)
            work[key] = work.get(key, 0) + kernel.op.weight.size * kernel.height * kernel.width
    return {key: found[key] for key in sorted(found, key=lambda key: -work[key])}


def fastest(kernel: Kernel, key: str) -> tuple[int, int]:
    """The tile with the least time, candidates taking turns."""
    runs = {}
    for tile in kernel.tiles(CANDIDATES):
        native = alone(kernel, {key: tile})
        runs[tile] = native.bare(np.zeros((1, *native.shape[1:], native.shape[0]), np.uint8))
    turns = in_turns(runs, TURNS, TURN_SECONDS)
    return min(turns, key=lambda tile: min(map(min, turns[tile])))


def alone(kernel: Kernel, tiles: Tiles) -> CompiledNetwork:
    """A program of nothing but this convolution, in its layout, and a mean."""
    assert isinstance(kernel.op, Conv)
    graph = empty((len(kernel.x.planes), kernel.x.height, kernel.x.width))
    value = graph.add(plain(kernel.op), graph.input, name="layer")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
    channels = len(kernel.x.planes)
    metadata = Metadata(
        name="alone",
        classes=tuple(map(str, range(kernel.channels))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    plan = schedule(lower(graph), tiles, "blocked" if kernel.lays_blocked else "planes")
    return CompiledNetwork(compile_library(emit(plan, metadata).source, name="alone"))


def plain(op: Conv) -> Conv:
    """The same shape with small weights that are the same each time."""
    weight = np.random.default_rng(0).standard_normal(op.weight.shape) * 0.1
    bias = floats(np.zeros(len(op.weight)))
    return Conv(floats(weight), bias, op.stride, op.padding, op.dilation, op.groups)


def place() -> Path:
    """The file of this processor's and compiler's winners."""
    compiler = find_compiler()
    parts = (*FAST_FLAGS, *compiler.command, compiler.version, processor())
    key = sha256("\0".join(parts).encode()).hexdigest()[:20]
    return folder() / "native" / f"tiles-{key}.json"


def load_tiles() -> dict[str, tuple[int, int]]:
    """The winners so far; a file that cannot be read is none."""
    try:
        return dict(_checked(read_json(place())))
    except (LeanCNNError, ValueError, TypeError, AttributeError):
        return {}


def _checked(values: dict[str, list[int]]) -> Iterator[tuple[str, tuple[int, int]]]:
    for key, (outputs, vectors) in values.items():
        if not (1 <= outputs <= 28 and 1 <= vectors <= 8 and outputs * vectors + vectors < 32):
            raise ValueError(f"{key}: no tile of {outputs} x {vectors} vectors")
        yield key, (int(outputs), int(vectors))


def save_tiles(tiles: Tiles) -> None:
    """Write all at once or not at all. Raises `WriteError`."""
    target = place()
    try:
        write_checked(target, {key: list(tile) for key, tile in sorted(tiles.items())})
    except WriteError as error:
        raise WriteError(f"{error}; LEANCNN_CACHE names the folder") from error
