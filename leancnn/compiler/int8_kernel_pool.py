"""The largest byte of each window, as C on packed phases, or in plain loops on what is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_gaps import cleared
from leancnn.compiler.int8_kernel import Int8Kernel, Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_pack import as_they_lie, split
from leancnn.compiler.int8_layout import Plane, natural, order_of
from leancnn.compiler.int8_phases import PackedPhases, phase_offsets
from leancnn.compiler.int8_tiles import Quad
from leancnn.compiler.integers import QMaxPool, Quantized

POOL = """
LAYER @(uint32_t *s, int quads, int in, int to)
{
    static const int32_t taps[$many] = {$taps};
    for (int q = 0; q < quads; q++, in += $stride_in, to += $stride) {
        uint8_t *y = (uint8_t *)(s + to);
        memcpy(y, s + in + taps[0], $bytes);
        for (int i = 1; i < $many; i++) {
            const uint8_t *x = (const uint8_t *)(s + in + taps[i]);
            for (int p = 0; p < $bytes; p++) y[p] = x[p] > y[p] ? x[p] : y[p];
        }
    }
    $cleared
}
"""

IN_PLACE = """
LAYER @(uint32_t *s, int quads, const int32_t *in, int to)
{
    for (int q = 0; q < quads; q++, to += $stride)
        for (int y = 0; y < $high; y++)
            for (int x = 0; x < $wide; x++) {
                const int top = y * $down - $top, left = x * $across - $left;
                uint8_t most[4] = {0};
                for (int i = top < 0 ? 0 : top; i < top + $rows && i < $height; i++)
                    for (int j = left < 0 ? 0 : left; j < left + $columns && j < $width; j++) {
                        const uint8_t *byte = (const uint8_t *)(s + in[q] + i * $pitch_in + j);
                        for (int c = 0; c < 4; c++) most[c] = byte[c] > most[c] ? byte[c] : most[c];
                    }
                memcpy(s + to + y * $pitch + x, most, 4);
            }
    $cleared
}
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Pool(NodeKernel):
    """The largest byte of each window, from packed phases."""

    node: QMaxPool
    source: Plane
    phases: PackedPhases
    out: Plane
    takes = (QMaxPool,)

    @classmethod
    def lower(cls, node: QMaxPool, lowering: Lowering) -> None:
        if lowering.arena.small:
            PoolInPlace.lower(node, lowering)
            return
        shape = lowering.network.values[node.out].shape
        order = order_of(lowering.views[node.x]) or natural(shape[0])
        out = lowering.value(node.out, order)
        phases = lowering.phases(node, shape)
        source = split(lowering, node.x, order, phases, out, (0,) * (len(order) // 4))
        lowering.add(cls(node, source, phases, out))

    def reads(self) -> Sequence[Plane]:
        return [self.source]

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def c(self, file: File, network: Quantized) -> None:
        source, out, phases = self.source, self.out, self.phases
        rows, columns = self.node.kernel
        places = list(product(range(rows), range(columns)))
        taps = phase_offsets(phases.which, phases.stride, source, places)
        body = fill(
            POOL,
            many=len(taps),
            taps=", ".join(map(str, taps)),
            stride_in=source.stride,
            stride=out.stride,
            bytes=4 * out.line,
            cleared=cleared(out, "quads", f"to - quads * {out.stride}"),
        )
        name = file.function("largest", f"windows of {self.node.kernel}", body)
        file.calls.append(
            f"{name}(s, {out.quads}, {source.origin}, {out.origin}); /* {out.name} */"
        )


@dataclass(frozen=True, slots=True, eq=False)
class PoolInPlace(Int8Kernel):
    """The same without a copy, pixel by pixel."""

    node: QMaxPool
    quads: list[Quad]
    size: tuple[int, int]  # of what is read
    out: Plane

    @classmethod
    def lower(cls, node: QMaxPool, lowering: Lowering) -> None:
        """Add it, and say where the channels of its result lie."""
        view = lowering.views[node.x]
        order = order_of(view) or natural(len(view.places))
        view, quads = as_they_lie(lowering, node.x, order)
        out = lowering.value(node.out, order)
        lowering.add(cls(node, quads, (view.height, view.width), out))

    def reads(self) -> Sequence[Plane]:
        return [plane for plane, *_ in self.quads]

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def passed(self) -> Sequence[Plane]:
        once = len({quad[:2] for quad in self.quads}) == len(self.quads)
        return list(dict.fromkeys(self.reads())) if once else []

    def accesses(self) -> Accesses:
        """Window by window; what stands around the rows of the result is filled at the end."""
        found, out = Accesses(), self.out
        (rows, columns), (down, across) = self.node.kernel, self.node.stride
        top, left = self.node.padding[:2]
        y, x = (grid.ravel() for grid in np.mgrid[0 : out.height, 0 : out.width])
        high, wide = self.size
        for number, (plane, quad, first, begin) in enumerate(self.quads):
            base = quad * plane.stride + first * plane.pitch + begin
            times = np.arange(len(y)) + number * len(y)
            for i, j in product(range(rows), range(columns)):
                row, column = y * down - top + i, x * across - left + j
                inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
                words = row * plane.pitch + column + base
                found.reads(plane, words[inside], times[inside])
            found.writes(out, y * out.pitch + x + number * out.stride, times)
        if out.gap != (0, 0):
            words = np.arange(-out.below, out.quads * out.stride)
            found.writes(out, words, len(self.quads) * len(y))
        return found

    def c(self, file: File, network: Quantized) -> None:
        out, source, node = self.out, self.quads[0][0], self.node
        body = fill(
            IN_PLACE,
            stride=out.stride,
            pitch=out.pitch,
            high=out.height,
            wide=out.width,
            pitch_in=source.pitch,
            height=self.size[0],
            width=self.size[1],
            rows=node.kernel[0],
            columns=node.kernel[1],
            down=node.stride[0],
            across=node.stride[1],
            top=node.padding[0],
            left=node.padding[1],
            cleared=cleared(out, "quads", f"to - quads * {out.stride}"),
        )
        name = file.function("largest", f"windows of {node.kernel}", body)
        places = [
            plane.at(quad) + top * plane.pitch + left for plane, quad, top, left in self.quads
        ]
        reads = file.integers("quads", places)
        file.calls.append(f"{name}(s, {out.quads}, {reads}, {out.origin}); /* {out.name} */")
