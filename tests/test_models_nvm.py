"""The NVM paper's two networks: every integer we resolved, and what its printed sizes mean."""

import pytest
import torch
from torch import nn

from leancnn.count import Cost, count
from leancnn.errors import MismatchError
from leancnn.layers import ChannelShuffle
from leancnn.models import create_model
from tests.few import few

AT_224 = (3, 224, 224)
GROUPS = (1, 2, 4, 8, 16)
MB, MIB = 10**6, 2**20


def cost(name: str, **arguments: object) -> Cost:
    with torch.device("meta"):
        return count(create_model(name, **arguments), AT_224)


def trainable(name: str, **arguments: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **arguments).parameters())


TEN = {1: 1_138_280, 2: 1_006_696, 4: 940_904, 8: 908_008, 16: 891_560}
NINE = {2: 833_960, 4: 780_456, 8: 753_704, 16: 740_328}
TEN_MACS = {1: 250.7, 2: 225.2, 4: 212.4, 8: 206.1, 16: 202.9}
NINE_MACS = {2: 219.0, 4: 206.7, 8: 200.5, 16: 197.5}


@pytest.mark.parametrize("groups", GROUPS)
def test_nvmnet_with_ten_modules_costs_what_table_2_gives(groups: int) -> None:
    ten = cost("nvmnet_g4", groups=groups)
    assert ten.trainable == TEN[groups]
    assert round(ten.macs / MB, 1) == TEN_MACS[groups]
    assert trainable("nvmnet_g4", groups=groups, bn="none") == TEN[groups] - 896
    assert trainable(f"nvmnet_g{groups}") == TEN[groups]


@pytest.mark.parametrize("groups", GROUPS[1:])
def test_nvmnet_with_nine_modules_costs_what_table_5_gives(groups: int) -> None:
    nine = cost("nvmnet_g4", groups=groups, last_stage=2)
    assert nine.trainable == NINE[groups]
    assert round(nine.macs / MB, 1) == NINE_MACS[groups]
    plain = trainable("nvmnet_g4", groups=groups, last_stage=2, bn="none")
    assert plain == NINE[groups] - 768 == {2: 833_192, 4: 779_688, 8: 752_936, 16: 739_560}[groups]
    assert round(4 * plain / MB, 3) == {2: 3.333, 4: 3.119, 8: 3.012, 16: 2.958}[groups]
    assert (
        round(4 * (TEN[groups] - 896) / MB, 3) == {2: 4.023, 4: 3.760, 8: 3.628, 16: 3.563}[groups]
    )


def test_nvmnet_with_other_classes_and_stems() -> None:
    assert trainable("nvmnet_g4", classes=10) == 925_514
    assert trainable("nvmnet_g4", classes=1000) == 1_433_384
    wide = cost("nvmnet_g4", stem=7, last_stage=2)
    assert wide.trainable - NINE[4] == 7_680
    assert 0.30e9 <= wide.macs <= 0.31e9 <= cost("nvmnet_g4", stem=7).macs + 0.01e9


def test_with_equal_heads_squeezenet_is_smaller_than_nvmnet() -> None:
    assert trainable("squeezenet1_0", classes=40) == 755_944 < NINE[4] < TEN[4]


def test_nvmnet_for_small_images_keeps_its_weights_and_takes_32_pixels() -> None:
    small = create_model("nvmnet_g4", small=True, classes=10, seed=0).eval()
    assert trainable("nvmnet_g4", small=True, classes=10) == 925_514
    with torch.no_grad():
        assert small(torch.rand(1, 3, 32, 32)).shape == (1, 10)
        assert small(torch.rand(1, 3, 7, 7)).shape == (1, 10)
    with pytest.raises(MismatchError, match="7×7 or more, not 6×7"):
        small(torch.rand(1, 3, 6, 7))


def test_batch_norm_stands_where_the_argument_says() -> None:
    def norms(bn: str) -> int:
        net = create_model("nvmnet_g4", bn=bn)
        return sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())

    assert (norms("none"), norms("squeeze"), norms("all")) == (0, 10, 21)


def test_the_bias_before_the_batch_norm_is_a_choice() -> None:
    squeezed = 2 * 16 + 2 * 32 + 2 * 48 + 64 + 3 * 64
    assert trainable("nvmnet_g4") - trainable("nvmnet_g4", squeeze_bias=False) == squeezed


def test_wrong_modules_and_stems_are_refused() -> None:
    for arguments, text in (
        ({"last_stage": 0}, "last_stage of 1 or more, not 0"),
        ({"stem": 5}, "3 or 7 wide, not 5"),
        ({"groups": 3}, "3 groups do not divide"),
    ):
        with pytest.raises(MismatchError, match=text):
            create_model("nvmnet_g4", **arguments)


def test_rsenet_with_1000_classes_is_the_published_size_in_mebibytes() -> None:
    size = trainable("rsenet", classes=1000)
    assert size == 2_515_872
    assert round(4 * size / MIB, 3) == 9.597
    assert round(4 * size / MB, 3) == 10.063


@pytest.mark.parametrize(
    ("arguments", "weights", "macs"),
    few(
        [
            ({}, 2_008_002, 443_591_168),
            ({"groups": 2}, 2_334_146, None),
            ({"groups": 2, "reduction": 8}, 2_421_306, None),
            ({"groups": 1}, 2_986_434, 628_815_872),
            ({"groups": 1, "rmac_at": "nowhere"}, 2_986_434, 628_815_872),
        ],
        rows=True,
    ),
)
def test_rsenet_costs_what_the_specification_gives(
    arguments: dict[str, object], weights: int, macs: int | None
) -> None:
    found = cost("rsenet", **arguments)
    assert found.trainable == weights
    assert macs in (None, found.macs)


def test_rsenet_with_dense_shortcuts_is_another_reading_of_its_size() -> None:
    with torch.device("meta"):
        net = create_model("rsenet", reduction=4)
    shortcuts = [block.shortcut[0] for block in net.blocks if len([*block.shortcut.children()])]
    more = sum(conv.weight.numel() * (conv.groups - 1) for conv in shortcuts)
    assert trainable("rsenet", reduction=4) + more == 2_398_506
    assert round(4 * 2_398_506 / MB, 3) == 9.594


def test_rsenet_runs_through_the_sizes_of_table_3() -> None:
    with torch.device("meta"):
        net = create_model("rsenet").eval()
        sides = [x.shape[-1] for x in [net.stem(torch.empty(1, 3, 224, 224))]]
        x = net.stem(torch.empty(1, 3, 224, 224))
        for block in net.blocks:
            x = block(x)
            sides.append(x.shape[-1])
    assert sides == [57, 57, 57, 29, 29, 15, 15, 8, 8]
    small = create_model("rsenet", stem="cifar").eval()
    with torch.no_grad():
        assert small.blocks(small.stem(torch.rand(1, 3, 32, 32))).shape == (1, 512, 4, 4)


def test_rsenet_shuffles_nothing_and_has_regional_maxima_where_told() -> None:
    net = create_model("rsenet")
    assert not any(isinstance(part, ChannelShuffle) for part in net.modules())
    for place, pools in (("nowhere", 0), ("squeeze", 8), ("head", 1), ("both", 9)):
        with torch.device("meta"):
            net = create_model("rsenet", rmac_at=place, rmac_normalised=True)
        found = [part for part in net.modules() if type(part).__name__ == "RMAC"]
        assert len(found) == pools
        assert all(part.normalised for part in found)
        assert trainable("rsenet", rmac_at=place) == 2_008_002
