"""Where in a network a criterion looks, and how it gets there without leaving a trace."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from leancnn.channels.dependencies import ChannelGroup, Dependencies, Row
from leancnn.criteria._base import Subject
from leancnn.errors import MismatchError
from leancnn.layers import SqueezeExcite

ANY = "l1, fpgm, nisp, taylor and reconstruction score any network"
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid)
FINISHING = (nn.BatchNorm2d, nn.Identity, *ACTIVATIONS)


def default_criterion(body: nn.Module, dependencies: Dependencies) -> str:
    """The criterion for a network when none is named: its gates where they can lose channels.

    Else `taylor`, the better of those that score any network in results/pruning-*.json.
    """
    gates = (path for path, module in body.named_modules() if isinstance(module, SqueezeExcite))
    cuttable = any(dependencies.group_of(f"{path}.gate") is not None for path in gates)
    return "se_gate" if cuttable else "taylor"


def prunable_layers(subject: Subject) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """The layers that make channels which may be cut; those of gates only weigh them."""
    gates = tuple(f"{path}." for path, _ in gate_layers(subject))
    for channel_group in subject.dependencies.channel_groups:
        for path in channel_group.layers:
            layer = subject.body.get_submodule(path)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            if not path.startswith(gates):
                yield path, layer


def gate_layers(subject: Subject) -> list[tuple[str, SqueezeExcite]]:
    """All squeeze-and-excite layers, in the network's order."""
    modules = subject.body.named_modules()
    return [(path, module) for path, module in modules if isinstance(module, SqueezeExcite)]


def classes(dependencies: Dependencies, group: ChannelGroup) -> list[Row]:
    """The coupled channels of a group that stand side by side everywhere."""
    count, rows = dependencies.coupled_count, dependencies.rows.values()
    standing = np.stack([np.bincount(row, minlength=count) for row in rows])[:, group.coupled]
    _, of_class = np.unique(standing, axis=1, return_inverse=True)
    return [group.coupled[of_class.ravel() == number] for number in range(of_class.max() + 1)]


def batch_norms(subject: Subject, asks: str) -> dict[str, nn.BatchNorm2d]:
    """Those of channels that may be cut. Raises `MismatchError`, which names `asks`, for none."""
    found = {
        path: module
        for path, module in subject.body.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        and module.affine
        and path in subject.dependencies.writes
        and subject.dependencies.group_of(path) is not None
    }
    if not found:
        raise MismatchError(
            f"{asks} reads batch norms, and no channel that can be cut here has one; {ANY}"
        )
    return found


def output_node(subject: Subject, path: str) -> fx.Node:
    """The step that ends a layer: its own norm's or activation's, where nobody reads before."""
    nodes = subject.dependencies.graph.nodes
    node: fx.Node = next(n for n in nodes if n.op == "call_module" and n.target == path)
    while len(node.users) == 1:
        (reader,) = node.users
        module = subject.body.get_submodule(str(reader.target)) if _calls(reader) else None
        if not isinstance(module, FINISHING):
            break
        node = reader
    return node


def _calls(node: fx.Node) -> bool:
    return node.op == "call_module"


class RewritingInterpreter(fx.Interpreter):
    """Run the graph on the subject's own modules; `change` may replace what a step puts out."""

    def __init__(self, subject: Subject, change: Callable[[fx.Node, Any], Any]) -> None:
        super().__init__(subject.body, graph=subject.dependencies.graph)
        self.change = change

    def run_node(self, n: fx.Node) -> Any:
        return self.change(n, super().run_node(n))


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


@contextmanager
def forward_hooks(hooks: Mapping[nn.Module, Hook]) -> Iterator[None]:
    """Forward hooks that are gone afterwards."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def broadcast(channels: Tensor, like: Tensor) -> Tensor:
    """(C,) or (N, C) as something that multiplies `like`, (N, C) or (N, C, H, W)."""
    lead = channels if channels.ndim == 2 else channels[None]
    return lead.reshape(*lead.shape, *[1] * (like.ndim - 2))


def device_of(body: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(body.parameters()).device
