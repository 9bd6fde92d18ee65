"""Train a network: the loop, its checkpoints, and exact resume.

plan → data → for each epoch: for each step: augment, normalise, forward, loss, backward, step →
validate → save

Everything random is a pure function of (seed, epoch, index) or (seed, step), so the counters below
say where a run stands, and a run that was stopped or killed at any moment ends in the same bits as
one that was not.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn import manifests, pretrained, recipes, runs, weights
from leancnn.data import Dataset, recognise
from leancnn.distributed import World, join
from leancnn.errors import RunError, UsageError
from leancnn.peers import watching
from leancnn.process import kept_pages, kept_threads
from leancnn.progress import Waiting, tell
from leancnn.recipes import Recipe
from leancnn.train.backend import choose, facts
from leancnn.train.estimate import forecast
from leancnn.train.history import Counters, edited
from leancnn.train.loop import Loop, Trained, finish
from leancnn.train.plan import TrainingPlan, characters, check_options
from leancnn.train.state import begin, load_state_dict, load_weights
from leancnn.training_data import (
    check_place,
    images_for,
    keep_margin,
    kept_cut,
    kept_preprocessing,
    preprocessing_for,
)
from leancnn.weights import Network

__all__ = ["Trained", "resume", "train"]


@kept_threads()
@kept_pages()
def train(
    data: str | Path,
    *,
    model: str | None = None,
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    start: Network | str | Path | None = None,
    seed: int = 0,
    split_seed: int | None = None,
    val_share: float | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    save_every_s: float = 60.0,
    save_every_steps: int | None = None,
    **fields: Any,
) -> Trained:
    """Train a network on a folder of images or a named data set, and leave everything in `out`.

    `model` and `recipe` each stand in for the other's absence: the recipe's network, the network's
    recipe. `fields` are fields of the recipe by their names, such as epochs=20, lr=0.05 or
    rotate=10; so are `overrides`. `arguments` are those of the network's builder.
    `start` is a network, a saved one or a run, whose weights, input and normalisation training
    begins with, in the place of `model` and `arguments`; or a file of weights for them, which
    somebody else trained: a torch state dict, safetensors or ONNX (see `pretrained`).
    `val_share` of the train part is set aside for validation where the data has no val part; None:
    a tenth, or about 2,000 images; 0: nothing is, and a val part stays shut. Which images those are
    is a matter of `split_seed`, else of `seed`. With `start` both are, unless given, as they were
    where that network was trained. `out` must hold no run yet; None makes a folder in
    `runs/`. The test part is never opened. Under `torchrun` all its processes share the work.

    Raises `RunError` when `out` holds a run or is in use, `DivergedError` at the first loss or
    gradient that is not finite, `StoppedError` after Ctrl-C or SIGTERM, when all is saved; and
    `UnknownNameError`, `MismatchError`, `DataError`, `WriteError` as their names say.

        trained = leancnn.train("photos/", model="henet_r3", epochs=20, out="runs/a")
    """
    overrides = _overrides(overrides, fields)
    foreign = pretrained.read(str(start)) if pretrained.is_file_of_weights(start) else {}
    origin, start = (str(start), None) if foreign else ("", start)
    if start is not None:
        start = start if isinstance(start, Network) else weights.load(start)
        if model is not None or arguments:
            raise UsageError("training that starts from a network takes no model and no arguments")
        model, arguments = start.name, start.arguments
        val_share, split_seed = kept_cut(start, val_share, split_seed)
    chosen = recipes.for_network(model or "henet_r3") if recipe is None else recipes.read(recipe)
    chosen = chosen.changed(**overrides)
    model = model or chosen.network
    chosen = keep_margin(chosen, model, overrides)
    arguments = dict(arguments or {})
    preprocessing = (
        kept_preprocessing(start, overrides)
        if isinstance(start, Network)
        else preprocessing_for(model, chosen)
    )
    body = check_options(model, arguments, chosen, preprocessing, seed=seed, val_share=val_share)
    if foreign:
        pretrained.check(foreign, body, origin)
    recognise(data)
    if out == "":
        raise UsageError("the name of the run's folder is empty; name one, or . for this one")
    world = join()
    folder = (
        Path(out) if out is not None else runs.free_folder(f"{model}-{chosen.name}", world.of_first)
    )
    check_place(folder, data)
    with (
        runs.Lock(folder) if world.first else nullcontext(),
        watching(world.rank, world.size, folder),
    ):
        if world.first and runs.is_run(folder):
            raise RunError(
                f"{folder} holds a run already; go on with 'leancnn train --resume {folder}' "
                "or choose another folder"
            )
        dataset = world.first_then_others(
            lambda: images_for(
                data,
                preprocessing,
                val_share=val_share,
                split_seed=seed if split_seed is None else split_seed,
            )
        )
        split = dataset.of_train
        mean, std = dataset.mean_std()
        if isinstance(start, Network):
            start.check_classes(dataset.classes, data)
            mean, std = start.mean, start.std
        chosen, said = _unmirrored(chosen, dataset, asked=recipe is not None or "flip" in overrides)
        plan = TrainingPlan(
            data=str(data),
            data_sha256=dataset.manifest["sha256"],
            val_share=dataset.val_share if val_share is None else val_share,
            classes=dataset.classes,
            images=len(split.labels),
            counts=tuple(np.bincount(split.labels, minlength=len(dataset.classes)).tolist()),
            model=model,
            arguments=arguments,
            recipe=chosen,
            preprocessing=preprocessing,
            mean=mean,
            std=tuple(max(value, 1 / 255) for value in std),
            seed=seed,
            split_seed=split_seed,
            epochs_before=start.epochs if isinstance(start, Network) else 0.0,
            engine="torch",
            precision="fp32",
            threads=torch.get_num_threads(),
            processes=world.size,
            machine={},
            save_every_s=save_every_s,
            save_every_steps=save_every_steps,
        )
        plan.check_sizes(asked="batch" in overrides)
        notes = [*said, *plan.warnings(dataset, start)]
        train_state = begin(plan, world)
        if isinstance(start, Network):
            load_weights(train_state, start)
        some = torch.from_numpy(np.array(preprocessing.window(split.images[: plan.batch])))
        batch = train_state.network.normalise(world.part(some).to(world.device))
        if foreign:
            whole = train_state.network.normalise(some.to(world.device))  # alike in all processes
            notes.append(pretrained.fill(train_state.network.body, foreign, whole, origin))
            load_weights(train_state, train_state.network)
        _tell(notes, world)
        slow = progress and world.first and chosen.engine in ("auto", "lanes")
        with Waiting("comparing engines; the first time kernels are compiled", shown=slow):
            way = choose(
                train_state.network.body,
                chosen,
                batch,
                world,
                uses_features=train_state.loss.uses_features,
            )
        known = facts(world.device, way.engine)
        plan = replace(
            plan, engine=way.engine, precision=way.precision, engine_why=way.why, machine=known
        )
        said_first = forecast(plan, train_state.network.body, batch, world) if progress else ""
        if said_first and world.first:
            tell(said_first)
        if world.first:
            runs.sweep(folder)
        counters = Counters()
        Loop(plan, dataset, train_state, counters, folder, world).run(shown=progress, notes=notes)
        return finish(plan, train_state, counters, folder, world)


@kept_threads()
@kept_pages()
def resume(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    epochs: float | None = None,
    patience: int | None = None,
    progress: bool = True,
) -> Trained:
    """Go on where a run stands, to the same bits as without the stop; hand a finished one back.

    `data` names the images where they have moved; the same images are needed. `epochs` gives the
    run another length, counted from its beginning, also when it is finished, and `patience` another
    patience: the schedule is then stretched over all of it, from the next step on.
    Raises `RunError` when there is no checkpoint that can be read, or other images;
    `MismatchError` for other classes; otherwise as `train`.
    """
    folder = Path(folder)
    world = join()
    if not runs.is_run(folder):
        raise RunError(f"{folder} holds no run; begin one with 'leancnn train DATA --out {folder}'")
    with (
        runs.Lock(folder) if world.first else nullcontext(),
        watching(world.rank, world.size, folder),
    ):
        checkpoint, notes = runs.load_checkpoint(folder)
        if checkpoint is None:
            raise RunError(
                f"{folder} holds no checkpoint that can be read; begin again in another folder"
                + "".join(f"; {text}" for text in notes)
            )
        where, about = f"the checkpoint of {folder}", checkpoint.manifest
        manifests.check(about, manifests.Checkpoint, where)
        manifests.check(about["counters"], manifests.Counters, where, closed=True)
        plan = TrainingPlan.of_json(checkpoint.manifest["plan"])
        plan = plan if data is None else replace(plan, data=str(data))
        counters = Counters(**checkpoint.manifest["counters"])
        torch.set_num_threads(plan.threads)  # other sums, other bits
        notes += edited(folder, plan)
        if epochs is not None or patience is not None:
            plan, said = plan.with_length(counters.step, epochs, patience)
            notes.append(said)
        changed = plan.differences(world)
        notes += (
            [f"not bit-exact from step {counters.step} on: {'; '.join(changed)}"] if changed else []
        )
        train_state = begin(plan, world)
        load_state_dict(train_state, checkpoint.tensors, folder)
        _tell(notes, world)
        if world.first:
            runs.set_aside(folder, newer_than=checkpoint.step)
            runs.sweep(folder)
        if plan.done(counters.epoch, counters.best_epoch):
            tell(f"{folder} is finished: {counters.epoch} epochs")
            return finish(plan, train_state, counters, folder, world)
        dataset = world.first_then_others(
            lambda: images_for(
                plan.data if data is not None else runs.images_of(folder, plan.data),
                plan.preprocessing,
                val_share=plan.val_share,
                split_seed=plan.cut_seed,
            )
        )
        plan.check_data(dataset)
        Loop(plan, dataset, train_state, counters, folder, world).run(shown=progress, notes=notes)
        return finish(plan, train_state, counters, folder, world)


def _unmirrored(recipe: Recipe, data: Dataset, *, asked: bool) -> tuple[Recipe, list[str]]:
    """A recipe that nobody chose does not mirror characters."""
    if asked or not recipe.flip or not characters(data):
        return recipe, []
    said = "nothing is mirrored, as the classes are characters; --override flip=true does it"
    return recipe.changed(flip=False), [said]


def _overrides(named: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe, by whichever way they came. Raises `UsageError` for one twice."""
    if twice := sorted(set(named or {}) & set(fields)):
        raise UsageError(f"{', '.join(twice)} stands in overrides and by itself; name it once")
    return {**(named or {}), **fields}


def _tell(notes: Sequence[str], world: World) -> None:
    """What must not be missed, also without progress."""
    for text in notes if world.first else ():
        tell(text)
