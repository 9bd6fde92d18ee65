"""layers: what several networks share, by laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn.errors import MismatchError
from leancnn.layers import ChannelShuffle, check_image, grouped_conv, initialise

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
    with pytest.raises(MismatchError, match=r"gaussian001, kaiming, not 'xavier'"):
        initialise(torch.nn.Conv2d(1, 1, 1), "xavier")
