"""The one clock: calls in short turns, warmed up, told by their median; ratios turn by turn.

Whatever is compared takes turns, so that what disturbs the machine disturbs all, and only turns of
one round are set in proportion.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

Call = Callable[[], Any]
Key = TypeVar("Key", bound=Hashable)


def turn(call: Call, seconds: float, *, least: int = 1, warm_up: int = 0) -> list[float]:
    """Seconds of each call of one turn: at least so many calls, and as many as begin in its time.

    >>> len(turn(lambda: None, seconds=0, least=3))
    3
    """
    for _ in range(warm_up):
        call()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def in_turns(
    calls: Mapping[Key, Call], rounds: int, seconds: float, *, least: int = 1, warm_up: int = 0
) -> dict[Key, list[list[float]]]:
    """For each call the seconds of its calls, turn by turn; they take turns in rounds."""
    found: dict[Key, list[list[float]]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            found[key].append(turn(call, seconds, least=least, warm_up=warm_up))
    return found


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """The median of each turn."""
    return [float(np.median(calls)) for calls in turns]


class Ratio(NamedTuple):
    """How many times faster, over the rounds."""

    median: float
    low: float
    """The lower quartile."""
    high: float


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How often one answers while the other, of the same rounds, answers once.

    Raises `ValueError` for other rounds.

    >>> times_faster([1.0, 2.0, 1.0], [2.0, 4.0, 3.0]).median
    2.0
    """
    each = [other / own for own, other in zip(ours, theirs, strict=True)]
    low, middle, high = np.percentile(each, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high))
