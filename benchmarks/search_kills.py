"""SIGKILLs of a search's driver and of its workers: `benchmarks/search.py kills`.

Workers are stubs: they wait as long as a small training would take, and their answer is a function
of the job alone, so that a wrong one is seen. They write down what they began and what they ended.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search import answer, stub_plan

RUNG_S = 0.15  # of a worker that pretends to train
SCRIPT = str(Path(__file__).with_name("search.py"))


def worker(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """What a stub does in the place of training."""
    from leancnn import runs
    from leancnn.process import die_with_parent

    die_with_parent()
    job = json.loads(Path(asked.job).read_text())
    folder = Path(job["folder"])
    result = folder / name_of(job)
    with runs.Lock(folder):  # as training has it
        if not result.exists():
            runs.write_checked(result, trained(job))


def task(job: dict[str, Any], files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The same as a task of a cluster: what the trial has left comes and goes as a message."""
    name = name_of(job)
    if name not in files:
        there = Path(job["folder"]) / name
        if there.exists():
            note(job, "twice")  # the driver had it, and did not send it
        files = {**files, name: json.dumps(trained(job)).encode()}
    return json.loads(files[name]), files


def trained(job: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a rung that is not trained; when it began and was done is written down."""
    note(job, "began")
    time.sleep(RUNG_S)
    done = {"number": job["number"], "epochs": job["epochs"], "accuracy": answer(job)}
    note(job, "ended")
    return {**done, "seconds": RUNG_S * job["epochs"], "error": "", "lost": False}


def name_of(job: dict[str, Any]) -> str:
    return f"rung-{job['epochs']}.json"


def note(job: dict[str, Any], what: str) -> None:
    with (Path(job["folder"]).parents[1] / "ran.txt").open("a") as file:
        file.write(f"{what} {job['number']} {job['epochs']}\n")


def drive(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """A search with stub workers, until so many trials have ended: what is killed."""
    from leancnn.runs import Lock
    from leancnn.search.drive import Driver
    from leancnn.search.pool import LocalPool, Pool
    from leancnn.search.study import Study

    plan, folder = stub_plan(), asked.folder
    cores = sorted(os.sched_getaffinity(0))
    with Lock(folder):
        pool: Pool
        if asked.ray:
            from leancnn.search.ray_pool import RayPool

            pool = RayPool("local", len(cores), task)
        else:
            pool = LocalPool(cores, [sys.executable, SCRIPT, "worker"])
        study = Study(folder / "study.journal", plan.found, plan.rungs)
        driver = Driver(plan, folder, study, pool, seconds=1e9)

        def look(one: Any) -> None:
            if sum(trial.state != "running" for trial in study.trials()) >= asked.trials:
                one.seconds = 0.0

        driver.look = look
        try:
            driver.run()
        finally:
            pool.close()


def table(folder: Path) -> dict[int, Any]:
    """The trials that ended, as the journal has them."""
    from leancnn.search.study import Study

    plan = stub_plan()
    study = Study(folder / "study.journal", plan.found, plan.rungs)
    return {one.number: one for one in study.trials() if one.state != "running"}


def kills(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """SIGKILL the driver, or a worker, at random moments; begin again; what ended stays ended."""
    draw = random.Random(asked.seed)
    lost = changed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "search"
        command = [sys.executable, SCRIPT, "drive", str(folder), "--trials", str(asked.trials)]
        command += ["--ray"] * asked.ray
        before: dict[int, Any] = {}
        for number in range(asked.kills + 1):
            process = subprocess.Popen(command)
            if number == asked.kills:
                if status := process.wait():
                    raise SystemExit(f"the driver ended with status {status}")
                break
            at_work(folder, process)
            time.sleep(draw.uniform(0.0, 2.0))
            if number % 2:  # a worker; the driver goes on
                for pid in tasks() if asked.ray else children(process.pid)[:1]:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(draw.uniform(0.0, 1.0))
            process.kill()
            process.wait()
            after = table(folder)
            lost += len(before.keys() - after.keys())
            changed += sum(after.get(key) != one for key, one in before.items())
            before = after
            print(f"{number + 1} kills, {len(after)} trials ended", file=sys.stderr)
        row = {"workers": "of Ray" if asked.ray else "processes", "kills": asked.kills}
        row |= found_in(folder, asked.ray)
    publish(
        "kills-ray" if asked.ray else "kills",
        "A search after SIGKILLs of its driver and of its workers"
        + (", on a Ray cluster of this machine" if asked.ray else ""),
        [{**row, "lost": lost, "changed": changed}],
        "stub workers; every second kill takes a worker first; lost, changed, run twice and wrong "
        "are to be 0"
        + ("; run twice: though the driver had the answer of the rung" if asked.ray else ""),
    )


def at_work(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a driver has begun: importing torch is no work to lose."""
    log = folder / "ran.txt"
    size = log.stat().st_size if log.exists() else 0
    while not log.exists() or log.stat().st_size == size:
        time.sleep(0.02)
        if process.poll() is not None:
            raise SystemExit(f"the driver ended with status {process.returncode}")


def found_in(folder: Path, ray: bool) -> dict[str, Any]:
    """What the logs and the journal of a search tell of what was trained."""
    ran = (folder / "ran.txt").read_text().splitlines()
    ended = [line for line in ran if line.startswith("ended")]
    twice = [line for line in ran if line.startswith("twice")] if ray else ended
    done = table(folder)
    return {
        "trials": len(done),
        "rungs": len(set(ended)),
        "run twice": len(twice) - (0 if ray else len(set(twice))),
        "cut short and run again": len([line for line in ran if line.startswith("began")])
        - len(set(ended)),
        "wrong": sum(
            abs(accuracy - answer(reported(one, epochs))) > 1e-12
            for one in done.values()
            for epochs, accuracy in one.accuracies.items()
        ),
    }


def reported(one: Any, epochs: int) -> dict[str, Any]:
    """The part of a trial's job that a stub's answer depends on."""
    architecture = {**one.candidate.architecture.to_json()}
    return {"architecture": architecture, "change": one.change.to_json(), "epochs": epochs}


def children(parent: int) -> list[int]:
    """Processes that one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def tasks() -> list[int]:
    """One of Ray's processes that is at a task of ours."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::task"):
                return [int(path.parent.name)]
        except OSError:
            continue
    return []
