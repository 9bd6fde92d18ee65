"""How long compiled networks take on this machine, without compiling them.

A network is lowered to its program, and the compiler's own cost model says how many cycles each
kind of kernel takes in it (`compiler.cycles`). What a cycle of each kind is worth here is fitted to
programs that were built and timed on this machine, alone on a core. The fit is kept in the cache,
for this processor, C compiler and compiler of ours, and so are the cycles of each shape.

The error that a clock states is that on programs which it had not seen: each is priced by a fit to
all others.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from leancnn import manifests
from leancnn.cache import folder
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.cycles import cycles
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import Schedule, schedule
from leancnn.compiler.simplify import simplify
from leancnn.errors import DamagedError, LeanCNNError, MismatchError, RunError
from leancnn.progress import Progress
from leancnn.safe_files import read_json, write_sealed
from leancnn.search.space import Shape, choices, counted, searched
from leancnn.timing import in_turns
from leancnn.toolchain import FAST_FLAGS, compile_library, find_compiler, processor

Cycles = Mapping[str, float]
FEWEST = 8  # programs that make a clock
PROGRAMS = 24  # that are timed for a fit
LARGEST = 300_000_000  # multiply-accumulates of a timed program
PLACES = (0.5, 0.0, 1.0, 0.3, 0.7)  # of a network's choices that are timed
SIDES = ((32, 32), (64, 64))  # of their images
TURNS, TURN_S = 7, 0.02
RIDGE = 0.03  # how strongly a kind that few programs have is held to the average cycle
USUAL, ROBUST = 0.05, 8  # a relative error that is none to explain; rounds of the fit


@dataclass(frozen=True, slots=True)
class Clock:
    """What a cycle of each kind of kernel is worth, in microseconds, and how far to trust it."""

    factors: Mapping[str, float]
    median_error: float
    """Of programs that a fit had not seen, relative; as `worst_error`."""
    worst_error: float
    programs: int
    """That were timed."""
    fastest: float
    """The most multiply-accumulates in a microsecond that one of them came to."""

    def price(self, found: Cycles) -> float:
        """Microseconds for one image."""
        return sum(self.factors.get(kind, 0.0) * cost for kind, cost in found.items())

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "factors": dict(self.factors),
            "median_error": round(self.median_error, 4),
            "worst_error": round(self.worst_error, 4),
            "programs": self.programs,
            "fastest": round(self.fastest, 1),
        }

    def __str__(self) -> str:
        """The clock for people."""
        return (
            f"the clock is fitted to {self.programs} programs timed here; on one that it has not "
            f"seen it errs by {self.median_error:.1%}, the median, and {self.worst_error:.0%} at "
            "worst"
        )


def fit(found: Sequence[Cycles], microseconds: Sequence[float]) -> dict[str, float]:
    """The worth of a cycle of each kind that explains the times best.

    Relative errors count squared up to `USUAL` and plainly from there on (Huber 1964), so that a
    program that was disturbed does not bend the rest. None is below zero. A kind that hardly any
    program has is worth about what all are together.
    """
    kinds = sorted({kind for one in found for kind in one})
    times = np.asarray(microseconds, np.float64)
    table = np.array([[one.get(kind, 0.0) for kind in kinds] for one in found])
    share = table / times[:, None]  # so that each row is to sum to 1
    counted = [kind not in ("kernels", "weights") for kind in kinds]
    usual = 1 / np.median(share[:, counted].sum(1))
    prior = np.where(counted, usual, 0.0)
    # in shares of a typical program's time, so that the ridge holds all kinds alike
    scale = np.maximum(share.mean(0), 1e-12)
    ridge = RIDGE * np.sqrt(len(times)) * np.eye(len(kinds))
    held = ridge @ (prior * scale)
    trust = np.ones(len(times))
    for _ in range(ROBUST):
        rows = np.vstack([trust[:, None] * share / scale, ridge])
        solution, _ = nnls(rows, np.concatenate([trust, held]))
        off = np.abs(share / scale @ solution - 1)
        trust = np.sqrt(np.minimum(1.0, USUAL / np.maximum(off, 1e-9)))
    return dict(zip(kinds, (solution / scale).tolist(), strict=True))


def errors(found: Sequence[Cycles], microseconds: Sequence[float]) -> NDArray[np.float64]:
    """Relative errors of each program by a fit to all others."""
    relative = []
    for at in range(len(found)):
        rest = [n for n in range(len(found)) if n != at]
        factors = fit([found[n] for n in rest], [microseconds[n] for n in rest])
        price = sum(factors.get(kind, 0.0) * cost for kind, cost in found[at].items())
        relative.append(price / microseconds[at] - 1)
    return np.array(relative)


def made(some: Sequence[Shape], found: Sequence[Cycles], microseconds: Sequence[float]) -> Clock:
    """A clock of timed programs, with its error."""
    apart = np.abs(errors(found, microseconds))
    fastest = max(one.macs / us for one, us in zip(some, microseconds, strict=True))
    factors = fit(found, microseconds)
    return Clock(factors, float(np.median(apart)), float(apart.max()), len(found), fastest)


def lowered(shape: Shape) -> Schedule:
    """The program of a shape. Raises `UnsupportedError`."""
    graph = import_torch(shape.build().eval(), (shape.channels, *shape.size))
    return schedule(lower(simplify(graph)))


def built(shape: Shape) -> Path:
    """The library of a shape with fresh weights. Raises as `lowered` and `compile_library`."""
    facts = Metadata(
        name="timed",
        classes=tuple(f"class {number}" for number in range(shape.classes)),
        mean=(0.5,) * shape.channels,
        std=(0.25,) * shape.channels,
    )
    return compile_library(emit(lowered(shape), facts).source, name="timed", flags=FAST_FLAGS)


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


def spread(many: int) -> list[Shape]:
    """So many shapes of the zoo, spread over networks and their arguments; the same each time."""
    picked: dict[str, Shape] = {}
    for turn, place in enumerate(PLACES):
        for name in searched():
            able = choices(name)
            arguments = able[round(place * (len(able) - 1))]
            known: dict[str, Any] = {"arguments": arguments, "channels": 3, "classes": 10}
            plain = Shape(network=name, size=(1, 1), macs=0, bytes=0, **known)
            for shape in counted(plain, [SIDES[turn % len(SIDES)]]):
                if shape.macs <= LARGEST:
                    picked.setdefault(shape.key, shape)
            if len(picked) == many:
                return list(picked.values())
    return list(picked.values())


def here(*, progress: bool = False) -> Clock:
    """The clock of this machine, fitted now where none is kept.

    That takes a minute or two: programs are built on all cores, then timed on one. Raises
    `MissingDependencyError` without a C compiler.
    """
    find_compiler()
    try:
        kept = read_json(_place("clock", processor()), manifests.Clock)
        return Clock(**{key: kept[key] for key in Clock.__slots__})
    except (DamagedError, RunError, KeyError):
        pass
    some = spread(PROGRAMS)
    table = priced_cycles(some, progress=progress)
    times = measured([one for one in some if one.key in table], progress=progress)
    if len(times) < FEWEST:
        raise MismatchError(f"only {len(times)} programs could be built here; no clock can be made")
    able = [one for one in some if one.key in times]
    clock = made(able, [table[one.key] for one in able], [times[one.key] for one in able])
    write_sealed(_place("clock", processor()), clock.to_json())
    return clock


def measured(some: Sequence[Shape], *, progress: bool = False) -> dict[str, float]:
    """By the key of a shape: microseconds of its program, built on all cores and timed on one.

    Without those that cannot be built.
    """
    paths = _each(_built, some, "building programs to time", progress)
    able = {shape.key: Path(path) for shape, path in zip(some, paths, strict=True) if path}
    return dict(zip(able, timed(list(able.values())), strict=True))


def priced_cycles(found: Iterable[Shape], *, progress: bool = False) -> dict[str, Cycles]:
    """By the key of a shape: cycles of each kind of kernel; without those that cannot be compiled.

    What was lowered once is kept in the cache.
    """
    every = {shape.key: shape for shape in found}
    place = _place("cycles")
    try:
        known = dict(read_json(place, manifests.Cycles)["shapes"])
    except (DamagedError, RunError):
        known = {}
    new = [shape for key, shape in every.items() if key not in known]
    for shape, cost in zip(new, _each(_cycles, new, "pricing networks", progress), strict=True):
        known[shape.key] = cost
    if new:
        write_sealed(place, {"shapes": known})
    return {key: known[key] for key in every if known[key]}


def _cycles(shape: Shape) -> dict[str, float]:
    """Of one shape; empty where it cannot be compiled. For another process."""
    torch.set_num_threads(1)
    try:
        return cycles(lowered(shape))
    except LeanCNNError:
        return {}


def _built(shape: Shape) -> str:
    """The path of its library; empty where it cannot be built. For another process."""
    torch.set_num_threads(1)
    try:
        return str(built(shape))
    except LeanCNNError:
        return ""


def _each(
    work: Callable[[Shape], Any], some: Sequence[Shape], title: str, shown: bool
) -> list[Any]:
    """The work on each shape, on all cores; in this process where there is little."""
    places = len(os.sched_getaffinity(0))
    with Progress(title, len(some), shown=shown) as bar:
        found = []
        if len(some) <= 2 or places == 1:
            results: Iterable[Any] = map(work, some)
            for result in results:
                found.append(result)
                bar.to(len(found))
            return found
        with ProcessPoolExecutor(places, mp_context=get_context("spawn")) as pool:
            for result in pool.map(work, some):
                found.append(result)
                bar.to(len(found))
        return found


@cache
def _sources() -> str:
    """A digest of the sources that decide what the program of a shape is."""
    found = sha256()
    house = Path(str(files("leancnn")))
    for path in sorted([*house.glob("compiler/*"), *house.glob("models/*"), house / "layers.py"]):
        if path.suffix in (".py", ".c", ".h"):
            found.update(path.read_bytes())
    return found.hexdigest()


def _place(kind: str, machine: str = "") -> Path:
    """Where a fit, or the cycles of shapes, are kept: one file for all that they depend on."""
    parts = [_sources(), torch.__version__]
    if machine:
        compiler = find_compiler()
        parts += [*FAST_FLAGS, *compiler.command, compiler.version, machine]
    key = sha256("\0".join(parts).encode()).hexdigest()[:20]
    return folder() / "native" / f"{kind}-{key}.json"
