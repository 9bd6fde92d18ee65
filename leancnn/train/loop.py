"""Train a network: the loop, its checkpoints, and exact resume.

plan → data → for each epoch: for each step: augment, normalise, forward, loss, backward, step →
validate → save

Everything random is a pure function of (seed, epoch, index) or (seed, step), so the counters below
say where a run stands, and a run that was stopped or killed at any moment ends in the same bits as
one that was not.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leancnn import recipes, runs, weights
from leancnn.data import Dataset, recognise
from leancnn.data._augment import partners, step_seed
from leancnn.distributed import World, join
from leancnn.errors import DivergedError, RunError, StoppedError, UsageError
from leancnn.losses import update_centres
from leancnn.plots import training_curve
from leancnn.process import Stop, keep_pages, kept_threads
from leancnn.progress import Progress
from leancnn.recipes import Recipe, learning_rate
from leancnn.train.backend import Choice, autocast, choose, facts, training_forward
from leancnn.train.batches import Batches
from leancnn.train.history import Counters, close_epoch, diverged, edited, line, made, note
from leancnn.train.plan import Plan, check_wishes
from leancnn.train.state import Learner, adopt, begin, follow, pack, unpack
from leancnn.train.validation import answers_numbers, validate
from leancnn.training_data import (
    check_place,
    images_for,
    keep_margin,
    kept_cut,
    kept_road,
    road_for,
)
from leancnn.weights import Network


@dataclass(frozen=True, slots=True)
class Trained:
    """What training hands back; the same stands in `folder`."""

    network: Network
    """Best on the validation part; the last one when there is no such part."""
    folder: Path
    history: list[dict[str, Any]]
    """A row per epoch, as in metrics.jsonl."""
    seconds: float
    """In training steps and validation."""
    images_per_s: float
    """In training steps."""


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
) -> Trained:
    """Train a network on a folder of images or a named data set, and leave everything in `out`.

    `model` and `recipe` each stand in for the other's absence: the recipe's network, the network's
    recipe. `overrides` are fields of the recipe, `arguments` those of the network's builder.
    `start` is a network, a saved one or a run, whose weights, input and normalisation training
    begins with, in the place of `model` and `arguments`.
    `val_share` of the train part is set aside for validation where the data has no val part; None:
    a tenth, or about 2,000 images; 0: nothing is, and a val part stays shut. Which images those are
    is a matter of `split_seed`, else of `seed`. With `start` both are, unless given, as they were
    where that network was trained. `out` must hold no run yet; None makes a folder in
    `runs/`. The test part is never opened. Under `torchrun` all its processes share the work.

    Raises `RunError` when `out` holds a run or is in use, `DivergedError` at the first loss or
    gradient that is not finite, `StoppedError` after Ctrl-C or SIGTERM, when all is saved; and
    `UnknownNameError`, `MismatchError`, `DataError`, `WriteError` as their names say.
    """
    if start is not None:
        start = start if isinstance(start, Network) else weights.load(start)
        if model is not None or arguments:
            raise UsageError("training that starts from a network takes no model and no arguments")
        model, arguments = start.name, start.arguments
        val_share, split_seed = kept_cut(start, val_share, split_seed)
    chosen = recipes.for_network(model or "henet_r3") if recipe is None else recipes.read(recipe)
    chosen = chosen.changed(**dict(overrides or {}))
    model = model or chosen.network
    chosen = keep_margin(chosen, model, overrides or {})
    arguments = dict(arguments or {})
    road = kept_road(start, overrides) if isinstance(start, Network) else road_for(model, chosen)
    check_wishes(model, arguments, chosen, road, seed=seed, val_share=val_share)
    recognise(data)
    if out == "":
        raise UsageError("the name of the run's folder is empty; name one, or . for this one")
    world = join()
    folder = (
        Path(out) if out is not None else runs.free_folder(f"{model}-{chosen.name}", world.of_first)
    )
    check_place(folder, data)
    with runs.Lock(folder) if world.first else nullcontext():
        if world.first and runs.is_run(folder):
            raise RunError(
                f"{folder} holds a run already; go on with 'leancnn train --resume {folder}' "
                "or choose another folder"
            )
        keep_pages()
        dataset = world.first_then_others(
            lambda: images_for(
                data,
                road,
                val_share=val_share,
                split_seed=seed if split_seed is None else split_seed,
            )
        )
        split = dataset.of_train
        mean, std = dataset.mean_std()
        if isinstance(start, Network):
            start.check_classes(dataset.classes, data)
            mean, std = start.mean, start.std
        plan = Plan(
            data=str(data),
            data_sha256=dataset.manifest["sha256"],
            val_share=dataset.val_share if val_share is None else val_share,
            classes=dataset.classes,
            images=len(split.labels),
            model=model,
            arguments=arguments,
            recipe=chosen,
            road=road,
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
        plan.check_sizes(asked="batch" in (overrides or {}))
        notes = plan.remarks(dataset, start)
        _tell(notes, world)
        learner = begin(plan, world)
        if isinstance(start, Network):
            adopt(learner, start)
        some = torch.from_numpy(np.array(road.window(split.images[: plan.batch])))
        batch = learner.network.normalise(world.part(some).to(world.device))
        if progress and world.first and chosen.engine in ("auto", "lanes"):
            print("comparing engines; the first time kernels are compiled", file=sys.stderr)
        way = choose(
            learner.network.body, chosen, batch, world, uses_features=learner.loss.uses_features
        )
        known = facts(world.device, way.engine)
        plan = replace(
            plan, engine=way.engine, precision=way.precision, engine_why=way.why, machine=known
        )
        if world.first:
            runs.sweep(folder)
        return _learn(
            plan, dataset, learner, Counters(), folder, world, shown=progress, notes=notes
        )


@kept_threads()
def resume(folder: str | Path, *, data: str | Path | None = None, progress: bool = True) -> Trained:
    """Go on where a run stands, to the same bits as without the stop; hand a finished one back.

    `data` names the images where they have moved; the same images are needed. Raises `RunError`
    when there is no checkpoint that can be read, or other images; `MismatchError` for other
    classes; otherwise as `train`.
    """
    folder = Path(folder)
    world = join()
    if not runs.is_run(folder):
        raise RunError(f"{folder} holds no run; begin one with 'leancnn train DATA --out {folder}'")
    with runs.Lock(folder) if world.first else nullcontext():
        checkpoint, notes = runs.load_checkpoint(folder)
        if checkpoint is None:
            raise RunError(
                f"{folder} holds no checkpoint that can be read; begin again in another folder"
                + "".join(f"; {text}" for text in notes)
            )
        plan = Plan.of_json(checkpoint.manifest["plan"])
        plan = plan if data is None else replace(plan, data=str(data))
        counters = Counters(**checkpoint.manifest["counters"])
        torch.set_num_threads(plan.threads)  # other sums, other bits
        changed = plan.differences(world)
        notes += (
            [f"not bit-exact from step {counters.step} on: {'; '.join(changed)}"] if changed else []
        )
        notes += edited(folder, plan)
        learner = begin(plan, world)
        unpack(learner, checkpoint.tensors, folder)
        _tell(notes, world)
        if world.first:
            runs.set_aside(folder, newer_than=checkpoint.step)
            runs.sweep(folder)
        if counters.epoch * plan.steps_per_epoch >= plan.steps:
            print(f"leancnn: {folder} is finished: {counters.epoch} epochs", file=sys.stderr)
            return _finish(plan, learner, counters, folder, world)
        keep_pages()
        dataset = world.first_then_others(
            lambda: images_for(
                plan.data if data is not None else runs.images_of(folder, plan.data),
                plan.road,
                val_share=plan.val_share,
                split_seed=plan.cut_seed,
            )
        )
        plan.check_data(dataset)
        return _learn(plan, dataset, learner, counters, folder, world, shown=progress, notes=notes)


def _learn(
    plan: Plan,
    dataset: Dataset,
    learner: Learner,
    counters: Counters,
    folder: Path,
    world: World,
    *,
    shown: bool,
    notes: Sequence[str] = (),
) -> Trained:
    """The loop."""
    recipe, device, split = plan.recipe, world.device, dataset.of_train
    body, descent = learner.network.body, learner.descent
    forward = training_forward(body, plan.engine, plan.precision, device)
    forward = world.share_gradients(forward)
    tested = learner.tested
    whole = training_forward(tested.body, plan.engine, "fp32", device)  # validation is exact
    batches = Batches(plan, split, learner.network, world)
    seen: Tensor | None = None  # the images of the latest step

    def save() -> bool:
        """Keep what is sound: a step may break the weights, and only the next would notice."""
        sound = seen is None or answers_numbers(whole, seen)
        forward.train()
        if world.first and sound:
            state = {"plan": plan.to_json(), "counters": asdict(counters)}
            runs.save_checkpoint(folder, counters.step, state, pack(learner))
        return sound

    def stop_here() -> StoppedError:
        kept = "all saved" if save() else "not saved, as the last step broke the weights"
        if world.first:
            note(folder, plan, "stopped", step=counters.step)
        return StoppedError(
            f"stopped at step {counters.step} of {plan.steps}, {kept}; "
            f"go on with 'leancnn train --resume {folder}'"
        )

    def broke(step: int, loss: float, of: str = "") -> DivergedError:
        rate = learning_rate(recipe, step / plan.steps)
        where = {"step": step, "lr": rate, "files": batches.files(step)}
        if world.first:
            note(folder, plan, "diverged", diverged=where)
        return diverged(where, loss, of)

    if counters.step == 0:
        save()  # before all else: a folder with a run in it is a run that can go on
    if world.first:
        runs.write_json(folder / "recipe.json", recipe.to_json())
        note(folder, plan, "running", data=dataset.manifest, notes=notes)
    begun, saved = counters.step, time.monotonic()
    title = f"{plan.model} on {dataset.name}"
    with (
        Stop() as stop,
        torch.random.fork_rng(devices=[]),
        Progress(title, plan.steps, done=counters.step, shown=shown and world.first) as bar,
    ):
        bar.say(str(Choice(plan.engine, plan.precision, plan.engine_why)))
        while counters.epoch * plan.steps_per_epoch < plan.steps:
            epoch = counters.epoch
            end = min((epoch + 1) * plan.steps_per_epoch, plan.steps)
            forward.train()
            for step in range(counters.step, end):
                started = time.perf_counter()
                torch.manual_seed(step_seed(plan.seed, step, world.rank))  # dropout and the like
                batch = batches.of(step)
                seen = batch.images
                rate = learning_rate(recipe, step / plan.steps)
                descent.forget_gradients()
                with autocast(plan.engine, plan.precision, device):
                    logits = forward(batch.images).float()
                loss = learner.loss(logits, batch.labels, learner.features.last)
                if batch.share < 1:
                    other = learner.loss(logits, partners(batch.labels), learner.features.last)
                    loss = batch.share * loss + (1 - batch.share) * other
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(body.parameters(), recipe.clip or math.inf)

                right = (logits.argmax(1) == batch.labels).sum()
                told = torch.tensor(stop.asked, device=device)
                sums = torch.stack([loss.detach() * len(batch.labels), right, told, norm]).double()
                loss_sum, right_sum, asked, norm_sum = world.sum(sums).tolist()
                if not math.isfinite(loss_sum + norm_sum):
                    raise broke(step, loss_sum)
                descent.step(rate)
                if learner.features.last is not None:
                    update_centres(learner.loss, learner.features.last, batch.labels)
                if learner.average is not None:
                    follow(learner.average, body, min(recipe.ema, (1 + step) / (10 + step)))

                why_not = str(getattr(forward, "why_not", ""))
                if step == begun and why_not:
                    bar.say(f"torch's own forward pass, because of the lanes: {why_not}")

                counters.step = step + 1
                counters.loss += loss_sum
                counters.right += int(right_sum)
                counters.seen += plan.batch
                counters.seconds += time.perf_counter() - started
                bar.to(
                    counters.step,
                    epoch=f"{epoch + 1}/{math.ceil(plan.steps / plan.steps_per_epoch)}",
                    loss=f"{counters.loss / counters.seen:.3f}",
                    accuracy=f"{counters.right / counters.seen:.1%}",
                    speed=f"{counters.seen / counters.seconds:,.0f} images/s",
                )
                if asked or (stop.asked and world.size == 1):
                    raise stop_here()
                due = time.monotonic() - saved >= plan.save_every_s
                if due or (plan.save_every_steps and counters.step % plan.save_every_steps == 0):
                    save()
                    saved = time.monotonic()
            started = time.perf_counter()
            validation = validate(tested, whole, dataset.val, world, lambda: stop.asked)
            if stop.asked and world.size == 1:
                raise stop_here()
            if validation is not None and not math.isfinite(validation[1]):
                raise broke(counters.step - 1, validation[1], "validation ")
            row = close_epoch(counters, plan, validation, time.perf_counter() - started)
            if world.first:
                tested.made = made(plan, row)
                if counters.best_epoch == counters.epoch:
                    weights.save(tested, folder / "best")
                weights.save(tested, folder / "last")
                save()
                saved = time.monotonic()
                runs.write_metrics(folder, counters.history)
            bar.say(line(row))
    return _finish(plan, learner, counters, folder, world)


def _finish(
    plan: Plan, learner: Learner, counters: Counters, folder: Path, world: World
) -> Trained:
    """Leave the result on disk, also when a kill fell between the last checkpoint and here."""
    history = counters.history
    seconds = sum(row["seconds"] for row in history)
    in_steps = sum(row["train_seconds"] for row in history)
    speed = sum(row["images"] for row in history) / in_steps
    if world.first:
        tested = learner.tested
        tested.made = made(plan, history[-1])
        weights.save(tested, folder / "last")
        runs.write_metrics(folder, history)
        runs.atomic_write(folder / "curve.png", training_curve(history))
        result = {
            "epochs": counters.epoch,
            "steps": counters.step,
            "best_epoch": counters.best_epoch or None,
            "best_val_accuracy": counters.best if counters.best_epoch else None,
            "last_val_accuracy": history[-1]["val_accuracy"],
            "seconds": seconds,
            "images_per_s": speed,
        }
        note(folder, plan, "finished", result=result)
    world.wait()
    network = weights.load(folder, None if counters.best_epoch else "last")
    return Trained(network, folder, history, seconds, speed)


def _tell(notes: Sequence[str], world: World) -> None:
    """What must not be missed, also without progress."""
    for text in notes if world.first else ():
        print(f"leancnn: {text}", file=sys.stderr)
