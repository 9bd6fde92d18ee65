"""Where float layers begin or end: the work itself is a kernel among floats, kernel_border.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from leancnn.compiler.borders import FromBytes, ToBytes
from leancnn.compiler.c_text import File
from leancnn.compiler.int8_kernel import Lowering, NodeKernel, int8_kernel
from leancnn.compiler.int8_layout import Plane, natural
from leancnn.compiler.integers import QDequantize, QQuantize, Quantized


@int8_kernel
@dataclass(frozen=True, slots=True, eq=False)
class Border(NodeKernel):
    """The turn of a border among the integers."""

    op: FromBytes | ToBytes
    takes = (QDequantize, QQuantize)

    @classmethod
    def lower(cls, node: QDequantize | QQuantize, lowering: Lowering) -> None:
        network, floats = lowering.network, lowering.floats
        if isinstance(node, QDequantize):
            lowering.add(cls(floats.real(node, network, lowering.views[node.x])))
            return
        out = lowering.value(node.out, natural(network.values[node.out].shape[0]))
        lowering.add(cls(floats.rounded(node, network, out)))

    def reads(self) -> Sequence[Plane]:
        return self.op.view.planes if isinstance(self.op, FromBytes) else []

    def writes(self) -> Sequence[Plane]:
        return [self.op.out] if isinstance(self.op, ToBytes) else []

    @property
    def border(self) -> object | None:
        return self.op

    def c(self, file: File, network: Quantized) -> None:
        """Nothing: the float layers have it."""
