"""The way from a file to a network's input: exact where it can be, refused where it must be."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leancnn.errors import MismatchError
from leancnn.preprocess import Preprocessing

sides = st.integers(1, 40)
preprocessings = st.builds(
    lambda h, w, channels, fit: Preprocessing(size=(h, w), channels=channels, fit=fit),
    *(sides, sides, st.sampled_from([1, 3]), st.sampled_from(["cover", "contain", "stretch"])),
)


@given(preprocessings, sides, sides, st.integers(0, 255), st.sampled_from([(), (1,), (3,)]))
def test_an_even_picture_stays_even_at_any_size(
    preprocessing: Preprocessing, h: int, w: int, value: int, depth: tuple[int, ...]
) -> None:
    out = preprocessing.of_array(np.full((h, w, *depth), value, np.uint8))
    assert out.shape == preprocessing.shape
    assert out.dtype == np.uint8
    if preprocessing.fit == "contain":
        assert set(np.unique(out)) <= {value, 255}
    else:
        assert (out == value).all()


@given(preprocessings, st.integers(0, 2**32 - 1))
def test_a_picture_of_the_right_size_keeps_its_exact_pixels(
    preprocessing: Preprocessing, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, preprocessing.shape, np.uint8)
    np.testing.assert_array_equal(preprocessing.of_array(image), image)
    batch = image[None]
    assert preprocessing.of_arrays(batch) is batch


@settings(max_examples=30)
@given(preprocessings, sides, sides, st.integers(0, 2**32 - 1))
def test_files_and_arrays_become_the_same(
    preprocessing: Preprocessing, h: int, w: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    np.testing.assert_array_equal(
        preprocessing.read(buffer.getvalue()).image, preprocessing.of_array(image)
    )
    np.testing.assert_array_equal(
        preprocessing.of_arrays(image[None])[0], preprocessing.of_array(image)
    )


@given(sides, sides, st.integers(0, 9), st.integers(0, 9))
def test_the_window_is_the_centre_and_a_view(h: int, w: int, down: int, right: int) -> None:
    preprocessing = Preprocessing(size=(h, w), scale=(h + down, w + right), channels=1)
    images = np.arange((h + down) * (w + right), dtype=np.int64).astype(np.uint8)
    images = images.reshape(1, *preprocessing.scale, 1)
    window = preprocessing.window(images)
    assert window.shape == (1, h, w, 1)
    assert np.shares_memory(window, images)
    assert window[0, 0, 0, 0] == images[0, down // 2, right // 2, 0]


def test_cover_keeps_the_centre_and_contain_keeps_all() -> None:
    bands = np.repeat(np.array([10, 100, 200], np.uint8), 8)[None, :].repeat(8, 0)  # 8×24
    cover = Preprocessing(size=(8, 8), channels=1).of_array(bands)
    assert (cover == 100).all()
    contain = Preprocessing(
        size=(24, 24), channels=1, fit="contain", background=(0, 0, 0)
    ).of_array(bands)
    np.testing.assert_array_equal(contain[8:16, :, 0], bands)
    assert not contain[:8].any()
    assert not contain[16:].any()


def test_rows_are_scaled_before_columns_however_tall_the_picture() -> None:
    tall = np.random.default_rng(0).integers(0, 256, (61, 50)).astype(np.uint8)
    image = Image.fromarray(tall).resize((40, 61), Image.Resampling.BILINEAR)
    expected = image.resize((40, 40), Image.Resampling.BILINEAR)
    preprocessing = Preprocessing(size=(40, 40), channels=1, fit="stretch")
    np.testing.assert_array_equal(preprocessing.of_array(tall)[:, :, 0], expected)


@given(preprocessings)
def test_preprocessing_survives_json(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 5)},
        {"size": (5,)},
        {"size": 31},
        {"size": "31"},
        {"size": (31.5, 31)},
        {"size": (5, 5), "scale": (4, 9)},
        {"size": (5, 5), "channels": 2},
        {"size": (5, 5), "fit": "squeeze"},
        {"size": (5, 5), "background": (0, 0, 256)},
        {"size": (5, 5), "colour": 3},
        {"size": "ab"},
    ],
)
def test_preprocessing_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MismatchError):
        Preprocessing.from_json(wrong)


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.uint8(3)])
def test_arrays_that_are_no_uint8_images_are_refused(array: Any) -> None:
    with pytest.raises(MismatchError, match="uint8"):
        Preprocessing(size=(2, 2)).of_array(array)
