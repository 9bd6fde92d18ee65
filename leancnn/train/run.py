"""Train a network: the loop, its checkpoints, and exact resume.

plan → data → for each epoch: for each step: augment, normalise, forward, loss, backward, step →
validate → save

Everything random is a pure function of (seed, epoch, index) or (seed, step), so the counters below
say where a run stands, and a run that was stopped or killed at any moment ends in the same bits as
one that was not.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leancnn import manifests, pretrained, runs
from leancnn.data import Dataset, recognise
from leancnn.distributed import World, join
from leancnn.errors import RunError, StoppedError, UsageError
from leancnn.peers import watching
from leancnn.process import kept_pages, kept_threads
from leancnn.progress import Waiting, tell
from leancnn.recipes import Recipe
from leancnn.renamed_keys import renamed
from leancnn.safe_files import Tensors
from leancnn.train.backend import choose, environment
from leancnn.train.estimate import forecast
from leancnn.train.history import Counters, edited
from leancnn.train.loop import Loop, Trained, finish
from leancnn.train.plan import TrainingPlan
from leancnn.train.request import TrainingRequest
from leancnn.train.state import TrainState, begin, load_state_dict, load_weights
from leancnn.training_data import TrainingImages, check_place
from leancnn.weights import Network

__all__ = ["Trained", "resume", "train"]


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
    a tenth, or about 2,000 images; 0: nothing is, and a val part is not read. Which images those
    are is a matter of `split_seed`, else of `seed`. With `start` both are, unless given, as they
    were where that network was trained. `out` must hold no run yet; None makes a folder in
    `runs/`. The test part is never opened. Under `torchrun` all its processes share the work.

    Raises `RunError` when `out` holds a run or is in use, `DivergedError` at the first loss or
    gradient that is not finite, `StoppedError` after Ctrl-C or SIGTERM, when all is saved; and
    `UnknownNameError`, `MismatchError`, `DataError`, `WriteError` as their names say.

    >>> trained = leancnn.train(
    ...     "photos", model="resnet8", size=(8, 8), epochs=2, batch=16, lr=0.1, out="runs/a"
    ... )
    >>> len(trained.history), trained.network.classes
    (2, ('class 0', 'class 1', 'class 2'))
    """
    request = TrainingRequest.of(
        model=model,
        recipe=recipe,
        arguments=arguments,
        start=start,
        overrides=_overrides(overrides, fields),
        seed=seed,
        split_seed=split_seed,
        val_share=val_share,
        save_every_s=save_every_s,
        save_every_steps=save_every_steps,
    )
    return train_on(request.images(data), request, out=out, progress=progress)


@kept_threads()
@kept_pages()
def train_on(
    images: TrainingImages,
    request: TrainingRequest,
    *,
    out: str | Path | None,
    progress: bool = True,
) -> Trained:
    """`train`, of values: the images may have been loaded before. Raises as it."""
    recognise(images.data)
    if out == "":
        raise UsageError("the name of the run's folder is empty; name one, or . for this one")
    world = join()
    stem = f"{request.model}-{request.recipe.name}"
    folder = runs.free_folder(stem, world.of_first) if out is None else Path(out)
    check_place(folder, images.data)
    with _at_work(folder, world):
        if world.first and runs.is_run(folder):
            raise RunError(
                f"{folder} holds a run already; go on with 'leancnn train --resume {folder}' "
                "or choose another folder"
            )
        dataset = world.first_then_others(lambda: images.prepared(request.preprocessing))
        if (gray := request.fitted(dataset)) is not request:
            request = gray
            dataset = world.first_then_others(lambda: images.prepared(gray.preprocessing))
        plan, warnings = request.plan(images.data, dataset, world)
        train_state, batch, filled = _begun(plan, request, dataset, world)
        warnings += filled
        _tell(warnings, world)
        plan = _with_backend(plan, train_state, batch, world, shown=progress)
        estimate = forecast(plan, train_state.network.body, batch, world) if progress else ""
        _tell([estimate] if estimate else [], world)
        if world.first:
            runs.sweep(folder)
        loop = Loop(plan, dataset, train_state, Counters(), folder, world)
        return _to_the_end(loop, warnings, shown=progress)


def _to_the_end(loop: Loop, warnings: Sequence[str], *, shown: bool) -> Trained:
    """What a run leaves. Who asked to stop while it was ending hears so when all is written."""
    loop.run(shown=shown, warnings=warnings)
    trained = finish(loop.plan, loop.train_state, loop.counters, loop.folder, loop.world)
    if loop.stop.asked:
        raise StoppedError(f"asked to stop behind the last step: {loop.folder} is finished")
    return trained


def _begun(
    plan: TrainingPlan, request: TrainingRequest, dataset: Dataset, world: World
) -> tuple[TrainState, Tensor, list[str]]:
    """The tensors before the first step, a normalised batch, and what to say of foreign weights."""
    train_state, sentences = begin(plan, world), []
    if request.start is not None:
        load_weights(train_state, request.start)
    stored = dataset.of_train.images[: plan.batch]
    some = torch.from_numpy(np.array(plan.preprocessing.window(stored)))
    network = train_state.network
    if request.foreign:
        whole = network.normalise(some.to(world.device))  # alike in all processes
        sentences = [pretrained.fill(network.body, request.foreign, whole, request.origin)]
        load_weights(train_state, network)
    return train_state, network.normalise(world.part(some).to(world.device)), sentences


def _with_backend(
    plan: TrainingPlan, train_state: TrainState, batch: Tensor, world: World, *, shown: bool
) -> TrainingPlan:
    """The plan with the backend and the precision that its recipe asks for, or the fastest."""
    slow = shown and world.first and plan.recipe.backend in ("auto", "simd")
    with Waiting("comparing backends; the first time kernels are compiled", shown=slow):
        way = choose(
            train_state.network.body,
            plan.recipe,
            batch,
            world,
            uses_features=train_state.loss.uses_features,
        )
    known = environment(world.device, way.backend)
    return replace(
        plan, backend=way.backend, precision=way.precision, backend_why=way.why, machine=known
    )


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

    >>> from leancnn.train import resume
    >>> len(resume("runs/a", epochs=3, progress=False).history)
    3
    """
    return resume_on(
        Path(folder),
        None,
        data=None if data is None else str(data),
        epochs=epochs,
        patience=patience,
        progress=progress,
    )


@kept_threads()
@kept_pages()
def resume_on(
    folder: Path,
    images: TrainingImages | None,
    *,
    data: str | None = None,
    epochs: float | None = None,
    patience: int | None = None,
    progress: bool = True,
) -> Trained:
    """`resume`, on images that may have been loaded before. Raises as it."""
    world = join()
    if not runs.is_run(folder):
        raise RunError(f"{folder} holds no run; begin one with 'leancnn train DATA --out {folder}'")
    with _at_work(folder, world):
        plan, counters, tensors, warnings = _checkpoint(folder)
        moved = data if images is None else images.data
        plan = plan if moved is None else replace(plan, data=moved)
        torch.set_num_threads(plan.threads)  # other sums, other bits
        warnings += edited(folder, plan)
        if epochs is not None or patience is not None:
            plan, sentences = plan.with_length(counters.step, epochs, patience)
            warnings.append(sentences)
        if changed := plan.differences(world):
            warnings.append(f"not bit-exact from step {counters.step} on: {'; '.join(changed)}")
        train_state = begin(plan, world)
        load_state_dict(train_state, tensors, folder)
        _tell(warnings, world)
        if world.first:
            runs.set_aside(folder, newer_than=counters.step)
            runs.sweep(folder)
        if plan.done(counters.epoch, counters.best_epoch):
            tell(f"{folder} is finished: {counters.epoch} epochs")
            return finish(plan, train_state, counters, folder, world)
        where = plan.data if moved is not None else runs.images_of(folder, plan.data)
        dataset = world.first_then_others(lambda: _images_of(plan, where, images))
        plan.check_data(dataset)
        loop = Loop(plan, dataset, train_state, counters, folder, world)
        return _to_the_end(loop, warnings, shown=progress)


def _checkpoint(folder: Path) -> tuple[TrainingPlan, Counters, Tensors, list[str]]:
    """Where a run stands, and why newer checkpoints were passed over. Raises `RunError`."""
    checkpoint, skipped = runs.load_checkpoint(folder)
    if checkpoint is None:
        raise RunError(
            f"{folder} holds no checkpoint that can be read; begin again in another folder"
            + "".join(f"; {text}" for text in skipped)
        )
    where, about = f"the checkpoint of {folder}", checkpoint.manifest
    about = manifests.check(about, manifests.Checkpoint, where)
    manifests.check(about["counters"], manifests.Counters, where, closed=True)
    plan = TrainingPlan.of_json(about["plan"])
    return plan, Counters(**renamed(about["counters"])), checkpoint.tensors, skipped


def _images_of(plan: TrainingPlan, where: str, images: TrainingImages | None) -> Dataset:
    """The images of a plan: those that were loaded before, where they are cut as it was."""
    if images is not None and images.split_seed == plan.cut_seed:
        dataset = images.prepared(plan.preprocessing)
        if plan.val_share == (dataset.val_share if images.val_share is None else images.val_share):
            return dataset
    return TrainingImages(where, plan.val_share, plan.cut_seed).prepared(plan.preprocessing)


@contextmanager
def _at_work(folder: Path, world: World) -> Iterator[None]:
    """The only run in a folder, its processes watching each other. Raises `RunError`."""
    with (
        runs.Lock(folder) if world.first else nullcontext(),
        watching(world.rank, world.size, folder),
    ):
        yield


def _overrides(named: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe, by whichever way they came. Raises `UsageError` for one twice."""
    if twice := sorted(set(named or {}) & set(fields)):
        raise UsageError(f"{', '.join(twice)} stands in overrides and by itself; name it once")
    return {**(named or {}), **fields}


def _tell(warnings: Sequence[str], world: World) -> None:
    """What must not be missed, also without progress."""
    for text in warnings if world.first else ():
        tell(text)
