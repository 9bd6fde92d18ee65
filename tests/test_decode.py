"""From a file's bytes to pixels: every odd file is used rightly or refused."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oddities import Odd, judge, odd_files
from PIL import Image

from leancnn.errors import ImageError
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
    said = {case.kind: decode(case.path).warnings for case in odd if case.pixels is not None}
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


def test_the_background_shows_through_transparent_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(buffer, "PNG")
    preprocessing = Preprocessing(size=(4, 4), background=(1, 2, 3))
    picture = preprocessing.read(buffer.getvalue())
    assert (picture.image == [1, 2, 3]).all()
    assert picture.warnings == ("every pixel transparent",)


def test_a_photograph_is_decoded_whole_as_its_pixels_are() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((1000, 800), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    preprocessing = Preprocessing(size=(32, 32))
    full = preprocessing.of_array(np.asarray(decode(buffer.getvalue()).image))
    assert np.array_equal(preprocessing.read(buffer.getvalue()).image, full)


@given(st.text())
def test_a_shown_path_holds_nothing_a_terminal_obeys(name: str) -> None:
    assert shown(name).isprintable()
    assert shown(shown(name)) == shown(name)
