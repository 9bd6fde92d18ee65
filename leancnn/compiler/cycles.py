"""What each kernel of a scheduled program takes, in cycles of the cost model, by its kind.

The cost model chooses between layouts and tiles, so it need not be right between kinds of kernels:
whoever wants seconds fits a factor for each kind (`leancnn.search.latency_model`).
"""

from leancnn.compiler.graph import Conv
from leancnn.compiler.memory import Schedule


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
        found[kernel.role] = found.get(kernel.role, 0.0) + kernel.cost()
        found["kernels"] += 1
        found["weights"] += kernel.op.weight.size if isinstance(kernel.op, Conv) else 0
    return found
