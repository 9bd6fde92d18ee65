"""The C that scales a picture gives the pixels that training saw, bit for bit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.graph import Reduce, empty
from leancnn.compiler.translate import translate
from leancnn.errors import MismatchError
from leancnn.preprocess import Preprocessing
from leancnn.toolchain import FAST_FLAGS, compile_library
from tests.few import few

PREPROCESSINGS = {
    "cover": Preprocessing(size=(31, 31), scale=(36, 36)),
    "cover, wide": Preprocessing(size=(9, 40)),
    "cover, grey": Preprocessing(size=(28, 28), channels=1),
    "contain": Preprocessing(size=(32, 32), fit="contain", background=(200, 10, 77)),
    "contain, window": Preprocessing(
        size=(20, 13), scale=(24, 33), fit="contain", background=(1, 2, 3)
    ),
    "contain, grey": Preprocessing(
        size=(17, 33), channels=1, fit="contain", background=(200, 10, 77)
    ),
    "stretch": Preprocessing(size=(70, 45), fit="stretch"),
    "one pixel": Preprocessing(size=(1, 1), fit="stretch"),
}


def written(preprocessing, *, about=True):
    """A C file that scales pictures for `preprocessing` and takes the mean of each channel."""
    graph = empty((preprocessing.channels, *preprocessing.size))
    graph.output = graph.add(Reduce("mean", "pixels"), graph.input, name="mean")
    return translate(
        graph,
        name="mean_of",
        classes=[f"channel {number}" for number in range(preprocessing.channels)],
        mean=[0.0] * preprocessing.channels,
        std=[1.0] * preprocessing.channels,
        about=json.dumps({"preprocessing": preprocessing.to_json()}) if about else "",
    )


@pytest.fixture(scope="module")
def natives():
    sources = {
        name: written(preprocessing).source for name, preprocessing in PREPROCESSINGS.items()
    }
    return {
        name: CompiledNetwork(compile_library(text, name="mean_of"))
        for name, text in sources.items()
    }


def noise(height, width, channels, seed=0):
    """A picture of all values, with smooth parts."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
    picture[: height // 2] = np.linspace(0, 255, width).astype(np.uint8)[:, None]
    return picture


@pytest.mark.parametrize("name", few(PREPROCESSINGS))
@given(
    height=some.integers(1, 300), width=some.integers(1, 300), channels=some.sampled_from((1, 3))
)
@settings(max_examples=40, deadline=None)
def test_any_size_is_scaled_to_the_bits_of_python(natives, name, height, width, channels):
    picture = noise(height, width, channels, seed=height * 301 + width)
    preprocessing = PREPROCESSINGS[name]
    expected = preprocessing.window(preprocessing.of_array(picture)[None])[0]
    assert np.array_equal(natives[name].preprocess(picture), expected)


@pytest.mark.parametrize("shape", few([(3000, 4000), (1, 9000), (9000, 1), (1500, 1501)]))
@pytest.mark.parametrize("name", few(["cover", "contain", "stretch"]))
def test_photographs_and_slivers_are_scaled_to_the_bits_of_python(natives, name, shape):
    picture, preprocessing = noise(*shape, 3), PREPROCESSINGS[name]
    expected = preprocessing.window(preprocessing.of_array(picture)[None])[0]
    assert np.array_equal(natives[name].preprocess(picture), expected)


@pytest.mark.parametrize("name", ["cover", "contain", "cover, grey", "contain, grey"])
def test_transparent_pixels_get_the_background_as_in_decoding(natives, name):
    picture, preprocessing = noise(90, 61, 4), PREPROCESSINGS[name]
    page = Image.new("RGBA", (61, 90), (*preprocessing.background, 255))
    flat = Image.alpha_composite(page, Image.fromarray(picture, "RGBA")).convert("RGB")
    expected = preprocessing.window(preprocessing.of_array(np.asarray(flat))[None])[0]
    assert np.array_equal(natives[name].preprocess(picture), expected)


def test_the_order_of_colours_and_gaps_between_rows_can_be_said(natives):
    native, picture = natives["cover"], noise(50, 40, 4)
    picture[..., 3] = 255
    expected = native.preprocess(picture)
    for layout, order in ((3, (0, 1, 2)), (-3, (2, 1, 0)), (-4, (2, 1, 0, 3)), (4, (0, 1, 2, 3))):
        wide = np.zeros((50, 300), np.uint8)
        wide[:, : 40 * len(order)] = picture[..., order].reshape(50, -1)
        image = np.empty((31, 31, 3), np.uint8)
        assert native._preprocess(layout, wide.ctypes.data, 40, 50, 300, image.ctypes.data)
        assert np.array_equal(image, expected)


def test_what_cannot_be_scaled_is_refused(natives):
    native = natives["cover"]
    for wrong in (noise(0, 4, 3), noise(4, 4, 2), noise(4, 4, 3).astype(np.int16)):
        with pytest.raises(MismatchError, match="picture"):
            native.preprocess(wrong)
    with pytest.raises(MismatchError, match="too large"):
        natives["one pixel"].preprocess(noise(1, 5000, 3))


def test_a_network_of_unknown_preprocessing_has_none_and_it_can_be_left_out():
    preprocessing = PREPROCESSINGS["cover"]
    bare = written(preprocessing, about=False)
    assert "_preprocess" not in bare.source + bare.header
    flags = (*FAST_FLAGS, "-DLEANCNN_NO_PREPROCESS")
    native = CompiledNetwork(
        compile_library(written(preprocessing).source, name="mean_of", flags=flags)
    )
    with pytest.raises(MismatchError, match="does not say how"):
        native.preprocess(noise(50, 40, 3))


@pytest.mark.long
def test_the_c_is_free_of_warnings():
    flags = ("-Wall", "-Wextra", "-Wmissing-prototypes", "-Wshadow", "-Werror")
    for preprocessing in PREPROCESSINGS.values():
        compile_library(written(preprocessing).source, name="mean_of", flags=(*FAST_FLAGS, *flags))
