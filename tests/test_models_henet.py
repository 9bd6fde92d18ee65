"""The HENet paper's two networks: every integer we resolved, and how the shuffle mixes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn.count import Cost, count
from leancnn.errors import MismatchError
from leancnn.models import create_model
from leancnn.models.henet import DOWN, STAGES, WIDTH, Block, Down, complementary_groups

AT_31 = (3, 31, 31)


def cost(name: str, **arguments: object) -> Cost:
    with torch.device("meta"):
        return count(create_model(name, **arguments), AT_31)


@pytest.mark.parametrize(
    ("repeat", "bias", "plain", "hundred", "macs", "buffers", "kilobytes"),
    [
        (2, 68_626, 67_282, 85_996, 7_125_576, 2_688, 274.5),
        (3, 87_058, 85_378, 104_428, 10_046_040, 3_360, 348.2),
        (4, 105_490, 103_474, 122_860, 12_966_504, 4_032, 422.0),
    ],
)
def test_henet_costs_what_the_authors_files_give(
    repeat: int, bias: int, plain: int, hundred: int, macs: int, buffers: int, kilobytes: float
) -> None:
    ten = cost("henet_r3", repeat=repeat)
    assert (ten.trainable, ten.macs, ten.buffers, ten.frozen) == (bias, macs, buffers, 0)
    assert round(ten.bytes / 1000, 1) == kilobytes
    assert cost("henet_r3", repeat=repeat, conv_bias=False).trainable == plain
    assert cost("henet_r3", repeat=repeat, classes=100).trainable == hundred
    assert cost(f"henet_r{repeat}") == ten


@pytest.mark.parametrize(
    ("repeat", "dense", "dense_hundred", "printed", "printed_hundred"),
    [
        (2, 507_154, 524_524, 507, 524),
        (3, 641_218, 658_588, 641, 658),
        (4, 775_282, 792_652, 775, 792),
    ],
)
def test_the_papers_parameter_column_is_the_count_without_groups(
    repeat: int, dense: int, dense_hundred: int, printed: int, printed_hundred: int
) -> None:
    assert cost("henet_r3", repeat=repeat).dense == dense
    assert cost("henet_r3", repeat=repeat, classes=100).dense == dense_hundred
    assert (dense // 1000, dense_hundred // 1000) == (printed, printed_hundred)


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_one_more_repeat_costs_the_same_everywhere(repeat: int) -> None:
    less, more = cost("henet_r3", repeat=repeat), cost("henet_r3", repeat=repeat + 1)
    assert more.trainable - less.trainable == 18_432 == 17_424 + 336 + 672
    assert more.macs - less.macs == 2_920_464


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        (Block(24, 24, conv_bias=False), (96, 1_296)),
        (Block(48, 24, conv_bias=False), (192, 1_296)),
        (Down(*(WIDTH * times for times in DOWN[0]), conv_bias=False), (1_728, 288)),
        (Block(48, 48, conv_bias=False), (288, 3_456)),
        (Block(96, 48, conv_bias=False), (576, 3_456)),
        (Down(*(WIDTH * times for times in DOWN[1]), conv_bias=False), (5_184, 768)),
        (Block(96, 96, conv_bias=False), (768, 10_368)),
        (Block(192, 96, conv_bias=False), (1_536, 10_368)),
        (Down(*(WIDTH * times for times in DOWN[2]), conv_bias=False), (10_368, 768)),
        (Down(*(WIDTH * times for times in DOWN[3]), conv_bias=False), (6_912, 2_304)),
        (create_model("shufflenet_r2").stem, (648,)),
        *zip(
            create_model("shufflenet_r2").units,
            [
                (192, 216, 384),
                (384, 216, 384),
                (384, 216, 384),
                *2 * [(1_536, 432, 1_536)],
                (1_536, 432, 1_536),
                *2 * [(6_144, 864, 6_144)],
            ],
            strict=True,
        ),
    ],
)
def test_each_layer_has_the_weights_of_the_table(
    part: torch.nn.Module, weights: tuple[int, ...]
) -> None:
    found = [m.weight.numel() for m in part.modules() if isinstance(m, torch.nn.Conv2d)]
    assert tuple(found) == weights


def test_each_layer_has_the_multiply_accumulates_of_the_table() -> None:
    with torch.device("meta"):
        net = create_model("henet_r2").eval()
        found: list[int] = []

        def add(layer: torch.nn.Module, given: object, out: torch.Tensor) -> None:
            found.append(out.numel() * layer.weight[0].numel())

        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(add)
        net(torch.empty(1, *AT_31))
    assert found == [
        622_728,
        *(92_256, 1_245_456, 184_512, 1_245_456, 388_800, 64_800),
        *(64_800, 777_600, 129_600, 777_600, 254_016, 37_632),
        *(37_632, 508_032, 75_264, 508_032, 93_312, 6_912),
        *(6_912, 2_304, 1_920),
    ]
    assert 92_256 + 64_800 + 37_632 == 194_688  # more, if first blocks read 2C as in Table 1
    macs = [7_125_576, 10_046_040, 12_966_504]
    assert [round((n + 194_688) / 1e6, 3) for n in macs] == [7.320, 10.241, 13.161]


def test_the_dense_count_is_the_sum_of_its_parts() -> None:
    with torch.device("meta"):
        net = create_model("henet_r3")
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    parts = (
        sum(conv.weight.numel() * conv.groups for conv in convs),
        sum(conv.bias.numel() for conv in convs),
        sum(norm.weight.numel() + norm.bias.numel() for norm in norms),
        net.fc.weight.numel(),
        net.fc.bias.numel(),
    )
    assert parts == (634_248, 1_680, 3_360, 1_920, 10)
    assert sum(parts) == 641_218


def test_the_group_rule_gives_the_pairs_of_the_paper() -> None:
    assert [complementary_groups(width) for width in (24, 48, 96, 192, 64)] == [
        (6, 4),
        (8, 6),
        (12, 8),
        (16, 12),
        (16, 4),
    ]


@given(st.integers(2, 2000))
def test_the_group_rule_is_the_closest_pair_of_unequal_divisors(width: int) -> None:
    m, n = complementary_groups(width)
    assert m * n == width
    assert m > n
    assert not [d for d in range(n + 1, width) if width % d == 0 and width // d > d]


@pytest.mark.parametrize("width", [WIDTH * times for times in STAGES])
def test_after_the_shuffle_every_group_holds_one_channel_of_each_group_before(width: int) -> None:
    m, n = complementary_groups(width)
    came_from_group = torch.arange(width).float() // (width // m)
    mixed = Block(width, width, conv_bias=False).shuffle(came_from_group.view(1, width, 1, 1))
    for group in mixed.view(n, m):
        assert sorted(group.tolist()) == list(range(m))


@pytest.mark.parametrize("size", [31, 32, 46])
def test_henet_ends_on_one_pixel_from_31_to_46(size: int) -> None:
    net = create_model("henet_r2", seed=0).eval()
    x = net.conv1(torch.rand(1, 3, size, size))
    for stage, down in zip(net.stages, net.downs, strict=False):
        x = down(stage(x))
    assert net.downs[-1](x).shape == (1, 192, 1, 1)


def test_larger_images_need_a_word_of_consent() -> None:
    with pytest.raises(MismatchError, match="47×31"):
        create_model("henet_r2")(torch.rand(2, 3, 47, 31))
    net = create_model("henet_r2", allow_any_size=True)
    assert net(torch.rand(2, 3, 64, 47)).shape == (2, 10)


@pytest.mark.parametrize(
    ("repeat", "trainable", "hundred", "macs", "dense", "printed"),
    [
        (2, 45_466, 62_836, 6_143_136, 357_250, (357, 6.1)),
        (3, 64_450, 81_820, 8_521_608, 515_842, (515, 8.5)),
        (4, 83_434, 100_804, 10_900_080, 674_434, (674, 10.9)),
        (5, 102_418, 119_788, 13_278_552, 833_026, (833, 13.3)),
    ],
)
def test_the_comparator_reproduces_all_eight_figures_of_the_paper(
    repeat: int, trainable: int, hundred: int, macs: int, dense: int, printed: tuple[int, float]
) -> None:
    ten = cost(f"shufflenet_r{repeat}")
    assert (ten.trainable, ten.macs, ten.dense, ten.frozen) == (trainable, macs, dense, 0)
    assert (ten.dense // 1000, round(ten.macs / 1e6, 1)) == printed
    assert cost("shufflenet_r3", repeat=repeat, classes=100).trainable == hundred


def test_the_one_figure_that_the_paper_misses_is_known() -> None:
    assert cost("shufflenet_r3", classes=100).dense == 533_212  # printed: 532K


def test_the_papers_comparison_of_sizes_softens_when_groups_count() -> None:
    he, shuffle = cost("henet_r2"), cost("shufflenet_r5")
    assert round(100 * he.dense / shuffle.dense, 1) == 60.9
    assert round(100 * he.trainable / shuffle.trainable, 1) == 67.0
