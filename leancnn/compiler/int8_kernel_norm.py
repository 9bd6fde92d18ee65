"""Vectors divided by their lengths, as C."""

from collections.abc import Sequence
from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_layout import ChannelView, Plane, natural
from leancnn.compiler.integers import QNorm, Quantized

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


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Norm(NodeKernel):
    """Groups of one vector by their lengths."""

    node: QNorm
    x: ChannelView
    out: Plane
    takes = (QNorm,)

    @classmethod
    def lower(cls, node: QNorm, lowering: Lowering) -> None:
        x = lowering.views[node.x]
        lowering.add(cls(node, x, lowering.value(node.out, natural(len(x.places)))))

    def reads(self) -> Sequence[Plane]:
        return self.x.planes

    def writes(self) -> Sequence[Plane]:
        return [self.out]

    def c(self, file: File, network: Quantized) -> None:
        node, view = self.node, self.x
        channels = len(view.places)
        each = channels // node.groups
        places = file.integers("places", view.bytes)
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
            origin=self.out.origin,
        )
        word = file.function("normed", f"{node.groups} vectors by their lengths", body)
        file.calls.append(f"{word}(s); /* {node.out} */")
