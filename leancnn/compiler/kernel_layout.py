"""The same pixels laid out otherwise: planes, or sixteen channels of a pixel side by side.

The table holds the place of each channel, how far its rows and how far its pixels are apart, filled
up with the last channel to whole vectors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.kernel import InputLayout, Kernel, Plan

ONE_BY_ONE = """
    for (int b = 0; b < $channels; b += 16)
        for (int r = 0; r < $height; r++)
            for (int c = b; c < b + 16 && c < $channels; c++) {
                const float *from = s + t[3 * c] + r * t[3 * c + 1];
                const int step = t[3 * c + 2];
                float *to = y + $target + r * $pitch;
                for (int i = 0; i < $width; i++)
                    to[i * $step] = from[i * step];
            }
"""
TO_BLOCKED = """
    for (int b = 0; b < $channels; b += LANES)
        for (int r = 0; r < $height; r++)
            for (int c = 0; c < $width; c += LANES) {
                const int p = c + LANES > $width && c ? $width - LANES : c;
                vf x[LANES];
                for (int i = 0; i < LANES; i++) {
                    const int32_t *u = t + 3 * (b + i);
                    x[i] = load(s + u[0] + r * u[1] + p);
                }
                transpose(x);
                float *z = y + b / 16 * $stride + b % 16 + r * $pitch + p * 16;
                for (int i = 0; i < LANES && i < $width; i++) store(z + i * 16, x[i]);
            }
"""
TO_PLANES = """
#if LANES <= $width
    for (int b = 0; b < $channels; b += LANES)
        for (int r = 0; r < $height; r++)
            for (int c = 0; c < $width; c += LANES) {
                const int p = c + LANES > $width ? $width - LANES : c;
                vf x[LANES];
                const float *from = s + t[3 * b] + r * t[3 * b + 1] + p * 16;
                for (int i = 0; i < LANES; i++) x[i] = load(from + i * 16);
                transpose(x);
                for (int i = 0; i < LANES && b + i < $channels; i++)
                    store(y + (b + i) * $stride + r * $pitch + p, x[i]);
            }
#else
$one_by_one
#endif
"""


@dataclass(frozen=True, slots=True, eq=False)
class LayoutKernel(Kernel):
    """Every pixel copied from one layout to the other; `layout` puts it where they meet."""

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        return None

    def faults(self) -> Iterator[str]:
        """Its table knows each channel."""
        if self.out.vector:
            yield "turns a vector"

    def c(self, file: File, plan: Plan) -> None:
        out = self.out
        body = f"LAYER @(const float *s, const int32_t *t, float *y)\n{{\n{self._loops()}\n}}"
        how = "channels in blocks" if out.blocked else "planes"
        comment = f"{self.name}: {out.channels}x{out.height}x{out.width} to {how}"
        name = file.function(self.name, comment, body)
        table = []
        for place, (buffer, _) in zip(self.x.places(), self.x.planes, strict=True):
            table += [place, buffer.pitch, buffer.step]
        table += table[-3:] * (-len(self.x.planes) % WIDEST)
        places = file.integers(f"{self.name}_places", table)
        file.clear(out)
        file.calls.append(f"{name}(s, {places}, s + {out.origin});")

    def _loops(self) -> str:
        """Squares of LANES channels × LANES pixels, where all lie in the other layout."""
        x, out = self.x, self.out
        sizes = {
            "channels": out.channels,
            "height": out.height,
            "width": out.width,
            "stride": out.stride,
            "pitch": out.pitch,
        }
        other = all(b.blocked != out.blocked for b in x.buffers)
        target = f"c / 16 * {out.stride} + c % 16" if out.blocked else f"c * {out.stride}"
        slow = fill(ONE_BY_ONE, **sizes, step=out.step, target=target)
        if out.blocked and other and not any(b.vector for b in x.buffers):
            return fill(TO_BLOCKED, **sizes)
        if not out.blocked and other and x.whole is not None:
            return fill(TO_PLANES, **sizes, one_by_one=slow)
        return slow
