"""What a search is worth, and what it costs: six measurements, each a result of its own.

python benchmarks/search.py clock                    # its error on 40 networks it never saw
python benchmarks/search.py compare DATA --time 60   # beside random search, Optuna and the zoo
python benchmarks/search.py bookkeeping              # 2,000 trials whose training takes no time
python benchmarks/search.py kills                    # 20 SIGKILLs, of the driver and of workers
python benchmarks/search.py kept                     # is the limit of time kept, in 20 searches
python benchmarks/search.py workers                  # trials on two Ray workers beside one
"""

import argparse
import json
import random
import resource
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BESIDE = {
    "compare": "search_compare",
    "kept": "search_kept",
    "workers": "search_kept",
    "kills": "search_kills",
    "drive": "search_kills",
    "worker": "search_kills",
}
sys.path[:0] = [str(ROOT)]

HELD_OUT = 40
TRIALS, KILLS = 2_000, 20
RUNGS = (1, 3, 9)


def publish(name: str, title: str, rows: list[dict[str, Any]], note: str) -> None:
    from importlib.metadata import version

    from leancnn import runs

    place = ROOT / "results" / f"search-{name}.json"
    runs.write_json(
        place,
        {
            "title": title,
            "command": f"python benchmarks/search.py {shlex.join(sys.argv[1:])}",
            "machine": {**runs.machine(), "torch": version("torch"), "optuna": version("optuna")},
            "made": runs.now(),
            "rows": rows,
            "note": note,
        },
    )
    print(json.dumps(rows, indent=1, ensure_ascii=False))
    print(f"{place}; 'make readme' writes it into the tables", file=sys.stderr)


def answer(job: dict[str, Any]) -> float:
    """The accuracy that a stub comes to: a function of the job alone."""
    architecture = job["architecture"]
    draw = random.Random(json.dumps([architecture, job["change"]], sort_keys=True)).random()
    return float(min(0.99, 0.5 + architecture["macs"] / 4e8 + 0.1 * draw + 0.01 * job["epochs"]))


def stub_plan(**changes: Any) -> Any:
    """A plan over a made-up space of 120 architectures."""
    from leancnn.search.budget import Budget, Candidate
    from leancnn.search.plan import SearchPlan
    from leancnn.search.space import Architecture

    known = {"arguments": {}, "size": (32, 32), "channels": 3, "classes": 10}
    found = tuple(
        Candidate(
            Architecture(network=f"network {n}", macs=10**6 * k, bytes=10**4 * k, **known),
            3.0 * k + n,
        )
        for n in range(6)
        for k in range(1, 21)
    )
    usual = {
        "data": "digits",
        "data_sha256": {},
        "classes": tuple("0123456789"),
        "images": 1000,
        "val_images": 500,
        "val_share": None,
        "budget": Budget(),
        "asked": {},
        "seed": 0,
        "rungs": RUNGS,
        "found": found,
        "latency_model": {},
        "machine": {},
        "tested": False,
    }
    return SearchPlan(**{**usual, **changes})


class Stub:
    """A pool whose jobs are done as soon as they are asked for."""

    size = 2

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def start(self, job: Any) -> None:
        self.jobs.append(job)

    def wait(self, seconds: float) -> list[Any]:
        from leancnn.search.trial import Outcome

        jobs, self.jobs = self.jobs, []
        return [
            Outcome(
                number=job.number,
                epochs=job.epochs,
                accuracy=answer(job.to_json()),
                seconds=1e-6,
            )
            for job in jobs
        ]

    def quiet(self) -> Any:
        return nullcontext()

    def stop(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def bookkeeping(asked: argparse.Namespace) -> None:
    """Time and memory of so many trials beside the training itself."""
    from leancnn.search.drive import Driver
    from leancnn.search.study import Study

    rows, plan = [], stub_plan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = Study(folder / "study.journal", plan.found, plan.rungs)
        driver = Driver(plan, folder, study, Stub(), seconds=1e9)
        marks = sorted({asked.trials // 4, asked.trials // 2, asked.trials})
        before, cpu = time.perf_counter(), time.process_time()

        def look(one: Any) -> None:
            many = len(study.trials())
            if marks and many >= marks[0]:
                marks.pop(0)
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                rows.append(
                    {
                        "trials": many,
                        "ms a trial": round(1e3 * (time.perf_counter() - before) / many, 2),
                        "of them CPU": round(1e3 * (time.process_time() - cpu) / many, 2),
                        "MB": round(memory),
                        "journal kB": round((folder / "study.journal").stat().st_size / 1e3),
                    }
                )
                print(rows[-1], file=sys.stderr)
            if not marks:
                one.seconds = 0.0

        driver.look = look
        driver.run()
    publish(
        "bookkeeping",
        "The bookkeeping of a search, training left out",
        rows,
        "bars: 20 ms a trial, 300 MB (of the whole process, PyTorch included)",
    )


def clock(asked: argparse.Namespace) -> None:
    """Fit the latency model anew, then time networks that it never saw: how far off it was."""
    import numpy as np

    from leancnn.search.latency_model import PROGRAMS, LatencyModel, load_or_fit, sample
    from leancnn.search.programs import measured, predicted_cycles
    from leancnn.search.space import architectures

    fitted: LatencyModel = load_or_fit(progress=True, refit=True)
    sides = [(31, 31), (32, 32), (64, 64)]
    every = list(architectures(classes=10, channels=3, sizes=sides))
    seen = {one.key for one in sample(PROGRAMS)}
    draw = random.Random(asked.seed)
    rest = [one for one in every if one.key not in seen and one.macs < asked.macs]
    some = draw.sample(rest, min(asked.networks, len(rest)))
    cycles = predicted_cycles(some, progress=True)
    times = measured([one for one in some if one.key in cycles], progress=True)
    able = [one for one in some if one.key in times]
    off = np.array([fitted.predict(cycles[one.key]) / times[one.key] - 1 for one in able])
    for one, error in sorted(zip(able, off, strict=True), key=lambda pair: pair[1]):
        print(f"{error:+7.1%}  {times[one.key]:9.1f} µs  {one.title}", file=sys.stderr)
    errors = np.abs(off)
    rows = [
        {
            "networks": len(able),
            "median %": round(100 * float(np.median(errors)), 1),
            "90th percentile %": round(100 * float(np.percentile(errors, 90)), 1),
            "worst %": round(100 * float(errors.max()), 1),
            "too fast at most %": round(100 * float(-off.min()), 1),
            "it says median %": round(100 * fitted.median_error, 1),
            "it says worst %": round(100 * fitted.worst_error, 1),
        }
    ]
    publish(
        "clock",
        "The latency model's error on networks that were built and timed, and that it never saw",
        rows,
        f"fitted to {fitted.programs} programs; the held-out ones drawn by seed {asked.seed} from "
        "all architectures at 31, 32 and 64 pixels; bar: 10 % in the median",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(dest="what", required=True)
    one = parts.add_parser("clock")
    one.add_argument("--networks", type=int, default=HELD_OUT)
    one.add_argument("--macs", type=float, default=3e8)
    one.add_argument("--seed", type=int, default=1)
    one = parts.add_parser("compare")
    one.add_argument("data", type=Path, help="a folder with train/ and test/")
    one.add_argument("--name", default="cifar10-jpeg", help="of the data")
    one.add_argument("--time", type=float, default=60.0, help="microseconds, at most")
    one.add_argument("--seconds", type=float, default=60.0, help="of CPU, the budget of a cell")
    one.add_argument("--images", type=int, default=1000, help="to train on")
    one.add_argument("--epochs", type=int, help="the longest training; default: what recipes say")
    one.add_argument("--size", type=int, default=32)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--networks", nargs="*")
    one.add_argument("--out", type=Path, default=ROOT / "runs" / "search-compare")
    one = parts.add_parser("bookkeeping")
    one.add_argument("--trials", type=int, default=TRIALS)
    one = parts.add_parser("kills")
    one.add_argument("--trials", type=int, default=120)
    one.add_argument("--kills", type=int, default=KILLS)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--ray", action="store_true", help="workers of a Ray cluster of this machine")
    one = parts.add_parser("kept")
    one.add_argument("--searches", type=int, default=20)
    one.add_argument("--seconds", type=float, default=5.0, help="of CPU, of training, each")
    one.add_argument("--seed", type=int, default=0)
    one = parts.add_parser("workers")
    one.add_argument("--seconds", type=float, default=60.0, help="of each search")
    one = parts.add_parser("drive")
    one.add_argument("folder", type=Path)
    one.add_argument("--trials", type=int)
    one.add_argument("--ray", action="store_true")
    one = parts.add_parser("worker")
    one.add_argument("job")
    one.add_argument("core")
    asked = parser.parse_args()
    if asked.what in BESIDE:
        getattr(import_module(BESIDE[asked.what]), asked.what)(asked, publish)
    else:
        {"clock": clock, "bookkeeping": bookkeeping}[asked.what](asked)


if __name__ == "__main__":
    main()
