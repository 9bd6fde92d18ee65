"""The loop: augment, normalise, forward, loss, backward, step; validate; save; say how it went."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leancnn import runs, weights
from leancnn.data import Dataset
from leancnn.data._augment import partners, step_seed
from leancnn.distributed import World
from leancnn.errors import DivergedError, StoppedError, WriteError
from leancnn.losses import update_centres
from leancnn.plots import training_curve
from leancnn.process import Stop
from leancnn.progress import Progress
from leancnn.recipes import learning_rate
from leancnn.train.backend import Choice, autocast, training_forward
from leancnn.train.batches import Batches
from leancnn.train.estimate import duration
from leancnn.train.history import Counters, close_epoch, diverged, line, made, note
from leancnn.train.plan import TrainingPlan
from leancnn.train.rules import rule_of
from leancnn.train.state import TrainState, state_dict, update_ema
from leancnn.train.validation import answers_numbers, validate
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


STEPS_BEFORE_ESTIMATE = 5


class Loop:
    """A run between its first step here and its last.

    Everything random is a pure function of (seed, epoch, index) or (seed, step), so that the
    counters say where a run stands.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        dataset: Dataset,
        train_state: TrainState,
        counters: Counters,
        folder: Path,
        world: World,
    ) -> None:
        self.plan, self.dataset, self.train_state = plan, dataset, train_state
        self.counters, self.folder, self.world = counters, folder, world
        body, tested = train_state.network.body, train_state.tested
        way = plan.backend, plan.precision, world.device
        self.rule = rule_of(plan, body)
        self.forward = world.share_gradients(training_forward(body, *way))
        # validation is exact
        self.whole = training_forward(tested.body, plan.backend, "fp32", world.device)
        self.batches = Batches(plan, dataset.of_train, train_state.network, world)
        self.seen: Tensor | None = None
        """The images of the latest step."""
        self.stop = Stop()

    def run(self, *, shown: bool, warnings: Sequence[str] = ()) -> None:
        """Train to the end. Raises `StoppedError`, `DivergedError`, `WriteError`."""
        plan, counters, world = self.plan, self.counters, self.world
        if counters.step == 0:
            self._save_first()  # a folder with a run in it is a run that can go on
        if world.first:
            runs.write_checked(self.folder / "recipe.json", plan.recipe.to_json())
            note(self.folder, plan, "running", data=self.dataset.manifest, warnings=warnings)
        title = f"{plan.model} on {self.dataset.name}"
        with (
            self.stop,
            torch.random.fork_rng(devices=[]),
            Progress(title, plan.steps, done=counters.step, shown=shown and world.first) as bar,
        ):
            bar.say(str(Choice(plan.backend, plan.precision, plan.backend_why)))
            self.measured = False
            self.begun, self.saved = counters.step, time.monotonic()
            self.entered = self.saved
            while not plan.done(counters.epoch, counters.best_epoch):
                self.epoch(bar)

    def epoch(self, bar: Progress) -> None:
        """The rest of the open epoch, its validation and its checkpoint."""
        plan, counters = self.plan, self.counters
        self.forward.train()
        last = min((counters.epoch + 1) * plan.steps_per_epoch, plan.steps)
        for number in range(counters.step, last):
            asked = self.step(number)
            self._tell(bar)
            if asked:
                raise self._stopped()
            self._save_when_due()
        started = time.perf_counter()
        tested = self.train_state.tested
        validation = validate(
            tested, self.whole, self.dataset.val, self.world, lambda: self.stop.asked
        )
        if self.stop.asked and self.world.size == 1:
            raise self._stopped()
        if validation is not None and not math.isfinite(validation[1]):
            raise self._broke(counters.step - 1, validation[1], "validation ")
        row = close_epoch(counters, plan, validation, time.perf_counter() - started)
        if self.world.first:
            tested.made = made(plan, row)
            if counters.best_epoch == counters.epoch:
                weights.save(tested, self.folder / "best")
            weights.save(tested, self.folder / "last")
            self.save()
            self.saved = time.monotonic()
            runs.write_metrics(self.folder, counters.history)
        bar.say(line(row))

    def step(self, number: int) -> bool:
        """One step of the optimizer; whether somebody asked to stop.

        Raises `DivergedError` before weights are touched by a number that is not finite.
        """
        plan, train_state, world = self.plan, self.train_state, self.world
        recipe, body = plan.recipe, train_state.network.body
        started = time.perf_counter()
        torch.manual_seed(step_seed(plan.seed, number, world.rank))  # dropout and the like
        batch = self.batches.of(number)
        self.seen = batch.images
        train_state.optimizer.zero_grad()
        with autocast(plan.backend, plan.precision, world.device):
            logits = self.forward(batch.images).float()
        loss = self._loss(logits, batch.labels, batch.share)
        loss.backward()  # type: ignore[no-untyped-call]
        features = train_state.features.last  # a rule may ask the body again
        if not self.rule.after_clipping:
            self.rule(number, batch.images, logits.detach())
        norm = torch.nn.utils.clip_grad_norm_(body.parameters(), recipe.clip or math.inf)
        if self.rule.after_clipping:
            self.rule(number, batch.images, logits.detach())
        correct = (logits.argmax(1) == batch.labels).sum()
        asked = torch.tensor(self.stop.asked, device=world.device)
        sums = torch.stack([loss.detach() * len(batch.labels), correct, asked, norm]).double()
        loss_sum, right_sum, asked, norm_sum = world.sum(sums).tolist()
        if not math.isfinite(loss_sum + norm_sum):
            raise self._broke(number, loss_sum)
        train_state.optimizer.step(learning_rate(recipe, number / plan.steps))
        if features is not None:
            update_centres(train_state.loss, features, batch.labels)
        if train_state.average is not None:
            update_ema(train_state.average, body, min(recipe.ema, (1 + number) / (10 + number)))
        self.counters.add(number + 1, loss_sum, right_sum, plan.batch, started)
        return bool(asked) or (self.stop.asked and world.size == 1)

    def _loss(self, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """Of a batch in which each image keeps `share` of itself, and its partner has the rest."""
        features = self.train_state.features.last
        loss: Tensor = self.train_state.loss(logits, labels, features)
        if share < 1:
            loss = share * loss + (1 - share) * self.train_state.loss(
                logits, partners(labels), features
            )
        return loss

    def save(self) -> bool:
        """Keep what is sound: a step may break the weights, and only the next would notice."""
        sound = self.seen is None or answers_numbers(self.whole, self.seen)
        if self.world.first and sound:
            state = {"plan": self.plan.to_json(), "counters": asdict(self.counters)}
            runs.save_checkpoint(
                self.folder, self.counters.step, state, state_dict(self.train_state)
            )
        return sound

    def _save_first(self) -> None:
        try:
            self.save()
        except WriteError:
            runs.abandon(self.folder)
            raise

    def _save_when_due(self) -> None:
        plan, step = self.plan, self.counters.step
        due = time.monotonic() - self.saved >= plan.save_every_s
        if due or (plan.save_every_steps and step % plan.save_every_steps == 0):
            self.save()
            self.saved = time.monotonic()

    def _tell(self, bar: Progress) -> None:
        counters, plan = self.counters, self.plan
        why_not = str(getattr(self.forward, "why_not", ""))
        if counters.step == self.begun + 1:  # kernels are built, caches warm
            self.entered = time.monotonic()
        if not self.measured and counters.step - self.begun == 1 + STEPS_BEFORE_ESTIMATE:
            spent = (time.monotonic() - self.entered) / STEPS_BEFORE_ESTIMATE
            left = duration(spent * (plan.steps - counters.step))
            bar.say(
                f"{plan.batch / spent:,.0f} images/s: about {left} to go for "
                f"{plan.recipe.epochs:g} epochs"
            )
            self.measured = True
        if counters.step == self.begun + 1 and why_not:
            bar.say(f"torch's own forward pass, no SIMD batches: {why_not}")
        bar.to(
            counters.step,
            epoch=f"{counters.epoch + 1}/{math.ceil(plan.steps / plan.steps_per_epoch)}",
            loss=f"{counters.loss / counters.seen:.3f}",
            accuracy=f"{counters.correct / counters.seen:.1%}",
            speed=f"{counters.seen / counters.seconds:,.0f} images/s",
        )

    def _stopped(self) -> StoppedError:
        kept = "all saved" if self.save() else "not saved, as the last step broke the weights"
        step = self.counters.step
        if self.world.first:
            note(self.folder, self.plan, "stopped", step=step)
        return StoppedError(
            f"stopped at step {step} of {self.plan.steps}, {kept}; "
            f"go on with 'leancnn train --resume {self.folder}'"
        )

    def _broke(self, step: int, loss: float, of: str = "") -> DivergedError:
        rate = learning_rate(self.plan.recipe, step / self.plan.steps)
        where = {"step": step, "lr": rate, "files": self.batches.files(step)}
        if self.world.first:
            note(self.folder, self.plan, "diverged", diverged=where)
        return diverged(where, loss, of)


def finish(
    plan: TrainingPlan, train_state: TrainState, counters: Counters, folder: Path, world: World
) -> Trained:
    """Leave the result on disk, also when a kill fell between the last checkpoint and here."""
    history = counters.history
    seconds = sum(row["seconds"] for row in history)
    in_steps = sum(row["train_seconds"] for row in history)
    speed = sum(row["images"] for row in history) / in_steps
    if world.first:
        tested = train_state.tested
        tested.made = made(plan, history[-1])
        weights.save(tested, folder / "last")
        runs.write_metrics(folder, history)
        runs.atomic_write(folder / "curve.png", training_curve(history))
        result = {
            "epochs": counters.epoch,
            "steps": counters.step,
            "best_epoch": counters.best_epoch or None,
            "stopped_early": counters.step < plan.steps,
            "best_val_accuracy": counters.best if counters.best_epoch else None,
            "last_val_accuracy": history[-1]["val_accuracy"],
            "seconds": seconds,
            "images_per_s": speed,
        }
        note(folder, plan, "finished", result=result)
    world.wait()
    network = weights.load(folder, None if counters.best_epoch else "last")
    return Trained(network, folder, history, seconds, speed)
