"""What dependencies follow in networks of users' own, and what it refuses by name."""

import pytest
import torch
from torch.nn import functional as F

from leancnn import criteria
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body, silence
from leancnn.criteria import Subject
from leancnn.errors import UnsupportedError
from tests.cuts import kept


class Between(torch.nn.Module):
    """A convolution, a step, a classifier."""

    def __init__(self, step):
        super().__init__()
        self.conv, self.pool = torch.nn.Conv2d(3, 8, 1), torch.nn.AdaptiveAvgPool2d(1)
        self.fc, self.step = torch.nn.Linear(8, 2), step

    def forward(self, x):
        return self.fc(self.pool(self.step(self.conv(x))).flatten(1))


def test_numbers_are_no_channels_and_what_cannot_be_followed_is_refused():
    (channel_group,) = find_dependencies(Between(lambda x: 0.5 * x[:, :, 1:] + 1), 3).channel_groups
    assert channel_group.layers == ("conv",)
    for step in (lambda x: x[:, :4], lambda x: x[0]):
        with pytest.raises(UnsupportedError, match="cannot follow channels through 'getitem"):
            find_dependencies(Between(step), 3)


class Net(torch.nn.Module):
    """Layers by name, and a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.pool, self.fc = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(8, 2)
        self.steps = forward

    def forward(self, x):
        return self.steps(self, x)


def conv(c_in=3, c_out=8, **kinds):
    return torch.nn.Conv2d(c_in, c_out, 3, padding=1, **kinds)


def head(net, x):
    return net.fc(net.pool(x).flatten(1))


def exact(net, share=0.5):
    """Cut every channel group, in double; what was found."""
    net = net.eval().double()
    dependencies = find_dependencies(net, 3)
    keep = kept(dependencies, share)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    with torch.no_grad():
        found, expected = (
            cut_body(net, dependencies, keep)[0](x),
            silence(net, dependencies, keep).run(x),
        )
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert not keep.all()
    return dependencies


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.GroupNorm(2, 8),
        torch.nn.InstanceNorm2d(8, affine=True),
        torch.nn.PReLU(8),
        torch.nn.LayerNorm((8, 8, 8)),
        torch.nn.ConvTranspose2d(8, 8, 1),
        torch.nn.ChannelShuffle(2),
        torch.nn.Softmax2d(),
        torch.nn.LocalResponseNorm(5),
        torch.nn.PixelShuffle(1),
        torch.nn.Flatten(2),
        torch.nn.utils.parametrizations.weight_norm(conv(8)),
    ],
)
def test_a_layer_that_mixes_channels_unseen_is_refused_by_its_name(layer):
    with pytest.raises(UnsupportedError, match=r"cannot follow channels through 'odd' \(\w+"):
        find_dependencies(Net(lambda n, x: head(n, n.odd(n.conv(x))), conv=conv(), odd=layer), 3)


@pytest.mark.parametrize(("steps", "words"), [
    (lambda n, x: head(n, n.b(n.b(n.a(x)))), r"'b_1' \(runs twice\)"),
    (lambda n, x: head(n, n.norm(n.a(x)) + n.norm(n.b(n.a(x)))), "runs twice"),
    (lambda n, x: head(n, n.a(input=x)), "called with"),
    (lambda n, x: head(n, n.a(x)) if x.shape[2] > 1 else x, "cannot follow this network: symbolic"),
    (lambda n, x: n.wide(torch.cat([n.pool(y := n.a(x)).flatten(1), n.four(y).flatten(1)], 1)),
     "40 inputs of 16 channels"),
    (lambda n, x: n.wide(torch.cat([F.relu(n.pool(y := n.a(x)).flatten(1)),
                                    2 * n.four(y).flatten(1).relu() + 1], 1)),
     "40 inputs of 16 channels"),
    (lambda n, x: head(n, F.dropout(n.a(x), 0.5)), "drops when the network is at rest"),
])  # fmt: skip
def test_what_wiring_cannot_know_is_refused_in_a_line(steps, words):
    four = torch.nn.AdaptiveAvgPool2d(2)
    net = Net(steps, a=conv(), b=conv(8), norm=torch.nn.BatchNorm2d(8), four=four,
              wide=torch.nn.Linear(40, 2))  # fmt: skip
    with pytest.raises(UnsupportedError, match=words):
        find_dependencies(net.eval(), 3)


@pytest.mark.parametrize(
    "steps",
    [
        lambda n, x: head(n, F.relu(n.norm(n.a(x)))),
        lambda n, x: n.fc(torch.flatten(F.adaptive_avg_pool2d(n.b(n.a(x)).relu(), 1), 1)),
        lambda n, x: n.fc(torch.sigmoid(n.b(n.a(x))).mean((2, 3))),
        lambda n, x: n.fc(F.max_pool2d(n.a(x), 2).mean(dim=[-2, -1])),
        lambda n, x: n.fc(n.bn1(head_of(n, n.a(x)))),
        lambda n, x: head(n, torch.cat(tensors=n.a(x).chunk(chunks=2, dim=1), dim=1)),
        lambda n, x: n.wide(n.drop(n.bn1(head_of(n, n.b(n.a(x)))))),
        lambda n, x: n.fc(F.dropout(head_of(n, n.a(x)), 0.5, training=n.training)),
    ],
)
def test_functions_that_leave_channels_apart_are_followed(steps):
    wide = torch.nn.Linear(8, 2)
    exact(Net(steps, a=conv(), b=conv(8), norm=torch.nn.BatchNorm2d(8), wide=wide,
              bn1=torch.nn.BatchNorm1d(8), drop=torch.nn.Dropout()))  # fmt: skip


def head_of(net, x):
    return net.pool(x).flatten(1)


@pytest.mark.parametrize("first", [True, False])
def test_a_norm_over_image_and_channels_scores_the_channels(first):
    def steps(net, x):
        both = (net.a(x), x) if first else (x, net.a(x))
        return head(net, net.b(net.norm(torch.cat(both, 1))))

    net = Net(steps, a=conv(), b=conv(11), norm=torch.nn.BatchNorm2d(11))
    dependencies = exact(net)
    assert dependencies.group_of("norm").layers == ("a",)
    found = criteria.get("bn_scale").score(Subject(net.eval(), dependencies, None, 0))
    assert set(found) == {"norm"}
