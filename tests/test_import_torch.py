"""Networks of others through torch.export: the usual ways of writing layers; what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.simplify import simplify
from leancnn.errors import UnsupportedError
from tests.compiler_nets import compiled, max_error, settled
from tests.compiler_torch import answers
from tests.few import few


class GeneratedC(nn.Module):
    """A convolution of eight channels, a function of what it makes, and a classifier."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.stem, self.mix = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.norm, self.slope = nn.LayerNorm(8), nn.PReLU(8)
        self.end = nn.LazyLinear(3)

    def forward(self, x):
        return self.end(self.function(self, self.stem(x)).flatten(1))


def curves(m, x):
    """One function of each element after the other, so that one export tells of all."""
    made = [m.slope(x), x.tanh(), functional.elu(x), functional.selu(x), functional.celu(x, 0.7)]
    made += [functional.gelu(x), functional.gelu(x, approximate="tanh"), functional.mish(x)]
    made += [functional.softsign(x), functional.hardtanh(x), x.clamp(max=0.1), x.clamp(min=-0.1)]
    made += [1 - x, -x, 1 / (x.abs() + 1), x**3, (x * x + 1).rsqrt(), torch.erf(x)]
    return torch.cat(made, 1)


def moves(m, x):
    """Channels taken, turned round and repeated; zeros beside and around them."""
    first, second = x.chunk(2, 1)
    made = [x.flip(1), x.roll(1, 1), x.repeat(1, 2, 1, 1), torch.stack(x.unbind(1)[::-1], 1)]
    made += [torch.cat([second, torch.zeros_like(first)], 1), functional.pad(x, (0, 0, 0, 0, 2, 1))]
    return torch.cat(made, 1)


def reductions(m, x):
    """Means, maxima and norms over every choice of axes, as gates."""
    gates = [x.mean(1, keepdim=True), x.amax(1, keepdim=True), x.max(1, keepdim=True)[0]]
    gates += [x.mean(2, keepdim=True), x.amax(3, keepdim=True), x.mean((1, 2, 3), keepdim=True)]
    gates += [functional.normalize(x.mean((2, 3)), dim=1)[:, :, None, None]]
    return torch.cat([x * gate for gate in gates], 1)


def norms(m, x):
    last = m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return torch.cat([last, functional.group_norm(x, 2), functional.instance_norm(x)], 1)


def attention(m, x):
    """Two branches, weighed by a softmax over them."""
    both = torch.stack([x, m.mix(x)], 1)
    shares = both.mean((3, 4)).softmax(1)
    return (both * shares[..., None, None]).sum(1)


@pytest.mark.parametrize(
    "function", few([curves, moves, reductions, norms, attention]), ids=lambda f: f.__name__
)
def test_a_style_computes_what_torch_computes(function):
    body, images = GeneratedC(function), torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        body(images)  # the lazy layer learns its size
        expected = settled(body)(images[:1]).numpy()
    graph = import_torch(body, (3, 9, 8))
    for form in (graph, simplify(graph)):
        found = answers(form, images[:1].double()).numpy()
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_uneven_windows_are_pooled_as_torch_pools():
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 5)), nn.Flatten(), nn.Linear(60, 3)
    )
    images = np.random.default_rng(0).standard_normal((1, 3, 10, 9)).astype(np.float32)
    with torch.no_grad():
        expected = settled(body)(torch.from_numpy(images)).numpy()
    found = answers(import_torch(body, (3, 10, 9)), torch.from_numpy(images).double()).numpy()
    assert np.abs(found - expected).max() < 1e-5


def twice(m, x):
    """What one kernel must not overwrite while it reads it, and steps after a first store."""
    x = x * x[:, 2:3] + x[:, [1, 0, 3, 2, 5, 4, 7, 6]]
    gate = x.mean((2, 3), keepdim=True)
    x = functional.gelu(x * torch.sigmoid(m.mix(gate) + 0.5 * gate))
    return x * x.mean(3, keepdim=True) + x.amax(2, keepdim=True)


def test_values_that_are_read_twice_are_whole_when_they_are_read():
    body = GeneratedC(twice)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 11)).astype(np.float32)
    with torch.no_grad():
        body(torch.from_numpy(images))
    assert max_error(settled(body), compiled(body, (3, 8, 11)), images) < 1e-5


REFUSED = {
    "two outputs": (lambda m, x: x, "2 outputs"),
    "whole numbers": (lambda m, x: x.int().float(), "a conversion to torch.int32"),
    "a curve that is a line too early": (lambda m, x: functional.softplus(x, 2, 5), "of 5; only"),
    "an operator that is not there": (lambda m, x: x.sin(), "operator sin (at "),
    "attention of pixels": (lambda m, x: x.flatten(2).mT @ x.flatten(2), "matmul"),
}


class Pair(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x.amax((2, 3))


@pytest.mark.parametrize("name", few(REFUSED))
def test_what_cannot_be_compiled_is_named_in_one_line(name):
    function, reason = REFUSED[name]
    body = Pair() if name == "two outputs" else GeneratedC(function)
    with torch.no_grad():
        body.eval()(torch.zeros(1, 3, 6, 6))
    with pytest.raises(UnsupportedError) as caught:
        import_torch(body, (3, 6, 6))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "_prelu_kernel" not in str(caught.value)  # all that there are stand elsewhere
