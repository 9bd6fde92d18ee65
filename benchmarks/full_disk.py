"""Figure 11: a disk that is full or read-only while exports, caches and reports are written.

    python benchmarks/full_disk.py [WORD ...]     jobs with these words; else all

Each job is first done in peace, then again over what it left, in a child where the k-th call that
makes, opens for writing, syncs, renames or makes a folder fails, for k = 1, 2, … until none does;
then under RLIMIT_FSIZE, which cuts files short at a size; then, where the system lets us mount one,
on a small tmpfs that fills up at several sizes, and on one that is read-only. What stood there must
stand, byte by byte, the error must be one of ours with the path, and when the job is at last done
in peace nothing may lie there that it does not leave. Exports are not compared with PyTorch here. A
cache may fail in silence: the job then goes on. The control writes an export straight into its
place. `reliability.py disk` does the same to a run.
"""

import argparse
import builtins
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx  # noqa: F401 - here, so that no child has to
import onnxruntime  # noqa: F401
import torch
from figures import RESULTS, publish

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]
sys.dont_write_bytecode = True

from leancnn import weights  # noqa: E402
from leancnn.channels.dependencies import find_dependencies  # noqa: E402
from leancnn.compile import compile  # noqa: E402
from leancnn.errors import LeanCNNError  # noqa: E402
from leancnn.evaluate import evaluate  # noqa: E402
from leancnn.export import export  # noqa: E402
from leancnn.prune.compare import compare  # noqa: E402
from leancnn.prune.importance import scored  # noqa: E402
from leancnn.quantize import quantize  # noqa: E402
from leancnn.targets.onnx import to_onnx  # noqa: E402
from leancnn.train import train  # noqa: E402
from leancnn.training_data import training_images  # noqa: E402
from tests.tiny import RECIPE, make_pictures  # noqa: E402

exporting, quantizing = import_module("leancnn.export"), import_module("leancnn.quantize")
Job = Callable[[Path, Path], object]
DONE, NAMED, UNNAMED, RAW, QUIET = range(5)  # how a child ended
MOST_CALLS = 400
SIZES = (0, 200, 1000, 4000, 16000)  # bytes that fit
PLACE = f"leancnn-full-disk-{os.getpid()}"  # in the path of all that is written
OFTEN = ("lost", "without the path", "raw", "done all the same", "litter")


def scores(run: Path, _: Path) -> None:
    network = weights.load(run)
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    scored(network, dependencies, "taylor", training_images(run, None, network), progress=False)


def comparison(run: Path, out: Path) -> None:
    wanted: dict[str, Any] = {"criteria": ["l1"], "controls": [], "keep": 0.5}
    compare(run, out=out, finetune=RECIPE.changed(epochs=1), timed=False, progress=False, **wanted)


JOBS: dict[str, Job] = {
    "export: one file (ONNX)": lambda run, out: export(run, to="onnx", out=out),
    "export: several files (C)": lambda run, out: export(run, to="c", out=out),
    "export: a folder (Arduino)": lambda run, out: export(run, to="arduino", out=out),
    "compile": lambda run, out: compile(run, out=out),
    "quantize": lambda run, out: quantize(run, out, images=16),
    "report: confusion matrix": lambda run, out: evaluate(run, picture=out / "matrix.png"),
    "report: comparison": comparison,
    "cache: scores and images": scores,
}


def fail(which: int) -> list[int]:
    """Make the k-th call that writes fail as on a full disk; how many are left until then."""
    left = [which]

    def refuse(writes: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            left[0] -= writes(*given, **named)
            if left[0] == 0:
                left[0] = -1
                raise OSError(28, "No space left on device", str(given[0]))
            return real(*given, **named)

        return call

    def always(*given: Any, **named: Any) -> bool:
        return left[0] > 0

    def makes(_: Any, flags: int, *more: Any, **named: Any) -> bool:
        return left[0] > 0 and bool(flags & os.O_CREAT)

    def writing(_: Any, mode: str = "r", *more: Any, **named: Any) -> bool:
        return left[0] > 0 and bool(set(mode) & set("wax+"))

    os.open = refuse(makes, os.open)
    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, refuse(always, getattr(os, name)))
    io.open = builtins.open = refuse(writing, builtins.open)
    return left


def child(job: Callable[[], object], before: Callable[[], Any]) -> int:
    """Do a job in a process of its own, in which something was done before; how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        torch.set_num_threads(1)
        exporting.check_parity = lambda *given: None  # type: ignore[attr-defined]
        quantizing.clock = lambda *given: []  # type: ignore[attr-defined]  # no two take as long
        left = before()
        job()
        os._exit(DONE if left is None or left[0] > 0 else QUIET)
    except LeanCNNError as error:
        os._exit(NAMED if PLACE in str(error) else UNNAMED)
    except BaseException as error:
        with contextlib.suppress(OSError):  # its own output may be limited, too
            os.write(1, f"raw: {type(error).__name__}: {error}\n".encode()[:500])
        os._exit(RAW)


def tree(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, and the folders."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in paths}


class Trials:
    """One job over what it left before, harmed in one way after the other."""

    def __init__(self, job: Job, run: Path, out: Path) -> None:
        self.job, self.run, self.out = job, run, out
        self.of_cache = job is scores
        self.counts = dict.fromkeys(("trials", *OFTEN), 0)
        out.mkdir(parents=True, exist_ok=True)
        (out / "cache").mkdir(exist_ok=True)
        assert self._start(lambda: None) == DONE
        self.whole = self._artifacts()
        self.names = set(tree(out))

    def _start(self, before: Callable[[], Any]) -> int:
        os.environ["LEANCNN_CACHE"] = str(self.out / "cache")
        return child(lambda: self.job(self.run, self.out / "made"), before)

    def _artifacts(self) -> dict[str, bytes]:
        found = tree(self.out)
        return {name: data for name, data in found.items() if not name.startswith("cache")}

    def harm(self, before: Callable[[], Any], after: Callable[[], object] = lambda: None) -> bool:
        """One trial; whether anything failed in it. A cache is empty before."""
        if self.of_cache:
            shutil.rmtree(self.out / "cache", ignore_errors=True)
        ended = self._start(before)
        after()
        if ended == DONE:
            return False
        self.counts["trials"] += 1
        self.counts["without the path"] += ended == UNNAMED
        self.counts["raw"] += ended not in (NAMED, UNNAMED, QUIET)
        self.counts["done all the same"] += ended == QUIET
        stands = self._artifacts()
        self.counts["lost"] += any(stands.get(name) != data for name, data in self.whole.items())
        return True

    def end(self) -> None:
        """The next start, in peace: it must be done, and leave no more than the first one."""
        assert self._start(lambda: None) == DONE
        self.counts["litter"] += len(tree(self.out).keys() - self.names)


def calls(trials: Trials) -> None:
    """The k-th call fails, for every k."""
    for number in range(1, MOST_CALLS):
        if not trials.harm(partial(fail, number)):
            return
    raise AssertionError("it never ends")


def limited(trials: Trials) -> None:
    """No file may grow beyond so many bytes."""
    for size in SIZES:

        def limit(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        trials.harm(limit)


def mounted(place: Path, *words: str) -> bool:
    """Whether a tmpfs could be mounted, which root alone may."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", *words, "tmpfs", str(place)]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


def filled(trials: Trials) -> None:
    """So many bytes are left on the disk; then none may be written at all."""
    place = trials.out
    for size in SIZES:
        filler = place / "filler"

        def fill(filler: Path = filler, size: int = size) -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            os.truncate(filler, max(filler.stat().st_size - size // 4096 * 4096, 0))

        trials.harm(fill, partial(filler.unlink, missing_ok=True))
    remount = ["mount", "-o", "remount,ro", str(place)]
    subprocess.run(remount, check=True)
    again = ["mount", "-o", "remount,rw", str(place)]
    trials.harm(lambda: None, partial(subprocess.run, again, check=True))


def control(run: Path, out: Path) -> None:
    """An export straight into its place, with what is raised as an error of ours."""
    out.mkdir(exist_ok=True)
    (out / "net.onnx").write_bytes(to_onnx(weights.load(run)))


def measured() -> dict[str, dict[str, object]]:
    """The rows that stand in the results, by the job: those not tried now are kept."""
    place = RESULTS / "reliability-11.json"
    rows = json.loads(place.read_text(encoding="utf-8"))["rows"] if place.exists() else []
    return {str(one["written"]): one for one in rows}


def row(what: str, trials: Trials) -> dict[str, object]:
    return {"written": what, **trials.counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", help="words of those to try; default: all")
    words = parser.parse_args().jobs
    jobs = {k: v for k, v in JOBS.items() if not words or any(word in k for word in words)}
    rows: list[dict[str, object]] = []
    ways = "every call, RLIMIT_FSIZE"
    with tempfile.TemporaryDirectory(prefix=PLACE) as work:
        place = Path(work).resolve()
        data = make_pictures(place / "pictures", each=8)
        run = place / "run"
        os.environ["LEANCNN_CACHE"] = str(place / "cache")
        recipe = RECIPE.changed(epochs=1, batch=8)
        made = partial(train, data, recipe=recipe, out=run, progress=False)
        assert child(made, lambda: None) == DONE
        for what, job in jobs.items():
            trials = Trials(job, run, place / "plain" / str(len(rows)))
            calls(trials)
            limited(trials)
            trials.end()
            disk = place / "disk"
            if mounted(disk, "-o", "size=24m"):
                ways = "every call, RLIMIT_FSIZE, a tmpfs that fills up or is read-only"
                try:
                    small = Trials(job, run, disk)
                    filled(small)
                    small.end()
                finally:
                    unmount(disk)
                for key, value in small.counts.items():
                    trials.counts[key] += value
            rows.append(row(what, trials))
            print(rows[-1], file=sys.stderr)
        careless = Trials(control, run, place / "plain" / "control")
        limited(careless)
    before = {} if not words else measured()
    rows += [of for what, of in before.items() if what in JOBS.keys() - jobs.keys()]
    total = {key: sum(int(str(one[key])) for one in rows) for key in ("trials", *OFTEN)}
    rows += [{"written": "all", **total}, row("control: straight into its place", careless)]
    publish(
        11,
        "a disk that is full or read-only, under exports, caches and reports",
        rows,
        note=f"{ways}; done all the same: a cache that is not kept, a folder that is not synced; "
        f"of an earlier run: {', '.join(sorted(before.keys() & (JOBS.keys() - jobs))) or 'none'}; "
        f"not tried: {', '.join(sorted(JOBS.keys() - jobs - before.keys())) or 'none'}",
    )
    bad = [total[key] for key in OFTEN if key != "done all the same"]
    sys.exit(any(bad) or not careless.counts["lost"])


if __name__ == "__main__":
    main()
