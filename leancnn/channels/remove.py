"""Cut channels out of a network, or only silence them: the same function in two ways."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from leancnn.channels.dependencies import Dependencies
from leancnn.channels.sizes import Widths, reshape, widths_of
from leancnn.layers import PadChannels

Keep = NDArray[np.bool_]
"""Of each coupled channel of a network, whether it stays."""


def cut_body(body: nn.Module, dependencies: Dependencies, keep: Keep) -> tuple[nn.Module, Widths]:
    """A copy of `body` without the channels that do not stay, and the sizes that it changed.

    Kept channels stay in their order, with their weights, statistics and ternary kernels. `keep`
    must respect the network's equal splits: `MismatchError` where a group would not divide.
    """
    widths = new_widths(body, dependencies, keep)
    new = copy.deepcopy(body)
    reshape(new, widths)
    with torch.no_grad():
        for path in widths:
            old, module = body.get_submodule(path), new.get_submodule(path)
            for name, tensor in old.state_dict().items():
                part = _part(old, name, tensor, dependencies, path, keep)
                module.state_dict()[name].copy_(part)
    return new, widths


def new_widths(body: nn.Module, dependencies: Dependencies, keep: Keep) -> Widths:
    """The sizes that a cut changes, without cutting."""
    found: Widths = {}
    for path, sizes in widths_of(body).items():
        if path not in dependencies.writes:
            continue  # never ran
        module, out = body.get_submodule(path), keep[dependencies.writes[path]]
        c_out = int(out.sum())
        cut: tuple[int, ...] = (c_out,)
        match module:
            case nn.Conv2d():
                c_in = int(keep[dependencies.reads[path]].sum())
                cut = (c_in, c_out, c_out if _depthwise(module) else module.groups)
            case nn.Linear():
                cut = (int(keep[dependencies.reads[path]].sum()), c_out)
            case PadChannels():
                end = len(out) - module.after
                cut = (int(out[: module.before].sum()), int(out[end:].sum()))
        if cut != sizes:
            found[path] = cut
    return found


def _depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels == module.out_channels > 1


def _part(
    module: nn.Module, name: str, tensor: Tensor, dependencies: Dependencies, path: str, keep: Keep
) -> Tensor:
    """What stays of one parameter or buffer."""
    if tensor.ndim == 0:
        return tensor  # a counter of steps
    out = torch.from_numpy(keep[dependencies.writes[path]])
    mixing = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
    if not mixing or (isinstance(module, nn.Conv2d) and _depthwise(module)):
        return tensor[out]
    read = torch.from_numpy(keep[dependencies.reads[path]])
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    blocks = zip(tensor.chunk(groups), out.chunk(groups), read.chunk(groups), strict=True)
    return torch.cat([weights[to][:, of] for weights, to, of in blocks])


class Silenced(fx.Interpreter):
    """`body` with the channels that do not stay held at zero, wherever they appear.

    Call `run(x)` with x as for `body`, which is used and not changed.
    """

    def __init__(self, body: nn.Module, dependencies: Dependencies, keep: Keep) -> None:
        super().__init__(body, graph=dependencies.graph)
        self.masks = {
            name: torch.from_numpy(keep[row])
            for name, row in dependencies.rows.items()
            if not keep[row].all()
        }

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name not in self.masks:
            return result
        mask = self.masks[n.name].to(result)
        mask = mask.repeat_interleave(result.shape[1] // len(mask))  # flattened maps
        return result * mask.view(1, -1, *[1] * (result.ndim - 2))


def silence(body: nn.Module, dependencies: Dependencies, keep: Keep) -> Silenced:
    """`body` as a cut would leave it, at its old size; in evaluation mode. See `Silenced`."""
    return Silenced(copy.deepcopy(body).eval(), dependencies, keep)
