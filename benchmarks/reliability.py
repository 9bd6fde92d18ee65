"""Harm what a run leaves on disk in every way, count what is lost, and let a careless twin try.

`python benchmarks/reliability.py flips` (or races, drift, disk) writes results/reliability-*.json.
Each has a control, the same harm done to a careless version, which must fail: else the harness
sees nothing.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
from disturbed_files import flip_bit, restored, stamps  # noqa: E402
from safetensors.numpy import load as load_tensors  # noqa: E402

from leancnn import recipes, runs, weights  # noqa: E402
from leancnn.bench import untrained  # noqa: E402
from leancnn.compile import compile  # noqa: E402
from leancnn.errors import LeanCNNError, WriteError  # noqa: E402
from leancnn.evaluate import evaluate  # noqa: E402
from leancnn.prune import prune  # noqa: E402
from leancnn.safe_files import check_library, read_json  # noqa: E402
from leancnn.train import train  # noqa: E402
from leancnn.train.plan import TrainingPlan  # noqa: E402
from leancnn.training_data import images_for  # noqa: E402
from tests.tiny import RECIPE, make_pictures  # noqa: E402

Row = dict[str, Any]


def refused(call: Callable[[], object]) -> bool:
    """Whether it ends in an error of ours; any other error is one of the program's own."""
    try:
        call()
    except LeanCNNError:
        return True
    return False


def a_run(folder: Path) -> Path:
    """A run of a second, tested, and a pruning of it."""
    data, run = make_pictures(folder / "pictures"), folder / "run"
    train(data, recipe=RECIPE.changed(epochs=2), out=run, progress=False)
    runs.add_evaluation(run, {"which": "best", "data": str(data), "images": 19, "accuracy": 0.5})
    prune(run, out=folder / "cut", criterion="l1", keep=0.5, progress=False)
    return run


def newest(run: Path) -> bool:
    """Whether the newest checkpoint of a run is the one that is loaded."""
    last = max(int(path.stem[5:]) for path in run.glob("checkpoints/*.json"))
    found, _ = runs.load_checkpoint(run)
    return found is not None and found.step == last


def flips(folder: Path, trials: int = 100) -> list[Row]:
    """One bit of one file, of every kind that a run, a pruning or a compilation leaves."""
    run, cut, dice = a_run(folder), folder / "cut", random.Random(1)
    library = compile(untrained("resnet8"), out=folder / "c").path
    step = max(run.glob("checkpoints/*.json"))

    def as_json(path: Path) -> Any:
        return json.loads(path.read_bytes())

    def as_tensors(path: Path) -> Any:
        return load_tensors(path.read_bytes())

    def edited() -> None:
        messages: list[str] = []
        recipes._base.tell = messages.append
        recipes.read(run / "recipe.json")
        if messages:
            raise WriteError("said to be edited")

    kinds: dict[Path, tuple[Callable[[], object], Callable[[Path], object]]] = {
        step: (lambda: raise_unless(newest(run)), as_json),
        step.with_suffix(".safetensors"): (lambda: raise_unless(newest(run)), as_tensors),
        run / "best/network.json": (lambda: weights.load(run), as_json),
        run / "best/weights.safetensors": (lambda: weights.load(run), as_tensors),
        run / "run.json": (lambda: runs.read_run(run), as_json),
        run / "recipe.json": (edited, as_json),
        run / "evaluations.json": (lambda: runs.evaluations(run), as_json),
        run / "metrics.jsonl": (
            lambda: runs.read_metrics(run),
            lambda path: [json.loads(line) for line in path.read_bytes().splitlines()],
        ),
        cut / "plan.json": (lambda: read_json(cut / "plan.json"), as_json),
        library: (lambda: raise_unless(check_library(library)[1]), lambda path: path.read_bytes()),
    }
    rows = []
    for path, (reader, careless) in kinds.items():
        whole, caught, missed = path.read_bytes(), 0, 0
        for _ in range(trials):
            bad = bytearray(whole)
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
            path.write_bytes(bad)
            caught += refused(reader)
            try:
                careless(path)
                missed += 1
            except Exception:
                pass
        path.write_bytes(whole)
        reader()
        name = "library" if path == library else path.relative_to(folder).as_posix()
        rows.append(
            {
                "file": name.replace(step.stem, "step-N"),
                "flips": trials,
                "refused": caught,
                "silent": trials - caught,
                "control: silent": missed,
            }
        )
    return [*rows, total("all", rows)]


def raise_unless(held: bool) -> None:
    if not held:
        raise WriteError("passed over")


def total(label: str, rows: list[Row]) -> Row:
    names = {**rows[0]}
    key = next(iter(names))
    return {key: label, **{k: sum(r[k] for r in rows) for k in names if k != key}}


STARTER = """
    import sys, time
    from pathlib import Path
    from leancnn.errors import RunError
    from leancnn.runs import Lock
    class Careless:
        def __init__(self, folder): self.path = folder / "run"
        def __enter__(self):
            if self.path.exists(): raise RunError("taken")
            time.sleep(0.0005)
            self.path.mkdir(exist_ok=True)
        def __exit__(self, *_): pass
    place, me, rounds, careless = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    for number in range(rounds):
        folder = place / str(number)
        while not (folder / "go").exists(): time.sleep(0.001)
        try:
            with (Careless if careless == "yes" else Lock)(folder):
                (folder / f"in {me}").touch()
                while not (folder / "over").exists(): time.sleep(0.002)
        except RunError:
            (folder / f"refused {me}").touch()
"""


def races(folder: Path, rounds: int = 100, starters: int = 8) -> list[Row]:
    """So many processes start into one folder at the same moment: one must get it."""
    rows = []
    for label, careless in (("leancnn", "no"), ("control: look, then make", "yes")):
        place, one = folder / careless, 0
        code = textwrap.dedent(STARTER)
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(place), str(n), str(rounds), careless], cwd=ROOT
            )
            for n in range(starters)
        ]
        for number in range(rounds):
            here = place / str(number)
            here.mkdir(parents=True)
            (here / "go").touch()
            while len([*here.glob("in *"), *here.glob("refused *")]) < starters:
                time.sleep(0.002)
            one += len([*here.glob("in *")]) == 1
            (here / "over").touch()
        for process in started:
            process.wait()
        rows.append({"lock": label, "races": rounds, "starters": starters, "one alone got it": one})
    return rows


def drift(folder: Path, trials: int = 25) -> list[Row]:
    """The images change between a run and its resumption."""
    data = make_pictures(folder / "pictures")
    run, dice = folder / "run", random.Random(3)
    train(data, recipe=RECIPE.changed(epochs=1), out=run, progress=False)
    plan = TrainingPlan.of_json(runs.read_run(run)["plan"])
    read = images_for(data, plan.preprocessing, val_share=plan.val_share, split_seed=plan.cut_seed)
    of_run = {name for part in (read.train, read.val) if part for name in part.files}
    files = sorted(data.rglob("*.png"))
    used = [path for path in files if path.relative_to(data).as_posix() in of_run]
    tested = [path for path in files if path not in used]

    def changed() -> bool:
        def check() -> None:
            found = images_for(
                data, plan.preprocessing, val_share=plan.val_share, split_seed=plan.cut_seed
            )
            plan.check_data(found)

        return refused(check)

    deeds: dict[str, Callable[[Path], object]] = {
        "file added": lambda path: shutil.copy(path, path.with_name("new.png")),
        "file removed": lambda path: path.unlink(),
        "bytes changed, size and time kept": flip_bit,
        "label moved": lambda path: path.rename(
            data / ("class 0" if path.parent.name != "class 0" else "class 1") / "moved.png"
        ),
    }
    rows = []
    before = stamps(data)
    for label, deed in deeds.items():
        seen = careless = 0
        for _ in range(trials):
            with restored(dice.choice(used)) as path:
                deed(path)
                seen += changed()
                careless += stamps(data) != before
                for new in [*data.rglob("new.png"), *data.rglob("moved.png")]:
                    new.unlink()
        rows.append(
            {
                "change": label,
                "trials": trials,
                "seen": seen,
                "control, size and time": careless,
            }
        )
    assert not changed()
    seen = 0
    for _ in range(trials):  # of the test part, which only an evaluation opens
        (run / "evaluations.json").unlink(missing_ok=True)
        evaluate(run)
        with restored(dice.choice(tested)) as path:
            flip_bit(path)
            seen += refused(lambda: raise_unless(not evaluate(run).changed))
    row = {"change": "the same of a test image, at evaluate", "trials": trials, "seen": seen}
    rows.append({**row, "control, size and time": 0})
    return [*rows, total("all", rows)]


def disk(folder: Path) -> list[Row]:
    """The k-th call of the system that writes fails, for k = 1, 2, … until none does."""
    run = a_run(folder)
    network = weights.load(run)
    checkpoint, _ = runs.load_checkpoint(run)
    assert checkpoint is not None
    rows_of = runs.read_metrics(run)

    def stands() -> bool:
        found, skipped = runs.load_checkpoint(run)
        return (
            found is not None
            and not skipped
            and weights.digest(weights.load(run)) == weights.digest(network)
            and bool(runs.evaluations(run))
            and len(runs.read_metrics(run)) == len(rows_of)
        )

    about = {key: checkpoint.manifest[key] for key in ("plan", "counters")}
    entry = {"which": "best", "images": 1, "accuracy": 1.0}
    jobs: dict[str, Callable[[], object]] = {
        "saved network": lambda: weights.save(network, run / "best"),
        "checkpoint": lambda: runs.save_checkpoint(run, checkpoint.step, about, checkpoint.tensors),
        "metrics": lambda: runs.write_metrics(run, rows_of),
        "evaluations": lambda: runs.add_evaluation(run, entry),
    }
    rows = []
    for label, job in jobs.items():
        failures = lost = unnamed = litter = quiet = 0
        for number in range(1, 200):
            if not fails(job, number):
                break
            failures += 1
            quiet += not fails.error  # the folder was not synced, the file is in its place
            unnamed += bool(fails.error) and str(run) not in str(fails.error)
            lost += not stands()
            job()  # the next start
            runs.sweep(run)
            litter += len([*run.rglob("*.tmp"), *run.rglob("*.next")])
        rows.append(
            {
                "written": label,
                "failures": failures,
                "lost": lost,
                "without the path": unnamed,
                "done all the same": quiet,
                "litter": litter,
            }
        )
    rows.append(total("all", rows))
    path = folder / "careless.json"
    path.write_text("{}")
    try:
        with path.open("w") as file:
            raise OSError(28, "No space left on device")
    except OSError:
        gone = path.read_text() != "{}"
    assert file.closed
    careless = {"failures": 1, "lost": int(gone), "without the path": 1}
    careless |= {"done all the same": 0, "litter": 0}
    return [*rows, {"written": "control: straight into its place", **careless}]


class Fails:
    """Run a job whose k-th opening, fsync or rename fails; whether it came to that."""

    error: str | None = None

    def __call__(self, job: Callable[[], object], which: int) -> bool:
        left = [which]
        names = {"open": os.open, "fsync": os.fsync, "fdopen": os.fdopen}
        rename = Path.replace

        def failing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                writes = real is not os_open or (len(given) > 1 and given[1] & os.O_CREAT)
                left[0] -= bool(writes)
                if writes and left[0] == 0:
                    raise OSError(28, "No space left on device")
                return real(*given, **named)

            return call

        os_open = os.open
        try:
            for name, real in names.items():
                if name != "fdopen":
                    setattr(os, name, failing(real))
            Path.replace = failing(rename)  # type: ignore[method-assign]
            job()
            self.error = ""
        except WriteError as error:
            self.error = str(error)
        finally:
            for name, real in names.items():
                setattr(os, name, real)
            Path.replace = rename  # type: ignore[method-assign]
        return left[0] <= 0


fails = Fails()
TITLES = {
    "flips": "One flipped bit in every kind of file",
    "races": "Eight processes start into one folder",
    "drift": "Images that change between a run and its resumption",
    "disk": "Every call that writes fails once",
}


def main(name: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LEANCNN_CACHE"] = str(Path(folder) / "cache")
        made: Callable[[Path], list[Row]] = {
            "flips": flips, "races": races, "drift": drift, "disk": disk
        }[name]  # fmt: skip
        rows = made(Path(folder))
    result = {
        "title": TITLES[name],
        "command": f"python benchmarks/reliability.py {name}",
        "machine": {**runs.machine(), "torch": torch.__version__},
        "made": runs.now(),
        "rows": rows,
    }
    runs.write_json(ROOT / "results" / f"reliability-{name}.json", result)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
