"""What a pruning criterion is: it says how important each channel of a network is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn.channels.dependencies import Dependencies
from leancnn.registry import Registry

Scores = dict[str, NDArray[np.float64]]
"""By module path: the importance of each channel the module puts out, (C,); more is better."""
Reads = Literal["weights", "images", "labels"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The network in question; a criterion leaves it, weights, statistics and mode, as it was."""

    body: nn.Module
    """In evaluation mode."""
    dependencies: Dependencies
    batches: "Batches"
    """One pass over the training images, not augmented, with progress: normalised floats
    (N, C, H, W) and labels (N,). In order, so mostly one class after the other, or `mixed`."""
    seed: int = 0
    observed: dict[str, Any] = field(default_factory=dict)
    """What the criterion saw and its scores do not say, for people: JSON values, kept with them."""


class Batches(Protocol):
    """See `Subject.batches`."""

    def __call__(self, mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]: ...


Reconstruct = Callable[[Subject, NDArray[np.bool_]], Mapping[str, Tensor]]
"""(subject, which channels stay) → by path, weights of full width to take before the cut."""
StepRule = Callable[[Subject, NDArray[np.bool_]], Mapping[str, Any]]
"""(subject, which channels would stay) → a rule of the training before the cut, as plain data; see
`leancnn.train.rules`. The scores are then those of the network that was so trained."""


class Cuts(Protocol):
    """The cuts that a choice of shares may try, of channels in the order of their scores."""

    @property
    def names(self) -> Sequence[str]:
        """Of the channel groups that may be cut."""
        ...

    def width(self, name: str) -> int:
        """Channels of a group's first layer."""
        ...

    def keep(self, shares: Mapping[str, float]) -> NDArray[np.bool_]:
        """Which coupled channels stay when each group keeps its share, in 0..1."""
        ...

    def cost(self, shares: Mapping[str, float]) -> float:
        """What that costs, over the budget."""
        ...

    def fits(self, shares: Mapping[str, float]) -> bool:
        """Whether it keeps the budget."""
        ...

    def sample(self, images: int) -> tuple[Tensor, Tensor]:
        """Images and labels to judge trials on, set apart where some are; the same each time."""
        ...


Shares = Callable[[Subject, Cuts], Mapping[str, float]]
"""(subject, cuts) → by channel group, the share of its channels that stays, within the budget."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A member of the family. Layers without a score are not cut."""

    name: str
    source: str
    """Authors, title, venue, year, section or equation."""
    reads: Reads
    """What it needs beside the weights; labels include images."""
    score: Callable[[Subject], Scores]
    reconstruct: Reconstruct | None = None
    seeded: bool = False
    """Whether the seed changes the scores."""
    rule: StepRule | None = None
    """Of a criterion that trains before it cuts."""
    shares: Shares | None = None
    """Of a criterion that chooses each layer's share; else all keep the same."""

    @property
    def trains(self) -> bool:
        """Whether it costs a training, or many trials, beside its scores."""
        return self.rule is not None or self.shares is not None


criteria: Registry[Criterion] = Registry("criterion")


def criterion(
    name: str,
    *,
    source: str,
    reads: Reads,
    reconstruct: Reconstruct | None = None,
    seeded: bool = False,
    rule: StepRule | None = None,
    shares: Shares | None = None,
) -> Callable[[Callable[[Subject], Scores]], Callable[[Subject], Scores]]:
    """Register the decorated function."""

    def register(score: Callable[[Subject], Scores]) -> Callable[[Subject], Scores]:
        member = Criterion(name, source, reads, score, reconstruct, seeded, rule, shares)
        criteria.register(name, member)
        return score

    return register


def get(name: str) -> Criterion:
    """The criterion of a name. Raises `UnknownNameError`."""
    return criteria[name]


def names() -> list[str]:
    """All criteria, sorted."""
    return sorted(criteria)
