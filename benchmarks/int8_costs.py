"""The constants of int8_tiles and int8_winograd, measured again: what products of bytes take here.

    python benchmarks/int8_costs.py latency    # LATENCY: products in a chain and without one
    python benchmarks/int8_costs.py loop       # LOOP: what a tap takes beside its products
    python benchmarks/int8_costs.py gather     # GATHER: quads as they lie, or copied first
    python benchmarks/int8_costs.py winograd   # int8_winograd: windows at points, or as they are

A cycle is what one product of vectors takes at the measured peak of this core. Each convolution of
a lowered program is compiled alone and called again and again; the least time counts. A core that
does other work meanwhile is slower than it says: run it alone.
"""

import argparse
import ctypes
import json
import statistics
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import torch
from kernel_costs import least

from leancnn.compiled import open_library
from leancnn.compiler import int8_tiles, int8_winograd
from leancnn.compiler.c_text import File
from leancnn.compiler.frame import template
from leancnn.compiler.graph import Conv, Gather, Graph, Reduce, empty, floats
from leancnn.compiler.int8_kernel import Int8Kernel, Int8Program
from leancnn.compiler.int8_kernel_pack import Pack
from leancnn.compiler.int8_kernel_tiled import Tiled
from leancnn.compiler.int8_kernel_winograd import Winograd
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_tiles import cost, waste
from leancnn.compiler.integers import QConv, Quantized
from leancnn.compiler.peak import IntegerPeak
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.toolchain import compile_library

CALLS = 50
TURNS = 5
SIZE = 32
DENSE = ((16, 16, 3), (24, 24, 3), (32, 32, 3), (64, 64, 3), (32, 64, 1), (128, 64, 1))
"""Channels read and made, and the side of the window."""
GROUPED = ((24, 4), (40, 4), (30, 3), (28, 4), (36, 4), (36, 6), (44, 4), (56, 8), (60, 4))
"""Channels and groups, of convolutions whose input a shuffle has mixed."""
WINDOWS = (
    *((8, 8, 32), (16, 16, 32), (32, 32, 16), (64, 64, 8)),  # ResNet's
    *((64, 256, 13), (32, 128, 27), (16, 64, 55)),  # SqueezeNet's
)
"""Channels read and made by a window of 3x3, and the side of the planes."""


def convolution(channels: int, outputs: int, side: int, groups: int = 1, size: int = SIZE) -> Graph:
    """A convolution of shuffled channels between a layer that makes them and a classifier."""
    random = np.random.default_rng(0)

    def conv(many: int, read: int, side: int, groups: int = 1) -> Conv:
        weight = random.normal(0, 0.2, (many, read // groups, side, side))
        return Conv(floats(weight), floats(np.zeros(many)), padding=(side // 2,) * 4, groups=groups)

    graph = empty((3, size, size))
    value = graph.add(conv(channels, 3, 1), graph.input, name="made")
    if groups > 1:
        mixed = np.arange(channels).reshape(groups, -1).T.ravel()
        value = graph.add(Gather(tuple(mixed.tolist())), value, name="shuffled")
    value = graph.add(conv(outputs, channels, side, groups), value, name="conv")
    value = graph.add(Reduce("mean", "pixels"), value, name="mean")
    graph.output = graph.add(conv(4, outputs, 1), value, name="logits")
    return graph


def quantized(graph: Graph) -> Quantized:
    """The same in integers."""
    shape = graph.shapes[graph.input]
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    return quantize(graph, measure(graph, [images]), (0.5,) * 3, (0.25,) * 3)


def lowered(graph: Graph) -> tuple[Int8Program, Tiled, list[Int8Kernel]]:
    """Its program of integers; the convolution under test, and what is copied for it before."""
    program = lower(quantized(graph), narrow=True)
    tiled = [kernel for kernel in program.kernels if isinstance(kernel, Tiled)]
    (conv,) = [one for one in tiled if isinstance(one.node, QConv) and one.name == "conv"]
    at = program.kernels.index(conv)
    before = program.kernels[at - 1]
    return program, conv, [before, conv] if isinstance(before, Pack) else [conv]


def seconds(program: Int8Program, kernels: Sequence[Int8Kernel]) -> float:
    """Of one call of some kernels of a program."""
    return least(calls(program, kernels), CALLS)


def calls(program: Int8Program, kernels: Sequence[Int8Kernel]) -> Callable[[], None]:
    """CALLS calls of some kernels of a program, compiled."""
    file = File("alone")
    for kernel in kernels:
        kernel.c(file, program.network)
    own = [name for kernel in kernels for name in kernel.preludes]
    preludes = [template(name) for name in ("int8_prelude.h", "int8_lines.h", *own)]
    loop = f"for (int i = 0; i < {CALLS}; i++) {{"
    run = ["void run(uint32_t *s)\n{", loop, *file.calls, "}\n}\n"]
    text = "\n".join([*preludes, *file.arrays, *file.functions, *run])
    library = open_library(compile_library(text, name="alone"))
    library.run.argtypes = [ctypes.c_void_p]
    room = np.random.default_rng(0).integers(0, 2**32, program.arena.words + 64, np.uint32)
    aligned = room[(-room.ctypes.data // 4) % 16 :]  # a cache line
    return lambda: library.run(aligned.ctypes.data)


def latency() -> dict[str, float]:
    """Cycles from a sum of products to the next."""
    return {"model": int8_tiles.LATENCY, "here": round(per_dot(1) / per_dot(), 2)}


def per_dot(independent: int | None = None) -> float:
    """Seconds of a product of vectors, into so many sums in turns."""
    peak = IntegerPeak() if independent is None else IntegerPeak(independent=independent)
    return statistics.median(least(peak, 1) for _ in range(3)) / peak.dots


def loops() -> dict[str, dict[str, float]]:
    """Cycles of each tap beside its products, with what the whole takes over its cost."""
    unit, lanes = per_dot(), IntegerPeak().lanes
    wide, block = (16, 0) if lanes == 16 else (8, int8_tiles.BLOCK)  # as tiles are fitted
    found = {}
    for channels, outputs, side in DENSE:
        program, conv, kernels = lowered(convolution(channels, outputs, side))
        taps, size = side * side, conv.shape[1:]
        cycles = seconds(program, kernels[-1:]) / unit * lanes / wide
        many = [(cut, cut.few if block else cut.many) for cut in conv.cuts]
        model, bare = (
            sum(cost(cut, n, size, taps, wide, block, loop=loop) for cut, n in many)
            for loop in (int8_tiles.LOOP, 0.0)
        )
        steps = (model - bare) / int8_tiles.LOOP  # of all loops
        found[f"{channels} to {outputs}, {side}x{side}"] = {
            "model": int8_tiles.LOOP,
            "here": round(int8_tiles.LOOP + (cycles - model) / steps, 2),
            "of cost": round(cycles / model, 2),
        }
    return found


def gather() -> dict[str, dict[str, float]]:
    """How much more is multiplied on quads as they lie, and how much longer that takes than a copy
    and the fewest products: from where on the second is above 1, the first is GATHER."""
    found = {}
    for channels, groups in GROUPED:
        graph = convolution(channels, channels, 3, groups)
        times, wastes = [], []
        for never_or_always in (1e9, 0.0):
            with patch.object(int8_tiles, "GATHER", never_or_always):
                program, conv, kernels = lowered(graph)
            assert isinstance(conv.node, QConv)
            times.append(seconds(program, kernels))
            wastes.append(waste(conv.cuts, conv.node))
        found[f"{channels} in {groups} groups"] = {
            "model": int8_tiles.GATHER,
            "products": round(wastes[0] / wastes[1], 2),
            "time": round(times[0] / times[1], 2),
        }
    return dict(sorted(found.items(), key=lambda item: item[1]["products"]))


def winograd() -> dict[str, dict[str, float]]:
    """How many times faster windows are at points, by the model and here; 1 with VNNI."""
    found = {}
    for channels, outputs, size in WINDOWS:
        graph = convolution(channels, outputs, 3, size=size)
        with patch.object(int8_winograd, "pays", lambda x, out: True):
            program = lower(quantized(graph))
            (at_points,) = [one for one in program.kernels if isinstance(one, Winograd)]
            ways = [calls(program, [at_points])]
            program, _, kernels = lowered(graph)
            ways.append(calls(program, kernels[-1:]))
        turns = [[least(way, CALLS) for way in ways] for _ in range(TURNS)]
        times, window = (min(turn[way] for turn in turns) for way in range(2))
        model = int8_winograd.gain((channels, size, size), (outputs, size, size))
        found[f"{channels} to {outputs} on {size}x{size}"] = {
            "model": round(model, 2),
            "here": round(window / times, 2),
            "microseconds": round(1e6 * times, 1),
        }
    return found


def main() -> None:
    """Measure, and print one line of JSON for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("latency", "loop", "gather", "winograd"))
    what = parser.parse_args().what
    if what == "latency":
        print(json.dumps({"latency": latency()}))
        return
    tables = {"loop": loops, "gather": gather, "winograd": winograd}
    for name, numbers in tables[what]().items():
        print(json.dumps({name: numbers}))


if __name__ == "__main__":
    main()
