"""How long compiled networks take on this machine, without compiling them.

A network is lowered to its program, and the compiler's own cost model says how many cycles each
kind of kernel takes in it (`compiler.cycles`). What a cycle of each kind is worth here is fitted to
programs that were built and timed on this machine, alone on a core. The fit is kept in the cache,
for this processor, C compiler and compiler of ours, and so are the cycles of each architecture.

The error that a model states is that on programs which it had not seen: each is predicted by a fit
to all others.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from leancnn import manifests
from leancnn.errors import DamagedError, MismatchError, RunError
from leancnn.safe_files import read_json, write_checked
from leancnn.search.programs import Cycles, cache_path, measured, predicted_cycles, price
from leancnn.search.remote import RemoteTimer
from leancnn.search.space import Architecture, choices, counted, searched
from leancnn.toolchain import find_compiler, processor

TRUSTED = 0.3  # median error up to which a model is kept: a quiet machine gives half of it
FEWEST = 8  # programs that a fit needs
PROGRAMS = 24  # that are timed for a fit
LARGEST = 300_000_000  # multiply-accumulates of a timed program
HEAVIEST = (
    4_000_000  # bytes of its weights: C of more is long at the compiler, and waits for memory
)
PLACES = (0.5, 0.0, 1.0, 0.3, 0.7)  # of a network's choices that are timed
SIDES = ((32, 32), (64, 64))  # of their images
RIDGE = 0.03  # how strongly a kind that few programs have is held to the average cycle
USUAL, ROBUST = 0.05, 8  # a relative error that is none to explain; rounds of the fit


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """What a cycle of each kind of kernel is worth, in microseconds, and how far to trust it.

    >>> model = LatencyModel({"conv": 0.001, "pool": 0.002}, 0.05, 0.2, programs=40, fastest=9e3)
    >>> model.predict({"conv": 50_000, "pool": 1_000})
    52.0
    """

    factors: Mapping[str, float]
    median_error: float
    """Of programs that a fit had not seen, relative; as `worst_error`."""
    worst_error: float
    programs: int
    """That were timed."""
    fastest: float
    """The most multiply-accumulates in a microsecond that one of them came to."""

    def predict(self, found: Cycles) -> float:
        """Microseconds for one image of a program of so many cycles."""
        return price(self.factors, found)

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
        """The model for people."""
        return (
            f"the latency model is fitted to {self.programs} programs timed here; on one that it "
            f"has not seen it errs by {self.median_error:.1%}, the median, and "
            f"{self.worst_error:.0%} at worst"
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
        relative.append(price(factors, found[at]) / microseconds[at] - 1)
    return np.array(relative)


def fit_model(
    some: Sequence[Architecture], found: Sequence[Cycles], microseconds: Sequence[float]
) -> LatencyModel:
    """A model fitted to timed programs, with its error."""
    off = np.abs(errors(found, microseconds))
    fastest = max(one.macs / us for one, us in zip(some, microseconds, strict=True))
    factors = fit(found, microseconds)
    return LatencyModel(factors, float(np.median(off)), float(off.max()), len(found), fastest)


def sample(many: int) -> list[Architecture]:
    """So many architectures, spread over networks and their arguments; the same each time."""
    picked: dict[str, Architecture] = {}
    for turn, place in enumerate(PLACES):
        for name in searched():
            able = choices(name)
            arguments = able[round(place * (len(able) - 1))]
            known: dict[str, Any] = {"arguments": arguments, "channels": 3, "classes": 10}
            plain = Architecture(network=name, size=(1, 1), macs=0, bytes=0, **known)
            for architecture in counted(plain, [SIDES[turn % len(SIDES)]]):
                if architecture.macs <= LARGEST and architecture.bytes <= HEAVIEST:
                    picked.setdefault(architecture.key, architecture)
            if len(picked) == many:
                return list(picked.values())
    return list(picked.values())


def load_or_fit(
    on: RemoteTimer | None = None, *, progress: bool = False, refit: bool = False
) -> LatencyModel:
    """The model of this machine, or that which `on` times, fitted now where none is kept, or
    `refit`.

    That takes a minute: programs are built on all cores, then timed on one. What a busy machine
    made useless is not kept, with a warning; the next call times the same programs again. Raises
    `MissingDependencyError` without a C compiler, `RunError` for a command that times nothing.
    """
    find_compiler()
    place = cache_path("latency-model", processor() if on is None else on.key)
    if not refit:
        with suppress(DamagedError, RunError, KeyError):
            kept = read_json(place, manifests.LatencyModel)
            model = LatencyModel(**{key: kept[key] for key in LatencyModel.__slots__})
            if model.median_error <= TRUSTED:
                return model
    some = sample(PROGRAMS)
    times = measured(some, on=on, progress=progress)
    table = predicted_cycles([one for one in some if one.key in times], progress=progress)
    if len(times) < FEWEST:
        raise MismatchError(
            f"only {len(times)} programs could be built and timed; no latency model can be fitted"
        )
    able = [one for one in some if one.key in times and one.key in table]
    model = fit_model(able, [table[one.key] for one in able], [times[one.key] for one in able])
    if model.median_error > TRUSTED:
        warnings.warn(
            f"times of programs make no sense together: predictions err by "
            f"{model.median_error:.0%}, the median; was the machine busy? The next call times "
            "them again",
            stacklevel=2,
        )
        return model
    write_checked(place, model.to_json())
    return model
