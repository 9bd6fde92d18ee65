"""All pixels of each channel, or all channels of a vector, to one number each."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File, Places, fill
from leancnn.compiler.epilogue import described
from leancnn.compiler.graph import Reduce
from leancnn.compiler.kernel import InputLayout, Kernel, Plan, kernel, mixed_layouts
from leancnn.compiler.kernel_dense import DenseKernel
from leancnn.compiler.literals import number
from leancnn.compiler.values import Store, side_by_side, whole

FUNCTION = """
LAYER @(float *s$given)
{
    $loops
}
"""
APART = """
int i = 0;
float y = $start;
for (; i < $count; i++) {
    const float z = s[t[i]];
    $one
}
s[$out] = $result;
"""
"""Channels anywhere."""
TOGETHER = """
int i = 0;
const float *x = s + $from;
vf v = splat($start);
for (; i + LANES <= $count; i += LANES) {
    const vf z = load(x + i);
    $vector
}
float y = $across(v);
for (; i < $count; i++) {
    const float z = x[i];
    $one
}
s[$out] = $result;
"""
"""Channels side by side."""
PLANES = """
for (int c = 0; c < $channels; c++) {
    const float *x = s + t[c];
    vf y0 = {0};
    for (int p = 0; p < $line; p += LANES) $add
    const float y = total(y0);
    s[$out + c] = $result;
}
"""
LARGEST = """
for (int c = 0; c < $channels; c++) {
    const float *x = s + t[c];
    float y = -INFINITY;
    int odd = 0;
    for (int r = 0; r < $height; r++, x += $pitch) {
        int i = 0;
        $vectors
        for (; i < $width; i++) {
            y = x[i] > y ? x[i] : y;
            odd |= x[i] != x[i];
        }
    }
    s[$out + c] = odd ? NAN : y;
}
"""
"""What is not a number is remembered aside: a branch on a maximum would be guessed wrong."""
LARGEST_OF_VECTORS = """
if ($width >= LANES) {
    vf most = load(x);
    for (i = LANES; i + LANES <= $width; i += LANES) most = larger(most, load(x + i));
    const int last = $width >= LANES ? $width - LANES : 0;
    most = larger(most, load(x + last));
    const float z = largest(most);
    y = z > y ? z : y;
    odd |= z != z;
    i = $width;
}
"""
BLOCKED = """
for (int b = 0; b < $blocks; b++)
for (int l = 0; l < 16; l += LANES) {
    const int o = b * 16 + l;
    vf y = $start;
    for (int p = 0; p < $pixels; p += 16) {
        const vf x = load(s + $from + b * $stride + l + p);
        $vector
    }
    y = $result;
    store(s + $out + o, y);
}
"""
"""Pixels that have sixteen channels side by side."""


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class ReduceKernel(Kernel):
    """All pixels of each channel, or all channels of a vector, to one number."""

    op: Reduce
    takes = (Reduce,)

    @property
    def role(self) -> str:
        return "reduce"

    def cost(self) -> float:
        return sum(prod(value.shape) for value in self.reads()) / WIDEST

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        return None if blocked == {False} or (blocked == {True} and readable) else "planes"

    @property
    def stores_first(self) -> bool:
        return True

    def faults(self) -> Iterator[str]:
        yield from mixed_layouts(self)
        x = self.x
        if self.op.over == "pixels" and x.planes[0][0].blocked and x.whole is None:
            yield "reduces a part of blocked channels as a whole"

    def c(self, file: File, plan: Plan) -> None:
        """Its own function stores the numbers; the epilogue follows on the vector of them."""
        x, places, at = self.x, self.x.places(), Places()
        if self.op.over == "channels":
            loops, far = self._channels(places, at), not side_by_side(places)
        else:
            far = not x.planes[0][0].blocked  # then a table says where
            loops = self._planes(file, at) if far else self._blocked(at)
        size = f"{len(places)}x{x.height}x{x.width}"
        comment = f"{self.name}: {self.op.how} of {self.op.over}, {size}, "
        given = f"{', const int32_t *t' * far}{at.parameters}"
        body = fill(FUNCTION, given=given, loops=loops)
        name = file.function(self.name, f"{comment}then {described(self.epilogue)}", body)
        table = ", " + file.integers(f"{self.name}_planes", places) if far else ""
        file.calls.append(f"{name}(s{table}{at.arguments});")
        if epilogue := self.epilogue[isinstance(self.epilogue[0], Store) :]:
            DenseKernel(f"{self.name}_steps", None, whole(self.out), epilogue).c(file, Plan())

    def _channels(self, places: list[int], at: Places) -> str:
        how, count = self.op.how, len(places)
        one = {"max": "y = z > y || z != z ? z : y;", "norm": "y += z * z;"}
        vector = {"max": "v = larger(v, z);", "norm": "v += z * z;"}
        words = {
            "count": count,
            "start": "-INFINITY" if how == "max" else "0.0f",
            "one": one.get(how, "y += z;"),
            "result": {"mean": f"y * {1 / count!r}f", "norm": "sqrtf(y)"}.get(how, "y"),
            "out": at.at(self.out.origin),
        }
        if not side_by_side(places):
            return fill(APART, **words)
        across = "largest" if how == "max" else "total"
        words |= {"vector": vector.get(how, "v += z;"), "across": across}
        return fill(TOGETHER, **words, **{"from": at.at(places[0])})

    def _planes(self, file: File, at: Places) -> str:
        channels, height, width = self.x.shape
        how, pitch = self.op.how, self.x.pitch
        words = {"channels": channels, "out": at.at(self.out.origin)}
        if how == "max":
            vectors = fill(LARGEST_OF_VECTORS, width=width) if width >= 4 else ""
            sizes = {"height": height, "width": width, "pitch": pitch}
            return fill(LARGEST, **words, **sizes, vectors=vectors)
        value = f"keep(load(x + p), {file.mask(height, width, pitch)} + p)"
        square = f"{{ const vf z = {value}; y0 += z * z; }}"
        result = {"mean": f"y * {1 / (height * width)!r}f", "norm": "sqrtf(y)"}
        return fill(
            PLANES,
            **words,
            line=height * pitch,
            add=square if how == "norm" else f"y0 += {value};",
            result=result.get(how, "y"),
        )

    def _blocked(self, at: Places) -> str:
        channels, height, width = self.x.shape
        how, pixels = self.op.how, height * width
        vector = {"max": "y = larger(y, x);", "norm": "y += x * x;"}
        start = at.at(self.x.places()[0])
        return fill(
            BLOCKED,
            blocks=-(-channels // WIDEST),
            start="splat(-INFINITY)" if how == "max" else "{0}",
            pixels=pixels * WIDEST,
            **{"from": start},
            stride=self.x.planes[0][0].stride,
            vector=vector.get(how, "y += x;"),
            result={"mean": f"y * {number(1 / pixels)}", "norm": "root(y)"}.get(how, "y"),
            out=at.at(self.out.origin),
        )
