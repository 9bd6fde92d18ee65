"""Figure 1: SIGKILL while training, pruning, comparing and quantizing; then the same call again.

    python benchmarks/kills.py --trials 300

A child trains, prunes and trains again, compares criteria or quantizes,
and is killed at a random moment,
every third time while a file of its folder is being written, and once a run when its last network
begins to stand. Then the same call is made again, and killed again; the last is left in peace. What
stands then must be what stood where nobody killed: all weights by sha256, plans, metrics, the
comparison, and how often the test part was opened. The network is tiny, with what can break a
resumption: dropout, batch norm, shuffling, augmentation, momentum, a schedule, averaged weights.
The control writes its checkpoints by `torch.save` onto one path, and the same killer must ruin it.
Children are forked where torch is imported and has computed nothing, so a trial costs no import.
`--kept FILE` writes what was counted after every run, and goes on from it when called again.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import RESULTS, at_most, publish

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402 - it lies beside the tests
from kill_training import WIDTH, naive  # noqa: E402

from leancnn import runs  # noqa: E402
from leancnn.plots import training_curve  # noqa: E402
from leancnn.prune import prune  # noqa: E402
from leancnn.prune.compare import compare  # noqa: E402
from leancnn.quantize import quantize  # noqa: E402
from leancnn.safe_files import read_json  # noqa: E402
from leancnn.train import resume, train  # noqa: E402

CARELESS = "control: torch.save onto one path"
NOTE = "a run is killed up to five times, then led to its end"
EPOCHS, KILLS = 6, 5  # of a training; of a run before it is left in peace
PATIENCE_S = 120.0
TIMES = ("second", "per_s", "micro", "folder", "picture", "made", "started", "time")
RECIPE = tiny.RECIPE.changed(epochs=EPOCHS)


def trained(data: Path, _: Path, out: Path) -> None:
    """What a user does after a crash: go on where there is something, else begin."""
    if runs.is_run(out):
        resume(out, progress=False)
        return
    wide = {"width": WIDTH}
    train(data, recipe=RECIPE, arguments=wide, out=out, progress=False, save_every_steps=2)


def pruned(_: Path, run: Path, out: Path) -> None:
    """Half of the channels, and the same training again."""
    prune(run, out=out, criterion="l1", keep=0.5, finetune=RECIPE, progress=False)


def compared(_: Path, run: Path, out: Path) -> None:
    """Two criteria and a network from scratch: three trainings, the last as long as two."""
    compare(run, out=out, criteria=["l1", "random"], timed=False, progress=False, keep=0.5)


def quantized(_: Path, run: Path, out: Path) -> None:
    """The network in integers, with its clock."""
    quantize(run, out, images=64)


JOBS: dict[str, Callable[[Path, Path, Path], None]] = {
    "train": trained,
    "prune": pruned,
    "compare": compared,
    "quantize": quantized,
}


def start(job: str, data: Path, run: Path, out: Path) -> int:
    """The process of a child that does the job in `out`; its error stands beside it."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        torch.set_num_threads(1)
        JOBS[job](data, run, out)
        os._exit(0)
    except BaseException as error:  # a lost run: the parent reads why
        (out.parent / f"{out.name}.error").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)


class Sign:
    """Something that appears in a folder: a file that is being written, or a last network."""

    def __init__(self, kind: str, folder: Path, skip: int) -> None:
        self._pattern = {"save": ".*.tmp", "end": "last/*"}.get(kind)
        self._folder, self._skip = folder, skip
        self._seen = self._there()

    def awaited(self) -> bool:
        return self._pattern is not None

    def now(self) -> bool:
        """Whether it has appeared once more than it may."""
        fresh = self._there() - self._seen
        self._seen |= fresh
        self._skip -= bool(fresh)
        return bool(fresh) and self._skip < 0

    def _there(self) -> set[str]:
        if self._pattern is None:
            return set()
        found = itertools.chain(*(p.glob(self._pattern) for p in places(self._folder)))
        return {str(path) for path in found}


def places(folder: Path) -> list[Path]:
    """The folders where a job writes, without a walk that would be slower than a save."""
    inner = [folder, *folder.glob("*-seed0")]
    return [*inner, *(one / name for one in inner for name in ("checkpoints", "best", "cut"))]


def killed(child: int, moment: float, sign: Sign) -> int | None:
    """Kill a child after `moment` seconds or at a sign: None; its status if it ended before."""
    began = time.monotonic()
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        late = time.monotonic() - began
        if sign.now() or (not sign.awaited() and late >= moment) or late > PATIENCE_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def without_times(value: Any) -> Any:
    """A JSON value without what the clock or the place of a folder put there."""
    if isinstance(value, dict):
        kept = {k: without_times(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if not any(word in k.lower() for word in TIMES)}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def result(out: Path) -> dict[str, Any]:
    """All that a job leaves, by the path of each file."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "network.json":
            found[name] = read_json(path)["tensors"]
        elif path.name == "plan.json":
            found[name] = {k: v for k, v in read_json(path).items() if k != "sha256"}
        elif path.name == "comparison.json":
            found[name] = {k: v for k, v in without_times(read_json(path)).items() if k != "sha256"}
        elif path.name == "metrics.jsonl":
            found[name] = without_times(runs.read_metrics(path.parent))
        elif path.name == "evaluations.json":
            found[name] = [
                {key: one[key] for key in ("which", "accuracy", "weights")}
                for one in runs.evaluations(path.parent)
            ]
    return found


class Tally:
    """What came of the trials of one job; kept in a file of JSON, if there is to be one."""

    def __init__(self, job: str = "", kept: Path | None = None) -> None:
        self.kills = self.in_saves = self.at_ends = self.runs = self.lost = self.different = 0
        self.reasons: list[str] = []
        self._job, self._kept = job, kept
        if kept is not None and kept.exists():
            self.__dict__.update(json.loads(kept.read_text()).get(job, {}))

    def counts(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def keep(self) -> None:
        if self._kept is not None:
            of_all = json.loads(self._kept.read_text()) if self._kept.exists() else {}
            self._kept.write_text(json.dumps(of_all | {self._job: self.counts()}))


def trials(
    job: str, most: int, data: Path, run: Path, place: Path, tally: Tally | None = None
) -> Tally:
    """Kill runs of a job until so many kills have fallen; every run is then led to its end."""
    tally = tally or Tally()
    if tally.kills >= most:
        return tally
    place.mkdir(parents=True)
    began = time.monotonic()
    assert killed(start(job, data, run, place / "quiet"), PATIENCE_S, Sign("none", place, 0)) == 0
    length, expected = time.monotonic() - began, result(place / "quiet")
    while tally.kills < most:
        out, status = place / f"run {tally.runs}", None
        dice = random.Random(f"{job} {tally.runs}")
        for number in itertools.count():
            kinds = ["random", "save", "random", "save", "end"]
            left = number >= KILLS or tally.kills >= most
            kind = "none" if left else kinds[number]
            moment = dice.uniform(0.01, length * 0.6) if kind == "random" else PATIENCE_S
            sign = Sign(kind, out, dice.randrange(8) if kind == "save" else 0)
            status = killed(start(job, data, run, out), moment, sign)
            if status is not None:
                break
            tally.kills += 1
            tally.in_saves += kind == "save"
            tally.at_ends += kind == "end"
        tally.runs += 1
        if status:
            tally.lost += 1
            why = (place / f"{out.name}.error").read_text()
            tally.reasons.append(why.replace(str(place), "…"))
        elif (found := result(out)) != expected:
            tally.different += 1
            changed = [
                key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
            ]
            tally.reasons.append(f"{job} {out.name}: {', '.join(sorted(changed))}")
        tally.keep()
    return tally


def row(what: str, tally: Tally, bound: bool = True) -> dict[str, object]:
    failed = tally.lost + tally.different
    return {
        "what": what,
        "kills": tally.kills,
        "while a file was written": tally.in_saves,
        "when the last network began to stand": tally.at_ends,
        "runs": tally.runs,
        "lost": tally.lost,
        "other bits": tally.different,
        "at most a kill (95 %)": at_most(failed, tally.kills) if bound else "",
    }


def control(most: int, data: Path, run: Path, place: Path, tally: Tally | None = None) -> Tally:
    """The same of a training that saves as one does without thinking, in a process of its own."""
    naive()
    return trials("train", most, data, run, place, tally)


def anew(careless: Tally) -> None:
    """Put a control that was measured again into the results of the kills that stand."""
    place = RESULTS / "reliability-01.json"
    value = read_json(place)
    value["rows"][-1] = row(CARELESS, careless, False)
    value["control_reasons"] = careless.reasons
    value["note"] = f"{NOTE}; the control by kills.py {' '.join(sys.argv[1:])}"
    runs.write_json(place, value)
    sys.exit(not careless.lost + careless.different)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300, help="kills, a quarter for each job")
    parser.add_argument("--kept", type=Path, help="a file for what was counted, to go on from")
    parser.add_argument(
        "--control", action="store_true", help="only the control, put into the results that stand"
    )
    args = parser.parse_args()
    training_curve([{"epoch": 1, "val_loss": 1.0}])  # fonts, once for all children
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        os.environ["LEANCNN_CACHE"] = str(place / "cache")
        data, run = tiny.make_pictures(place / "pictures"), place / "whole"
        made = start("train", data, run, run)
        assert os.waitstatus_to_exitcode(os.waitpid(made, 0)[1]) == 0
        if args.control:
            anew(control(args.trials, data, run, place / "naive"))
            return
        each = -(-args.trials // len(JOBS))
        found = {
            job: trials(job, each, data, run, place / job, Tally(job, args.kept)) for job in JOBS
        }
        careless = control(each, data, run, place / "naive", Tally(CARELESS, args.kept))
    whole = Tally()
    for tally in found.values():
        for key in whole.counts():
            setattr(whole, key, getattr(whole, key) + getattr(tally, key))
    rows = [row(job, tally) for job, tally in found.items()]
    rows += [row("all", whole), row(CARELESS, careless, False)]
    sys.argv[1:] = ["--trials", str(args.trials)]  # a command that others can give, too
    publish(
        1,
        "SIGKILL at random moments, then the same call again",
        rows,
        note=NOTE,
        reasons=whole.reasons,
        control_reasons=careless.reasons,
    )
    sys.exit(bool(whole.reasons) or not careless.lost + careless.different)


if __name__ == "__main__":
    main()
