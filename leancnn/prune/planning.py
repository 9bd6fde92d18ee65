"""Find what a pruning cuts: scores → the cuts that are open → the one that keeps the goal.

The network is only read; what is found is a value, `PruningPlan`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import numpy as np

from leancnn import criteria
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import Keep
from leancnn.channels.sizes import Widths
from leancnn.errors import MismatchError
from leancnn.modes import evaluating
from leancnn.progress import now
from leancnn.prune.budget import ANY_WIDTH, Candidates, within_memory
from leancnn.prune.expansion import expansion_of, with_expansion
from leancnn.prune.goal import Goal, GoalWords
from leancnn.prune.importance import Scored, judging, scored
from leancnn.prune.latency import SILENT, Clock, cut_to_speedup
from leancnn.prune.plan import PruningPlan
from leancnn.prune.shares import Trials, check_goal
from leancnn.training_data import TrainingImages
from leancnn.weights import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRequest:
    """What is to be cut, and by which scores."""

    criterion: str
    goal: Goal
    seed: int = 0
    """Of the criterion random, and of training again."""
    within: tuple[str, ...] | None = None
    """The channel groups that may be cut; None: all that the criterion scores."""
    timed: bool = False
    """Whether the compiled network is timed before and after."""


class Found(NamedTuple):
    """A cut that keeps a goal."""

    keep: Keep
    share: float | None = None
    """That layers were to keep, where the goal is reached by one."""
    multiples: Mapping[str, int] = ANY_WIDTH
    """By channel group, what its widths are multiples of."""
    microseconds: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()


def plan(
    network: Network,
    *,
    criterion: str,
    images: TrainingImages | None = None,
    seed: int = 0,
    timed: bool = False,
    within: Collection[str] | None = None,
    progress: bool = True,
    **goal: Unpack[GoalWords],
) -> PruningPlan:
    """Which channels stay; the network is only read.

    `goal` is one of `GoalWords`. Every layer keeps the same share, as the LB-MBNet paper does, but
    by criteria that choose one for each; and where groups want equal blocks the next lower number
    that they allow. Only layers that the criterion scores are cut, and of those the channel groups
    named in `within`. Raises `UsageError` for another goal, `UnknownNameError` for the criterion,
    `MismatchError` when the goal cannot be reached, with the least that can.

    >>> network = leancnn.load("runs/a")
    >>> half = plan(network, criterion="l1", keep=0.5, progress=False)
    >>> half.after["macs"] < half.before["macs"]
    True
    """
    request = PruningRequest(
        criterion=criterion,
        goal=Goal.of(**goal),
        seed=seed,
        within=None if within is None else tuple(sorted(within)),
        timed=timed,
    )
    return find_plan(network, request, images, progress=progress)


def find_plan(
    network: Network,
    request: PruningRequest,
    images: TrainingImages | None,
    *,
    progress: bool = True,
    alike: bool = False,
) -> PruningPlan:
    """`plan`, of a request that is a value; `alike`: no layer has a share of its own."""
    network.check_floats("pruning it")
    goal, criterion = request.goal, criteria.get(request.criterion)
    if criterion.shares is not None:
        check_goal(criterion.name, goal)
    elif criterion.rule is not None and goal.kind == "speedup":
        raise MismatchError(
            f"{criterion.name} trains for one cut, and times would choose another after it; give "
            "--keep-ratio, --macs or --bytes"
        )
    sizes = with_expansion(network, goal.value) if goal.kind == "expansion" else {}
    cuts, scores = open_cuts(network, request, images, progress=progress)
    read = images.digest(network) if criterion.reads != "weights" and images else None
    now("choosing channels")
    found = _reached(cuts, goal, sizes, progress)
    if criterion.shares is not None and not alike:
        found, told = _of_shares(cuts, found, request, images, progress)
        scores.observed.update(told)
    now("compiling and timing")
    times, untimed = _times(network, cuts, found) if request.timed else (found.microseconds, ())
    return PruningPlan(
        network=network.name,
        criterion=criterion.name,
        goal=goal,
        layers=cuts.layers(found.keep),
        before=_figures(cuts, np.ones(cuts.dependencies.coupled_count, bool), goal),
        after=_figures(cuts, found.keep, goal),
        microseconds=times,
        warnings=(
            *_other_images(network, read),
            *found.warnings,
            *cuts.warnings(found.keep, found.share, found.multiples),
            *untimed,
        ),
        seed=request.seed,
        within=request.within,
        reconstructed=criterion.reconstruct is not None,
        images=read,
        observed=scores.observed,
    )


def open_cuts(
    network: Network,
    request: PruningRequest,
    images: TrainingImages | None,
    *,
    progress: bool = True,
) -> tuple[Candidates, Scored]:
    """The cuts that are open to a network, by its scores. Raises `MismatchError` for none."""
    now("which channels hang together")
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    name = request.criterion
    scores = scored(network, dependencies, name, images, seed=request.seed, progress=progress)
    cuts = Candidates(network, dependencies, scores.importance, request.within)
    if not cuts.channel_groups:
        raise MismatchError(f"{name} scores no layer of {network.name} that can be cut")
    return cuts, scores


def _reached(cuts: Candidates, goal: Goal, sizes: Widths, progress: bool) -> Found:
    """The cut that keeps the goal. Raises `MismatchError` where none does, or it cuts nothing."""
    network = cuts.network
    match goal.kind:
        case "keep":
            found = Found(cuts.keep(goal.value), goal.value)
        case "expansion":
            found = Found(cuts.of_widths(with_expansion(network, expansion_of(network)), sizes))
        case "macs" | "bytes":
            found = within_budget(cuts, goal)
        case "flash" | "ram":
            found = Found(*within_memory(cuts, goal.kind, goal.value, progress=progress))
        case _:
            timed = cut_to_speedup(cuts, goal.value, progress=progress)
            keep = cuts.keep(timed.share, timed.multiples)
            found = Found(keep, timed.share, timed.multiples, timed.microseconds, (timed.warning,))
    if found.keep.all():
        raise MismatchError(f"{goal} leaves {network.name} as it is; there is nothing to cut")
    return found


def _of_shares(
    cuts: Candidates,
    alike: Found,
    request: PruningRequest,
    images: TrainingImages | None,
    progress: bool,
) -> tuple[Found, dict[str, object]]:
    """The cut that a criterion chooses which gives every layer a share of its own, and the shares.

    `alike` keeps the goal with equal shares.
    """
    name, goal = request.criterion, request.goal
    choose = criteria.get(name).shares
    assert choose is not None, "asked of criteria that choose"
    subject, batches = judging(
        cuts.network, cuts.dependencies, name, images, seed=request.seed, progress=progress
    )
    kind = "bytes" if goal.kind == "bytes" else "macs"
    most = goal.value if goal.kind == kind else float(cuts.cost(alike.keep).macs)
    trials = Trials(cuts, kind, most, batches)
    with evaluating(subject.body):
        shares = choose(subject, trials)
        keep = trials.filled(shares)
    return Found(keep), {**subject.observed, "shares": dict(shares)}


def within_budget(cuts: Candidates, goal: Goal) -> Found:
    """The widest cut that costs no more than a goal of MACs or bytes. Raises `MismatchError`."""

    def fits(keep: Keep) -> bool:
        return bool(getattr(cuts.cost(keep), goal.kind) <= goal.value)

    keep, share = cuts.filled(fits)
    cuts.check(fits(keep), goal.kind, goal.value)
    return Found(keep, share)


def _times(
    network: Network, cuts: Candidates, found: Found
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Microseconds before and after, or why there are none."""
    try:
        return found.microseconds or Clock(network).pair(cuts.cut(found.keep)), ()
    except SILENT as why:
        return None, (f"not timed: {why}",)


def _other_images(network: Network, read: str | None) -> tuple[str, ...]:
    """A warning where the scores are of other images than those of the training."""
    trained_on = network.trained.get("data_sha256", {}).get("train", read)
    other = read is not None and read != trained_on
    return ("scored on other images than the network was trained on",) if other else ()


def _figures(cuts: Candidates, keep: Keep, goal: Goal) -> dict[str, int]:
    cost = cuts.cost(keep)
    found = {name: getattr(cost, name) for name in ("trainable", "frozen", "macs", "bytes")}
    return {**found, **cuts.needs(keep)._asdict()} if goal.kind in ("flash", "ram") else found
