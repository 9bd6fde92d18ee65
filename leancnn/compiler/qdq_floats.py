"""What a file rounds with QuantizeLinear, computed in floats: where it has no integer form."""

import numpy as np

from leancnn.compiler.graph import Activation, Affine, Graph, Node, Quantize, empty, floats
from leancnn.errors import UnsupportedError


def is_quantized(graph: Graph) -> bool:
    """Whether a file rounds what it computes."""
    return any(isinstance(node.op, Quantize) for node in graph.nodes)


def in_floats(graph: Graph) -> Graph:
    """The same function with every rounding as operators on floats: the nearest whole number of the
    quotient, half to even, within its ends."""
    made = empty(graph.shapes[graph.input])
    names = {graph.input: made.input}
    for node in graph.nodes:
        inputs = [names[value] for value in node.inputs]
        if isinstance(node.op, Quantize):
            names[node.output] = _rounded(made, node, node.op, inputs[0])
        else:
            names[node.output] = made.add(node.op, *inputs, name=node.output)
    made.output = names[graph.output]
    return made


def _rounded(graph: Graph, node: Node, op: Quantize, x: str) -> str:
    zero = op.zero[0]
    if (op.zero != zero).any():
        raise UnsupportedError(f"{node.output} is rounded with a zero point for each channel")
    name, ones = node.output, np.ones(len(op.zero))
    x = graph.add(Affine(floats(1 / op.scale), floats(0 * ones)), x, name=f"{name}_scaled")
    ends = Activation("clip", float(op.low - zero), float(op.high - zero))
    x = graph.add(Activation("round"), graph.add(ends, x, name=f"{name}_ends"), name=f"{name}_near")
    return graph.add(Affine(floats(ones), floats(zero * ones)), x, name=name)
