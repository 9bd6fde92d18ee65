"""Images of one pixel: windows that end there, and windows that begin there and see beyond it."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from leancnn.compiler.graph import Conv, Pool
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.simplify import simplify
from tests.compiler_nets import compiled, max_error, settled
from tests.few import few


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)


class Branches(nn.Module):
    """What several layers make of one image of `channels`, side by side."""

    def __init__(self, channels, before, layers):
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(2, channels, 1), *before)
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        x = self.before(x)
        return torch.cat([layer(x).flatten(1) for layer in self.layers], 1)


WINDOWS = [
    pool(kernel, stride, padding, ceil_mode=ceil)
    for kernel, stride, padding, ceil in product((2, 3), (2, 3), (0, 1), (False, True))
    for pool in (nn.MaxPool2d, nn.AvgPool2d)
]


def ends(pool, side):
    """Whether a window has exactly one place on an image of that side."""
    try:
        return pool(torch.zeros(1, 1, side, side)).numel() == 1
    except RuntimeError:
        return False  # none


@pytest.mark.parametrize("side", few([2, 3, 4]))
def test_strided_windows_may_end_in_one_pixel(side):
    pools = [pool for pool in WINDOWS if ends(pool, side)]
    assert len(pools) >= 6
    body, shape = settled(Branches(5, [], pools)), (2, side, side)
    assert max_error(body, compiled(body, shape), noise(shape)) < 1e-5


@pytest.mark.parametrize("channels", few([3, 20]))
@pytest.mark.parametrize("how", few(["mean", "convolution"]))
def test_windows_see_beyond_one_pixel(channels, how):
    c = channels
    layers = [
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 1, 1),
        nn.AvgPool2d(2, 1, 1, count_include_pad=False),
        nn.Conv2d(c, 4, 3, padding=1),
        nn.Conv2d(c, 4, 1, padding=1),
        nn.Conv2d(c, c, 3, padding=1, groups=c),
        nn.Conv2d(c, 4, 3, stride=2, padding=2),
        nn.Conv2d(c, 4, 2, dilation=2, padding=1),
        nn.Conv2d(c, 4, (1, 3), padding=(0, 2)),
        nn.ZeroPad2d((1, 0, 0, 2)),
        nn.ConstantPad2d((0, 1, 1, 0), 0.5),
    ]
    layers = [nn.Sequential(layer, nn.ReLU()) for layer in layers]
    before = [nn.AdaptiveAvgPool2d(1)] if how == "mean" else [nn.Conv2d(c, c, 4), nn.ReLU()]
    body = settled(Branches(c, before, layers))
    native = compiled(body, (2, 4, 4))
    for seed in range(2):  # the second time its scratch is not what it was at first
        assert max_error(body, native, noise((2, 4, 4), seed)) < 1e-5


def test_no_window_over_one_pixel_is_left():
    layers = [nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.MaxPool2d(3, 1, 1)]
    body = settled(Branches(6, [nn.AdaptiveAvgPool2d(1)], layers))
    graph = simplify(import_torch(body, (2, 4, 4)))
    assert all(not any(n.op.padding) for n in graph.nodes if isinstance(n.op, Conv | Pool))


class Alone(nn.Module):
    """A pixel among windows of which most see nothing."""

    def forward(self, x):
        x = F.pad(x.mean((2, 3), keepdim=True), (1, 1, 1, 0), value=-torch.inf)
        return torch.cat([F.max_pool2d(x, 2, 1).flatten(1), torch.sigmoid(x).flatten(1)], 1)


def test_a_maximum_over_nothing_is_minus_infinity():
    assert max_error(Alone().eval(), compiled(Alone(), (2, 3, 3)), noise((2, 3, 3))) < 1e-6


class Padded(nn.Module):
    """Every window sees some of the image."""

    def __init__(self, fill):
        super().__init__()
        self.conv, self.fill = nn.Conv2d(2, 4, 3, padding=1), fill

    def forward(self, x):
        x = F.pad(self.conv(x), (1, 0, 2, 1), value=self.fill)
        return F.max_pool2d(x, 3, 1).flatten(1)


@pytest.mark.parametrize("fill", few([0.0, 0.3, -65504.0, -1e9, -3e38]))
def test_what_is_padded_with_leaves_the_image_as_it_is(fill):
    body = settled(Padded(fill))
    assert max_error(body, compiled(body, (2, 6, 6)), noise((2, 6, 6))) < 1e-6
