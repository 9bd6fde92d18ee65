"""Fewer than 256 steps: what PyTorch's exporters write as a QuantizeLinear and a Clip of it."""

from dataclasses import replace

from leancnn.compiler.graph import Activation, Graph, Node, Quantize


def narrowed(graph: Graph) -> Graph:
    """The same function, a clip of whole numbers being part of the rounding that makes them.

    PyTorch's observers leave out half of the bytes (`reduce_range`, 0 to 127) for processors whose
    products of bytes saturate.
    """
    users = graph.users()
    names: dict[str, str] = {}
    made = replace(graph, nodes=[])
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        clip = _clip(users[node.output]) if isinstance(node.op, Quantize) else None
        if isinstance(node.op, Quantize) and clip is not None and clip[1].low <= node.op.low:
            narrow = replace(node.op, high=min(node.op.high, clip[1].high))
            made.nodes.append(Node(narrow, inputs, node.output))
            names[clip[0].output] = node.output
        elif node.output not in names:
            made.nodes.append(Node(node.op, inputs, node.output))
    made.output = names.get(graph.output, graph.output)
    return made


def _clip(users: list[Node]) -> tuple[Node, Activation] | None:
    """The one reader of whole numbers, if it clips them to a whole number."""
    if len(users) != 1 or not isinstance(users[0].op, Activation):
        return None
    op = users[0].op
    whole = op.kind == "clip" and op.high == round(min(op.high, 2.0**31)) and op.high >= 0
    return (users[0], op) if whole else None
