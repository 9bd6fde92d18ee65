"""A network as a graph model of TensorFlow.js, for benchmarks/web.py, without TensorFlow.

Written as TensorFlow's own converter writes it: channels last, batch norms folded, biases and ReLUs
fused into convolutions, and a convolution in groups as one for each group, for TensorFlow.js has no
other. https://github.com/tensorflow/tfjs/blob/master/tfjs-converter/docs/supported_ops.md
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    Shape,
    Sides,
)
from leancnn.errors import UnsupportedError

_FLOAT = {"T": {"type": "DT_FLOAT"}}
RELUS = {float("inf"): "Relu", 6.0: "Relu6"}
COMBINED = {"add": "AddV2", "sub": "Sub", "mul": "Mul", "div": "RealDiv", "max": "Maximum",
            "min": "Minimum"}  # fmt: skip
ELEMENTWISE = {"sigmoid": "Sigmoid", "sqrt": "Sqrt", "tanh": "Tanh", "exp": "Exp"}
REDUCED = {"mean": "Mean", "sum": "Sum", "max": "Max"}


def write(graph: Graph, folder: Path) -> None:
    """Write model.json and weights.bin. Raises `UnsupportedError` for what has no form there."""
    made = _Written(graph)
    weights = [{"name": n, "shape": list(a.shape), "dtype": str(a.dtype)} for n, a in made.weights]
    manifest = [{"paths": ["weights.bin"], "weights": weights}]
    topology = {"node": made.nodes, "versions": {"producer": 1882}}
    model = {"format": "graph-model", "modelTopology": topology, "weightsManifest": manifest}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    (folder / "weights.bin").write_bytes(b"".join(a.tobytes() for _, a in made.weights))


class _Written:
    """The nodes and weights of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[tuple[str, NDArray[Any]]] = []
        self.names: dict[str, str] = {}
        c, h, w = graph.shapes[graph.input]
        shape = {"shape": {"dim": [{"size": str(size)} for size in (1, h, w, c)]}}
        self.names[graph.input] = self.add("Placeholder", [], shape=shape)
        users, done = graph.users(), set[str]()
        for node in graph.nodes:
            if node.output in done:
                continue
            out = node.output
            relu = _relu(users[out]) if isinstance(node.op, Conv) and out != graph.output else None
            if relu is not None:
                out = users[out][0].output
                done.add(out)
            self.names[out] = self._node(node, relu)
        self.nodes.append({"name": "answer", "op": "Identity", "input": [self.names[graph.output]],
                           "attr": _FLOAT})  # fmt: skip

    def add(self, op: str, inputs: Sequence[str], **attr: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append({"name": name, "op": op, "input": [*inputs], "attr": {**_FLOAT, **attr}})
        return name

    def const(self, array: Any, dtype: str = "float32") -> str:
        name = f"n{len(self.nodes)}"
        self.weights.append((name, np.ascontiguousarray(array, dtype)))
        kind = {"dtype": {"type": "DT_FLOAT" if dtype == "float32" else "DT_INT32"}}
        self.nodes.append({"name": name, "op": "Const", "input": [], "attr": kind})
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(numbers, "int32")

    def _node(self, node: Node, relu: str | None) -> str:
        xs = [self.names[name] for name in node.inputs]
        shape = self.graph.shapes[node.inputs[0]]
        match node.op:
            case Conv():
                return self._conv(node.op, xs[0], shape, relu)
            case Affine(scale, shift):
                return self.add(
                    "AddV2", [self.add("Mul", [xs[0], self.const(scale)]), self.const(shift)]
                )
            case Activation():
                return self._activation(node.op, xs[0])
            case Combine(how):
                return self.add(COMBINED[how], xs)
            case Gather(channels):
                return self._gather(channels, xs[0], shape)
            case Concat():
                return self.add("ConcatV2", [*xs, self.ints(3)], N={"i": str(len(xs))})
            case Crop(top, left, height, width):
                return self.slice(xs[0], (0, top, left, 0), (1, height, width, shape[0]))
            case Pool():
                return self._pool(node.op, xs[0], shape)
            case Reduce(how, over):
                return self._reduce(how, over, xs[0])
            case Reshape(to):
                return self._reshape(xs[0], shape, to)
        raise UnsupportedError(f"{type(node.op).__name__} has no form in TensorFlow.js")

    def slice(self, x: str, begin: Sequence[int], size: Sequence[int]) -> str:
        return self.add("Slice", [x, self.ints(*begin), self.ints(*size)])

    def _conv(self, op: Conv, x: str, shape: Shape, relu: str | None) -> str:
        kernel = (op.weight.shape[2], op.weight.shape[3])
        x, padding = self._padded(x, shape, op.padding, kernel, op.stride, op.dilation, 0.0)
        fused = ["BiasAdd", *([relu] if relu else [])]
        attr = {
            "strides": _numbers(1, *op.stride, 1),
            "dilations": _numbers(1, *op.dilation, 1),
            "padding": _text(padding),
            "data_format": _text("NHWC"),
            "fused_ops": {"list": {"s": [_coded(word) for word in fused]}},
            "num_args": {"i": "1"},
            "epsilon": {"f": 0.0},
        }
        outputs, each = op.weight.shape[:2]
        if each == 1 and op.groups == shape[0] > 1:
            filters = op.weight.reshape(op.groups, -1, *kernel).transpose(2, 3, 0, 1)
            given = [x, self.const(filters), self.const(op.bias)]
            return self.add("FusedDepthwiseConv2dNative", given, **attr)
        if op.groups == 1:
            given = [x, self.const(op.weight.transpose(2, 3, 1, 0)), self.const(op.bias)]
            return self.add("_FusedConv2D", given, **attr)
        split = self.add("Split", [self.ints(3), x], num_split={"i": str(op.groups)})
        made = []
        for group in range(op.groups):
            rows = slice(group * outputs // op.groups, (group + 1) * outputs // op.groups)
            part = f"{split}:{group}" if group else split
            weight = self.const(op.weight[rows].transpose(2, 3, 1, 0))
            made.append(self.add("_FusedConv2D", [part, weight, self.const(op.bias[rows])], **attr))
        return self.add("ConcatV2", [*made, self.ints(3)], N={"i": str(op.groups)})

    def _padded(
        self,
        x: str,
        shape: Shape,
        padding: Sides,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        value: float,
    ) -> tuple[str, str]:
        """What a window slides over, and TensorFlow's word for the padding that is left to do."""
        if not any(padding):
            return x, "VALID"
        same = [0, 0, 0, 0]
        for axis in (0, 1):
            size, reach = shape[1 + axis], dilation[axis] * (kernel[axis] - 1) + 1
            need = max((-(-size // stride[axis]) - 1) * stride[axis] + reach - size, 0)
            same[axis], same[axis + 2] = need // 2, need - need // 2
        if tuple(same) == padding:
            return x, "SAME"
        top, left, bottom, right = padding
        sides = self.const([[0, 0], [top, bottom], [left, right], [0, 0]], "int32")
        return self.add("PadV2", [x, sides, self.const(value)]), "VALID"

    def _activation(self, op: Activation, x: str) -> str:
        match op:
            case Activation("clip", 0.0, high) if high in RELUS:
                return self.add(RELUS[high], [x])
            case Activation("leaky", slope):
                return self.add("LeakyRelu", [x], alpha={"f": slope})
            case Activation(kind) if kind in ELEMENTWISE:
                return self.add(ELEMENTWISE[kind], [x])
            case Activation("silu"):
                return self.add("Mul", [x, self.add("Sigmoid", [x])])
            case Activation("hardsigmoid" | "hardswish" as kind):
                six = self.add("Relu6", [self.add("AddV2", [x, self.const(3.0)])])
                gate = self.add("Mul", [six, self.const(1 / 6)])
                return gate if kind == "hardsigmoid" else self.add("Mul", [x, gate])
            case Activation("reciprocal"):
                return self.add("RealDiv", [self.const(1.0), x])
        raise UnsupportedError(f"{op.kind} from {op.low} to {op.high} has no form in TensorFlow.js")

    def _gather(self, channels: tuple[int, ...], x: str, shape: Shape) -> str:
        if channels == tuple(range(channels[0], channels[0] + len(channels))):
            return self.slice(x, (0, 0, 0, channels[0]), (1, *shape[1:], len(channels)))
        given = [x, self.ints(*channels), self.const(3, "int32")]
        return self.add("GatherV2", given, batch_dims={"i": "0"})

    def _pool(self, op: Pool, x: str, shape: Shape) -> str:
        x, padding = self._padded(x, shape, op.padding, op.kernel, op.stride, (1, 1), -1e30)
        if op.how == "mean" and any(op.padding) and (padding != "SAME" or op.count_padding):
            raise UnsupportedError("a padded mean has no form in TensorFlow.js")
        attr = {"ksize": _numbers(1, *op.kernel, 1), "strides": _numbers(1, *op.stride, 1)}
        attr |= {"padding": _text(padding), "data_format": _text("NHWC")}
        return self.add("MaxPool" if op.how == "max" else "AvgPool", [x], **attr)

    def _reduce(self, how: str, over: str, x: str) -> str:
        axes = self.ints(1, 2) if over == "pixels" else self.ints(3)
        kept = {"keep_dims": {"b": True}}
        if how == "norm":
            squares = self.add("Mul", [x, x])
            return self.add("Sqrt", [self.add("Sum", [squares, axes], **kept)])
        return self.add(REDUCED[how], [x, axes], **kept)

    def _reshape(self, x: str, shape: Shape, to: Shape) -> str:
        """Numbers keep the order of planes, which lie last here."""
        planes = self.add("Transpose", [x, self.ints(0, 3, 1, 2)])
        turned = self.add("Reshape", [planes, self.ints(1, *to)])
        return self.add("Transpose", [turned, self.ints(0, 2, 3, 1)])


def _relu(users: Sequence[Node]) -> str | None:
    """TensorFlow's word for the ReLU that alone reads a value."""
    if len(users) == 1 and isinstance(users[0].op, Activation):
        op = users[0].op
        return RELUS.get(op.high) if op.kind == "clip" and op.low == 0 else None
    return None


def _coded(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


def _text(word: str) -> dict[str, str]:
    return {"s": _coded(word)}


def _numbers(*numbers: int) -> dict[str, Any]:
    return {"list": {"i": [str(number) for number in numbers]}}
