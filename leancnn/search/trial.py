"""One rung of one trial, in a process of its own: a network trained to so many epochs.

The run folder is an ordinary one, so a rung that was killed goes on from its last checkpoint, and
one that goes on after a comparison goes on from its last step, to the same bits either way.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leancnn import manifests, recipes, runs
from leancnn.errors import DamagedError, LeanCNNError, MismatchError, RunError, StoppedError
from leancnn.process import Terminated, die_with_parent
from leancnn.search.budget import Form
from leancnn.search.pruning import PRUNED, pruned
from leancnn.search.space import Architecture, Change
from leancnn.search.widest_cut import Costs, Cut

CHOOSING = 1000  # steps: a shorter training is over before timing backends for it would pay
WAIT_S = 60.0  # for a process that is just leaving the folder
INT8 = "int8"  # in a run: its best network in integers
LEFT = ("checkpoints", "best", "last", INT8, f"{PRUNED}*")  # of a run: what holds weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker needs to know; plain JSON values in a file or a message."""

    number: int
    architecture: Architecture
    change: Change
    epochs: int
    """Of this rung, counted from the beginning."""
    data: str
    folder: str
    """Of the trial's run."""
    seed: int
    split_seed: int
    val_share: float | None
    form: Form = "float32"
    """What is compared."""
    choose: bool = True
    """Whether backends are timed before the first step; see `CHOOSING`."""
    cut: Cut | None = None
    """To what it is pruned, where that is its form."""

    @property
    def fixed(self) -> dict[str, Any]:
        """Fields of the recipe that are settled by the search and not by the trial."""
        return {} if self.choose else {"backend": "simd", "precision": "fp32"}

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            **asdict(self),
            "architecture": self.architecture.to_json(),
            "change": self.change.to_json(),
            "cut": None if self.cut is None else self.cut.to_json(),
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Job":
        """What `to_json` gave."""
        parts = {
            "architecture": Architecture.of_json(value["architecture"]),
            "change": Change(**value["change"]),
            "cut": Cut(**value["cut"]) if value.get("cut") else None,
        }
        return cls(**{**value, **parts})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job: an accuracy, or why there is none."""

    number: int
    epochs: int
    accuracy: float = 0.0
    """Best on the validation images so far, 0..1; of another form that of the best as floats."""
    seconds: float = 0.0
    """Of training, all rungs together, and of bringing this rung's network into its form."""
    error: str = ""
    """In one line; such a trial ends."""
    lost: bool = False
    """Whether the worker left no answer: killed, or stopped. The rung may be tried again."""
    form: Form = "float32"
    """Of the network whose accuracy it is."""
    costs: Costs | None = None
    """Of the very network, where they are not those that its candidate was chosen by."""


def run(job: Job) -> Outcome:
    """Train to the end of the rung, or hand back what an earlier call came to.

    Raises `StoppedError` after SIGTERM or Ctrl-C, when all is saved; every other error that
    training raises on purpose is the trial's outcome.
    """
    if (found := outcome(Path(job.folder), job.epochs)) is not None:
        return found
    made = Outcome(number=job.number, epochs=job.epochs, form=job.form)
    try:
        trained = _train(job)
        began = time.monotonic()
        accuracy, costs = _accuracy(job, trained)
        seconds = trained.seconds + time.monotonic() - began
    except StoppedError:
        raise
    except LeanCNNError as error:
        if "is in use" in str(error):  # by a worker of an earlier call: no answer of this trial's
            return replace(made, lost=True)
        kind = type(error).__name__
        made = replace(made, error=f"{kind}: {' '.join(str(error).split())}"[:500])
    else:
        made = replace(made, accuracy=accuracy, seconds=seconds, costs=costs)
    runs.write_checked(_place(Path(job.folder), job.epochs), asdict(made))
    return made


def _accuracy(job: Job, trained: Any) -> tuple[float, Costs | None]:
    """On the validation images, of the form that is compared, and what that costs if it is known
    better now."""
    if job.form == "int8":
        return in_integers(Path(job.folder), job.seed), None
    if job.form == "pruned" and job.cut is not None:
        changed = job.change.overrides(recipes.for_network(job.architecture.network))
        return pruned(
            Path(job.folder),
            job.architecture,
            job.cut,
            epochs=job.epochs,
            seed=job.seed,
            overrides={**job.fixed, **changed},
        )
    return max(float(row["val_accuracy"]) for row in trained.history), None


def outcome(folder: Path, epochs: int) -> Outcome | None:
    """What a rung came to, as its file says; None where there is none that can be read."""
    with contextlib.suppress(RunError, DamagedError, TypeError):
        value = dict(runs.read_json(_place(folder, epochs), manifests.Rung))
        value.pop("sha256", None)
        return Outcome(**value)
    return None


def _place(folder: Path, epochs: int) -> Path:
    return folder / f"rung-{epochs}.json"


def _train(job: Job) -> Any:
    from leancnn.train import resume, train

    folder = Path(job.folder)
    until = time.monotonic() + WAIT_S
    recipe = recipes.for_network(job.architecture.network)
    while True:
        try:
            if runs.is_run(folder):
                return resume(folder, epochs=job.epochs, progress=False)
            return train(
                job.data,
                model=job.architecture.network,
                arguments=job.architecture.arguments,
                out=folder,
                seed=job.seed,
                split_seed=job.split_seed,
                val_share=job.val_share,
                progress=False,
                epochs=job.epochs,
                patience=0,
                size=list(job.architecture.size),
                channels=job.architecture.channels,
                **{**job.fixed, **job.change.overrides(recipe)},
            )
        except RunError as error:
            if "is in use" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.5)


def in_integers(folder: Path, seed: int) -> float:
    """Quantize a trial's best network, beside it; the accuracy that is left on validation images.

    Raises `MismatchError` and `DataError` as `leancnn.quantize`.
    """
    from leancnn.quantize import quantize

    found = quantize(folder, folder / INT8, which="best", seed=seed, timed=False)
    if found.accuracy_int8 is None:
        raise MismatchError("there are no validation images to compare by")
    return found.accuracy_int8


def forget(folder: Path, *, keep: bool) -> None:
    """Remove a trial's weights, or with `keep` all but those of its best network."""
    import shutil

    gone = "checkpoints", f"{PRUNED}*/checkpoints"
    for name in gone if keep else LEFT:
        for path in folder.glob(name):
            shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """A worker with the words JOB.json CORE, as the pool starts it."""
    job = Job.of_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    die_with_parent()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[2])})
    import torch

    torch.set_num_threads(1)
    try:
        run(job)
    except (StoppedError, Terminated):
        sys.exit(StoppedError.exit_status)
