"""An ONNX image classifier to a graph: batch 1, static shapes, the operators that stand here."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import DamagedError, MissingDependencyError, UnsupportedError
from leancnn.native.graph import Graph, Pool, Sides, Softmax
from leancnn.native.text import identifier
from leancnn.native.views import Builder, View, image_shape, windows

Attributes = dict[str, Any]
Handler = Callable[[Builder, list[Any], Attributes], Any]
Found = Any  # a view, or a list of views
handlers: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a function for operators; it gets the builder, the inputs and the attributes."""

    def put(function: Handler) -> Handler:
        handlers.update(dict.fromkeys(names, function))
        return function

    return put


def import_onnx(path: Path) -> tuple[Graph, dict[str, Any]]:
    """The graph of a file, and what our own files say about themselves (classes, road).

    Only the file itself is read: weights outside of it are refused. Raises `DamagedError` for what
    is no ONNX file, `UnsupportedError` naming an operator or shape that cannot be compiled,
    `MissingDependencyError` without onnx.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "onnx is not installed; pip install 'leancnn[onnx]'"
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # protobuf's errors share no class of their own
        raise DamagedError(f"{path}: not an ONNX file ({error})") from error
    graph = model.graph
    if any(tensor.data_location == tensor.EXTERNAL for tensor in graph.initializer):
        raise UnsupportedError(f"{path}: its weights stand in other files; save it as one file")
    known: dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
    }
    inputs = [value for value in graph.input if value.name not in known]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UnsupportedError(
            f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; only one of each"
        )
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if len(sizes) != 4 or not all(sizes[1:]) or sizes[0] not in (0, 1):
        raise UnsupportedError(f"{path}: its input has the shape {sizes}; only (1, C, H, W)")
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise UnsupportedError(f"{path}: its input is not float32")
    builder = Builder(image_shape((1, *sizes[1:])))
    known[inputs[0].name] = builder.image()
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        builder.name = identifier(node.name.strip("/") or node.op_type.lower())
        values = [known[name] if name else None for name in node.input]
        results = _apply(builder, node.op_type, values, attributes, numpy_helper)
        results = results if isinstance(results, list) else [results]
        known.update(zip(node.output, results, strict=False))
    builder.graph.output = builder.settle(known[graph.output[0].name])
    notes = {item.key: item.value for item in model.metadata_props}
    return builder.graph, json.loads(notes.get("leancnn", "{}"))


def _apply(
    builder: Builder, kind: str, values: list[Any], attributes: Attributes, helper: Any
) -> Any:
    if kind == "Constant":
        if "value" in attributes:
            return helper.to_array(attributes["value"])
        return np.array(next(iter(attributes.values())))
    if kind == "Shape":
        return np.array(values[0].shape, np.int64)
    if not any(isinstance(value, View) for value in values):
        return _constant(kind, values, attributes, helper)
    if kind not in handlers:
        raise UnsupportedError(
            f"operator {kind} (at {builder.name}) is not supported; there are: "
            + ", ".join(sorted(handlers))
        )
    return handlers[kind](builder, values, attributes)


def _constant(kind: str, values: list[Any], attributes: Attributes, helper: Any) -> Any:
    """What exporters compute from shapes and constants."""
    x = values[0]
    match kind:
        case "Concat":
            return np.concatenate(values, attributes["axis"])
        case "Gather":
            return np.take(x, values[1], attributes.get("axis", 0))
        case "Unsqueeze":
            axes = attributes["axes"] if "axes" in attributes else values[1]
            return np.expand_dims(x, tuple(np.atleast_1d(axes)))
        case "Squeeze":
            return np.squeeze(x)
        case "Cast":
            return x.astype(np.float32 if attributes["to"] == 1 else np.int64)
        case "Identity":
            return x
        case "Add" | "Sub" | "Mul" | "Div":
            names = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}
            whole = np.floor_divide if x.dtype.kind == "i" else np.divide
            return names.get(kind, whole)(x, values[1])
        case "ConstantOfShape":
            fill = helper.to_array(attributes["value"])[0] if "value" in attributes else 0.0
            return np.full(x, fill)
        case "Reshape":
            return x.reshape(values[1])
        case "Transpose":
            return x.transpose(attributes.get("perm"))
        case "Slice":
            return _sliced(x, values[1:])
    raise UnsupportedError(f"operator {kind} on constants is not supported")


def _pads(attributes: Attributes, x: View, kernel: Sequence[int]) -> Sides:
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", ""):
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        return top, left, bottom, right
    if auto == "VALID":
        return 0, 0, 0, 0
    room = []
    for axis in (0, 1):
        stride = attributes.get("strides", [1, 1])[axis]
        reach = (kernel[axis] - 1) * attributes.get("dilations", [1, 1])[axis] + 1
        size = x.shape[axis + 2]
        room.append(max((-(-size // stride) - 1) * stride + reach - size, 0))
    first = [r // 2 if auto == "SAME_UPPER" else r - r // 2 for r in room]
    return first[0], first[1], room[0] - first[0], room[1] - first[1]


@handles("Conv")
def _conv(b: Builder, values: list[Any], a: Attributes) -> View:
    x, weight, bias = (*values, None)[:3]
    return b.conv(
        x,
        weight,
        bias,
        stride=a.get("strides", [1, 1]),
        padding=_pads(a, x, weight.shape[2:]),
        dilation=a.get("dilations", [1, 1]),
        groups=a.get("group", 1),
    )


@handles("Gemm")
def _gemm(b: Builder, values: list[Any], a: Attributes) -> View:
    x, weight, bias = (*values, None)[:3]
    weight = weight if a.get("transB") else weight.T
    if bias is not None:
        bias = np.broadcast_to(a.get("beta", 1.0) * bias, (1, len(weight))).reshape(-1)
    return b.linear(x, a.get("alpha", 1.0) * weight, bias)


@handles("MatMul")
def _matmul(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.linear(values[0], values[1].T, None)


@handles("BatchNormalization")
def _batch_norm(b: Builder, values: list[Any], a: Attributes) -> View:
    x, gamma, beta, mean, variance = values
    scale = gamma / np.sqrt(variance.astype(np.float64) + a.get("epsilon", 1e-5))
    return b.affine(x, scale, beta - mean * scale)


@handles("Relu")
def _relu(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.activate(values[0], "clip")


@handles("Clip")
def _clip(b: Builder, values: list[Any], a: Attributes) -> View:
    low, high = (*values[1:], None, None)[:2]
    low = a.get("min", -np.inf) if low is None else low
    return b.activate(
        values[0], "clip", float(low), float(a.get("max", np.inf) if high is None else high)
    )


@handles("LeakyRelu")
def _leaky(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.activate(values[0], "leaky", a.get("alpha", 0.01))


@handles("HardSigmoid")
def _hard_sigmoid(b: Builder, values: list[Any], a: Attributes) -> View:
    line = b.affine(values[0], a.get("alpha", 0.2), a.get("beta", 0.5))
    return b.activate(line, "clip", 0, 1)


for _name, _curve in (
    ("Sigmoid", "sigmoid"),
    ("HardSwish", "hardswish"),
    ("Exp", "exp"),
    ("Sqrt", "sqrt"),
    ("Reciprocal", "reciprocal"),
):

    def _curved(b: Builder, values: list[Any], a: Attributes, curve: Any = _curve) -> View:
        return b.activate(values[0], curve)

    handles(_name)(_curved)
for _name, _how in (
    ("Add", "add"),
    ("Sub", "sub"),
    ("Mul", "mul"),
    ("Div", "div"),
    ("Max", "max"),
    ("Min", "min"),
):

    def _combined(b: Builder, values: list[Any], a: Attributes, how: Any = _how) -> View:
        return b.combine(how, values[0], values[1])

    handles(_name)(_combined)
for _name, _how in (
    ("ReduceMean", "mean"),
    ("ReduceSum", "sum"),
    ("ReduceMax", "max"),
    ("ReduceL2", "norm"),
):

    def _reduce(b: Builder, values: list[Any], a: Attributes, how: str = _how) -> View:
        axes = a.get("axes", values[1] if len(values) > 1 else range(1, len(values[0].shape)))
        return b.reduce(values[0], how, [int(axis) for axis in axes], bool(a.get("keepdims", 1)))

    handles(_name)(_reduce)


@handles("GlobalAveragePool")
def _global_mean(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.reduce(values[0], "mean", (2, 3), keep=True)


@handles("GlobalMaxPool")
def _global_max(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.reduce(values[0], "max", (2, 3), keep=True)


def _pool(b: Builder, x: View, a: Attributes, how: Any, count_padding: bool) -> View:
    if set(a.get("dilations", [1])) != {1}:
        raise UnsupportedError("pooling with dilation is not supported")
    kernel: Any = tuple(a["kernel_shape"])
    stride: Any = tuple(a.get("strides", [1, 1]))
    around = _pads(a, x, kernel)
    around, beyond = windows(x.shape, kernel, stride, around, bool(a.get("ceil_mode")))
    return b.pool(x, Pool(how, kernel, stride, around, beyond, count_padding))


@handles("MaxPool")
def _max_pool(b: Builder, values: list[Any], a: Attributes) -> View:
    return _pool(b, values[0], a, "max", True)


@handles("AveragePool")
def _mean_pool(b: Builder, values: list[Any], a: Attributes) -> View:
    return _pool(b, values[0], a, "mean", bool(a.get("count_include_pad")))


@handles("Softmax")
def _softmax(b: Builder, values: list[Any], a: Attributes) -> View:
    x = values[0]
    if image_shape(x.shape)[1:] != (1, 1):
        raise UnsupportedError(f"Softmax of {x.shape}; only of a vector")
    return b.add(Softmax(), b.settle(x), like=x.shape)


@handles("Identity", "Dropout", "Cast")
def _same(b: Builder, values: list[Any], a: Attributes) -> Found:
    return values[0]


@handles("Reshape")
def _reshape(b: Builder, values: list[Any], a: Attributes) -> Found:
    x, to = values[0], [int(size) for size in values[1]]
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(to)]
    return x.moved(lambda array: array.reshape(sizes))


@handles("Flatten")
def _flatten(b: Builder, values: list[Any], a: Attributes) -> Found:
    x, axis = values[0], a.get("axis", 1)
    return x.moved(lambda array: array.reshape(int(np.prod(x.shape[:axis])), -1))


@handles("Transpose")
def _transpose(b: Builder, values: list[Any], a: Attributes) -> Found:
    return values[0].moved(lambda array: array.transpose(a.get("perm")))


@handles("Squeeze")
def _squeeze(b: Builder, values: list[Any], a: Attributes) -> Found:
    x = values[0]
    axes = a.get("axes", values[1] if len(values) > 1 else None)
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if axis and size == 1]
    return x.moved(lambda array: array.squeeze(tuple(int(axis) for axis in axes)))


@handles("Unsqueeze")
def _unsqueeze(b: Builder, values: list[Any], a: Attributes) -> Found:
    axes = tuple(int(axis) for axis in a.get("axes", values[-1]))
    return values[0].moved(lambda array: np.expand_dims(array, axes))


@handles("Expand")
def _expand(b: Builder, values: list[Any], a: Attributes) -> Found:
    shape = np.broadcast_shapes(values[0].shape, tuple(int(size) for size in values[1]))
    return values[0].moved(lambda array: np.broadcast_to(array, shape))


def _sliced(array: NDArray[Any], limits: list[Any]) -> NDArray[Any]:
    starts, ends = limits[:2]
    axes = limits[2] if len(limits) > 2 and limits[2] is not None else range(len(starts))
    steps = limits[3] if len(limits) > 3 else [1] * len(starts)
    cut = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return array[tuple(cut)]


@handles("Slice")
def _slice(b: Builder, values: list[Any], a: Attributes) -> Found:
    return values[0].moved(lambda array: _sliced(array, values[1:]))


@handles("Gather")
def _gather(b: Builder, values: list[Any], a: Attributes) -> Found:
    return values[0].moved(lambda array: np.take(array, values[1], a.get("axis", 0)))


@handles("Split")
def _split(b: Builder, values: list[Any], a: Attributes) -> list[View]:
    x, axis = values[0], a.get("axis", 0)
    sizes = a.get("split", values[1] if len(values) > 1 else None)
    if sizes is None:
        count = a["num_outputs"]
        sizes = [-(-x.shape[axis] // count)] * (count - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    pieces = np.split(x.elements(), np.cumsum(sizes)[:-1], axis)
    return [View(x.value, piece.shape, piece) for piece in pieces]


@handles("Concat")
def _concat(b: Builder, values: list[Any], a: Attributes) -> View:
    return b.join(values, a["axis"])


@handles("Pad")
def _pad(b: Builder, values: list[Any], a: Attributes) -> View:
    pads = [int(p) for p in (a["pads"] if "pads" in a else values[1])]
    fill = values[2] if len(values) > 2 and values[2] is not None else a.get("value", 0.0)
    if a.get("mode", b"constant") != b"constant" or float(fill) or len(pads) != 8 or min(pads) < 0:
        raise UnsupportedError("Pad is supported with zeros around an image only")
    return b.pad(values[0], (pads[1], pads[5], pads[2], pads[6], pads[3], pads[7]))
