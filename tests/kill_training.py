"""Kill training runs with SIGKILL until they end; compare their weights with a run left in peace.

`python kill_training.py FOLDER RUNS KILLS [torch | simd | naive]` prints one JSON object. Kills
fall at random moments, every third one while a file is being written, and one for each run between
its last checkpoint and its end. `torch` and `simd` are backends; `naive` replaces checkpoints by
`torch.save` onto one path: the control, which must lose runs. Children are forked from a process
that has imported torch and computed nothing, so a trial costs no import.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from tiny import RECIPE, make_pictures

from leancnn import runs
from leancnn.errors import RunError
from leancnn.plots import training_curve
from leancnn.train import resume, train

EPOCHS, SAVE_EVERY = 6, 2
WIDTH = 1024  # a checkpoint of about 2 MB, so that saving takes a good part of the time
PATIENCE_S = 120.0


def work(data: Path, folder: Path, backend: str) -> None:
    """What a user does after a crash: go on where there is something, else begin."""
    torch.set_num_threads(1)
    if runs.is_run(folder):
        resume(folder, progress=False)
        return
    train(
        data,
        recipe=RECIPE.changed(epochs=EPOCHS, backend=backend),
        arguments={"width": WIDTH},
        out=folder,
        progress=False,
        save_every_steps=SAVE_EVERY,
    )


def start(data: Path, folder: Path, backend: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work(data, folder, backend)
        os._exit(0)
    except BaseException as error:  # a lost run: the parent reads why
        (folder.parent / f"{folder.name}.error").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)


def ended(child: int) -> int | None:
    """The wait status of a child that has ended."""
    gone, status = os.waitpid(child, os.WNOHANG)
    return status if gone else None


def watch(child: int, moment: float, sign: "Moment") -> int | None:
    """Kill a child after `moment` seconds or when `sign` says so; its status if it ended before."""
    started = time.monotonic()
    while (status := ended(child)) is None:
        late = time.monotonic() - started
        if sign.now() or (not sign.awaited and late >= moment) or late > PATIENCE_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0002)
    return status


class Moment:
    """When to kill: at a random time, inside a save, or after the last one."""

    def __init__(self, kind: str, folder: Path, skip: int) -> None:
        self.kind, self.folder, self.skip = kind, folder, skip
        self.awaited = kind != "random"
        self.seen = set(self._signs())

    def _signs(self) -> list[tuple[str, int]]:
        if self.kind == "save":
            found = list(self.folder.glob("checkpoints/.*.tmp"))
        elif self.kind == "end":
            found = list(self.folder.glob(f"checkpoints/step-{LAST_STEP:08d}.json"))
            found += [
                p for p in self.folder.glob("metrics.csv") if p.read_text().count("\n") > EPOCHS
            ]
        else:
            return []
        signs = []
        for path in found:
            try:
                signs.append((path.name, path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
        return signs

    def now(self) -> bool:
        fresh = [sign for sign in self._signs() if sign not in self.seen]
        self.seen.update(fresh)
        self.skip -= bool(fresh)
        return bool(fresh) and self.skip < 0


LAST_STEP = 0  # set by the quiet run


def result(folder: Path) -> object:
    """All weights by sha256, and the metrics without times."""
    kept = []
    for name in ("best", "last"):
        manifest = json.loads((folder / name / "network.json").read_text())
        kept.append(manifest["tensors"])
    rows = [
        {key: value for key, value in row.items() if "second" not in key and "per_s" not in key}
        for row in runs.read_metrics(folder)
    ]
    return [kept, rows]


def naive() -> None:
    """Replace checkpoints by what one writes without thinking."""

    def save(folder: Path, step: int, manifest: object, tensors: object) -> None:
        path = folder / "checkpoints" / "naive.pt"
        path.parent.mkdir(exist_ok=True)
        as_torch = {key: torch.from_numpy(array.copy()) for key, array in tensors.items()}
        making = path.with_name(f".naive-{step}.tmp")  # one sign for each save, as ours gives
        with path.open("wb") as file:
            making.touch()
            torch.save({"step": step, "manifest": json.dumps(manifest), "tensors": as_torch}, file)
        making.unlink()

    def load(folder: Path) -> tuple[runs.Checkpoint | None, list[str]]:
        try:
            saved = torch.load(folder / "checkpoints" / "naive.pt", weights_only=True)
        except Exception as error:
            raise RunError(f"lost: {type(error).__name__}") from error
        tensors = {key: tensor.numpy() for key, tensor in saved["tensors"].items()}
        file = {"name": "naive.pt", "bytes": 0, "sha256": ""}  # which nobody checks
        manifest = {"step": saved["step"], "file": file, "tensors": {}}
        manifest |= json.loads(saved["manifest"])
        return runs.Checkpoint(saved["step"], manifest, tensors), []

    runs.save_checkpoint, runs.load_checkpoint = save, load
    runs.is_run = lambda folder: (folder / "run.json").exists()


def main(folder: Path, most_runs: int, most_kills: int, way: str = "torch") -> dict[str, object]:
    global LAST_STEP
    dice = random.Random(11)
    training_curve([{"epoch": 1, "val_loss": 1.0}])  # fonts, once for all children
    data = make_pictures(folder / "pictures")
    backend = "simd" if way == "simd" else "torch"
    if way == "naive":
        naive()
    quiet = folder / "quiet"
    started = time.monotonic()
    assert os.waitpid(start(data, quiet, backend), 0)[1] == 0, (folder / "quiet.error").read_text()
    length = time.monotonic() - started
    told_by_quiet = json.loads((quiet / "run.json").read_text())
    assert told_by_quiet["plan"]["backend"] == backend, told_by_quiet["plan"]["backend_why"]
    LAST_STEP = told_by_quiet["result"]["steps"]
    expected = result(quiet)
    told = {"kills": 0, "in_saves": 0, "after_last": 0, "runs": 0, "lost": 0, "different": 0}
    reasons = []
    while told["runs"] < most_runs or told["kills"] < most_kills:
        run = folder / f"run {told['runs']}"
        kills = 0
        wanted = -(-most_kills // most_runs)
        while True:
            left = wanted - kills
            kind = (
                "none"
                if left <= 0
                else "end"
                if left == 1
                else "save"
                if kills % 3 == 1
                else "random"
            )
            sign = Moment(kind, run, dice.randrange(1, 4) if kind == "save" else 0)
            moment = dice.uniform(0.02, length / 3) if kind == "random" else PATIENCE_S
            status = watch(start(data, run, backend), moment, sign)
            if status is not None:
                break
            kills += 1
            told["in_saves"] += kind == "save"
            told["after_last"] += kind == "end"
        told["kills"] += kills
        told["runs"] += 1
        if status != 0:
            told["lost"] += 1
            reasons.append((folder / f"{run.name}.error").read_text())
        elif result(run) != expected:
            told["different"] += 1
    return {**told, "seconds_undisturbed": length, "reasons": reasons}


if __name__ == "__main__":
    place, runs_wanted, kills_wanted, *rest = sys.argv[1:]
    print(json.dumps(main(Path(place), int(runs_wanted), int(kills_wanted), *rest)))
