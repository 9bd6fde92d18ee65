"""Which coupled channels stay: the best there is, by counting all, and no clock in it."""

from importlib import import_module
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import models
from leancnn.channels.dependencies import ChannelGroup, EqualSplit, find_dependencies
from leancnn.channels.select import best, legal
from leancnn.errors import MismatchError

UNITS = 8


def group_of(blocks: list[list[list[int]]]) -> ChannelGroup:
    equal_splits = tuple(
        EqualSplit("group", tuple(np.array(block, np.int64) for block in parts)) for parts in blocks
    )
    return ChannelGroup("layer", np.arange(UNITS), ("layer",), equal_splits)


def by_counting(
    blocks: list[list[list[int]]], importance: np.ndarray, most: int
) -> tuple[int, float]:
    """The largest number allowed, else the smallest above, and the worth of its best choice."""
    found: dict[int, float] = {}
    for number in range(1, UNITS + 1):
        for chosen in combinations(range(UNITS), number):
            even = all(len({len({*block} & {*chosen}) for block in parts}) == 1 for parts in blocks)
            if even:
                found[number] = max(found.get(number, -1.0), float(importance[list(chosen)].sum()))
    below = [number for number in found if number <= most]
    number = max(below) if below else min(found)
    return number, found[number]


@st.composite
def halves(draw: st.DrawFn) -> list[list[int]]:
    order = draw(st.permutations(range(UNITS)))
    return [sorted(order[: UNITS // 2]), sorted(order[UNITS // 2 :])]


@settings(max_examples=40)
@given(st.lists(halves(), max_size=3), st.integers(1, UNITS), st.integers(0, 2**32 - 1))
def test_no_choice_that_the_groups_allow_is_better(
    blocks: list[list[list[int]]], most: int, seed: int
) -> None:
    importance = np.random.default_rng(seed).random(UNITS)
    dependencies: Any = SimpleNamespace(writes={"layer": np.arange(UNITS)})
    stay = best(group_of(blocks), dependencies, importance, {"layer": most})
    number, value = by_counting(blocks, importance, most)
    assert stay.sum() == number
    assert importance[stay].sum() == pytest.approx(value, abs=1e-4)


@pytest.fixture
def tangled() -> tuple[Any, Any]:
    """A channel group of henet_r2 with equal splits, and its dependencies."""
    dependencies = find_dependencies(models.create_model("henet_r2", seed=0), 3)
    return next(
        one for one in dependencies.channel_groups if len(one.coupled) == 96 and one.equal_splits
    ), dependencies


def test_no_clock_ends_the_search(tangled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    real, seen = scipy.optimize.milp, []

    def milp(*args: Any, **named: Any) -> Any:
        seen.append(dict(named["options"]))
        return real(*args, **named)

    monkeypatch.setattr(scipy.optimize, "milp", milp)
    channel_group, dependencies = tangled
    most = {path: len(dependencies.writes[path]) // 2 for path in channel_group.layers}
    best(
        channel_group,
        dependencies,
        np.random.default_rng(0).random(len(channel_group.coupled)),
        most,
    )
    assert seen
    assert all("time_limit" not in options and options["node_limit"] > 0 for options in seen)


@pytest.mark.parametrize("status", [1, 3, 4])
def test_an_answer_that_is_not_known_to_be_the_best_is_refused(
    status: int, tangled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scipy.optimize

    real = scipy.optimize.milp

    def milp(*args: Any, **named: Any) -> Any:
        found = real(*args, **named)
        found.status = status
        return found

    monkeypatch.setattr(scipy.optimize, "milp", milp)
    channel_group, dependencies = tangled
    importance = np.ones(len(channel_group.coupled))
    with pytest.raises(MismatchError, match=f"channels of {channel_group.name} stay"):
        best(channel_group, dependencies, importance, dict.fromkeys(channel_group.layers, 5))
    with pytest.raises(MismatchError, match="not found in"):
        legal(channel_group, dependencies)


def test_a_search_of_too_few_nodes_is_no_answer(
    tangled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("leancnn.channels.select"), "NODES", 0)
    channel_group, dependencies = tangled
    importance = np.random.default_rng(0).random(len(channel_group.coupled))
    most = {path: len(dependencies.writes[path]) // 2 for path in channel_group.layers}
    try:
        few = best(channel_group, dependencies, importance, most)
    except MismatchError:
        return
    monkeypatch.undo()
    assert np.array_equal(
        few, best(channel_group, dependencies, importance, most)
    )  # solved before any node
