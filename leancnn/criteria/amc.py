"""A share for each layer, found by a small agent that is paid in the accuracy of what it cuts.

AMC: an agent walks the layers from first to last; of each it sees a state (its place, sizes and
cost, what is left of the budget, what it did before) and says the share that stays. Where that
would leave the layers behind, cut as far as may be, over the budget, the share is lowered (the
paper's Algorithm 1). The network cut by those shares, not trained again, is tried on images that
are set apart: accuracy is the reward of the whole walk. Actor and critic learn from the walks so
far (DDPG: Lillicrap et al., ICLR 2016), and the best walk is the answer. Which channels of a layer
stay is the sum of their filters' absolute weights.

Ours: `EPISODES` walks, a third of them by chance, and hidden layers of `HIDDEN`; the critic learns
the reward of the whole walk at every layer of it, as the paper's does with a discount of 1, and
from it the mean reward so far is taken; a walk that lowers the loss is the better of two of equal
accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from leancnn.channels.remove import cut_body
from leancnn.criteria._base import Cuts, Scores, Subject, criterion
from leancnn.criteria._layers import prunable_layers
from leancnn.errors import MismatchError

LEAST = 0.2  # the smallest share of a layer's channels
EPISODES = 120
BY_CHANCE = EPISODES // 3
IMAGES = 512  # that each walk is tried on
HIDDEN = 64
RATES = 1e-3, 1e-3  # of actor and critic
BATCH = 64  # steps of walks that actor and critic learn from at a time
NOISE, LESS = 0.5, 0.95  # deviation of shares, and what is left of it after each walk
CLOSER = 0.02  # in how fine steps the largest share that fits is sought


def shares(subject: Subject, cuts: Cuts) -> dict[str, float]:
    """The best walk's. Raises `MismatchError` for a budget that the smallest shares do not meet.

    Tells the best reward after every walk as `rewards`.
    """
    if not cuts.fits(dict.fromkeys(cuts.names, LEAST)):
        raise MismatchError(f"amc leaves {LEAST:g} of every layer, which is more than this budget")
    sample = cuts.sample(IMAGES)
    agent, memory = Agent(subject.seed), Memory()
    best: tuple[tuple[float, float], dict[str, float]] | None = None
    told: list[float] = []
    for episode in range(EPISODES):
        deviation = NOISE * LESS ** max(0, episode - BY_CHANCE)
        states, found = _walk(cuts, agent, deviation, by_chance=episode < BY_CHANCE)
        reward = _reward(subject, cuts, found, sample)
        if best is None or reward > best[0]:
            best = reward, found
        told.append(best[0][0])
        memory.add(states, list(found.values()), reward[0])
        for _ in range(len(states) if episode >= BY_CHANCE else 0):
            agent.learn(*memory.batch(agent.random))
    assert best is not None, "there are episodes"
    subject.observed["rewards"] = told
    return best[1]


@criterion(
    "amc",
    source="He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, "
    "ECCV 2018, section 3 and Algorithm 1",
    reads="labels",
    shares=shares,
    seeded=True,
)
def score(subject: Subject) -> Scores:
    """Σ|w| of each filter, which orders the channels of a layer; the agent says how many stay."""
    return {
        path: layer.weight.detach().double().flatten(1).abs().sum(1).cpu().numpy()
        for path, layer in prunable_layers(subject)
    }


def _walk(
    cuts: Cuts, agent: "Agent", deviation: float, *, by_chance: bool
) -> tuple[list[NDArray[np.float32]], dict[str, float]]:
    """The states of a walk, and the share of each layer, within the budget."""
    found: dict[str, float] = {}
    states = []
    least = dict.fromkeys(cuts.names, LEAST)
    whole = cuts.cost(dict.fromkeys(cuts.names, 1.0))
    for place, name in enumerate(cuts.names):
        rest = {**dict.fromkeys(cuts.names, 1.0), **found}
        own = (cuts.cost(rest) - cuts.cost({**rest, name: LEAST})) / whole
        state = [
            place / len(cuts.names),
            np.log2(cuts.width(name)) / 10,
            own,
            cuts.cost(rest) / whole,
            1 / whole,
            list(found.values())[-1] if found else 1.0,
        ]
        states.append(np.array(state, np.float32))
        asked = agent.share(states[-1], deviation, by_chance=by_chance)
        found[name] = _allowed(asked, partial(_fits_with, cuts, {**least, **found}, name))
    return states, found


def _fits_with(cuts: Cuts, shares: dict[str, float], name: str, share: float) -> bool:
    """Whether one layer may have this share beside the others'."""
    return cuts.fits({**shares, name: share})


def _allowed(asked: float, fits: Callable[[float], bool]) -> float:
    """The largest share up to `asked` that fits, to `CLOSER`; `LEAST` is known to."""
    low, high = LEAST, asked
    if asked <= LEAST or fits(asked):
        return asked
    while high - low > CLOSER:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@torch.no_grad()
def _reward(
    subject: Subject, cuts: Cuts, found: dict[str, float], sample: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    """Accuracy of the network cut and not trained again, and its loss with another sign."""
    images, labels = sample
    body, _ = cut_body(subject.body, subject.dependencies, cuts.keep(found))
    logits = body.eval()(images).flatten(1)
    right = float((logits.argmax(1) == labels).float().mean())
    return right, -float(F.cross_entropy(logits, labels).nan_to_num(posinf=1e30))


@dataclass(slots=True)
class Memory:
    """Steps of walks: states, shares, and the reward of the walk."""

    states: list[NDArray[np.float32]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def add(
        self, states: Sequence[NDArray[np.float32]], shares: list[float], reward: float
    ) -> None:
        """A walk."""
        self.states += states
        self.shares += shares
        self.rewards += [reward] * len(shares)

    def batch(self, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(B, state), (B, 1), (B, 1): some steps, rewards less their mean."""
        rows = random.integers(0, len(self.shares), BATCH)
        rewards = np.array(self.rewards, np.float32) - np.mean(self.rewards, dtype=np.float32)
        shares = np.array(self.shares, np.float32)
        found = np.stack([self.states[row] for row in rows]), shares[rows], rewards[rows]
        states, at, worth = map(torch.from_numpy, found)
        return states, at[:, None], worth[:, None]


class Agent:
    """DDPG for walks whose reward comes at their end: an actor, and a critic of its shares."""

    def __init__(self, seed: int, size: int = 6) -> None:
        self.random = np.random.default_rng(seed)
        self.actor = self._layers([size, HIDDEN, HIDDEN, 1])
        self.critic = self._layers([size + 1, HIDDEN, HIDDEN, 1])
        from torch.optim import Adam  # its import takes seconds, which others need not wait

        self.steps = [
            Adam(self.actor, RATES[0], foreach=False),
            Adam(self.critic, RATES[1], foreach=False),
        ]

    def _layers(self, sizes: list[int]) -> list[Tensor]:
        found = []
        for inputs, outputs in pairwise(sizes):
            weight = self.random.uniform(-1, 1, (outputs, inputs)) / inputs**0.5
            for values in (weight, np.zeros(outputs)):
                found.append(torch.tensor(values, dtype=torch.float32, requires_grad=True))
        return found

    def act(self, states: Tensor) -> Tensor:
        """(B, 1): shares in `LEAST`..1."""
        return LEAST + (1 - LEAST) * torch.sigmoid(_through(self.actor, states))

    def judge(self, states: Tensor, shares: Tensor) -> Tensor:
        """(B, 1): the reward that a share is worth."""
        return _through(self.critic, torch.cat([states, shares], 1))

    @torch.no_grad()
    def share(self, state: NDArray[np.float32], deviation: float, *, by_chance: bool) -> float:
        """What the actor says, with noise, or a share by chance."""
        if by_chance:
            return float(self.random.uniform(LEAST, 1))
        said = float(self.act(torch.from_numpy(state)[None]))
        return float(np.clip(said + deviation * self.random.normal(), LEAST, 1))

    def learn(self, states: Tensor, shares: Tensor, rewards: Tensor) -> None:
        """A step of the critic towards the rewards, and of the actor up the critic."""
        with torch.enable_grad():
            off = (self.judge(states, shares) - rewards).square().mean()
            _descend(self.steps[1], self.critic, off)
            worth = self.judge(states, self.act(states)).mean()
            _descend(self.steps[0], self.actor, -worth)


def _descend(optimizer: "torch.optim.Optimizer", parameters: list[Tensor], loss: Tensor) -> None:
    """A step on these parameters alone, whatever else the loss depends on."""
    for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = grad
    optimizer.step()


def _through(layers: list[Tensor], x: Tensor) -> Tensor:
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = F.relu(F.linear(x, weight, bias))
    return F.linear(x, layers[-2], layers[-1])
