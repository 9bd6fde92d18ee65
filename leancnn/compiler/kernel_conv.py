"""A convolution along the long lines of planes: each tap is a shift of one line."""

from dataclasses import dataclass
from typing import Any

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Conv, Floats, Shape, Sides
from leancnn.compiler.kernel import kernel, shape_key
from leancnn.compiler.loops import (
    L1_FLOATS,
    L2_FLOATS,
    NARROW_LANES,
    NARROW_REGISTERS,
    Tiling,
    likely_tiles,
    narrow_cost,
    narrow_tile,
    picks,
)
from leancnn.compiler.planar import PlanarKernel, head_rows, place_of

AHEAD = 6  # input planes between the one a pointwise tile reads and the one it fetches
CACHE_LINE = 16  # floats
WEIGHTS_AHEAD = 1024  # floats from the weights that are multiplied to those fetched: a page

SUMS = """
$inside
$start(w)
const float *k = w + $head;
for (int i = 0; i < $inputs; i++, k += $weights) {
    const float *x = $place;
    $taps
    $fetch
    $fetch_weights
}
"""
PICKING = """
#define BEGIN (LANES % $pitch && !inside ? 0 : doubled(p, $sizes))
#define AT(d) (inside ? 2 * (d) : doubled(LANES % $pitch ? p + (d) : (d), $sizes))
#define EVENS(x, d) evens(x + AT(d), x + AT(d + LANES / 2))
#define ODDS(x, d) odds(x + AT(d), x + AT(d + LANES / 2))
"""
"""The halves of a tap: constants beside p where a vector is of whole rows, or a tile inside one."""
INSIDE = "enum { inside = $pitch % ($size * LANES) == 0 };"


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class ConvKernel(PlanarKernel):
    """A convolution: tiles of channels × vectors of pixels."""

    op: Conv
    takes = (Conv,)
    biased = True

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        return shape[1:] != (1, 1)

    def margins(self) -> Sides:
        return self.op.padding

    @property
    def role(self) -> str:
        strided = " strided" if self.op.stride != (1, 1) else ""
        if self.op.groups == self.channels:
            return f"depthwise{strided}"
        what = "pointwise" if self.op.weight.shape[2:] == (1, 1) else "window"
        return f"{what}{strided}"

    @property
    def tile_key(self) -> str:
        return shape_key(self)

    def tiles(self, count: int) -> list[tuple[int, int]]:
        """Channels and vectors."""
        return likely_tiles(self, count)

    def narrow_tile(self) -> tuple[int, int]:
        """Channels × vectors of pixels."""
        depth, wide = self.op.weight[0].size, self.channels // self.op.groups
        line = -(-self.height * self.out.pitch // NARROW_LANES)

        loads = 3 if picks(self) else 1  # of which one is a shuffle, with a register of its own

        def price(outputs: int, vectors: int) -> float:
            if loads > 1 and outputs * vectors + vectors + 2 > NARROW_REGISTERS:
                return float("inf")
            full, rest = divmod(line, vectors)
            once = full * narrow_cost(outputs, vectors, depth, loads)
            once += rest * narrow_cost(outputs, 1, depth, loads)
            return -(-wide // outputs) * once

        return narrow_tile(min(wide, 14), 8, price)

    def words(self) -> str:
        op = self.op
        what = f"convolution {'x'.join(map(str, op.weight.shape[2:]))}, {op.groups} group"
        what += "s" * (op.groups > 1)
        return what if op.stride == (1, 1) else f"{what}, stride {op.stride[0]}"

    def rows(self, part: slice) -> list[Floats]:
        """Input by input, tap by tap."""
        weight = self.op.weight[part]
        return [weight.reshape(len(weight), -1).T]

    def macros(self) -> str:
        if not picks(self):
            return ""
        pitch = self.out.pitch
        return fill(PICKING, pitch=pitch, sizes=f"{pitch}, {2 * self.x.pitch}")

    def sums(self, file: File, plan: Tiling, size: int) -> str:
        o, picking = plan.outputs, picks(self)
        each = o * len(plan.taps)
        start = file.tile("START", o, size)
        return fill(
            SUMS,
            inside=self._inside(plan, size) if picking else "",
            start=start,
            head=head_rows(self) * o,
            inputs=plan.inputs,
            weights=each,
            place="s + in[i] + BEGIN" if picking else place_of(plan, "i"),
            taps="\n".join(self._taps(file, plan, size)),
            fetch="" if picking or plan.phases is not None else _fetch(file, plan, size),
            fetch_weights=_fetch_weights(each) if self.op.weight.size > L2_FLOATS else "",
        )

    def _inside(self, plan: Tiling, size: int) -> str:
        """Whether tiles of so many vectors never cross a row: they begin at multiples of their
        size, for those before them are multiples too."""
        if any(many % size for many in (plan.vectors, plan.few)):
            return "enum { inside = 0 };"
        return fill(INSIDE, pitch=self.out.pitch, size=size)

    def _taps(self, file: File, plan: Tiling, size: int) -> list[str]:
        """A multiply-add of a register tile for each tap; two picked ones share what they load."""
        o, columns, dilation = plan.outputs, self.op.weight.shape[3], self.op.dilation[1]
        if not picks(self):
            tap = file.tile("TAP", o, size)
            return [f"{tap}(x + {place}, k + {j * o})" for j, place in enumerate(plan.taps)]
        pick, lines = file.tile("PICK", o, size), []
        for j, place in enumerate(plan.taps):
            odd = j % columns * dilation % 2
            half = "ODDS" if odd else "EVENS"
            lines.append(f"{pick}({half}, x + {place - odd}, k + {j * o})")
        return lines


def _fetch(file: File, plan: Tiling, size: int) -> str:
    """Have what the next tile reads brought closer, or what this one reads a few inputs later."""
    ahead = f"x + {max(plan.taps)} + {size} * LANES"
    if len(plan.taps) == 1 and plan.inputs * size * 16 > L1_FLOATS // 2:
        ahead = f"s + in[i + {AHEAD} < {plan.inputs} ? i + {AHEAD} : i] + p"
    return f"{file.tile('FETCH', 1, size)}({ahead})"


def _fetch_weights(each: int) -> str:
    """They come from beyond the second cache."""
    places = range(WEIGHTS_AHEAD, WEIGHTS_AHEAD + each, CACHE_LINE)
    return " ".join(f"prefetch(k + {place});" for place in places)
