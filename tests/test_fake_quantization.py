"""Fake quantization: values of integers, gradients of floats, nothing left behind."""

import numpy as np
import pytest
import torch
from torch import nn

from leancnn import models
from leancnn.compiler.graph import Conv
from leancnn.compiler.int8_weights import to_bytes
from leancnn.compiler.integers import QValue
from leancnn.train.fake_quantization import (
    FakeQuantized,
    rounded_activation,
    rounded_weight,
)


@pytest.mark.parametrize(("shape", "depthwise"), [((3, 40, 3, 3), False), ((3, 1, 5, 3), True)])
def test_weights_are_the_quantizer_s_steps_and_their_gradient_is_one(shape, depthwise):
    weight = torch.randn(shape, requires_grad=True)
    made = rounded_weight(weight, depthwise=depthwise)
    groups, inputs = (3, 3) if depthwise else (1, 40)
    op = Conv(weight.detach().numpy(), np.zeros(3, np.float32), groups=groups)
    x = QValue((inputs, 8, 8), np.ones(inputs), np.zeros(inputs, np.int32))
    whole = to_bytes(op, x, [])
    steps = whole.weight * whole.scale[:, None, None, None]
    assert np.allclose(made.detach().numpy(), steps, atol=1e-5)
    assert np.abs(whole.weight).max() <= 127
    made.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_activations_take_at_most_256_values_and_zero_is_among_them():
    x = torch.cat([torch.zeros(1), torch.randn(4000) * 3 + 1]).requires_grad_()
    made = rounded_activation(x)
    assert len(made.detach().unique()) <= 256
    assert made[0] == 0
    assert (made - x).abs().max() <= (x.max() - x.min()) / 255 * 0.51
    made.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("name", ["henet_r3", "resnet8"])
def test_a_network_keeps_its_names_and_is_itself_again_afterwards(name):
    body = models.create_model(name, classes=3, seed=0).eval()
    images = torch.randn(2, 3, 46, 46)
    names, before = list(body.state_dict()), body(images)
    rounded = FakeQuantized(body)(images)
    assert not torch.equal(rounded, before)
    assert (rounded - before).norm() < (before - before.mean()).norm()
    rounded.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in body.parameters())
    assert list(body.state_dict()) == names
    assert torch.equal(body(images), before)


def test_all_zeros_stay_zeros():
    assert not rounded_activation(torch.zeros(2, 3)).any()
    assert not rounded_weight(torch.zeros(2, 3)).any()
    assert torch.isfinite(FakeQuantized(nn.Conv2d(3, 4, 3))(torch.zeros(1, 3, 8, 8))).all()
