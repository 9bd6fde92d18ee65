"""How long networks are trained in a search, and after which parts of that they are compared.

A network is worth what its whole training makes of it: as many epochs as its recipe has, where the
hours allow. So networks are compared after the same shares of their own trainings, not after the
same epochs, and nothing is begun whose whole training could not end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from leancnn import recipes
from leancnn.errors import ArgumentError
from leancnn.search.budget import AGAIN, Candidate
from leancnn.search.space import Architecture
from leancnn.train.backend import best_step
from leancnn.train.estimate import duration

REDUCTION = 3  # of three networks at a rung one goes on, for three times as long
RUNGS = 3  # at most: the shortest training is a ninth of a whole one
SHARE = 4  # one training takes at most this part of the time of all cores, and half that of one
SHORT = 20  # epochs that a network must have time for to be tried, if its recipe has so many
HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """What a whole training is, in time.

    >>> from leancnn.search.space import architectures
    >>> some = architectures(classes=10, channels=3, sizes=[(32, 32)], only=["resnet8"])
    >>> one = Candidate(next(some), 50.0)
    >>> lengths = Lengths(seconds=1e9, pace={"resnet8": 1e-6}, epochs=None)
    >>> lengths.whole(one), lengths.of(one, (1, 3, 9))
    (30, (3, 10, 30))
    """

    seconds: float
    """That one training may take on one core."""
    pace: Mapping[str, float]
    """By network, seconds of an epoch for each multiply-accumulate of an image."""
    epochs: int | None
    """The longest training; None: each network's recipe says it."""

    def whole(self, one: Candidate) -> int:
        """Epochs of the whole training of a network, 0 where there is no time for one."""
        asked = self.epochs or math.ceil(recipes.for_network(one.architecture.network).epochs)
        return min(asked, int(self.seconds / self.per_epoch(one)))

    def per_epoch(self, one: Candidate) -> float:
        """Seconds, those of training again after a cut included."""
        return max(1e-9, self.pace[one.architecture.network] * one.training_macs)

    def of(self, one: Candidate, rungs: Sequence[int]) -> tuple[int, ...]:
        """Epochs after which a network is compared, where the last of `rungs` is all of them."""
        whole = max(self.whole(one), len(rungs))
        return tuple(
            max(number, round(whole * part / rungs[-1])) for number, part in enumerate(rungs, 1)
        )

    def trainable(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Those that learn something in the time: `SHORT` epochs, or all that are asked.

        Where none can, the cheapest tenth. Raises `ArgumentError` where the time does not reach for
        one epoch of any.
        """

        def fewest(one: Candidate) -> int:
            recipe = recipes.for_network(one.architecture.network)
            return min(SHORT, self.epochs or math.ceil(recipe.epochs))

        if able := [one for one in found if self.whole(one) >= fewest(one)]:
            return able
        able = sorted(
            (one for one in found if self.whole(one)), key=lambda one: self.per_epoch(one)
        )
        if not able:
            least = min(map(self.per_epoch, found))
            raise ArgumentError(
                f"one epoch takes about {duration(least)} here, and the `hours` leave a training "
                f"no more than {duration(self.seconds)}; give at least "
                f"{math.ceil(least / self.seconds)} times as many"
            )
        return able[: -(-len(found) // 10)]

    def rungs(self, found: Sequence[Candidate]) -> tuple[int, ...]:
        """Relative lengths after which these are compared, each `REDUCTION` times the one before,
        and all of them epochs of their own for the shortest training."""
        shortest = min(map(self.whole, found))
        many = min(RUNGS - 1, int(math.log(shortest) / math.log(REDUCTION) + 1e-9))
        return tuple(REDUCTION**number for number in range(many + 1))


def longest(hours: float, places: int) -> float:
    """Seconds that one training may take, of so many hours on so many cores.

    >>> longest(1, 1), longest(1, 8)
    (900.0, 1800.0)
    """
    return hours * HOUR * min(0.5, places / SHARE)


def paces(found: Sequence[Candidate], images: int) -> dict[str, float]:
    """By network, seconds of an epoch on one core here for each multiply-accumulate of an image.

    Of each network the architecture with the median of the work is timed.
    """
    networks: dict[str, list[Architecture]] = {}
    for one in sorted(found, key=lambda one: one.architecture.macs):
        networks.setdefault(one.architecture.network, []).append(one.architecture)
    middles = {name: some[len(some) // 2] for name, some in networks.items()}
    return {
        name: seconds_per_epoch(middle, images) / max(1, middle.macs)
        for name, middle in middles.items()
    }


def seconds_per_epoch(architecture: Architecture, images: int) -> float:
    """What an epoch of a network takes on one core here, from one step of it."""
    recipe = recipes.for_network(architecture.network)
    batch = min(recipe.batch, images)
    body = architecture.build().train()
    with torch.random.fork_rng(devices=[]):
        some = torch.randn(batch, architecture.channels, *architecture.size)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            step, why_not = best_step(body, ("simd", "fp32"), some, 1)
            if why_not:
                step, _ = best_step(body, ("torch", "fp32"), some, 1)
        finally:
            torch.set_num_threads(before)
    return step * max(1, images // batch)


def work(one: Candidate, lengths: Sequence[int], done: int, until: int) -> float:
    """Multiply-accumulates of an image times epochs, from one rung to another; of a network that
    is pruned the training after each cut included.

    >>> from leancnn.search.space import architectures
    >>> some = next(architectures(classes=10, channels=3, sizes=[(32, 32)], only=["resnet8"]))
    >>> work(Candidate(some, 50.0), (3, 10, 30), 1, 3) == 20 * some.macs + 7 * some.macs
    True
    """
    new = lengths[until - 1] - (lengths[done - 1] if done else 0)
    again = AGAIN * one.share * sum(lengths[done:until]) if one.form == "pruned" else 0.0
    return one.architecture.macs * (new + again)
