"""Begin a search, or go on with one."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from leancnn import runs
from leancnn.errors import StoppedError
from leancnn.progress import LiveTable, tell
from leancnn.search.budget import Budget, amount
from leancnn.search.drive import Driver, front
from leancnn.search.feasible import can_meet, other_forms, whole
from leancnn.search.lengths import HOUR
from leancnn.search.measured import too_slow
from leancnn.search.plan import (
    FILE,
    SearchPlan,
    check_disk,
    check_hours,
    check_no_other,
    disk,
)
from leancnn.search.pool import LocalPool, Pool
from leancnn.search.request import SearchRequest, images
from leancnn.search.result import SearchResult, conclude
from leancnn.search.space import Size
from leancnn.search.study import Study
from leancnn.tables import table
from leancnn.train.estimate import duration
from leancnn.training_data import check_place

JOURNAL = "study.journal"


def search(
    data: str | Path,
    *,
    out: str | Path,
    hours: float,
    budget: Budget | None = None,
    networks: Sequence[str] | None = None,
    sizes: Sequence[Size] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    val_share: float | None = None,
    integers: bool = True,
    clock_on: str | None = None,
    pruning: bool = True,
    pool: Pool | None = None,
    clock: Callable[[], float] = time.monotonic,
    progress: bool = True,
) -> SearchResult:
    """Find the most accurate network that keeps a budget, in so many hours of training.

    `hours` counts all calls together: the same call goes on after a stop or a kill, and a larger
    number lengthens a search that ended. `networks` and `sizes` narrow what is tried; `epochs` is
    the longest training of one network; without it the hours decide. `integers`: whether what is
    found may be a network of 8-bit integers; `pruning`: whether wide networks are pruned to the
    budget beside narrow ones that are trained. `clock_on` is a command that times C files on the
    machine whose time counts; None: this one. `pool` trains; None: a process for each core of this
    machine. `clock` tells the seconds by which hours are counted. Pricing before and measuring
    after take minutes more.

    The test part is opened once, for the front. Raises `StoppedError` after Ctrl-C, when all is
    kept; `RunError` for a folder that holds something else or another search, and for images that
    changed; `DataError`, `MismatchError`, `ArgumentError`, `WriteError` as their names say.

    >>> known = {"networks": ["resnet8"], "sizes": [(8, 8)], "epochs": 1, "val_share": 0.5}
    >>> known |= {"integers": False, "pruning": False, "budget": Budget(bytes=100_000)}
    >>> found = search("photos", out="runs/search", hours=0.001, **known)
    >>> found.winner.bytes <= 100_000
    True
    """
    check_hours(hours)
    request = SearchRequest.of(
        data,
        budget=budget,
        networks=networks,
        sizes=sizes,
        epochs=epochs,
        seed=seed,
        val_share=val_share,
        integers=integers,
        clock_on=clock_on,
        pruning=pruning,
    )
    folder = Path(out)
    check_place(folder, data)
    pool = LocalPool() if pool is None else pool
    with runs.Lock(folder):
        if (folder / FILE).exists():
            plan = _resumed(request, folder)
        else:
            plan = _begun(request, folder, hours, pool.size, progress)
        check_disk(folder, disk(plan.found, pool.size))
        return _drive(folder, plan, hours, pool, clock, progress)


def _resumed(request: SearchRequest, folder: Path) -> SearchPlan:
    """The plan of a folder. Raises `RunError` where it, or its images, are not those asked for."""
    plan = SearchPlan.read(folder)
    plan.check_same(request.to_json(), folder)
    plan.check_data(
        images(request.data, plan.found[0].architecture, request.val_share, request.seed)
    )
    return plan


def _begun(
    request: SearchRequest, folder: Path, hours: float, places: int, progress: bool
) -> SearchPlan:
    """A plan for an empty folder, written there. Raises as `search`."""
    check_no_other(folder)
    dataset = request.images()
    feasible = can_meet(
        request.budget,
        classes=len(dataset.classes),
        sizes=request.sizes,
        networks=request.networks,
        correct=True,
        integers=request.integers,
        clock_on=request.clock_on,
        pruning=request.pruning,
        progress=progress,
    )
    plan = SearchPlan.of(request, dataset, feasible, hours, places)
    if progress:
        tell(
            f"{whole(plan.found)} of {feasible.considered} architectures meet {plan.budget}"
            f"{other_forms(plan.found)}; "
            f"{feasible.latency_model}; trainings of {_trainings(plan)}, "
            f"{places} at a time; at most {amount('bytes', disk(plan.found, places))} of disk in "
            f"{folder}"
        )
    plan.write(folder)
    return SearchPlan.read(folder)  # to the digit what a later call goes on with


def _trainings(plan: SearchPlan) -> str:
    """How long networks are trained, and when they are compared, for people."""
    whole = sorted({plan.epochs(one)[-1] for one in plan.found})
    epochs = f"{whole[0]}" if len(whole) == 1 else f"{whole[0]} to {whole[-1]}"
    parts = [f"1/{plan.rungs[-1] // part}" for part in plan.rungs[:-1]]
    return f"{epochs} epochs" + (f", compared after {' and '.join(parts)}" if parts else "")


def _drive(
    folder: Path,
    plan: SearchPlan,
    hours: float,
    pool: Pool,
    clock: Callable[[], float],
    progress: bool,
) -> SearchResult:
    study = Study(folder / JOURNAL, plan.found, plan.rungs, plan.seed, plan.epochs)
    with LiveTable(f"search in {folder}", shown=progress) as live:
        driver = Driver(plan, folder, study, pool, hours * HOUR, clock=clock)
        driver.look = lambda one: live.show(*status(one))
        driver.too_slow = partial(too_slow, folder, plan)
        try:
            ended = driver.run()
        finally:
            pool.close()
        if not ended:
            raise StoppedError(
                f"stopped after {duration(study.spent)} of {duration(hours * HOUR)}, all kept in "
                f"{folder}; the same command goes on"
            )
    return conclude(folder, plan, study, study.spent, progress=progress)


def status(driver: Driver) -> tuple[str, str]:
    """A search at a glance: a line, and a table of the trials at work and on the front."""
    trials = driver.study.trials()
    best = front(trials)
    ended = sum(one.state != "running" for one in trials)
    at_work = [one for one in trials if one.number in driver.running]
    top = f"{best[0].accuracy:.2%} by {best[0].candidate.title}" if best else "none yet"
    line = f"{ended} done, {len(at_work)} running, best {top}, {duration(driver.left)} to go"
    rows = [
        {
            "trial": one.number,
            "network": one.candidate.title,
            "recipe": str(one.change) or "its own",
            "epochs": one.epochs,
            "validation": "–" if one.accuracy is None else f"{one.accuracy:.2%}",
            "µs": f"{one.microseconds:.1f}",
            "bytes": one.bytes,
            "": "running" if one.state == "running" else "front",
        }
        for one in [*at_work, *(each for each in best if each not in at_work)]
    ]
    return line, table(rows)
