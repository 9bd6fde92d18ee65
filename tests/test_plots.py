import io
import warnings

import numpy as np
import pytest
from PIL import Image

from leancnn import plots

HOSTILE = [
    "$\\frac{",
    "a\x1b[31m",
    "b\u202egnp",
    "tab\there",
    "two\nlines",
    "<script>",
    "日本",
    "\ud800",
    "",
]


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("classes", [2, len(HOSTILE), 60])
def test_a_confusion_matrix_is_drawn_for_any_class_names(classes):
    names = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(classes)]
    counts = np.eye(classes, dtype=np.int64) * 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = opened(plots.confusion_matrix(names, counts, "$title\x1b"))
    assert pixels.std() > 0


def test_a_training_curve_is_drawn_from_one_epoch_and_without_validation():
    one = opened(plots.training_curve([{"epoch": 1, "train_loss": 2.3, "val_loss": None}]))
    two = opened(
        plots.training_curve(
            [
                {"epoch": 1, "train_loss": 2.3, "val_accuracy": 0.1},
                {"epoch": 2, "train_loss": 1.3, "val_accuracy": 0.4},
            ]
        )
    )
    assert one.shape == two.shape
    assert (one != two).any()


def test_pictures_do_not_depend_on_the_users_style_and_leave_it_alone():
    import matplotlib

    epochs = [{"epoch": 1, "train_loss": 2.3}]
    plain = plots.training_curve(epochs)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red"}):
        assert plots.training_curve(epochs) == plain
        assert matplotlib.rcParams["text.usetex"]


@pytest.mark.parametrize("many", [1, 23])
def test_a_contact_sheet_holds_every_picture(many):
    images = [np.full((9, 7, 3), (255, 0, 0), np.uint8) for _ in range(many)]
    captions = [HOSTILE[i % len(HOSTILE)] for i in range(many)]
    pixels = opened(plots.contact_sheet(images, captions, marks=[i % 2 == 0 for i in range(many)]))
    red = (pixels == (255, 0, 0)).all(axis=2)
    starts = (red[:, 1:] & ~red[:, :-1]).sum(axis=1).max()  # pictures in the fullest row
    assert starts == min(many, 10)


def test_gray_pictures_are_not_stretched_to_full_contrast():
    image = np.full((8, 8, 1), 100, np.uint8)
    image[0, 0] = 110
    pixels = opened(plots.contact_sheet([image], [""]))
    assert (pixels == 100).all(axis=2).mean() > 0.2


def test_the_demo_picture_is_drawn():
    epochs = [{"epoch": e, "train_loss": 1 / e, "val_accuracy": 1 - 1 / e} for e in (1, 2, 3)]
    images = [np.zeros((8, 8, 1), np.uint8)] * 16
    names = [*"0123456789"]
    counts = np.eye(10, dtype=np.int64)
    png = plots.demo_picture(epochs, names, counts, images, ["7\n0.99"] * 16, [True] * 16, "digits")
    assert opened(png).shape[1] > 1000


@pytest.mark.parametrize("many", [1, len(HOSTILE), 200])
def test_errors_are_drawn_for_networks_of_any_depth_and_layers_of_any_name(many):
    errors = [(f"{HOSTILE[i % len(HOSTILE)]}{i}", i / many) for i in range(many)]
    floats = [name for name, _ in errors[:1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = opened(plots.error_by_layer(errors, "$title\x1b", floats))
    assert pixels.std() > 0
