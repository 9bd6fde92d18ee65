"""The largest byte of each window, as C on packed phases."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_gaps import cleared
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_pack import split
from leancnn.compiler.int8_layout import Plane, natural, order_of
from leancnn.compiler.int8_phases import PackedPhases, phase_offsets
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
