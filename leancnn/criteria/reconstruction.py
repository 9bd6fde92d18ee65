"""How well the next layer's answers can do without a channel, and weights that make up for it.

`score` is ThiNet's greedy choice: of a layer's input channels, take out one after the other the one
whose absence, with those already out, changes the sampled sums least; a channel's score is its
place in that order. `reconstruct` is the least-squares fit of the weights of the channels that
stay, the second step of CP (Channel Pruning); ThiNet only scales them.

Both need only Σ p pᵀ over sampled patches p of what a layer reads, which also gives ThiNet's errors
for all of the layer's filters at once instead of one drawn filter for each sample. Ours: 2 random
pixels of every training image; channels that hang together go out together, and where several
layers read them their places are averaged; groups are fitted one by one; all layers are fitted to
the whole network's maps at once, not each to its pruned predecessor's; departures from the old
weights cost a little (`RIDGE`), so that few samples do no harm. Memory: (C·k²)² doubles for each
group of a layer; layers share a pass over the images as far as `BYTES` allow.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import Hook, forward_hooks, prunable_layers
from leancnn.criteria._readers import Layer, Reader, readers

POINTS = 2  # pixels of a map for each image
RIDGE = 1e-4  # of the mean square of what the channels read
BYTES = 2**31  # of patch products at a time
Order = NDArray[np.int64]


def reconstruct(subject: Subject, keep: NDArray[np.bool_]) -> dict[str, Tensor]:
    """For every layer that loses inputs, weights with zeros there and the best ones elsewhere."""
    losing = [r for r in readers(subject) if not keep[r.coupled].all()]
    return {
        reader.path: torch.stack(
            [
                _refit(weight, product, torch.from_numpy(keep[coupled]).to(product.device))
                for weight, product, coupled in zip(
                    reader.weight, products, reader.coupled, strict=True
                )
            ]
        )
        .reshape(reader.layer.weight.shape)
        .to(reader.layer.weight.dtype)
        for reader, products in _products(subject, losing)
    }


@criterion(
    "reconstruction",
    source="Luo et al., ThiNet, ICCV 2017, section 3.2; He et al., Channel Pruning for "
    "Accelerating Very Deep Neural Networks, ICCV 2017, section 3.1",
    reads="images",
    reconstruct=reconstruct,
    seeded=True,
)
def score(subject: Subject) -> Scores:
    """Places in 0..1 in the order of leaving, under the path of the layer that makes the channels.

    What adds nothing to any sample has importance 0. Only the order within a channel group means
    something.
    """
    dependencies = subject.dependencies
    places: dict[int, list[float]] = defaultdict(list)
    for reader, products in _products(subject, readers(subject)):
        coupled, at = np.unique(reader.coupled, return_inverse=True)
        costs = _costs(reader, products, at.reshape(reader.coupled.shape), len(coupled))
        for channel_group in dependencies.channel_groups:
            (own,) = np.nonzero(np.isin(coupled, channel_group.coupled))
            for place, index in enumerate(own[greedy(costs[np.ix_(own, own)])], 1):
                adds = costs[index, index] > 0
                places[int(coupled[index])].append(place / len(own) if adds else 0.0)
    importance = {number: float(np.mean(found)) for number, found in places.items()}
    return {
        path: np.array(
            [importance.get(number, 0.0) for number in dependencies.writes[path].tolist()]
        )
        for path, _ in prunable_layers(subject)
    }


def greedy(costs: NDArray[np.float64]) -> Order:
    """The order in which to take things out.

    costs (n, n): Σ_{i,j ∈ out} costs_ij is the square of what a set changes; each step keeps it
    least. Ties go to the higher number, as ties of scores do elsewhere.
    """
    own, shared = np.diag(costs), np.zeros(len(costs))
    left, out = np.ones(len(costs), bool), []
    for _ in range(len(costs)):
        change = np.where(left, own + 2 * shared, np.inf)
        index = len(change) - 1 - int(change[::-1].argmin())
        out.append(index)
        left[index] = False
        shared += costs[index]
    return np.array(out, np.int64)


def _costs(reader: Reader, products: Tensor, at: Order, number: int) -> NDArray[np.float64]:
    """(coupled, coupled): Σ over samples and filters of what number i adds, times what j adds."""
    costs = np.zeros((number, number))
    for weight, product, places in zip(reader.weight, products, at, strict=True):
        flat = weight.flatten(1)  # (filters, C·pixels)
        channels, pixels = weight.shape[1:]
        both = (flat.T @ flat * product).reshape(channels, pixels, channels, pixels).sum((1, 3))
        np.add.at(costs, (places[:, None], places[None]), both.cpu().numpy())
    return costs


def _refit(weight: Tensor, product: Tensor, stay: Tensor) -> Tensor:
    """min ‖(W − W′) p‖² over samples, W′ zero where `stay` (C,) is not; (filters, C, pixels)."""
    flat, kept = weight.flatten(1), stay.repeat_interleave(weight.shape[2])
    new = torch.zeros_like(flat)
    square = product[kept][:, kept]
    if len(square):
        ridge = RIDGE * square.diagonal().mean().clamp(min=1e-30)
        square = square + ridge * torch.eye(len(square), dtype=square.dtype, device=square.device)
        lost = flat[:, ~kept] @ product[~kept][:, kept]  # (filters, kept)
        new[:, kept] = flat[:, kept] + torch.linalg.solve(square, lost.T).T
    return new.view_as(weight)


def _products(subject: Subject, of: list[Reader]) -> Iterator[tuple[Reader, Tensor]]:
    """Of each reader Σ p pᵀ (groups, C·pixels, C·pixels), in double, over sampled patches."""
    waiting = list(of)
    while waiting:
        now = [waiting.pop(0)]
        while waiting and sum(r.room for r in (*now, waiting[0])) <= BYTES:
            now.append(waiting.pop(0))
        sums: dict[str, Tensor] = {}
        with (
            torch.no_grad(),
            forward_hooks({r.layer: _sampler(r, sums, subject.seed) for r in now}),
        ):
            for images, _ in subject.batches():
                subject.body(images)
        for reader in now:
            yield reader, sums.pop(reader.path)


def _sampler(reader: Reader, sums: dict[str, Tensor], seed: int) -> Hook:
    random = torch.Generator().manual_seed(seed)

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        patches = _patches(reader.layer, given[0], out, random)  # (samples, inputs, …)
        grouped = patches.reshape(len(patches), len(reader.coupled), -1).transpose(0, 1)
        product = (grouped.transpose(1, 2) @ grouped).double()
        sums[reader.path] = sums.get(reader.path, 0) + product

    return add


def _patches(layer: Layer, x: Tensor, out: Tensor, random: torch.Generator) -> Tensor:
    """What random outputs of a layer read, channels first; a linear layer has one output pixel."""
    if isinstance(layer, nn.Linear):
        return x
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    points = (len(x), POINTS)
    places = []
    for axis in (0, 1):
        first = torch.randint(out.shape[2 + axis], points, generator=random) * layer.stride[axis]
        taps = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        places.append((first[:, :, None] + taps).to(x.device))  # (N, points, k)
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    found = x[images, :, places[0][:, :, :, None], places[1][:, :, None, :]]
    return found.flatten(0, 1).flatten(1, 2).transpose(1, 2)  # (N·points, C, k·k)
