"""The networks the papers compare with: public counts, and what the papers made of them."""

import pytest
import torch

from leancnn.count import Cost, count
from leancnn.models import card, create_model
from tests.few import few


def cost(name: str, **arguments: object) -> Cost:
    with torch.device("meta"):
        net = create_model(name, **arguments)
    return count(net, card(name).image)


def trainable(name: str, **arguments: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **arguments).parameters())


@pytest.mark.parametrize(
    ("name", "classes", "weights"),
    [
        ("squeezenet1_0", 1000, 1_248_424),
        ("squeezenet1_1", 1000, 1_235_496),
        ("squeezenet1_0", 40, 755_944),
        ("squeezenet1_1", 40, 743_016),
        ("squeezenet1_0", 10, 740_554),
        ("squeezenet1_1", 10, 727_626),
        ("shufflenetv1", 1000, 1_865_728),
        ("shufflenetv1", 40, 943_168),
        ("shufflenetv2", 40, 1_294_604),
        ("mobilenetv3_small", 10, 1_528_106),
        ("mobilenetv2", 10, 2_236_682),
        ("alexnet", 1000, 61_100_840),
        ("vgg16", 1000, 138_357_544),
        ("resnet18", 1000, 11_689_512),
        ("resnet50", 1000, 25_557_032),
    ],
)
def test_trainable_weights_are_the_public_ones(name: str, classes: int, weights: int) -> None:
    assert trainable(name, classes=classes) == weights


def test_half_a_shufflenet_v2_for_1000_classes() -> None:
    assert trainable("shufflenetv2", width="0.5") == 1_366_792


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("alexnet", 714),
        ("resnet18", 1_814),
        ("vgg16", 15_470),
        ("squeezenet1_0", 819),
        ("squeezenet1_1", 349),
        ("mobilenetv1", 569),  # as its paper prints
        ("mobilenetv2_224", 301),
        ("shufflenetv1", 137),  # as its paper prints
        ("shufflenetv2", 145),
    ],
)
def test_multiply_accumulates_are_the_public_ones(name: str, millions: int) -> None:
    assert round(card(name).macs / 1e6) == millions  # test_every_network measures the card


@pytest.mark.parametrize(
    ("name", "weights", "total", "macs", "printed"),
    [
        ("resnetv2_56", 590_426, 598_522, 87.2, (0.597, 1.71e8)),
        ("resnetv2_164", 1_703_258, 1_727_482, 247.6, (1.73, 4.97e8)),
        ("resnetv2_1001", 10_327_706, 10_476_922, 1_491.0, (10.48, 30.3e8)),
    ],
)
def test_preactivation_resnets_are_printed_with_their_running_statistics(
    name: str, weights: int, total: int, macs: float, printed: tuple[float, float]
) -> None:
    found = card(name)
    assert (found.trainable, found.trainable + found.buffers) == (weights, total)
    assert round(found.macs / 1e6, 1) == macs
    assert total / 1e6 == pytest.approx(printed[0], rel=0.003)
    assert 2 * found.macs == pytest.approx(printed[1], rel=0.03)


def test_resnet50_is_printed_in_mebibytes_with_1000_classes() -> None:
    found = card("resnet50")
    assert round(4 * found.trainable / 2**20, 1) == 97.5
    assert round(4 * (found.trainable + found.buffers) / 2**20, 1) == 97.7
    assert round(4 * trainable("resnet50", classes=10) / 2**20, 1) == 89.8


def test_mobilenetv2_on_cifar_has_the_multiply_accumulates_that_are_printed_as_flops() -> None:
    assert cost("mobilenetv2").macs == 87_976_448
    assert round(87_976_448 / 1e8, 2) == 0.88


def test_shortcuts_of_option_b_cost_a_little_more() -> None:
    plain, conv = cost("resnet20"), cost("resnet20", shortcut="conv")
    assert conv.trainable - plain.trainable == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert conv.macs - plain.macs == 16 * 32 * 16**2 + 32 * 64 * 8**2


def test_resnet8_is_the_78666_of_its_benchmark_with_statistics() -> None:
    found = card("resnet8")
    assert found.trainable + found.buffers == 78_666


@pytest.mark.parametrize("name", few(["resnet18", "mobilenetv1", "mobilenetv3_small"]))
def test_a_stem_for_small_images_costs_no_more_weights_and_sees_more(name: str) -> None:
    arguments = {"classes": 10, "stem": "cifar"}
    with torch.device("meta"):
        usual, small = create_model(name, classes=10), create_model(name, **arguments)
    spared = 64 * 3 * (49 - 9) if name == "resnet18" else 0  # 7×7 against 3×3
    assert trainable(name, classes=10) - trainable(name, **arguments) == spared
    assert count(small, (3, 32, 32)).macs > 2 * count(usual, (3, 32, 32)).macs
