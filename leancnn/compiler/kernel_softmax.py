"""Softmax of a vector inside a network, or its logarithm."""

from dataclasses import dataclass

from leancnn.compiler.c_text import File, fill
from leancnn.compiler.graph import Softmax
from leancnn.compiler.kernel import InputLayout, Kernel, Plan, kernel

BODY = """
LAYER @(float *s, const int32_t *t)
{
    float most = s[t[0]], sum = 0.0f, *y = s + $out;
    for (int i = 1; i < $count; i++) most = most > s[t[i]] ? most : s[t[i]];
    for (int i = 0; i < $count; i++) $exponential
    for (int i = 0; i < $count; i++) $share
}
"""
PLAIN = {"exponential": "sum += y[i] = expf(s[t[i]] - most);", "share": "y[i] /= sum;"}
LOG = {"exponential": "sum += expf((y[i] = s[t[i]] - most));", "share": "y[i] -= logf(sum);"}


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class SoftmaxKernel(Kernel):
    """Softmax of a vector, or its logarithm."""

    op: Softmax
    takes = (Softmax,)
    follows = False

    def input_layout(self, blocked: set[bool], readable: bool) -> InputLayout | None:
        """It finds each number by itself."""
        return None if len(blocked) == 1 else "planes"

    def c(self, file: File, plan: Plan) -> None:
        places = self.x.places()
        count = len(places)
        table = file.integers(f"{self.name}_planes", places)
        body = fill(BODY, out=self.out.origin, count=count, **(LOG if self.op.log else PLAIN))
        what = "log softmax" if self.op.log else "softmax"
        name = file.function(self.name, f"{self.name}: {what} of {count}", body)
        file.calls.append(f"{name}(s, {table});")
