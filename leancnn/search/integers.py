"""What architectures cost in 8-bit integers, so that a budget may be met which floats miss.

How much faster integers are depends on a processor's products of bytes and on the network, so one
program of each network is built and timed, and the times of its others are in proportion.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.search.budget import Candidate
from leancnn.search.programs import about, measured
from leancnn.search.remote import RemoteTimer
from leancnn.search.space import Architecture

IMAGES = 16  # drawn ones that set ranges: times do not depend on them
NEAR = 4.0  # times the limit: no integers were ever faster than floats by more


def integer_source(architecture: Architecture) -> str:
    """C of an architecture in integers, with fresh weights. Raises `UnsupportedError`."""
    image = (architecture.channels, *architecture.size)
    graph = simplify(trace_torch(architecture.build().eval(), image))
    drawn = torch.rand(IMAGES, *image, generator=torch.Generator().manual_seed(0))
    metadata = about(architecture)
    ranges = measure(graph, [(drawn - metadata.mean[0]) / metadata.std[0]])
    return emit_integers(quantize(graph, ranges, metadata.mean, metadata.std), metadata).source


def ratios(
    floats: Sequence[Candidate],
    limit: float,
    on: RemoteTimer | None = None,
    *,
    progress: bool = False,
) -> dict[str, float]:
    """By network: the time of its integers, measured, over that of its floats, as predicted.

    What is timed is the architecture that is nearest to twice the limit, in microseconds. Networks
    whose floats all meet it, or come nowhere near, are left out, and those that integers do not
    make faster.
    """
    near: dict[str, Candidate] = {}
    for one in sorted(floats, key=lambda one: abs(math.log(one.microseconds / (2 * limit)))):
        if 1 < one.microseconds / limit <= NEAR:
            near.setdefault(one.architecture.network, one)
    timed = [one.architecture for one in near.values()]
    times = measured(timed, integer_source, on, progress=progress)
    found = {
        name: times[one.architecture.key] / one.microseconds
        for name, one in near.items()
        if one.architecture.key in times
    }
    return {name: ratio for name, ratio in found.items() if ratio < 1}


def as_integers(floats: Sequence[Candidate], ratio: Mapping[str, float]) -> list[Candidate]:
    """The same architectures in integers; without a ratio they take as long as floats."""
    return [
        Candidate(
            one.architecture,
            one.microseconds * ratio.get(one.architecture.network, 1.0),
            "int8",
        )
        for one in floats
    ]
