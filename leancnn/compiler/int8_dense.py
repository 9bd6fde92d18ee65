"""Layers whose result is a vector, as C: a matrix by bytes or by sums, then the epilogue."""

from itertools import product

import numpy as np

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_layout import ChannelView
from leancnn.compiler.int8_program import Dense, Norm
from leancnn.compiler.integers import Add, Array, Clamp, Gate, QConv, QEpilogueOp, Quantized

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
NORM = """
LAYER @(uint32_t *s)
{
    for (int from = 0; from < $channels; from += $each) {
        int32_t squares = 0;
        for (int o = from; o < from + $each; o++) {
            const int32_t x = lane(s[$places[o] / 4], $places[o] % 4) - $zero[o];
            squares += x * x;
        }
        const float factor = squares ? $step[0] / sqrtf((float)squares) : 0.0f;
        for (int o = from; o < from + $each; o++) {
            const int32_t x = lane(s[$places[o] / 4], $places[o] % 4) - $zero[o];
            const uint32_t byte = byte_of(requantize(x, factor), $to_zero);
            uint32_t *to = s + $origin + o / 4;
            *to = o % 4 ? *to | byte << 8 * (o % 4) : byte;
        }
    }
}
"""


def emit_dense(file: File, kernel: Dense, network: Quantized) -> None:
    """Gather what is read, multiply, and do the epilogue for each output."""
    node = kernel.node
    name = next(iter(kernel.outs))
    inputs, products = _products(file, kernel, name)
    epilogue = [_statement(file, kernel, network, op) for op in node.epilogue]
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


def places_of(file: File, view: ChannelView) -> str:
    """The name of a table of bytes in the arena, four for each word."""
    return file.integers("places", [4 * place.at + place.lane for place in view.places])


def _statement(file: File, kernel: Dense, network: Quantized, op: QEpilogueOp) -> str:
    """C of one operator of the epilogue, on the sum a of output o."""
    zero_of = {name: value.zero for name, value in network.values.items()}
    if isinstance(op, Clamp):
        low = file.integers("low", op.low.tolist())
        high = file.integers("high", op.high.tolist())
        return f"a = between(a, {low}[o], {high}[o]);"
    if isinstance(op, Add):
        places = places_of(file, kernel.others[op.value])
        factor = file.integers("factor", op.factor.tolist())
        zero = file.integers("zero", zero_of[op.value].tolist())
        byte = f"lane(s[{places}[o] / 4], {places}[o] % 4)"
        return f"a += {factor}[o] * ({byte} - {zero}[o]);"
    if isinstance(op, Gate):
        terms = []
        for name in (op.value, op.gate):
            places = places_of(file, kernel.others[name])
            zero = file.integers("zero", zero_of[name].tolist())
            terms.append(f"(lane(s[{places}[o] / 4], {places}[o] % 4) - {zero}[o])")
        return f"a += {' * '.join(terms)};"
    plane = kernel.outs[op.value]
    if op.multiplier is None:
        return f"s[{plane.origin} + o] = (uint32_t)a;"
    table = file.floats(f"scale_{op.value}", op.multiplier)
    return fill(STORE, table=table, zero=int(zero_of[op.value][0]), origin=plane.origin)


def emit_norm(file: File, kernel: Norm, network: Quantized) -> None:
    """Squares added up, one division and one root a group, and each number by that."""
    node, view = kernel.node, kernel.x
    channels = len(view.places)
    each = channels // node.groups
    places = places_of(file, view)
    zero = file.integers("zero", network.values[node.x].zero.tolist())
    step = file.floats(f"step_{node.out}", node.step)
    to_zero = int(network.values[node.out].zero[0])
    body = fill(
        NORM,
        channels=channels,
        each=each,
        places=places,
        zero=zero,
        step=step,
        to_zero=to_zero,
        origin=kernel.out.origin,
    )
    word = file.function("normed", f"{node.groups} vectors by their lengths", body)
    file.calls.append(f"{word}(s); /* {node.out} */")
