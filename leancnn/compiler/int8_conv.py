"""Convolutions of quads, and epilogues alone, as C: register tiles along lines of pixels."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from leancnn.compiler.c_text import File
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_program import Order, Tiled
from leancnn.compiler.int8_tiles import BLOCK, Tiling, weight_words
from leancnn.compiler.integers import (
    Add,
    Array,
    Clamp,
    Gate,
    QConv,
    QElementwise,
    QEpilogueOp,
    Quantized,
    Store,
)

HUGE = 2**31 - 2**20  # a bound of a clamp that no sum reaches


def emit_tiled(file: File, kernel: Tiled, network: Quantized) -> None:
    """One call for each shape of tiles; a layer whose quads do not divide has two."""
    for cut in kernel.cuts:
        flat = [output for tile in cut.outputs for output in tile]
        epilogue = Epilogue(file, kernel, network, flat, cut)
        weights, taps = "NULL", [0]
        if isinstance(kernel.node, QConv):
            words = weight_words(kernel.node, kernel.places, cut)
            texts = [f"QUAD({a}, {b}, {c}, {d})" for a, b, c, d in words.tolist()]
            name = f"{kernel.outs_name}_weights"
            weights = file.listed("int32_t", name, texts, 4 * len(words), "WORDS")
            taps = offsets(kernel)
        inputs = [
            plane.at(quad) + top * plane.pitch + left  # type: ignore[attr-defined]
            for parts in cut.reads
            for part in parts
            for plane, quad, top, left in part
        ]
        bias = file.listed("int32_t", "bias", biases(kernel.node, flat), 4 * len(flat))
        reads = file.integers("reads", inputs) if inputs else "NULL"
        body = function(kernel, cut, epilogue, taps)
        name = file.function("conv" if cut.depth else "each", comment(kernel, cut), body)
        arguments = ["s", str(len(cut.reads)), weights, bias, reads, *epilogue.arguments]
        file.calls.append(f"{name}({', '.join(arguments)}); /* {kernel.outs_name} */")


def biases(node: QConv | QElementwise, flat: Sequence[int | None]) -> list[str]:
    """Of each output; BIAS adds what is lost where bytes are taken for signed ones."""
    lost = np.zeros(len(node.bias), np.int64)
    if isinstance(node, QConv):
        lost = 128 * node.weight.astype(np.int64).sum((1, 2, 3))
    pairs = zip(spread(node.bias, flat, 0), spread(lost, flat, 0), strict=True)
    return [f"BIAS({bias}, {more})" for bias, more in pairs]


def comment(kernel: Tiled, cut: Tiling) -> str:
    """What a function computes, in a line."""
    _, h, w = kernel.shape
    if not isinstance(kernel.node, QConv):
        return f"element by element on {h}x{w}, {4 * cut.quads} channels at a time"
    rows, columns = kernel.node.weight.shape[2:]
    return f"{rows}x{columns} to {h}x{w}, {4 * cut.quads} channels at a time in {cut.parts} parts"


def offsets(kernel: Tiled) -> list[int]:
    """Words from where an output lies to each tap of its window."""
    node = kernel.node
    assert isinstance(node, QConv)
    pitch = next(iter(kernel.outs.values())).pitch
    places = [
        (y * node.dilation[0], x * node.dilation[1])
        for y, x in product(*map(range, node.weight.shape[2:]))
    ]
    if kernel.phases is None:
        top, left = node.padding[:2]
        return [(y - top) * pitch + x - left for y, x in places]
    return phase_offsets(kernel.phases.which, kernel.phases.stride, kernel.places[0].plane, places)


def phase_offsets(
    which: Sequence[tuple[int, int]],
    stride: tuple[int, int],
    plane: Plane,
    places: Sequence[tuple[int, int]],
) -> list[int]:
    """The same in packed phases."""
    rows, columns = stride
    each = plane.stride // len(which)
    return [
        which.index((y % rows, x % columns)) * each + (y // rows) * plane.pitch + x // columns
        for y, x in places
    ]


def spread(numbers: Array, flat: Sequence[int | None], none: int) -> list[int]:
    """A number for each output of the tiles, in their order."""
    return [none if output is None else int(numbers[output]) for output in flat]


def neutral(epilogue: Sequence[QEpilogueOp], at: int, zeros: dict[str, int]) -> bool:
    """Whether a clamp cuts off only what the byte that is stored next cuts off anyway."""
    op = epilogue[at]
    if not isinstance(op, Clamp) or at + 1 != len(epilogue) - 1:
        return False
    store = epilogue[at + 1]
    if not isinstance(store, Store) or store.multiplier is None:
        return False
    zero = zeros[store.value]
    low = np.rint(op.low.astype(np.float32) * store.multiplier) + zero
    high = np.rint(op.high.astype(np.float32) * store.multiplier) + zero
    return bool((low <= 0).all() and (high >= 255).all())


def stored_zeros(network: Quantized, epilogue: Sequence[QEpilogueOp]) -> dict[str, int]:
    """Of each value that an epilogue stores, the byte that means zero."""
    return {
        op.value: int(network.values[op.value].zero[0]) for op in epilogue if isinstance(op, Store)
    }


class Epilogue:
    """The epilogue of a kernel as C on the sums a0_0, a1_0 … of a tile, with their parameters."""

    def __init__(
        self,
        file: File,
        kernel: Tiled,
        network: Quantized,
        flat: Order | list[int | None],
        cut: Tiling,
    ) -> None:
        self.file, self.kernel, self.network = file, kernel, network
        self.flat, self.outputs = list(flat), 4 * cut.quads
        self.first = sum(
            len(other.reads) * other.quads for other in kernel.cuts[: kernel.cuts.index(cut)]
        )
        self.quads = cut.quads
        self.parameters: list[str] = []
        self.arguments: list[str] = []
        self.advance: list[str] = []  # from a tile to the next
        self.before: list[str] = []  # at the beginning of a tile
        self.lines: list[tuple[int, str]] = []  # with their quad, and {v} for the vector
        self.after: list[str] = []  # at the end of a tile
        epilogue = kernel.node.epilogue
        zeros = stored_zeros(network, epilogue)
        for at, op in enumerate(epilogue):
            if isinstance(op, Clamp):
                if not neutral(epilogue, at, zeros):
                    self._clamp(at, op)
            elif isinstance(op, Add):
                self._add(at, op)
            elif isinstance(op, Gate):
                self._gate(at, op)
            else:
                self._store(at, op)

    def _parameter(self, text: str, argument: str, step: int) -> None:
        self.parameters.append(text)
        self.arguments.append(argument)
        if step:
            self.advance.append(f"{text.split('*')[-1]} += {step}")

    def _integers(self, name: str, numbers: Sequence[int]) -> None:
        table = self.file.integers(name.rstrip("0123456789"), list(numbers))
        self._parameter(
            f"const int32_t *{name}", table, len(numbers) // (len(self.flat) // self.outputs)
        )

    def _clamp(self, at: int, op: Clamp) -> None:
        low, high = spread(op.low, self.flat, 0), spread(op.high, self.flat, 0)
        floor = None
        if max(low) > -HUGE:
            if any(low):
                self._integers(f"low{at}", low)
                floor = f"splat(low{at}[{{i}}])"
            else:
                floor = "splat(0)"
        if floor is not None:
            self._each(f"{{a}} = larger({{a}}, {floor});")
        if min(high) < HUGE:
            self._integers(f"high{at}", high)
            self._each(f"{{a}} = smaller({{a}}, splat(high{at}[{{i}}]));")

    def _each(self, line: str) -> None:
        for i in range(self.outputs):
            self.lines.append((i // 4, line.format(a=f"a{i}_{{v}}", i=i)))

    def _beside(self, at: int, value: str) -> None:
        """Load the quads of another value beside the outputs'."""
        quads = self.kernel.others[value][self.first : self.first + len(self.flat) // 4]
        self._integers(f"at{at}_", [plane.at(quad) for plane, quad in quads])
        for q in range(self.quads):
            place = f"s + at{at}_[{q}] + p + AT({{v}})"
            self.lines.append((q, f"const vq x{at}_{q}_{{v}} = line({place}, SIDE, pitch);"))

    def _add(self, at: int, op: Add) -> None:
        self._beside(at, op.value)
        zero = self.network.values[op.value].zero
        self._integers(f"f{at}_", spread(op.factor, self.flat, 0))
        for i in range(self.outputs):
            self._times(at, i, f"f{at}_[{i}]")
        shift = -op.factor.astype(np.int64) * zero
        if shift.any():
            self._integers(f"c{at}_", spread(shift, self.flat, 0))
            self._each(f"{{a}} = plus({{a}}, splat(c{at}_[{{i}}]));")

    def _times(self, at: int, i: int, factor: str) -> None:
        """Add a factor times the other value's byte to the sum of output `i`."""
        byte = f"x{at}_{i // 4}_{{v}}, {i % 4}"
        self.lines.append((i // 4, f"a{i}_{{v}} = times_words(a{i}_{{v}}, {byte}, {factor});"))

    def _gate(self, at: int, op: Gate) -> None:
        self._beside(at, op.value)
        view = self.kernel.gates[op.gate]
        places = [
            0 if o is None else 4 * view.places[o].at + view.places[o].lane for o in self.flat
        ]
        self._integers(f"g{at}_", places)
        own, zero = (self.network.values[name].zero for name in (op.value, op.gate))
        self._integers(f"z{at}_", spread(zero, self.flat, 0))
        self.before += [
            f"int32_t f{at}[{self.outputs}];",
            f"for (int i = 0; i < {self.outputs}; i++)",
            f"    f{at}[i] = lane(s[g{at}_[i] / 4], g{at}_[i] % 4) - z{at}_[i];",
        ]
        if own.any():
            self._integers(f"own{at}_", spread(own, self.flat, 0))
        for i in range(self.outputs):
            self._times(at, i, f"f{at}[{i}]")
            if own.any():
                more = f"splat(-own{at}_[{i}] * f{at}[{i}])"
                self.lines.append((i // 4, f"a{i}_{{v}} = plus(a{i}_{{v}}, {more});"))

    def _store(self, at: int, op: Store) -> None:
        assert op.multiplier is not None
        plane = self.kernel.outs[op.value]
        zero = int(self.network.values[op.value].zero[0])
        numbers = [0.0 if o is None else float(op.multiplier[o]) for o in self.flat]
        quads = range(self.first, self.first + len(self.flat) // 4)
        self._integers(f"to{at}_", [plane.at(quad) for quad in quads])
        table = self.file.floats(f"scale_{op.value}", np.array(numbers, np.float32))
        self._parameter(f"const float *m{at}_", table, self.outputs)
        for q in range(self.quads):
            made = ", ".join(f"scaled(a{i}_{{v}}, m{at}_[{i}])" for i in range(4 * q, 4 * q + 4))
            place = f"s + to{at}_[{q}] + p + AT({{v}})"
            self.lines.append((q, f"put_line({place}, quads({made}, {zero}), SIDE, pitch);"))
        if plane.gap != (0, 0):
            fill = f"{zero * 0x01010101}u"
            end = plane.stride if plane.stride else plane.line
            self.after.append(
                f"for (int q = 0; q < {self.quads}; q++)\n            gaps(s + to{at}_[q], "
                f"{plane.height}, {plane.width}, {plane.pitch}, {end}, {fill});"
            )
            if plane.below:
                self.after += [
                    f"if (to{at}_[0] == {plane.origin})",
                    f"    for (int i = 1; i <= {plane.below}; i++) s[{plane.origin} - i] = {fill};",
                ]


def function(kernel: Tiled, cut: Tiling, epilogue: Epilogue, taps: Sequence[int]) -> str:
    """The C of a kernel of this shape."""
    plane = next(iter(kernel.outs.values()))
    outputs = 4 * cut.quads
    words = len(taps) * cut.depth * outputs
    parameters = [
        "uint32_t *s, int tiles, const int32_t *w, const int32_t *b, const int32_t *in",
        *epilogue.parameters,
    ]
    advance = [
        f"w += {words} * WORDS" if words else "(void)w",
        f"b += {outputs}",
        f"in += {cut.parts * cut.depth}" if cut.depth else "(void)in",
        *epilogue.advance,
    ]
    lines = [
        f"LAYER @({', '.join(parameters)})",
        "{",
    ]
    if len(taps) > 1:
        lines.append(
            f"    static const int32_t taps[{len(taps)}] = {{{', '.join(map(str, taps))}}};"
        )
    lines += [
        f"    for (int t = 0; t < tiles; t++, {', '.join(advance)}) {{",
        *(f"        {line}" for line in epilogue.before),
        "#if REGISTERS >= 32",
        *loops(cut, epilogue, taps, plane, cut.many, cut.quads),
        "#else",
        *loops(cut, epilogue, taps, plane, cut.few, BLOCK),
        "#endif",
        *(f"        {line}" for line in epilogue.after),
        "    }",
        "}",
    ]
    return "\n".join(lines)


def loops(
    cut: Tiling, epilogue: Epilogue, taps: Sequence[int], plane: Plane, many: int, block: int
) -> list[str]:
    """The loop over whole tiles and that over the vectors left, `block` quads at a time."""
    high, wide = plane.height, plane.width
    blocks = [range(at, min(at + block, cut.quads)) for at in range(0, cut.quads, block)]
    found = [
        f"        enum {{ pitch = {plane.pitch}, wide = {wide}, by_rows = BY_ROWS({high}, {wide}, "
        f"{many}),",
        f"            vectors = ((by_rows ? {high * wide} : {plane.line}) + LANES - 1) / LANES }};",
        "        int n = 0;",
    ]
    if many > 1:
        found += [
            f"        for (; n + {many} <= vectors; n += {many}) {{",
            "            const int p = AT(n);",
            *(line for quads in blocks for line in tile(cut, epilogue, taps, many, quads)),
            "        }",
        ]
    return [
        *found,
        "        for (; n < vectors; n++) {",
        "            const int p = AT(n);",
        *(line for quads in blocks for line in tile(cut, epilogue, taps, 1, quads)),
        "        }",
    ]


def tile(
    cut: Tiling, epilogue: Epilogue, taps: Sequence[int], many: int, quads: range
) -> list[str]:
    """One register tile, these quads of outputs: sums, products, epilogue."""
    outputs = range(4 * quads.start, 4 * quads.stop)
    lines = ["            {"]
    for i in outputs:
        names = ", ".join(f"a{i}_{v} = {f'a{i}_0' if v else f'splat(b[{i}])'}" for v in range(many))
        lines.append(f"            vi {names};")
    if cut.depth:
        lines.append("            const int32_t *u = w;")
        for part in range(cut.parts):
            lines += _part(cut, taps, part, many, outputs)
    for v in range(many):
        lines.append("            {")
        lines += [f"                {line.format(v=v)}" for q, line in epilogue.lines if q in quads]
        lines.append("            }")
    return [*lines, "            }"]


def _part(cut: Tiling, taps: Sequence[int], part: int, many: int, outputs: range) -> list[str]:
    """The products of those outputs that read the same quads; steps over the others' weights."""
    members = [i for i, p in enumerate(cut.pattern) if p == part]
    mine = [(place, i) for place, i in enumerate(members) if i in outputs]
    pad = " " * 16
    if not mine:
        if part + 1 == cut.parts:
            return []
        return [f"            u += {cut.depth * len(taps) * len(members)} * WORDS;"]
    single = len(taps) == 1
    start = f"in[{part * cut.depth} + k]"
    lines = [f"            for (int k = 0; k < {cut.depth}; k++) {{"]
    if single:
        lines.append(f"{pad}const uint32_t *x = s + {start} + p + ({taps[0]});")
        step = f"{pad}u += {len(members)} * WORDS;"
    else:
        lines.append(f"{pad}const uint32_t *at = s + {start} + p;")
        lines.append(f"{pad}for (int i = 0; i < {len(taps)}; i++, u += {len(members)} * WORDS) {{")
        lines.append(f"{pad}const uint32_t *x = at + taps[i];")
        step = f"{pad}}}"
    loads = ", ".join(f"x{v} = operand(line(x + AT({v}), SIDE, pitch))" for v in range(many))
    lines.append(f"{pad}const vx {loads};")
    for place, i in mine:
        products = " ".join(f"a{i}_{v} = dot(a{i}_{v}, x{v}, g);" for v in range(many))
        lines.append(f"{pad}{{ const vw g = weights(u + {place} * WORDS); {products} }}")
    return [*lines, step, "            }"]
