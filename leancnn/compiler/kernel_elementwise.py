"""Element-wise operators alone, along the long lines of planes."""

from dataclasses import dataclass
from types import NoneType
from typing import Any

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Shape
from leancnn.compiler.kernel import kernel
from leancnn.compiler.loops import Tiling
from leancnn.compiler.planar import PlanarKernel, place_of

SUMS = """
const float *x = $place;
$load(x + 0)
"""


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class ElementwiseKernel(PlanarKernel):
    """Only an epilogue."""

    op: None
    takes = (NoneType,)

    @classmethod
    def fits(cls, op: Any, shape: Shape) -> bool:
        return shape[1:] != (1, 1)

    @property
    def role(self) -> str:
        return "elementwise"

    @property
    def elementwise(self) -> bool:
        return True

    def words(self) -> str:
        return "element by element"

    def sums(self, file: File, plan: Tiling, size: int) -> str:
        load = file.tile("LOAD", plan.outputs, size)
        return fill(SUMS, place=place_of(plan, "0"), load=load)
