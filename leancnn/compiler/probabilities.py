"""What the numbers at a graph's end mean: logits, which want a softmax, or probabilities."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Graph,
    Node,
    Pool,
    Reduce,
    Reshape,
    Softmax,
)

ONE_WITHIN = 1e-3  # how far from one the sum of probabilities may be


@dataclass(frozen=True, slots=True)
class Origin:
    """What a value was made of, by operators on elements only, and where its numbers lie."""

    of: Literal["softmax", "positive", ""] = ""  # a softmax; sigmoids, exponentials; or neither
    low: float = -math.inf
    high: float = math.inf


UNKNOWN = Origin()


def ends_in_probabilities(graph: Graph) -> bool:
    """Whether a softmax, a sigmoid or exponentials stand before the end of a graph, with nothing
    between that makes logits of them: only operators on elements and such as move them.

    A softmax stays one under any line (a percentage, a difference) and under sums without negative
    weights (classes taken together, means over pixels); of sigmoids and exponentials that may have
    become negative (tanh, ELU) nothing is known. A logarithm makes logits.
    """
    known: dict[str, Origin] = {}
    for node in graph.nodes:
        known[node.output] = _origin(node, [known.get(value, UNKNOWN) for value in node.inputs])
    end = known.get(graph.output, UNKNOWN)
    return end.of == "softmax" or (end.of == "positive" and end.low >= 0)


def _activated(op: Activation, x: Origin) -> Origin:
    match op:
        case Activation("sigmoid" | "hardsigmoid"):
            return Origin("positive", 0, 1)
        case Activation("exp"):
            return Origin("positive", 0)
        case Activation("clip", low, high):
            of = x.of or ("positive" if (low, high) == (0, 1) else "")
            return Origin(of, max(x.low, low), min(x.high, high))
        case Activation("tanh"):
            return Origin("positive", -1, 1)
        case Activation("leaky" | "sqrt" | "reciprocal" | "power"):
            return Origin(x.of, 0) if x.low >= 0 else Origin(x.of)
    return UNKNOWN


def _origin(node: Node, inputs: list[Origin]) -> Origin:
    x = inputs[0]
    match node.op:
        case Softmax(log):
            return UNKNOWN if log else Origin("softmax", 0, 1)
        case Activation():
            return _activated(node.op, x)
        case Affine(scale, shift) if not scale.any():  # a constant, which leaves others as they are
            return Origin("softmax", float(shift.min()), float(shift.max()))
        case Affine(scale, shift):
            ends = [scale * end + shift for end in (x.low, x.high) if math.isfinite(end)]
            low = (
                float(np.min(ends)) if len(ends) == 2 or (ends and scale.min() >= 0) else -math.inf
            )
            return Origin(x.of, low, float(np.max(ends)) if len(ends) == 2 else math.inf)
        case Combine("div"):
            return Origin(x.of, 0) if inputs[-1].low >= 0 <= x.low else Origin(x.of)
        case Combine() | Concat():
            of = min((one.of for one in inputs), key=("", "positive", "softmax").index)
            plain = isinstance(node.op, Combine) and node.op.how == "sub"
            return Origin(of) if plain or min(one.low for one in inputs) < 0 else Origin(of, 0)
        case Gather() | Crop() | Reshape():
            return x
        case Pool("max" | "mean"):
            return Origin(x.of, min(x.low, 0), max(x.high, 0))
        case Reduce("max" | "mean"):
            return x
        case Reduce("norm"):
            return Origin("", 0)
        case Reduce("sum") if x.low >= 0:
            return Origin(x.of, 0)
        case Conv(weight, bias) if x.low >= 0 and weight.min() >= 0 and bias.min() >= 0:
            return Origin("softmax" if x.of == "softmax" else "", 0)  # classes taken together
    return UNKNOWN


def sum_to_one(answers: NDArray[Any]) -> bool:
    """Whether each row of answers (N, classes) could be probabilities."""
    if not np.isfinite(answers).all() or answers.min() < -1e-6:
        return False
    return bool((np.abs(answers.sum(1, dtype=np.float64) - 1) < ONE_WITHIN).all())
