"""Channels gathered into quads of another order, and what asks for such copies."""

from collections.abc import Sequence
from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_gaps import cleared
from leancnn.compiler.int8_kernel import Int8Kernel, Lowering, view_of
from leancnn.compiler.int8_layout import ChannelView, Order, Place, Plane, natural, quads_of
from leancnn.compiler.int8_phases import PackedPhases
from leancnn.compiler.int8_tiles import Quad
from leancnn.compiler.integers import Quantized

PACK = """
LAYER @(uint32_t *s, int quads, int to, const int32_t *in, const int32_t *fill)
{
    for (int q = 0; q < quads; q++, in += $step, to += $stride) {
        const uint32_t word = (uint32_t)fill[q], *x0 = s + in[0]$others
        $rows
    }
    $cleared
}
"""
OTHERS = """,
            *x1 = s + in[2], *x2 = s + in[4], *x3 = s + in[6];
        const int b0 = 8 * in[1], b1 = 8 * in[3], b2 = 8 * in[5], b3 = 8 * in[7];"""
"""Of quads whose four channels lie in several words, each in a lane of its own."""
ROWS = """
for (int y = 0; y < $rows; y++) {
    uint32_t *row = s + to + $start + y * $pitch;
    const int row_in = y * $down + ($first);
    const int inside = row_in >= 0 && row_in < $height;
    for (int x = 0; x < $low; x++) row[x] = word;
    if (inside)
        for (int x = $low; x < $high; x++) row[x] = $value;
    else
        for (int x = $low; x < $high; x++) row[x] = word;
    for (int x = $high; x < $columns; x++) row[x] = word;
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Pack(Int8Kernel):
    """Channels gathered into quads of another order; `phases` split rows and columns by stride."""

    x: ChannelView
    order: Order
    out: Plane
    fill: tuple[int, ...]
    phases: PackedPhases | None = None

    def reads(self) -> Sequence[Plane]:
        return self.x.planes

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def c(self, file: File, network: Quantized) -> None:
        order = self.order
        out, view = self.out, self.x
        phases = self.phases or PackedPhases(((0, 0),), (1, 1), (0, 0), view.height, view.width)
        pitch = view.places[0].plane.pitch
        sources, straight = _sources(view, order)
        each = out.stride // len(phases.which)
        reads = file.integers("quads", sources[::8] if straight else sources)
        fills = file.integers("fill", [w - 2**32 if w >= 2**31 else w for w in self.fill])
        rows = [
            _phase(self, phases, number * each, phase, pitch, straight)
            for number, phase in enumerate(phases.which)
        ]
        body = fill(
            PACK,
            step=1 if straight else 8,
            stride=out.stride,
            others=";" if straight else OTHERS,
            rows="\n".join(rows),
            cleared=cleared(out, "quads", f"to - quads * {out.stride}"),
        )
        name = file.function("pack", "channels gathered into quads", body)
        file.calls.append(
            f"{name}(s, {out.quads}, {out.origin}, {reads}, {fills}); /* {out.name} */"
        )


def _sources(view: ChannelView, order: Order) -> tuple[list[int], bool]:
    """Word and lane of each channel, and whether all four of each quad lie in one as they shall."""
    sources: list[int] = []
    straight = True
    for at in range(0, len(order), 4):
        places = [None if c is None else view.places[c] for c in order[at : at + 4]]
        there = [p for p in places if p is not None]
        homes = {(p.plane, p.quad, p.top, p.left) for p in there}
        straight &= len(homes) == 1 and all(
            p is None or p.lane == lane for lane, p in enumerate(places)
        )
        for p in places:
            sources += [(p or there[0]).at, 0 if p is None else p.lane]
    return sources, straight


def _phase(
    kernel: Pack,
    phases: PackedPhases,
    start: int,
    phase: tuple[int, int],
    pitch: int,
    straight: bool,
) -> str:
    """C for the rows of one phase: inside the image what stands there, outside its zero."""
    h, w = kernel.x.height, kernel.x.width
    (rows, columns), (top, left) = phases.stride, phases.start
    low = max(0, -(-(left - phase[1]) // columns))
    high = min(phases.columns, (w - 1 + left - phase[1]) // columns + 1)
    high = max(low, high)
    place = f"y * {pitch * rows} + x * {columns} + ({(phase[0] - top) * pitch + phase[1] - left})"
    if straight:
        value = f"x0[{place}]"
    else:
        lanes = [f"(x{i}[{place}] >> b{i} & 255)" + (f" << {8 * i}" if i else "") for i in range(4)]
        value = " | ".join(lanes)
    return fill(
        ROWS,
        rows=phases.rows,
        start=start,
        pitch=kernel.out.pitch,
        down=rows,
        first=phase[0] - top,
        height=h,
        low=low,
        high=high,
        value=value,
        columns=phases.columns,
    )


def copied(lowering: Lowering, name: str, order: Order) -> tuple[Place, ...]:
    """A value of the same size in another order."""
    x, meaning = lowering.views[name], lowering.network.values[name]
    plane = lowering.plane(f"{name}_packed", meaning, order)
    lowering.add(Pack(x, order, plane, plane.fill))
    return view_of(plane, order, len(x.places)).places


def aligned(lowering: Lowering, name: str, order: Order) -> list[tuple[Plane, int]]:
    """The quads of a value in another's order; copied where it lies otherwise."""
    view = lowering.views[name]
    quads = []
    for at in range(0, len(order), 4):
        places = [
            (lane, view.places[c]) for lane, c in enumerate(order[at : at + 4]) if c is not None
        ]
        homes = {(place.plane, place.quad) for _, place in places}
        if len(homes) != 1 or not view.whole or any(p.lane != lane for lane, p in places):
            plane = copied(lowering, name, order)[0].plane
            return [(plane, quad) for quad in range(len(order) // 4)]
        quads.append(homes.pop())
    return quads


def as_they_lie(lowering: Lowering, name: str, order: Order) -> tuple[ChannelView, list[Quad]]:
    """A value and its quads in this order, windows included; of a copy where it lies otherwise."""
    view = lowering.views[name]
    quads = []
    for at in range(0, len(order), 4):
        places = [
            (lane, view.places[c]) for lane, c in enumerate(order[at : at + 4]) if c is not None
        ]
        homes = {(place.plane, place.quad, place.top, place.left) for _, place in places}
        if len(homes) != 1 or any(place.lane != lane for lane, place in places):
            found = copied(lowering, name, order)
            return ChannelView(found, view.height, view.width), quads_of(found)
        quads.append(homes.pop())
    return view, quads


def uncropped(lowering: Lowering, name: str) -> ChannelView:
    """A view that shows all of its planes; a window is copied."""
    x = lowering.views[name]
    if x.whole:
        return x
    return ChannelView(copied(lowering, name, natural(len(x.places))), x.height, x.width)


def split(
    lowering: Lowering,
    name: str,
    order: Order,
    phases: PackedPhases,
    like: Plane,
    fill: tuple[int, ...],
) -> Plane:
    """The phases of a value, as far apart as what is computed from them; `fill`: around them."""
    plane = lowering.keep(Plane(f"{name}_phases", len(order) // 4, 0, 0, fill, words=1))
    lowering.phased.append((plane, phases, like))
    lowering.add(Pack(lowering.views[name], order, plane, fill, phases))
    return plane
