"""Shapes alone run through a network, and no operator on the same shapes twice.

On the meta device many operators of torch are Python that takes a millisecond; a zoo of networks
asks for the same few hundred results again and again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Key = tuple[Any, ...]
DRAWS = frozenset(("normal_", "uniform_", "zero_", "fill_", "bernoulli_", "random_", "erfinv_"))
"""What fills a tensor in place with numbers, of which one on the meta device has none."""
MOST = 20_000  # results that are remembered
_results: dict[Key, tuple[Any, int]] = {}  # and multiply-accumulates


class ShapeRun(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, what operators give on the meta device is remembered.

    `macs` counts multiply-accumulates by torch's own formulas, as `leancnn.count` does. Views,
    whatever changes a tensor, and tensors with numbers are passed on as they are. Building a
    network on the meta device draws no weights.

        with ShapeRun() as run, torch.device("meta"):
            network = leancnn.create_model("henet_r3").eval()
            network(torch.empty(1, 3, 31, 31))
        run.macs
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if _draws(func) and args[0].is_meta:
            return args[0]
        key = _key(func, args, named)
        if key is None:
            return func(*args, **named)
        if key not in _results:
            result = func(*args, **named)
            if len(_results) >= MOST:
                _results.clear()
            _results[key] = _layout(result), _macs(func, args, named, result)
        layout, macs = _results[key]
        self.macs += macs
        return _made(layout)


def _macs(func: Any, args: Sequence[Any], named: dict[str, Any], result: Any) -> int:
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **named, out_val=result)) // 2


def _draws(func: Any) -> bool:
    return func._schema.name.removeprefix("aten::") in DRAWS


def _key(func: Any, args: Sequence[Any], named: dict[str, Any]) -> Key | None:
    """What the result depends on; None where it is not to be remembered."""
    schema = func._schema
    if schema.is_mutable or any(one.alias_info is not None for one in schema.returns):
        return None
    seen: list[bool] = []

    def word(value: Any) -> Any:
        if isinstance(value, Tensor):
            seen.append(value.is_meta)
            return (*value.shape, "by", *value.stride(), value.dtype)
        if isinstance(value, list | tuple):
            return tuple(map(word, value))
        return (type(value), value)

    found = (func, *map(word, args), *((name, word(value)) for name, value in named.items()))
    return found if seen and all(seen) else None


def _layout(result: Any) -> Any:
    """Of tensors on the meta device what makes such again."""
    if isinstance(result, Tensor):
        return tuple(result.shape), result.stride(), result.dtype
    return None if result is None else [_layout(one) for one in result]


def _made(layout: Any) -> Any:
    if layout is None or isinstance(layout, list):
        return layout and tuple(map(_made, layout))
    shape, stride, dtype = layout
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
