"""The road from a file to a network's input: exact where it can be, refused where it must be."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oddities import Odd, judge, odd_files
from PIL import Image

from leancnn.errors import ImageError, MismatchError
from leancnn.preprocess import Preprocessing, decode, shown

ROUNDS = 4


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[Odd]:
    return list(odd_files(tmp_path_factory.mktemp("odd"), 1))


def ours(path: Path) -> "np.ndarray[Any, Any]":
    return np.asarray(decode(path).image.convert("RGB"))


def naive(path: Path) -> "np.ndarray[Any, Any]":
    """What anyone would write, with every exception caught."""
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except Exception as error:
        raise ImageError(str(error)) from error


def test_every_odd_file_is_used_rightly_or_refused(odd: list[Odd]) -> None:
    assert {case.kind: judge(ours, case) for case in odd} == {
        case.kind: "refused" if case.pixels is None else "right" for case in odd
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow's, about bombs the naive reader opens
def test_hundreds_of_odd_files_are_right_or_refused_and_a_naive_reader_damages_many(
    tmp_path: Path,
) -> None:
    cases = list(odd_files(tmp_path, ROUNDS))
    assert len(cases) >= 200
    assert len({case.kind for case in cases}) >= 20
    verdicts = [judge(ours, case) for case in cases]
    assert set(verdicts) == {"right", "refused"}
    control = [judge(naive, case) for case in cases if case.kind not in ("pipe", "bomb png")]
    assert control.count("damaged") > len(control) / 4


def test_a_refusal_names_the_file_the_reason_and_what_to_do(odd: list[Odd]) -> None:
    for case in odd:
        if case.pixels is None:
            with pytest.raises(ImageError) as caught:
                ours(case.path)
            text = str(caught.value)
            assert text.startswith(f"{case.path}: ")
            assert ";" in text
            assert "\n" not in text


def test_what_was_done_to_a_file_is_said(odd: list[Odd]) -> None:
    said = {case.kind: decode(case.path).notes for case in odd if case.pixels is not None}
    assert said["16-bit png"] == ("16-bit scaled to 8",)
    assert said["turned jpg"] == ("EXIF orientation applied",)
    assert said["animated gif"] == ("first frame of several",)
    assert said["rgba png"] == ("alpha composited on the background",)
    assert said["cmyk jpeg"] == ("CMYK converted to RGB",)
    assert said["misnamed"] == ("suffix of another format",)
    assert said["ppm"] == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_flipped_bits_and_cuts_never_escape_as_another_error(kind: str) -> None:
    rng = random.Random(kind)
    buffer = io.BytesIO()
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3)).save(buffer, kind)
    data = buffer.getvalue()
    before = np.asarray(decode(data).image)
    for _ in range(150):
        broken = bytearray(data)
        place = rng.randrange(len(data))
        broken[place] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            del broken[place:]
        try:
            after = np.asarray(decode(bytes(broken)).image)
        except ImageError:
            continue
        if kind == "PNG":  # it has checksums, so nothing may change unseen
            np.testing.assert_array_equal(after, before)


sides = st.integers(1, 40)
roads = st.builds(
    lambda h, w, channels, fit: Preprocessing(size=(h, w), channels=channels, fit=fit),
    *(sides, sides, st.sampled_from([1, 3]), st.sampled_from(["cover", "contain", "stretch"])),
)


@given(roads, sides, sides, st.integers(0, 255), st.sampled_from([(), (1,), (3,)]))
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


@given(roads, st.integers(0, 2**32 - 1))
def test_a_picture_of_the_right_size_keeps_its_exact_pixels(
    preprocessing: Preprocessing, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, preprocessing.shape, np.uint8)
    np.testing.assert_array_equal(preprocessing.of_array(image), image)
    batch = image[None]
    assert preprocessing.of_arrays(batch) is batch


@settings(max_examples=30)
@given(roads, sides, sides, st.integers(0, 2**32 - 1))
def test_files_and_arrays_travel_the_same_road(
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


def test_the_background_shows_through_transparent_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(buffer, "PNG")
    preprocessing = Preprocessing(size=(4, 4), background=(1, 2, 3))
    picture = preprocessing.read(buffer.getvalue())
    assert (picture.image == [1, 2, 3]).all()
    assert picture.notes == ("every pixel transparent",)


def test_a_photograph_is_decoded_whole_as_its_pixels_are() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((1000, 800), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    preprocessing = Preprocessing(size=(32, 32))
    full = preprocessing.of_array(np.asarray(decode(buffer.getvalue()).image))
    assert np.array_equal(preprocessing.read(buffer.getvalue()).image, full)


def test_rows_are_scaled_before_columns_however_tall_the_picture() -> None:
    tall = np.random.default_rng(0).integers(0, 256, (61, 50)).astype(np.uint8)
    image = Image.fromarray(tall).resize((40, 61), Image.Resampling.BILINEAR)
    expected = image.resize((40, 40), Image.Resampling.BILINEAR)
    preprocessing = Preprocessing(size=(40, 40), channels=1, fit="stretch")
    np.testing.assert_array_equal(preprocessing.of_array(tall)[:, :, 0], expected)


@given(roads)
def test_a_road_survives_json(preprocessing: Preprocessing) -> None:
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
def test_a_road_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MismatchError):
        Preprocessing.from_json(wrong)


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.uint8(3)])
def test_arrays_that_are_no_uint8_images_are_refused(array: Any) -> None:
    with pytest.raises(MismatchError, match="uint8"):
        Preprocessing(size=(2, 2)).of_array(array)


@given(st.text())
def test_a_shown_path_holds_nothing_a_terminal_obeys(name: str) -> None:
    assert shown(name).isprintable()
    assert shown(shown(name)) == shown(name)
