"""Was the pruning worth it? Criteria and controls under one protocol, one table, one verdict.

Every criterion cuts the same families of channels by the same goal, and every network is trained
again by the same recipe in the same precision. A control is trained from scratch for as many epochs
as the whole network and the retraining had together, on the same images at the same size; a network
that is named takes its own size. Accuracy is that of the last epoch, and of the whole network as it
was cut; once, on the test part.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np

from leancnn import criteria as criterion_family
from leancnn import models, recipes, runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.count import count
from leancnn.data import Split, load_dataset
from leancnn.distributed import own_device
from leancnn.errors import ArgumentError, DataError, DivergedError, MismatchError, RunError
from leancnn.evaluate import recut
from leancnn.plots import gate_distributions, pruning_picture
from leancnn.predict import probabilities
from leancnn.preprocess import Preprocessing
from leancnn.prune.baselines import check_control, control_start
from leancnn.prune.importance import Source, scored, source_of
from leancnn.prune.latency import SILENT, Clock
from leancnn.prune.resume import PRUNING, same_recipe
from leancnn.prune.run import Goal, one_goal, prune
from leancnn.prune.significance import Comparison, Row, means, verdict
from leancnn.recipes import Recipe
from leancnn.train import resume, train
from leancnn.train.plan import TrainingPlan
from leancnn.training_data import check_place, kept_preprocessing, preprocessing_for
from leancnn.weights import Network

CONTROL = "control.json"  # in a control's folder: what it was made from


def compare(
    path: str | Path,
    *,
    out: str | Path,
    criteria: Sequence[str] | None = None,
    controls: Sequence[str] = ("scratch",),
    seeds: int = 1,
    finetune: str | Path | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    timed: bool = True,
    progress: bool = True,
    told: Callable[[Comparison], None] | None = None,
    **goal: Unpack[Goal],
) -> Comparison:
    """Prune a trained network by each criterion, with each seed, beside controls.

    `criteria` None: all that score this network. `controls`: scratch, the pruned sizes from fresh
    weights; kept_kernels, the same with the ternary kernels that the first criterion kept;
    random_kernels, the first criterion's network with ternary kernels drawn anew; zoo, the network
    of the zoo of the next smaller cost; or the name of a network. `finetune` None: the recipe of
    the run, without its penalty `bn_l1`, which is for the training before a cut. What was done is
    not done again: a comparison that was stopped goes on. After every row the comparison so far is
    written, and handed to `told`. Raises as `prune`, and `RunError` for a path that is no run, for
    other images than the run's, and for an `out` that is in use.
    """
    path, out = Path(path), Path(out)
    run, of_path = weights.run_of(path)
    if run is None:
        raise RunError(f"{path} is no run; a comparison needs the recipe it was trained by")
    one_goal(goal)
    controls = list(dict.fromkeys(controls))  # one that is named twice has no more runs
    for name in controls:
        check_control(name)
    if seeds < 1:
        raise ArgumentError(f"`seeds` are 1 or more, not {seeds}")
    whole = weights.load(path)
    source = source_of(path, data, whole)
    kept_preprocessing(whole, overrides)
    check_place(out, source.data)
    with runs.Lock(out / PRUNING):
        begun = TrainingPlan.of_json(runs.read_run(run)["plan"])
        recipe = _recipe(begun, finetune, overrides or {})
        test = _Test(whole, source)
        if recut(run, test.manifest):
            raise RunError(
                f"{source.data} has other files than when {run} began, and no test part of its "
                "own: images that were trained on may be among those to test; train anew"
            )
        replace(begun, data=source.data).check_data(source.load(whole))
        chosen, within, left_out = _applicable(whole, source, criteria, progress)
        clock = None
        try:
            clock = Clock(whole) if timed else None
        except SILENT as why:
            left_out.append(f"times: {why}")
        which = of_path or "best"
        before = _epochs(run)
        known = whole, test, clock, before
        rows: list[Row] = []
        both = before + recipe.epochs
        result = Comparison(
            folder=str(out),
            goal={
                key: value for key, value in cast(dict[str, Any], goal).items() if value is not None
            },
            images=test.images,
            rows=(),
            left_out=(),
            verdict="",
            picture=str(out / "comparison.png"),
        )

        def add(*more: Row) -> None:
            nonlocal result
            if not rows:  # a goal that is out of reach was refused before this opens the test part
                rows.append(_row("whole", "whole", 0, None, *known, run=run, which=which))
            rows.extend(more)
            result = _written(result, rows, left_out)
            if told is not None and more:
                told(result)

        for seed in range(seeds):
            small: Network | None = None
            for name in chosen:
                folder, trained = out / f"{name}-seed{seed}", True
                try:
                    prune(
                        path,
                        out=folder,
                        criterion=name,
                        finetune=recipe,
                        data=data,
                        seed=seed,
                        within=within,
                        progress=progress,
                        **goal,
                    )
                except DivergedError as why:
                    left_out.append(f"{name}, seed {seed}: {why}")
                    trained = False
                cut = weights.load(folder / "cut")
                small = small or cut  # of the first criterion, even where its training diverged
                if not trained:
                    continue
                untrained = test.accuracy(cut, folder / "cut", "cut")
                last = weights.load(folder, "last")
                add(_row(name, "criterion", seed, untrained, last, test, clock, both, run=folder))
            assert small is not None  # some criterion was chosen
            for control in controls:
                epochs = recipe.epochs if control == "random_kernels" else both
                folder = out / f"{control}-seed{seed}"
                try:
                    start, model, arguments = control_start(control, small, seed)
                    last = _trained(
                        folder,
                        source,
                        seed,
                        _control_recipe(control, model, recipe, whole.pictures).changed(
                            epochs=epochs
                        ),
                        start,
                        model,
                        arguments,
                        progress,
                    )
                except MismatchError as why:
                    left_out.append(str(why))
                    continue
                except DivergedError as why:
                    left_out.append(f"{control}, seed {seed}: {why}")
                    continue
                label = f"{control} ({model})" if control == "zoo" else control
                add(_row(label, "control", seed, None, last, test, clock, both, run=folder))
            add()
            runs.atomic_write(out / "comparison.png", pruning_picture(means(rows)))
    return result


def _written(result: Comparison, rows: Sequence[Row], left_out: Sequence[str]) -> Comparison:
    """The comparison with the rows so far, which then stands on disk."""
    result = replace(
        result,
        rows=tuple(rows),
        left_out=tuple(dict.fromkeys(left_out)),
        verdict=verdict(rows, result.images),
    )
    runs.write_sealed(Path(result.folder) / "comparison.json", result.to_json())
    return result


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


class _Test:
    """The images that accuracy is measured on: the test part."""

    def __init__(self, network: Network, source: Source) -> None:
        self.source = source
        self.splits: dict[Preprocessing, Split] = {}  # a control may see images of another size
        self.sha256: dict[Preprocessing, str] = {}
        self.manifest: Mapping[str, Any] = {}
        self.images = len(self._split(network).labels)

    def accuracy(self, network: Network, run: Path | None = None, which: str = "last") -> float:
        """0..1. In `run`, the folder of a network, an opening of the test part is counted, once."""
        split = self._split(network)
        of_data = self.sha256.get(network.pictures)
        known = {"which": which, "sha256": of_data, "weights": weights.digest(network)}
        if run is not None:
            for one in runs.evaluations(run):
                if all(one.get(key) == value for key, value in known.items()):
                    return float(one["accuracy"])
        answers = probabilities(network.on(own_device()), split.images).argmax(1)
        found = float((answers == np.asarray(split.labels)).mean())
        if run is not None:
            about = {"data": self.source.data, "images": len(split.labels), "accuracy": found}
            runs.add_evaluation(run, {**known, **about})
        return found

    def _split(self, network: Network) -> Split:
        if network.pictures not in self.splits:
            dataset = load_dataset(self.source.data, network.pictures, parts=("test",))
            split = dataset.test
            if split is None or not len(split.labels):
                raise DataError(f"{self.source.data} has no images to test")
            network.check_classes(dataset.classes, self.source.data)
            self.splits[network.pictures], self.manifest = split, dataset.manifest
            self.sha256[network.pictures] = dataset.manifest["sha256"]["test"]
        return self.splits[network.pictures]


def _row(
    label: str,
    kind: str,
    seed: int,
    before: float | None,
    network: Network,
    test: _Test,
    clock: Clock | None,
    epochs: float,
    *,
    run: Path,
    which: str = "last",
) -> Row:
    cost = count(network.body, (network.pictures.channels, *network.pictures.size))
    microseconds = None
    with contextlib.suppress(*SILENT):  # a control that has no program is not timed
        if clock is not None and network.pictures != clock.network.pictures:
            clock = Clock(network)  # an image of another size
        microseconds = None if clock is None else clock.pair(network.body)[1]
    return Row(
        label=label,
        kind=kind,
        seed=seed,
        before=before,
        after=test.accuracy(network, run, which),
        macs=cost.macs,
        trainable=cost.trainable,
        microseconds=microseconds,
        epochs=epochs,
    )


def _epochs(run: Path) -> float:
    """How long a run has trained, with what came before it; of one that was stopped, so far."""
    told = runs.read_run(run)
    plan = TrainingPlan.of_json(told["plan"])
    if told["state"] == "finished":
        return plan.epochs
    steps = weights.load(run, "last").made["step"]
    return plan.epochs_before + float(steps) / plan.steps_per_epoch


def _applicable(
    network: Network, source: Source, names: Sequence[str] | None, progress: bool
) -> tuple[list[str], set[str], list[str]]:
    """Criteria that score this network, the families that all of them score, and who cannot."""
    dependencies = find_dependencies(network.body, network.pictures.channels)
    for name in names or ():
        criterion_family.get(name)
    chosen, left_out = [], []
    within = {one.name for one in dependencies.channel_groups}
    for name in dict.fromkeys(names or criterion_family.names()):
        try:
            found = scored(network, dependencies, name, source, progress=progress).worth
        except MismatchError as why:
            left_out.append(str(why))
            continue
        units = {int(unit) for path in found for unit in dependencies.writes[path]}
        within &= {one.name for one in dependencies.channel_groups if int(one.units[0]) in units}
        chosen.append(name)
    if not chosen:
        raise MismatchError("; ".join(left_out))
    return chosen, within, left_out


def _control_recipe(
    control: str, model: str | None, recipe: Recipe, preprocessing: Preprocessing
) -> Recipe:
    """The recipe by which a control takes the images of the whole network's road."""
    sees: dict[str, Any] = {"channels": preprocessing.channels, "fit": preprocessing.fit}
    if control not in models.names():
        sees |= {"size": preprocessing.size, "scale": preprocessing.scale}
    elif models.card(control).image[1:] != preprocessing.size:  # the recipe's are the whole's
        recipe = recipe.changed(size=None, scale=None)
    own = preprocessing if model is None else preprocessing_for(model, recipe)
    alike = all(getattr(own, key) == value for key, value in sees.items())
    return recipe if alike else recipe.changed(**sees)


def _trained(
    folder: Path,
    source: Source,
    seed: int,
    recipe: Recipe,
    start: Network | None,
    model: str | None,
    arguments: Mapping[str, Any],
    progress: bool,
) -> Network:
    """A control, trained to its end. Raises `RunError` when the folder holds another."""
    asked = {"model": model, "seed": seed, **arguments}
    if start is not None:
        asked = {
            "model": start.name,
            "seed": seed,
            **start.arguments,
            "start": weights.digest(start),
        }
    if runs.is_run(folder):
        same_recipe(folder, recipe)
        _same_control(folder, json.loads(json.dumps(asked)))
        resume(folder, data=source.data, progress=progress)
    else:
        runs.write_sealed(folder / CONTROL, asked)
        train(
            source.data,
            model=model,
            arguments=arguments,
            start=start,
            recipe=recipe,
            out=folder,
            seed=seed,
            split_seed=source.seed,
            val_share=source.val_share,
            progress=progress,
        )
    return weights.load(folder, "last")


def _same_control(folder: Path, asked: Mapping[str, Any]) -> None:
    path = folder / CONTROL
    there = runs.read_json(path, dict[str, Any]) if path.exists() else {}
    odd = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    if odd:
        short = {key: not isinstance(asked.get(key), dict) and key != "start" for key in odd}
        pairs = {key: (there.get(key, "unset"), asked.get(key, "unset")) for key in odd}
        what = [f"{k} {one}, not {two}" if short[k] else k for k, (one, two) in pairs.items()]
        raise RunError(f"{folder} holds another control ({'; '.join(what)}); choose another --out")


def gates(
    path: str | Path | Sequence[str | Path],
    picture: str | Path,
    *,
    data: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Draw how open the gates of one network or several are: the LB-MBNet paper's Fig. 5.

    The answer holds, by network and gate, the mean of each channel over the training images, and a
    histogram of all values. Raises `MismatchError` for a network without gates.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    found = {}
    for one in map(Path, paths):
        network = weights.load(one)
        source = source_of(one, data, network)
        dependencies = find_dependencies(network.body, network.pictures.channels)
        told = scored(network, dependencies, "se_gate", source, progress=progress).told
        found[str(one)] = told["gates"]
    runs.atomic_write(Path(picture), gate_distributions(found))
    return found
