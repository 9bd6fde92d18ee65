"""Strided convolutions: taps that pick every second float, or rows dealt out, answer alike."""

import numpy as np
import pytest
from torch import nn

from leancnn import models
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.loops import picks
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.planar import PlanarKernel
from leancnn.compiler.simplify import simplify
from tests.compiler_nets import compiled, laid, max_error, settled
from tests.few import few


def picked(module, shape):
    """Whether each strided convolution of a network picks."""
    program = lower(simplify(import_torch(module, shape)))
    schedule(program, layout="planes")
    lines = [kernel for kernel in program.kernels if isinstance(kernel, PlanarKernel)]
    return [picks(kernel) for kernel in lines if kernel.op and kernel.op.stride == (2, 2)]


def strided(*convolutions):
    """Convolutions of stride 2 with a ReLU each, and a classifier."""
    layers = [layer for conv in convolutions for layer in (conv, nn.ReLU())]
    last = convolutions[-1].out_channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 4)]
    return settled(nn.Sequential(*layers, *head))


NETWORKS = {
    "rows of one vector, then of half": (
        strided(nn.Conv2d(2, 8, 3, 2), nn.Conv2d(8, 12, 3, 2, groups=2)),
        (2, 31, 31),
        [True, True],
    ),
    "padding": (strided(nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 3, 3, 2, 1)), (3, 30, 30), [1, 0]),
    "a wide kernel": (strided(nn.Conv2d(1, 20, 5, 2, 2)), (1, 9, 28), [True]),
    "dilation": (strided(nn.Conv2d(2, 3, 3, 2, 2, 2)), (2, 9, 27), [True]),
    "rows of two vectors": (strided(nn.Conv2d(2, 3, (2, 3), 2)), (2, 8, 63), [True]),
    "one pixel wide": (strided(nn.Conv2d(4, 6, 1, 2)), (4, 15, 15), [True]),
    "one pixel wide, three high": (strided(nn.Conv2d(2, 3, (3, 1), 2)), (2, 8, 8), [False]),
    "rows of any length": (strided(nn.Conv2d(2, 3, 3, 2, 1)), (2, 12, 20), [False]),
    "other strides": (strided(nn.Conv2d(2, 3, 3, (2, 1), 1)), (2, 9, 15), []),
}


def noise(shape):
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", few(NETWORKS))
def test_a_tap_picks_where_half_a_vector_stays_in_its_row(name):
    body, shape, expected = NETWORKS[name]
    assert picked(body, shape) == expected
    assert max_error(body, compiled(body, shape), noise(shape)) < 1e-5


@pytest.mark.parametrize("lanes", few([1, 4, 8]))
def test_narrower_vectors_answer_alike(lanes):
    body, shape, _ = NETWORKS["rows of one vector, then of half"]
    flags = ("-march=native", f"-DLANES={lanes}", "-DREGISTERS=16", "-Wall", "-Wextra", "-Werror")
    assert max_error(body, compiled(body, shape, ("-std=c11", "-O1", *flags)), noise(shape)) < 1e-5


@pytest.mark.parametrize("name", ["rows of two vectors", "dilation", "a wide kernel"])
def test_tiles_for_few_registers_answer_alike_inside_a_row_and_across(name):
    body, shape, _ = NETWORKS[name]
    flags = ("-std=c11", "-O1", "-march=native", "-DLANES=4", "-DREGISTERS=16", "-Wall", "-Werror")
    assert max_error(body, laid(body, shape, "planes", flags, True), noise(shape)) < 1e-5


@pytest.mark.long
def test_henet_deals_out_only_its_smallest_rows():
    assert picked(models.create_model("henet_r3"), (3, 31, 31)) == [True, True, False]
