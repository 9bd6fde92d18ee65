"""How far a wide network is cut: the widest cut that keeps every limit of a budget.

Counts fall steadily with the channels that stay, and one limit of counts is met exactly. The time
that the latency model foresees falls in its own way, for a program of a few channels less may lay
them out anew: so cuts are tried from both sides until one costs nearly what it may.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from leancnn.channels.remove import Keep
from leancnn.compiler.cycles import cycles
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.errors import MismatchError
from leancnn.prune.budget import Candidates
from leancnn.prune.goal import Goal
from leancnn.prune.planning import within_budget
from leancnn.search.budget import Budget, Candidate
from leancnn.search.programs import lowered, price
from leancnn.search.space import Architecture

Costs = dict[str, float]
"""Of a network: microseconds as foreseen, bytes, macs."""
CLOSE = 0.97  # of a limit: a cut that costs so much is wide enough
AIM = 0.985  # of a limit, that the next cut is to cost
TRIES = 16  # cuts, each between those before that were too wide and too narrow
GUESSED = 4  # of them by proportion; the rest halve what is between
STEP = 1.004  # times the multiply-accumulates: below that there is no other cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """To what a wide network is pruned, and by which clock; plain JSON values."""

    budget: Mapping[str, float]
    """Limits, as `Budget.costs`."""
    microseconds: float
    """Of the whole network, as predicted."""
    factors: Mapping[str, float]
    """Microseconds of a cycle, by kind of kernel."""

    @classmethod
    def of(cls, one: Candidate, budget: Budget, factors: Mapping[str, float]) -> "Cut":
        """What a candidate is cut to."""
        whole = one.microseconds / one.share
        return cls(budget=budget.costs(), microseconds=whole, factors=dict(factors))

    def times(self, costs: Mapping[str, float]) -> float:
        """How many times the budget something costs, by that limit which it misses most.

        >>> cut = Cut(budget={"macs": 2e6, "bytes": 100.0}, microseconds=1.0, factors={})
        >>> cut.times({"macs": 1e6, "bytes": 300.0})
        3.0
        """
        return max(costs[name] / most for name, most in self.budget.items())

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Pricing:
    """What cuts of a network cost, counted and foreseen."""

    cuts: Candidates
    architecture: Architecture
    asked: Cut
    _known: dict[bytes, Costs] = field(default_factory=dict)
    _whole: float = 0.0

    def costs(self, keep: Keep) -> Costs:
        """Of one cut. Its time is in proportion to that of the whole network."""
        key = keep.tobytes()
        if key not in self._known:
            counted = self.cuts.cost(keep)
            found = {"macs": float(counted.macs), "bytes": float(counted.bytes)}
            if self.asked.factors:
                found["microseconds"] = self._microseconds(keep)
            self._known[key] = found
        return self._known[key]

    def _microseconds(self, keep: Keep) -> float:
        preprocessing = self.cuts.network.preprocessing
        image = (preprocessing.channels, *preprocessing.size)
        program = schedule(lower(simplify(trace_torch(self.cuts.cut(keep), image))))
        factors = self.asked.factors
        self._whole = self._whole or price(factors, cycles(lowered(self.architecture)))
        return self.asked.microseconds * price(factors, cycles(program)) / self._whole


def widest(pricing: Pricing) -> tuple[Goal, Costs]:
    """The goal of the widest cut that keeps every limit, and what that cut costs.

    Raises `MismatchError` where none does.
    """
    asked, architecture = pricing.asked, pricing.architecture
    whole = {"macs": float(architecture.macs), "bytes": float(architecture.bytes)}
    whole["microseconds"] = asked.microseconds
    worst = max(asked.budget, key=lambda name: whole[name] / asked.budget[name])
    if worst != "microseconds":
        goal = Goal(worst, asked.budget[worst])
        costs = pricing.costs(within_budget(pricing.cuts, goal).keep)
        if asked.times(costs) <= 1:
            return goal, costs
    return _between(pricing, AIM * whole["macs"] / asked.times(whole))


def _between(pricing: Pricing, guess: float) -> tuple[Goal, Costs]:
    """The same by cuts to so many multiply-accumulates, more and fewer."""
    asked, cuts = pricing.asked, pricing.cuts
    least = cuts.cost(cuts.keep(0.0)).macs
    low, high = float(least), float(pricing.architecture.macs)
    found: tuple[Goal, Costs] | None = None
    for number in range(TRIES):
        last = found is None and number == TRIES - 1
        goal = Goal("macs", least if last else max(guess, least))
        costs = pricing.costs(within_budget(cuts, goal).keep)
        times = asked.times(costs)
        if times <= 1:
            found = goal, costs
            low = max(low, goal.value)  # what costs less than that is no wider
            if times >= CLOSE:
                break
        else:
            high = min(high, costs["macs"])
        if high <= STEP * low:
            break
        guess = costs["macs"] * AIM / times
        if number >= GUESSED or not low < guess < high:
            guess = math.sqrt(low * high)
    if found is None:
        limits = " and ".join(f"{name} {most:g}" for name, most in asked.budget.items())
        raise MismatchError(f"no cut brings {cuts.network.name} to {limits}")
    return found
