"""What V8 is given of a layer's multiply-adds: it keeps the order in which WebAssembly has them."""

import re
from importlib.util import find_spec

import numpy as np
import pytest

from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import Conv, Reduce, empty, floats
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.narrow import narrow_tiles
from leancnn.targets import web
from leancnn.toolchain import cross_compile

pytestmark = [  # a first `zig cc` builds a C library: a minute and more
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("ziglang"), reason="needs ziglang"),
]
REGISTERS = 16
MULTIPLIES = ("f32x4.relaxed_madd", "f32x4.mul")


def alone(shape, outputs, window, stride, groups, layout):
    """The C of one convolution and a mean."""
    graph = empty(shape)
    weight = np.random.default_rng(0).standard_normal((outputs, shape[0] // groups, window, window))
    sides = (window // 2,) * 4
    op = Conv(floats(weight), floats(np.zeros(outputs)), (stride, stride), sides, (1, 1), groups)
    layer = graph.add(op, graph.input, name="layer")
    graph.output = graph.add(Reduce("mean", "pixels"), layer, name="mean")
    metadata = Metadata(
        name="alone",
        classes=tuple(map(str, range(outputs))),
        mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0],
    )
    return emit(schedule(lower(graph), narrow_tiles(graph, layout), layout), metadata).source


def loads_at_once(assembly):
    """The most vectors that are loaded one after the other before a product, in a straight line."""
    most = run = 0
    for line in assembly.splitlines():
        word = line.split()[0] if line.strip() else ""
        if re.match(r"v128\.load(32_splat)?$", word):
            run += 1
        elif word in MULTIPLIES:
            most, run = max(most, run), 0
        elif re.match(r"(loop|end_\w+|block|br\w*|v128\.store|\w+:)", word):
            run = 0
    return most


@pytest.mark.parametrize("level", ["simd", "relaxed"])
@pytest.mark.parametrize(
    "layer",
    [
        ((3, 56, 56), 16, 7, 2, 1, "planes"),
        ((16, 28, 28), 32, 3, 2, 1, "planes"),
        ((16, 30, 30), 16, 3, 1, 16, "planes"),
        ((24, 13, 13), 40, 1, 1, 1, "planes"),
        ((32, 14, 14), 32, 3, 1, 1, "blocked"),
        ((32, 14, 14), 32, 5, 1, 32, "blocked"),
        ((64, 7, 7), 96, 1, 1, 1, "blocked"),
    ],
)
def test_no_more_is_loaded_at_once_than_the_registers_hold(layer, level):
    """What is loaded far ahead of its product goes through the stack and back, sum by sum."""
    flags = ("-target", "wasm32-wasi", "-std=c11", "-O3", "-ffp-contract=fast", "-S")
    assembly = cross_compile(
        alone(*layer), name="alone", suffix=".s", flags=(*flags, *web.LEVELS[level])
    )
    assert 0 < loads_at_once(assembly.decode()) <= REGISTERS
