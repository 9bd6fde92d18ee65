"""Steps on every number of a value, channels side by side."""

from dataclasses import dataclass

from leancnn.compiler.blocked import (
    BlockedKernel,
    block_loops,
    blocked_kernel,
    finish,
    head_rows,
)
from leancnn.compiler.c_text import File
from leancnn.compiler.kernel import Kernel, Plan
from leancnn.compiler.values import WIDEST


@blocked_kernel
@dataclass(frozen=True, slots=True, eq=False)
class ElementwiseKernel(BlockedKernel):
    """Steps on each pixel of each sixteen channels."""

    @classmethod
    def can(cls, kernel: Kernel) -> bool:
        return kernel.op is None and kernel.x.whole is not None

    def cost(self) -> float:
        return self.vectors * self.pixels * 3.0 + self.steps_cost()

    def words(self, plan: Plan) -> tuple[str, str]:
        return "element by element", "tile: 1 pixel"

    def body(self, file: File, plan: Plan) -> str:
        return _each_pixel(self)


def _each_pixel(kernel: Kernel) -> str:
    """Steps on each pixel of each sixteen channels."""
    head, plane = head_rows(kernel), kernel.out.stride
    steps = finish(kernel, 1, WIDEST, "at + p", "c")
    lines = [
        *block_loops(-(-kernel.channels // WIDEST), head * WIDEST),
        f"        const int at = b * {plane} + l, c = b * {WIDEST} + l;",
        "        const float *u = w + l;" if head else "",
        f"        for (int p = 0; p < {kernel.height * kernel.width * WIDEST}; p += {WIDEST}) {{",
        f"            vf y = load(s + t[0] + b * {kernel.x.planes[0][0].stride} + l + p);",
        *(f"            {step}" for step in steps),
        "        }",
        "" if any("+ c)" in step for step in steps) else "        (void)c;",
        "    }",
        "" if head else "    (void)w;",
        "}",
    ]
    return "\n".join(line for line in lines if line)
