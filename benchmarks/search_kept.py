"""Two measurements of whole searches, small ones: `benchmarks/search.py kept` and `workers`.

* kept: searches by a drawn limit of time; is the winner's program as fast as it has to be, when the
  search measures it and when it is measured again?
* workers: searches of the same seconds on one Ray worker and on two; how many trials end?
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from search_compare import Here, cpu_seconds_per_epoch

from leancnn.bench import bench
from leancnn.errors import LeanCNNError, StoppedError
from leancnn.search import Budget, can_meet, lengths, search
from leancnn.search.budget import Candidate
from leancnn.search.drive import Driver
from leancnn.search.space import architectures
from leancnn.search.study import Study
from leancnn.weights import load

NETWORKS = ("resnet8", "shufflenet_r3")
SIDE = 16
RUNGS = (1, 2)


def kept(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """Searches with limits drawn between the fastest and the slowest program of the space."""
    known: dict[str, Any] = {"networks": NETWORKS, "sizes": [(SIDE, SIDE)]}
    times = sorted(one.microseconds for one in can_meet(Budget(), progress=True, **known).found)
    draw, rows = random.Random(asked.seed), []
    lengths.seconds_per_epoch = cpu_seconds_per_epoch
    torch.set_num_threads(1)
    for number in range(asked.searches):
        limit = times[0] * (times[-1] / times[0]) ** draw.uniform(0.05, 0.95)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_one(number, limit, Path(folder) / "search", asked.seconds, known))
        print(rows[-1], flush=True)
    won = [row for row in rows if row["µs"] is not None]
    over = [row["again"] / row["limit"] - 1 for row in won]
    publish(
        "kept",
        f"{asked.searches} small searches, each by a limit of time of its own",
        [
            {
                "searches": len(rows),
                "with a winner": len(won),
                "kept": sum(row["upper µs"] <= row["limit"] for row in won),
                "kept when measured again": sum(row["again"] <= row["limit"] for row in won),
                "over at most %": round(100 * max([0.0, *over]), 1),
                "winners in integers": sum(row["integers"] for row in won),
            }
        ],
        f"digits at {SIDE}×{SIDE}, {', '.join(NETWORKS)}, {asked.seconds:g} CPU seconds of "
        f"training each; limits from {times[0]:.0f} to {times[-1]:.0f} µs, drawn by seed "
        f"{asked.seed}; kept: the upper quartile of the program's time, as the search has it; "
        "again: the median of another measurement afterwards; a search without a winner says so",
    )


def _one(
    number: int, limit: float, folder: Path, seconds: float, known: dict[str, Any]
) -> dict[str, Any]:
    pool = Here()
    row: dict[str, Any] = {"search": number, "limit": limit, "µs": None}
    try:
        found = search(
            "digits",
            out=folder,
            hours=seconds / 3600,
            budget=Budget(microseconds=limit),
            epochs=1,
            seed=number,
            pool=pool,
            clock=pool.clock,
            progress=False,
            **known,
        )
    except StoppedError:
        raise
    except LeanCNNError as error:
        return {**row, "why": str(error)}
    if (winner := found.winner) is None:
        return {**row, "why": found.sentence}
    (again,), _ = bench([load(folder / "winner")], engines=("c",), rounds=12, seconds=0.05)
    return {
        **row,
        "network": winner.network,
        "µs": winner.microseconds,
        "upper µs": winner.high_us,
        "again": again.median_us,
        "integers": winner.form == "int8",
    }


def workers(asked: argparse.Namespace, publish: Callable[..., None]) -> None:
    """The same seconds on one Ray worker and on two."""
    from search import stub_plan

    from leancnn.search.ray_pool import RayPool

    some = list(architectures(classes=10, channels=3, sizes=[(16, 16)], only=["resnet8"]))
    found = tuple(Candidate(one, one.macs / 1e4) for one in some)
    rows: list[dict[str, Any]] = []
    for many in (1, 2):
        plan = stub_plan(found=found, rungs=RUNGS)
        with tempfile.TemporaryDirectory() as name:
            pool = RayPool("local", many)
            study = Study(Path(name) / "study.journal", found, plan.rungs)
            driver = Driver(plan, Path(name), study, pool, seconds=asked.seconds)
            began = time.monotonic()
            try:
                driver.run()
            finally:
                pool.close()
            trials = study.trials()
        row: dict[str, Any] = {"workers": many, "seconds": round(time.monotonic() - began, 1)}
        row |= {
            "trials": sum(bool(one.accuracies) for one in trials),
            "rungs": sum(len(one.accuracies) for one in trials),
        }
        rows.append({**row, "times": round(row["rungs"] / max(1, (rows or [row])[0]["rungs"]), 2)})
        print(rows[-1], flush=True)
    publish(
        "workers",
        "Searches of the same seconds on Ray workers of one machine",
        rows,
        "resnet8 of five widths on digits at 16×16, rungs of 1 and 2 epochs; the driver and Ray's "
        "own processes have no core of their own; bar: 1.8 times",
    )
