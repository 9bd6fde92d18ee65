"""Which channels of a layer are most alike, and one layer's weights added up over those that go.

Centripetal SGD puts the filters of a layer in as many clusters as are to stay, draws each cluster
together while the network trains (`leancnn.train.centripetal`), keeps one filter of each and adds
up, over a cluster, the weights by which later layers read it: channels that are equal can be merged
without loss. `score` says which channel of a cluster goes, `rule` which clusters a training draws
together, `reconstruct` is the merging.

The paper clusters by k-means, for one number of clusters. Ours: Ward's hierarchical clustering,
which adds as little to the same sum of squares with each merger and is nested, so that one order
serves every budget; the filters of all layers that write a channel count, each layer's in units of
its mean length (the paper lets one layer choose for those that a shortcut ties to it). Channels can
merge only where the same layers write and read them in the same way: within such a class. Left
alone: channels under groups or shuffles, and those with fixed kernels of their own, which no
training makes alike.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn.channels.dependencies import ChannelGroup, Row
from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import ANY, classes
from leancnn.errors import MismatchError
from leancnn.layers import LocalBinaryConv2d

Keep = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Joins:
    """How the channels of one class become fewer."""

    coupled: Row
    """The class."""
    out: Row
    """The channels that go, one after the other: all but one."""
    into: Row
    """Those that each of `out` is merged into."""
    apart: NDArray[np.float64]
    """How far each merger's clusters lay apart, over the mean length of a filter."""


def rule(subject: Subject, keep: Keep) -> dict[str, Any]:
    """The rule `centripetal` of a training, see `leancnn.train.rules`: clusters by module path."""
    heirs = _heirs(subject, keep)
    members: dict[int, list[int]] = defaultdict(list)
    for number in range(len(keep)):
        members[heirs.get(number, number)].append(number)
    several = [cluster for cluster in members.values() if len(cluster) > 1]
    clusters: dict[str, list[list[int]]] = {}
    for path, row in subject.dependencies.writes.items():
        if any(True for _ in subject.body.get_submodule(path).parameters(recurse=False)):
            rows = [rows for cluster in several for rows in _side_by_side(row, cluster)]
            clusters |= {path: rows} if rows else {}
    return {"name": "centripetal", "clusters": clusters}


@torch.no_grad()
def reconstruct(subject: Subject, keep: Keep) -> dict[str, Tensor]:
    """Of every layer that reads what goes, its weights added up over each cluster."""
    heirs = _heirs(subject, keep)
    found: dict[str, Tensor] = {}
    for path, row in subject.dependencies.reads.items():
        layer = subject.body.get_submodule(path)
        if not np.isin(row, list(heirs)).any() or getattr(layer, "groups", 1) > 1:
            continue
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach().clone()
        for gone, heir in heirs.items():
            for source, target in _side_by_side(row, [gone, heir]):
                weight[:, target] += weight[:, source]
                weight[:, source] = 0
        found[path] = weight
    return found


@criterion(
    "csgd",
    source="Ding et al., Centripetal SGD for Pruning Very Deep Convolutional Networks with "
    "Complicated Structure, CVPR 2019, section 3 and Eq. 4",
    reads="weights",
    reconstruct=reconstruct,
    rule=rule,
)
def score(subject: Subject) -> Scores:
    """Places in 0..1 in the order of merging, the same under all layers that write a channel.

    Tells as `apart`, by channel group, how unlike the merged clusters were, least first: 0 where
    a merger loses nothing. Raises `MismatchError` for a network without channels that can merge.
    """
    places = np.full(subject.dependencies.coupled_count, np.nan)
    found: Scores = {}
    apart: dict[str, list[float]] = {}
    for group in _groups(subject):
        joins = list(_joins(subject, group))
        for one in joins:
            order = [*one.out, *np.setdiff1d(one.coupled, one.out)]
            places[order] = np.arange(1, len(order) + 1) / len(order)
        lengths = sorted(value for one in joins for value in one.apart.tolist())
        apart[group.name] = [float(f"{value:.3g}") for value in lengths]
        found |= {path: places[subject.dependencies.writes[path]] for path in group.layers}
    if not found:
        raise MismatchError(f"csgd merges no channels of groups, shuffles or fixed kernels; {ANY}")
    subject.observed["apart"] = apart
    return found


def _groups(subject: Subject) -> list[ChannelGroup]:
    """Channel groups whose channels can become equal, and one read for the other."""
    fixed = [
        row
        for path, row in subject.dependencies.writes.items()
        if isinstance(subject.body.get_submodule(path), LocalBinaryConv2d)
    ]
    held = np.concatenate(fixed) if fixed else np.empty(0, np.int64)
    return [
        group
        for group in subject.dependencies.channel_groups
        if not group.equal_splits and not np.isin(group.coupled, held).any()
    ]


def _heirs(subject: Subject, keep: Keep) -> dict[int, int]:
    """Of each channel that goes, the one that stays and takes its place, by a chain of mergers."""
    found: dict[int, int] = {}
    for group in _groups(subject):
        for one in _joins(subject, group):
            into = dict(zip(one.out.tolist(), one.into.tolist(), strict=True))
            for gone in one.coupled[~keep[one.coupled]].tolist():
                heir = gone
                while not keep[heir] and heir in into:
                    heir = into[heir]
                found |= {gone: heir} if keep[heir] else {}
    return found


def _joins(subject: Subject, group: ChannelGroup) -> Iterator[Joins]:
    """The mergers of each class of a channel group."""
    from scipy.cluster.hierarchy import linkage

    for coupled in classes(subject.dependencies, group):
        if len(coupled) < 2:
            yield Joins(coupled, coupled[:0], coupled[:0], np.empty(0))
            continue
        filters = _filters(subject, group, coupled)
        tree = linkage(filters, "ward")
        lead = list(range(len(coupled)))  # of each cluster, its first channel, which stays
        pairs = []
        for one, other in tree[:, :2].astype(int):
            first, second = sorted((lead[one], lead[other]))
            lead.append(first)
            pairs.append((second, first))
        out, into = coupled[np.array(pairs).T]
        length = float(np.linalg.norm(filters, axis=1).mean()) or 1.0
        yield Joins(coupled, out, into, tree[:, 2] / length)


def _filters(subject: Subject, group: ChannelGroup, coupled: Row) -> NDArray[np.float64]:
    """(channels, weights): all filters that write each channel, in units of their mean length."""
    parts = []
    for path, row in subject.dependencies.writes.items():
        layer = subject.body.get_submodule(path)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        weight = layer.weight.detach().double().flatten(1).cpu().numpy()
        for places in zip(*(np.flatnonzero(row == n) for n in coupled), strict=True):
            filters = weight[list(places)]
            parts.append(filters / (np.linalg.norm(filters, axis=1).mean() or 1.0))
    return np.concatenate(parts, 1)


def _side_by_side(row: Row, coupled: list[int]) -> list[list[int]]:
    """The places in a row that coupled channels of a class have, those that belong together."""
    places = zip(*(np.flatnonzero(row == number) for number in coupled), strict=True)
    return [[int(place) for place in together] for together in places]
