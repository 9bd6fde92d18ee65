"""Layers computed strip by strip answer as layers computed at once, in less memory."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from leancnn.bench import untrained
from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Graph,
    Pool,
    Reduce,
    floats,
)
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.patches import MOST_WORK, cuts, in_strips, smallest
from leancnn.compiler.simplify import simplify
from leancnn.export import export


class Drawn:
    """A random graph of what may be computed by rows, ending in a mean and a matrix."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        height, width = self.random.integers(7, 20, 2)
        self.graph = Graph("image", "image", {"image": (3, int(height), int(width))})
        value = self.conv("image", 6, 1)
        for _ in range(self.random.integers(3, 9)):
            value = getattr(
                self, self.random.choice(["block", "pool", "strided", "crop", "joined"])
            )(value)
        mean = self.graph.add(Reduce("mean", "pixels"), value, name="mean")
        self.graph.output = self.conv(mean, 4, 1, kernel=1)

    def conv(self, x, wide, stride, kernel=None, groups=1):
        c, h, w = self.graph.shapes[x]
        k = int(kernel or self.random.choice([1, 3, 5]))
        dilation = int(self.random.choice([1, 2])) if h > 9 and w > 9 else 1
        reach = dilation * (k - 1)
        sides = tuple(int(n) for n in self.random.integers(0, reach + 1, 4))
        if h + sides[0] + sides[2] <= reach or w + sides[1] + sides[3] <= reach:
            sides = (reach,) * 4
        weight = floats(self.random.normal(size=(wide, c // groups, k, k)))
        bias = floats(self.random.normal(size=wide))
        op = Conv(weight, bias, (stride, stride), sides, (dilation, dilation), groups)
        return self.graph.add(op, x, name="conv")

    def block(self, x):
        c = self.graph.shapes[x][0]
        weight = floats(self.random.normal(size=(c, 1, 3, 3)))
        made = self.graph.add(
            Conv(weight, floats(np.ones(c)), padding=(1,) * 4, groups=c), x, name="c"
        )
        made = self.graph.add(Activation("clip", 0.0, 3.0), made, name="clip")
        made = self.graph.add(
            Affine(floats(np.ones(c) * 2), floats(np.ones(c))), made, name="affine"
        )
        return self.graph.add(Combine("add"), made, x, name="sum")

    def joined(self, x):
        c = self.graph.shapes[x][0]
        other = self.graph.add(Activation("clip"), x, name="relu")
        both = self.graph.add(Concat(), x, other, name="both")
        order = tuple(int(n) for n in self.random.permutation(2 * c)[:6])
        return self.graph.add(Gather(order), both, name="shuffled")

    def pool(self, x):
        _, h, w = self.graph.shapes[x]
        if min(h, w) < 5:
            return x
        how = str(self.random.choice(["max", "mean"]))
        sides = (0,) * 4 if how == "mean" else tuple(int(n) for n in self.random.integers(0, 2, 4))
        return self.graph.add(Pool(how, (3, 3), (2, 2), sides), x, name="pool")

    def strided(self, x):
        _, h, w = self.graph.shapes[x]
        return self.conv(x, 6, 2, kernel=3) if min(h, w) > 5 else x

    def crop(self, x):
        _, h, w = self.graph.shapes[x]
        return self.graph.add(Crop(1, 0, h - 1, w - 1), x, name="crop") if min(h, w) > 4 else x


def computed(graph, image):
    """The answer of a graph, by PyTorch in float64."""
    values = {graph.input: image}
    for node in graph.nodes:
        x, *more = (values[name] for name in node.inputs)
        values[node.output] = one(node.op, x, *more)
        assert tuple(values[node.output].shape) == graph.shapes[node.output]
    return values[graph.output]


def one(op, x, *more):
    match op:
        case Conv() | Pool():
            top, left, bottom, right = op.padding
            fill = float("-inf") if isinstance(op, Pool) and op.how == "max" else 0.0
            x = functional.pad(x[None], (left, right, top, bottom), value=fill)
            if isinstance(op, Conv):
                weight, bias = (torch.from_numpy(part).double() for part in (op.weight, op.bias))
                return functional.conv2d(x, weight, bias, op.stride, 0, op.dilation, op.groups)[0]
            pool = functional.max_pool2d if op.how == "max" else functional.avg_pool2d
            return pool(x, op.kernel, op.stride)[0]
        case Activation():
            return x.clip(op.low, op.high)
        case Affine():
            return (
                x * torch.from_numpy(op.scale)[:, None, None]
                + torch.from_numpy(op.shift)[:, None, None]
            )
        case Combine():
            return x + more[0]
        case Concat():
            return torch.cat([x, *more])
        case Gather():
            return x[list(op.channels)]
        case Crop():
            return x[:, op.top : op.top + op.height, op.left : op.left + op.width]
    return x.mean((1, 2), keepdim=True)


@pytest.mark.parametrize("seed", range(24))
def test_a_graph_in_strips_answers_as_it_does_at_once(seed):
    graph = Drawn(seed).graph
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=graph.shapes["image"]))
    expected = computed(graph, image)
    for cut in cuts(graph):
        for count in {2, graph.shapes[cut][1]}:
            strips = in_strips(graph, cut, count)
            assert torch.allclose(computed(strips, image), expected, rtol=1e-9, atol=1e-9)


def test_the_drawn_graphs_have_places_to_cut():
    assert sum(len(list(cuts(Drawn(seed).graph))) for seed in range(24)) > 24


def graph_of(name):
    network = untrained(name)
    return simplify(import_torch(network.body, (3, *network.preprocessing.size)))


@pytest.mark.long
def test_the_least_memory_of_henet_is_below_190_kb():
    graph = graph_of("henet_r3")
    found = smallest(graph)
    assert 4 * schedule(lower(found), small=True).program.arena <= 190_000
    assert found.macs() <= MOST_WORK * graph.macs()


def test_strips_that_save_little_are_left():
    graph = graph_of("resnet20")
    assert smallest(graph) is graph


@pytest.mark.slow
@pytest.mark.parametrize("name", ["henet_r3", "shufflenet_r3", "mobilenetv2"])
def test_a_network_in_strips_is_exported(tmp_path, name):
    paths = export(untrained(name), to="c", small=True, out=tmp_path)  # compares with PyTorch
    assert "in strips, for" in paths[0].read_text()
