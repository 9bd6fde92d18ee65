"""Every vector of a line is computed, whatever the width of vectors and the number of registers."""

import re

import numpy as np
import pytest
from torch import nn

from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.loops import likely_tiles, tiling
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.planar import PlanarKernel, vector_loops
from leancnn.compiler.simplify import simplify
from tests.compiler_nets import compiled, max_error, settled
from tests.few import few

FEW = [(16, 16), (8, 16), (4, 16), (1, 16)]  # lanes and registers
WIDTHS = [(16, 32), (8, 32), (4, 32), (1, 32), *FEW]
STEP = re.compile(r"for \(; p \+ (\d+) \* LANES <= END;")


def convolutions(channels, wide, size, *kinds):
    """A network of convolutions, each of a kernel's size and a stride."""
    kinds = kinds or ((3, 1),)
    body = nn.Sequential(
        *(
            nn.Conv2d(wide if number else channels, wide, kernel, stride, kernel // 2)
            for number, (kernel, stride) in enumerate(kinds)
        ),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(wide),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, 3),
    )
    return settled(body), (channels, *size)


def vectors_left_out(rows, vectors, lanes, registers, chunk):
    """How many of a line's vectors no loop reaches; a chunk ends where the line does."""
    active = [
        int(STEP.match(row)[1])
        for row, when in conditions(rows)
        if eval(when.replace("||", "or"), {"LANES": lanes, "REGISTERS": registers})
    ]
    each = chunk // lanes or vectors
    return sum(left(min(each, vectors - first), active) for first in range(0, vectors, each))


def conditions(rows):
    """Each loop and the preprocessor's condition above it."""
    when = "1"
    for row in rows:
        if row.startswith("#"):
            when = row.removeprefix("#if ") if row.startswith("#if") else "1"
        elif row:
            yield row, when


def left(vectors, sizes):
    for size in sizes:
        vectors %= size
    return vectors


@pytest.mark.parametrize("wide", few([1, 3, 8, 20]))
def test_the_loops_of_a_line_reach_every_vector(wide):
    seen = set()
    for size in ((5, 7), (9, 28), (20, 24), (31, 31)):
        for line in lines(*convolutions(6, wide, size, (1, 1), (3, 1), (3, 2))):
            length = line.height * line.out.pitch
            for tile in likely_tiles(line, 60):
                found = tiling(line, tile)
                seen.add((found.vectors, found.few, found.rest))
                sizes = {found.vectors, found.few, found.rest, 1} - {0}
                rows = vector_loops(found, sorted(sizes, reverse=True), "(s)", "END")
                for lanes, registers in WIDTHS:
                    vectors = -(-length // lanes)
                    case = (rows, vectors, lanes, registers, found.chunk)
                    assert not vectors_left_out(*case), (found, lanes, registers)
    assert len(seen) > 12


@pytest.mark.parametrize(
    ("lanes", "registers"),
    few(
        [pytest.param(*one, marks=[pytest.mark.slow] * (one not in FEW)) for one in WIDTHS],
        rows=True,
    ),
)
def test_a_vector_too_many_for_whole_tiles_is_computed_with_few_registers(lanes, registers):
    body, shape = convolutions(6, 6, (38, 38))
    assert any(p.rest == 1 < p.few for p in map(tiling, lines(body, shape)))
    noise = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    strict = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror")  # for any processor of this kind
    flags = (*strict, f"-DLANES={lanes}", f"-DREGISTERS={registers}")
    assert max_error(body, compiled(body, shape, flags), noise) < 1e-5


def lines(body, shape):
    program = lower(simplify(import_torch(body, shape)))
    schedule(program, layout="planes")
    return [kernel for kernel in program.kernels if isinstance(kernel, PlanarKernel)]
