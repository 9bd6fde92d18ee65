"""Operators of the float graph as JSON values and the arrays they name, and back."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler import graph
from leancnn.compiler.graph import Op

KINDS: dict[str, Any] = {kind.__name__: kind for kind in Op.__args__}
WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("Activation", "kind"): get_args(graph.ActivationKind),
    ("Combine", "how"): get_args(graph.Combining),
    ("Pool", "how"): get_args(graph.Pooling),
    ("Reduce", "how"): get_args(graph.Reducing),
    ("Reduce", "over"): get_args(graph.Axes),
}
"""Fields that are one of a few words."""


def op_to_data(op: Op, path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """JSON values, and the arrays by the names in them, which begin with `path`.

    >>> op_to_data(graph.Softmax(), "n1.op")
    ({'op': 'Softmax', 'log': False}, {})
    """
    data: dict[str, Any] = {"op": type(op).__name__}
    arrays: dict[str, NDArray[Any]] = {}
    for key in op.__dataclass_fields__:
        value = getattr(op, key)
        if isinstance(value, np.ndarray):
            arrays[f"{path}.{key}"] = value
            data[key] = {"array": f"{path}.{key}"}
        elif isinstance(value, float) and not np.isfinite(value):
            data[key] = {"float": str(value)}
        else:
            data[key] = list(value) if isinstance(value, tuple) else value
    return data, arrays


def op_from_data(data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Op:
    """The operator that `op_to_data` wrote. Raises `KeyError`, `TypeError` or `ValueError` for what
    is none."""
    kind, fields = data["op"], {}
    for key, value in data.items():
        if key == "op":
            continue
        if isinstance(value, dict):
            value = arrays[value["array"]] if "array" in value else float(value["float"])
        words = WORDS.get((kind, key))
        if isinstance(value, str) if words is None else value not in words:
            raise ValueError(f"{kind} has no {key} {value!r}")
        fields[key] = tuple(value) if isinstance(value, list) else value
    made: Op = KINDS[kind](**fields)
    return made
