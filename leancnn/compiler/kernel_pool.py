"""Maximum or mean over sliding windows, along the long lines of planes."""

from dataclasses import dataclass

import numpy as np

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Floats, Pool, Sides, floats
from leancnn.compiler.kernel import kernel
from leancnn.compiler.literals import number
from leancnn.compiler.loops import Tiling, outside_is_zero
from leancnn.compiler.planar import PlanarKernel, place_of

SUMS = """
const float *x = $place;
$load(x + $first)
$others
"""


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class PoolKernel(PlanarKernel):
    """Maximum or mean over sliding windows."""

    op: Pool
    takes = (Pool,)

    @property
    def role(self) -> str:
        return "pooling"

    @property
    def positive(self) -> bool:
        return all(buffer.positive for buffer in self.x.buffers)

    def margins(self) -> Sides:
        return self.op.padding if outside_is_zero(self.op, self) else (0, 0, 0, 0)

    def words(self) -> str:
        op = self.op
        stride = f", stride {op.stride[0]}" if op.stride != (1, 1) else ""
        return f"{op.how} pooling {op.kernel[0]}x{op.kernel[1]}{stride}"

    @property
    def _even(self) -> bool:
        """Whether every window of a mean has as many pixels."""
        return not any(self.op.padding) or (self.op.count_padding and self.op.beyond == (0, 0))

    def factors(self) -> Floats | None:
        """One over the number of pixels that count, where windows of a mean differ in it."""
        if self.op.how != "mean" or self._even:
            return None
        rows = self.op.counted(0, self.x.height, self.height)
        columns = self.op.counted(1, self.x.width, self.width)
        share = np.zeros((self.height, self.out.pitch))
        share[:, : self.width] = 1 / np.outer(rows, columns)
        line = share.ravel()
        return floats(np.pad(line, (0, -len(line) % WIDEST)))

    def scaling(self) -> list[str]:
        if self.op.how != "mean":
            return []
        if not self._even:
            return ["y = y * load(share + p + v * LANES);"]
        return [f"y = y * {number(1 / (self.op.kernel[0] * self.op.kernel[1]))};"]

    def sums(self, file: File, plan: Tiling, size: int) -> str:
        first, *others = plan.taps
        other = file.tile("LARGER" if self.op.how == "max" else "PLUS", plan.outputs, size)
        return fill(
            SUMS,
            place=place_of(plan, "0"),
            load=file.tile("LOAD", plan.outputs, size),
            first=first,
            others="\n".join(f"{other}(x + {tap})" for tap in others),
        )
