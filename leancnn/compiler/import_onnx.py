"""An ONNX image classifier to a graph: batch 1, static shapes, the operators of `onnx_ops.py`."""

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.compiler.c_text import identifier
from leancnn.compiler.graph import Graph, Reshape, Shape, Softmax
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import MOST, IndexMap
from leancnn.compiler.onnx_call import Call, operators
from leancnn.compiler.onnx_constants import computed, shapes
from leancnn.compiler.onnx_file import ends, read_onnx
from leancnn.compiler.onnx_quantized import WeightScales
from leancnn.compiler.probabilities import ends_in_probabilities
from leancnn.errors import DamagedError, UnknownOperatorError, UnsupportedError
from leancnn.registry import import_members

import_members("leancnn.compiler", "onnx_")  # handlers of operators
import_members("leancnn.compiler", "kernel_")  # of those that have a kernel of their own

BUDGET_S = 300  # for the walk over a model
CONSTANTS = 2**28  # numbers that may be computed from constants, all together
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"))
"""Operators that infinite weights make nonsense of; elsewhere infinity is a bound."""
COLOURS = (1, 3, 4)
"""Channels by which an axis of an image is known as the one of its channels."""
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
    metadata: dict[str, Any]  # what our own files say about themselves: classes, preprocessing
    integers: bool  # its input is uint8
    channels_last: bool
    final: str  # "softmax" or "log softmax", where the graph leaves it off; "probabilities"; or ""
    name: str  # of its input
    shape: tuple[int, ...]  # and its own shape
    model: Any  # the file with its weights, and of its outputs the one that was chosen


def import_onnx(
    path: Path,
    size: tuple[int, int] | None = None,
    *,
    input: str | None = None,
    output: str | None = None,
) -> Imported:
    """The graph of a file; a softmax at its end is left off. `size`: rows and columns of the image
    where the file leaves them open; `input` and `output`: which of several inputs and outputs.

    Raises as `read_onnx`, and `UnsupportedError` naming an operator or shape that cannot be
    compiled.
    """
    model = read_onnx(path)
    try:
        made = Walk(model, size, input, output)
        graph, final = _without_end(made.graph)
    except UnsupportedError as error:
        whole = UnsupportedError(f"{path}: {error}")
        whole.details = error.details
        raise whole from error
    except MISTAKES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path}: it contradicts itself ({reason})") from error
    metadata = {item.key: item.value for item in model.metadata_props}
    return Imported(
        graph,
        _read(metadata),
        made.integers,
        made.channels_last,
        final,
        made.name,
        made.shape,
        model,
    )


def _read(metadata: dict[str, str]) -> dict[str, Any]:
    """What `leancnn export --to onnx` wrote into a file, as far as it can be believed."""
    try:
        found = json.loads(metadata.get("leancnn", "{}"))
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    classes = found.get("classes")
    known = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    preprocessing = found.get("preprocessing", found.get("road"))  # road: in 0.1
    return {
        "classes": classes if known else None,
        "preprocessing": preprocessing if isinstance(preprocessing, dict) else None,
    }


class Walk:
    """One walk over a model: constants are computed, the rest becomes a graph."""

    def __init__(
        self, model: Any, size: tuple[int, int] | None, given: str | None, output: str | None
    ) -> None:
        from onnx import TensorProto, defs

        graph = model.graph
        names = {"ai.onnx": ""}  # one domain by two names
        self.opsets = {names.get(i.domain, i.domain): i.version for i in model.opset_import}
        if self.opsets.get("", 1) > defs.onnx_opset_version():
            raise UnsupportedError(
                f"it is of operator set {self.opsets['']}; the onnx package here knows "
                f"{defs.onnx_opset_version()} (pip install -U onnx)"
            )
        start, end = ends(model, given, output)
        self.until = time.monotonic() + BUDGET_S
        self.known: dict[str, Any] = {}
        self.weight_scales = WeightScales(self.opsets)
        self.numbers = 0  # of computed constants
        for tensor in graph.initializer:
            self.known[tensor.name] = _array(tensor)
        kind = start.type.tensor_type.elem_type
        self.integers = kind == TensorProto.UINT8
        if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
            name = TensorProto.DataType.Name(kind).lower()
            raise UnsupportedError(f"its input is {name}; the compiler takes float or uint8")
        shape = _fixed(start.type.tensor_type.shape.dim, size)
        self.name, self.shape = start.name, shape
        self.channels_last = False
        self.graph = self._first_that_fits(graph.node, end.name)

    def _first_that_fits(self, nodes: Any, end: str) -> Graph:
        """The graph, channels first or last. Raises `UnsupportedError` for the first of the two."""
        known, reasons = dict(self.known), []
        both = len(self.shape) == 4 and _ends_in_channels(self.shape)
        for last in [True, False] if both else [False]:
            self.known, self.channels_last = dict(known), last
            c, h, w = _planes(self.shape, last)
            self.builder = Builder((c, h, w))
            self.known[self.name] = self.builder.image(self.shape, channels_last=last)
            try:
                self._walk(nodes)
                return self._finished(end)
            except UnsupportedError as error:
                reasons.append(error)
        raise reasons[0]

    def _finished(self, name: str) -> Graph:
        result = self._value(name, "the network's output")
        if not isinstance(result, IndexMap):
            raise UnsupportedError("its output does not depend on the image")
        count = int(np.prod(result.shape))
        if max(result.shape, default=1) == count:  # a vector, under whatever shape
            result = result.moved(lambda a: a.reshape(1, -1))
        self.builder.graph.output = self.builder.materialise(result)
        return self.builder.graph

    def _walk(self, nodes: Iterable[Any]) -> None:
        from onnx import helper

        for node in nodes:
            kind = node.op_type
            where = node.name or (node.output[0] if node.output else kind)
            if time.monotonic() > self.until:
                raise UnsupportedError(
                    f"it is not read within {BUDGET_S} seconds; at {where} it was left"
                )
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values = [self._value(name, where) if name else None for name in node.input]
            if kind == "If" and not isinstance(values[0], IndexMap):
                branch = attributes["then_branch" if np.all(values[0]) else "else_branch"]
                self.known.update({tensor.name: _array(tensor) for tensor in branch.initializer})
                self._walk(branch.node)
                results = [self._value(out.name, where) for out in branch.output]
            else:
                self.builder.name = identifier((node.name or kind.lower()).strip("/"))
                results = self._results(node, values, attributes, where)
            self.known.update(zip(node.output, results, strict=False))

    def _value(self, name: str, where: str) -> Any:
        if name not in self.known:
            raise UnsupportedError(f"'{name}', which {where} reads, is made by nothing before it")
        return self.known[name]

    def _results(
        self, node: Any, values: list[Any], attributes: dict[str, Any], where: str
    ) -> list[Any]:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        try:
            if not _has_view(values):
                made = computed(node, values, self.opsets)
                self.numbers += sum(np.size(value) for value in made if value is not None)
                if self.numbers > CONSTANTS:
                    raise UnsupportedError(f"its constants are more than {CONSTANTS:,} numbers")
                self.weight_scales.constant(node, values)
                return made
            if kind not in operators:
                raise UnknownOperatorError(
                    f"operator {kind} (at {where}) is not supported", sorted(operators)
                )
            before = len(self.builder.graph.nodes)
            results = self._made(kind, node, values, attributes)
            self.weight_scales.weighted(node, attributes, self.builder.graph, before)
            return results
        except UnknownOperatorError:
            raise
        except UnsupportedError as error:
            raise UnsupportedError(f"{kind} (at {where}): {error}") from error
        except MISTAKES as error:
            reason = " ".join(str(error).split())
            raise UnsupportedError(f"{kind} (at {where}) cannot be read ({reason})") from error

    def _made(
        self, kind: str, node: Any, values: list[Any], attributes: dict[str, Any]
    ) -> list[Any]:
        """What a handler makes, if it knows all that is asked for, in the shapes that ONNX says."""
        operator, opset = operators[kind], self.opsets.get("", 1)
        operator.check(kind, attributes, opset)
        for name, value in zip(node.input, values, strict=True):
            _check_numbers(kind, name, value)
        expected = shapes(node, values, self.opsets)
        if any(shape is not None and math.prod(shape) > MOST for shape in expected):
            raise UnsupportedError(f"it makes {expected[0]}, which is too large to compile")
        call = Call(values, attributes, len(node.output), opset, operator.reads)
        made = operator.make(self.builder, call)
        results = made if isinstance(made, list) else [made]
        for shape, result in zip(expected, results, strict=False):
            if attributes.get("ceil_mode") and opset < 22:  # inference counts a window too many
                break
            if shape is not None and isinstance(result, IndexMap) and result.shape != shape:
                raise UnsupportedError(f"it makes {result.shape}, where ONNX has {shape}")
        return results


def _has_view(values: Iterable[Any]) -> bool:
    return any(isinstance(value, IndexMap) for value in values)


def _array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _check_numbers(kind: str, name: str, value: Any) -> None:
    """Raises `UnsupportedError` for constants of which nothing can be computed."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return
    if odd := int(np.isnan(value).sum()):
        raise UnsupportedError(
            f"its weights '{name}' hold NaN, {odd:,} of {value.size:,} numbers: what was trained "
            "has diverged"
        )
    if kind in WEIGHTED and not np.isfinite(value).all():
        odd = int((~np.isfinite(value)).sum())
        raise UnsupportedError(
            f"its weights '{name}' are infinite in {odd:,} of {value.size:,} numbers"
        )


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
    producers = {node.output: node for node in graph.nodes}
    after: list[str] = []
    value = graph.output
    while value in producers and isinstance(producers[value].op, Reshape):
        after.append(value)
        value = producers[value].inputs[0]
    last = producers.get(value)
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
