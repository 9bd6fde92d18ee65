"""How plain loops go over the tiles of a convolution of quads: which word is read and written when.

The order is that of the C in int8_kernel_tiled.py: tile by tile, along the line of an output's
pixels some at a time, and of these quad by quad; what stands around the rows of a tile's outputs is
filled behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_epilogue import Operands
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_tiles import Tiling
from leancnn.compiler.integers import Add, Array, Gate, Store


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the pixels of a window lie for each of the outputs: these apart, in rows so long."""

    down: int
    across: int


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A kernel's outputs and what they read: `taps` words from a place to those of its window."""

    operands: Operands
    cuts: Sequence[Tiling]
    taps: Sequence[int]
    steps: Steps | None  # None: where the outputs lie
    many: Sequence[int]  # pixels at a time, of each cut

    @property
    def out(self) -> Plane:
        return next(iter(self.operands.outs.values()))

    def accesses(self) -> Accesses:
        """All of them."""
        found, clock, first = Accesses(), 0, 0
        for cut, many in zip(self.cuts, self.many, strict=True):
            line = _Line.of(self.out, many, 1 + many * len(self.operands.ops), cut.quads)
            for tile in range(len(cut.reads)):
                for view in self.operands.gates.values():
                    for plane in view.planes:
                        found.reads(plane, np.arange(plane.size - plane.below), clock)
                for block in range(cut.quads):
                    self._products(found, line, clock, cut, tile, block)
                    self._epilogue(found, line, clock + block * line.unit + 1, first + block)
                clock += line.ticks
                for quad in range(first, first + cut.quads):
                    self._gaps(found, clock, quad)
                first, clock = first + cut.quads, clock + 1
        return found

    def beyond(self) -> dict[Plane, int]:
        """Of each plane that is read, the end of its words that are, where results are nobody's
        included."""
        far = int(self._sources(np.arange(self.out.line)).max()) + max(self.taps, default=0) + 1
        found: dict[Plane, int] = {}
        for cut in self.cuts:
            for plane, quad, top, left in {q for t in cut.reads for part in t for q in part}:
                end = quad * plane.stride + top * plane.pitch + left + far
                found[plane] = max(found.get(plane, 0), end)
        return found

    def _sources(self, places: Array) -> Array:
        """Where the windows of outputs lie that lie there."""
        if self.steps is None:
            return places
        pitch = self.out.pitch
        return np.asarray(places // pitch * self.steps.down + places % pitch * self.steps.across)

    def _products(
        self, found: Accesses, line: "_Line", clock: int, cut: Tiling, tile: int, block: int
    ) -> None:
        """What the sums of a quad of outputs read, for pixels that somebody wants."""
        wanted = self._sources(line.places[line.inside])
        times = clock + block * line.unit + line.times[line.inside]
        for part in sorted(set(cut.pattern[4 * block : 4 * block + 4])) if cut.depth else ():
            for plane, quad, top, left in dict.fromkeys(cut.reads[tile][part]):
                base = quad * plane.stride + top * plane.pitch + left
                for tap in self.taps:
                    found.reads(plane, wanted + (base + tap), times)

    def _epilogue(self, found: Accesses, line: "_Line", clock: int, quad: int) -> None:
        """What an epilogue reads beside, and stores."""
        operands = self.operands
        times = clock + line.times + line.turns * len(operands.ops)
        for at, op in enumerate(operands.ops):
            if isinstance(op, Add | Gate):
                plane, place = operands.others[op.value][quad]
                words = line.places[line.inside] + place * plane.stride
                found.reads(plane, words, times[line.inside] + at)
            if isinstance(op, Store):
                plane = operands.outs[op.value]
                found.writes(plane, line.places + quad * plane.stride, times + at)

    def _gaps(self, found: Accesses, clock: int, quad: int) -> None:
        """What is filled around the rows of a quad behind its tile."""
        for plane in self.operands.outs.values():
            if plane.gap == (0, 0):
                continue
            words = np.arange(plane.stride)
            around = words[(words >= plane.line) | (words % plane.pitch >= plane.width)]
            found.writes(plane, around + quad * plane.stride, clock)
            if quad == 0:
                found.writes(plane, np.arange(-plane.below, 0), clock)


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The pixels of an output in the order in which they are computed."""

    places: Array
    inside: Array  # whether a pixel is one of the image's, and not between its rows
    times: Array  # when its first quad of sums begins
    turns: Array  # which of the pixels of its step it is
    unit: int  # ticks of a step of one quad
    ticks: int  # and of all

    @classmethod
    def of(cls, out: Plane, many: int, unit: int, blocks: int) -> "_Line":
        by_rows = many % out.width == 0  # BY_ROWS of one lane
        count = out.height * out.width if by_rows else out.line
        number = np.arange(count)
        whole = count // many
        steps = np.where(number < whole * many, number // many, number - whole * many + whole)
        turns = np.where(number < whole * many, number % many, 0)
        places = number // out.width * out.pitch + number % out.width if by_rows else number
        inside = places % out.pitch < out.width
        ticks = (int(steps[-1]) + 1) * blocks * unit
        return cls(places, inside, steps * blocks * unit, turns, unit, ticks)
