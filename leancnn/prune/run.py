"""Prune a run or a saved network: plan, cut, train again, once or by a schedule; and go on.

A plan is data (`planning` finds it, nothing changes); `cut` makes of it a network like any other.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch

from leancnn import criteria, recipes, runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body, silence
from leancnn.channels.sizes import Widths
from leancnn.data import open_source
from leancnn.errors import MismatchError, ParityError, UsageError
from leancnn.modes import evaluating
from leancnn.parity import WITHIN, difference, trial_images
from leancnn.progress import now
from leancnn.prune.before import trained_before
from leancnn.prune.expansion import arguments_of, goals_of
from leancnn.prune.goal import Goal, GoalWords
from leancnn.prune.importance import blind, subject_of
from leancnn.prune.plan import PruningPlan
from leancnn.prune.planning import PruningRequest, find_plan
from leancnn.prune.resume import (
    PRUNING,
    check_free,
    continues,
    iterations,
    kept,
)
from leancnn.prune.retrain import Retraining
from leancnn.recipes import Recipe
from leancnn.runs import Which
from leancnn.signal_window import SignalWindow
from leancnn.train import Trained
from leancnn.training_data import (
    TrainingImages,
    check_place,
    kept_preprocessing,
    training_images,
)
from leancnn.weights import Network


def cut(
    network: Network,
    plan: PruningPlan,
    *,
    images: TrainingImages | None = None,
    progress: bool = True,
) -> Network:
    """A new network without the channels that the plan leaves out; the old one is as it was.

    It is compared with the old network whose cut channels are held at zero. `images` are for plans
    of criteria that fit the kept weights to what was cut. Raises `MismatchError` for a plan of
    another network, `ParityError` when the answers differ.

    >>> from leancnn.prune import plan
    >>> network = leancnn.load("runs/a")
    >>> half = plan(network, criterion="l1", keep=0.5, progress=False)
    >>> leancnn.count(cut(network, half).body, (3, 8, 8)).macs == half.after["macs"]
    True
    """
    now("cutting, and comparing with the whole")
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    keep = plan.keep(dependencies)
    body = copy.deepcopy(network.body).eval()
    member = criteria.get(plan.criterion)
    if plan.reconstructed and member.reconstruct is not None:
        subject = blind(network, dependencies, plan.seed)
        if member.reads != "weights":
            subject, _ = subject_of(
                network, dependencies, plan.criterion, images, seed=plan.seed, progress=progress
            )
        with torch.no_grad(), evaluating(subject.body):
            for path, new in member.reconstruct(subject, keep).items():
                body.get_parameter(f"{path}.weight").copy_(new)
    small, widths = cut_body(body, dependencies, keep)
    _check_cut(network, silence(body, dependencies, keep).run, small)
    return _cut_network(network, plan, small, widths, images)


def _check_cut(network: Network, silenced: Any, small: torch.nn.Module) -> None:
    """That the cut answers as the network whose cut channels are zero. Raises `ParityError`."""
    images = network.normalise(torch.from_numpy(trial_images(network, 4)))
    with torch.no_grad():
        expected, answer = silenced(images), small(images)
    if not expected.isfinite().all():
        raise MismatchError(f"{network.name} answers no numbers; has its training diverged?")
    error = difference(answer.numpy(), expected.numpy())
    if not error <= WITHIN:
        raise ParityError(f"the cut {network.name} answers otherwise, by {error:.2g}; nothing kept")


def _cut_network(
    network: Network,
    plan: PruningPlan,
    small: torch.nn.Module,
    widths: Widths,
    images: TrainingImages | None,
) -> Network:
    """The cut body as a network that says what it was made of."""
    short = {**plan.to_json(), "layers": len(plan.layers)}
    del short["observed"]
    made = {"cut from": dict(network.made), "weights": weights.digest(network), "plan": short}
    if images is not None:  # so that it can be cut, trained and tested again
        made["data"] = images.place
    return network.with_body(small, made=made, arguments=arguments_of(network, plan.goal, widths))


def default_criterion(network: Network) -> str:
    """The name of the criterion for a network when none is named; see `criteria.default_criterion`.

    Of a network of signals it is one that reads no images.
    """
    if isinstance(network.preprocessing, SignalWindow):
        return "l1"
    return criteria.default_criterion(
        network.body, find_dependencies(network.body, network.preprocessing.channels)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What pruning hands back; the same stands in `folder`."""

    network: Network
    folder: Path
    plans: tuple[PruningPlan, ...]
    """One for each iteration."""
    trained: Trained | None
    """The last retraining."""


def prune(
    path: str | Path,
    *,
    out: str | Path,
    criterion: str | None = None,
    schedule: Sequence[int] = (),
    finetune: str | Path | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    which: Which | None = None,
    seed: int = 0,
    timed: bool = False,
    within: Collection[str] | None = None,
    progress: bool = True,
    **goal: Unpack[GoalWords],
) -> Pruned:
    """Prune a run or a saved network into the folder `out`, and train again.

    `criterion` scores the channels; None: the one that fits the network. `goal` is one of `keep`, a
    share of the channels of each layer; `macs`, `bytes` of weights, `flash` or `ram` of the C, the
    most that may remain; `speedup`, times faster on this machine; `expansion`. Or a `schedule` of
    expansions, pruned to one after the other. `finetune` is the recipe of the training after each
    cut, with `overrides`; `data` is where the run's images are now. `within` are names of groups of
    channels that may be cut; `timed` measures the speed also where it is no goal. A pruning that
    was stopped goes on when it is called again. Without `finetune` `out` is the folder of a saved
    network, else a run; earlier cuts of a schedule stand in `out/iterations`.

    Raises `MismatchError` for a goal out of reach, `UnsupportedError` for a network whose channels
    cannot be followed, `RunError` when `out` holds something else or is in use; as `train`.

    >>> pruned = leancnn.prune("runs/a", out="runs/small", criterion="l1", keep=0.5)
    >>> (plan,) = pruned.plans
    >>> plan.after["macs"] < plan.before["macs"]
    True
    """
    path, out = Path(path), Path(out)
    if schedule and any(value is not None for value in goal.values()):
        raise UsageError("name a schedule or a goal, not both")
    if finetune is not None:
        finetune = recipes.read(finetune).changed(**dict(overrides or {}))
    network = weights.load(path, which)
    if finetune is not None or overrides:
        kept_preprocessing(network, overrides)
    goals = goals_of(network, schedule) if schedule else [Goal.of(**goal)]
    request = PruningRequest(
        criterion=criterion or default_criterion(network),
        goal=goals[0],
        seed=seed,
        within=None if within is None else tuple(sorted(within)),
        timed=timed,
    )
    trains = finetune is not None
    images = images_for_pruning(path, network, request.criterion, data, trains=trains, out=out)
    return prune_network(network, request, out, images, goals, finetune, progress=progress)


def images_for_pruning(
    path: Path,
    network: Network,
    criterion: str,
    data: str | Path | None,
    *,
    trains: bool,
    out: Path | None = None,
) -> TrainingImages | None:
    """The images of a pruning: where it needs them, and where it can say whence they come.

    `trains` says whether it ends with a training. Raises as `training_images`, `RunError` for an
    `out` that lies in them, `DataError` for `data` that is none.
    """
    member = criteria.get(criterion)
    needs = member.reads != "weights" or trains
    known = data is not None or runs.run_of(path)[0] is not None or network.known_data
    images = training_images(path, data, network) if needs or known else None
    if images is not None and out is not None:
        check_place(out, images.data)
    if data is not None:
        open_source(data)  # also where nothing reads it: a misspelt name is no wish
    return images


def prune_network(
    network: Network,
    request: PruningRequest,
    out: Path,
    images: TrainingImages | None,
    goals: Sequence[Goal],
    finetune: Recipe | None,
    *,
    progress: bool,
) -> Pruned:
    """`prune`, of values: cut to each of the goals in turn, training after each. Raises as it."""
    training, rule = None, criteria.get(request.criterion).rule
    if finetune is not None and images is not None:  # refused now, not when all has been cut
        if rule is not None:
            finetune = finetune.changed(epochs=finetune.epochs / 2)
        training = Retraining(finetune, request.seed, images, progress)
        training.request(network)
        images.of(network)
    names = [f"{number}-r{goal.value:g}" for number, goal in enumerate(goals, 1)]
    earlier = iterations(out)
    if len(goals) > 1 and not (earlier / names[0]).exists():
        check_free(out)  # now, not when the iterations before the last have been trained
    plans: list[PruningPlan] = []
    trained = None
    with runs.Lock(out / PRUNING):
        for name, goal in zip(names, goals, strict=True):
            folder = out if name == names[-1] else earlier / name
            place = folder if training is None else folder / "cut"
            asked = replace(request, goal=goal)
            if training is not None and rule is not None:
                network = trained_before(network, asked, folder, training)
            plan, network = _iteration(network, asked, folder, place, images, progress)
            plans.append(plan)
            if training is not None:
                trained = training.run(network, folder)
                network = trained.network
    return Pruned(network=network, folder=out, plans=tuple(plans), trained=trained)


def _iteration(
    network: Network,
    request: PruningRequest,
    folder: Path,
    place: Path,
    images: TrainingImages | None,
    progress: bool,
) -> tuple[PruningPlan, Network]:
    """One cut, with its plan in `folder` and its network in `place`; not again what is there."""
    reads = criteria.get(request.criterion).reads != "weights"
    asked = {
        "network": network.name,
        "criterion": request.criterion,
        "goal": request.goal.to_json(),
        "seed": request.seed,
        "within": None if request.within is None else list(request.within),
        "images": images.digest(network) if reads and images is not None else None,
    }
    if not continues(folder, place, asked):
        plan = find_plan(network, request, images, progress=progress)
        small = cut(network, plan, images=images, progress=progress)
        weights.save(small, place)
        runs.write_checked(folder / "plan.json", plan.to_json())
    return kept(folder, place, network)
