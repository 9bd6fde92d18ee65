"""What stands around the rows of planes of quads, as C that writes it anew."""

from leancnn.compiler.c_text import fill
from leancnn.compiler.int8_layout import Plane

CLEARED = """
static const uint32_t fills[$many] = {$words};
for (int q = 0; q < $quads; q++)
    gaps(s + $start + q * $stride, $height, $width, $pitch, $stride, fills[q]);
for (int q = 0; q < $quads; q++)
    for (int i = 1; i <= $above; i++)
        s[$start + q * $stride - i] = fills[q];
"""


def cleared(plane: Plane, quads: str, start: str) -> str:
    """C that fills the gaps of planes `start` leads to."""
    if plane.gap == (0, 0):
        return ""
    return fill(
        CLEARED,
        many=len(plane.fill),
        words=", ".join(f"{word}u" for word in plane.fill),  # of joined values they may differ
        quads=quads,
        start=start,
        stride=plane.stride,
        height=plane.height,
        width=plane.width,
        pitch=plane.pitch,
        above=plane.gap[0] * plane.pitch + plane.gap[1],
    )
