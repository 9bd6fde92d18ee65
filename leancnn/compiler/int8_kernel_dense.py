"""Layers whose result is a vector, as C: a matrix by bytes or by sums, then the epilogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_layout import ChannelView, Plane, natural
from leancnn.compiler.integers import (
    Add,
    Array,
    Clamp,
    Gate,
    QConv,
    QElementwise,
    QEpilogueOp,
    Quantized,
    reads,
)

DENSE = """
LAYER @(uint32_t *s)
{
    $inputs
    for (int o = 0; o < $many; o++) {
        int32_t a = $bias[o];
        $products
        $epilogue
    }
}
"""
INPUTS = """
$kind x[$many];
for (int i = 0; i < $many; i++) x[i] = $get;
"""
PRODUCTS = """
const $kind *y = x$group;
const signed char *w = $weights + (size_t)o * $count;
for (int i = 0; i < $count; i++) a += w[i] * y[i];
"""
STORE = """
{
    const uint32_t byte = byte_of(requantize(a, $table[o]), $zero);
    uint32_t *to = s + $origin + o / 4;
    *to = o % 4 ? *to | byte << 8 * (o % 4) : byte;
}
"""


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Dense(NodeKernel):
    """A matrix by a vector, of bytes or of sums; or only an epilogue on a vector."""

    node: QConv | QElementwise
    x: ChannelView | None
    outs: dict[str, Plane]
    others: dict[str, ChannelView]
    takes = (QConv, QElementwise)

    @classmethod
    def fits(cls, node: Any, x: Shape, out: Shape) -> bool:
        return out[1:] == (1, 1)

    @classmethod
    def lower(cls, node: QConv | QElementwise, lowering: Lowering) -> None:
        outs = lowering.outs(node, natural(len(node.bias)))
        x = lowering.views[node.x] if isinstance(node, QConv) else None
        others = {name: lowering.views[name] for name in reads(node)[0 if x is None else 1 :]}
        lowering.add(cls(node, x, outs, others))

    def reads(self) -> Sequence[Plane]:
        views = [*([] if self.x is None else [self.x]), *self.others.values()]
        return [plane for view in views for plane in view.planes]

    def writes(self) -> Sequence[Plane]:
        return list(self.outs.values())

    def c(self, file: File, network: Quantized) -> None:
        node = self.node
        name = next(iter(self.outs))
        inputs, products = _products(file, self, name)
        epilogue = [_statement(file, self, network, op) for op in node.epilogue]
        body = fill(
            DENSE,
            inputs=inputs,
            many=len(node.bias),
            bias=file.integers("bias", node.bias.tolist()),
            products=products,
            epilogue="\n".join(epilogue),
        )
        word = file.function("dense", f"{len(node.bias)} numbers", body)
        file.calls.append(f"{word}(s); /* {name} */")


def _products(file: File, kernel: Dense, name: str) -> tuple[str, str]:
    """C that gathers what is read, and C that multiplies it for an output; both empty without."""
    node, x = kernel.node, kernel.x
    if not isinstance(node, QConv) or x is None:
        return "", ""
    weight = node.weight
    each, wide = weight.shape[1], len(weight) // node.groups
    wide_input = x.places[0].lane < 0
    inside = _taps_inside(node, x)
    flat = weight.reshape(len(weight), each, -1)[:, :, [t for t, _, _ in inside]]
    table = np.ascontiguousarray(flat.reshape(len(weight), -1))
    weights = signed_bytes(file, f"{name}_weights", table)
    places = []
    for place in x.places:
        for _, y, c in inside:
            word = place.at + y * place.plane.pitch + c
            places.append(word if wide_input else 4 * word + place.lane)
    at = file.integers("places", places)
    kind, get = (
        ("int32_t", f"(int32_t)s[{at}[i]]")
        if wide_input
        else ("uint8_t", f"(uint8_t)lane(s[{at}[i] / 4], {at}[i] % 4)")
    )
    count = table.shape[1]
    group = f" + o / {wide} * {count}" if node.groups > 1 else ""
    return (
        fill(INPUTS, kind=kind, many=len(places), get=get),
        fill(PRODUCTS, kind=kind, group=group, weights=weights, count=count),
    )


def _taps_inside(node: QConv, x: ChannelView) -> list[tuple[int, int, int]]:
    """The taps that read a pixel and not padding: their number, its row and its column."""
    top, left = node.padding[:2]
    taps = [
        (t, y * node.dilation[0] - top, c * node.dilation[1] - left)
        for t, (y, c) in enumerate(product(*map(range, node.weight.shape[2:])))
    ]
    return [(t, y, c) for t, y, c in taps if 0 <= y < x.height and 0 <= c < x.width]


def signed_bytes(file: File, name: str, numbers: Array) -> str:
    """The name of a constant array of signed bytes."""
    words = [str(number) for number in numbers.ravel().tolist()]
    return file.listed("signed char", name, words, len(words))


def _statement(file: File, kernel: Dense, network: Quantized, op: QEpilogueOp) -> str:
    """C of one operator of the epilogue, on the sum a of output o."""
    zero_of = {name: value.zero for name, value in network.values.items()}
    if isinstance(op, Clamp):
        low = file.integers("low", op.low.tolist())
        high = file.integers("high", op.high.tolist())
        return f"a = between(a, {low}[o], {high}[o]);"
    if isinstance(op, Add):
        places = file.integers("places", kernel.others[op.value].bytes)
        factor = file.integers("factor", op.factor.tolist())
        zero = file.integers("zero", zero_of[op.value].tolist())
        byte = f"lane(s[{places}[o] / 4], {places}[o] % 4)"
        return f"a += {factor}[o] * ({byte} - {zero}[o]);"
    if isinstance(op, Gate):
        terms = []
        for name in (op.value, op.gate):
            places = file.integers("places", kernel.others[name].bytes)
            zero = file.integers("zero", zero_of[name].tolist())
            terms.append(f"(lane(s[{places}[o] / 4], {places}[o] % 4) - {zero}[o])")
        return f"a += {' * '.join(terms)};"
    plane = kernel.outs[op.value]
    if op.multiplier is None:
        return f"s[{plane.origin} + o] = (uint32_t)a;"
    table = file.floats(f"scale_{op.value}", op.multiplier)
    return fill(STORE, table=table, zero=int(zero_of[op.value][0]), origin=plane.origin)
