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
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BESIDE = {"compare": "search_compare", "kept": "search_kept", "workers": "search_kept"}
sys.path[:0] = [str(ROOT)]

HELD_OUT = 40
TRIALS, KILLS = 2_000, 20
RUNGS = (1, 3, 9)
RUNG_S = 0.15  # of a worker that pretends to train


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


def worker(place: str) -> None:
    """What a stub does in the place of training; it says when it began and when it was done."""
    from leancnn import runs
    from leancnn.process import die_with_parent

    die_with_parent()
    job = json.loads(Path(place).read_text())
    folder = Path(job["folder"])
    result, log = folder / f"rung-{job['epochs']}.json", folder.parents[1] / "ran.txt"
    name = f"{job['number']} {job['epochs']}"
    with runs.Lock(folder):  # as training has it
        if result.exists():
            return
        with log.open("a") as file:
            file.write(f"began {name}\n")
        time.sleep(RUNG_S)
        done = {"number": job["number"], "epochs": job["epochs"], "accuracy": answer(job)}
        runs.write_checked(
            result, {**done, "seconds": RUNG_S * job["epochs"], "error": "", "lost": False}
        )
        with log.open("a") as file:
            file.write(f"ended {name}\n")


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


def drive(folder: Path, trials: int) -> None:
    """A search with stub workers, until so many trials have ended: what is killed."""
    from leancnn.runs import Lock
    from leancnn.search.drive import Driver
    from leancnn.search.pool import LocalPool
    from leancnn.search.study import Study

    plan = stub_plan()
    command = [sys.executable, str(Path(__file__).resolve()), "worker"]
    cores = sorted(os.sched_getaffinity(0))
    with Lock(folder):
        study = Study(folder / "study.journal", plan.found, plan.rungs)
        driver = Driver(plan, folder, study, LocalPool(cores, command), seconds=1e9)

        def look(one: Any) -> None:
            if sum(trial.state != "running" for trial in study.trials()) >= trials:
                one.seconds = 0.0

        driver.look = look
        driver.run()


def table(folder: Path) -> dict[int, Any]:
    """The trials that ended, as the journal has them."""
    from leancnn.search.study import Study

    plan = stub_plan()
    study = Study(folder / "study.journal", plan.found, plan.rungs)
    return {one.number: one for one in study.trials() if one.state != "running"}


def kills(asked: argparse.Namespace) -> None:
    """SIGKILL the driver, or a worker, at random moments; begin again; what ended stays ended."""
    draw = random.Random(asked.seed)
    lost = changed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "search"
        command = [sys.executable, __file__, "drive", str(folder), "--trials", str(asked.trials)]
        before: dict[int, Any] = {}
        for number in range(asked.kills + 1):
            journal = folder / "study.journal"
            size = journal.stat().st_size if journal.exists() else 0
            process = subprocess.Popen(command)
            if number == asked.kills:
                if status := process.wait():
                    raise SystemExit(f"the driver ended with status {status}")
                break
            while not journal.exists() or journal.stat().st_size == size:
                time.sleep(0.02)  # until it is at work: importing torch is no work to lose
                if process.poll() is not None:
                    raise SystemExit(f"the driver ended with status {process.returncode}")
            time.sleep(draw.uniform(0.0, 2.0))
            if number % 2:  # a worker; the driver goes on
                for pid in workers(process.pid)[:1]:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(draw.uniform(0.0, 1.0))
            process.kill()
            process.wait()
            after = table(folder)
            lost += len(before.keys() - after.keys())
            changed += sum(after.get(key) != one for key, one in before.items())
            before = after
        ran = (folder / "ran.txt").read_text().splitlines()
        ended = [line for line in ran if line.startswith("ended")]
        twice = len(ended) - len(set(ended))
        again = len([line for line in ran if line.startswith("began")]) - len(ended)
        done = table(folder)
        wrong = sum(
            abs(accuracy - answer(reported(one, epochs))) > 1e-12
            for one in done.values()
            for epochs, accuracy in one.accuracies.items()
        )
    rows = [
        {
            "kills": asked.kills,
            "trials": len(done),
            "rungs": len(ended),
            "lost": lost,
            "changed": changed,
            "run twice": twice,
            "cut short and run again": again,
            "wrong": wrong,
        }
    ]
    publish(
        "kills",
        "A search after SIGKILLs of its driver and of its workers",
        rows,
        "stub workers; every second kill takes a worker first; lost, changed, run twice and wrong "
        "are to be 0",
    )


def reported(one: Any, epochs: int) -> dict[str, Any]:
    """The part of a trial's job that a stub's answer depends on."""
    architecture = {**one.candidate.architecture.to_json()}
    return {"architecture": architecture, "change": one.change.to_json(), "epochs": epochs}


def workers(parent: int) -> list[int]:
    """Children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


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
    one = parts.add_parser("kept")
    one.add_argument("--searches", type=int, default=20)
    one.add_argument("--seconds", type=float, default=5.0, help="of CPU, of training, each")
    one.add_argument("--seed", type=int, default=0)
    one = parts.add_parser("workers")
    one.add_argument("--seconds", type=float, default=60.0, help="of each search")
    one = parts.add_parser("drive")
    one.add_argument("folder", type=Path)
    one.add_argument("--trials", type=int)
    one = parts.add_parser("worker")
    one.add_argument("job")
    one.add_argument("core")
    asked = parser.parse_args()
    if asked.what == "worker":
        worker(asked.job)
    elif asked.what == "drive":
        drive(asked.folder, asked.trials)
    elif asked.what in BESIDE:
        getattr(import_module(BESIDE[asked.what]), asked.what)(asked, publish)
    else:
        {"clock": clock, "bookkeeping": bookkeeping, "kills": kills}[asked.what](asked)


if __name__ == "__main__":
    main()
