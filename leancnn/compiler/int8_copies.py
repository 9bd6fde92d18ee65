"""What moves bytes without multiplying, as C: gathering into quads, pooling, sums, tables."""

from itertools import product

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_conv import phase_offsets
from leancnn.compiler.int8_layout import ChannelView, Plane, quads_of
from leancnn.compiler.int8_program import GlobalSum, Lookup, Order, Pack, PackedPhases, Pool

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


def emit_pack(file: File, kernel: Pack) -> None:
    """Gather four channels into each quad, row by row."""
    order = kernel.order
    out, view = kernel.out, kernel.x
    phases = kernel.phases or PackedPhases(((0, 0),), (1, 1), (0, 0), view.height, view.width)
    pitch = view.places[0].plane.pitch
    sources, straight = _sources(view, order)
    each = out.stride // len(phases.which)
    reads = file.integers("quads", sources[::8] if straight else sources)
    fills = file.integers("fill", [w - 2**32 if w >= 2**31 else w for w in kernel.fill])
    rows = [
        _phase(kernel, phases, number * each, phase, pitch, straight)
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
    file.calls.append(f"{name}(s, {out.quads}, {out.origin}, {reads}, {fills}); /* {out.name} */")


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


def emit_pool(file: File, kernel: Pool) -> None:
    """The largest byte under each window, as shifts of one line."""
    source, out, phases = kernel.source, kernel.out, kernel.phases
    rows, columns = kernel.node.kernel
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
    name = file.function("largest", f"windows of {kernel.node.kernel}", body)
    file.calls.append(f"{name}(s, {out.quads}, {source.origin}, {out.origin}); /* {out.name} */")


def emit_global_sum(file: File, kernel: GlobalSum) -> None:
    """Sums of all pixels of each channel."""
    view = kernel.x
    quads = quads_of(view.places)
    table: list[int] = []
    zeros: list[int] = []
    channels_at = {(p.plane, p.quad, p.top, p.left, p.lane): c for c, p in enumerate(view.places)}
    for plane, quad, top, left in quads:
        table.append(plane.at(quad) + top * plane.pitch + left)
        for lane in range(4):
            channel = channels_at.get((plane, quad, top, left, lane))
            table.append(-1 if channel is None else kernel.out.origin + channel)
            zero = 0 if channel is None else kernel.zero[channel]
            zeros.append(view.height * view.width * zero)
    pitch, (high, wide) = view.places[0].plane.pitch, (view.height, view.width)
    if all(p.plane.pitch == wide for p in view.places):  # rows without a gap are one
        high, wide = 1, high * wide
    body = fill(TOTAL, height=high, width=wide, pitch=pitch)
    name = file.function("total", "all pixels of each channel", body)
    tables = file.integers("sums", table), file.integers("zeros", zeros)
    file.calls.append(f"{name}(s, {len(quads)}, {tables[0]}, {tables[1]}); /* {kernel.out.name} */")


def emit_lookup(file: File, kernel: Lookup) -> None:
    """Each byte by a table."""
    out = kernel.out
    words = [str(number) for number in kernel.node.table.tolist()]
    table = file.listed("uint8_t", f"{out.name}_table", words, 256)
    body = fill(
        LOOKUP,
        stride=out.stride,
        line=out.line,
        cleared=cleared(out, "quads", f"to - quads * {out.stride}"),
    )
    name = file.function("looked_up", "each byte by a table", body)
    reads = file.integers("quads", [plane.at(quad) for plane, quad in kernel.quads])
    file.calls.append(f"{name}(s, {out.quads}, {reads}, {out.origin}, {table}); /* {out.name} */")
