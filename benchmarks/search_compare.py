"""A search beside what one would do without it, on the same images and the same budget.

Cells are (arm, network, seed), each a file of its own in --out, so that the command goes on where
it stood. The budget of a cell is CPU seconds of training, so that other work on the machine changes
nothing; starting processes, knowing what programs take and the last test are left out, for all.

* search: `leancnn.search.search`
* random: architectures and recipes drawn alike, each trained by its own recipe to the end
* optuna: a study written straight, TPE with its usual arguments: no clock model, no halving
* zoo: each network alone with its own recipe, as many of its epochs as the budget has

Random search and Optuna build and time the program of whatever they draw, and train it if it meets
the limit. All but the zoo train a network for at most --epochs, where that is given.
"""

import argparse
import json
import math
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from leancnn import recipes, runs, weights
from leancnn.bench import bench
from leancnn.evaluate import evaluate
from leancnn.search import Budget, lengths, search
from leancnn.search.programs import measured
from leancnn.search.space import Architecture, Change, architectures, changes
from leancnn.search.trial import Job, Outcome, run

Row = dict[str, Any]
WALL = lengths.seconds_per_epoch
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t, two-sided, by the number of seeds


class Here:
    """A pool of one place in this process; its clock is the CPU time of what it trained."""

    size = 1

    def __init__(self) -> None:
        self.spent = 0.0
        self._job: Job | None = None

    def clock(self) -> float:
        return self.spent

    def start(self, job: Job) -> None:
        self._job = job

    def wait(self, seconds: float) -> list[Outcome]:
        job, self._job = self._job, None
        if job is None:
            return []
        began = time.process_time()
        made = run(job)
        took = time.process_time() - began
        self.spent += took
        return [replace(made, seconds=took)]

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> list[Outcome]:
        return []

    def close(self) -> None:
        pass


def cut(data: Path, where: Path, images: int) -> Path:
    """The test part, and so many images of the train part, alike of each class, as links."""
    if where.exists():
        return where
    making = where.with_name(f"{where.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    draw = random.Random(0)
    for part in ("train", "test"):
        folders = sorted(path for path in (data / part).iterdir() if path.is_dir())
        each = images // len(folders)
        for folder in folders:
            files = sorted(folder.iterdir())
            chosen = draw.sample(files, min(each, len(files))) if part == "train" else files
            (making / part / folder.name).mkdir(parents=True)
            for file in chosen:
                (making / part / folder.name / file.name).symlink_to(file.resolve())
    making.rename(where)
    return where


def job(
    asked: argparse.Namespace, architecture: Architecture, change: Change, seed: int, folder: Path
) -> Job:
    return Job(
        number=0,
        architecture=architecture,
        change=change,
        epochs=asked.epochs or math.ceil(recipes.for_network(architecture.network).epochs),
        data=str(asked.data),
        folder=str(folder),
        seed=seed,
        split_seed=seed,
        val_share=None,
    )


def space(asked: argparse.Namespace) -> list[Architecture]:
    size = (asked.size, asked.size)
    return list(architectures(classes=asked.classes, channels=3, sizes=[size], only=asked.networks))


def fits(asked: argparse.Namespace, architecture: Architecture) -> bool:
    """Whether its program, built and timed now or before, keeps the limit."""
    kept = asked.out / "times.json"
    known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    if architecture.key not in known:
        if architecture.macs > asked.most_macs:
            return False  # by any program
        known[architecture.key] = measured([architecture]).get(architecture.key, float("inf"))
        kept.write_text(json.dumps(known))
    return known[architecture.key] <= asked.time


def drawn(asked: argparse.Namespace, seed: int) -> Iterator[tuple[Architecture, Change, Any]]:
    """Shapes and changes at random, alike over networks; nobody wants to know what came of it."""
    draw, every = random.Random(seed), space(asked)
    names = sorted({one.network for one in every})

    class Draw:
        def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
            return float(low * (high / low) ** draw.random())

        def suggest_categorical(self, name: str, choices: list[str]) -> str:
            return draw.choice(choices)

    while True:
        name = draw.choice(names)
        architecture = draw.choice([one for one in every if one.network == name])
        yield architecture, changes(Draw()), lambda value: None


def proposed(asked: argparse.Namespace, seed: int) -> Iterator[tuple[Architecture, Change, Any]]:
    """What Optuna's TPE proposes; it is told the accuracy, 0 for what is too slow."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    of_name: dict[str, list[Architecture]] = {}
    for one in space(asked):
        of_name.setdefault(one.network, []).append(one)
    while True:
        trial = study.ask()
        able = of_name[trial.suggest_categorical("network", sorted(of_name))]
        architecture = able[trial.suggest_int(able[0].network, 0, len(able) - 1)]
        yield architecture, changes(trial), lambda value, trial=trial: study.tell(trial, value)


def tried(
    asked: argparse.Namespace, seed: int, folder: Path, source: Callable[..., Any]
) -> tuple[Path, int, float]:
    """Train what fits until the budget is spent: the best run, how many there were, CPU seconds."""
    pool, best, many = Here(), (-1.0, folder), 0
    for architecture, change, tell in source(asked, seed):
        if not fits(asked, architecture):
            tell(0.0)
            continue
        place = folder / f"{many:03d}"
        pool.start(job(asked, architecture, change, seed, place))
        (made,) = pool.wait(0)
        tell(made.accuracy)
        best, many = max(best, (made.accuracy, place)), many + 1
        if pool.spent >= asked.seconds:
            return best[1], many, pool.spent
    raise AssertionError


def alone(asked: argparse.Namespace, network: str, seed: int, folder: Path) -> Row:
    """A network of the zoo by its own recipe, for as many of its epochs as the budget has."""
    known: dict[str, Any] = {
        "model": network,
        "seed": seed,
        "split_seed": seed,
        "size": [asked.size, asked.size],
        "channels": 3,
        "patience": 0,
        "progress": False,
    }
    spent = {}
    for epochs in (1, 3):  # not counted: what a training takes before its first epoch, and an epoch
        spent[epochs] = trained(asked, folder / f"try-{epochs}", epochs, known)
    each = max(spent[3] - spent[1], 0.1) / 2
    room = int((asked.seconds - spent[1] + each) / each)
    epochs = max(1, min(recipes.for_network(network).epochs, room))
    took = trained(asked, folder / "run", epochs, known)
    return {"trainings": 1, "CPU s": round(took, 1), "epochs": epochs, **ended(folder / "run")}


def trained(asked: argparse.Namespace, out: Path, epochs: int, known: dict[str, Any]) -> float:
    """CPU seconds of one training."""
    from leancnn.train import train

    began = time.process_time()
    train(asked.data, out=out, epochs=epochs, **known)
    return time.process_time() - began


def ended(place: Path) -> Row:
    """The last look at a winner: its program's time, and the test part, opened once."""
    rows, missing = bench([weights.load(place, "best")], engines=("c",), rounds=12, seconds=0.05)
    if not rows:
        raise SystemExit(f"{place}: {missing[0].reason}")
    found = evaluate(place, which="best")
    best = max(float(row["val_accuracy"]) for row in runs.read_metrics(place))
    return {
        "network": weights.load(place, "best").name,
        "validation": best,
        "test": found.accuracy,
        "µs": round(rows[0].median_us, 2),
        "upper µs": round(rows[0].high_us, 2),
    }


def cpu_seconds_per_epoch(architecture: Architecture, images: int) -> float:
    """What a search estimates, without what the machine did beside it."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = WALL(architecture, images)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return found * min(1.0, share)


def searched_for(asked: argparse.Namespace, seed: int, folder: Path) -> Row:
    """One search; what an epoch takes is estimated in CPU time, as the budget is."""
    pool, began = Here(), time.process_time()
    lengths.seconds_per_epoch = cpu_seconds_per_epoch
    found = search(
        asked.data,
        out=folder,
        hours=asked.seconds / 3600,
        budget=Budget(microseconds=asked.time),
        networks=asked.networks,
        sizes=[(asked.size, asked.size)],
        epochs=asked.epochs,
        seed=seed,
        integers=False,  # the others try floats alone
        pool=pool,
        clock=pool.clock,
        progress=False,
    )
    winner = found.winner
    row = {"trainings": found.trials, "CPU s": round(pool.spent, 1)}
    row["beside"] = round(time.process_time() - began - pool.spent, 1)
    if winner is None:
        return {**row, "network": "none", "sentence": found.sentence}
    return {
        **row,
        "network": winner.network,
        "validation": winner.val_accuracy,
        "test": winner.test_accuracy,
        "µs": round(winner.microseconds, 2),
        "upper µs": round(winner.high_us, 2),
    }


def cell(asked: argparse.Namespace, arm: str, seed: int) -> Row:
    """One cell, from its file or made now."""
    name = f"{arm.replace(' ', '-')}-{seed}"
    kept = asked.out / f"{name}.json"
    if kept.exists():
        row: Row = json.loads(kept.read_text())
        return row
    folder = asked.out / "work" / name
    if arm != "search":
        shutil.rmtree(folder, ignore_errors=True)
    if arm == "search":
        row = searched_for(asked, seed, folder)
    elif arm in ("random", "optuna"):
        source = {"random": drawn, "optuna": proposed}[arm]
        place, many, spent = tried(asked, seed, folder, source)
        row = {"trainings": many, "CPU s": round(spent, 1), **ended(place)}
    else:
        row = alone(asked, arm.removeprefix("zoo "), seed, folder)
    row = {"arm": arm, "seed": seed, **row}
    kept.write_text(json.dumps(row, ensure_ascii=False))
    shutil.rmtree(folder, ignore_errors=True)
    return row


def summed(rows: list[Row], limit: float) -> list[Row]:
    """By arm: mean and 95 % interval over the seeds that came to an answer."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        of_arm = [row for row in rows if row["arm"] == arm]
        tests = [100 * row["test"] for row in of_arm if row.get("test") is not None]
        many = len(tests)
        wide = T95.get(many, 2.5) * statistics.stdev(tests) / many**0.5 if many > 1 else 0.0
        found.append(
            {
                "arm": arm,
                "seeds": many,
                "test %": round(statistics.fmean(tests), 2) if tests else "none",
                "± %": round(wide, 2) if many > 1 else "–",
                "trainings": round(statistics.fmean(row["trainings"] for row in of_arm), 1),
                "CPU s": round(statistics.fmean(row["CPU s"] for row in of_arm), 1),
                "limit kept": f"{sum(r.get('upper µs', limit + 1) <= limit for r in of_arm)} "
                f"of {len(of_arm)}",
            }
        )
    return found


def compare(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """Every cell that is not there yet, then the table over all that are."""
    from leancnn.data import open_source

    torch.set_num_threads(1)  # as workers of a search have it; another would spin and be counted
    asked.out.mkdir(parents=True, exist_ok=True)
    asked.data = cut(asked.data, asked.out / f"images-{asked.images}", asked.images)
    asked.classes = len(open_source(str(asked.data)).classes)
    asked.most_macs = 2e5 * asked.time  # 200 in a nanosecond: beyond any core
    zoo = [f"zoo {one.network}" for one in space(asked) if not one.arguments and fits(asked, one)]
    arms = ["search", "random", "optuna", *zoo]
    rows = [cell(asked, arm, seed) for arm in arms for seed in range(asked.seeds)]
    most = f"trainings of at most {asked.epochs} epochs"
    longest = most if asked.epochs else "trainings as long as recipes ask for and the budget allows"
    publish(
        f"compare-{asked.name}",
        f"A search of {asked.seconds:g} CPU seconds beside others, at most {asked.time:g} µs",
        summed(rows, asked.time),
        f"a small run: {asked.images} images of {asked.name} to train on at {asked.size}×"
        f"{asked.size}, {longest}, {asked.seeds} seeds; the "
        "budget is CPU seconds of training, other work was going on beside it; ± is the 95 % "
        "interval of the mean by Student's t; limit kept: the upper quartile of the program's time",
    )
