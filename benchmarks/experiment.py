"""Train several networks on one data set with several seeds, test each once, and keep the numbers.

What the scripts beside this one share. A finished training is not repeated: its run folder answers,
or the result in which it stands already.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from leancnn import recipes, runs
from leancnn.errors import RunError
from leancnn.evaluate import evaluate
from leancnn.recipes import Recipe
from leancnn.train import resume, train
from leancnn.training_data import preprocessing_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One line of a table: a network and how it is trained."""

    label: str
    network: str
    recipe: Recipe
    arguments: Mapping[str, Any] = field(default_factory=dict)


def run(
    trial: Trial, data: str | Path, seed: int, folder: Path, *, val_share: float | None = None
) -> dict[str, Any]:
    """One training and its tests: accuracies of the last and the best network, 0..1, and curves."""
    if runs.is_run(folder):
        check_same(folder, trial, data)
        trained = resume(folder)
    else:
        trained = train(
            data,
            model=trial.network,
            recipe=trial.recipe,
            arguments=trial.arguments,
            out=folder,
            seed=seed,
            val_share=val_share,
        )
    has_best = (folder / "best").exists()
    return {
        "label": trial.label,
        "seed": seed,
        "last": tested(folder, data, "last"),
        "best": tested(folder, data, "best") if has_best else None,
        "threads": runs.read_json(folder / "run.json")["plan"]["threads"],
        "seconds": trained.seconds,
        "images_per_s": trained.images_per_s,
        "train_accuracy": [row["train_accuracy"] for row in trained.history],
        "val_accuracy": [row.get("val_accuracy") for row in trained.history],
        "processor": runs.machine()["processor"],
    }


def check_same(folder: Path, trial: Trial, data: str | Path) -> None:
    """Refuse, with `RunError`, to take a run of another recipe or on other data for this one."""
    if not (folder / "run.json").exists():
        return  # killed at its first moment
    plan = runs.read_json(folder / "run.json")["plan"]
    recipe = recipes.of_json(plan["recipe"])
    if spelt_out(recipe, trial.network) != spelt_out(trial.recipe, trial.network):
        raise RunError(f"{folder} was trained by another recipe; choose another folder")
    if Path(plan["data"]).name != Path(data).name:
        raise RunError(f"{folder} was trained on {plan['data']}; choose another folder")


def spelt_out(recipe: Recipe, network: str) -> Recipe:
    """The same with the images that it leaves to the network."""
    preprocessing = preprocessing_for(network, recipe)
    return recipe.changed(
        size=preprocessing.size, scale=preprocessing.scale, channels=preprocessing.channels
    )


def tested(folder: Path, data: str | Path, which: Literal["last", "best"]) -> float:
    """Accuracy of a run's network, 0..1; a test set that was opened for it stays shut."""
    for one in runs.evaluations(folder):
        if one["which"] == which:
            return float(one["accuracy"])
    return evaluate(folder, data, which=which).accuracy


def row(trial: Trial, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, percent: the last network, the best beside it."""
    last = [100 * run["last"] for run in found]
    best = [100 * run["best"] for run in found if run["best"] is not None]
    return {
        "network": trial.label,
        "runs": len(last),
        "accuracy %": round(statistics.mean(last), 2),
        "± %": round(statistics.stdev(last), 2) if len(last) > 1 else "",
        "best by validation %": round(statistics.mean(best), 2) if best else "",
        "seconds a run": round(statistics.mean(run["seconds"] for run in found)),
        "images/s": round(statistics.mean(run["images_per_s"] for run in found)),
        "threads": ", ".join(sorted({str(run["threads"]) for run in found})),
    }


def keep(
    path: Path,
    *,
    title: str,
    command: str,
    note: str,
    trials: Sequence[Trial],
    found: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Write the table as JSON, with the machine, every run and every recipe in it."""
    measured = [trial for trial in trials if found.get(trial.label)]
    every = [run for runs_of_one in found.values() for run in runs_of_one]
    elsewhere = Counter(run["processor"] for run in every)
    elsewhere.pop(machine()["processor"], None)
    runs.write_json(
        path,
        {
            "title": title,
            "command": command,
            "machine": machine(),
            "made": runs.now(),
            "rows": [row(trial, found[trial.label]) for trial in measured],
            "note": "; ".join([note, *(f"{n} runs on {name}" for name, n in elsewhere.items())]),
            "runs": every,
            "recipes": {trial.label: way(trial) for trial in measured},
        },
    )


def way(trial: Trial) -> dict[str, Any]:
    """How a trial is trained, as a result keeps it."""
    return {"arguments": dict(trial.arguments), **trial.recipe.to_json()}


def published(path: Path, title: str, trials: Sequence[Trial]) -> dict[str, list[dict[str, Any]]]:
    """By label the runs of a result of this title that were trained as the trials are."""
    earlier = runs.read_json(path) if path.exists() else {}
    if earlier.get("title") != title:
        return {}
    same = {trial.label for trial in trials if earlier["recipes"].get(trial.label) == way(trial)}
    found: dict[str, list[dict[str, Any]]] = {}
    for one in earlier["runs"]:
        if one["label"] in same:
            one = {**one, "processor": one.get("processor", earlier["machine"]["processor"])}
            found.setdefault(one["label"], []).append(one)
    return found


def machine() -> dict[str, Any]:
    """Where figures come from."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {**runs.machine(), "torch": torch.__version__, "device": device}


def all_of(
    trials: Sequence[Trial],
    data_of_seed: Mapping[int, str | Path],
    folder: Path,
    result: Path,
    *,
    title: str,
    command: str,
    note: str,
    val_share: float | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """Every trial with every seed; the result is written after each, so a stop loses little.

    What is finished comes first, so that a result is never poorer than the runs it stands on. Runs
    that stand in the result are taken as they are; `only`: labels of what is trained beside them.
    """
    found: dict[str, list[dict[str, Any]]] = {trial.label: [] for trial in trials} | published(
        result, title, trials
    )
    known = {(one["seed"], label) for label, them in found.items() for one in them}
    places = {
        (seed, trial.label): folder / f"{re.sub('[ /]', '-', trial.label)}-seed{seed}"
        for seed in data_of_seed
        for trial in trials
    }
    pairs = [
        (seed, trial)
        for seed, trial in product(data_of_seed, trials)
        if (seed, trial.label) not in known and (only is None or trial.label in only)
    ]
    for seed, trial in sorted(pairs, key=lambda pair: not finished(places[pair[0], pair[1].label])):
        where = places[seed, trial.label]
        outcome = run(trial, data_of_seed[seed], seed, where, val_share=val_share)
        found[trial.label].append(outcome)
        print(f"{trial.label}, seed {seed}: {outcome['last']:.2%} in {outcome['seconds']:.0f} s")
        keep(result, title=title, command=command, note=note, trials=trials, found=found)


def finished(folder: Path) -> bool:
    """Whether a run there has come to its end."""
    about = folder / "run.json"
    return about.exists() and runs.read_json(about).get("state") == "finished"


def command(script: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """What makes a table again: the data by the folder's name, and every option that is not usual.

    Options about places, --runs and --result, are left out.
    """
    words = ["python", f"benchmarks/{Path(script).name}"]
    for key, value in vars(args).items():
        usual = parser.get_default(key)
        if key in ("runs", "result") or value == usual:
            continue
        values = value if isinstance(value, list) else [value]
        words += [] if isinstance(value, Path) else [f"--{key}"]
        words += [
            v.name if isinstance(v, Path) else f"{v:g}" if isinstance(v, float) else str(v)
            for v in values
        ]
    return shlex.join(words)


def chosen(name: str, *, batch: int = 0, **changes: Any) -> Recipe:
    """A recipe by name with other numbers; the rate follows another batch."""
    recipe = recipes.get(name)
    if batch:
        recipe = recipe.changed(batch=batch, lr=recipe.lr * batch / recipe.batch)
    return recipe.changed(**changes)


def subset(data: Path, images: int, seed: int, where: Path) -> Path:
    """So many training images, as many of each class as can be, and the whole test part, as links.

    A function of the files' names and the seed; a larger subset holds every smaller one. Copies
    where the file system has no links. Raises `SystemExit` for data without train/ and test/.
    """
    if where.exists():
        return where
    if not all((data / part).is_dir() for part in ("train", "test")):
        raise SystemExit(f"{data}: --images needs train/<class>/ and test/<class>/ in it")
    making = where.with_name(f"{where.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    classes = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    share, more = divmod(images, len(classes))
    for part in ("train", "test"):
        for place, name in enumerate(classes):
            files = sorted(path for path in (data / part / name).iterdir() if path.is_file())
            if part == "train":
                random.Random(f"{seed} {name}").shuffle(files)
                files = files[: share + (place < more)]
            (making / part / name).mkdir(parents=True)
            for file in files:
                _link(file, making / part / name / file.name)
    making.rename(where)
    return where


def share_of(data: Path, images: int, runs_folder: Path) -> tuple[Path, str]:
    """The data to train on and what to call it; `images` 0: all."""
    if not images:
        return data, data.name
    small = subset(data, images, 0, runs_folder / f"{data.name}-{images}")
    return small, f"{images:,} images of {data.name}, stratified"


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)
