"""count: three kinds of weights, and the operations that really ran."""

import re

import pytest
import torch
from torch import Tensor, nn

from leancnn.count import Cost, count, held
from leancnn.errors import MismatchError, UncountableError


def grouped(cls: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    return cls(32, 64, 3, padding=1, groups=4, bias=True)


def test_a_grouped_convolution_is_counted_as_by_hand() -> None:
    weights = 3 * 3 * 32 * 64 // 4
    assert count(grouped(), (32, 10, 12)) == Cost(
        trainable=weights + 64,
        frozen=0,
        buffers=0,
        macs=weights * 10 * 12,
        bytes=4 * (weights + 64),
        dense=4 * weights + 64,
    )


def test_the_class_name_does_not_matter() -> None:
    class LocalBinary(nn.Conv2d):
        pass

    assert count(grouped(LocalBinary), (32, 8, 8)) == count(grouped(), (32, 8, 8))


def test_strides_biases_norms_and_pools_are_counted_as_the_convention_says() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),  # 9 → 4
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    cost = count(net, (3, 9, 9))
    assert cost.macs == 3 * 3 * 3 * 8 * 4 * 4 + 8 * 5
    assert cost.trainable == (216 + 8) + 16 + 45
    assert cost.buffers == 16  # without num_batches_tracked


def test_fixed_weights_are_frozen_whether_parameters_or_ternary_kernels() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Conv2d(2, 3, 1, bias=False))
    net[0].requires_grad_(False)
    net[0].register_buffer("kernels", torch.ones(7, 1, 3, 3, dtype=torch.int8))
    cost = count(net, (1, 5, 5))
    assert (cost.trainable, cost.frozen, cost.buffers) == (6, 18 + 63, 0)
    assert cost.macs == 18 * 9 + 6 * 9


def test_counting_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    net[1].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count(net, (1, 8, 8))
    assert [part.training for part in net] == [True, False, True]
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_network_that_fails_gets_its_mode_back() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    with pytest.raises(RuntimeError):
        count(net, (1, 8, 8))
    assert net.training


def test_nothing_to_count_is_an_error_and_not_zero() -> None:
    with pytest.raises(UncountableError, match="ReLU"):
        count(nn.ReLU(), (3, 4, 4))


def test_an_empty_or_endless_image_is_refused_with_its_numbers() -> None:
    for image in ((3, 0, 4), (3, 10**10, 10**10), (3, 10**21, 4)):
        with pytest.raises(MismatchError, match=re.escape(f"not {image}")):
            count(grouped(), image)


def test_matrix_products_outside_of_layers_are_seen() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ x.flatten(1).T

    assert count(Product(), (2, 3, 4)).macs == 24


def test_what_a_step_holds_is_every_tensor_kept_for_the_backward_pass_once() -> None:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(4 * 64, 5),
    )  # fmt: skip
    before = [p.clone() for p in body.parameters()]
    image, after_conv, after_norm = 3 * 64, 4 * 64, 4 * 64
    assert held(body, (3, 8, 8)) == 4 * (image + after_conv + after_norm)
    assert all(torch.equal(a, b) for a, b in zip(before, body.parameters(), strict=True))
    assert body.training
    assert all(p.grad is None for p in body.parameters())
