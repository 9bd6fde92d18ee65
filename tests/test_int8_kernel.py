"""Kinds of kernels of integers: each node becomes one, and memory is as they say."""

from itertools import permutations
from typing import get_args
from unittest.mock import patch

import pytest

from leancnn.compiler import int8_winograd
from leancnn.compiler.int8_kernel import KINDS, kind_of
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_verify import verify
from leancnn.compiler.integers import (
    QConcat,
    QConv,
    QCrop,
    QElementwise,
    QFloat,
    QGather,
    QNode,
    QQuantize,
    conv_shape,
    reads,
    writes,
)
from leancnn.errors import ProgramError, UnsupportedError
from tests.int8_nets import DepthwiseDrawn, Downsampled, Drawn, NormDrawn, drawn
from tests.test_int8_mixed import mixed

VIEWS = {QGather, QConcat, QCrop}
FAMILIES = {"usual": Drawn, "depthwise": DepthwiseDrawn, "strided": Downsampled, "norms": NormDrawn}
SEEDS = (3, 15, 24)


def programs():
    """Programs of every family, one of floats and integers among them."""
    for kind in FAMILIES.values():
        for seed in SEEDS:
            yield lower(drawn(seed, images=2, kind=kind)[1])
    for seed in SEEDS:
        yield lower(mixed(seed)[1])
    with patch.object(int8_winograd, "pays", lambda x, out: True):
        yield lower(drawn(SEEDS[0], images=2)[1])


@pytest.fixture(scope="module")
def known():
    return list(programs())


def test_every_node_is_a_view_a_layer_of_floats_or_some_kernel_s():
    taken = {node for kind in KINDS for node in kind.takes}
    assert taken | VIEWS | {QFloat} == set(get_args(QNode))
    assert not taken & (VIEWS | {QFloat})


def test_a_node_of_any_shape_becomes_one_kernel(known):
    for program in known:
        network = program.network
        for node in network.nodes:
            if isinstance(node, QConv | QElementwise):
                x = network.values[reads(node)[0]].shape
                out = conv_shape(node, x) if isinstance(node, QConv) else x
                assert kind_of(node, x, out) in KINDS


def test_a_node_that_nobody_takes_is_named():
    with pytest.raises(UnsupportedError, match=r"QGather of .* becomes no kernel of integers"):
        kind_of(QGather("x", "y", (0,)), (1, 2, 2), (1, 2, 2))


def test_every_plane_is_written_by_one_kernel_and_every_value_has_one(known):
    for program in known:
        planes = [plane for kernel in program.kernels for plane in kernel.writes()]
        assert len(set(planes)) == len(planes)
        image = [] if program.image is None else [program.image]
        assert set(program.arena.planes) == {*planes, *image}
        made = {plane.name for plane in planes}
        stored = {
            name
            for node in program.network.nodes
            if type(node) not in VIEWS | {QFloat}
            for name in writes(node)
            if not program.network.values[name].real
        }
        assert stored <= made


def test_every_kind_of_kernel_is_met_and_verified(known):
    met = set()
    for program in known:
        verify(program)
        met.update(type(kernel) for kernel in program.kernels)
    assert set(KINDS) - met <= {kind for kind in KINDS if QQuantize in kind.takes}


def both_needed(program):
    """Pairs of planes that live at one time, each apart from the other by right."""
    planes = [plane for plane in program.arena.planes if plane.born < plane.dies]
    reused = program.arena.reused
    for one, other in permutations(planes, 2):
        together = one.born < other.dies and other.born < one.dies
        if together and reused.get(one) is not other and reused.get(other) is not one:
            yield one, other


def test_a_plane_moved_over_another_that_is_still_read_is_refused(known):
    tried = 0
    for program in known:
        for one, other in both_needed(program):
            place = other.origin - other.below
            if place + one.size > program.arena.words:
                continue
            kept, one.origin = one.origin, place + one.below
            with pytest.raises(ProgramError, match="made a wrong program"):
                verify(program)
            one.origin, tried = kept, tried + 1
    assert tried > 100


def test_a_life_that_ends_before_the_last_reader_is_refused(known):
    for program in known:
        for plane in program.arena.planes:
            if plane.born < plane.dies < len(program.kernels):
                plane.dies -= 1
                with pytest.raises(ProgramError, match=r"outside its life|over"):
                    verify(program)
                plane.dies += 1


def test_padding_that_nobody_made_room_for_is_refused(known):
    program = next(p for p in known if any(plane.gap != (0, 0) for plane in p.arena.planes))
    gaps = {plane: plane.gap for plane in program.arena.planes}
    for plane in gaps:
        plane.gap = (0, 0)
    with pytest.raises(ProgramError, match="finds no padding around the rows"):
        verify(program)
    for plane, gap in gaps.items():
        plane.gap = gap
