"""Which architectures meet a budget on this machine, none of them trained."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from leancnn.search.budget import Budget, Candidate, either
from leancnn.search.integers import as_integers, ratios
from leancnn.search.latency_model import LatencyModel, load_or_fit
from leancnn.search.programs import measured, predicted_cycles
from leancnn.search.pruning import MOST, can_be_cut, to_prune
from leancnn.search.remote import RemoteTimer
from leancnn.search.space import Architecture, Size, architectures
from leancnn.tables import table

MARGIN = 1.25  # times the fastest program of the latency model: none is faster for its work
NEAR = 2.0  # times the limit: further away nothing is timed to correct the model
LARGEST = 2**27  # bytes of weights; the C compiler takes a dozen times as much memory


@dataclass(frozen=True, slots=True)
class Feasible:
    """The architectures that meet a budget, and by what their times were predicted.

    >>> answer = can_meet(Budget(bytes=400_000), networks=["resnet8"], sizes=[(32, 32)])
    >>> {one.architecture.network for one in answer.found}
    {'resnet8'}
    """

    latency_model: LatencyModel
    found: tuple[Candidate, ...]
    """The cheapest first."""
    considered: int
    """Architectures that were looked at."""

    def by_network(self) -> list[Candidate]:
        """Of each network, in each form, the costliest architecture that fits; the costliest
        first."""
        best = {_network_and_form(one): one for one in self.found}
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
        many = Counter(map(_network_and_form, self.found))
        rows = [
            {
                "network": one.architecture.network,
                "architectures that fit": many[_network_and_form(one)],
                "the largest": one.title,
                "µs": f"{one.microseconds:.1f}",
                "bytes": one.bytes,
                "MACs": one.macs,
            }
            for one in self.by_network()
        ]
        count = f"{whole(self.found)} of {self.considered} architectures meet the budget"
        return f"{table(rows)}\n\n{count}{other_forms(self.found)}; {self.latency_model}"


def _network_and_form(one: Candidate) -> tuple[str, str]:
    return one.architecture.network, one.form


def whole(found: Sequence[Candidate]) -> int:
    """How many meet a budget without being pruned."""
    return sum(one.form != "pruned" for one in found)


def other_forms(found: Sequence[Candidate]) -> str:
    """How many of those that meet a budget do so in another form than floats; empty for none."""
    integers = sum(one.form == "int8" for one in found)
    pruned = sum(one.form == "pruned" for one in found)
    words = [f", {integers} of them in 8-bit integers alone"] if integers else []
    words += [f", and {pruned} more when pruned"] if pruned else []
    return "".join(words)


def can_meet(
    budget: Budget,
    *,
    classes: int = 10,
    channels: int = 3,
    sizes: Sequence[Size] | None = None,
    networks: Sequence[str] | None = None,
    correct: bool = False,
    integers: bool | None = None,
    clock_on: str | None = None,
    pruning: bool = False,
    progress: bool = False,
) -> Feasible:
    """Find which networks of the zoo meet a budget on this machine, without training one.

    `sizes` of the images; None: those of each network's card, and a few more. With `correct` one
    program of each network is timed, and the network's times follow it. What floats do not meet
    8-bit `integers` may; None: they are asked where no floats meet it. Where there is a limit of
    time a program of each network is timed for that, too. With `pruning` what costs up to four
    times the budget counts as well, one architecture of each network and size, to be pruned.
    `clock_on` is a command that times C on the machine that counts; None: this one. The first call
    on a machine times a few programs for a minute or two. Raises `MismatchError` where nothing
    meets the budget, naming the limit and what comes nearest; `ArgumentError` for limits that
    nothing could mean; `UnknownNameError` for a network; `RunError` for a command that times
    nothing.

    >>> answer = can_meet(Budget(bytes=400_000), networks=["resnet8"], sizes=[(32, 32)])
    >>> answer.found[0].bytes <= 400_000
    True
    """
    budget.check(classes)
    every = list(architectures(classes=classes, channels=channels, sizes=sizes, only=networks))
    on = None if clock_on is None else RemoteTimer(clock_on)
    model = load_or_fit(on, progress=progress)
    plain = floats = _candidates(every, budget, model, progress)
    if correct and budget.microseconds is not None:
        floats = corrected(floats, budget.microseconds, on, progress=progress)
    if integers is None:
        integers = not any(one.meets(budget) for one in floats)
    others = _in_integers(every, floats, budget, model, on, progress) if integers else []
    wide: list[Candidate] = []
    if pruning and budget.costs():
        off = {
            one.architecture.network: new.microseconds / one.microseconds
            for one, new in zip(plain, floats, strict=True)
        }
        wide = _to_prune(every, floats, off, budget, model, progress)
    return Feasible(model, tuple(either(floats, others, budget, wide)), len(every))


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
    return _predicted(able, model, progress)


def _predicted(
    some: Sequence[Architecture], model: LatencyModel, progress: bool
) -> list[Candidate]:
    cycles = predicted_cycles(some, progress=progress)
    return [Candidate(one, model.predict(cycles[one.key])) for one in some if one.key in cycles]


def _in_integers(
    every: Sequence[Architecture],
    floats: Sequence[Candidate],
    budget: Budget,
    model: LatencyModel,
    on: RemoteTimer | None,
    progress: bool,
) -> list[Candidate]:
    """With their times in integers, in proportion to those of `floats`; without those that their
    counts alone rule out."""
    most, limit = math.inf, budget.microseconds
    ratio: dict[str, float] = {}
    if limit is not None:
        timed = Budget(microseconds=limit, macs=budget.macs)  # what floats weigh is no matter here
        slow = floats if budget.bytes is None else _candidates(every, timed, model, progress)
        ratio = ratios(slow, limit, on, progress=progress)
        most = MARGIN * model.fastest * limit / min([1.0, *ratio.values()])
    able = [
        one
        for one in every
        if one.macs <= min(most, budget.macs or math.inf)
        and one.int8_bytes <= (budget.bytes or math.inf)
        and one.bytes <= LARGEST
    ]
    able = able or [one.architecture for one in floats]  # for the complaint, as with floats
    known = {one.architecture.key: one.microseconds for one in floats}
    found = _predicted(able, model, progress)
    off = {
        one.architecture.network: known[one.architecture.key] / one.microseconds
        for one in found
        if one.architecture.key in known
    }
    names = {one.architecture.network for one in found}
    return as_integers(found, {name: ratio.get(name, 1.0) * off.get(name, 1.0) for name in names})


def _to_prune(
    every: Sequence[Architecture],
    floats: Sequence[Candidate],
    off: Mapping[str, float],
    budget: Budget,
    model: LatencyModel,
    progress: bool,
) -> list[Candidate]:
    """What is pruned to the budget: chosen by counts and by the time of a network's work, which
    `floats` tell; then with its own time, `off` times what the model says."""
    limits = [(name, MOST * most) for name, most in budget.costs().items()]
    limits = [(name, most) for name, most in limits if name != "microseconds"]
    near = [one for one in every if all(getattr(one, name) <= most for name, most in limits)]
    pace: dict[str, float] = {}  # of each network's costliest
    for one in sorted(floats, key=lambda one: one.macs):
        pace[one.architecture.network] = one.microseconds / max(1, one.macs)
    least = {one.network: one for one in sorted(near, key=lambda one: -one.macs)}
    missing = [one for name, one in least.items() if name not in pace and one.bytes <= LARGEST]
    for candidate in _predicted(missing, model, progress):
        pace[candidate.architecture.network] = candidate.microseconds / max(1, candidate.macs)
    known = {one.architecture.key: one for one in floats}
    rough = [
        known.get(one.key) or Candidate(one, pace[one.network] * one.macs)
        for one in near
        if one.network in pace and one.bytes <= LARGEST
    ]
    able = partial(can_be_cut, budget=budget)
    chosen = {one.architecture.key for one in to_prune(rough, budget, able)}
    priced = _predicted([one for one in every if one.key in chosen], model, progress)
    exact = [
        replace(one, microseconds=one.microseconds * off.get(one.architecture.network, 1.0))
        for one in priced
    ]
    return to_prune(exact, budget)


def corrected(
    found: Sequence[Candidate],
    limit: float,
    on: RemoteTimer | None = None,
    *,
    progress: bool = False,
) -> list[Candidate]:
    """The same with the times of each network in proportion to one of its programs, timed now.

    Errors of the latency model are mostly those of a network's kind of layers. What is timed is the
    architecture of each network that is nearest to the limit, in microseconds.
    """
    near: dict[str, Candidate] = {}
    for one in sorted(found, key=lambda one: abs(math.log(one.microseconds / limit))):
        if 1 / NEAR <= one.microseconds / limit <= NEAR:
            near.setdefault(one.architecture.network, one)
    times = measured([one.architecture for one in near.values()], on=on, progress=progress)
    ratio = {
        name: times[one.architecture.key] / one.microseconds
        for name, one in near.items()
        if one.architecture.key in times
    }
    return [
        Candidate(one.architecture, one.microseconds * ratio.get(one.architecture.network, 1.0))
        for one in found
    ]
