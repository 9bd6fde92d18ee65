"""An ONNX image classifier to a graph: batch 1, static shapes, the operators of `onnx_ops.py`."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.compiler import onnx_activations  # noqa: F401  registers more
from leancnn.compiler.answers import ends_in_probabilities
from leancnn.compiler.c_text import identifier
from leancnn.compiler.graph import Graph, Reshape, Shape, Softmax
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import View
from leancnn.compiler.onnx_ops import Call, handlers
from leancnn.errors import DamagedError, MissingDependencyError, RunError, UnsupportedError

COLOURS = (1, 3, 4)
"""Channels by which an axis of an image is known as the one of its channels."""
MOST = 2**26  # numbers of an input: places in the arena are 32-bit integers
MISTAKES = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    StopIteration,
    MemoryError,
)
"""What Python raises where a file says something its operator does not allow."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A graph, and what else the file says."""

    graph: Graph
    notes: dict[str, Any]  # what our own files say about themselves: classes, road
    integers: bool  # its input is uint8
    channels_last: bool
    final: str  # "softmax" or "log softmax", where the graph leaves it off; "probabilities"; or ""


def import_onnx(path: Path, size: tuple[int, int] | None = None) -> Imported:
    """The graph of a file; a softmax at its end is left off. `size`: rows and columns of the image
    where the file leaves them open.

    Of other files only weights are read that lie beside it, as the file says. Raises `RunError`
    when there is none, `DamagedError` for what is no ONNX file, `UnsupportedError` naming an
    operator or shape that cannot be compiled, `MissingDependencyError` without onnx.
    """
    model = _loaded(path)
    try:
        made = Walk(model, size)
        graph, final = _without_end(made.graph)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    except MISTAKES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path}: it contradicts itself ({reason})") from error
    notes = {item.key: item.value for item in model.metadata_props}
    return Imported(graph, _read(notes), made.integers, made.channels_last, final)


def _loaded(path: Path) -> Any:
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise MissingDependencyError(
            "onnx is not installed; pip install 'leancnn[onnx]'"
        ) from error
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("no operator in it")
        _fetch(_weights(model.graph), path.parent)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except UnsupportedError:
        raise
    except Exception as error:  # protobuf's errors share no class of their own
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: not an ONNX file ({reason})") from error
    return model


def _weights(graph: Any) -> Iterator[Any]:
    """Those of a graph and of its branches."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                yield from _weights(branch)


def _fetch(tensors: Iterable[Any], folder: Path) -> None:
    """Put weights that lie in files beside the model into it. Raises `UnsupportedError`."""
    from onnx import external_data_helper as external

    for tensor in tensors:
        if not external.uses_external_data(tensor):
            continue
        name = external.ExternalDataInfo(tensor).location
        place = folder / name
        if Path(name).name != name or place.is_symlink() or not place.is_file():
            raise UnsupportedError(
                f"{folder}: weights are to be in the file {name!r}, which is not beside the model"
            )
        external.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = tensor.DEFAULT


def _read(notes: dict[str, str]) -> dict[str, Any]:
    """What `leancnn export --to onnx` wrote into a file, as far as it can be believed."""
    try:
        found = json.loads(notes.get("leancnn", "{}"))
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    classes = found.get("classes")
    known = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    road = found.get("road")
    return {
        "classes": classes if known else None,
        "road": road if isinstance(road, dict) else None,
    }


class Walk:
    """One walk over a model: constants are computed, the rest becomes a graph."""

    def __init__(self, model: Any, size: tuple[int, int] | None) -> None:
        from onnx import TensorProto

        graph = model.graph
        names = {"ai.onnx": ""}  # one domain by two names
        self.opsets = {names.get(i.domain, i.domain): i.version for i in model.opset_import}
        self.known: dict[str, Any] = {}
        for tensor in graph.initializer:
            self.known[tensor.name] = _array(tensor)
        inputs = [value for value in graph.input if value.name not in self.known]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise UnsupportedError(
                f"{len(inputs)} inputs and {len(graph.output)} outputs; the compiler takes one of "
                "each"
            )
        kind = inputs[0].type.tensor_type.elem_type
        self.integers = kind == TensorProto.UINT8
        if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
            name = TensorProto.DataType.Name(kind).lower()
            raise UnsupportedError(f"its input is {name}; the compiler takes float or uint8")
        shape = _fixed(inputs[0].type.tensor_type.shape.dim, size)
        self.channels_last = False
        orders = (
            [False] if len(shape) != 4 else [True, False] if _ends_in_channels(shape) else [False]
        )
        known, reasons = dict(self.known), []
        for last in orders:
            self.known, self.channels_last = dict(known), last
            c, h, w = _planes(shape, last)
            self.builder = Builder((c, h, w))
            view = self.builder.image(shape, channels_last=last)
            self.known[inputs[0].name] = view
            try:
                self._walk(graph.node)
                self.graph = self._finished(graph.output[0].name)
                return
            except UnsupportedError as error:
                reasons.append(error)
        raise reasons[0]

    def _finished(self, name: str) -> Graph:
        result = self._value(name, "the network's output")
        if not isinstance(result, View):
            raise UnsupportedError("its output does not depend on the image")
        count = int(np.prod(result.shape))
        if max(result.shape, default=1) == count:  # a vector, under whatever shape
            result = result.moved(lambda a: a.reshape(1, -1))
        self.builder.graph.output = self.builder.settle(result)
        return self.builder.graph

    def _walk(self, nodes: Iterable[Any]) -> None:
        from onnx import helper

        for node in nodes:
            kind = node.op_type
            where = node.name or (node.output[0] if node.output else kind)
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values = [self._value(name, where) if name else None for name in node.input]
            if kind == "If" and not isinstance(values[0], View):
                branch = attributes["then_branch" if np.all(values[0]) else "else_branch"]
                self.known.update({tensor.name: _array(tensor) for tensor in branch.initializer})
                self._walk(branch.node)
                results = [self._value(out.name, where) for out in branch.output]
            else:
                self.builder.name = identifier((node.name or kind.lower()).strip("/"))
                call = Call(values, attributes, len(node.output), self.opsets.get("", 1))
                results = self._results(node, call, where)
            self.known.update(zip(node.output, results, strict=False))

    def _value(self, name: str, where: str) -> Any:
        if name not in self.known:
            raise UnsupportedError(f"'{name}', which {where} reads, is made by nothing before it")
        return self.known[name]

    def _results(self, node: Any, call: Call, where: str) -> list[Any]:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        shape_only = kind in ("Shape", "Size")
        if kind not in handlers and not shape_only and _has_view(call.values):
            known = ", ".join(sorted(handlers))
            raise UnsupportedError(
                f"operator {kind} (at {where}) is not supported; there are: {known}"
            )
        try:
            if shape_only and isinstance(call.values[0], View):
                shape = np.array(call.values[0].shape, np.int64)
                part = shape[call.get("start", 0) : call.get("end")]
                return [part if kind == "Shape" else np.array(shape.prod())]
            if not _has_view(call.values):
                return _computed(node, call.values, self.opsets)
            results = handlers[kind](self.builder, call)
        except UnsupportedError as error:
            raise UnsupportedError(f"{kind} (at {where}): {error}") from error
        except MISTAKES as error:
            reason = " ".join(str(error).split())
            raise UnsupportedError(f"{kind} (at {where}) cannot be read ({reason})") from error
        return results if isinstance(results, list) else [results]


def _has_view(values: Iterable[Any]) -> bool:
    return any(isinstance(value, View) for value in values)


def _array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _computed(node: Any, values: list[Any], opsets: dict[str, int]) -> list[Any]:
    """What an operator makes of constants, by ONNX's own reference. Raises `UnsupportedError`."""
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: np.asarray(v) for name, v in zip(node.input, values, strict=True) if name}
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(name, kinds[name], list(value.shape))
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "constants", inputs, outputs)
    versions = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        made = ReferenceEvaluator(helper.make_model(graph, opset_imports=versions)).run(None, feeds)
    except Exception as error:  # the reference's errors share no class of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnsupportedError(f"cannot be computed from constants ({reason[:120]})") from error
    found = iter(made)
    return [next(found) if name else None for name in node.output]


def _fixed(dims: Iterable[Any], size: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape of the input, one image, with `size` where rows and columns are left open."""
    sizes = [d.dim_value for d in dims]
    if size is not None and len(sizes) not in (3, 4):
        raise UnsupportedError("its input has no rows and columns; leave out the size")
    if size is not None:
        last = sizes[-1] in COLOURS and len(sizes) == 4 and sizes[1] not in COLOURS
        places = (1, 2) if last else (-2, -1)
        for place, given in zip(places, size, strict=True):
            if sizes[place] not in (0, given) and sizes[place] > 0:
                raise UnsupportedError(
                    f"its input is fixed, {'×'.join(map(str, sizes))}; leave out the other size"
                )
            sizes[place] = given
    if sizes and sizes[0] <= 0:
        sizes[0] = 1
    if len(sizes) not in (2, 3, 4) or sizes[0] != 1 or min(sizes) < 1:
        shown = "×".join(str(s) if s > 0 else "?" for s in sizes) or "unknown"
        open_ = len(sizes) in (3, 4) and min(sizes) < 1
        raise UnsupportedError(
            f"its input has the shape {shown}; only one image (1, C, H, W) of a fixed size"
            + ("; say which with --size HEIGHTxWIDTH" if open_ and size is None else "")
        )
    if math.prod(sizes) > MOST:
        raise UnsupportedError(f"an input of {'×'.join(map(str, sizes))} is too large to compile")
    return tuple(sizes)


def _ends_in_channels(shape: tuple[int, ...]) -> bool:
    return shape[3] in COLOURS and shape[1] not in COLOURS


def _planes(shape: tuple[int, ...], channels_last: bool) -> Shape:
    """(C, H, W) of the input; (1, H, W) is one plane, (1, N) a column of numbers."""
    if len(shape) == 4:
        return (shape[3], shape[1], shape[2]) if channels_last else (shape[1], shape[2], shape[3])
    return (1, shape[1], shape[2]) if len(shape) == 3 else (shape[1], 1, 1)


def _without_end(graph: Graph) -> tuple[Graph, str]:
    """The graph up to its logits, and what the file does with them."""
    makers = {node.output: node for node in graph.nodes}
    after: list[str] = []
    value = graph.output
    while value in makers and isinstance(makers[value].op, Reshape):
        after.append(value)
        value = makers[value].inputs[0]
    last = makers.get(value)
    if last is None or not isinstance(last.op, Softmax):
        return graph, "probabilities" if ends_in_probabilities(graph) else ""
    nodes = [node for node in graph.nodes if node is not last]
    nodes = [
        replace(node, inputs=tuple(last.inputs[0] if v == value else v for v in node.inputs))
        for node in nodes
    ]
    output = graph.output if after else last.inputs[0]
    final = "log softmax" if last.op.log else "softmax"
    return replace(graph, nodes=nodes, output=output), final
