"""All pixels of each channel as one sum, as C."""

from collections.abc import Sequence
from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_layout import ChannelView, Place, Plane, quads_of
from leancnn.compiler.integers import QGlobalSum, Quantized

TOTAL = """
LAYER @(uint32_t *s, int quads, const int32_t *at, const int32_t *zero)
{
    for (int q = 0; q < quads; q++, at += 5, zero += 4) {
        uint32_t a = 0, b = 0, c = 0, d = 0;
        for (int y = 0; y < $height; y++) {
            const uint32_t *row = s + at[0] + y * $pitch;
            for (int x = 0; x < $width; x++) {
                a += row[x] & 255, b += row[x] >> 8 & 255;
                c += row[x] >> 16 & 255, d += row[x] >> 24;
            }
        }
        if (at[1] >= 0) s[at[1]] = a - (uint32_t)zero[0];
        if (at[2] >= 0) s[at[2]] = b - (uint32_t)zero[1];
        if (at[3] >= 0) s[at[3]] = c - (uint32_t)zero[2];
        if (at[4] >= 0) s[at[4]] = d - (uint32_t)zero[3];
    }
}
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class GlobalSum(NodeKernel):
    """All pixels of each channel as a sum."""

    x: ChannelView
    zero: tuple[int, ...]
    out: Plane
    takes = (QGlobalSum,)

    @classmethod
    def lower(cls, node: QGlobalSum, lowering: Lowering) -> None:
        zero = lowering.network.values[node.x].zero.tolist()
        seen = lowering.views[node.x]
        once = {place: c for c, place in reversed(list(enumerate(seen.places)))}
        kept = sorted(once.values())  # a channel that is seen twice is summed once
        sums = lowering.sums(node.out, len(kept))
        found = {seen.places[c]: Place(sums, at, -1) for at, c in enumerate(kept)}
        lowering.views[node.out] = ChannelView(tuple(found[place] for place in seen.places), 1, 1)
        view = ChannelView(tuple(seen.places[c] for c in kept), seen.height, seen.width)
        lowering.add(cls(view, tuple(zero[c] for c in kept), sums))

    def reads(self) -> Sequence[Plane]:
        return self.x.planes

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def c(self, file: File, network: Quantized) -> None:
        view = self.x
        quads = quads_of(view.places)
        table: list[int] = []
        zeros: list[int] = []
        channels_at = {
            (p.plane, p.quad, p.top, p.left, p.lane): c for c, p in enumerate(view.places)
        }
        for plane, quad, top, left in quads:
            table.append(plane.at(quad) + top * plane.pitch + left)
            for lane in range(4):
                channel = channels_at.get((plane, quad, top, left, lane))
                table.append(-1 if channel is None else self.out.origin + channel)
                zero = 0 if channel is None else self.zero[channel]
                zeros.append(view.height * view.width * zero)
        pitch, (high, wide) = view.places[0].plane.pitch, (view.height, view.width)
        if all(p.plane.pitch == wide for p in view.places):  # rows without a gap are one
            high, wide = 1, high * wide
        body = fill(TOTAL, height=high, width=wide, pitch=pitch)
        name = file.function("total", "all pixels of each channel", body)
        tables = file.integers("sums", table), file.integers("zeros", zeros)
        file.calls.append(
            f"{name}(s, {len(quads)}, {tables[0]}, {tables[1]}); /* {self.out.name} */"
        )
