"""A torch network to a graph, by way of torch.export: what runs is what is compiled."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leancnn.compiler.graph import Graph, Shape
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.torch_ops import handlers
from leancnn.errors import UnknownOperatorError, UnsupportedError
from leancnn.modes import evaluating, quiet
from leancnn.registry import import_members

import_members("leancnn.compiler", "torch_")  # handlers of operators
import_members("leancnn.compiler", "kernel_")  # of those that have a kernel of their own


def import_torch(body: nn.Module, shape: Shape) -> Graph:
    """The graph of a network of normalised floats: (1, C, H, W) in, (1, classes) out.

    Raises `UnsupportedError` naming an operator the compiler does not have.
    """
    with evaluating(body):
        exported = _export(body, shape)
    builder = Builder(shape)
    known: dict[str, Any] = dict(_constants(exported))
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            known.setdefault(node.name, builder.image())
        elif node.op == "call_function":
            builder.name = _readable(node)
            known[node.name] = _call(builder, node, known)
        elif node.op == "output":
            results = [known[item.name] for item in node.args[0] if item is not None]
            if len(results) != 1 or not isinstance(results[0], IndexMap):
                raise UnsupportedError(
                    f"the network has {len(results)} outputs; the compiler takes one that depends "
                    "on the image"
                )
            builder.graph.output = builder.materialise(results[0])
    return builder.graph


def _export(body: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    example = (torch.zeros(1, *shape),)
    with warnings.catch_warnings(), torch.no_grad(), quiet("torch.export"):
        warnings.simplefilter("ignore")
        exported = torch.export.export(body, example)
        plain: torch.export.ExportedProgram = exported.run_decompositions({})
        return plain


def _constants(exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Parameters, buffers and lifted constants by the name of their placeholder."""
    signature = exported.graph_signature
    stored: dict[str, Any] = {**exported.state_dict, **exported.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {name: stored[target].detach() for name, target in names.items()}


def _readable(node: torch.fx.Node) -> str:
    """The path of the module an operator came from, as a C name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    words = readable(stack[-1][0]) if len(stack) > 1 else ""
    return words or str(node.name).strip("_")


def readable(path: str) -> str:
    """The path of a module as a C name: `stages.0.conv` → `stages_0_conv`."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in path).strip("_")


def _call(builder: Builder, node: torch.fx.Node, known: dict[str, Any]) -> Any:
    def value(argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return known[argument.name]
        if isinstance(argument, list | tuple):
            return [value(item) for item in argument]
        return argument

    arguments = [value(argument) for argument in node.args]
    named = {key: value(argument) for key, argument in node.kwargs.items()}
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    target: Any = node.target
    if not _has_view([*arguments, *named.values()]):
        return target(*arguments, **named)
    name = target._schema.name.removeprefix("aten::") if hasattr(target, "_schema") else str(target)
    if name not in handlers:
        raise UnknownOperatorError(
            f"operator {name} (at {builder.name}) is not supported", sorted(handlers)
        )
    try:
        return handlers[name](builder, *arguments, **named)
    except UnsupportedError as error:
        raise UnsupportedError(f"{name} (at {builder.name}): {error}") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UnsupportedError(
            f"{name} (at {builder.name}) is not supported so ({reason})"
        ) from error


def _has_view(values: Sequence[Any]) -> bool:
    return any(isinstance(v, IndexMap) or (isinstance(v, list) and _has_view(v)) for v in values)
