"""Each byte by a table of 256, as C."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_gaps import cleared
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_pack import aligned
from leancnn.compiler.int8_layout import Plane, natural, order_of
from leancnn.compiler.integers import QLookup, Quantized

LOOKUP = """
LAYER @(uint32_t *s, int quads, const int32_t *in, int to, const uint8_t *table)
{
    for (int q = 0; q < quads; q++, to += $stride)
        for (int p = 0; p < $line; p++) {
            const uint32_t x = s[in[q] + p];
            s[to + p] = table[x & 255] | (uint32_t)table[x >> 8 & 255] << 8 |
                (uint32_t)table[x >> 16 & 255] << 16 |
                (uint32_t)table[x >> 24] << 24;
        }
    $cleared
}
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Lookup(NodeKernel):
    """Each byte of some planes by a table."""

    node: QLookup
    quads: list[tuple[Plane, int]]
    out: Plane
    takes = (QLookup,)

    @classmethod
    def lower(cls, node: QLookup, lowering: Lowering) -> None:
        channels = lowering.network.values[node.out].shape[0]
        order = order_of(lowering.views[node.x]) or natural(channels)
        quads = aligned(lowering, node.x, order)
        lowering.add(cls(node, quads, lowering.value(node.out, order)))

    def reads(self) -> Sequence[Plane]:
        return [plane for plane, _ in self.quads]

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        """Each word is read before it is written, in the same place."""
        old, new = self.quads[0][0], self.out
        size = (old.height, old.width, old.gap, old.quads, len(set(old.fill)))
        fits = size == (new.height, new.width, new.gap, new.quads, len(set(new.fill)))
        whole = [(old, n) for n in range(old.quads)] == self.quads
        free = old.dies == at and old not in reused.values()
        return (new, old) if fits and whole and free else None

    def c(self, file: File, network: Quantized) -> None:
        out = self.out
        words = [str(number) for number in self.node.table.tolist()]
        table = file.listed("uint8_t", f"{out.name}_table", words, 256)
        body = fill(
            LOOKUP,
            stride=out.stride,
            line=out.line,
            cleared=cleared(out, "quads", f"to - quads * {out.stride}"),
        )
        name = file.function("looked_up", "each byte by a table", body)
        reads = file.integers("quads", [plane.at(quad) for plane, quad in self.quads])
        file.calls.append(
            f"{name}(s, {out.quads}, {reads}, {out.origin}, {table}); /* {out.name} */"
        )
