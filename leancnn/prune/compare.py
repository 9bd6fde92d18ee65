"""Was the pruning worth it? Criteria and baselines under one protocol, one table, one conclusion.

Every criterion cuts the same groups of channels by the same goal, and every network is trained
again by the same recipe in the same precision. A baseline is trained from scratch for as many
epochs as the whole network and the retraining had together, on the same images at the same size; a
network that is named takes its own size. Accuracy is that of the last epoch, and of the whole
network as it was cut; once, on the test part.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from leancnn import criteria as criterion_family
from leancnn import models, recipes, runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.errors import ArgumentError, DivergedError, MismatchError, RunError
from leancnn.plots import pruning_picture
from leancnn.preprocess import Preprocessing
from leancnn.prune.baselines import OLD, SMALLER, baseline_start, check_baseline
from leancnn.prune.goal import Goal, GoalWords
from leancnn.prune.importance import scored
from leancnn.prune.latency import SILENT, Clock
from leancnn.prune.measure import Measured, TestAccuracy
from leancnn.prune.planning import PruningRequest
from leancnn.prune.resume import PRUNING, same_recipe
from leancnn.prune.run import prune_network
from leancnn.prune.significance import Comparison, Row, conclusion, means
from leancnn.recipes import Recipe
from leancnn.train.plan import TrainingPlan
from leancnn.train.request import TrainingRequest
from leancnn.train.run import resume_on, train_on
from leancnn.training_data import (
    TrainingImages,
    check_place,
    kept_preprocessing,
    preprocessing_for,
    training_images,
)
from leancnn.weights import Network

MADE_FROM = "control.json"  # in a baseline's folder: what it was made from


def compare(
    path: str | Path,
    *,
    out: str | Path,
    criteria: Sequence[str] | None = None,
    baselines: Sequence[str] = ("scratch",),
    seeds: int = 1,
    finetune: str | Path | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    timed: bool = True,
    progress: bool = True,
    on_row: Callable[[Comparison], None] | None = None,
    **goal: Unpack[GoalWords],
) -> Comparison:
    """Prune a trained network by each criterion, with each seed, beside baselines.

    `criteria` None: all that score this network and train nothing for it. `baselines`: scratch, the
    pruned sizes from fresh weights; kept_kernels, the same with the ternary kernels that the first
    criterion kept; random_kernels, the first criterion's network with ternary kernels drawn anew;
    smaller_model, the network of the next smaller cost; or the name of a network. `finetune` None:
    the recipe of the run, without its penalty `bn_l1`, which is for the training before a cut. What
    was done is not done again: a comparison that was stopped goes on. After every row the
    comparison so far is written, and handed to `on_row`. Raises as `prune`, and `RunError` for a
    path that is no run, for other images than the run's, and for an `out` that is in use.
    """
    wanted, out = Goal.of(**goal), Path(out)
    baselines = list(
        dict.fromkeys(OLD.get(name, name) for name in baselines)
    )  # one that is named twice has no more runs
    for name in baselines:
        check_baseline(name)
    if seeds < 1:
        raise ArgumentError(f"`seeds` are 1 or more, not {seeds}")
    protocol = _protocol(Path(path), out, wanted, (finetune, overrides or {}), data, progress)
    with runs.Lock(out / PRUNING):
        comparing = _Comparing(protocol, criteria, timed=timed, on_row=on_row)
        for seed in range(seeds):
            small = comparing.prune(seed)
            comparing.train_baselines(baselines, small, seed)
            comparing.finish_seed()
    return comparing.result


def _protocol(
    path: Path,
    out: Path,
    goal: Goal,
    retraining: tuple[str | Path | Recipe | None, Mapping[str, Any]],
    data: str | Path | None,
    progress: bool,
) -> "Protocol":
    """What a run and the words of `compare` ask for; `retraining`: a recipe, and its overrides."""
    run, which = runs.run_of(path)
    if run is None:
        raise RunError(f"{path} is no run; a comparison needs the recipe it was trained by")
    whole = weights.load(path)
    images = training_images(path, data, whole)
    kept_preprocessing(whole, retraining[1])
    check_place(out, images.data)
    begun = TrainingPlan.of_json(runs.read_run(run)["plan"])
    return Protocol(
        whole=whole,
        run=run,
        which=which or "best",
        begun=begun,
        goal=goal,
        recipe=_recipe(begun, *retraining),
        images=images,
        out=out,
        progress=progress,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is the same for every network of a comparison."""

    whole: Network
    run: Path
    """Of the whole network."""
    which: str
    begun: TrainingPlan
    """Of that run."""
    goal: Goal
    recipe: Recipe
    """Of every training after a cut."""
    images: TrainingImages
    out: Path
    progress: bool


class _Comparing:
    """A comparison at work: its protocol, the rows so far, and who was left out."""

    def __init__(
        self,
        protocol: Protocol,
        criteria: Sequence[str] | None,
        *,
        timed: bool,
        on_row: Callable[[Comparison], None] | None,
    ) -> None:
        """Raises `RunError` for other images than those of the run, `MismatchError` for none of
        the criteria."""
        self.protocol, self.on_row = protocol, on_row
        images, whole = protocol.images, protocol.whole
        test = TestAccuracy(whole, images.data)
        if test.recut(protocol.run):
            raise RunError(
                f"{images.data} has other files than when {protocol.run} began, and no test part "
                "of its own: images that were trained on may be among those to test; train anew"
            )
        replace(protocol.begun, data=images.data).check_data(images.of(whole))
        self.chosen, self.within, self.left_out = _applicable(
            whole, images, criteria, protocol.progress
        )
        clock = None
        try:
            clock = Clock(whole) if timed else None
        except SILENT as why:
            self.left_out.append(f"times: {why}")
        self.measured = Measured(test, clock)
        self.before = _epochs(protocol.run)
        self.rows: list[Row] = []
        self.result = Comparison(
            folder=str(protocol.out),
            goal=protocol.goal.to_json(),
            images=test.images,
            rows=(),
            left_out=(),
            conclusion="",
            picture=str(protocol.out / "comparison.png"),
        )

    @property
    def both(self) -> float:
        """Epochs of the whole network and of the training after the cut."""
        return self.before + self.protocol.recipe.epochs

    def prune(self, seed: int) -> Network:
        """Cut by each criterion and train again, a row each; the first criterion's cut."""
        small: Network | None = None
        for name in self.chosen:
            folder, trained = self.protocol.out / f"{name}-seed{seed}", True
            try:
                self._prune_by(name, seed, folder)
            except MismatchError as why:  # of a budget that it is not held to, say
                self.left_out.append(f"{name}, seed {seed}: {why}")
                continue
            except DivergedError as why:
                self.left_out.append(f"{name}, seed {seed}: {why}")
                trained = False
            cut = weights.load(folder / "cut")
            small = small or cut  # of the first criterion, even where its training diverged
            if not trained:
                continue
            untrained = self.measured.test.accuracy(cut, folder / "cut", "cut")
            last = weights.load(folder, "last")
            self._add(self._row(name, "criterion", seed, last, folder, before=untrained))
        if small is None:
            raise MismatchError("; ".join(self.left_out))
        return small

    def _prune_by(self, criterion: str, seed: int, folder: Path) -> None:
        """One pruning as `prune` does it, on the images that are loaded already."""
        protocol = self.protocol
        request = PruningRequest(
            criterion=criterion, goal=protocol.goal, seed=seed, within=tuple(sorted(self.within))
        )
        prune_network(
            protocol.whole,
            request,
            folder,
            protocol.images,
            [protocol.goal],
            protocol.recipe,
            progress=protocol.progress,
        )

    def train_baselines(self, baselines: Sequence[str], small: Network, seed: int) -> None:
        """Train what a pruned network has to beat, a row each; `small` is the pruned one."""
        for baseline in baselines:
            folder = self.protocol.out / f"{baseline}-seed{seed}"
            try:
                label, last = self._baseline(baseline, small, seed, folder)
            except MismatchError as why:
                self.left_out.append(str(why))
                continue
            except DivergedError as why:
                self.left_out.append(f"{baseline}, seed {seed}: {why}")
                continue
            self._add(self._row(label, "baseline", seed, last, folder))

    def _baseline(
        self, baseline: str, small: Network, seed: int, folder: Path
    ) -> tuple[str, Network]:
        """A baseline's name in the table, and it, trained to its end."""
        protocol = self.protocol
        start, model, arguments = baseline_start(baseline, small, seed)
        recipe = _baseline_recipe(baseline, model, protocol.recipe, protocol.whole.pictures())
        epochs = protocol.recipe.epochs if baseline == "random_kernels" else self.both
        request = TrainingRequest.of(
            model=model,
            arguments=arguments,
            start=start,
            recipe=recipe.changed(epochs=epochs),
            seed=seed,
            split_seed=protocol.images.split_seed,
            val_share=protocol.images.val_share,
        )
        last = _trained(folder, protocol.images, request, protocol.progress)
        return f"{baseline} ({model})" if baseline == SMALLER else baseline, last

    def _row(
        self,
        label: str,
        kind: str,
        seed: int,
        network: Network,
        folder: Path,
        before: float | None = None,
    ) -> Row:
        """Of a network that was trained after a cut, or as a baseline."""
        figures = self.measured.figures(network, folder)
        return Row(label=label, kind=kind, seed=seed, before=before, epochs=self.both, **figures)

    def _add(self, *more: Row) -> None:
        """Write the comparison with these rows, and hand it to whoever asked for it."""
        if not self.rows:  # a goal out of reach was refused before this uses the test part
            protocol = self.protocol
            figures = self.measured.figures(protocol.whole, protocol.run, protocol.which)
            self.rows.append(
                Row(label="whole", kind="whole", seed=0, before=None, epochs=self.before, **figures)
            )
        self.rows.extend(more)
        self.result = replace(
            self.result,
            rows=tuple(self.rows),
            left_out=tuple(dict.fromkeys(self.left_out)),
            conclusion=conclusion(self.rows, self.result.images),
        )
        runs.write_checked(self.protocol.out / "comparison.json", self.result.to_json())
        if self.on_row is not None and more:
            self.on_row(self.result)

    def finish_seed(self) -> None:
        """Write the table and the picture of all seeds so far."""
        self._add()
        picture = pruning_picture(means(self.rows))
        runs.atomic_write(self.protocol.out / "comparison.png", picture)


def _recipe(
    begun: TrainingPlan, finetune: str | Path | Recipe | None, overrides: Mapping[str, Any]
) -> Recipe:
    """Of every training: that of the run, unless another is named, in the run's precision.

    Else a few steps would choose a precision for each network by itself. Network slimming's penalty
    ends with the cut.
    """
    recipe = begun.recipe if finetune is None else recipes.read(finetune)
    same: dict[str, Any] = {"bn_l1": 0.0} if finetune is None else {}
    recipe = recipe.changed(**{**same, **overrides})
    return recipe.changed(precision=begun.precision) if recipe.precision == "auto" else recipe


def _epochs(run: Path) -> float:
    """How long a run has trained, with what came before it; of one that was stopped, so far."""
    about = runs.read_run(run)
    plan = TrainingPlan.of_json(about["plan"])
    if about["state"] == "finished":
        return plan.epochs
    steps = weights.load(run, "last").made["step"]
    return plan.epochs_before + float(steps) / plan.steps_per_epoch


def _applicable(
    network: Network, images: TrainingImages, names: Sequence[str] | None, progress: bool
) -> tuple[list[str], set[str], list[str]]:
    """Criteria that score this network, the groups that all of them score, and who cannot."""
    dependencies = find_dependencies(network.body, network.pictures().channels)
    for name in names or ():
        criterion_family.get(name)
    chosen, left_out = [], []
    within = {one.name for one in dependencies.channel_groups}
    quick = [name for name in criterion_family.names() if not criterion_family.get(name).trains]
    for name in dict.fromkeys(names or quick):
        try:
            found = scored(network, dependencies, name, images, progress=progress).importance
        except MismatchError as why:
            left_out.append(str(why))
            continue
        coupled = {int(number) for path in found for number in dependencies.writes[path]}
        within &= {
            one.name for one in dependencies.channel_groups if int(one.coupled[0]) in coupled
        }
        chosen.append(name)
    if not chosen:
        raise MismatchError("; ".join(left_out))
    return chosen, within, left_out


def _baseline_recipe(
    baseline: str, model: str | None, recipe: Recipe, preprocessing: Preprocessing
) -> Recipe:
    """The recipe by which a baseline takes the images as the whole network does."""
    sees: dict[str, Any] = {"channels": preprocessing.channels, "fit": preprocessing.fit}
    if baseline not in models.names():
        sees |= {"size": preprocessing.size, "scale": preprocessing.scale}
    elif models.card(baseline).image[1:] != preprocessing.size:  # the recipe's are the whole's
        recipe = recipe.changed(size=None, scale=None)
    own = preprocessing if model is None else preprocessing_for(model, recipe)
    alike = all(getattr(own, key) == value for key, value in sees.items())
    return recipe if alike else recipe.changed(**sees)


def _trained(
    folder: Path, images: TrainingImages, request: TrainingRequest, progress: bool
) -> Network:
    """A baseline, trained to its end. Raises `RunError` when the folder holds another."""
    asked = {"model": request.model, "seed": request.seed, **request.arguments}
    if request.start is not None:
        asked["start"] = weights.digest(request.start)
    if runs.is_run(folder):
        same_recipe(folder, request.recipe)
        _same_baseline(folder, json.loads(json.dumps(asked)))
        resume_on(folder, images, progress=progress)
    else:
        runs.write_checked(folder / MADE_FROM, asked)
        train_on(images, request, out=folder, progress=progress)
    return weights.load(folder, "last")


def _same_baseline(folder: Path, asked: Mapping[str, Any]) -> None:
    path = folder / MADE_FROM
    there = runs.read_json(path, dict[str, Any]) if path.exists() else {}
    odd = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    if odd:
        short = {key: not isinstance(asked.get(key), dict) and key != "start" for key in odd}
        pairs = {key: (there.get(key, "unset"), asked.get(key, "unset")) for key in odd}
        what = [f"{k} {one}, not {two}" if short[k] else k for k, (one, two) in pairs.items()]
        raise RunError(f"{folder} holds another baseline ({'; '.join(what)}); choose another --out")
