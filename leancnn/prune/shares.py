"""A share of its own for every layer, of criteria that choose them by trials under a budget."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from leancnn.channels.remove import Keep, new_widths
from leancnn.channels.sizes import widths_of
from leancnn.criteria import Batches
from leancnn.errors import MismatchError
from leancnn.layers import LocalBinaryConv2d
from leancnn.prune.budget import Candidates
from leancnn.prune.goal import Goal


@dataclass(slots=True)
class Trials:
    """The cuts that a search of shares may try; see `criteria.Cuts`."""

    cuts: Candidates
    kind: str
    """macs or bytes: what the budget counts."""
    most: float
    batches: Batches
    """Over images that are set apart, or those of the training where none are."""
    _pixels: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channel groups that may be cut."""
        return tuple(group.name for group in self.cuts.channel_groups)

    def width(self, name: str) -> int:
        """Channels of a group's first layer."""
        return len(self.cuts.dependencies.writes[name])

    def keep(self, shares: Mapping[str, float]) -> Keep:
        """The coupled channels that stay."""
        return self.cuts.keep_each(shares)

    def cost(self, shares: Mapping[str, float]) -> float:
        """What a cut costs, over the budget."""
        keep = self.keep(shares)
        return (self.macs(keep) if self.kind == "macs" else self.cuts.cost(keep).bytes) / self.most

    def fits(self, shares: Mapping[str, float]) -> bool:
        """Whether a cut keeps the budget."""
        return self.cost(shares) <= 1

    def sample(self, images: int) -> tuple[Tensor, Tensor]:
        """So many images (N, C, H, W), normalised, and their labels; mixed, the same each time."""
        xs, ys, seen = [], [], 0
        for x, y in self.batches(mixed=True):
            xs.append(x)
            ys.append(y)
            seen += len(y)
            if seen >= images:
                break
        return torch.cat(xs)[:images], torch.cat(ys)[:images]

    def macs(self, keep: Keep) -> int:
        """Multiply-accumulates after a cut, as `count` finds them, from the sizes alone."""
        body = self.cuts.network.body
        sizes = {**widths_of(body), **new_widths(body, self.cuts.dependencies, keep)}
        if not self._pixels:
            self._pixels = dict(self._outputs())
        found = 0
        for path, pixels in self._pixels.items():
            module = body.get_submodule(path)
            match module:
                case nn.Conv2d():
                    c_in, c_out, groups = sizes[path]
                    area = module.kernel_size[0] * module.kernel_size[1]
                    found += pixels * area * c_in // groups * c_out
                case LocalBinaryConv2d():
                    found += pixels * sizes[path][0] * module.weight[0].numel()
                case _:
                    found += pixels * sizes[path][0] * sizes[path][1]
        return found

    def _outputs(self) -> Iterator[tuple[str, int]]:
        """Of each layer with weights, the pixels that it puts out."""
        network = self.cuts.network
        seen: dict[str, int] = {}

        def hook(path: str) -> object:
            def see(module: nn.Module, given: object, out: Tensor) -> None:
                seen[path] = int(np.prod(out.shape[2:])) if out.ndim == 4 else 1

            return see

        layers = nn.Conv2d | nn.Linear | LocalBinaryConv2d
        handles = [
            module.register_forward_hook(hook(path))  # type: ignore[arg-type]
            for path, module in network.body.named_modules()
            if isinstance(module, layers)
        ]
        try:
            with torch.no_grad():
                shape = network.preprocessing.channels, *network.preprocessing.size
                network.body(torch.zeros(1, *shape, device=network.scale.device))
        finally:
            for handle in handles:
                handle.remove()
        yield from seen.items()

    def filled(self, shares: Mapping[str, float]) -> Keep:
        """The cut of these shares, given back what still fits: one channel more does not."""
        found = dict(shares)
        again = True
        while again:
            again = False
            for name in sorted(found, key=lambda name: found[name]):
                width = self.width(name)
                more = {**found, name: min(1.0, (int(found[name] * width + 0.5) + 1) / width)}
                if found[name] < 1 and self.fits(more):
                    found, again = more, True
        return self.keep(found)


def check_goal(criterion: str, goal: Goal) -> None:
    """Refuse, with `MismatchError`, what no search of shares is held to."""
    if goal.kind not in ("macs", "bytes", "keep"):
        raise MismatchError(
            f"{criterion} chooses each layer's share under a budget: macs, bytes, or keep, which "
            f"is the macs that equal shares leave; not {goal.kind}"
        )
