"""Element-wise operators alone, channels side by side."""

from dataclasses import dataclass

from leancnn.compiler.arena import WIDEST
from leancnn.compiler.blocked import (
    BlockedKernel,
    blocked_kernel,
    finish,
    head_rows,
    unread,
)
from leancnn.compiler.c_text import File, fill
from leancnn.compiler.kernel import Kernel, Plan

FUNCTION = """
LAYER @(float *s, const int32_t *t, const float *w)
{
    for (int b = 0; b < $blocks; b++$next)
    for (int l = 0; l < 16; l += LANES) {
        const int at = b * $plane + l, c = b * 16 + l;
        $numbers
        for (int p = 0; p < $pixels; p += 16) {
            vf y = load(s + t[0] + b * $input + l + p);
            $epilogue
        }
        $unused
    }
    $void
}
"""


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class BlockedElementwise(BlockedKernel):
    """An epilogue on each pixel of each sixteen channels."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        return kernel.op is None and kernel.x.whole is not None

    @property
    def role(self) -> str:
        return "elementwise blocked"

    def cost(self) -> float:
        return self.vectors * self.pixels * 3.0 + self.epilogue_cost()

    def words(self, plan: Plan) -> tuple[str, str]:
        return "element by element", "tile: 1 pixel"

    def body(self, file: File, plan: Plan) -> str:
        head = head_rows(self)
        epilogue = finish(self, 1, WIDEST, "at + p", "c")
        return fill(
            FUNCTION,
            blocks=self.vectors,
            next=f", w += {head * WIDEST}" if head else "",
            plane=self.out.stride,
            numbers="const float *u = w + l;" if head else "",
            pixels=self.pixels * WIDEST,
            input=self.x.planes[0][0].stride,
            epilogue="\n".join(epilogue),
            unused=unread(epilogue, "c)"),
            void="" if head else "(void)w;",
        )
