"""AMC: the budget is kept to a channel, the seed decides, and the agent learns what pays."""

import numpy as np
import pytest

from leancnn import weights
from leancnn.count import count
from leancnn.criteria import amc
from leancnn.errors import MismatchError
from leancnn.prune import plan
from leancnn.training_data import training_images
from tests.tiny_cuts import assert_one_channel_more_costs_more

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(amc, "EPISODES", 12)
    monkeypatch.setattr(amc, "BY_CHANCE", 4)


def test_the_budget_is_kept_to_a_channel_and_the_seed_decides(quiet, short):
    network = weights.load(quiet)
    images = training_images(quiet, None, network)
    most = 0.6 * count(network.body, (3, 8, 8)).macs
    words = {"criterion": "amc", "images": images, "macs": most, "progress": False}
    found = plan(network, seed=1, **words)
    assert plan(network, seed=1, **words) == found
    assert plan(network, seed=2, **words).observed != found.observed
    assert found.after["macs"] <= most
    rewards = found.observed["rewards"]
    assert rewards == sorted(rewards)
    assert len(rewards) == 12
    assert_one_channel_more_costs_more(network, found, most)


def test_a_budget_below_the_smallest_shares_is_refused(quiet, short):
    network = weights.load(quiet)
    images = training_images(quiet, None, network)
    with pytest.raises(MismatchError, match=r"amc leaves 0\.2 of every layer"):
        plan(network, criterion="amc", images=images, macs=500.0, progress=False)


@pytest.mark.long
def test_the_agent_learns_the_share_that_pays():
    agent, memory = amc.Agent(seed=3), amc.Memory()
    state = np.array([0.5, 0.6, 0.1, 0.7, 0.5, 1.0], np.float32)
    before = agent.share(state, 0.0, by_chance=False)
    for episode in range(150):
        share = agent.share(state, 0.3, by_chance=episode < 50)
        memory.add([state], [share], 1 - (share - 0.35) ** 2)
        if episode >= 50:
            for _ in range(8):
                agent.learn(*memory.batch(agent.random))
    assert abs(before - 0.35) > 0.15
    assert abs(agent.share(state, 0.0, by_chance=False) - 0.35) < 0.1


def test_a_share_is_lowered_until_it_fits():
    assert amc._allowed(0.9, lambda share: share < 0.5) == pytest.approx(0.5, abs=0.02)
    assert amc._allowed(0.4, lambda share: share < 0.5) == 0.4
