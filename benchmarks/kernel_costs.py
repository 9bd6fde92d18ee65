"""The constants of the cost models, measured again: what kernels take here, one by one.

    python benchmarks/kernel_costs.py activations     # epilogue.CYCLES
    python benchmarks/kernel_costs.py layouts         # layout.TO_BLOCKED, TO_PLANES, NARROW
    python benchmarks/kernel_costs.py dense           # kernel_dense.cost
    python benchmarks/kernel_costs.py kinds resnet20  # all others: each kind against its model

A cycle is what 32 multiply-adds take at the measured peak of this core, so that a core without
vectors of 16 is measured by the same model; the models were fitted on one with AVX-512. Each kernel
of a planned program is compiled alone and called again and again; the least time counts. A core
that does other work meanwhile is slower than it says: run it alone.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Iterator

import numpy as np

from leancnn import models
from leancnn.compiled import open_library
from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File
from leancnn.compiler.epilogue import CYCLES
from leancnn.compiler.frame import template
from leancnn.compiler.graph import Activation, Affine, Conv, Graph, Reduce, empty, floats
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.kernel import Kernel
from leancnn.compiler.kernel_dense import DenseKernel
from leancnn.compiler.kernel_elementwise import ElementwiseKernel
from leancnn.compiler.kernel_layout import LayoutKernel
from leancnn.compiler.layout import NARROW, TO_BLOCKED, TO_PLANES
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import Schedule, schedule
from leancnn.compiler.peak import Peak
from leancnn.compiler.simplify import simplify
from leancnn.compiler.tiles import tile_macros
from leancnn.toolchain import compile_library

TURNS = 15
SECONDS = 0.01  # of a turn
MACS = 32  # of a cycle
LONG = 100_000  # cycles of one call from Python, at least
CHANNELS, SIZE = 32, 28  # of the images on which single numbers are measured
DENSE = (
    (16, 4),
    (4, 16),
    (64, 10),
    (96, 24),
    (24, 96),
    (192, 10),
    (256, 10),
    (512, 100),
    (1024, 1000),
)


def least(run, calls: int) -> float:
    """Seconds of one of so many calls that `run` makes, the least of the turns."""
    best = float("inf")
    for _ in range(TURNS):
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            before = time.perf_counter()
            run()
            best = min(best, (time.perf_counter() - before) / calls)
    return best


def cycle() -> float:
    """Seconds of a cycle here."""
    peak = Peak()
    return least(peak, 1) / peak.macs * MACS


def alone(kernel: Kernel, planned: Schedule, calls: int):
    """A function that calls one kernel of a planned program so many times."""
    file = File("alone", dump=planned.program.arena)
    kernel.c(file, planned.plans[kernel])
    prelude = template("prelude.h")
    lines = [f"    for (int i = 0; i < {calls}; i++) {{", *file.calls, "    }"]
    parts = [prelude, tile_macros(file.tiles), *file.arrays, *file.functions]
    text = "\n".join([*parts, "void run(float *s)\n{", *lines, "}\n"])
    run = open_library(compile_library(text, name="alone")).run
    run.argtypes = [ctypes.c_void_p]
    widest = max(buffer.stride for buffer in planned.program.buffers)
    arena = np.random.default_rng(0).uniform(0.1, 1, planned.program.arena + widest + 128)
    arena = arena.astype(np.float32)
    aligned = arena[(-arena.ctypes.data // 4) % 16 :]  # a cache line
    place = ctypes.c_void_p(aligned.ctypes.data)
    return lambda keep=aligned: run(place)


def cycles(kernel: Kernel, planned: Schedule, unit: float) -> float:
    """Of one call of a kernel; called so often that calling it from Python costs nothing."""
    calls = max(20, int(LONG / max(kernel.cost(), 1)))
    return least(alone(kernel, planned, calls), calls) / unit


def elementwise(*ops) -> tuple[Kernel, Schedule]:
    """A kernel of nothing but element-wise operators."""
    graph = empty((CHANNELS, SIZE, SIZE))
    value = graph.input
    for op in ops:
        value = graph.add(op, value, name="elementwise")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
    planned = schedule(lower(graph), layout="planes")
    (kernel,) = (k for k in planned.program.kernels if isinstance(k, ElementwiseKernel))
    return kernel, planned


def activations(unit: float) -> dict[str, dict[str, float]]:
    """Cycles of each activation on a vector of 16, beside what the model has."""
    scale = Affine(floats(np.full(CHANNELS, 1.5)), floats(np.full(CHANNELS, 0.5)))
    plain = cycles(*elementwise(scale), unit)
    found = {}
    for kind, model in CYCLES.items():
        bent = Activation(kind, *((0.0, 6.0) if kind == "clip" else (0.3,)))
        kernel, planned = elementwise(scale, bent)
        vectors = CHANNELS * -(-SIZE * kernel.out.pitch // WIDEST)
        here = (cycles(kernel, planned, unit) - plain) / vectors
        found[kind] = {"model": model, "here": round(here, 1)}
    return found


def layouts(unit: float) -> dict[str, dict[str, float]]:
    """Cycles of moving one number from a layout to the other, beside what the model has."""
    found = {}
    cases = (("to blocked", SIZE, TO_BLOCKED), ("to planes", SIZE, TO_PLANES))
    for name, size, model in (*cases, ("to planes, narrow", 7, NARROW)):
        graph = empty((CHANNELS, size, size))
        points, shift = floats(np.ones((CHANNELS, CHANNELS, 1, 1))), floats(np.zeros(CHANNELS))
        value = graph.add(Conv(points, shift), graph.input, name="conv")
        wide = floats(np.ones((CHANNELS, 2, 5, 5)))
        grouped = Conv(wide, shift, padding=(2, 2, 2, 2), groups=CHANNELS // 2)
        value = graph.add(grouped, value, name="grouped")  # which only lines have
        graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
        planned = schedule(lower(graph), layout="blocked")
        copies = [k for k in planned.program.kernels if isinstance(k, LayoutKernel)]
        (kernel,) = (k for k in copies if k.out.blocked == (name == "to blocked"))
        here = cycles(kernel, planned, unit) / (CHANNELS * size * size)
        found[name] = {"model": model, "here": round(here, 2)}
    return found


def dense(unit: float) -> dict[str, dict[str, float]]:
    """Cycles of matrices by vectors, beside what the model has."""
    found = {}
    for inputs, outputs in DENSE:
        graph = empty((inputs, 2, 2))
        value = graph.add(Reduce("mean", "pixels"), graph.input, name="mean")
        weight = floats(np.full((outputs, inputs, 1, 1), 0.1))
        graph.output = graph.add(Conv(weight, floats(np.zeros(outputs))), value, name="dense")
        planned = schedule(lower(graph), layout="planes")
        (kernel,) = (k for k in planned.program.kernels if isinstance(k, DenseKernel))
        here = cycles(kernel, planned, unit)
        found[f"{inputs} to {outputs}"] = {"model": round(kernel.cost()), "here": round(here)}
    return found


def network(name: str) -> Graph:
    """The simplified graph of one of our networks."""
    return simplify(import_torch(models.create_model(name).eval(), models.card(name).image))


def ratios(graph: Graph, unit: float) -> Iterator[tuple[str, float]]:
    """What each kernel does, and its cycles over those of the model, in each layout."""
    for layout in ("planes", "blocked"):
        planned = schedule(lower(graph), layout=layout)
        kinds = {(k.role, k.shape, k.x.shape, k.tile_key): k for k in planned.program.kernels}
        for kernel in kinds.values():
            yield kernel.role, cycles(kernel, planned, unit) / kernel.cost()


def kinds(names: list[str], unit: float) -> dict[str, dict[str, float]]:
    """By what kernels do: how many shapes were timed, and quartiles of cycles over the model's."""
    found: dict[str, list[float]] = {}
    for name in names:
        for role, ratio in ratios(network(name), unit):
            found.setdefault(role, []).append(ratio)
    quartiles = (("low", 0.25), ("median", 0.5), ("high", 0.75))
    return {
        role: {
            "shapes": len(all_),
            **{word: np.quantile(all_, q).round(2) for word, q in quartiles},
        }
        for role, all_ in sorted(found.items())
    }


def main() -> None:
    """Measure, and print one line of JSON for each constant or kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("activations", "layouts", "dense", "kinds"))
    parser.add_argument("networks", nargs="*", default=["henet_r3", "resnet20"], metavar="NETWORK")
    args = parser.parse_args()
    unit = statistics.median(cycle() for _ in range(3))
    print(json.dumps({"cycle_ns": round(unit * 1e9, 3)}))
    measures = {"activations": activations, "layouts": layouts, "dense": dense}
    whole = kinds(args.networks, unit) if args.what == "kinds" else measures[args.what](unit)
    for name, numbers in whole.items():
        print(json.dumps({name: numbers}, default=float))


if __name__ == "__main__":
    main()
