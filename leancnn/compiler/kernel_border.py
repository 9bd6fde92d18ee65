"""Where the float layers of a network of integers begin and end: bytes to floats, and back.

Both are kernels among floats, so that they take their turn there. The bytes lie in the arena of
the integers, which their C calls `bytes`.
"""

from dataclasses import dataclass

from leancnn.compiler.borders import FromBytes, ToBytes
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import floats
from leancnn.compiler.int8_gaps import cleared
from leancnn.compiler.kernel import InputLayout, Kernel, Plan, kernel

FROM = """
LAYER @(float *to, const uint32_t *s, const int32_t *t, const float *u)
{
    for (int c = 0; c < $channels; c++, t += 4, u += 2, to += $stride)
        for (int y = 0; y < $height; y++)
            for (int x = 0; x < $width; x++) {
                const uint32_t word = s[t[0] + y * t[1] + x];
                const int32_t number = t[2] < 0 ? (int32_t)word : (int32_t)(word >> 8 * t[2] & 255);
                to[y * $pitch + x] = (float)(number - t[3]) * u[0] + u[1];
            }
}
"""
TO = """
LAYER @(const float *f, uint32_t *s, int to, const int32_t *t, const float *u)
{
    for (int q = 0; q < $quads; q++, t += 8, u += 4, to += $stride)
        for (int y = 0; y < $height; y++)
            for (int x = 0; x < $width; x++) {
                uint32_t quad = 0;
                for (int i = 0; i < 4 && t[2 * i] >= 0; i++) {
                    const float real = f[t[2 * i] + y * $pitch + x * $step];
                    const float byte = rintf(real / u[i]) + (float)t[2 * i + 1];
                    quad |= (uint32_t)(byte > 255.0f ? 255 : byte > 0.0f ? byte : 0) << 8 * i;
                }
                s[to + y * $whole + x] = quad;
            }
    $gaps
}
"""


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class FromBytesKernel(Kernel):
    """float32(q − zero) · float32(scale) of each byte, or of each sum."""

    op: FromBytes
    takes = (FromBytes,)
    follows = False

    def c(self, file: File, plan: Plan) -> None:
        op, out = self.op, self.out
        scale, shift = op.value.scale.tolist(), [0.0] * self.channels
        table: list[int] = []
        for place, zero in zip(op.view.places, op.value.zero.tolist(), strict=True):
            plain = place.lane < 0 or op.shift is not None
            table += [place.at, place.plane.pitch, place.lane, 0 if plain else zero]
        if op.shift is not None:
            shift = op.shift.tolist()
        pairs = [number for pair in zip(scale, shift, strict=True) for number in pair]
        sizes = {"channels": self.channels, "height": self.height, "width": self.width}
        body = fill(FROM, **sizes, stride=out.stride, pitch=out.pitch)
        name = file.function(f"{self.name}_real", "bytes to floats", body)
        tables = file.integers(f"{self.name}_places", table), file.floats(self.name, floats(pairs))
        file.clear(out)
        file.calls.append(f"{name}(s + {out.origin}, bytes, {tables[0]}, {tables[1]});")


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class ToBytesKernel(Kernel):
    """clamp(rint(x / float32(scale)) + zero, 0, 255), half to even, of each float."""

    op: ToBytes
    takes = (ToBytes,)
    follows = False

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        """It walks each channel in either layout."""
        return None if len(blocked) == 1 else "planes"

    def c(self, file: File, plan: Plan) -> None:
        op, x, out = self.op, self.x, self.op.out
        table = [
            number
            for pair in zip(x.places(), op.value.zero.tolist(), strict=True)
            for number in pair
        ]
        missing = -len(x.planes) % 4
        table += [-1, 0] * missing
        scale = [*op.value.scale.tolist(), *[1.0] * missing]
        body = fill(
            TO,
            quads=out.quads,
            stride=out.stride,
            height=x.height,
            width=x.width,
            pitch=x.pitch,
            step=x.step,
            whole=out.pitch,
            gaps=cleared(out, str(out.quads), f"to - {out.quads * out.stride}"),
        )
        name = file.function(f"{self.name}_rounded", "floats to bytes", body)
        tables = file.integers(f"{self.name}_places", table), file.floats(self.name, floats(scale))
        file.calls.append(f"{name}(s, bytes, {out.origin}, {tables[0]}, {tables[1]});")
