"""Dead channels: without them a network answers the same and costs less."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from leancnn import models
from leancnn.compiler.eliminate import eliminate_dead
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.simplify import simplify
from tests.compiler_nets import Gate, Inverted, compiled, max_error, random_network, settled
from tests.compiler_torch import answers
from tests.few import few


def zeroed(body, pick):
    """The module with kernels, scales and weights of zero, wherever `pick` says so."""
    for part in body.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            with torch.no_grad():
                for channel in range(len(part.weight)):
                    if pick((True, False, False)):
                        part.weight[channel] = 0
                if part.weight.ndim > 1:
                    for channel in range(part.weight.shape[1]):
                        if pick((True, False, False)):
                            part.weight[:, channel] = 0
    return body


def same(body, shape):
    """Whether simplified graph and module agree, and what the graph costs."""
    graph = simplify(import_torch(body, shape))
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = body.double()(images)
    body.float()
    assert torch.allclose(answers(graph, images), expected, rtol=1e-5, atol=1e-5)
    return graph.macs()


def check_random(pick):
    shape = (pick((1, 2, 3, 6)), pick(range(5, 12)), pick(range(5, 12)))
    body = settled(random_network(pick, shape))
    full = same(body, shape)
    assert same(zeroed(body, pick), shape) <= full


@pytest.mark.parametrize("seed", few(range(4)))
def test_random_networks_with_zeros_answer_as_torch_does(seed):
    choice = random.Random(seed).choice
    check_random(lambda options: choice(list(options)))


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_random_networks_with_zeros_answer_as_torch_does(data):
    check_random(lambda options: data.draw(st.sampled_from(list(options))))


def chain(width, padding=0, between=()):
    """Two convolutions with `width` channels between them."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), *between]
    layers += [nn.Conv2d(width, 6, 3, padding=padding), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return settled(nn.Sequential(*layers))


def without(body, channels, shift):
    """The module with these channels of its batch norm constant: `shift`."""
    with torch.no_grad():
        body[1].weight[channels] = 0
        body[1].bias[channels] = shift
    return body


def test_what_is_zero_is_not_computed():
    assert same(without(chain(8, padding=1), [1, 6], -1.0), (3, 7, 7)) == same(
        chain(6, padding=1), (3, 7, 7)
    )


def test_a_constant_is_folded_where_no_padding_stands_beside_it():
    shape = (3, 7, 7)
    assert same(without(chain(8), [0, 2, 7], 0.5), shape) == same(chain(5), shape)
    assert same(without(chain(8, padding=1), [0, 2, 7], 0.5), shape) == same(chain(8, 1), shape)


def test_a_constant_is_folded_through_curves_gates_pools_and_joins():
    between = (nn.MaxPool2d(3, 2, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, groups=8), nn.SiLU())
    shape = (3, 12, 12)
    narrow = (between[0], between[1], nn.Conv2d(5, 5, 3, groups=5), nn.SiLU())
    assert same(without(chain(8, 0, between), [3, 4, 5], 0.5), shape) == same(
        chain(5, 0, narrow), shape
    )
    gated = without(chain(8, 0, (Gate(8, nn.SiLU()),)), [3], -1.0)
    assert same(gated, shape) < same(chain(8, 0, (Gate(8, nn.SiLU()),)), shape)


@pytest.mark.parametrize(
    ("dead", "groups", "width"),
    [((0,), 2, 4), ((0, 5), 2, 3), ((0, 1, 2, 3), 1, 4), ((0, 1, 2, 3, 4), 1, 3)],
)
def test_groups_stay_alike(dead, groups, width):
    body = settled(
        nn.Sequential(
            nn.Conv2d(2, 8, 3, groups=2), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(16, 2)
        )
    )
    with torch.no_grad():
        body[1].weight[:, list(dead)] = 0
    assert same(body, (2, 4, 4)) == groups * width * 9 * 4 + (8 - len(dead)) * 4 * 4 + 32


def test_a_channel_of_the_image_that_nobody_reads_costs_nothing():
    body = settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2)))
    with torch.no_grad():
        body[0].weight[:, 1] = 0
    assert same(body, (3, 2, 2)) == 2 * 4 * 4 + 32


def test_a_network_of_zeros_still_answers():
    body = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    with torch.no_grad():
        body[3].weight.zero_()
    assert same(body, (3, 4, 4)) <= 2 * 16 + 27 * 4


def test_a_network_without_dead_channels_stays_as_it_is():
    graph = simplify(import_torch(settled(models.create_model("henet_r2", seed=0)), (3, 31, 31)))
    assert [node.output for node in eliminate_dead(graph).nodes] == [n.output for n in graph.nodes]
    assert graph.macs() == models.card("henet_r2").macs


def test_c_without_dead_channels_answers_as_torch_does():
    body = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, groups=3),
        Inverted(12, 12, 40, act=nn.SiLU()),
        Inverted(12, 20, 33, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 5),
    )
    body = zeroed(settled(body), random.Random(3).choice)
    images = np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32)
    assert max_error(body, compiled(body, (3, 9, 9)), images) < 1e-5


def test_channels_that_a_reshape_makes_are_all_there_when_some_are_needed():
    class Some(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.last = nn.Linear(6, 5)

        def forward(self, x):
            return self.last(self.conv(x).flatten(1)[:, 40:46])

    body = settled(Some())
    graph = import_torch(body, (3, 6, 6))
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected = body.double()(images).detach().numpy()
    np.testing.assert_allclose(answers(simplify(graph), images), expected, atol=1e-6)


@pytest.mark.slow
def test_the_gates_of_rsenet_survive_the_dropping_of_channels():
    body = settled(models.create_model("rsenet", seed=0, classes=10))
    graph = import_torch(body, (3, 64, 64))
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before, after = (np.asarray(answers(each, images)) for each in (graph, simplify(graph)))
    assert np.abs(before - after).max() < 2e-6 * np.abs(before).max()
