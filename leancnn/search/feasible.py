"""Which architectures meet a budget on this machine, none of them trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leancnn.search.budget import Budget, Candidate, within
from leancnn.search.latency_model import LatencyModel, load_or_fit
from leancnn.search.programs import measured, predicted_cycles
from leancnn.search.space import Architecture, Size, architectures
from leancnn.tables import table

MARGIN = 1.25  # times the fastest program of the latency model: none is faster for its work
NEAR = 2.0  # times the limit: further away nothing is timed to correct the model
LARGEST = 2**27  # bytes of weights; the C compiler takes a dozen times as much memory


@dataclass(frozen=True, slots=True)
class Feasible:
    """The architectures that meet a budget, and by what their times were predicted."""

    latency_model: LatencyModel
    found: tuple[Candidate, ...]
    """The cheapest first."""
    considered: int
    """Architectures that were looked at."""

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
    correct: bool = False,
    progress: bool = False,
) -> Feasible:
    """Find which networks of the zoo meet a budget on this machine, without training one.

    `sizes` of the images; None: those of each network's card, and a few more. With `correct` one
    program of each network is timed, and the network's times follow it. The first call on a machine
    times a few programs for a minute or two. Raises `MismatchError` where nothing meets the budget,
    naming the limit and what comes nearest; `ArgumentError` for limits that nothing could mean;
    `UnknownNameError` for a network.

        can_meet(Budget(microseconds=150), sizes=[(31, 31)])
    """
    budget.check(classes)
    every = list(architectures(classes=classes, channels=channels, sizes=sizes, only=networks))
    model = load_or_fit(progress=progress)
    priced = _candidates(every, budget, model, progress)
    found = within(priced, budget)
    if correct and budget.microseconds is not None:
        found = within(corrected(priced, budget.microseconds, progress=progress), budget)
    return Feasible(model, tuple(found), len(every))


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
    cycles = predicted_cycles(able, progress=progress)
    return [Candidate(one, model.predict(cycles[one.key])) for one in able if one.key in cycles]


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
