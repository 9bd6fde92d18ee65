"""Depthwise convolutions of bytes as C: four taps of one channel in each word.

Each quad of channels is copied into a small *box* with the zeros that surround it, strides split
out into phases, so that the planes themselves need no gaps and the output may take the place of
the input. Along the lines of the box up to four rows of a window's column make one word for each
channel (int8_depthwise.h), which a window's columns share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from leancnn.compiler.arena import WIDEST, round_up
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_boxes import Box, box_of, suits
from leancnn.compiler.int8_depthwise import along_lines
from leancnn.compiler.int8_epilogue import HUGE, biases, neutral, stored_zeros
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_kernel_pack import aligned
from leancnn.compiler.int8_layout import Order, Plane, filled
from leancnn.compiler.int8_pairs import pairs_fit
from leancnn.compiler.integers import Array, Clamp, QConv, Quantized, Store

FUNCTION = """
LAYER @(uint32_t *s, uint32_t *box, int quads, const int32_t *w, const int32_t *b,
    const int32_t *in, const int32_t *fill$parameters)
{
    $once
    for (int t = 0; t < quads; t++, $advance) {
        $each
        $copies
#if LANES == 1
        $plainly
#else
        $vectors
#endif
        $after
    }
}
"""
PLAINLY = """
static const int32_t taps[$many] = {$taps};
for (int p = 0; p < $count; p++) {
    int32_t a0 = b[0], a1 = b[1], a2 = b[2], a3 = b[3];
    for (int i = 0; i < $members; i++) {
        const uint32_t *v = (const uint32_t *)w + 4 * i;
        $rows
    }
    $quads
    $epilogue
    $stores
}
"""
ROW = """
{
    const uint32_t x = box[p + taps[4 * i + $row]];
    $products
}
"""
CHANNEL = """
{
    enum { c = $channel };
    int32_t a = a$channel;
    $epilogue
}
"""
"""One pixel at a time, and the four channels of its quad."""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Depthwise(NodeKernel):
    """A convolution of each channel for itself, quad by quad in a box of its own."""

    node: QConv
    quads: list[tuple[Plane, int]]  # of the input, beside each of the output
    fill: tuple[int, ...]  # what surrounds each
    box: Box
    order: Order
    shape: Shape
    outs: dict[str, Plane]
    scratch: Plane
    takes = (QConv,)
    preludes = ("int8_depthwise.h",)

    @classmethod
    def fits(cls, node: Any, x: Shape, out: Shape) -> bool:
        return out[1:] != (1, 1) and suits(node, x[0])

    @classmethod
    def lower(cls, node: QConv, lowering: Lowering) -> None:
        x, shape = lowering.views[node.x], lowering.shape(node)
        order = lowering.order(node, shape[0])
        quads, outs = aligned(lowering, node.x, order), lowering.outs(node, order)
        box = box_of(node, (x.height, x.width), shape[1:])
        around = filled(lowering.network.values[node.x], order)
        scratch = lowering.keep(Plane(f"{next(iter(outs))}_box", 0, 1, 1, (), words=box.words))
        lowering.add(cls(node, quads, around, box, order, shape, outs, scratch))

    def reads(self) -> Sequence[Plane]:
        return [plane for plane, _ in self.quads]

    def writes(self) -> Sequence[Plane]:
        return [*self.outs.values(), self.scratch]

    def in_place(self, at: int, reused: Mapping[Plane, Plane]) -> tuple[Plane, Plane] | None:
        """A quad that has been read gives its place to the quad made of it."""
        old = self.quads[0][0]
        if [(old, n) for n in range(old.quads)] != self.quads or old.dies != at:
            return None
        for new in self.outs.values():
            size = (new.height, new.width, new.gap, new.quads)
            fits = size == (old.height, old.width, old.gap, old.quads)
            if fits and new not in reused and len(set(new.fill)) == len(set(old.fill)) == 1:
                return new, old
        return None

    def passed(self) -> Sequence[Plane]:
        planes = [plane for plane, _ in self.quads]
        return [p for p in dict.fromkeys(planes) if len(set(self.quads)) == len(self.quads)]

    def accesses(self) -> Accesses:
        """A quad is read as a whole, then written as a whole with what stands around its rows."""
        found = Accesses()
        for number, (plane, quad) in enumerate(self.quads):
            words = np.arange(plane.line) + quad * plane.stride
            found.reads(plane, words, 2 * number)
            for out in self.outs.values():
                first = -out.below if number == 0 else 0
                found.writes(
                    out, np.arange(first, out.stride) + number * out.stride, 2 * number + 1
                )
        return found

    def scratch_words(self) -> dict[Plane, int]:
        """Of the box, and behind it of lines whose pitch is not that of what is stored."""
        repitched = any(plane.pitch != self.box.pitch for plane in self.outs.values())
        stores = sum(isinstance(op, Store) for op in self.node.epilogue)
        return {self.scratch: self.box.words + repitched * stores * line_words(self)}

    def words(self) -> Array:
        """Of each quad, column of the window and channel a word of four taps: (words, 4)."""
        flat = self.node.weight.reshape(len(self.node.weight), -1)
        quads = [self.order[at : at + 4] for at in range(0, len(self.order), 4)]
        words = [
            [0 if c is None or tap is None else int(flat[c, tap]) for tap in member.taps]
            for quad, member in product(quads, self.box.members)
            for c in quad
        ]
        return np.array(words)

    def c(self, file: File, network: Quantized) -> None:
        """One function for a shape, called with what its channels have."""
        node, order = self.node, self.order
        name = next(iter(self.outs))
        words = self.words()
        how = "bytes_" if pairs_fit(words) else ""
        taps = [f"{how.upper()}TAPS({', '.join(map(str, four))})" for four in words.reshape(-1, 16)]
        each = f"4 * {how.upper()}WORDS"
        weights = file.listed("int32_t", f"{name}_weights", taps, 16 * len(taps), each)
        bias = file.listed("int32_t", "bias", biases(node, order), 4 * len(order))
        reads = file.integers("quads", [plane.at(quad) for plane, quad in self.quads])
        fills = file.integers("fill", [w - 2**32 if w >= 2**31 else w for w in self.fill])
        epilogue = DepthwiseEpilogue(file, self, network)
        body = _function(self, epilogue, how)
        rows, columns = node.weight.shape[2:]
        _, h, w = self.shape
        word = file.function("depthwise", f"{rows}x{columns} of each channel to {h}x{w}", body)
        box, quads = f"s + {self.scratch.origin}", str(len(order) // 4)
        given = ["s", box, quads, weights, bias, reads, fills, *epilogue.arguments]
        file.calls.append(f"{word}({', '.join(given)}); /* {name} */")


class DepthwiseEpilogue:
    """The epilogue as C on the sums a0 to a3 of a block, whose words are channels."""

    def __init__(self, file: File, kernel: Depthwise, network: Quantized) -> None:
        self.file, self.kernel = file, kernel
        self.parameters: list[str] = []
        self.arguments: list[str] = []
        self.advance: list[str] = []
        self.before: list[str] = []
        self.lines: list[str] = []
        self.plain: list[str] = []  # of one channel c of one pixel, its sum in a
        self.after: list[str] = []
        epilogue = kernel.node.epilogue
        zeros = stored_zeros(network, epilogue)
        for at, op in enumerate(epilogue):
            if isinstance(op, Clamp) and not neutral(epilogue, at, zeros):
                self._clamp(at, op)
            elif isinstance(op, Store):
                self._store(at, op, zeros[op.value])

    def _parameter(self, text: str, argument: str) -> None:
        self.parameters.append(text)
        self.arguments.append(argument)
        self.advance.append(f"{text.split('*')[-1]} += 4")

    def _clamp(self, at: int, op: Clamp) -> None:
        for word, ends, how in (("low", op.low, "larger"), ("high", op.high, "smaller")):
            numbers = [0 if c is None else int(ends[c]) for c in self.kernel.order]
            beyond = max(numbers) <= -HUGE if word == "low" else min(numbers) >= HUGE
            if beyond:
                continue
            self._parameter(f"const int32_t *{word}{at}", self.file.integers(word, numbers))
            self.before.append(f"const vi {word}s{at} = four({word}{at});")
            self.lines += [f"a{j} = {how}(a{j}, {word}s{at});" for j in range(4)]
            sign = "<" if word == "low" else ">"
            self.plain.append(f"a = a {sign} {word}{at}[c] ? {word}{at}[c] : a;")

    def _store(self, at: int, op: Store, zero: int) -> None:
        assert op.multiplier is not None
        kernel, plane = self.kernel, self.kernel.outs[op.value]
        box, (_, h, w) = kernel.box, kernel.shape
        numbers = [0.0 if c is None else float(op.multiplier[c]) for c in kernel.order]
        table = self.file.floats(f"scale_{op.value}", np.array(numbers, np.float32))
        self._parameter(f"const float *m{at}_", table)
        self.parameters.append(f"int to{at}_")
        self.arguments.append(str(plane.origin))
        self.advance.append(f"to{at}_ += {plane.stride}")
        direct = plane.pitch == box.pitch
        place = f"s + to{at}_" if direct else f"box + {line_at(kernel, at)}"
        self.before.append(f"const vm4 scales{at} = four_scales(m{at}_);")
        made = ", ".join(f"scaled4(a{j}, scales{at})" for j in range(4))
        self.lines.append(f"put({place} + p, packed4({made}, {zero}));")
        self.plain.append(f"quad{at} |= byte_of(requantize(a, m{at}_[c]), {zero}) << 8 * c;")
        if not direct:
            self.after += [
                f"for (int y = 0; y < {h}; y++)",
                f"    memcpy(s + to{at}_ + y * {plane.pitch}, {place} + y * {box.pitch}, {4 * w});",
            ]
        if plane.gap != (0, 0):
            zeros = f"{zero * 0x01010101}u"
            self.after += [
                f"gaps(s + to{at}_, {h}, {w}, {plane.pitch}, {plane.stride}, {zeros});",
                f"if (to{at}_ == {plane.origin})",
                f"    for (int i = 1; i <= {plane.below}; i++) s[{plane.origin} - i] = {zeros};",
            ]

    @property
    def places(self) -> list[tuple[int, str]]:
        """Where each operator that stores does so."""
        found = []
        for at, op in enumerate(self.kernel.node.epilogue):
            if isinstance(op, Store):
                direct = self.kernel.outs[op.value].pitch == self.kernel.box.pitch
                place = f"s + to{at}_" if direct else f"box + {line_at(self.kernel, at)}"
                found.append((at, place))
        return found


def line_at(kernel: Depthwise, at: int) -> int:
    """Where in the box's scratch the lines lie that an operator stores, before they are split."""
    stores = [n for n, op in enumerate(kernel.node.epilogue) if isinstance(op, Store)]
    return kernel.box.words + stores.index(at) * line_words(kernel)


def line_words(kernel: Depthwise) -> int:
    """Words of the lines of an output at the pitch of the box."""
    return round_up(kernel.shape[1] * kernel.box.pitch + WIDEST)


def _function(kernel: Depthwise, epilogue: DepthwiseEpilogue, how: str) -> str:
    box, (_, h, _) = kernel.box, kernel.shape
    uniform = len(set(kernel.fill)) == 1
    surround = (
        f"for (int i = 0; i < {box.words}; i++) box[i] = (uint32_t)fill[{'0' if uniform else 't'}];"
    )
    advance = [
        f"w += {4 * len(box.members)} * {how.upper()}WORDS",
        "b += 4",
        "in++",
        *epilogue.advance,
    ]
    count = h * box.pitch
    return fill(
        FUNCTION,
        parameters="".join(f", {each}" for each in epilogue.parameters),
        once=surround if uniform else "",
        advance=", ".join(advance),
        each="" if uniform else surround,
        copies="\n".join(_copies(kernel)),
        plainly=_plainly(kernel, epilogue, count),
        vectors=along_lines(box, epilogue.before, epilogue.lines, count, how),
        after="\n".join(epilogue.after),
    )


def _copies(kernel: Depthwise) -> list[str]:
    """C that takes a quad's pixels into the box, every row of every phase."""
    node, box, source = kernel.node, kernel.box, kernel.quads[0][0]
    (sy, sx), (top, left) = node.stride, node.padding[:2]
    lines = []
    for number, (a, b) in enumerate(box.phases):
        low, high = _inside(source.height, a - top, sy, box.rows)
        first, end = _inside(source.width, b - left, sx, box.pitch)
        if high <= low or end <= first:
            continue
        row, column = low * sy + a - top, first * sx + b - left
        lines += [
            f"for (int y = 0; y < {high - low}; y++)",
            f"    split(box + {number * box.each + low * box.pitch + first} + y * {box.pitch}, "
            f"s + in[0] + {row * source.pitch + column} + y * {sy * source.pitch}, {end - first}, "
            f"{sx});",
        ]
    return lines


def _inside(size: int, start: int, step: int, count: int) -> tuple[int, int]:
    """Of places start, start + step ..., the first and the end of those inside a size."""
    first = max(0, (step - 1 - start) // step)
    end = min(count, (size - 1 - start) // step + 1)
    return first, end


def _plainly(kernel: Depthwise, epilogue: DepthwiseEpilogue, count: int) -> str:
    """C for one pixel and channel at a time."""
    box = kernel.box
    table = []
    for member in box.members:
        offsets = [box.groups[member.group][r] + member.shift
                   for r, tap in enumerate(member.taps) if tap is not None]  # fmt: skip
        table += [*offsets, *[offsets[0]] * (4 - len(offsets))]
    rows = max(sum(tap is not None for tap in member.taps) for member in box.members)
    products = "a{c} += lane(x, {c}) * (int8_t)lane(v[{c}], {row});"
    lines = [
        fill(ROW, row=row, products="\n".join(products.format(c=c, row=row) for c in range(4)))
        for row in range(rows)
    ]
    quads = [f"uint32_t quad{at} = 0;" for at, _ in epilogue.places]
    return fill(
        PLAINLY,
        many=len(table),
        taps=", ".join(map(str, table)),
        count=count,
        quads=" ".join(quads),
        members=len(box.members),
        rows="\n".join(lines),
        epilogue="\n".join(
            fill(CHANNEL, channel=c, epilogue="\n".join(epilogue.plain)) for c in range(4)
        ),
        stores="\n".join(f"({place})[p] = quad{at};" for at, place in epilogue.places),
    )
