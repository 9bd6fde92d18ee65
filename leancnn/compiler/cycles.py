"""What each kernel of a scheduled program takes, in cycles of the cost model, by its kind.

The cost model chooses between layouts and tiles, so it need not be right between kinds of kernels:
whoever wants seconds fits a factor for each kind (`leancnn.search.clock`).
"""

from leancnn.compiler.blocked import BlockedKernel
from leancnn.compiler.epilogue import steps_cost
from leancnn.compiler.graph import Conv, Pool
from leancnn.compiler.kernel import Kernel
from leancnn.compiler.kernel_dense import DenseKernel
from leancnn.compiler.kernel_pointwise import PointwiseKernel
from leancnn.compiler.kernel_reduce import ReduceKernel
from leancnn.compiler.kernel_winograd import WinogradKernel
from leancnn.compiler.memory import Schedule
from leancnn.compiler.planar import PlanarKernel
from leancnn.compiler.values import WIDEST


def cycles(schedule: Schedule) -> dict[str, float]:
    """By kind: cycles of its kernels; `kernels` counts them, `weights` their numbers.

    >>> from leancnn.compiler.lower import lower
    >>> from leancnn.compiler.memory import schedule
    >>> from leancnn.compiler.graph import empty
    >>> cycles(schedule(lower(empty((10, 1, 1)))))
    {'kernels': 0.0, 'weights': 0.0}
    """
    found = {"kernels": 0.0, "weights": 0.0}
    for kernel in schedule.program.kernels:
        kind, cost = _cost(kernel)
        found[kind] = found.get(kind, 0.0) + cost
        found["kernels"] += 1
        op = getattr(kernel, "op", None)
        found["weights"] += op.weight.size if isinstance(op, Conv) else 0
    return found


def _cost(kernel: Kernel) -> tuple[str, float]:
    match kernel:
        case PlanarKernel():
            return _planar(kernel), kernel.cost()
        case BlockedKernel():
            return _blocked(kernel), kernel.cost()
        case DenseKernel():
            macs = kernel.op.weight.size if kernel.op is not None else 0
            rest = kernel.channels / WIDEST * (2 + steps_cost(kernel.steps))
            return "dense", macs / WIDEST + rest
        case ReduceKernel():
            return "reduce", _pixels(kernel) / WIDEST
        case _:
            return "moves", float(_pixels(kernel))


def _pixels(kernel: Kernel) -> int:
    """Numbers that a kernel reads."""
    return sum(len(value.planes) * value.height * value.width for value in kernel.reads())


def _planar(kernel: PlanarKernel) -> str:
    op = kernel.op
    if not isinstance(op, Conv):
        return "pooling" if isinstance(op, Pool) else "steps"
    strided = " strided" if op.stride != (1, 1) else ""
    if op.groups == kernel.channels:
        return f"depthwise{strided}"
    if op.weight.shape[2:] == (1, 1):
        return f"pointwise{strided}"
    return f"window{strided}"


def _blocked(kernel: BlockedKernel) -> str:
    if isinstance(kernel, PointwiseKernel):
        return "pointwise blocked"
    if isinstance(kernel, WinogradKernel):
        return "winograd"
    return "depthwise blocked" if isinstance(kernel.op, Conv) else "steps blocked"
