"""The cuts that are open to a network: asking about them changes nothing."""

import pytest

from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.errors import ArgumentError, UsageError
from leancnn.prune.budget import Candidates
from leancnn.prune.expansion import with_expansion
from leancnn.prune.goal import Goal
from leancnn.prune.importance import scored
from tests.few import few


@pytest.mark.parametrize("name", few(["henet_r2", "lbmbnet32_r6"]))
def test_what_a_search_asks_changes_nothing(name):
    """Twice the same question, the same answer, and the groups that may be cut are as they were."""
    net = untrained(name)
    dependencies = find_dependencies(net.body, 3)
    cuts = Candidates(net, dependencies, scored(net, dependencies, "l1", None).importance)
    before, most = list(cuts.channel_groups), cuts.cost(cuts.keep(0.5)).macs

    def asked():
        found = [cuts.filled(lambda keep: cuts.cost(keep).macs <= most)[0]]
        if name == "lbmbnet32_r6":
            found.append(cuts.of_widths(with_expansion(net, 6), with_expansion(net, 3)))
        return [keep.tolist() for keep in found]

    assert asked() == asked()
    assert cuts.channel_groups == before


@pytest.mark.parametrize(("words", "error"), [
    ({}, UsageError), ({"keep": 0.5, "macs": 1e6}, UsageError), ({"keep": 1}, ArgumentError),
    ({"speedup": 1}, ArgumentError), ({"macs": float("inf")}, ArgumentError),
    ({"bytes": float("nan")}, ArgumentError), ({"keep": None}, UsageError),
])  # fmt: skip
def test_a_goal_is_one_kind_and_a_number_that_can_be(words, error):
    with pytest.raises(error):
        Goal.of(**words)


def test_a_goal_is_a_value():
    goal = Goal.of(macs=5_000_000, keep=None)
    assert goal == Goal("macs", 5e6)
    assert Goal.of(**goal.to_json()) == goal
    assert (str(goal), hash(goal)) == ("macs 5e+06", hash(Goal("macs", 5e6)))
    with pytest.raises(UsageError, match="name one goal"):
        Goal("latency", 5)
