"""The programs of architectures: what kernels they consist of, and how long they take when built.

Lowering one takes a tenth of a second, building and timing one some seconds. What was lowered once
is kept in the cache, until a source of the compiler or of a network changes, and so is what was
built.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn import manifests
from leancnn.cache import folder
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.cycles import cycles
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import Schedule, schedule
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.errors import DamagedError, LeanCNNError, RunError, UnsupportedError
from leancnn.process import kept_threads
from leancnn.progress import Progress
from leancnn.safe_files import read_json, write_checked
from leancnn.search.remote import RemoteTimer
from leancnn.search.space import Architecture
from leancnn.timing import in_turns
from leancnn.toolchain import FAST_FLAGS, compile_library, find_compiler

Cycles = Mapping[str, float]
TURNS, TURN_S = 7, 0.02
NAME = "timed"  # of a program that is built for that alone


def price(factors: Mapping[str, float], found: Cycles) -> float:
    """Microseconds of a program of so many cycles, by what one of each kind of kernel is worth.

    >>> price({"window": 0.5}, {"window": 10.0, "kernels": 3.0})
    5.0
    """
    return sum(factors.get(kind, 0.0) * cost for kind, cost in found.items())


def lowered(architecture: Architecture) -> Schedule:
    """The program of an architecture with fresh weights. Raises `UnsupportedError`."""
    graph = trace_torch(architecture.build().eval(), (architecture.channels, *architecture.size))
    return schedule(lower(simplify(graph)))


def about(architecture: Architecture) -> Metadata:
    """What a program that is only timed says of itself."""
    return Metadata(
        name=NAME,
        classes=tuple(f"class {number}" for number in range(architecture.classes)),
        mean=(0.5,) * architecture.channels,
        std=(0.25,) * architecture.channels,
    )


def source(architecture: Architecture) -> str:
    """Its C. Raises as `lowered`."""
    return emit(lowered(architecture), about(architecture)).source


def measured(
    some: Sequence[Architecture],
    write: Callable[[Architecture], str] = source,
    on: RemoteTimer | None = None,
    *,
    progress: bool = False,
) -> dict[str, float]:
    """By an architecture's key: microseconds of its program, built on all cores and timed on one.

    `write` makes the C; `on` says where it is timed; None: here. Without those that cannot be
    built. Raises `RunError` for a command that times nothing.
    """
    if on is not None:
        return _remote(some, write, on, progress)
    paths = built(some, write, progress=progress)
    return dict(zip(paths, timed(list(paths.values())), strict=True))


def _remote(
    some: Sequence[Architecture],
    write: Callable[[Architecture], str],
    on: RemoteTimer,
    progress: bool,
) -> dict[str, float]:
    """The same, one after the other; one that fails is left out, with a warning, once another did
    not."""
    found: dict[str, float] = {}
    failed: list[RunError] = []
    with Progress("timing programs on the other machine", len(some), shown=progress) as bar:
        for architecture in some:
            with suppress(UnsupportedError):
                text = write(architecture)
                try:
                    turns = on.seconds(text, NAME, architecture, architecture.classes)
                    found[architecture.key] = 1e6 * min(turns)
                except RunError as error:
                    if not found:
                        raise
                    failed.append(error)
            bar.to(bar.done + 1)
    if failed:
        text = f"{len(failed)} of {len(some)} programs were not timed; the last: {failed[-1]}"
        warnings.warn(text, stacklevel=2)
    return found


def built(
    some: Sequence[Architecture],
    write: Callable[[Architecture], str] = source,
    *,
    progress: bool = False,
) -> dict[str, Path]:
    """Libraries by an architecture's key: one is written while those before are compiled."""
    work: dict[str, Future[Path]] = {}
    found = {}
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        Progress("building programs to time", 2 * len(some), shown=progress) as bar,
        kept_threads(),
    ):
        torch.set_num_threads(1)
        for architecture in some:
            with suppress(LeanCNNError):
                text = write(architecture)
                work[architecture.key] = pool.submit(
                    compile_library, text, name=NAME, flags=FAST_FLAGS
                )
            bar.to(bar.done + 1)
        for key, future in work.items():
            with suppress(LeanCNNError):
                found[key] = future.result()
            bar.to(bar.done + 1)
    return found


def timed(libraries: Sequence[Path]) -> list[float]:
    """Microseconds of one image on each program: all take turns, and the quietest turn counts.

    Whatever else the machine does only adds to a time.
    """
    runs: list[Callable[[], Any]] = []
    for path in libraries:
        native = CompiledNetwork(path)
        c, h, w = native.shape
        image = np.random.default_rng(0).integers(0, 256, (1, h, w, c), np.uint8)
        runs.append(native.bare(image))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        turns = in_turns(dict(enumerate(runs)), TURNS, TURN_S, least=3, warm_up=1)
    finally:
        os.sched_setaffinity(0, before)
    return [1e6 * min(map(_lower_quartile, of_run)) for of_run in turns.values()]


def _lower_quartile(calls: Sequence[float]) -> float:
    return float(np.percentile(calls, 25))


def predicted_cycles(found: Iterable[Architecture], *, progress: bool = False) -> dict[str, Cycles]:
    """By an architecture's key: cycles of each kind of kernel; without what cannot be compiled.

    What was lowered once is kept in the cache.
    """
    every = {architecture.key: architecture for architecture in found}
    place = cache_path("cycles")
    try:
        known = dict(read_json(place, manifests.Cycles)["shapes"])
    except (DamagedError, RunError):
        known = {}
    new = [architecture for key, architecture in every.items() if key not in known]
    with Progress("pricing networks", len(new), shown=progress) as bar, kept_threads():
        torch.set_num_threads(1)
        for architecture in new:
            try:
                known[architecture.key] = cycles(lowered(architecture))
            except LeanCNNError:
                known[architecture.key] = {}
            bar.to(bar.done + 1)
    if new:
        write_checked(place, {"shapes": known})
    return {key: known[key] for key in every if known[key]}


@cache
def _sources() -> str:
    """A digest of the sources that decide what the program of an architecture is."""
    found = sha256()
    house = Path(str(files("leancnn")))
    for path in sorted([*house.glob("compiler/*"), *house.glob("models/*"), house / "layers.py"]):
        if path.suffix in (".py", ".c", ".h"):
            found.update(path.read_bytes())
    return found.hexdigest()


def cache_path(kind: str, machine: str = "") -> Path:
    """Where a fit, or what was counted, is kept: one file for all that it depends on."""
    parts = [_sources(), torch.__version__]
    if machine:
        compiler = find_compiler()
        parts += [*FAST_FLAGS, *compiler.command, compiler.version, machine]
    key = sha256("\0".join(parts).encode()).hexdigest()[:20]
    return folder() / "native" / f"{kind}-{key}.json"
