"""A quantized network as JSON and the arrays it names, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from leancnn.compiler.graph import Gather
from leancnn.compiler.graph_data import op_from_data, op_to_data
from leancnn.compiler.integers import (
    Add,
    Array,
    Clamp,
    Gate,
    QConv,
    QElementwise,
    QFloat,
    QNode,
    QNorm,
    Quantized,
    QValue,
    Store,
    arrays_of,
    overflows,
    reads,
    writes,
)
from leancnn.errors import DamagedError

KINDS: dict[str, Any] = {kind.__name__: kind for kind in QNode.__args__}
FORMAT_2 = {
    "QEach": "QElementwise",
    "QJoin": "QConcat",
    "QReal": "QDequantize",
    "QRound": "QQuantize",
    "QTable": "QLookup",
    "QTake": "QGather",
    "QTotal": "QGlobalSum",
}
"""What nodes were called in files of format 2, and what they are called now."""
KINDS |= {old: KINDS[new] for old, new in FORMAT_2.items()}
EPILOGUE_OPS: dict[str, Any] = {kind.__name__: kind for kind in (Clamp, Add, Gate, Store)}


def to_data(network: Quantized) -> tuple[dict[str, Any], dict[str, Array]]:
    """JSON and the arrays it names; `from_data` is the way back."""
    arrays = arrays_of(network)
    nodes = []
    for place, node in enumerate(network.nodes):
        nodes.append({"kind": type(node).__name__, **_plain(node, f"n{place}")})
    values = {
        name: {
            "shape": list(value.shape),
            "wide": value.wide,
            "most": value.most,
            **({"real": True} if value.real else {}),
        }
        for name, value in network.values.items()
    }
    about = {"image": network.image, "output": network.output, "values": values, "nodes": nodes}
    return about, arrays


def _plain(item: Any, path: str) -> dict[str, Any]:
    """The fields of a node or epilogue operator; an array becomes the name it is stored under."""
    plain: dict[str, Any] = {}
    for key in item.__dataclass_fields__:
        value = getattr(item, key)
        if isinstance(value, np.ndarray):
            plain[key] = {"array": f"{path}.{key}"}
        elif key == "op":
            plain[key] = op_to_data(value, f"{path}.op")[0]
        elif key == "epilogue":
            plain[key] = [
                {"kind": type(op).__name__, **_plain(op, f"{path}.s{number}")}
                for number, op in enumerate(value)
            ]
        else:
            plain[key] = list(value) if isinstance(value, tuple) else value
    return plain


def from_data(about: Mapping[str, Any], arrays: Mapping[str, Array]) -> Quantized:
    """The network that `to_data` wrote. Raises `DamagedError` for what is none."""
    try:
        values = {
            name: QValue(
                tuple(given["shape"]),
                arrays[f"{name}.scale"],
                arrays[f"{name}.zero"],
                given["wide"],
                given["most"],
                given.get("real", False),
            )
            for name, given in about["values"].items()
        }
        nodes = [_node(given, arrays) for given in about["nodes"]]
        image, output, shift = about["image"], about["output"], arrays["shift"]
        made = Quantized(image, output, values, nodes, shift, arrays.get("step"))
        check(made)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DamagedError(f"not a quantized network ({error!r})") from error
    return made


def _node(given: Mapping[str, Any], arrays: Mapping[str, Array]) -> QNode:
    given = {"epilogue" if key == "steps" else key: value for key, value in given.items()}
    fields = {
        key: op_from_data(value, arrays) if key == "op" else _field(value, arrays)
        for key, value in given.items()
        if key != "kind"
    }
    made: QNode = KINDS[given["kind"]](**fields)
    if isinstance(made, QConv | QElementwise):
        epilogue = tuple(
            EPILOGUE_OPS[op["kind"]](**{k: _field(v, arrays) for k, v in op.items() if k != "kind"})
            for op in given["epilogue"]
        )
        made = replace(made, epilogue=epilogue)
    return made


def _field(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        return arrays[value["array"]]
    return tuple(value) if isinstance(value, list) else value


def check(network: Quantized) -> None:
    """Raises `DamagedError` where a node reads what is not there or sums may overflow."""
    known = {network.image}
    for node in network.nodes:
        for name in reads(node):
            if name not in known:
                raise DamagedError(f"{name} is read before it is made")
        known.update(writes(node))
        if isinstance(node, QConv | QElementwise) and overflows(node, network.values):
            raise DamagedError("sums of the network do not fit 32 bits")
        if isinstance(node, QFloat):
            shapes = [network.values[name].shape for name in node.xs]
            if isinstance(node.op, Gather) and not (
                min(node.op.channels) >= 0 and max(node.op.channels) < shapes[0][0]
            ):
                raise DamagedError(f"{node.out} takes a channel that is not there")
            if node.op.shape(*shapes) != network.values[node.out].shape:
                raise DamagedError(f"{node.out} has another shape than its operator makes")
        if isinstance(node, QNorm) and network.values[node.x].shape[0] * 255**2 >= 2**31:
            raise DamagedError("squares of the network do not fit 32 bits")
    if network.output not in known:
        raise DamagedError(f"nothing makes the answer {network.output}")
