"""A quantized network to kernels on planes of quads, every plane in its place."""

from leancnn.compiler.arena import round_up
from leancnn.compiler.int8_kernel import Int8Program, Lowering, kind_of
from leancnn.compiler.int8_kernel_pack import uncropped
from leancnn.compiler.int8_layout import ChannelView, Place
from leancnn.compiler.int8_overlaps import overlap
from leancnn.compiler.integers import (
    QConcat,
    QCrop,
    QFloat,
    QGather,
    QNode,
    Quantized,
    reads,
)
from leancnn.errors import UnsupportedError
from leancnn.registry import import_members

import_members("leancnn.compiler", "int8_kernel_")


def lower(network: Quantized, *, small: bool = False, narrow: bool = False) -> Int8Program:
    """Kernels for a quantized network, with every plane in its place; `small`: of plain loops, in
    the least memory; `narrow`: of those that short vectors have.

    Raises `UnsupportedError` for an answer that is no vector.
    """
    lowering = Lowering(network, small=small, narrow=narrow)
    for node in network.nodes:
        _node(node, lowering)
    program = lowering.program
    if network.mixed:
        program.floats = lowering.floats.finished(network.output)
    program.answer = lowering.views.get(network.output)
    if network.values[network.output].shape[1:] != (1, 1):
        raise UnsupportedError("the compiler takes classifiers, whose answer is one vector")
    _lives(program)
    if small:
        overlap(program, lambda: _sizes(lowering))
    else:
        _sizes(lowering)
        program.arena.place()
    return program


def _sizes(lowering: Lowering) -> None:
    """How large each plane is, and how far apart its rows and quads are."""
    lowering.program.arena.pitches(lowering.reaches)
    lowering.place_phases()
    for kernel in lowering.program.kernels:
        for plane, words in kernel.scratch_words().items():
            plane.size = round_up(words)


def _node(node: QNode, lowering: Lowering) -> None:
    """One node: a view of what is there, a layer of floats, or kernels."""
    match node:
        case QGather() | QConcat() | QCrop():
            lowering.views[node.out] = _viewed(node, lowering)
        case QFloat():
            lowering.floats.layer(node)
        case _:
            x = lowering.network.values[reads(node)[0]].shape
            kind_of(node, x, lowering.shape(node)).lower(node, lowering)


def _viewed(node: QGather | QConcat | QCrop, lowering: Lowering) -> ChannelView:
    """Where the channels lie of a node that only picks some that are there."""
    match node:
        case QGather(x, _, channels):
            seen = lowering.views[x]
            places = tuple(seen.places[c] for c in channels)
            return ChannelView(places, seen.height, seen.width)
        case QConcat(xs):
            parts = [lowering.views[x] for x in xs]
            if len({(p.height, p.width) for part in parts for p in part.planes}) > 1:
                parts = [uncropped(lowering, x) for x in xs]
            places = tuple(place for part in parts for place in part.places)
            return ChannelView(places, parts[0].height, parts[0].width)
        case QCrop(x, out, top, left):
            _, h, w = lowering.network.values[out].shape
            places = tuple(
                Place(p.plane, p.quad, p.lane, p.top + top, p.left + left)
                for p in lowering.views[x].places
            )
            return ChannelView(places, h, w)


def _lives(program: Int8Program) -> None:
    """When each plane is made and last read, and which may take the place of one that ends."""
    for at, kernel in enumerate(program.kernels):
        for plane in kernel.writes():
            plane.born = plane.dies = at
        for plane in kernel.reads():
            plane.dies = at
    if program.image is not None:
        program.image.born = -1
    for plane in program.answer.planes if program.answer is not None else ():
        plane.dies = len(program.kernels)
    reused = program.arena.reused
    for at, kernel in enumerate(program.kernels):
        pair = kernel.in_place(at, reused)
        if pair is not None:
            reused[pair[0]] = pair[1]
