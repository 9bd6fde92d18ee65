"""layers: what several networks share, by laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn.errors import MismatchError
from leancnn.layers import (
    RMAC,
    RMAC_MODES,
    ChannelShuffle,
    LocalBinaryConv2d,
    SqueezeExcite,
    check_image,
    draw_ternary,
    grouped_conv,
    initialise,
    ternary_codes,
    ternary_kernels,
)
from leancnn.regions import rmac_windows

sizes = st.integers(1, 8)


@given(sizes, sizes)
def test_a_shuffle_moves_channels_as_its_rule_says(groups: int, n: int) -> None:
    x = torch.arange(groups * n).view(1, -1, 1, 1)
    y = ChannelShuffle(groups)(x).flatten()
    for g in range(groups):
        for i in range(n):
            assert y[i * groups + g] == g * n + i


@given(sizes, sizes)
def test_a_shuffle_is_undone_by_its_partner(groups: int, n: int) -> None:
    x = torch.arange(2 * groups * n * 6).view(2, groups * n, 2, 3)
    assert torch.equal(ChannelShuffle(n)(ChannelShuffle(groups)(x)), x)


def test_groups_that_do_not_divide_are_named_in_the_error() -> None:
    for c_in, c_out, groups in ((24, 48, 5), (25, 48, 6), (24, 50, 6), (24, 48, 0)):
        with pytest.raises(MismatchError, match=f"{groups} groups do not divide {c_in} → {c_out}"):
            grouped_conv(c_in, c_out, 1, groups=groups)
    with pytest.raises(MismatchError, match="1 or more channels, not 3 → 0"):
        grouped_conv(3, 0, 1)
    with pytest.raises(MismatchError, match="5 groups do not divide 12 channels"):
        ChannelShuffle(5)(torch.zeros(1, 12, 2, 2))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3, 31, 31), r"not a shape of \(3, 31, 31\)"),
        ((1, 1, 31, 31), "built for 3 channels, not 1"),
        ((1, 3, 30, 31), "31×31 or more, not 30×31"),
        ((1, 3, 31, 47), "not for 31×47"),
    ],
)
def test_an_image_that_cannot_be_taken_is_refused_with_numbers(
    shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(MismatchError, match=text):
        check_image(torch.zeros(shape), "net", channels=3, smallest=31, largest=46)


def test_an_unknown_way_to_draw_weights_lists_the_known_ones() -> None:
    with pytest.raises(MismatchError, match=r"gaussian001, kaiming, fan_in, not 'xavier'"):
        initialise(torch.nn.Conv2d(1, 1, 1), "xavier")


@pytest.mark.parametrize("mode", RMAC_MODES)
def test_regional_maxima_are_the_plain_sum_of_unit_vectors(mode: str) -> None:
    x = torch.rand(2, 5, 8, 11)
    expected = torch.zeros(2, 5)
    for top, left, rows, columns in rmac_windows(8, 11, mode):
        peak = x[:, :, top : top + rows, left : left + columns].flatten(2).amax(2)
        expected += peak / peak.norm(dim=1, keepdim=True)
    assert torch.allclose(RMAC(mode)(x), expected, atol=1e-5)
    unit = RMAC(mode, normalised=True)(x)
    assert torch.allclose(unit, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


def test_regional_maxima_of_nothing_are_nothing() -> None:
    assert RMAC()(torch.zeros(1, 3, 4, 4)).tolist() == [[0, 0, 0]]


def test_a_gate_scales_whole_channels_by_shares() -> None:
    gate = SqueezeExcite(6, 2)
    x = torch.rand(3, 6, 4, 5) + 0.5
    shares = (gate(x) / x).flatten(2)
    assert torch.allclose(shares.amin(2), shares.amax(2), atol=1e-6)
    assert shares.min() > 0
    assert shares.max() < 1
    with pytest.raises(MismatchError, match="6 channels"):
        SqueezeExcite(6, 0)


@given(st.integers(0, 2**16), st.sampled_from((0.05, 0.5, 1.0)))
@settings(max_examples=20)
def test_drawn_kernels_are_ternary_and_never_silent(seed: int, density: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kernels = draw_ternary(50, density)
    assert kernels.dtype == torch.int8
    assert kernels.shape == (50, 1, 3, 3)
    assert set(kernels.unique().tolist()) <= {-1, 0, 1}
    assert kernels.flatten(1).any(1).all()


def test_silent_kernels_stay_where_none_is_drawn_again() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sparse = LocalBinaryConv2d(1_000, density=0.02, redraw=False).weight
    silent = sparse.flatten(1).eq(0).all(1).float().mean()
    assert silent == pytest.approx(0.98**9, abs=0.05)


def test_the_density_is_the_share_of_entries_that_are_not_zero() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kernels = draw_ternary(20_480, 0.5).float()
    assert kernels.abs().mean().item() == pytest.approx(0.5, abs=0.005)
    assert kernels.mean().item() == pytest.approx(0, abs=0.01)
    distinct = len(set(ternary_codes(kernels.to(torch.int8)).to(torch.int32).tolist()))
    assert 9_400 < distinct < 9_800  # far fewer kernels than channels
    for density in (0.0, 1e-9, 1.1):
        with pytest.raises(MismatchError, match=str(density)):
            LocalBinaryConv2d(4, density=density)


def test_a_kernel_packs_into_fifteen_bits_and_back() -> None:
    every = ternary_kernels(torch.arange(3**9, dtype=torch.int32).to(torch.uint16))
    assert len(every.flatten(1).unique(dim=0)) == 3**9
    codes = ternary_codes(every)
    assert codes.dtype == torch.uint16
    assert codes.to(torch.int32).tolist() == list(range(3**9))
    assert 3**9 <= 2**15
    with pytest.raises(MismatchError, match="19683"):
        ternary_kernels(torch.tensor([19_683], dtype=torch.int32))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_local_binary_convolution_is_a_fixed_depthwise_one(stride: int) -> None:
    layer = LocalBinaryConv2d(6, stride=stride)
    assert not list(layer.parameters())
    x = torch.rand(2, 6, 9, 7, requires_grad=True)
    plain = torch.nn.Conv2d(6, 6, 3, stride, 1, groups=6, bias=False)
    plain.weight.data = layer.weight.float()
    y = layer(x)
    assert torch.equal(y, plain(x))
    y.sum().backward()
    assert x.grad is not None
    assert layer.double()(x.double()).dtype == torch.float64
