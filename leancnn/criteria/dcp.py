"""Which channels a layer needs to tell the classes apart, and to answer as it did.

Discrimination-aware channel pruning: of what a layer reads, take in one channel after the other,
always that whose weights W_j the joint loss pulls at most, the largest ‖∂L/∂W_j‖ with

    L = 1/2 mean (O − O′)² + λ · cross-entropy of the nearest losses behind the layer,

O and O′ what the whole layer and the one with the channels so far put out; after each choice the
weights of those channels descend L (Algorithms 1 and 2). The losses behind are the network's own
and some in its middle, each a softmax of the mean of every map there. `score` is a channel's place
in that order from the end; `reconstruct` is the descent for those that stay.

Ours: the network itself, which a criterion leaves alone, is not trained with the losses in the
middle: their softmax is fitted to its maps. `POINTS` losses beside the last one, in equal parts of
the depth; `IMAGES` of the training images, drawn once; a layer takes its channels in at most
`CHOICES` handfuls; a step of descent is the longest of three that lowers L.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from leancnn.criteria._base import Scores, Subject, criterion
from leancnn.criteria._layers import RewritingInterpreter, output_node, prunable_layers
from leancnn.criteria._readers import Reader, readers

POINTS = 2
IMAGES = 128
CHOICES = 16
LAMBDA = 1.0  # λ, the paper's
DESCENTS = 1  # steps after each choice
LAST_DESCENTS = 10  # of the weights that stay
STEPS = (0.1, 0.02, 0.004)  # of the length of the weights, tried one after the other
FITTING = 300  # steps of a softmax in the middle
RIDGE = 1e-3  # of its weights
Values = dict[fx.Node, Any]


@dataclass(frozen=True, slots=True)
class Softmax:
    """A loss in the middle of the network."""

    weight: Tensor
    """(classes, C)."""
    bias: Tensor

    def loss(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of maps (N, C, H, W), or vectors (N, C)."""
        return F.cross_entropy(F.linear(_pooled(maps), self.weight, self.bias), labels)


def reconstruct(subject: Subject, keep: NDArray[np.bool_]) -> dict[str, Tensor]:
    """For every layer that loses inputs, weights with zeros there, and the rest descended L."""
    found: dict[str, Tensor] = {}
    for joint in _joint_losses(subject):
        if not keep[joint.reader.coupled].all():
            mask = joint.mask(np.flatnonzero(keep))
            weight, _ = joint.descended(joint.whole * mask, mask, LAST_DESCENTS)
            found[joint.reader.path] = weight
    return found


@criterion(
    "dcp",
    source="Zhuang et al., Discrimination-aware Channel Pruning for Deep Neural Networks, NeurIPS "
    "2018, section 3 and Algorithms 1 and 2",
    reads="labels",
    reconstruct=reconstruct,
)
def score(subject: Subject) -> Scores:
    """Places in 0..1, the first channel taken in is worth 1, under the layer that makes them.

    What neither part of the loss asks for is worth 0. Only the order within a channel group means
    something.
    """
    places: dict[int, list[float]] = defaultdict(list)
    for joint in _joint_losses(subject):
        order, asked = _greedy(joint)
        for place, number in enumerate(order):
            worth = 1 - place / len(order) if asked[place] else 0.0
            places[number].append(worth)
    importance = {number: float(np.mean(found)) for number, found in places.items()}
    writes = subject.dependencies.writes
    return {
        path: np.array([importance.get(number, 0.0) for number in writes[path].tolist()])
        for path, _ in prunable_layers(subject)
    }


class JointLoss:
    """L of one layer as a function of its weights, on the sampled images."""

    def __init__(
        self,
        reader: Reader,
        run: "_Run",
        values: Values,
        behind: fx.Node,
        softmax: Softmax | None,
    ) -> None:
        """`values` are those of the steps before the layer that later ones still read; `behind` is
        the step where the loss behind the layer looks, and None its softmax for the last one."""
        self.reader, self.run, self.values = reader, run, values
        self.behind, self.softmax = behind, softmax
        self.whole = reader.layer.weight.detach()
        self.node = run.step_of[reader.path]
        (self.x,) = (run.fresh(values)[node] for node in self.node.all_input_nodes)
        self.aim = self.put_out(self.whole)
        groups, channels = reader.coupled.shape
        self.shape = groups, len(self.whole) // groups, channels, -1

    def put_out(self, weight: Tensor) -> Tensor:
        """What the layer makes of what it reads."""
        layer = self.reader.layer
        if isinstance(layer, nn.Conv2d):
            out: Tensor = layer._conv_forward(self.x, weight, layer.bias)
            return out
        return F.linear(self.x, weight, layer.bias)

    def of(self, weight: Tensor) -> Tensor:
        """L."""
        out = self.put_out(weight)
        again = (out - self.aim).square().mean() / 2
        values = {**self.run.fresh(self.values), self.node: out.clone()}
        seen = self.run.to(self.behind, values, after=self.node)
        labels = self.run.labels
        if self.softmax is None:
            return again + LAMBDA * F.cross_entropy(seen.flatten(1), labels)
        return again + LAMBDA * self.softmax.loss(seen, labels)

    def slope(self, weight: Tensor) -> tuple[float, Tensor]:
        """L and its gradient by the weights."""
        with torch.enable_grad():
            at = weight.detach().requires_grad_(True)
            loss = self.of(at)
            (grad,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), grad

    def mask(self, numbers: NDArray[np.int64] | list[int]) -> Tensor:
        """1 where weights read one of the coupled channels, 0 elsewhere; shaped as the weights."""
        stay = torch.from_numpy(np.isin(self.reader.coupled, numbers)).to(self.whole)
        return (
            stay[:, None, :, None].expand(self.whole.view(self.shape).shape).reshape_as(self.whole)
        )

    def pull(self, grad: Tensor) -> dict[int, float]:
        """‖∂L/∂W_j‖ by coupled channel."""
        squares = grad.double().view(self.shape).square().sum((1, 3)).cpu().numpy()
        found: dict[int, float] = defaultdict(float)
        for number, value in zip(self.reader.coupled.ravel(), squares.ravel(), strict=True):
            found[int(number)] += float(value)
        return {number: value**0.5 for number, value in found.items()}

    def descended(self, weight: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The weights after steps that each lower L, and its gradient there.

        Weights under a 0 of the mask stay.
        """
        loss, grad = self.slope(weight)
        for _ in range(steps):
            along = grad * mask
            length = max(float(along.norm()), 1e-30)
            for size in STEPS:
                new = weight - size * float(weight.norm()) / length * along
                after, slope = self.slope(new)
                if after < loss:
                    weight, loss, grad = new, after, slope
                    break
            else:
                break
        return weight, grad


def _greedy(joint: JointLoss) -> tuple[list[int], list[bool]]:
    """The channels of a layer in the order of choice, and whether L asked for each."""
    left = sorted(set(joint.reader.coupled.ravel().tolist()) & joint.run.cuttable)
    chosen: list[int] = sorted(set(joint.reader.coupled.ravel().tolist()) - set(left))
    handful = -(-len(left) // CHOICES)
    order: list[int] = []
    asked: list[bool] = []
    mask = joint.mask(chosen)
    weight = joint.whole * mask
    _, grad = joint.slope(weight)
    while left:
        pulls = joint.pull(grad)
        left.sort(key=lambda number: -pulls[number])
        now, left = left[:handful], left[handful:]
        order += now
        asked += [pulls[number] > 0 for number in now]
        fresh = joint.mask(now)
        mask = mask + fresh
        weight = weight + joint.whole * fresh
        if left:
            weight, grad = joint.descended(weight, mask, DESCENTS)
    return order, asked


def _joint_losses(subject: Subject) -> Iterator[JointLoss]:
    """That of each layer that reads channels which may be cut, in the order of the network."""
    run = _Run(subject)
    points = _points(subject)
    softmaxes = _softmaxes(subject, run, points)
    order = {node: place for place, node in enumerate(subject.dependencies.graph.nodes)}
    end: fx.Node = next(node for node in order if node.op == "output").all_input_nodes[0]
    for reader in sorted(readers(subject), key=lambda r: order[run.step_of[r.path]]):
        node = run.step_of[reader.path]
        behind = [point for point in points if order[point] > order[node]]
        if node is end:
            behind = []
        point = behind[0] if behind else end
        with torch.no_grad():
            values = run.before(node)
        yield JointLoss(reader, run, values, point, softmaxes.get(point))


def _points(subject: Subject) -> list[fx.Node]:
    """Where the losses in the middle look."""
    order = {node: at for at, node in enumerate(subject.dependencies.graph.nodes)}
    found = {output_node(subject, path) for path, _ in prunable_layers(subject)}
    ends = sorted(found, key=order.__getitem__)  # by depth; layers come by channel group
    parts = [len(ends) * part // (POINTS + 1) for part in range(1, POINTS + 1)]
    return list(dict.fromkeys(ends[place] for place in parts if 0 < place < len(ends)))


def _softmaxes(subject: Subject, run: "_Run", points: Sequence[fx.Node]) -> dict[fx.Node, Softmax]:
    """Each fitted to the maps of the sampled images."""
    found = {}
    for point in points:
        with torch.no_grad():
            maps = run.to(point, {}, after=None)
        found[point] = _fitted(_pooled(maps), run.labels)
    return found


@torch.no_grad()
def _fitted(vectors: Tensor, labels: Tensor) -> Softmax:
    """Softmax regression by descent on standardised vectors (N, C)."""
    x = vectors.double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    x = (x - mean) / spread.clamp(min=1e-12) * (spread > 1e-12)
    classes = int(labels.max()) + 1
    aims = F.one_hot(labels, classes).double()
    weight = x.new_zeros(classes, x.shape[1])
    bias = x.new_zeros(classes)
    step = 1 / (0.5 * (1 + float(torch.linalg.matrix_norm(x, 2)) ** 2 / len(x)) + RIDGE)
    for _ in range(FITTING):
        off = (F.linear(x, weight, bias).softmax(1) - aims) / len(x)
        weight -= step * (off.T @ x + RIDGE * weight)
        bias -= step * off.sum(0)
    weight = weight / spread.clamp(min=1e-12) * (spread > 1e-12)
    return Softmax(weight.to(vectors.dtype), (bias - weight @ mean).to(vectors.dtype))


def _pooled(maps: Tensor) -> Tensor:
    return maps.flatten(2).mean(2) if maps.ndim > 2 else maps


class _Run:
    """The network on the sampled images, from one step to another."""

    def __init__(self, subject: Subject) -> None:
        self.graph = subject.dependencies.graph
        self.interpreter = RewritingInterpreter(subject, lambda node, out: out)
        self.step_of = {str(n.target): n for n in self.graph.nodes if n.op == "call_module"}
        self.cuttable = {
            int(number) for group in subject.dependencies.channel_groups for number in group.coupled
        }
        images, labels, seen = [], [], 0
        batches = subject.batches(mixed=True)
        for some, of in batches:
            images.append(some)
            labels.append(of)
            seen += len(of)
            if seen >= IMAGES:
                break
        self.images = torch.cat(images)[:IMAGES]
        self.labels = torch.cat(labels)[:IMAGES]

    def before(self, node: fx.Node) -> Values:
        """The values before a step, of those that it or a later one reads."""
        values: Values = {}
        self.to(node, values, after=None, through=False)
        order = {n: place for place, n in enumerate(self.graph.nodes)}
        return {
            n: value
            for n, value in values.items()
            if any(order[user] >= order[node] for user in n.users)
        }

    def fresh(self, values: Mapping[fx.Node, Any]) -> Values:
        """Copies, which steps that work in place may overwrite."""
        copy = partial(torch.utils._pytree.tree_map_only, Tensor, torch.clone)
        return {node: copy(value) for node, value in values.items()}

    def to(
        self, end: fx.Node, values: Values, *, after: fx.Node | None, through: bool = True
    ) -> Any:
        """Run the steps behind `after` (None: from the images) up to `end`; its value."""
        self.interpreter.env = values
        self.interpreter.args_iter = iter([self.images.clone()])
        begun = after is None
        for node in self.graph.nodes:
            if node is end and not through:
                return None
            if begun:
                values[node] = self.interpreter.run_node(node)
            begun = begun or node is after
            if node is end:
                return values[node]
        raise AssertionError("the end is a step of the graph")
