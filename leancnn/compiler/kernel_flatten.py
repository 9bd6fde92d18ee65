"""Planes to one vector, or a vector to planes, in the order of channels, rows, columns."""

from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Reshape
from leancnn.compiler.kernel import InputLayout, Kernel, Plan, kernel

BODY = """
LAYER @(float *s, const int32_t *t)
{
    int n = 0;
    for (int c = 0; c < $channels; c++)
        for (int r = 0; r < $height; r++)
            for (int i = 0; i < $width; i++, n++)
                s[$place] = s[t[c] + r * $pitch + i * $step];
}
"""
PLACE = "$origin + n / $pixels * $stride + n % $pixels / $width * $pitch + n % $width"


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class FlattenKernel(Kernel):
    """Every pixel copied, in order."""

    op: Reshape
    takes = (Reshape,)
    follows = False

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        """It walks each channel in either layout."""
        return None if len(blocked) == 1 else "planes"

    def c(self, file: File, plan: Plan) -> None:
        x, out = self.x, self.out
        (channels, height, width), (planes, rows, columns) = x.shape, out.shape
        places = file.integers(f"{self.name}_planes", x.places())
        place = fill(
            PLACE,
            origin=out.origin,
            pixels=rows * columns,
            stride=out.stride,
            width=columns,
            pitch=out.pitch,
        )
        body = fill(
            BODY,
            channels=channels,
            height=height,
            width=width,
            pitch=x.pitch,
            step=x.step,
            place=place,
        )
        comment = f"{self.name}: {channels}x{height}x{width} -> {planes}x{rows}x{columns}"
        name = file.function(self.name, comment, body)
        file.clear(out)
        file.calls.append(f"{name}(s, {places}); /* {channels * height * width} floats */")
