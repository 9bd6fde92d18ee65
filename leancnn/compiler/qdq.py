"""A quantized network as ONNX with QuantizeLinear and DequantizeLinear: standard operators only.

Between each pair of them stands the float operator that the integers stand for, so that any engine
runs it, and one that knows the pattern in 8-bit integers. Activations are uint8, weights int8 per
channel, biases int32 at the product of the scales. Where an engine sums in floats a number may
come out one step from ours.
"""

from typing import Any

import numpy as np

from leancnn.compiler.integers import (
    Add,
    Array,
    Clamp,
    Gate,
    QConcat,
    QConv,
    QCrop,
    QDequantize,
    QElementwise,
    QEpilogueOp,
    QFloat,
    QGather,
    QGlobalSum,
    QLookup,
    QMaxPool,
    QNode,
    QNorm,
    QQuantize,
    Quantized,
    QValue,
    Store,
    stores,
)
from leancnn.compiler.qdq_layers import add_layer

OPSET = 17
PLANES = "image_as_planes"


def to_qdq(network: Quantized, size: tuple[int, int], channels: int) -> Any:
    """The ONNX model: uint8 `image` (1, H, W, C) in, float32 of signals; float32 `logits`
    (1, classes) out. Needs the package onnx.
    """
    from onnx import TensorProto, helper

    writer = Writer(network)
    planes, kind = PLANES, TensorProto.UINT8
    if network.step is not None:
        planes, kind = "signals", TensorProto.FLOAT
    writer.nodes.append(helper.make_node("Transpose", ["image"], [planes], perm=[0, 3, 1, 2]))
    if network.step is not None:
        writer.rounded(planes, network.shift, network.step)
    for node in network.nodes:
        writer.node(node)
    answer, meaning = network.output, network.values[network.output]
    if not meaning.wide:
        answer = writer.real(answer)
    flat = writer.add("Flatten", [answer], f"{answer}_flat", axis=1)
    scale = meaning.scale if meaning.wide else np.ones(len(meaning.scale))
    writer.add("Mul", [flat, writer.constant(scale.astype(np.float32))], "logits")
    given = helper.make_tensor_value_info("image", kind, [1, *size, channels])
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(meaning.scale)])
    graph = helper.make_graph(writer.nodes, "quantized", [given], [made], writer.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


class Writer:
    """Nodes and constants so far. A value's bytes have its name; wide values are whole floats."""

    def __init__(self, network: Quantized) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: dict[str, str] = {}

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        inputs = [PLANES if name == self.network.image else name for name in inputs]
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, array: Array) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def fresh(self, stem: str) -> str:
        return f"{stem}_{len(self.nodes)}"

    def rounded(self, signals: str, shift: Array, step: Array) -> None:
        """Signals as the bytes that the network takes."""
        centred = self.add("Sub", [signals, self.constant(_channels(shift))], "signals_apart")
        steps = self.add("Div", [centred, self.constant(_channels(step))], "signals_steps")
        whole = self.add("Round", [steps], "signals_whole")
        ends = [self.constant(np.array(end, np.float32)) for end in (0, 255)]
        clipped = self.add("Clip", [whole, *ends], "signals_clipped")
        self.add("Cast", [clipped], PLANES, to=2)  # uint8

    def real(self, name: str, scale: Array | None = None) -> str:
        """Bytes as reals, by a scale a value or a channel; sums stay whole."""
        value = self.network.values[name]
        if value.wide or value.real:
            return name
        scale = value.scale if scale is None else scale
        one = (scale == scale[0]).all() and (value.zero == value.zero[0]).all()
        steps, zero = scale.astype(np.float32), value.zero.astype(np.uint8)
        inputs = [
            self.constant(steps[0] if one else steps),
            self.constant(zero[0] if one else zero),
        ]
        attributes = {} if one else {"axis": 1}
        out = self.fresh(f"{name}_real")
        return self.add("DequantizeLinear", [name, *inputs], out, **attributes)

    def node(self, node: QNode) -> None:
        match node:
            case QConv():
                self._conv(node)
            case QElementwise():
                self._epilogue(node.epilogue, "", _scale_of(node, self.network.values), node.bias)
            case QMaxPool(x, out, kernel, stride, padding):
                sides = {"kernel_shape": list(kernel), "strides": list(stride)}
                self.add("MaxPool", [x], out, pads=list(padding), **sides)
            case QGlobalSum(x, out):
                ones = np.ones(len(self.network.values[x].scale))
                sums = [self.real(x, ones), self.constant(np.array([2, 3]))]
                self.add("ReduceSum", sums, out, keepdims=1)
            case QLookup(x, out, table):
                places = self.add("Cast", [x], f"{out}_places", to=6)  # int32
                self.add("Gather", [self.constant(table), places], out, axis=0)
            case QNorm():
                self._normed(node)
            case QGather(x, out, channels):
                self.add("Gather", [x, self.constant(np.array(channels))], out, axis=1)
            case QConcat(xs, out):
                self.add("Concat", list(xs), out, axis=1)
            case QDequantize():
                self._floats(node)
            case QFloat(op, xs, out):
                shape = self.network.values[out].shape
                add_layer(op, list(xs), shape, out, self.add, self.constant)
            case QQuantize(x, out):
                value = self.network.values[out]
                steps = self.constant(value.scale.astype(np.float32))
                zero = self.constant(value.zero.astype(np.uint8))
                self.add("QuantizeLinear", [x, steps, zero], out, axis=1)
            case QCrop(x, out, top, left):
                _, h, w = self.network.values[out].shape
                ends = [[top, left], [top + h, left + w], [2, 3]]
                self.add("Slice", [x, *(self.constant(np.array(end)) for end in ends)], out)

    def _floats(self, node: QDequantize) -> None:
        """Bytes or sums as reals under a name of their own."""
        value = self.network.values[node.x]
        if node.x == self.network.image and self.network.step is None:  # pixels: zero is no step
            whole = self.add("Cast", [node.x], f"{node.out}_whole", to=1)  # float
            steps = self.constant(_channels(value.scale))
            scaled = self.add("Mul", [whole, steps], f"{node.out}_scaled")
            self.add("Add", [scaled, self.constant(_channels(self.network.shift))], node.out)
        elif value.wide:
            self.add("Mul", [node.x, self.constant(_channels(value.scale))], node.out)
        else:
            self.add("Identity", [self.real(node.x)], node.out)

    def _normed(self, node: QNorm) -> None:
        """Whole numbers by their length, and that to bytes."""
        value = self.network.values[node.out]
        whole = self.real(node.x, np.ones(value.shape[0]))
        shape = self.constant(np.array([1, node.groups, value.shape[0] // node.groups, 1]))
        parts = self.add("Reshape", [whole, shape], self.fresh("parts"))
        length = self.add("ReduceL2", [parts], self.fresh("length"), axes=[2], keepdims=1)
        least = self.add(
            "Max", [length, self.constant(np.ones((), np.float32))], self.fresh("length")
        )
        normed = self.add("Div", [parts, least], self.fresh("normed"))
        flat = self.constant(np.array([1, value.shape[0], 1, 1]))
        back = self.add("Reshape", [normed, flat], self.fresh("normed"))
        step = self.constant(np.array(value.scale[0], np.float32))
        zero = self.constant(np.array(value.zero[0], np.uint8))
        self.add("QuantizeLinear", [back, step, zero], node.out)

    def _conv(self, node: QConv) -> None:
        """Each channel of the input claims one scale; the weights already hold the others."""
        x = self.network.values[node.x]
        scale = _scale_of(node, self.network.values)
        first = 1.0 if x.wide else float(x.scale[0])
        own = (scale / first).astype(np.float32)
        weight = self.add(
            "DequantizeLinear",
            [self.constant(node.weight), self.constant(own), self._zeros(own, np.int8)],
            self.fresh("weight"),
            axis=0,
        )
        bias = node.bias.astype(np.int64) + _zero_part(node, x)
        total = (np.float32(first) * own).astype(np.float32)
        moved = self.add(
            "DequantizeLinear",
            [
                self.constant(bias.astype(np.int32)),
                self.constant(total),
                self._zeros(own, np.int32),
            ],
            self.fresh("bias"),
            axis=0,
        )
        image = self.real(node.x, np.full(len(x.scale), first))
        sums = self.add(
            "Conv",
            [image, weight, moved],
            self.fresh("sums"),
            strides=list(node.stride),
            pads=list(node.padding),
            dilations=list(node.dilation),
            group=node.groups,
        )
        self._epilogue(node.epilogue, sums, scale, None)

    def _zeros(self, like: Array, kind: Any) -> str:
        return self.constant(np.zeros(len(like), kind))

    def _epilogue(
        self, epilogue: tuple[QEpilogueOp, ...], sums: str, scale: Array, bias: Array | None
    ) -> None:
        """An epilogue on reals; `sums` is empty where it begins with a bias alone."""
        if bias is not None and bias.any():
            sums = self.constant(_channels(bias * scale))
        for op in epilogue:
            if isinstance(op, Clamp):
                for kind, ends in (("Max", op.low), ("Min", op.high)):
                    if kind == "Min" and ends.min() >= 2**31 - 2**20:
                        continue
                    if kind == "Max" and not ends.any():
                        sums = self.add("Relu", [sums], self.fresh("relu"))
                        continue
                    limit = self.constant(_channels(ends * scale))
                    sums = self.add(kind, [sums, limit], self.fresh("clip"))
            elif isinstance(op, Store):
                self._store(op, sums, scale)
            else:
                sums = self._added(op, sums, scale)

    def _added(self, op: Add | Gate, sums: str, scale: Array) -> str:
        if isinstance(op, Add):
            term = self.real(op.value, op.factor * scale)
        else:
            parts = [self.real(op.value), self.real(op.gate)]
            term = self.add("Mul", parts, self.fresh("gated"))
        return self.add("Add", [sums, term], self.fresh("sum")) if sums else term

    def _store(self, op: Store, sums: str, scale: Array) -> None:
        value = self.network.values[op.value]
        if op.multiplier is None:  # the answer: whole sums again
            self.add("Div", [sums, self.constant(_channels(scale))], op.value)
            return
        steps = np.float32(value.scale[0])
        zero = np.uint8(value.zero[0])
        inputs = [sums, self.constant(np.array(steps)), self.constant(np.array(zero))]
        self.add("QuantizeLinear", inputs, op.value)


def _scale_of(node: QConv | QElementwise, values: dict[str, QValue]) -> Array:
    """The scale of a node's sums, from what it stores."""
    store = stores(node)[0]
    value = values[store.value]
    if store.multiplier is None:
        return value.scale
    return np.asarray(store.multiplier.astype(np.float64) * value.scale)


def _zero_part(node: QConv, x: QValue) -> Array:
    """What a bias holds for the zero points, which ONNX takes off the input instead."""
    outputs, each = node.weight.shape[:2]
    first = np.arange(outputs) // (outputs // node.groups) * each
    zeros = x.zero[first[:, None] + np.arange(each)]
    return np.asarray((node.weight.astype(np.int64).sum((2, 3)) * zeros).sum(1))


def _channels(numbers: Array) -> Array:
    return numbers.astype(np.float32).reshape(1, -1, 1, 1)
