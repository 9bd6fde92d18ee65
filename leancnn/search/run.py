"""Budget in, network out: begin a search or go on with one, and what can meet a budget at all."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancnn import runs
from leancnn.data import Dataset, names, recognise
from leancnn.errors import StoppedError, UsageError
from leancnn.models import card
from leancnn.progress import LiveTable, tell
from leancnn.search.budget import Budget, Candidate, amount, within
from leancnn.search.drive import Driver, front
from leancnn.search.latency_model import LatencyModel, load_or_fit
from leancnn.search.plan import (
    FILE,
    HOUR,
    SHORT,
    SearchPlan,
    check_disk,
    check_hours,
    check_no_other,
    disk,
    images,
    longest_training,
    middle,
    rungs,
    seconds_per_epoch,
    trainable,
)
from leancnn.search.pool import LocalPool, Pool
from leancnn.search.programs import measured, predicted_cycles
from leancnn.search.result import SearchResult, conclude
from leancnn.search.space import Architecture, architectures, searched
from leancnn.search.study import Study
from leancnn.tables import table
from leancnn.train.estimate import duration
from leancnn.training_data import LARGEST_SEED, check_place

JOURNAL = "study.journal"
MARGIN = 1.25  # times the fastest program of the latency model: none is faster for its work
NEAR = 2.0  # times the limit: further away nothing is timed to correct the model
LARGEST = 2**27  # bytes of weights; the C compiler takes a dozen times as much memory
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Feasible:
    """Which architectures meet a budget, by the latency model alone."""

    latency_model: LatencyModel
    found: tuple[Candidate, ...]
    """The cheapest first."""
    considered: int
    """Shapes that were looked at."""

    def by_network(self) -> list[Candidate]:
        """Of each network the costliest architecture that fits, the costliest first."""
        best = {one.architecture.network: one for one in self.found}
        return sorted(best.values(), key=lambda one: -one.microseconds)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "latency_model": self.latency_model.to_json(),
            "considered": self.considered,
            "found": [one.to_json() for one in self.found],
        }

    def text(self) -> str:
        """The answer for people."""
        many = dict.fromkeys((one.architecture.network for one in self.found), 0)
        for one in self.found:
            many[one.architecture.network] += 1
        rows = [
            {
                "network": one.architecture.network,
                "architectures that fit": many[one.architecture.network],
                "the largest": one.architecture.title,
                "µs": f"{one.microseconds:.1f}",
                "bytes": one.bytes,
                "MACs": one.macs,
            }
            for one in self.by_network()
        ]
        count = f"{len(self.found)} of {self.considered} architectures meet the budget"
        return f"{table(rows)}\n\n{count}; {self.latency_model}"


def can_meet(
    budget: Budget,
    *,
    classes: int = 10,
    channels: int = 3,
    sizes: Sequence[Size] | None = None,
    networks: Sequence[str] | None = None,
    progress: bool = False,
) -> Feasible:
    """Which networks of the zoo meet a budget on this machine, without training or compiling one.

    `sizes` of the images; None: those of each network's card, and a few more. The first call on a
    machine times a few programs for a minute or two. Raises `MismatchError` where nothing meets the
    budget, naming the limit and what comes nearest; `ArgumentError` for limits that nothing could
    mean; `UnknownNameError` for a network.

        can_meet(Budget(microseconds=150), sizes=[(31, 31)])
    """
    budget.check(classes)
    every = _every(classes, channels, sizes, networks)
    model = load_or_fit(progress=progress)
    priced = _candidates(every, budget, model, progress)
    return Feasible(model, tuple(within(priced, budget)), len(every))


def _every(
    classes: int, channels: int, sizes: Sequence[Size] | None, networks: Sequence[str] | None
) -> list[Architecture]:
    for name in networks or ():
        card(name)
        if name not in searched():
            of_one = ", ".join(searched())
            raise UsageError(f"{name} is searched under another name; there are: {of_one}")
    return list(architectures(classes=classes, channels=channels, sizes=sizes, only=networks))


def _candidates(
    every: Sequence[Architecture], budget: Budget, model: LatencyModel, progress: bool
) -> list[Candidate]:
    """With their times; without those that their counts alone rule out."""
    limits = {key: limit for key, limit in budget.costs().items() if key != "microseconds"}
    able = [one for one in every if all(getattr(one, key) <= v for key, v in limits.items())]
    if budget.microseconds is not None:
        most = MARGIN * model.fastest * budget.microseconds
        able = [one for one in able if one.macs <= most]
    # where nothing is left, all are priced, so that the complaint can name what comes nearest
    able = able or [one for one in every if one.bytes <= LARGEST]
    table = predicted_cycles(able, progress=progress)
    return [Candidate(one, model.predict(table[one.key])) for one in able if one.key in table]


def corrected(
    found: Sequence[Candidate], limit: float, *, progress: bool = False
) -> list[Candidate]:
    """The same with the times of each network in proportion to one of its programs, timed now.

    Errors of the latency model are mostly those of a network's kind of layers. What is timed is the
    architecture of each network that is nearest to the limit, in microseconds.
    """
    near: dict[str, Candidate] = {}
    for one in sorted(found, key=lambda one: abs(math.log(one.microseconds / limit))):
        if 1 / NEAR <= one.microseconds / limit <= NEAR:
            near.setdefault(one.architecture.network, one)
    times = measured([one.architecture for one in near.values()], progress=progress)
    ratio = {
        name: times[one.architecture.key] / one.microseconds
        for name, one in near.items()
        if one.architecture.key in times
    }
    return [
        Candidate(one.architecture, one.microseconds * ratio.get(one.architecture.network, 1.0))
        for one in found
    ]


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
    pool: Pool | None = None,
    clock: Callable[[], float] = time.monotonic,
    progress: bool = True,
) -> SearchResult:
    """Find the most accurate network that keeps a budget, in so many hours of training.

    `hours` counts all calls together: the same call goes on after a stop or a kill, and a larger
    number lengthens a search that ended. `networks` and `sizes` narrow what is tried; `epochs` is
    the longest training of one network; without it the hours decide. `pool` trains; None: a process
    for each core of this machine. `clock` tells the seconds by which hours are counted. Pricing
    before and measuring after take minutes more.

    The test part is opened once, for the front. Raises `StoppedError` after Ctrl-C, when all is
    kept; `RunError` for a folder that holds something else or another search, and for images that
    changed; `DataError`, `MismatchError`, `ArgumentError`, `WriteError` as their names say.

        search("photos/", out="runs/search", hours=2, budget=Budget(microseconds=150))
    """
    budget, folder = budget or Budget(), Path(out)
    check_hours(hours)
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"a seed is 0 to {LARGEST_SEED}, not {seed}")
    recognise(data)
    check_place(folder, data)
    data = str(data) if str(data) in names() else str(Path(data).resolve())
    pool = LocalPool() if pool is None else pool
    asked = {
        "networks": None if networks is None else list(networks),
        "sizes": None if sizes is None else [list(size) for size in sizes],
        "epochs": epochs,
    }
    with runs.Lock(folder):
        if (folder / FILE).exists():
            plan = SearchPlan.read(folder)
            given = {"data": data, "budget": budget.to_json(), "seed": seed}
            plan.check_same({**given, "val_share": val_share, **asked}, folder)
            plan.check_data(images(data, plan.found[0].architecture, val_share, seed))
        else:
            check_no_other(folder)
            plan = _planned(data, budget, hours, asked, seed, val_share, folder, pool, progress)
            plan.write(folder)
        check_disk(folder, disk(plan.found, pool.size))
        return _drive(folder, plan, hours, pool, clock, progress)


def _planned(
    data: str,
    budget: Budget,
    hours: float,
    asked: dict[str, Any],
    seed: int,
    val_share: float | None,
    folder: Path,
    pool: Pool,
    progress: bool,
) -> SearchPlan:
    """Price the space, see the images, decide the rungs."""
    dataset = _first_images(data, asked, val_share, seed)
    classes = len(dataset.classes)
    budget.check(classes)
    every = _every(
        classes, 3, asked["sizes"] and [tuple(s) for s in asked["sizes"]], asked["networks"]
    )
    model = load_or_fit(progress=progress)
    priced = _candidates(every, budget, model, progress)
    found = within(priced, budget)
    if budget.microseconds is not None:
        found = within(corrected(priced, budget.microseconds, progress=progress), budget)
    train = 0 if dataset.train is None else len(dataset.train)
    longest = asked["epochs"] or longest_training(found)
    some = middle(found)
    rate = seconds_per_epoch(some, train) / some.macs
    found = trainable(found, hours, rate, min(longest, SHORT))
    per_epoch = rate * middle(found).macs
    plan = SearchPlan(
        data=data,
        data_sha256=dict(dataset.manifest["sha256"]),
        classes=dataset.classes,
        images=train,
        val_images=0 if dataset.val is None else len(dataset.val),
        val_share=val_share,
        budget=budget,
        asked=asked,
        seed=seed,
        rungs=rungs(hours, pool.size, per_epoch, longest),
        found=tuple(found),
        latency_model=model.to_json(),
        machine=runs.machine(),
        tested="test" in dataset.manifest["parts"],
    )
    if progress:
        tell(
            f"{len(found)} of {len(every)} architectures meet {budget}; {model}; trainings of "
            f"{', '.join(map(str, plan.rungs))} epochs, {pool.size} at a time; at most "
            f"{amount('bytes', disk(plan.found, pool.size))} of disk in {folder}"
        )
    return plan


def _first_images(data: str, asked: dict[str, Any], val_share: float | None, seed: int) -> Dataset:
    """The images, as the first network takes them that is asked for."""
    name = (asked["networks"] or list(searched()))[0]
    height, width = (asked["sizes"] or [card(name).image[1:]])[0]
    architecture = Architecture(
        network=name,
        arguments={},
        size=(height, width),
        channels=3,
        classes=2,
        macs=0,
        bytes=0,
    )
    return images(data, architecture, val_share, seed)


def _drive(
    folder: Path,
    plan: SearchPlan,
    hours: float,
    pool: Pool,
    clock: Callable[[], float],
    progress: bool,
) -> SearchResult:
    study = Study(folder / JOURNAL, plan.found, plan.rungs, plan.seed)
    with LiveTable(f"search in {folder}", shown=progress) as live:
        driver = Driver(plan, folder, study, pool, hours * HOUR, clock=clock)
        driver.look = lambda one: live.show(*status(one))
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
    top = (
        f"{best[0].accuracy:.2%} by {best[0].candidate.architecture.title}" if best else "none yet"
    )
    line = f"{ended} done, {len(at_work)} running, best {top}, {duration(driver.left)} to go"
    rows = [
        {
            "trial": one.number,
            "network": one.candidate.architecture.title,
            "recipe": str(one.change) or "its own",
            "epochs": one.epochs,
            "validation": "–" if one.accuracy is None else f"{one.accuracy:.2%}",
            "µs": f"{one.candidate.microseconds:.1f}",
            "bytes": one.candidate.bytes,
            "": "running" if one.state == "running" else "front",
        }
        for one in [*at_work, *(each for each in best if each not in at_work)]
    ]
    return line, table(rows)
