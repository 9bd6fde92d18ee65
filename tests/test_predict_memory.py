"""Images that are in memory: bytes, open files, Pillow's pictures, arrays; and what is none."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leancnn import predict, weights
from leancnn.errors import LeanCNNError, MismatchError
from leancnn.preprocess import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_image_in_memory_is_predicted_as_its_file_is(quiet: Path, pictures: Path) -> None:
    network = weights.load(quiet)
    path = next(pictures.rglob("*.png"))
    expected = predict(network, path)[0].top
    image, data = Image.open(path), path.read_bytes()
    array = np.asarray(image)
    forms = [image, data, bytearray(data), memoryview(data), io.BytesIO(data), array]
    forms += [torch.from_numpy(array.copy()), str(path)]
    for alone in forms[:-1]:
        if isinstance(alone, io.BytesIO):
            alone.seek(0)
        (found,) = predict(network, alone)
        assert (found.top, found.path) == (expected, "image 1"), type(alone)
    top = [share for _, share in expected]
    forms[4] = io.BytesIO(data)
    found = predict(network, forms)
    for one in found:  # a batch sums in another order
        assert [share for _, share in one.top] == pytest.approx(top, rel=1e-5)
    assert [one.path for one in found] == [*(f"image {n}" for n in range(1, 8)), str(path)]
    assert [one.path for one in predict(network, np.stack([array, array]))] == [
        "image 1",
        "image 2",
    ]
    assert np.asarray(image).tobytes() == array.tobytes()  # it is still the caller's


def test_pictures_in_memory_go_through_the_rules_of_files(tmp_path: Path) -> None:
    """Turned upright, 16 bits scaled, transparency over white: whoever holds them."""
    preprocessing = Preprocessing(size=(6, 6))
    random = np.random.default_rng(1)
    colours = random.integers(0, 256, (6, 6, 4), dtype=np.uint8)
    deep = random.integers(0, 65536, (6, 6), dtype=np.uint16)
    turned = Image.fromarray(colours[..., :3])
    turned.getexif()[0x0112] = 6
    for name, image in (
        ("clear.png", Image.fromarray(colours)),
        ("deep.png", Image.fromarray(deep)),
        ("palette.png", Image.fromarray(colours[..., :3]).convert("P")),
        ("one.png", Image.fromarray(colours[..., 0]).convert("1")),
        ("ink.tif", Image.fromarray(colours[..., :3]).convert("CMYK")),
        ("turned.png", turned),
    ):
        image.save(tmp_path / name, **({"exif": image.getexif()} if name == "turned.png" else {}))
        there, here = preprocessing.read(tmp_path / name), preprocessing.read(image)
        assert (there.image == here.image).all(), name
        assert there.warnings == here.warnings, name
    assert (preprocessing.read(deep).image == preprocessing.read(tmp_path / "deep.png").image).all()
    assert (
        preprocessing.read(colours).image == preprocessing.read(tmp_path / "clear.png").image
    ).all()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((8, 8, 3), np.float32), r"pixels are uint8 .*not float32 .*multiply by 255"),
        (np.zeros((3, 8, 8), np.uint8), "channels go last"),
        (np.zeros((8, 0, 3), np.uint8), "no pixels"),
        (np.zeros(8, np.uint8), "pixels are uint8"),
        (np.zeros((8, 8), bool), "not bool"),
        (np.array(["a"]), "pixels are uint8"),
        (Image.new("F", (8, 8)), "whose range is not stated"),
        (Image.new("RGB", (0, 8)), "no pixels"),
        (b"", "empty file"),
        (b"no image", "no image, or its header is damaged"),
        (None, "NoneType is no image; name a file"),
        (7, "int is no image"),
        (torch.zeros(2, 3, requires_grad=True), "no array of pixels"),
        (io.StringIO("text"), "StringIO is no image"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_is_no_image_is_refused_in_a_line(image: object, text: str, quiet: Path) -> None:
    network = weights.load(quiet)
    for given in ([image], image):
        if isinstance(given, io.StringIO):
            given.seek(0)
        with pytest.raises(LeanCNNError, match=text) as error:
            predict(network, given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 9, 8, 3), np.uint8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 8, 8, 1, dtype=torch.uint8),
        "photo.jpg",
        None,
        [[1, 2], [3]],
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'shape', given)}",
)
def test_a_network_refuses_what_is_not_its_input(images: object, quiet: Path) -> None:
    network = weights.load(quiet)
    with pytest.raises(MismatchError, match=r"takes uint8 .*N, (8, 8, 3|H, W, C)"):
        network(images)


def test_a_network_takes_an_array(quiet: Path) -> None:
    network = weights.load(quiet)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    assert torch.equal(network(images), network(torch.from_numpy(images)))
