"""Where a training run stands, and what it says about itself in its folder."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leancnn import recipes, runs
from leancnn.errors import (
    DamagedError,
    DivergedError,
    MismatchError,
    RunError,
    UnknownNameError,
)
from leancnn.recipes import learning_rate
from leancnn.renamed_keys import renamed
from leancnn.safe_files import read_edited
from leancnn.train.plan import TrainingPlan


@dataclass(slots=True)
class Counters:
    """Where a run stands; JSON values only."""

    step: int = 0
    """Steps done."""
    epoch: int = 0
    """Epochs closed: validated and in the history."""
    loss: float = 0.0
    """Sum over the images of the open epoch, like the next three."""
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    best: float = -1.0
    """Highest validation accuracy, 0..1, and the epoch, from 1, that first reached it."""
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: int, loss: float, correct: float, images: int, started: float) -> None:
        """Count one more step: sums over its images, which began at `started` of the clock."""
        self.step = step
        self.loss += loss
        self.correct += int(correct)
        self.seen += images
        self.seconds += time.perf_counter() - started


def close_epoch(
    counters: Counters, plan: TrainingPlan, validation: tuple[float, float] | None, seconds: float
) -> dict[str, Any]:
    """Move the open epoch into the history and return its row."""
    accuracy, loss = validation if validation is not None else (None, None)
    counters.epoch += 1
    row = {
        "epoch": counters.epoch,
        "step": counters.step,
        "lr": learning_rate(plan.recipe, (counters.step - 1) / plan.steps),
        "train_loss": counters.loss / counters.seen,
        "train_accuracy": counters.correct / counters.seen,
        "val_loss": loss if loss is not None and math.isfinite(loss) else None,
        "val_accuracy": accuracy,
        "images": counters.seen,
        "images_per_s": counters.seen / counters.seconds,
        "train_seconds": counters.seconds,
        "seconds": counters.seconds + seconds,
    }
    counters.history.append(row)
    if accuracy is not None and accuracy > counters.best:
        counters.best, counters.best_epoch = accuracy, counters.epoch
    counters.loss, counters.correct, counters.seen, counters.seconds = 0.0, 0, 0, 0.0
    return row


def line(row: Mapping[str, Any]) -> str:
    """An epoch for people."""
    validation = ""
    if row["val_accuracy"] is not None:
        validation = f"  val {row['val_accuracy']:.2%}"
    return (
        f"epoch {row['epoch']}  lr {row['lr']:.3g}  loss {row['train_loss']:.3f}  "
        f"train {row['train_accuracy']:.2%}{validation}  {row['images_per_s']:,.0f} images/s  "
        f"{row['seconds']:.0f} s"
    )


def made(plan: TrainingPlan, row: Mapping[str, Any]) -> dict[str, Any]:
    """How a network came to be, for its manifest."""
    return {
        "recipe": plan.recipe.name,
        "data": plan.data,
        "data_sha256": dict(plan.data_sha256),
        "seed": plan.seed,
        "split_seed": plan.cut_seed,
        "val_share": plan.val_share,
        "epoch": row["epoch"],
        "epochs": plan.epochs,
        "step": row["step"],
        "val_accuracy": row["val_accuracy"],
        "torch": plan.machine["torch"],
    }


def note(folder: Path, plan: TrainingPlan, state: str, **more: Any) -> None:
    """Write run.json: what earlier calls said, and this; lists grow."""
    path = folder / "run.json"
    try:
        earlier = runs.read_run(folder) if path.exists() else {}
    except DamagedError as error:
        path.replace(path.with_name("run.json.damaged"))
        earlier = {"warnings": [f"run.json is begun anew, the old one set aside: {error}"]}
    earlier = renamed(earlier)
    more["warnings"] = [*earlier.get("warnings", []), *more.get("warnings", [])]
    more["began"] = earlier.get("began", runs.now())
    about = {"plan": plan.to_json(), "machine": {**runs.machine(), **plan.machine}}
    found = {**earlier, "format": 2, **about, **more, "state": state}
    if (
        json.loads(json.dumps(found)) != earlier
    ):  # a finished run that is handed back keeps its hour
        runs.write_checked(path, {**found, "at": runs.now()})


def edited(folder: Path, plan: TrainingPlan) -> list[str]:
    """Say when recipe.json is no longer the recipe of the run, which goes on as it began.

    One that an earlier version wrote, without the fields that came later, is the same recipe.
    """
    found = ["recipe.json was edited; the run goes on with the recipe that it began with"]
    try:
        there, _ = read_edited(folder / "recipe.json")
    except (DamagedError, RunError):
        return []
    with suppress(MismatchError, UnknownNameError, TypeError, ValueError):
        return [] if recipes.of_json(dict(there)) == plan.recipe else found
    return found


def diverged(where: Mapping[str, Any], loss: float, of: str = "") -> DivergedError:
    """Say at which step, rate and files training met a number that is not finite."""
    files = where["files"]
    what = "the gradient" if math.isfinite(loss) else f"the {of}loss"
    more = f" and {len(files) - 3} more, see run.json" if len(files) > 3 else ""
    return DivergedError(
        f"{what} is not finite at step {where['step']} (learning rate {where['lr']:.4g}; "
        f"batch {', '.join(files[:3])}{more}); the last checkpoint is intact; "
        "try a smaller rate, gradient clipping, or check these files"
    )
