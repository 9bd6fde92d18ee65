"""What a search ends with in one sentence: reached, or the nearest and what it would take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leancnn.search.budget import Budget, Form, amount
from leancnn.search.plan import SearchPlan
from leancnn.search.study import Trial

FEW = 3  # networks that a trend of accuracy needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network of the front: what was measured of it.

    >>> times = {"microseconds": 80.0, "low_us": 79.0, "high_us": 82.0, "predicted_us": 81.0}
    >>> known = {"trial": 3, "network": "resnet8", "change": "", "epochs": 9, "disturbed": ()}
    >>> one = Member(**known, **times, bytes=309_000, macs=12_000_000, val_accuracy=0.9)
    >>> one.keeps(Budget(microseconds=82)), one.keeps(Budget(microseconds=81))
    (True, False)
    """

    trial: int
    network: str
    """With its arguments and image size, for people."""
    change: str
    """Of the recipe, for people."""
    epochs: int
    val_accuracy: float
    microseconds: float
    """Median of the rounds, as low and high are their quartiles."""
    low_us: float
    high_us: float
    predicted_us: float | None
    """What the latency model had said; None for another form than the one that was searched."""
    bytes: int
    macs: int
    disturbed: tuple[str, ...]
    """Why the measurement may be off."""
    test_accuracy: float | None = None
    """None where there is no test part."""
    test_low: float | None = None
    """Lower end of its 95 % interval, as `test_high` the upper."""
    test_high: float | None = None
    form: Form = "float32"

    def keeps(self, budget: Budget) -> bool:
        """Whether it costs no more than it may: its time with the upper end of its interval."""
        has = {"microseconds": self.high_us, "bytes": self.bytes, "macs": self.macs}
        return all(has[name] <= limit for name, limit in budget.costs().items())

    @property
    def optimism(self) -> float | None:
        """By how much validation promised more than the test part showed."""
        return None if self.test_accuracy is None else self.val_accuracy - self.test_accuracy


def say(
    plan: SearchPlan,
    members: Sequence[Member],
    winner: Member | None,
    *,
    reached: bool,
    trials: Sequence[Trial],
) -> str:
    """One sentence: reached, or what is nearest and what it would take."""
    budget = plan.budget
    if winner is None:
        nearest = min(members, key=lambda one: _excess(one, budget))
        over = ", ".join(
            f"{amount(name, has)} where {amount(name, limit)} are allowed"
            for name, has, limit in _over(nearest, budget)
        )
        return (
            f"not reachable in this time: measured as a program, nothing keeps {budget}; the "
            f"nearest is {nearest.network} with {over}; it would take that much, or more --hours"
        )
    what = f"{winner.network} with {winner.val_accuracy:.2%} of the validation images correct"
    cost = (
        f"{winner.microseconds:.1f} µs ({winner.low_us:.1f} to {winner.high_us:.1f}), "
        f"{amount('bytes', winner.bytes)}, {amount('macs', winner.macs)}"
    )
    tested = _of_test(winner)
    again = sum(one.predicted_us is None for one in members)  # of the front, in integers too
    many = f"the best of {len(trials) + again} that were compared"
    if reached:
        return f"reached: {what}, {cost}; {many}{tested}"
    (trial,) = (one for one in trials if one.number == winner.trial)
    takes = _takes(plan, winner, members, plan.epochs(trial.candidate)[-1])
    return (
        f"not reachable in this time: the nearest is {what}, where {budget.accuracy:.2%} are "
        f"asked, {cost}; {many}{tested}; {takes}"
    )


def _of_test(winner: Member) -> str:
    if winner.test_accuracy is None or winner.optimism is None:
        return "; there is no test part to say how it does on images that chose nothing"
    return (
        f"; on the test part {winner.test_accuracy:.2%} (95 % interval {winner.test_low:.2%} to "
        f"{winner.test_high:.2%}), so validation was {abs(winner.optimism):.2%} too "
        f"{'high' if winner.optimism >= 0 else 'low'}"
    )


def _over(one: Member, budget: Budget) -> list[tuple[str, float, float]]:
    has: Mapping[str, float] = {
        "microseconds": one.high_us,
        "bytes": one.bytes,
        "macs": one.macs,
    }
    limits = budget.costs().items()
    return [(name, has[name], limit) for name, limit in limits if has[name] > limit]


def _excess(one: Member, budget: Budget) -> float:
    return max((has / limit for _, has, limit in _over(one, budget)), default=0.0)


def _takes(plan: SearchPlan, winner: Member, members: Sequence[Member], whole: int) -> str:
    """What would bring the accuracy that was asked for, as far as the trials tell; `whole` are the
    epochs of the winner's whole training."""
    words = []
    if winner.epochs < whole:
        words.append(f"it was trained for {winner.epochs} epochs of {whole}")
    if needed := trend(members, plan.budget.accuracy or 1.0):
        words.append(
            f"by the trend of the front it would take about {amount('microseconds', needed)}"
        )
    words.append("more --hours, more images or a larger budget")
    return "; ".join(words)


def trend(members: Sequence[Member], accuracy: float) -> float | None:
    """Microseconds at which networks would be so accurate, as their errors fall along the front.

    The logarithm of the error as a line over that of the time: an extrapolation, and never far;
    None where there are too few networks, errors do not fall, or it leads beyond tenfold.
    """
    points = [
        (math.log(one.microseconds), math.log(max(1e-4, 1 - one.val_accuracy))) for one in members
    ]
    if len(points) < FEW or accuracy >= 1:
        return None
    times, wrong = np.array(points).T
    if np.ptp(times) < 0.1:
        return None
    slope, at = np.polyfit(times, wrong, 1)
    if slope >= -0.02:
        return None
    needed = math.exp((math.log(1 - accuracy) - at) / slope)
    return float(needed) if needed <= 10 * math.exp(times.max()) else None
