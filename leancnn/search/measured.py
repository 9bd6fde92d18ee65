"""What a trial's network takes as a real program, on the machine whose time counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leancnn import weights
from leancnn.bench import bench
from leancnn.errors import LeanCNNError
from leancnn.runs import Which
from leancnn.search.budget import Form, amount
from leancnn.search.drive import place
from leancnn.search.plan import SearchPlan
from leancnn.search.pruning import pruned_at
from leancnn.search.remote import RemoteTimer
from leancnn.search.study import Trial
from leancnn.search.trial import INT8, Outcome
from leancnn.targets._c_text import to_c
from leancnn.weights import Network

ROUNDS, SECONDS = 12, 0.05  # of one measurement


def saved(folder: Path, trial: int, epochs: int, form: Form) -> tuple[Path, Which | None]:
    """Where a network of the front lies, as `weights.load` takes it."""
    run = place(folder, trial)
    if form == "int8":
        return run / INT8, None
    return (pruned_at(run, epochs) if form == "pruned" else run), "best"


def is_saved(folder: Path, trial: Trial) -> bool:
    """Whether the weights of a trial are there, as far as its last rung that was reported."""
    where, which = saved(folder, trial.number, trial.epochs, trial.candidate.form)
    return (where if which is None else where / which).is_dir()


class Times(NamedTuple):
    """Of a program, in microseconds for one image.

    >>> times = Times((4.0, 1.0, 2.0))
    >>> times.least, times.low, times.median, times.high
    (1.0, 1.5, 2.0, 3.0)
    """

    turns: Sequence[float]
    """The median of each."""
    disturbed: tuple[str, ...] = ()

    @property
    def least(self) -> float:
        """Of all turns: whatever else the machine does only adds to a time."""
        return min(self.turns)

    @property
    def low(self) -> float:
        """The lower quartile, as `high` the upper."""
        return self._percentile(25)

    @property
    def median(self) -> float:
        return self._percentile(50)

    @property
    def high(self) -> float:
        return self._percentile(75)

    def _percentile(self, share: int) -> float:
        return round(float(np.percentile(self.turns, share)), 3)


def timed(network: Network, on: str | None) -> Times:
    """Measured as a program here, or by the command `on`. Raises `LeanCNNError`."""
    if on is not None:
        written = to_c(network)
        classes = len(network.classes)
        turns = RemoteTimer(on).seconds(
            written.source, written.prefix, network.preprocessing, classes
        )
        return Times([1e6 * turn for turn in turns])
    rows, missing = bench([network], engines=("c",), rounds=ROUNDS, seconds=SECONDS)
    if not rows:
        raise LeanCNNError(f"{network.name}: its program cannot be timed: {missing[0].reason}")
    (row,) = rows
    return Times(row.rounds_us, row.disturbed)


def too_slow(folder: Path, plan: SearchPlan, trial: Trial, rung: Outcome) -> str:
    """Why what a rung came to misses the budget's time, whatever it will learn; empty: it does not.

    It does where even the quickest of its rounds is above the limit. What cannot be timed now is
    left to the end.
    """
    limit = plan.budget.microseconds
    if limit is None:
        return ""
    where = saved(folder, trial.number, rung.epochs, trial.candidate.form)
    try:
        times = timed(weights.load(*where), plan.asked.get("clock_on"))
    except LeanCNNError:
        return ""
    if times.least <= limit:
        return ""
    has, most = amount("microseconds", times.least), amount("microseconds", limit)
    return f"its program takes {has} where {most} are allowed"
