"""Augmentation: pixels are moved, never made up; draws depend on (seed, epoch, index) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leancnn.data import _augment
from leancnn.data._augment import augment, below, draw, mix_share, order, partners


def pictures(n: int, h: int = 9, w: int = 7, c: int = 3) -> Tensor:
    """Every pixel of an image another colour, and none black."""
    values = torch.arange(1, n * h * w * c + 1) * 37 % 255 + 1
    return values.to(torch.uint8).view(n, h, w, c)


def slow(
    image: np.ndarray, index: int, *, size: tuple[int, int], pad: int, flip: bool
) -> np.ndarray:
    """What `augment` promises, image by image."""
    place = np.array([index])
    h, w = (image.shape[axis] + 2 * pad - size[axis] + 1 for axis in (0, 1))
    top = below(draw(3, 5, _augment.ROW, place), h)[0]
    left = below(draw(3, 5, _augment.COLUMN, place), w)[0]
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    window = padded[top : top + size[0], left : left + size[1]]
    mirrored = flip and draw(3, 5, _augment.FLIP, place)[0] >> np.uint64(63)
    return window[:, ::-1] if mirrored else window


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 7), st.integers(0, 4), st.booleans())
def test_a_batch_is_what_its_images_are_one_by_one(
    n: int, height: int, width: int, pad: int, flip: bool
) -> None:
    images, index = pictures(n), np.arange(n) * 11 + 2
    if not pad:
        images = images[:, :height, :width].contiguous()
    given_together = augment(
        images, index, size=(height, width), seed=3, epoch=5, pad=pad, flip=flip
    )
    for place in range(n):
        alone = slow(images[place].numpy(), index[place], size=(height, width), pad=pad, flip=flip)
        assert (given_together[place].numpy() == alone).all()


def test_what_happens_to_an_image_does_not_depend_on_its_batch() -> None:
    options = {"size": (8, 8), "seed": 1, "epoch": 2, "shift": 2, "flip": True, "cutout": 3}
    images, index = pictures(12, 9, 9), np.arange(12)
    whole = augment(images, index, **options)
    some = np.array([7, 3, 11])
    assert (augment(images[some], some, **options) == whole[some]).all()
    other = augment(images, index, **{**options, "epoch": 3})
    assert (other != whole).any()


def test_without_options_the_window_is_the_centre() -> None:
    images = pictures(4, 6, 9)
    cut = augment(images, np.arange(4), size=(5, 6), seed=0, epoch=0)
    assert (cut == images[:, 0:5, 1:7]).all()


def test_shift_moves_the_centre_window_by_so_much_and_no_more() -> None:
    images = pictures(1, 9, 9).expand(400, -1, -1, -1)
    moved = augment(images, np.arange(400), size=(5, 5), seed=0, epoch=0, shift=2)
    corners = {tuple(image[0, 0].tolist()) for image in moved}
    assert corners == {tuple(images[0, y, x].tolist()) for y in range(5) for x in range(5)}


def test_the_border_is_black_or_a_reflection() -> None:
    images = torch.arange(1, 5, dtype=torch.uint8).view(1, 1, 4, 1).expand(300, 1, 4, 1)
    index = np.arange(300)
    black = augment(images, index, size=(1, 4), seed=0, epoch=0, shift=2)
    assert {tuple(row.flatten().tolist()) for row in black} >= {(0, 0, 0, 0), (1, 2, 3, 4)}
    images = images.expand(300, 4, 4, 1)
    folded = augment(images, index, size=(4, 4), seed=0, epoch=0, shift=2, border="reflect")
    rows = {tuple(row.tolist()) for row in folded[:, 0, :, 0]}
    assert rows == {(3, 2, 1, 2), (2, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 3), (3, 4, 3, 2)}


def test_half_are_mirrored_and_twice_mirrored_is_as_before() -> None:
    images = pictures(2000, 2, 3)
    flipped = augment(images, np.arange(2000), size=(2, 3), seed=9, epoch=0, flip=True)
    mirrored = (flipped != images).flatten(1).any(1)
    assert 900 < int(mirrored.sum()) < 1100
    assert (flipped[mirrored].flip(2) == images[mirrored]).all()


def test_cutout_is_one_black_square() -> None:
    images = pictures(300, 12, 12)
    cut = augment(images, np.arange(300), size=(12, 12), seed=0, epoch=0, cutout=4)
    holes = (cut == 0).all(3)
    assert (cut == images)[~holes].all()
    sizes = holes.any(2).sum(1) * holes.any(1).sum(1)
    assert (sizes == holes.sum((1, 2))).all()  # a rectangle
    assert int(sizes.max()) == 16
    assert int(sizes.min()) >= 4  # its centre lies inside the image


@given(st.integers(1, 200), st.integers(-(2**70), 2**70), st.integers(0, 1000))
def test_an_order_holds_every_image_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(order(seed, epoch, count)) == list(range(count))


def test_orders_differ_by_seed_and_epoch_and_repeat() -> None:
    first = order(1, 1, 100)
    assert (first == order(1, 1, 100)).all()
    assert (first != order(1, 2, 100)).any()
    assert (first != order(2, 1, 100)).any()


def test_draws_are_pinned_for_ever() -> None:
    """A change here would change what every seed means, and break the resume of older runs."""
    bits = draw(1, 2, 3, np.array([4, 5]))
    assert [hex(value) for value in bits] == PINNED
    assert hex(_augment._mix(np.array([0], np.uint64))[0]) == "0xe220a8397b1dcdaf"  # splitmix64(0)


PINNED = ["0x3c16ecb69a272e40", "0xd25b207ea2004d6a"]


def test_draws_look_uniform() -> None:
    bits = draw(0, 0, _augment.ROW, np.arange(20_000))
    counts = np.bincount(below(bits, 10), minlength=10)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)
    ones = np.unpackbits(bits.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.002
    other = draw(0, 0, _augment.COLUMN, np.arange(20_000))
    together = np.corrcoef(bits.astype(float), other.astype(float))[0, 1]
    assert abs(together) < 0.04


def test_mixup_keeps_the_larger_share_and_swaps_neighbours() -> None:
    shares = [mix_share(0, 0, step, 1.0) for step in range(200)]
    assert 0.5 <= min(shares) < 0.55
    assert 0.95 < max(shares) <= 1
    assert partners(torch.arange(5)).tolist() == [1, 0, 3, 2, 4]
    images = pictures(6)
    assert (partners(partners(images)) == images).all()


@pytest.mark.parametrize("dtype", [torch.uint8])
def test_the_type_and_the_number_of_channels_stay(dtype: torch.dtype) -> None:
    cut = augment(pictures(2, c=1), np.arange(2), size=(5, 5), seed=0, epoch=0, pad=2)
    assert cut.dtype == dtype
    assert cut.shape == (2, 5, 5, 1)


STRONG = {"size": (8, 8), "seed": 1, "epoch": 2, "rotate": 30.0, "zoom": 0.4, "colour": 0.5}


def test_turns_scales_and_colours_of_an_image_do_not_depend_on_its_batch() -> None:
    images, index = pictures(16, 11, 12), np.arange(16)
    for border in ("black", "reflect"):
        whole = augment(images, index, border=border, flip=True, cutout=2, **STRONG)
        for rows in (np.array([7]), np.array([15, 3, 11])):
            alone = augment(images[rows], rows, border=border, flip=True, cutout=2, **STRONG)
            assert (alone == whole[rows]).all()
    assert (augment(images, index, **STRONG) == augment(images, index, **STRONG)).all()
    assert (augment(images, index, **{**STRONG, "epoch": 3}) != whole).any()


def test_next_to_no_turn_is_none() -> None:
    images, index = pictures(9, 10, 10), np.arange(9)
    still = augment(images, index, size=(8, 8), seed=1, epoch=2, pad=1, flip=True)
    turned = augment(
        images, index, size=(8, 8), seed=1, epoch=2, pad=1, flip=True, rotate=1e-9, zoom=1e-12
    )
    assert (turned == still).all()


def test_a_window_is_turned_about_its_centre_by_the_angle_that_was_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By −90° when the draw is all zeros: a quarter turn is exact, and so is a reflection."""
    images = pictures(2, 7, 7)
    monkeypatch.setattr(_augment, "draw", lambda s, e, stream, index: np.zeros(len(index), "u8"))
    quarter = augment(images, np.arange(2), size=(7, 7), seed=0, epoch=0, rotate=90)
    assert (quarter == torch.rot90(images, -1, (1, 2))).all() or (
        quarter == torch.rot90(images, 1, (1, 2))
    ).all()
    half = augment(images, np.arange(2), size=(7, 7), seed=0, epoch=0, rotate=180)
    assert (half == images.flip(1, 2)).all()


def test_zoom_doubles_or_halves_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright square of 4 pixels in the middle becomes one of 8, or of 2."""
    image = torch.zeros(1, 16, 16, 1, dtype=torch.uint8)
    image[:, 6:10, 6:10] = 255
    for bits, side in ((0, 2), (2**64 - 1, 8)):
        monkeypatch.setattr(_augment, "draw", lambda *a, b=bits: np.full(len(a[3]), b, np.uint64))
        seen = augment(image, np.arange(1), size=(16, 16), seed=0, epoch=0, zoom=1.0)
        assert float(seen.float().sum() / 255) == pytest.approx(side**2, rel=0.02)


def test_colour_changes_brightness_contrast_and_saturation_each_by_its_share() -> None:
    index = np.arange(2000)
    flat = torch.full((2000, 2, 2, 1), 100, dtype=torch.uint8)
    bright = augment(flat, index, size=(2, 2), seed=0, epoch=0, colour=0.4)[:, 0, 0, 0]
    assert (int(bright.min()), int(bright.max())) == (60, 140)
    assert abs(float(bright.float().mean()) - 100) < 2
    gray = torch.arange(2000 * 3 * 3).view(2000, 3, 3, 1).to(torch.uint8).expand(-1, -1, -1, 3)
    still_gray = augment(gray.contiguous(), index, size=(3, 3), seed=0, epoch=0, colour=1.0)
    assert (still_gray == still_gray[..., :1]).all()
    red = torch.zeros(2000, 1, 1, 3, dtype=torch.uint8)
    red[..., 0] = 200
    seen = augment(red, index, size=(1, 1), seed=0, epoch=0, colour=0.5)
    assert int((seen[..., 1] > 0).sum()) > 500, "less saturated, it has some green"
    assert int((seen[..., 1] == 0).sum()) > 500


def test_cutout_is_black_whatever_the_colours_become() -> None:
    images = pictures(40, 12, 12)
    cut = augment(images, np.arange(40), size=(12, 12), seed=0, epoch=0, cutout=4, colour=0.3)
    plain = augment(images, np.arange(40), size=(12, 12), seed=0, epoch=0, cutout=4)
    assert (cut[(plain == 0).all(3)] == 0).all()
