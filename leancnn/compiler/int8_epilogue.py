"""What follows sums of integers, as C: clamps, other values, gates, and bytes that are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leancnn.compiler.c_text import File
from leancnn.compiler.int8_layout import ChannelView, Plane
from leancnn.compiler.int8_tiles import Tiling
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


def spread(numbers: Array, flat: Sequence[int | None], none: int) -> list[int]:
    """A number for each output of the tiles, in their order."""
    return [none if output is None else int(numbers[output]) for output in flat]


def biases(node: QConv | QElementwise, flat: Sequence[int | None]) -> list[str]:
    """Of each output; BIAS adds what is lost where bytes are taken for signed ones."""
    lost = np.zeros(len(node.bias), np.int64)
    if isinstance(node, QConv):
        lost = 128 * node.weight.astype(np.int64).sum((1, 2, 3))
    pairs = zip(spread(node.bias, flat, 0), spread(lost, flat, 0), strict=True)
    return [f"BIAS({bias}, {more})" for bias, more in pairs]


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


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """The operators of an epilogue along lines of quads, what they read, and where they store."""

    ops: tuple[QEpilogueOp, ...]
    outs: dict[str, Plane]
    others: dict[str, list[tuple[Plane, int]]]  # of an added value: the quad beside each output's
    gates: dict[str, ChannelView]

    def reads(self) -> list[Plane]:
        """The planes that it reads."""
        beside = [plane for quads in self.others.values() for plane, _ in quads]
        return beside + [plane for view in self.gates.values() for plane in view.planes]

    def stored_after(self, old: Plane) -> list[Plane]:
        """What it stores after it has read these planes for the last time."""
        last = max(
            at
            for at, op in enumerate(self.ops)
            if isinstance(op, Add | Gate) and old in [p for p, _ in self.others[op.value]]
        )
        return [self.outs[op.value] for op in self.ops[last:] if isinstance(op, Store)]


class VectorAccess(NamedTuple):
    """How an epilogue reads and writes a vector of quads at a place: C with {place} and {quads}."""

    load: str
    put: str


LINES = VectorAccess("line({place}, SIDE, pitch)", "put_line({place}, {quads}, SIDE, pitch);")


class Epilogue:
    """The epilogue of a kernel as C on the sums a0_0, a1_0 … of a tile, with their parameters.

    `flat`: the channel of each output of all tiles of a cut, whose first is quad number `first`.
    """

    def __init__(
        self,
        file: File,
        network: Quantized,
        operands: Operands,
        cut: Tiling,
        flat: Sequence[int | None],
        first: int,
        access: VectorAccess = LINES,
    ) -> None:
        self.access = access
        self.file, self.operands, self.network = file, operands, network
        self.flat, self.outputs = list(flat), 4 * cut.quads
        self.first, self.quads = first, cut.quads
        self.parameters: list[str] = []
        self.arguments: list[str] = []
        self.steps: list[int] = []  # of each, from a tile to the next
        self.advance: list[str] = []  # from a tile to the next
        self.before: list[str] = []  # at the beginning of a tile
        self.lines: list[tuple[int, str]] = []  # with their quad, and {v} for the vector
        self.after: list[str] = []  # at the end of a tile
        epilogue = operands.ops
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
        self.steps.append(step)
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
        if op.low.max() > -HUGE:  # of all outputs: every tiling of a node has the same parameters
            if op.low.any():
                self._integers(f"low{at}", low)
                floor = f"splat(low{at}[{{i}}])"
            else:
                floor = "splat(0)"
        if floor is not None:
            self._each(f"{{a}} = larger({{a}}, {floor});")
        if op.high.min() < HUGE:
            self._integers(f"high{at}", high)
            self._each(f"{{a}} = smaller({{a}}, splat(high{at}[{{i}}]));")

    def _each(self, line: str) -> None:
        for i in range(self.outputs):
            self.lines.append((i // 4, line.format(a=f"a{i}_{{v}}", i=i)))

    def _beside(self, at: int, value: str) -> None:
        """Load the quads of another value beside the outputs'."""
        quads = self.operands.others[value][self.first : self.first + len(self.flat) // 4]
        self._integers(f"at{at}_", [plane.at(quad) for plane, quad in quads])
        for q in range(self.quads):
            place = f"s + at{at}_[{q}] + p + AT({{v}})"
            load = self.access.load.replace("{place}", place)
            self.lines.append((q, f"const vq x{at}_{q}_{{v}} = {load};"))

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
        view = self.operands.gates[op.gate]
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
        plane = self.operands.outs[op.value]
        zero = int(self.network.values[op.value].zero[0])
        numbers = [0.0 if o is None else float(op.multiplier[o]) for o in self.flat]
        quads = range(self.first, self.first + len(self.flat) // 4)
        self._integers(f"to{at}_", [plane.at(quad) for quad in quads])
        table = self.file.floats(f"scale_{op.value}", np.array(numbers, np.float32))
        self._parameter(f"const float *m{at}_", table, self.outputs)
        for q in range(self.quads):
            made = ", ".join(f"scaled(a{i}_{{v}}, m{at}_[{i}])" for i in range(4 * q, 4 * q + 4))
            place = f"s + to{at}_[{q}] + p + AT({{v}})"
            put = self.access.put.replace("{place}", place)
            self.lines.append((q, put.replace("{quads}", f"quads({made}, {zero})")))
        if plane.gap != (0, 0):
            zeros = f"{zero * 0x01010101}u"
            end = plane.stride if plane.stride else plane.line
            self.after.append(
                f"for (int q = 0; q < {self.quads}; q++)\n    gaps(s + to{at}_[q], "
                f"{plane.height}, {plane.width}, {plane.pitch}, {end}, {zeros});"
            )
            if plane.below:
                self.after += [
                    f"if (to{at}_[0] == {plane.origin})",
                    f"    for (int i = 1; i <= {plane.below}; i++) "
                    f"s[{plane.origin} - i] = {zeros};",
                ]
