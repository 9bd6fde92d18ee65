"""A wide network cut to the budget, where others train a narrow one: which, and how far.

A trial of this form trains the wide network; after each rung a copy of its best is pruned until it
costs no more than it may, and trained again for a third as many epochs. Its time is what the
latency model says of the very cut, since a worker has a neighbour and times nothing.
"""

import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leancnn import recipes, weights
from leancnn.bench import with_placeholders
from leancnn.channels.dependencies import find_dependencies
from leancnn.errors import LeanCNNError, MismatchError, RunError
from leancnn.preprocess import Preprocessing
from leancnn.prune.budget import Candidates
from leancnn.prune.goal import Goal
from leancnn.prune.importance import scored
from leancnn.prune.planning import PruningRequest, open_cuts
from leancnn.prune.run import default_criterion, images_for_pruning, prune_network
from leancnn.recipes import Recipe
from leancnn.search.budget import AGAIN, Budget, Candidate
from leancnn.search.space import Architecture
from leancnn.search.widest_cut import CLOSE, Costs, Cut, Pricing, widest

MOST = 4.0  # times the budget that an architecture costs which is cut to it
BEST = 2.0  # times: of each network and size the nearest to that is tried
ASKED = 3  # of each network and size, how many are asked whether a cut reaches so far
RATE = 0.3  # times the recipe's own, when the rest is trained again
FEWEST = 20  # steps of that, in which norms forget the whole network's means: 0.9²⁰ is 0.12
PRUNED = "pruned-"  # and epochs: in a run, its best network cut and trained again


def over(one: Candidate, budget: Budget) -> float:
    """How many times the budget a candidate costs, by that limit which it misses most."""
    return max((getattr(one, name) / limit for name, limit in budget.costs().items()), default=0.0)


def to_prune(
    floats: Sequence[Candidate],
    budget: Budget,
    able: Callable[[Candidate], bool] = lambda one: True,
) -> list[Candidate]:
    """Of each network and size of images one that costs about twice the budget, as pruned.

    Candidates that are not `able` to be cut so far are passed over for the next nearest.

    >>> from leancnn.search.space import architectures
    >>> some = architectures(classes=10, channels=3, sizes=[(32, 32)], only=["resnet8"])
    >>> floats = [Candidate(one, one.macs / 1e5) for one in some]
    >>> (found,) = to_prune(floats, Budget(macs=3e6))
    >>> found.title, found.macs <= 3e6
    ('resnet8 (width=12) at 32×32, pruned', True)
    """
    best: dict[tuple[Any, ...], Candidate] = {}
    ranked = sorted(floats, key=lambda one: abs(math.log(max(1e-9, over(one, budget)) / BEST)))
    asked: Counter[tuple[Any, ...]] = Counter()
    for one in ranked:
        times = over(one, budget)
        place = one.architecture.network, one.architecture.size
        if not 1 < times <= MOST or place in best or asked[place] == ASKED:
            continue
        asked[place] += 1
        if able(found := _cut(one, 1 / times)):
            best[place] = found
    return list(best.values())


def can_be_cut(one: Candidate, budget: Budget) -> bool:
    """Whether a cut of one channel a layer, or the fewest that groups allow, is as cheap as this.

    Of some networks, HENet among them, most channels cannot be cut.

    >>> from leancnn.search.space import architectures
    >>> some = next(architectures(classes=10, channels=3, sizes=[(32, 32)], only=["resnet8"]))
    >>> can_be_cut(Candidate(some, 1.0, "pruned", 0.5), Budget())
    True
    """
    architecture = one.architecture
    network = with_placeholders(
        architecture.build(),
        architecture.network,
        architecture.classes,
        Preprocessing(size=architecture.size, channels=architecture.channels),
        architecture.arguments,
    )
    try:
        dependencies = find_dependencies(network.body, architecture.channels)
        scores = scored(network, dependencies, "l1", None, progress=False)
        cuts = Candidates(network, dependencies, scores.importance)
        least = cuts.cost(cuts.keep(0.0))
    except LeanCNNError:
        return False
    if budget.bytes is not None and least.bytes > CLOSE * budget.bytes:
        return False
    return bool(cuts.channel_groups) and least.macs <= CLOSE * one.macs


def _cut(one: Candidate, share: float) -> Candidate:
    share = share * (1 - 1e-9)  # no limit is missed by a last digit
    return replace(one, microseconds=share * one.microseconds, form="pruned", share=share)


def pruned(
    folder: Path,
    architecture: Architecture,
    asked: Cut,
    *,
    epochs: int,
    seed: int,
    overrides: Mapping[str, Any],
) -> tuple[float, Costs]:
    """Cut a trial's best network to the budget and train it again, beside it; the accuracy then,
    and what the cut costs.

    Raises `MismatchError` for a network that no cut brings there, as `leancnn.prune`.
    """
    out = pruned_at(folder, epochs)
    network = weights.load(folder, "best")
    criterion = default_criterion(network)
    images = images_for_pruning(folder, network, criterion, None, trains=True)
    assert images is not None
    request = PruningRequest(criterion=criterion, goal=Goal("keep", 0.5), seed=seed)
    cuts, _ = open_cuts(network, request, images, progress=False)
    goal, costs = widest(Pricing(cuts, architecture, asked))
    own = recipes.for_network(architecture.network).changed(**overrides)
    request = replace(request, goal=goal)
    again = recipe_again(own, epochs, len(images.of(network).train or ()))
    try:
        found = prune_network(network, request, out, images, [goal], again, progress=False)
    except RunError as error:
        if "is in use" in str(error):
            raise
        shutil.rmtree(out)  # of another goal, or not whole: it is scratch of this trial's own
        found = prune_network(network, request, out, images, [goal], again, progress=False)
    if found.trained is None or not found.trained.history:
        raise MismatchError("there are no validation images to compare by")
    return max(float(row["val_accuracy"]) for row in found.trained.history), costs


def recipe_again(own: Recipe, epochs: int, images: int) -> Recipe:
    """How what is left of a network is trained again after so many epochs: a third as long, parts
    of epochs included, but no less than `FEWEST` steps or the epochs before.

    >>> own = recipes.for_network("resnet8")
    >>> recipe_again(own, 9, 50_000).epochs, round(recipe_again(own, 1, 50_000).epochs, 3)
    (3.0, 0.333)
    >>> recipe_again(own, 1, 10 * own.batch).epochs  # of ten steps each
    1.0
    """
    fewest = FEWEST / own.steps_per_epoch(images)
    share = max(AGAIN * epochs, min(epochs, fewest))
    return own.changed(lr=RATE * own.lr, epochs=share, patience=0)


def pruned_at(folder: Path, epochs: int) -> Path:
    """Where a trial's best network of so many epochs lies, cut and trained again."""
    return folder / f"{PRUNED}{epochs}"


def forget_older(folder: Path, epochs: int) -> None:
    """Remove what earlier rungs of a trial pruned, once that of so many epochs is known."""
    for old in folder.glob(f"{PRUNED}*"):
        if old != pruned_at(folder, epochs):
            shutil.rmtree(old, ignore_errors=True)
