"""The expansion of an inverse bottleneck as a goal: the LB-MBNet papers' r80 → r6."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from leancnn import models, weights
from leancnn.channels.sizes import Widths, widths_of
from leancnn.errors import MismatchError, UsageError
from leancnn.prune.goal import Goal
from leancnn.weights import Network


def expansion_of(network: Network) -> float:
    """What its name or its arguments say."""
    return float({**models.arguments(network.name), **network.arguments}["expansion"])


def with_expansion(network: Network, value: float) -> Widths:
    """The sizes of the same network with another expansion. Raises `MismatchError`."""
    arguments = {key: v for key, v in network.arguments.items() if key != "cut"}
    if "expansion" not in models.arguments(network.name) or value != int(value):
        raise MismatchError(
            f"{network.name} has no expansion of {value:g}; name a share of its channels, MACs, "
            "bytes or a speedup instead"
        )
    with torch.device("meta"):
        body = weights.build(
            network.name,
            {**arguments, "expansion": int(value)},
            len(network.classes),
            network.preprocessing,
        )
    sizes = widths_of(body)
    gone = widths_of(network.body).keys() ^ sizes.keys()
    if gone:
        raise MismatchError(f"that is another network, and no cut of this: {min(gone)}")
    return sizes


def goals_of(network: Network, schedule: Sequence[int]) -> list[Goal]:
    """The goals of a schedule that are ahead of the network. Raises `UsageError`, `MismatchError`.

    The first expansion may be that of the network.
    """
    if any(a <= b for a, b in pairwise(schedule)):
        raise UsageError(f"a schedule goes down, not {', '.join(map(str, schedule))}")
    for expansion in schedule:  # now, not when the steps before it have been trained
        with_expansion(network, expansion)
    begun = len(schedule) > 1 and schedule[0] == expansion_of(network)
    return [Goal("expansion", expansion) for expansion in schedule[begun:]]


def arguments_of(network: Network, goal: Goal, widths: Widths) -> dict[str, Any]:
    """What rebuilds a cut network: another expansion where that says it all, else sizes."""
    old = {key: value for key, value in network.arguments.items() if key != "cut"}
    if goal.kind == "expansion":
        now = {**widths_of(network.body), **widths}
        if with_expansion(network, goal.value) == now:
            return {**old, "expansion": int(goal.value)}
    before: Mapping[str, Any] = network.arguments.get("cut", {})
    sizes = {**before, **widths}
    return {**old, "cut": {path: list(numbers) for path, numbers in sizes.items()}}
