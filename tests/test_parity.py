"""Trial images that find faults, and one difference and one tolerance for whoever compares."""

import numpy as np
import pytest
from PIL import Image

from leancnn import parity
from leancnn.errors import ParityError
from leancnn.parity import (
    TRIALS,
    WITHIN,
    check_answers,
    difference,
    made_images,
    probability_difference,
    tolerance,
    trial_images,
)
from tests.compiler_saved import network, on_shelf


@pytest.fixture(scope="module", autouse=True)
def speck():
    off = on_shelf()
    yield
    off()


def test_trial_images_drive_values_far():
    images = made_images((9, 8, 3), TRIALS)
    assert not images[0].any()
    assert (images[-1] == 255).all()
    flat = [image for image in images if (image == image[:1, :1]).all()]
    greys = {int(image[0, 0, 0]) for image in flat if len(set(image[0, 0].tolist())) == 1}
    assert greys >= {0, 64, 128, 192, 255}
    assert len({tuple(image[0, 0]) for image in flat}) >= 8, "each channel alone"
    assert any(image.astype(int).sum() == 3 * 255 for image in images), "one bright pixel"
    assert made_images((9, 8, 3), 2).shape == (2, 9, 8, 3)


def test_images_of_the_training_are_among_those_compared(tmp_path):
    net = network()
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "broken.png").write_bytes(b"no picture")
        for number in range(3):
            colour = (number * 40 + 10, 50, 200)
            Image.new("RGB", (20, 20), colour).save(tmp_path / "train" / label / f"{number}.png")
    net.made = {"data": str(tmp_path)}
    images = trial_images(net, 4, real=3)
    assert images.shape == (7, 8, 8, 3)
    assert {tuple(image[0, 0]) for image in images[4:]} <= {(10, 50, 200), (50, 50, 200)}
    net.made = {"data": "digits"}
    assert len(trial_images(net, 4, real=3)) == 4


def test_answers_that_are_nan_or_infinite_agree_only_with_the_same():
    nan, inf = np.nan, np.inf
    assert difference(np.array([nan, inf, 1.0]), np.array([nan, inf, 1.0])) == 0
    assert not difference(np.array([1.0, inf]), np.array([nan, inf])) <= WITHIN
    assert not difference(np.array([nan]), np.array([1.0])) <= WITHIN
    assert not difference(np.array([inf]), np.array([-inf])) <= WITHIN
    assert not difference(np.array([3e38]), np.array([inf])) <= WITHIN
    logits = np.array([[0.0, 1.0], [nan, 1.0]])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert probability_difference(shares, logits) < 1e-9
    assert not probability_difference(np.nan_to_num(shares), logits) <= WITHIN


def test_one_tolerance_for_floats_and_the_very_bits_of_integers_in_c_of_ours():
    net = network()
    assert tolerance(net, ours=True) == tolerance(net, ours=False) == WITHIN
    quantized = type("Quantized", (), {"quantized": True})()
    assert tolerance(quantized, ours=True) == 0
    assert WITHIN < tolerance(quantized, ours=False) < 0.1


def test_answers_are_compared_by_both_entries_that_users_call():
    expected = np.array([[2.0, -1.0], [0.0, 4.0]])
    shares = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    assert check_answers(expected, expected, shares) < WITHIN
    with pytest.raises(ParityError, match="logits differ by"):
        check_answers(expected, expected * 1.01, shares)
    with pytest.raises(ParityError, match="probabilities of uint8 images differ"):
        check_answers(expected, expected, shares[::-1])
    assert check_answers(expected, expected * 1.01, None, within=0.05) > WITHIN


def test_nothing_else_in_the_house_has_a_tolerance_of_its_own():
    """Whoever compares answers takes the numbers from here."""
    import sys

    from leancnn import bench, compile, export  # noqa: F401

    for name in ("bench", "compile", "export", "quantize", "prune.run", "targets.web"):
        module = sys.modules.get(f"leancnn.{name}")
        own = {k: v for k, v in vars(module).items() if k.startswith("WITHIN")} if module else {}
        assert all(value is getattr(parity, key) for key, value in own.items())
