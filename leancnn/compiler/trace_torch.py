"""A torch network to a graph in a tenth of the time that torch.export takes.

Whoever wants the cost of many networks and the numbers of none (`leancnn.search.latency_model`)
lets shapes alone run through the network and has each operator handed to the same functions that
export's operators are handed to. Where that is not enough, export itself is asked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from leancnn.compiler.graph import Graph, Shape
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.torch_ops import handlers
from leancnn.modes import evaluating
from leancnn.shape_runs import ShapeRun

SAME = {"native_batch_norm": "_native_batch_norm_legit_no_training"}
"""Operators that export writes under another name; in evaluation mode they take the same."""


def trace_torch(body: nn.Module, shape: Shape) -> Graph:
    """The graph of a network, as `import_torch`; the names of its values are others.

    Raises `UnsupportedError` naming an operator the compiler does not have.
    """
    recorder = _Recorder(Builder(shape))
    try:
        return recorder.graph(body, shape)
    except Exception:  # whatever is not as simple as that
        return import_torch(body, shape)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands each operator that works on the image to its handler.

    `_known` has, by the identity of a tensor without numbers, what it stands for: a view of the
    image, or numbers. Operators on numbers are computed.
    """

    def __init__(self, builder: Builder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._builder = builder
        self._known: dict[int, Any] = {}
        self._alive: list[Tensor] = []  # so that no identity is given twice

    def graph(self, body: nn.Module, shape: Shape) -> Graph:
        stored = {**dict(body.named_parameters()), **dict(body.named_buffers())}
        image = torch.empty(1, *shape, device="meta")
        self._note(image, self._builder.image())
        bare = {name: real.detach().to("meta") for name, real in stored.items()}
        for name, real in stored.items():
            self._note(bare[name], real.detach())
        with evaluating(body), torch.no_grad(), ShapeRun(), self:
            logits = functional_call(body, bare, (image,))
        self._builder.graph.output = self._builder.materialise(self._known[id(logits)])
        return self._builder.graph

    def _note(self, tensor: Tensor, value: Any) -> None:
        self._known[id(tensor)] = value
        self._alive.append(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func._schema.is_mutable and self._shared(args[0]):
            raise NotImplementedError(f"{func} changes what others look at")
        result = func(*args, **named)
        values = [self._value(argument) for argument in args]
        extra = {key: self._value(argument) for key, argument in named.items()}
        self._note_all(result, self._call(func, values, extra))
        return result

    def _shared(self, tensor: Tensor) -> bool:
        """Whether another tensor that is known looks at the same memory."""
        place = tensor.untyped_storage()._cdata
        return any(
            one is not tensor and one.untyped_storage()._cdata == place for one in self._alive
        )

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self._known[id(argument)]
        if isinstance(argument, list | tuple):
            return [self._value(item) for item in argument]
        return argument

    def _call(self, func: Any, values: list[Any], named: dict[str, Any]) -> Any:
        if not _has_view([*values, *named.values()]):
            return func(*values, **named)
        name = func._schema.name.removeprefix("aten::")
        name = name.removesuffix("_") if func._schema.is_mutable else name
        handler: Callable[..., Any] = handlers[SAME.get(name, name)]
        if name in SAME:
            values = [*values[:5], *values[6:]]  # whether it trains, which it does not
        self._builder.name = f"{name}_{len(self._alive)}"
        return handler(self._builder, *values, **named)

    def _note_all(self, result: Any, value: Any) -> None:
        if isinstance(result, Tensor):
            self._note(result, value)
        elif isinstance(result, list | tuple):
            for one, its in zip(result, value, strict=False):
                self._note_all(one, its)


def _has_view(values: Sequence[Any]) -> bool:
    return any(isinstance(v, IndexMap) or (isinstance(v, list) and _has_view(v)) for v in values)
