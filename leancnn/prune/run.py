"""Cut channels out of a trained network: score, plan, cut, train again.

scores (a criterion) → plan (which channels of which layer; data, nothing changes) → cut (a network
like any other) → train. `allot` chooses within a family of channels, `surgery` cuts.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

import numpy as np
import torch

from leancnn import criteria, models, recipes, runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body, silence
from leancnn.channels.sizes import Widths, widths_of
from leancnn.count import Cost
from leancnn.data import open_source
from leancnn.errors import ArgumentError, MismatchError, ParityError, UsageError
from leancnn.export import trial_images
from leancnn.modes import evaluating
from leancnn.prune.budget import Candidates
from leancnn.prune.importance import Source, scored, source_of, subject_of
from leancnn.prune.latency import SILENT, Clock, fast_enough
from leancnn.prune.plan import PruningPlan
from leancnn.prune.resume import PRUNING, check_free, continues, kept, same_images, same_recipe
from leancnn.recipes import Recipe
from leancnn.train import Trained, resume, train
from leancnn.train.plan import check_options
from leancnn.training_data import check_place, kept_preprocessing
from leancnn.weights import Network

CLOSE = 1e-4  # of the logits' scale: further apart, a cut was not the cut that was planned


class Goal(TypedDict, total=False):
    """How much is cut: one of these; the others are None or absent."""

    keep: float | None
    """Share of the channels of every layer that may be cut, in 0..1."""
    expansion: float | None
    """Of networks that have this argument."""
    macs: float | None
    """The most that may remain."""
    bytes: float | None
    """The most that may remain, of the trainable weights as float32."""
    speedup: float | None
    """Times faster, of the compiled program on this machine."""


def plan(
    network: Network,
    *,
    criterion: str,
    source: Source | None = None,
    seed: int = 0,
    timed: bool = False,
    within: Collection[str] | None = None,
    progress: bool = True,
    **goal: Unpack[Goal],
) -> PruningPlan:
    """Which channels stay; the network is only read.

    `goal` is one member of `Goal`. Every layer keeps the same share, as the LB-MBNet paper does,
    and where groups want equal blocks the next lower number that they allow. Only layers that the
    criterion scores are cut, and of those the families (see `wiring`) named in `within`. Raises
    `UsageError` for another goal, `UnknownNameError` for the criterion, `MismatchError` when the
    goal cannot be reached, with the least that can.
    """
    wanted, value = one_goal(goal)
    sizes = _with_expansion(network, value) if wanted == "expansion" else {}
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    found = scored(network, dependencies, criterion, source, seed=seed, progress=progress)
    maker = Candidates(network, dependencies, found.worth, within)
    if not maker.channel_groups:
        raise MismatchError(f"{criterion} scores no layer of {network.name} that can be cut")
    reads = criteria.get(criterion).reads != "weights"
    images = source.digest(network) if reads and source is not None else None
    trained_on = network.trained.get("data_sha256", {}).get("train", images)
    changed = reads and images != trained_on
    notes = ["scored on other images than the network was trained on"] if changed else []
    share: float | None = None
    steps: Mapping[str, int] = {}
    times: tuple[float, float] | None = None
    before = maker.cost(np.ones(dependencies.units, bool))
    match wanted:
        case "keep":
            keep, share = maker.keep(value), value
        case "expansion":
            keep = maker.like(_with_expansion(network, _expansion(network)), sizes)
        case "macs" | "bytes":
            keep, share = maker.filled(lambda k: bool(getattr(maker.cost(k), wanted) <= value))
            maker.check(getattr(maker.cost(keep), wanted) <= value, wanted, value)
        case _:
            share, steps, times, told = fast_enough(maker, value, progress=progress)
            keep = maker.keep(share, steps)
            notes.append(told)
    if keep.all():
        raise MismatchError(
            f"{wanted} {value:g} leaves {network.name} as it is; there is nothing to cut"
        )
    notes += maker.remarks(keep, share, steps)
    after = maker.cost(keep)
    try:
        times = times or (Clock(network).pair(maker.cut(keep)) if timed else None)
    except SILENT as why:
        notes.append(f"not timed: {why}")
    return PruningPlan(
        network=network.name,
        criterion=criterion,
        goal={wanted: value},
        layers=maker.layers(keep),
        before=_figures(before),
        after=_figures(after),
        microseconds=times,
        notes=tuple(notes),
        seed=seed,
        within=None if within is None else tuple(sorted(within)),
        mended=criteria.get(criterion).mend is not None,
        images=images,
        told=found.told,
    )


def cut(
    network: Network, plan: PruningPlan, *, source: Source | None = None, progress: bool = True
) -> Network:
    """A new network without the channels that the plan leaves out; the old one is as it was.

    It is compared with the old network whose cut channels are held at zero. Raises `MismatchError`
    for a plan of another network, `ParityError` when the answers differ.
    """
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    keep = plan.keep(dependencies)
    body = copy.deepcopy(network.body).eval()
    mend = criteria.get(plan.criterion).mend
    if plan.mended and mend is not None:
        subject, _ = subject_of(
            network, dependencies, plan.criterion, source, seed=plan.seed, progress=progress
        )
        with torch.no_grad(), evaluating(subject.body):
            for path, new in mend(subject, keep).items():
                body.get_parameter(f"{path}.weight").copy_(new)
    small, widths = cut_body(body, dependencies, keep)
    images = network.normalise(torch.from_numpy(trial_images(network, 4)))
    with torch.no_grad():
        expected, answer = silence(body, dependencies, keep).run(images), small(images)
    if not expected.isfinite().all():
        raise MismatchError(f"{network.name} answers no numbers; has its training diverged?")
    apart = float((answer - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not apart <= CLOSE:
        raise ParityError(f"the cut {network.name} answers otherwise, by {apart:.2g}; nothing kept")
    short = {**plan.to_json(), "layers": len(plan.layers)}
    del short["told"]
    made = {"cut from": dict(network.made), "weights": weights.digest(network), "plan": short}
    if source is not None:  # so that it can be cut, trained and tested again
        made["data"] = source.place
    return Network(
        small,
        name=network.name,
        arguments=_arguments(network, plan, widths),
        classes=network.classes,
        preprocessing=network.preprocessing,
        mean=network.mean,
        std=network.std,
        made=made,
    ).eval()


def fitting(network: Network) -> str:
    """The name of the criterion for a network when none is named; see `criteria.fitting`."""
    return criteria.fitting(
        network.body, find_dependencies(network.body, network.preprocessing.channels)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What pruning hands back; the same stands in `folder`."""

    network: Network
    folder: Path
    plans: tuple[PruningPlan, ...]
    """One for each step."""
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
    which: Literal["best", "last"] | None = None,
    seed: int = 0,
    timed: bool = False,
    within: Collection[str] | None = None,
    progress: bool = True,
    **goal: Unpack[Goal],
) -> Pruned:
    """Prune a run or a saved network into the folder `out`, and train again.

    `criterion` None: the one that fits the network. `goal` as `plan` takes it, or `schedule`:
    expansions, one step after the other, of which the first may be that of the network. `finetune`
    is the recipe of the training after each cut, with `overrides`; `data` where the run's images
    have moved. A pruning that was stopped goes on when it is called again. Without `finetune` `out`
    is the folder of a saved network, else a run; earlier steps stand in `out/steps`. Raises as
    `plan`, `cut` and `train`; `RunError` when `out` holds something else or is in use.
    """
    path, out = Path(path), Path(out)
    if schedule and any(value is not None for value in goal.values()):
        raise UsageError("name a schedule or a goal, not both")
    if any(a <= b for a, b in pairwise(schedule)):
        raise UsageError(f"a schedule goes down, not {', '.join(map(str, schedule))}")
    if finetune is not None:
        finetune = recipes.read(finetune).changed(**dict(overrides or {}))
    network = weights.load(path, which)
    if finetune is not None or overrides:
        kept_preprocessing(network, overrides)
    criterion = criterion or fitting(network)
    goals = _steps(network, schedule) if schedule else [dict([one_goal(goal)])]
    reads = criteria.get(criterion).reads
    needs = reads != "weights" or finetune is not None or criteria.get(criterion).mend is not None
    known = data is not None or weights.run_of(path)[0] is not None or network.known_data
    source = source_of(path, data, network) if needs or known else None
    images = None
    if source is not None:
        check_place(out, source.data)
        if finetune is not None:  # now, not when all has been scored and cut
            asked_of = network.name, network.arguments, finetune, network.pictures
            check_options(*asked_of, seed=seed, val_share=source.val_share)
            source.load(network)
        if reads != "weights":
            images = source.digest(network)
    if data is not None:
        open_source(data)  # also where nothing reads it: a misspelt name is no wish
    names = [f"{number}-r{wanted.get('expansion', 0):g}" for number, wanted in enumerate(goals, 1)]
    if len(goals) > 1 and not (out / "steps" / names[0]).exists():
        check_free(out)  # now, not when the steps before the last have been trained
    plans: list[PruningPlan] = []
    trained = None
    with runs.Lock(out / PRUNING):
        for name, wanted in zip(names, goals, strict=True):
            folder = out if name == names[-1] else out / "steps" / name
            place = folder if finetune is None else folder / "cut"
            asked = {
                "network": network.name,
                "criterion": criterion,
                "goal": wanted,
                "seed": seed,
                "within": None if within is None else sorted(within),
                "images": images,
            }
            if not continues(folder, place, asked):
                the_plan = plan(
                    network,
                    criterion=criterion,
                    source=source,
                    seed=seed,
                    timed=timed,
                    within=within,
                    progress=progress,
                    **cast(Goal, wanted),
                )
                small = cut(network, the_plan, source=source, progress=progress)
                weights.save(small, place)
                runs.write_sealed(folder / "plan.json", the_plan.to_json())
            the_plan, network = kept(folder, place, network)
            plans.append(the_plan)
            if finetune is not None and source is not None:
                trained = _train_again(network, folder, finetune, source, seed, progress)
                network = trained.network
    return Pruned(network=network, folder=out, plans=tuple(plans), trained=trained)


def _train_again(
    network: Network,
    folder: Path,
    recipe: Recipe,
    source: Source,
    seed: int,
    progress: bool,
) -> Trained:
    if runs.is_run(folder):
        same_recipe(folder, recipe)
        same_images(folder, source.load(network))
        return resume(folder, data=source.data, progress=progress)
    return train(
        source.data,
        start=network,
        recipe=recipe,
        out=folder,
        seed=seed,
        split_seed=source.seed,
        val_share=source.val_share,
        progress=progress,
    )


def one_goal(goal: Goal) -> tuple[str, float]:
    """The one that is named, and its number. Raises `UsageError`, `MismatchError`."""
    given = {key: value for key, value in cast(dict[str, Any], goal).items() if value is not None}
    if len(given) != 1 or not given.keys() <= Goal.__annotations__.keys():
        known = ", ".join(Goal.__annotations__)
        raise UsageError(f"name one goal: {known}; not {' and '.join(sorted(given)) or 'none'}")
    ((wanted, value),) = given.items()
    if wanted == "speedup" and 0 < value <= 1:
        raise ArgumentError(f"a `speedup` is a number above 1, not {value:g}")
    if not 0 < value < float("inf"):
        raise ArgumentError(f"`{wanted}` is a finite number above 0, not {value}")
    if wanted == "keep" and value >= 1:
        raise ArgumentError(
            f"`keep` is the share of channels that stay, above 0 and below 1, not {value:g}"
        )
    return wanted, float(value)


def _expansion(network: Network) -> float:
    """What its name or its arguments say."""
    return float({**models.arguments(network.name), **network.arguments}["expansion"])


def _steps(network: Network, schedule: Sequence[int]) -> list[dict[str, float]]:
    """The goals of a schedule that are ahead of the network. Raises `MismatchError`."""
    for expansion in schedule:  # now, not when the steps before it have been trained
        _with_expansion(network, expansion)
    begun = len(schedule) > 1 and schedule[0] == _expansion(network)
    return [{"expansion": float(expansion)} for expansion in schedule[begun:]]


def _with_expansion(network: Network, value: float) -> Widths:
    """The sizes of the same network with another expansion. Raises `MismatchError`."""
    arguments = {key: v for key, v in network.arguments.items() if key != "cut"}
    if "expansion" not in models.arguments(network.name) or value != int(value):
        raise MismatchError(
            f"{network.name} has no expansion of {value:g}; name a share of its channels, MACs, "
            "bytes or a speedup instead"
        )
    with torch.device("meta"):
        body = weights.build(
            network.name,
            {**arguments, "expansion": int(value)},
            len(network.classes),
            network.preprocessing,
        )
    sizes = widths_of(body)
    gone = widths_of(network.body).keys() ^ sizes.keys()
    if gone:
        raise MismatchError(f"that is another network, and no cut of this: {min(gone)}")
    return sizes


def _arguments(network: Network, plan: PruningPlan, widths: Widths) -> dict[str, Any]:
    """What rebuilds the cut network: another expansion where that says it all, else sizes."""
    old = {key: value for key, value in network.arguments.items() if key != "cut"}
    if "expansion" in plan.goal:
        new = {**old, "expansion": int(plan.goal["expansion"])}
        now = {**widths_of(network.body), **widths}
        if _with_expansion(network, plan.goal["expansion"]) == now:
            return new
    sizes = {**dict(network.arguments.get("cut", {})), **widths}
    return {**old, "cut": {path: list(numbers) for path, numbers in sizes.items()}}


def _figures(cost: Cost) -> dict[str, int]:
    return {name: getattr(cost, name) for name in ("trainable", "frozen", "macs", "bytes")}
